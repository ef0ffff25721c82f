"""Plugins: what other packages add by entry points. A broken one is told in one line that names its
package, and stops nothing else.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fsc_bench.errors import FscBenchError, UsageError, one_line
from fsc_bench.system.escape import for_terminal

OURS = "fsc-bench"


@dataclass(frozen=True)
class Plugin:
    """One entry point: `name` as users write it, and the package that adds it."""

    group: str
    name: str
    package: str
    point: EntryPoint

    @property
    def who(self) -> str:
        return f"package {self.package}, entry point {self.group}: {self.name}"

    def load(self) -> Any:
        """What it names. Raises UsageError, one line that names the package, where that fails."""
        try:
            return self.point.load()
        except FscBenchError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{self.who}: cannot be imported: {type(error).__name__}: {one_line(error)}. "
                "Mend or remove the package."
            ) from error


def plugins(group: str) -> list[Plugin]:
    """The entry points of a group, by name, each distinct one once."""
    found = {}
    for point in entry_points(group=group):
        package = point.dist.name if point.dist else "?"
        found[(point.name, point.value, package)] = Plugin(group, point.name, package, point)
    return sorted(found.values(), key=lambda one: (one.name, one.package != OURS, one.package))


def usable(group: str, taken: Callable[[], list[str]]) -> dict[str, Plugin]:
    """The plugins whose names are not taken by ours or by an earlier one; others are told."""
    kept: dict[str, Plugin] = {}
    ours = set(taken())
    for one in plugins(group):
        if one.name in ours:
            complain(f"{one.who}: left out: the name {one.name!r} is one of fsc-bench's own.")
        elif one.name in kept:
            complain(
                f"{one.who}: left out: the name {one.name!r} is taken by package "
                f"{kept[one.name].package}."
            )
        else:
            kept[one.name] = one
    return kept


@cache
def complain(line: str) -> None:
    """Says a line on stderr, once a process, in the first process of several."""
    if int(os.environ.get("RANK", "0") or 0) == 0:
        print(f"fsc-bench: {for_terminal(line)}", file=sys.stderr)
