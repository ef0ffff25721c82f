"""Suites: which tasks make a table, and which averages it has, as facts of one TOML file.

Shipped ones lie in tasks/suites; one of one's own is named by its file (`-t mine.toml`). A file
says nothing of how anything is computed.

    title = "Mine"                        # the file's name is the suite's
    reading = ["Order asks for ..."]      # how to read its numbers, a sentence or two each; without
                                          # it: which tasks each average is of
    tasks = ["winoground", "./own.toml"]  # tasks, globs, suites, files beside this one; without
                                          # it: the tasks that name the suite as theirs
    [groups]
    order = ["winoground", "aro"]         # optional, of these tasks
    also = ["order+"]                     # of a shipped suite: what else `-t` calls it
    [averages]
    Order = { of = "order" }              # a group of this file, or one of the three of tasks
    Mine  = { of = ["own"], metric = "text" }   # a list of tasks; the metric is the headline's
                                                # first, or its first that is or begins so
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.facts import Facts, check_name, read_toml
from fsc_bench.task import (
    GROUPS,
    Task,
    catalogue,
    is_apart,
    is_shipped,
    is_suite,
    own_task,
    select,
    tasks_folder,
)


@dataclass(frozen=True)
class Average:
    """What an average is of: tasks of a group, or those named; and with which metric."""

    group: str = ""
    tasks: tuple[str, ...] = ()
    metric: str = ""

    def metric_of(self, task: str, group: str, headline: Sequence[str]) -> str | None:
        """The metric with which a task enters; None where it does not."""
        if not (group == self.group if self.group else task in self.tasks):
            return None
        return next((name for name in headline if _fits(name, self.metric)), None)


def _fits(name: str, metric: str) -> bool:
    return not metric or name == metric or name.startswith(f"{metric}_")


@dataclass(frozen=True)
class Suite:
    """One suite. apart: why its numbers stand beside no others; empty where they may."""

    name: str
    title: str = ""
    tasks: tuple[Task, ...] = ()
    averages: Mapping[str, Average] = field(default_factory=dict)
    default: bool = False
    published: bool = False
    apart: str = ""
    also: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()


class AverageTable(Facts, frozen=True):
    """[averages] NAME"""

    of: str | tuple[str, ...]
    metric: str = ""


class SuiteFile(Facts, frozen=True):
    """A suite's file as it stands."""

    title: str
    tasks: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    averages: dict[str, AverageTable] = msgspec.field(default_factory=dict)
    default: bool = False
    published: bool = False
    apart: str = ""
    also: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()


@cache
def shipped() -> dict[str, Suite]:
    """The suites of tasks/suites, by name."""
    found = {}
    for path in sorted((tasks_folder() / "suites").glob("*.toml")):
        file, name = read_toml(path, SuiteFile), path.stem
        own = [task for task in catalogue().values() if task.suite == name and is_shipped(task)]
        # Without `tasks` of its own: these are found by the suite that they name.
        found[name] = replace(_suite(path, file, tuple(own)), tasks=())
    return found


def suite_called(word: str) -> str:
    """The name of the shipped suite that a word means; any other word as it is."""
    return next((name for name, suite in shipped().items() if word in suite.also), word)


def suite_of(name: str) -> Suite:
    """A shipped suite; of any other name one with the averages of the default suite."""
    return shipped().get(name) or Suite(name, averages=default().averages)


def default() -> Suite:
    """What is meant where no task is named."""
    return next(suite for suite in shipped().values() if suite.default)


def place_of(tasks: Sequence[Task]) -> str:
    """The folder, below those of data and of runs, of tasks whose suite stands apart: its name;
    empty for all other tasks. Raises UsageError where both are meant at once.
    """
    places = {(task.suite if is_apart(task) else ""): task for task in reversed(tasks)}
    if len(places) > 1:
        (place, one), (_, other) = sorted(places.items(), reverse=True)[:2]
        raise UsageError(
            f"{one.name} is a task of the suite {place!r}, {other.word} is none: they lie in "
            "different folders. Score them by two commands, or calls."
        )
    return next(iter(places), "")


