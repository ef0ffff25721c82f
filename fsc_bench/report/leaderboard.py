"""Leaderboard: results to CSV and Markdown. It computes plain means only, and imports no torch.

An average with a hole in it is "-", never a mean of what happens to be there. Published numbers
stand in a table of their own: they were computed by other software. Tables are made of any suite:
each result carries the facts of its task (report/suites.py).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path

import numpy as np

from fsc_bench.errors import GateError, UsageError, near_miss
from fsc_bench.report.suites import TaskFacts, same_task
from fsc_bench.results import AVERAGES, Cell, Result, Run, averaged, slug
from fsc_bench.system.files import write_text


@dataclass(frozen=True)
class Row:
    """One line: a model and its cells by column; a column without a cell is a hole.

    left_out: what the model has a result of that this table cannot show, and why, by task. draws:
    percent [replicates] by column, where they are known: one bootstrap, the same for all rows.
    rank: the first and last place that 95% of the draws give it among the complete rows; tied: the
    complete rows from which it differs within error. seeds: what groups it with runs of other seeds
    (results.py), if anything does.
    """

    model: str
    source: str
    cells: Mapping[str, Cell]
    left_out: Mapping[str, str] = field(default_factory=dict)
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    rank: tuple[int, int] | None = None
    tied: tuple[str, ...] = ()
    seeds: str = ""


def columns(tasks: Sequence[TaskFacts]) -> dict[str, tuple[TaskFacts, str]]:
    """Column name -> (task, headline metric): one a task, two a retrieval task."""
    return {_column(task, metric): (task, metric) for task in tasks for metric in task.headline}


def _column(task: TaskFacts, metric: str) -> str:
    return task.name if len(task.headline) == 1 else f"{task.name} {metric}"


def _averaged(name: str, tasks: Sequence[TaskFacts]) -> list[str]:
    """The columns that an average is of."""
    found = [(task, averaged(name, task.group, task.headline)) for task in tasks]
    return [_column(task, metric) for task, metric in found if metric]


def present(tasks: Sequence[TaskFacts]) -> list[str]:
    """The averages that a suite has."""
    return [name for name in AVERAGES if _averaged(name, tasks)]


def averages(
    cells: Mapping[str, Cell],
    tasks: Sequence[TaskFacts],
    draws: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Cell]:
    """Comp, ZS, I2T and T2I: plain means over all the suite's tasks of a group, or nothing.

    draws: by column, as in `Row`: the interval is that of their mean, in which an image that
    several tasks ask about counts in all of them alike. Without them the tasks are taken as
    independent, and half-widths add in squares.
    """
    found = {}
    for name in AVERAGES:
        wanted = _averaged(name, tasks)
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
        if cell:
            cells[name] = cell
            of_task = (draws or {}).get(task.name, {})
            if metric in of_task:
                drawn[name] = of_task[metric]
    means = averages(cells, tasks, drawn)
    for name in means:
        mean = mean_of_draws(_averaged(name, tasks), drawn)
        if mean is not None:
            drawn[name] = mean
    return Row(
        run.name,
        "measured",
        {**means, **cells},
        left_out,
        drawn,
        seeds=str(run.facts.get("seeds", "")),
    )


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


def published_folder() -> Path:
    """Quoted numbers: inside the wheel, or in the checkout's leaderboards/published."""
    shipped = Path(__file__).parent.parent / "published"
    if shipped.is_dir():
        return shipped
    return Path(__file__).parent.parent.parent / "leaderboards" / "published"


def published_rows(tasks: Sequence[TaskFacts], folder: Path | None = None) -> list[Row]:
    """Rows of every CSV in the folder: `model`, `source`, then columns named as here.

    Averages are taken as printed by the source, never recomputed from its rounded cells.
    """
    folder = folder or published_folder()
    known = {*columns(tasks), *AVERAGES}
    rows = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as handle:
            for number, line in enumerate(csv.DictReader(handle), 2):
                try:
                    cells = {
                        name: Cell(float(value))
                        for name, value in line.items()
                        if name in known and value not in ("", "-", None)
                    }
                    rows.append(Row(line["model"], line["source"], cells))
                except (KeyError, ValueError, TypeError) as error:
                    raise UsageError(f"{file}: line {number}: {error}.") from None
    return rows


def relative(rows: Sequence[Row], base: str) -> list[Row]:
    """Differences to the row of `base`, with paired intervals where both rows have draws. Raises
    UsageError with the near miss.
    """
    names = [row.model for row in rows]
    if base not in names:
        raise UsageError(f"--relative-to {base!r}: no such row.{near_miss(base, names)}")
    reference = rows[names.index(base)]
    return [
        Row(
            row.model,
            f"minus {base}",
            {
                name: _difference(cell, reference.cells[name], row.draws.get(name),
                                  reference.draws.get(name))
                for name, cell in row.cells.items()
                if name in reference.cells
            },
        )
        for row in rows
    ]  # fmt: skip


