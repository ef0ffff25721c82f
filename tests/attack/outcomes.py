"""What the attacks share: inputs are tried in this process, and every outcome has one word.

An attack is a script: `python tests/attack/NAME.py --count N` tries N inputs and prints how many
came out how; its exit code is 1 where one came out wrongly. The same inputs are drawn each time.
A small share of each is a test (tests/test_attacks.py).
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fsc_bench.errors import FscBenchError

# Outcomes that are as they should be; every other word is a fault.
RIGHT = ("refused", "read", "shown")


@dataclass
class Tally:
    """How inputs came out: a count by outcome, and the first few of each wrong one."""

    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, outcome: str, detail: str = "") -> None:
        self.counts[outcome] += 1
        if outcome not in RIGHT:
            known = self.examples.setdefault(outcome, [])
            if len(known) < 12:
                known.append(f"{name}: {detail}")

    @property
    def wrong(self) -> int:
        return sum(count for outcome, count in self.counts.items() if outcome not in RIGHT)

    def lines(self) -> list[str]:
        found = [f"{sum(self.counts.values()):,} inputs, {self.wrong:,} came out wrongly"]
        found += [f"  {outcome}: {count:,}" for outcome, count in self.counts.most_common()]
        return found + [
            f"    {outcome}: {line}" for outcome, lines in self.examples.items() for line in lines
        ]


def refused_or(read: Callable[[], str]) -> tuple[str, str]:
    """(outcome, detail) of reading one input: what `read` says, or how it was refused."""
    try:
        return read(), ""
    except FscBenchError as error:
        text = str(error)
        if "\n" in text:
            return "several lines", text[:200]
        return "refused", text
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:120]}"


@dataclass(frozen=True)
class Ran:
    """How a command came out. code: its exit code, None where it ended in a traceback."""

    code: int | None
    out: str
    err: str


def command(*arguments: object) -> Ran:
    """Runs `fsc-bench ...` in this process."""
    from fsc_bench.cli.main import app

    out, err = io.StringIO(), io.StringIO()
    code: int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc(file=err)
            code = None
    return Ran(code, out.getvalue(), err.getvalue())


def unprintable(text: str) -> str:
    """The lines of a terminal's output that hold anything but printable characters."""
    return "; ".join(repr(line) for line in text.split("\n") if not line.isprintable())


def tried(count: int, one: Callable[[int], tuple[str, str]], apart: bool = False) -> Tally:
    """Tries inputs 0 to `count`, each by `one(number)`, which gives (outcome, detail).

    apart: in a child process, so that an interpreter that dies costs one input and not the rest.
    """
    tally, begin = Tally(), 0
    while begin < count:
        results = _of_child(begin, count, one) if apart else ((n, *one(n)) for n in range(count))
        for number, outcome, detail in results:
            tally.add(str(number), outcome, detail)
            begin = number + 1
        if begin < count:
            tally.add(str(begin), "interpreter died")
            begin += 1
    return tally


def _of_child(begin: int, end: int, one: Callable[[int], tuple[str, str]]) -> Iterable:
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        with open(send, "w", buffering=1) as out:
            for number in range(begin, end):
                print(json.dumps([number, *one(number)]), file=out)
            out.flush()
        os._exit(0)
    os.close(send)
    with open(receive) as lines:
        yield from map(json.loads, lines)
    os.waitpid(child, 0)


@contextlib.contextmanager
def workplace() -> Iterable[Path]:
    """A folder of its own, which is the current one; what is written beside it is found out."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as outer:
        inner = Path(outer).resolve() / "work"
        inner.mkdir()
        os.chdir(inner)
        try:
            yield inner
        finally:
            os.chdir(before)


def written_outside(inner: Path) -> list[str]:
    """What lies beside the workplace: nothing should."""
    return [path.name for path in inner.parent.iterdir() if path != inner]


def main(attack: Callable[..., Tally], count: int, **options: bool) -> None:
    """The command line of an attack."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--count", type=int, default=count, help=f"[default: {count:,}]")
    tally = attack(parser.parse_args().count, **options)
    print("\n".join(tally.lines()))
    sys.exit(tally.wrong > 0)
