"""Leaderboard: results to CSV and Markdown. It computes plain means only, and imports no torch.

An average with a hole in it is "-", never a mean of what happens to be there. Published numbers
stand in a table of their own: they were computed by other software. Tables are made of any suite:
each result carries the facts of its task (report/suites.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.report.blind import blind_cells
from fsc_bench.report.published import Quoted, read_published
from fsc_bench.report.suites import TaskFacts, same_task
from fsc_bench.results import Cell, Result, Run
from fsc_bench.suite import shipped, suite_of
from fsc_bench.task import catalogue

NAMED = 6  # columns of an average; more of them are counted


@dataclass(frozen=True)
class Row:
    """One line: a model and its cells by column; a column without a cell is a hole.

    left_out: what the model has a result of that this table cannot show, and why, by task, or by
    column where it lacks one number of a task alone. draws:
    percent [replicates] by column, where they are known: one bootstrap, the same for all rows.
    rank: the first and last place that 95% of the draws give it among the complete rows; tied: the
    complete rows from which it differs within error. seeds: what groups it with runs of other seeds
    (results.py), if anything does. base: the row's name that it was fine-tuned from, if one is;
    signature: what that did (ranking.py, `signature`). scorer: how a model that is no dual encoder
    came to its numbers, in words; its name is marked. trained_on: what it was fine-tuned on, if it
    says so. official: what another program's metrics are of the same samples, by "task metric";
    a cell's note says whose they are. path: the run's folder, of a measured row.
    """

    model: str
    source: str
    cells: Mapping[str, Cell]
    left_out: Mapping[str, str] = field(default_factory=dict)
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    rank: tuple[int, int] | None = None
    tied: tuple[str, ...] = ()
    seeds: str = ""
    base: str = ""
    signature: str = ""
    scorer: str = ""
    trained_on: str = ""
    official: Mapping[str, Cell] = field(default_factory=dict)
    path: Path | None = None


def columns(tasks: Sequence[TaskFacts]) -> dict[str, tuple[TaskFacts, str]]:
    """Column name -> (task, headline metric): one a task, two a retrieval task."""
    return {_column(task, metric): (task, metric) for task in tasks for metric in task.headline}


def _column(task: TaskFacts, metric: str) -> str:
    return task.name if len(task.headline) == 1 else f"{task.name} {metric}"


def members(name: str, tasks: Sequence[TaskFacts]) -> list[str]:
    """The columns that an average is of."""
    found = [(task, task.averages.get(name)) for task in tasks]
    return [_column(task, metric) for task, metric in found if metric]


def present(tasks: Sequence[TaskFacts]) -> list[str]:
    """The averages that a suite has."""
    return [name for name in declared(tasks) if members(name, tasks)]


def declared(tasks: Sequence[TaskFacts]) -> list[str]:
    """The averages that a suite's file names, in its order, those of no task too."""
    return list(dict.fromkeys(name for task in tasks for name in task.averages))


def reading(tasks: Sequence[TaskFacts]) -> list[str]:
    """How to read the averages of a suite, a line each: in the words of its file, or else which
    columns each is of.
    """
    suite = tasks[0].table or suite_of(tasks[0].suite)
    if suite.reading:
        return list(suite.reading)
    return [f"{name} is {_made_of(members(name, tasks))}." for name in present(tasks)]


def _made_of(columns: Sequence[str]) -> str:
    if len(columns) == 1:
        return f"the score of {columns[0]}"
    told = f": {', '.join(columns)}" if len(columns) <= NAMED else ""
    return f"the mean of {len(columns)} columns{told}"


def averages(
    cells: Mapping[str, Cell],
    tasks: Sequence[TaskFacts],
    draws: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Cell]:
    """The averages of the suite's file: plain means over all tasks that each is of, or nothing.

    draws: by column, as in `Row`: the interval is that of their mean, in which an image that
    several tasks ask about counts in all of them alike. Without them the tasks are taken as
    independent, and half-widths add in squares.
    """
    found = {}
    for name in present(tasks):
        wanted = members(name, tasks)
        parts = [cells.get(column) for column in wanted]
        if not parts or any(part is None or not part.counts for part in parts):
            continue
        marked = [name for name, part in zip(wanted, parts, strict=True) if part.note]
        note = f"holds {', '.join(marked)}, not complete" if marked else ""
        found[name] = _mean(parts, note, mean_of_draws(wanted, draws or {}))
    return found