def _difference(
    cell: Cell, base: Cell, drawn: np.ndarray | None, drawn_base: np.ndarray | None
) -> Cell:
    value = cell.value - base.value
    if drawn is None or drawn_base is None or len(drawn) != len(drawn_base):
        return Cell(value, note=cell.note)
    return Cell(value, *percentiles(drawn - drawn_base), note=cell.note)


def order(rows: Sequence[Row], averages: Sequence[str] = tuple(AVERAGES)) -> list[Row]:
    """Best first by the mean of the suite's averages; rows with holes come after, by name."""

    def key(row: Row) -> tuple:
        whole = _is_whole(row, averages)
        found = [row.cells[name].value for name in averages if name in row.cells]
        return (not whole, -sum(found) if whole else 0.0, row.model)

    return sorted(rows, key=key)


def _is_whole(row: Row, averages: Sequence[str]) -> bool:
    return bool(averages) and all(name in row.cells for name in averages)


def ranked(rows: Sequence[Row], averages: Sequence[str]) -> list[Row]:
    """The rows with their rank intervals and what each is tied with. Rows with holes, and rows
    without draws, have neither.

    Ranks are by the mean of the averages. Two rows are tied where the interval of their difference,
    from the same draws, holds 0.
    """
    whole = [row for row in rows if _is_whole(row, averages)]
    sums = [mean_of_draws(averages, row.draws) for row in whole]
    known = [(row, drawn) for row, drawn in zip(whole, sums, strict=True) if drawn is not None]
    if len({len(drawn) for _, drawn in known}) != 1 or len(known) < len(whole):
        return list(rows)
    every = np.stack([drawn for _, drawn in known])  # [rows, replicates]
    places = [1 + (every > drawn).sum(axis=0) for drawn in every]
    found = {}
    for number, (row, drawn) in enumerate(known):
        first, last = np.nanpercentile(places[number], [2.5, 97.5], method="nearest")
        tied = [
            other.model
            for other, theirs in known
            if other is not row and _holds_zero(*percentiles(drawn - theirs))
        ]
        found[id(row)] = replace(row, rank=(int(first), int(last)), tied=tuple(tied))
    return [found.get(id(row), row) for row in rows]


def _holds_zero(low: float, high: float) -> bool:
    return low <= 0 <= high


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed alone: the mean of each average, with the interval of its
    items and, apart from it, the standard deviation between seeds.
    """

    models: tuple[str, ...]
    cells: Mapping[str, Cell]
    spread: Mapping[str, float]


def seed_groups(rows: Sequence[Row], averages: Sequence[str]) -> list[SeedGroup]:
    """Every group of at least two complete rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.seeds and _is_whole(row, averages):
            groups.setdefault(row.seeds, []).append(row)
    found = []
    for members in groups.values():
        if len(members) < 2:
            continue
        cells, spread = {}, {}
        for name in averages:
            values = [row.cells[name].value for row in members]
            drawn = [row.draws.get(name) for row in members]
            ends = () if any(d is None for d in drawn) else percentiles(sum(drawn) / len(drawn))
            cells[name] = Cell(sum(values) / len(values), *ends)
            spread[name] = float(np.std(values, ddof=1))
        found.append(SeedGroup(tuple(row.model for row in members), cells, spread))
    return found


