"""Tally: what became of hostile inputs, counted. Used by every script of this folder.

An input may be read or refused by one line; anything else is a fault: a traceback, a line of
several lines, a wrong value, a file outside its folder, code that ran, more memory or time than
said. A script prints the counts and ends with 1 where there was a fault.
"""

import argparse
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fsc_bench.errors import FscBenchError

SHOWN = 12
PATIENCE = 30  # seconds for one input
LONGEST = 2000  # letters of a line that still helps


class Wrong(Exception):
    """The product did something that it must not."""


@dataclass
class Tally:
    """Counts of outcomes, and the faults, each with the name of its input."""

    what: str
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lines: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")
    peak: tuple[int, str] = (0, "")
    begun: float = field(default_factory=time.monotonic)

    def attempt(self, name: str, work: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Carries out `work`; a value counts as read, FscBenchError as refused."""
        started = time.monotonic()
        value = None
        try:
            value = work()
            outcome = "read"
        except FscBenchError as error:
            outcome, line = "refused", str(error)
            self.lines[name] = line
            if "\n" in line or len(line) > LONGEST:
                self.fault(name, f"not one line: {line!r:.300}")
        except Wrong as error:
            outcome = "wrong"
            self.fault(name, str(error))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "traceback"
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.fault(name, f"{type(error).__name__}: {error!s:.150} ({last.name}:{last.lineno})")
        spent = time.monotonic() - started
        self.slowest = max(self.slowest, (spent, name))
        if spent > seconds:
            self.fault(name, f"took {spent:.0f} s")
        self.counts[outcome] += 1
        return value

    def isolated(self, name: str, work: Callable[[], Any], memory: int = 8000) -> None:
        """`attempt` in a process of its own, which may die; `memory` is the MB it is allowed."""
        ours, theirs = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(ours)
            resource.setrlimit(resource.RLIMIT_AS, (memory << 20, memory << 20))
            alone = Tally(self.what)
            alone.attempt(name, work)
            told = (alone.counts, alone.faults, alone.lines, alone.slowest, peak_memory())
            with os.fdopen(theirs, "wb") as file:
                pickle.dump(told, file)
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as file:
            ready, _, _ = select.select([file], [], [], PATIENCE)
            content = file.read() if ready else b""
        if not content:
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if content:
            counts, faults, lines, slowest, peak = pickle.loads(content)
            self.counts += counts
            self.faults += faults
            self.lines |= lines
            self.slowest = max(self.slowest, slowest)
            self.peak = max(self.peak, (peak, name))
        else:
            self.counts["hung" if not ready else "crashed"] += 1
            self.fault(name, "never ended" if not ready else f"the process died ({status})")

    def fault(self, name: str, why: str) -> None:
        self.faults.append(f"{name}: {why}")

    def report(self) -> int:
        """Prints the counts. Returns the exit code."""
        parts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        total = sum(self.counts.values())
        print(
            f"{self.what}: {total:,} inputs: {parts}; {len(self.faults):,} faults; slowest "
            f"{self.slowest[0]:.1f} s ({self.slowest[1]}); peak memory "
            f"{max(peak_memory(), self.peak[0]):,} MB ({self.peak[1] or 'all'}); "
            f"{time.monotonic() - self.begun:.0f} s"
        )
        for line in self.faults[:SHOWN]:
            print(f"  {line:.400}")
        return 1 if self.faults else 0


def peak_memory() -> int:
    """MB that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 if sys.platform != "darwin" else 1024**2)


def counted(default: int) -> argparse.Namespace:
    """`--count N`, `--seed N` and `--lines` (print what was said) of a script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", action="store_true", help="print what was said of each input")
    return parser.parse_args()


def finish(tally: Tally, chosen: argparse.Namespace) -> None:
    if chosen.lines:
        for name, line in tally.lines.items():
            print(f"  {name}: {line}")
    sys.exit(tally.report())
