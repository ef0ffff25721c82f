"""Errors a user can mend, one line each; anything else is our fault and keeps its traceback.

FscBenchError            one line, exit code 2
    UsageError           a wrong argument, file or setting           (2)
    RunError             a task could not be scored                  (1)
    DataError            data that is missing, gated or damaged      (3)
    GateError            a gate the user set did not hold            (4)
        Undecided        a comparison that must be decided is not    (5)
"""

import difflib
from collections.abc import Iterable


class FscBenchError(Exception):
    """A mistake the user can mend: the message says what is wrong, where, and what to do."""

    exit_code = 2


class UsageError(FscBenchError):
    """A wrong argument, task file or setting."""


class RunError(FscBenchError):
    """A task failed while the others may go on."""

    exit_code = 1


class DataError(FscBenchError):
    """Data that is missing, gated, damaged or not what the task file promises."""

    exit_code = 3


class GateError(FscBenchError):
    """A condition that the user set (`--fail-if-worse`, `--check`) does not hold."""

    exit_code = 4


class Undecided(GateError):
    """A comparison that the user wants decided (`--strict`) is not."""

    exit_code = 5


def near_miss(value: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `choices`, or nothing."""
    close = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException) -> str:
    """An exception's whole text on one line; its class where it has none."""
    return " ".join(str(error).split()).rstrip(". ") or type(error).__name__


def reason(error: OSError) -> str:
    """What the system says, without the path, on one line: a message names the path itself."""
    return error.strerror or one_line(error)