def to_csv(rows: Sequence[Row], tasks: Sequence[TaskFacts]) -> str:
    """One line a row; every column with its interval and, where ties make a difference, the number
    by the strict rule; holes are empty.
    """
    names = [*AVERAGES, *columns(tasks)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["model", "source", "rank low", "rank high", "tied with"]
    for name in names:
        header += [name, f"{name} low", f"{name} high", f"{name} strict"]
    writer.writerow([*header, "notes"])
    for row in rows:
        line = [row.model, row.source, *(row.rank or ("", "")), "; ".join(row.tied)]
        notes = []
        for name in names:
            cell = row.cells.get(name)
            numbers = (cell.value, cell.low, cell.high, cell.strict) if cell else (None,) * 4
            line += ["" if number is None else f"{number:.4f}" for number in numbers]
            if cell and cell.note:
                notes.append(f"{name}: {cell.note}")
        notes += [f"{name} left out: {why}" for name, why in row.left_out.items()]
        writer.writerow([*line, "; ".join(notes)])
    return out.getvalue()


def to_markdown(
    title: str, measured: Sequence[Row], published: Sequence[Row], tasks: Sequence[TaskFacts]
) -> str:
    """The page: averages with intervals, one table a group, then the published numbers."""
    averages = present(tasks)
    lines = [f"# {title}", ""]
    lines += [
        "Percent, with 95% intervals (one bootstrap over source images for all tasks). The rank is "
        "by the mean of the averages, as 95% of the draws give it. "
        "`-`: an average that lacks a task, or a task not run. `*`: not every promised sample. "
        "`†`: ties between different answers, or copies of the right one, make a difference; the "
        "number by the strict rule stands below.",
        "",
        *_table(["Rank", "Model", *averages], measured, averages, intervals=True, rank=True),
    ]
    for group in dict.fromkeys(task.group for task in tasks):
        part = [task for task in tasks if task.group == group]
        lines += ["", f"## {group.capitalize()}", ""]
        lines += _table(["Model", *columns(part)], measured, list(columns(part)))
    if published:
        lines += [
            "",
            "## Published numbers",
            "",
            "Quoted, not measured here; sources in the CSV.",
            "",
        ]
        names = [*averages, *(n for n in columns(tasks) if any(n in r.cells for r in published))]
        lines += _table(["Model", *names], published, names)
    lines += _seeds(seed_groups(measured, averages), averages)
    for heading, notes in _notes(measured).items():
        lines += ["", f"## {heading}", "", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _seeds(groups: Sequence[SeedGroup], averages: Sequence[str]) -> list[str]:
    """The section on seeds, or nothing."""
    if not groups:
        return []
    lines = ["", "## Seeds", ""]
    lines += ["Mean over runs that differ in their seed alone [interval of its items], and the "
              "standard deviation between seeds.", ""]  # fmt: skip
    lines += ["| Models | Seeds | " + " | ".join(averages) + " |"]
    lines += ["|---|---:|" + "---:|" * len(averages)]
    for group in groups:
        cells = [
            f"{group.cells[name]} {group.cells[name].interval} sd {group.spread[name]:.2f}"
            for name in averages
        ]
        names = ", ".join(model.replace("|", "\\|") for model in group.models)
        lines.append("| " + " | ".join([names, str(len(group.models)), *cells]) + " |")
    return lines


def _notes(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The lines below the tables, by heading."""
    cells = [(row.model, name, cell) for row in rows for name, cell in row.cells.items()]
    return {
        "Not complete (`*`)": [
            f"- {model}, {name}: {cell.note}" for model, name, cell in cells if cell.note
        ],
        "Any tie a miss (`†`)": [
            f"- {model}, {name}: {cell.value:.1f}, by the strict rule {cell.strict:.1f}"
            for model, name, cell in cells
            if cell.strict is not None
        ],
        "Tied within error": [f"- {row.model}: {', '.join(row.tied)}" for row in rows if row.tied],
        "Left out": [
            f"- {row.model}, {name}: {why}" for row in rows for name, why in row.left_out.items()
        ],
    }


def _table(
    header: list[str],
    rows: Sequence[Row],
    names: list[str],
    intervals: bool = False,
    rank: bool = False,
) -> list[str]:
    lines = ["| " + " | ".join(header) + " |"]
    lines += ["|---:" * rank + "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = []
        for name in names:
            cell = row.cells.get(name)
            text = "-" if cell is None else str(cell)
            cells.append(f"{text} {cell.interval}".strip() if cell and intervals else text)
        place = [_place(row)] if rank else []
        lines.append("| " + " | ".join([*place, row.model.replace("|", "\\|"), *cells]) + " |")
    return lines


def _place(row: Row) -> str:
    """A rank, or the interval of ranks; empty for a row that has none."""
    if row.rank is None:
        return ""
    return f"{row.rank[0]}" if row.rank[0] == row.rank[1] else f"{row.rank[0]}-{row.rank[1]}"


def measured_rows(
    runs: Sequence[Run],
    tasks: Sequence[TaskFacts],
    draws: Mapping[Path, Mapping[str, Mapping[str, np.ndarray]]] | None = None,
) -> list[Row]:
    """The runs' rows, best first, ranked. draws: by run folder, as `measured_row` takes them."""
    averages = present(tasks)
    rows = [measured_row(run, tasks, (draws or {}).get(run.path)) for run in runs]
    return ranked(order(rows, averages), averages)


def write(
    out: Path, suite: str, rows: Sequence[Row], tasks: Sequence[TaskFacts], check: bool = False
) -> list[Path]:
    """Writes `<suite>.csv` and `.md`; with `check` only compares (GateError when stale). rows: from
    `measured_rows`.
    """
    measured = [*rows, chance_row(tasks)]
    published = published_rows(tasks) if suite == "fsc" else []
    title = f"fsc_bench: {suite}"
    if suite == "demo":
        title += " (a miniature world; not comparable with any real benchmark)"
    texts = {
        out / f"{slug(suite)}.csv": to_csv([*measured, *published], tasks),
        out / f"{slug(suite)}.md": to_markdown(title, measured, published, tasks),
    }
    for path, text in texts.items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                raise GateError(f"{path}: stale. `fsc-bench leaderboard -o {out}` writes it anew.")
        else:
            write_text(path, text)
    return list(texts)
