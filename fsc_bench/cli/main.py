"""The command line: parse, call one function, print. A user's mistake is one line and an exit code.

Heavy modules are imported inside the commands that need them: `tasks`, `leaderboard` and `--help`
start without torch.
"""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fsc_bench import __version__
from fsc_bench.cli import (
    ablate,
    cache,
    compare,
    curves,
    data,
    doctor,
    explain,
    export,
    negatives,
    profile,
    readers,
    report,
    rescore,
    run,
    semantics,
    status,
    tasks,
    train,
)
from fsc_bench.errors import FscBenchError, RunError, reason
from fsc_bench.system.distributed import is_first, leave_at_once
from fsc_bench.system.escape import for_terminal, shortened
from fsc_bench.system.files import FULL
from fsc_bench.system.remote import refuse_remote
from fsc_bench.system.stopping import LEFT, Left, Stopped, exit_code, listen, watch_launcher


class OneLineErrors(TyperGroup):
    """Prints a user's mistake as one line on stderr; our own faults keep their traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        _print_anything()
        listen()
        watch_launcher()
        try:
            for word in list(args[0]) if args and args[0] else sys.argv[1:]:
                refuse_remote(word)
            code = super().main(*args, standalone_mode=False, **kwargs)
        except FscBenchError as error:
            _complain(str(error))
            sys.exit(error.exit_code)
        except (Stopped, typer.Abort, KeyboardInterrupt) as stopped:
            if is_first():
                _complain("stopped. The same command continues.")
            leave_at_once(exit_code(stopped))
        except Left as left:
            if is_first():
                _complain(str(left))
            leave_at_once(LEFT)
        except BrokenPipeError:
            sys.exit(141)
        except OSError as error:
            if error.errno is None:  # a library's own error, not the system's
                raise
            _complain(_of_the_system(error))
            sys.exit(RunError.exit_code)
        except Exception as error:
            # typer's usage errors share no public base class; this is what they have in common.
            if not hasattr(error, "format_message"):
                raise
            _complain(error.format_message() + _given(error, args))
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as stopped:
            raise Stopped from stopped  # typer would end with 130 and no word


def _given(error: Any, args: tuple) -> str:
    """What the user wrote for the option that an error is about, where its message keeps it."""
    words = list(args[0]) if args and args[0] else sys.argv[1:]
    names = list(getattr(getattr(error, "param", None), "opts", ()))
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            value = value if equals else " ".join(words[place + 1 : place + 2])
            said = f" (given: {shortened(value)})"
            return said if value and repr(value)[1:-1] not in error.format_message() else ""
    return ""


def _print_anything() -> None:
    """A terminal that knows few characters shows the others by number; no output ends in an error
    for what it says.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _of_the_system(error: OSError) -> str:
    """What the system says against a file, and which file, wherever it happened."""
    if error.errno in FULL:
        what = "the disk is full. Free some space; the same command goes on"
    else:
        what = f"{reason(error)} ({errno.errorcode.get(error.errno, error.errno)})"
    names = [
        for_terminal(str(name)) for name in (error.filename, error.filename2) if name is not None
    ]
    return f"{' and '.join(names)}: {what}." if names else f"{what}."


def _complain(message: str) -> None:
    print(f"fsc-bench: {for_terminal(' '.join(message.split()))}", file=sys.stderr)


app = typer.Typer(
    cls=OneLineErrors,
    help="The honest evaluation of CLIP-style vision-language models.",
    no_args_is_help=False,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"fsc-bench {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


# In the order in which `--help` lists them.
for commands in (
    run,
    status,
    tasks,
    report,
    compare,
    rescore,
    export,
    data,
    doctor,
    readers,
    train,
    curves,
    semantics,
    explain,
    ablate,
    profile,
    negatives,
    cache,
):
    commands.add_commands(app)
