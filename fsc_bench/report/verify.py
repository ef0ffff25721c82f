"""Verify: does this software's arithmetic give the published numbers?

Published averages are replayed from published subset scores, published outcomes sample by sample
through the averaging tree, and a run of a published model stands beside its published row.
"""

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsc_bench.errors import DataError
from fsc_bench.report.leaderboard import members, present, published_rows
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Run
from fsc_bench.score.statistics import ROOT, tree_mean
from fsc_bench.task import Task

ROUNDED = 0.1  # of tables with one decimal: half of it for the cells, half for the average
MOST = 64_000_000  # bytes of an outcomes file, unpacked


@dataclass(frozen=True)
class Check:
    """One replayed number, in percent. allowed: by how much the two may differ."""

    what: str
    stated: float
    replayed: float
    allowed: float

    @property
    def holds(self) -> bool:
        return abs(self.stated - self.replayed) <= self.allowed


@dataclass(frozen=True)
class Beside:
    """A run's number beside the published one of the same model. inside: within its interval."""

    model: str
    task: str
    node: str
    metric: str
    value: float
    low: float
    high: float
    published: float

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high


def replay_references(tasks: Iterable[Task]) -> list[Check]:
    """Headlines from the subset scores of the same model, of every task file that states both."""
    found = []
    for task in tasks:
        for model, reference in task.reference.items():
            for metric in task.headline:
                values = {
                    leaf: value[metric] if isinstance(value, Mapping) else value
                    for leaf, value in reference.get("subsets", {}).items()
                    if not isinstance(value, Mapping) or metric in value
                }
                replayed = tree_mean(task.subsets, values, task.leaves, task.within).get(ROOT)
                if metric in reference and replayed is not None:
                    what = f"{task.name} {metric} of {model}"
                    allowed = rounding(reference[metric]) + max(map(rounding, values.values()))
                    found.append(Check(what, reference[metric], float(replayed), allowed))
    return found


def rounding(stated: float) -> float:
    """By how much a number may have been rounded, from the decimals with which it is stated."""
    decimals = len(f"{stated:.10f}".rstrip("0").partition(".")[2])
    return 0.5 * 10.0 ** -max(decimals, 1) * (1 + 1e-6)


def replay_tables(tasks: Sequence[Task], folder: Path | None = None) -> list[Check]:
    """Averages from the task scores of the same row, of every published row that has both."""
    facts = [TaskFacts.of(task) for task in tasks]
    found = []
    for row in published_rows(facts, folder):
        for name in present(facts):
            parts = [row.cells.get(column) for column in members(name, facts)]
            if name in row.cells and parts and all(parts):
                mean = sum(part.value for part in parts) / len(parts)
                what = f"{name} of {row.model} [{row.source}]"
                found.append(Check(what, row.cells[name].value, mean, ROUNDED))
    return found


def replay_outcomes(path: Path, task: Task, model: str) -> list[Check]:
    """Subsets and headline from a file with a hit for every SugarCrepe question (BiVLC, arXiv
    2406.09952: columns type, subtype, correct), against the published scores of `model`. Subsets of
    another size than the task's are left out; of an older release swap_obj has 246.

    Raises DataError, one line, where the file is none.
    """
    hits: dict[str, list[int]] = {}
    for number, row in enumerate(_rows(path), 2):
        try:
            subset, correct = f"{row['type']}_{row['subtype']}", row["correct"].strip()
        except (KeyError, AttributeError):
            raise DataError(f"{path}: line {number}: lacks type, subtype or correct.") from None
        if subset not in task.leaves or correct not in ("0", "1"):
            raise DataError(f"{path}: line {number}: {subset!r:.60}, correct {correct!r:.20}.")
        hits.setdefault(subset, []).append(int(correct))
    values = {subset: 100 * sum(part) / len(part) for subset, part in hits.items()}
    counts = {subset: len(part) for subset, part in hits.items()}
    stated = task.reference[model]["subsets"]
    found = [
        Check(f"{path.name}: {subset}", stated[subset], value, rounding(stated[subset]))
        for subset, value in values.items()
        if counts[subset] == task.leaves[subset]
    ]
    whole = tree_mean(task.subsets, values, counts, task.within).get(ROOT)
    if whole is not None:
        metric = task.headline[0]
        found.append(Check(f"{path.name}: headline", task.reference[model][metric], whole, 0.05))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, "rb") as raw:
            packed = path.suffix == ".gz"
            content = (gzip.GzipFile(fileobj=raw) if packed else raw).read(MOST + 1)
        if len(content) > MOST:
            raise DataError(f"{path}: more than {MOST:,} bytes.")
        return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of outcomes ({error}).") from None


def beside_published(runs: Sequence[Run], tasks: Sequence[Task]) -> list[Beside]:
    """Every number of the runs whose model has a published one in a task file, node by node."""
    found = []
    for run in runs:
        for task in tasks:
            reference, result = task.reference.get(run.name), run.results.get(task.name)
            if reference is None or result is None or result.version != task.version:
                continue
            stated = {ROOT: reference, **reference.get("subsets", {})}
            for node, cells in result.metrics.items():
                for metric, cell in cells.items():
                    published = _stated(stated.get(node), metric, task)
                    if published is None or cell.value is None or cell.low is None:
                        continue
                    numbers = (cell.value, cell.low, cell.high, published)
                    found.append(Beside(run.name, task.name, node, metric, *numbers))
    return found


def _stated(value: object, metric: str, task: Task) -> float | None:
    """A published number: of a subset a bare number is the first headline metric's."""
    if isinstance(value, Mapping):
        value = value.get(metric)
    elif metric != task.headline[0]:
        return None
    return value if isinstance(value, int | float) else None