def mean_of_draws(columns: Sequence[str], draws: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The draws of a mean over columns; None where one of them has none."""
    if not columns or any(column not in draws for column in columns):
        return None
    return sum(draws[column] for column in columns) / len(columns)


def _mean(parts: Sequence[Cell], note: str, drawn: np.ndarray | None) -> Cell:
    """The plain mean; strict is the mean of what each is by the strict rule."""
    n = len(parts)
    mean = sum(part.value for part in parts) / n
    strict = None
    if any(part.strict is not None for part in parts):
        strict = sum(part.value if part.strict is None else part.strict for part in parts) / n
    if n == 1:  # nothing to average: the interval is the task's own
        return replace(parts[0], note=note, n=None, chance=None)
    if any(part.low is None for part in parts):
        return Cell(mean, note=note, strict=strict)
    if drawn is not None:
        return Cell(mean, *percentiles(drawn), strict=strict, note=note)
    below = sqrt(sum((part.value - part.low) ** 2 for part in parts)) / n
    above = sqrt(sum((part.high - part.value) ** 2 for part in parts)) / n
    return Cell(mean, mean - below, mean + above, strict=strict, note=note)


def percentiles(drawn: np.ndarray) -> tuple[float, float]:
    """The 95% interval of bootstrap draws, without those that drew no sample."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def measured_row(
    run: Run,
    tasks: Sequence[TaskFacts],
    draws: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Row:
    """A run's row. Results of another task or task version are holes, partial ones are marked.

    draws: by task and metric (results.read_draws).
    """
    cells, drawn = {}, {}
    left_out = {}
    for name, (task, metric) in columns(tasks).items():
        result = run.results.get(task.name)
        if result is None:
            continue
        if why := same_task(result, task):
            left_out[task.name] = why
            continue
        cell = headline_cell(task, result, metric)
        if cell is None and metric in result.lacks:
            left_out[name] = result.lacks[metric]
        if cell:
            cells[name] = cell
            of_task = (draws or {}).get(task.name, {})
            if metric in of_task:
                drawn[name] = of_task[metric]
    means = averages(cells, tasks, drawn)
    for name in means:
        mean = mean_of_draws(members(name, tasks), drawn)
        if mean is not None:
            drawn[name] = mean
    return Row(
        run.name,
        "measured",
        {**means, **cells},
        left_out,
        drawn,
        seeds=str(run.facts.get("seeds", "")),
        base=str(run.facts.get("base", "")),
        trained_on=str(run.facts.get("trained_on", "")),
        scorer=scorer_of(run),
        official=_official(run, [task.name for task in tasks if task.name not in left_out]),
        path=run.path,
    )


def _official(run: Run, tasks: Sequence[str]) -> dict[str, Cell]:
    found = {}
    for task in tasks:
        told = run.results[task].official if task in run.results else {}
        for metric, value in told.get("metrics", {}).items():
            found[f"{task} {metric}"] = Cell(value, note=str(told.get("source", "")))
    return found


def scorer_of(run: Run) -> str:
    """How a model that scores pairs came to its numbers; empty for a dual encoder."""
    told = [r.settings for r in run.results.values() if r.settings.get("scorer") == "pairs"]
    if not told:
        return ""
    words = ["pair scorer: it looks at an image and a text together"]
    templates = dict.fromkeys(str(one["template"]) for one in told if "template" in one)
    if templates:
        words.append(f"classification with one prompt a class ({', '.join(templates)})")
    ranked = dict.fromkeys((one["depth"], one["first_stage"]) for one in told if "depth" in one)
    words += [f"retrieval ranks the best {depth} of {first} anew" for depth, first in ranked]
    return "; ".join(words)


def headline_cell(task: TaskFacts, result: Result, metric: str) -> Cell | None:
    """The headline number of a result, or None where it has none."""
    found = result.metrics.get("headline", {}).get(metric)
    if found is None or found.value is None:
        return None
    dying = task.decays and not result.settings.get("limit") and not result.nan
    note = "; ".join(result.flags)
    return replace(found, note=note, counts=result.complete or dying)


def chance_row(tasks: Sequence[TaskFacts]) -> Row:
    """What knowing nothing scores: the task files' declared chance."""
    cells = {name: Cell(task.chance[metric]) for name, (task, metric) in columns(tasks).items()}
    return Row("chance", "declared", {**averages(cells, tasks), **cells})


def blind_row(tasks: Sequence[TaskFacts]) -> Row:
    """What the better of two scorers that see no picture gets, where the task files state it."""
    cells = blind_cells(columns(tasks))
    return Row("blind", "declared", {**averages(cells, tasks), **cells})


def published_folder() -> Path:
    """Quoted numbers: inside the wheel, or in the checkout's leaderboards/published."""
    shipped = Path(__file__).parent.parent / "published"
    if shipped.is_dir():
        return shipped
    return Path(__file__).parent.parent.parent / "leaderboards" / "published"


def untouched(quoted: Sequence[Quoted]) -> dict[int, Quoted]:
    """By the identity of each published row: the row of the base that it was fine-tuned from, as
    the same file has it (`train_data` is `none` there).
    """
    known = {
        (row.path, row.about.get("base")): row
        for row in quoted
        if row.about.get("train_data") == "none"
    }
    found = ((id(row), known.get((row.path, row.about.get("base")))) for row in quoted)
    return {name: base for name, base in found if base is not None}


def published_rows(
    tasks: Sequence[TaskFacts],
    folder: Path | None = None,
    complain: Callable[[str], Any] | None = None,
    others: Collection[str] = (),
) -> list[Row]:
    """Rows of every CSV in the folder: `model`, `source`, then columns named as here; complain,
    others: as `read_published` takes them; the columns of other shipped tables are no mistake.

    Averages are taken as printed by the source, never recomputed from its rounded cells. Rows that
    hold no number of the tables, only further ones or those of other tables, stand in none.
    """
    known = {*columns(tasks), *declared(tasks)}
    others = {*others, *quotable()}
    quoted = read_published(folder or published_folder(), known, complain, others)
    bases = untouched(quoted)
    return [
        Row(
            row.model,
            row.source,
            {name: Cell(value) for name, value in row.values.items()},
            base=base.model if (base := bases.get(id(row))) and base is not row else "",
        )
        for row in quoted
        if row.values or not (row.more or row.elsewhere)
    ]


@cache
def quotable() -> frozenset[str]:
    """The columns of the shipped tables beside which quoted numbers stand."""
    found: set[str] = set()
    for name, suite in shipped().items():
        if suite.published:
            tasks = [TaskFacts.of(task) for task in catalogue().values() if task.suite == name]
            found |= {*columns(tasks), *declared(tasks)}
    return frozenset(found)