def read_suite(path: Path, within: tuple[Path, ...] = ()) -> Suite:
    """A suite of one's own. within: the files that led here.

    Raises UsageError, one line: an unknown or repeated task, a taken name, an average of no task or
    of metrics of different scales, a file that leads back to itself.
    """
    path = path.resolve()
    if path in within:
        names = " -> ".join(one.name for one in (*within, path))
        raise UsageError(f"{path}: leads back to itself: {names}.")
    also = (word for suite in shipped().values() for word in suite.also)
    taken = {
        *shipped(),
        *also,
        *GROUPS,
        *(task.suite for task in catalogue().values()),
        *catalogue(),
    }
    if path.stem in taken:
        raise UsageError(f"{path}: the name {path.stem!r} is taken; rename the file.")
    file = read_toml(path, SuiteFile)
    if not file.tasks:
        raise UsageError(f"{path}: 'tasks' is empty; name at least one.")
    tasks: dict[str, Task] = {}
    for word in file.tasks:
        for task in _members(path, word, (*within, path)):
            if task.name in tasks:
                raise UsageError(f"{path}: 'tasks' names {task.name!r} twice.")
            tasks[task.name] = task
    return _suite(path, file, tuple(tasks.values()))


def _members(path: Path, word: str, within: tuple[Path, ...]) -> Sequence[Task]:
    if not word.endswith(".toml"):
        try:
            return select([word])
        except UsageError as error:
            raise UsageError(f"{path}: 'tasks': {error}") from None
    file = path.parent / word
    if not file.is_file():
        raise UsageError(f"{path}: 'tasks': there is no file {file}.")
    return read_suite(file, within).tasks if is_suite(file) else [own_task(file)]


def _suite(path: Path, file: SuiteFile, tasks: tuple[Task, ...]) -> Suite:
    check_name(file.title, f"{path}: 'title'")
    for text in file.reading:
        check_name(text, f"{path}: 'reading'")
    known = {task.name: task for task in tasks}
    for group, names in file.groups.items():
        _check_known(f"{path}: [groups] {group}", names, known)
    averages = {}
    for name, table in file.averages.items():
        where = f"{path}: [averages] {name}"
        check_name(name, where)
        if name in known or "/" in name:
            raise UsageError(f"{where}: the name is a task's, or holds a '/'; choose another.")
        averages[name] = _average(where, table, file.groups, known)
    return Suite(
        path.stem,
        file.title,
        tasks,
        averages,
        file.default,
        file.published,
        file.apart,
        file.also,
        file.reading,
    )


def _average(
    where: str,
    table: AverageTable,
    groups: Mapping[str, tuple[str, ...]],
    known: Mapping[str, Task],
) -> Average:
    if isinstance(table.of, str) and table.of in GROUPS and table.of not in groups:
        average = Average(group=table.of, metric=table.metric)
    else:
        if isinstance(table.of, str) and table.of not in groups:
            hint = near_miss(table.of, [*groups, *GROUPS])
            raise UsageError(f"{where}: there is no group {table.of!r}.{hint}")
        names = groups[table.of] if isinstance(table.of, str) else table.of
        _check_known(where, names, known)
        average = Average(tasks=tuple(names), metric=table.metric)
    if known:
        _check_scale(where, average, known)
    return average


def _check_known(where: str, names: Sequence[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: {name!r} is no task of the suite.{near_miss(name, known)}")
        if names.count(name) > 1:
            raise UsageError(f"{where}: names {name!r} twice.")


def _check_scale(where: str, average: Average, known: Mapping[str, Task]) -> None:
    """Shares of foils, of classes and recalls at some rank are different scales."""
    scales: dict[str, str] = {}
    for task in known.values():
        metric = average.metric_of(task.name, task.group, task.headline)
        if metric is None and task.name in average.tasks:
            raise UsageError(
                f"{where}: {task.name} has no headline metric {average.metric!r}."
                f"{near_miss(average.metric, task.headline)}"
            )
        if metric is not None:
            scales.setdefault(metric if task.kind == "retrieval" else task.kind, task.name)
    if not scales:
        raise UsageError(f"{where}: is of no task of the suite.")
    if len(scales) > 1:
        told = " and ".join(f"{scale} ({name})" for scale, name in scales.items())
        raise UsageError(f"{where}: metrics of different scales, {told}: they have no mean.")
