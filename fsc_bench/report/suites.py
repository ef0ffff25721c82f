"""Suites: which tasks a table has, from the catalogue and from what the runs themselves carry.

A shipped suite's members are the catalogue's, whatever a result calls itself. Of any other suite
the results know enough: each carries the facts of its task, so that a private benchmark has a table
of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsc_bench.blind import Blind
from fsc_bench.results import Result, Run
from fsc_bench.suite import Suite, suite_of
from fsc_bench.task import GROUPS, Task


@dataclass(frozen=True)
class TaskFacts:
    """What a table needs to know of a task."""

    name: str
    suite: str
    group: str
    version: int
    headline: tuple[str, ...]
    chance: Mapping[str, float]  # percent, by headline metric
    decays: bool = False
    blind: float | None = None  # percent that the better of two scorers without pictures gets
    table: Suite | None = field(default=None, compare=False)  # where it is not its own suite's

    @property
    def averages(self) -> dict[str, str | None]:
        """By average of the suite, the metric with which the task enters it, if it does."""
        averages = (self.table or suite_of(self.suite)).averages
        return {
            name: average.metric_of(self.name, self.group, self.headline)
            for name, average in averages.items()
        }

    @classmethod
    def of(cls, task: Task, suite: Suite | None = None) -> "TaskFacts":
        """suite: whose table it stands in; its own where none is named."""
        return cls(
            task.name,
            task.suite,
            task.group,
            task.version,
            task.headline,
            task.chance,
            task.data.decays,
            task.blind.best,
            suite,
        )

    @classmethod
    def read(cls, result: Result) -> "TaskFacts":
        """The facts that a result carries (results.py)."""
        facts: Mapping[str, Any] = result.facts
        return cls(
            result.task,
            facts["suite"],
            facts["group"],
            result.version,
            tuple(facts["headline"]),
            facts["chance"],
            bool(facts.get("decays")),
            Blind(**facts.get("blind", {})).best,
        )


def same_task(result: Result, task: TaskFacts) -> str:
    """Why a result is not of this task and version; empty where it is."""
    found = TaskFacts.read(result)
    if found.suite != task.suite:
        return f"of another task of that name, suite {found.suite!r}"
    if found.version != task.version:
        return f"of version {found.version} of the task; the table is of version {task.version}"
    if (found.group, found.headline) != (task.group, task.headline):
        return "of another task of that name and suite"
    return ""


def suites(runs: Sequence[Run], catalogue: Iterable[Task]) -> dict[str, list[TaskFacts]]:
    """The tasks of every suite that a run has a result of, by suite, in the order of tables."""
    shipped: dict[str, list[TaskFacts]] = {}
    for task in catalogue:
        shipped.setdefault(task.suite, []).append(TaskFacts.of(task))
    own: dict[str, dict[str, TaskFacts]] = {}
    met: set[str] = set()
    for run in runs:
        for result in run.results.values():
            facts = TaskFacts.read(result)
            met.add(facts.suite)
            if facts.suite not in shipped:
                known = own.setdefault(facts.suite, {})
                # Of several versions the newest has the table; rows of the others are left out.
                if facts.name not in known or known[facts.name].version < facts.version:
                    known[facts.name] = facts
    found = {suite: tasks for suite, tasks in shipped.items() if suite in met}
    for suite in sorted(own):
        tasks = own[suite].values()
        found[suite] = sorted(tasks, key=lambda task: (GROUPS.index(task.group), task.name))
    return found


def strangers(runs: Sequence[Run], tables: Mapping[str, Sequence[TaskFacts]]) -> list[str]:
    """Results that stand in no table: tasks that call a shipped suite theirs. One line each."""
    members = {suite: {task.name for task in tasks} for suite, tasks in tables.items()}
    lines = []
    for run in runs:
        for result in run.results.values():
            suite = TaskFacts.read(result).suite
            if result.task not in members[suite]:
                lines.append(
                    f"{run.path}: {result.task} is no task of the shipped suite {suite!r}: it "
                    "stands in no table. Give its task file a suite of its own."
                )
    return list(dict.fromkeys(lines))
