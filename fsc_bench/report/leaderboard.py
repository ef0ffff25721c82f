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

from fsc_bench.errors import GateError, UsageError, near_miss
from fsc_bench.report.suites import TaskFacts, same_task
from fsc_bench.results import Cell, Result, Run, slug
from fsc_bench.system.files import write_text

AVERAGES = {
    # column: (group, how the headline metric begins: the first of a task's that does)
    "Comp": ("compositionality", ""),
    "ZS": ("classification", ""),
    "I2T": ("retrieval", "i2t"),
    "T2I": ("retrieval", "t2i"),
}


@dataclass(frozen=True)
class Row:
    """One line: a model and its cells by column; a column without a cell is a hole.

    left_out: what the model has a result of that this table cannot show, and why, by task.
    """

    model: str
    source: str
    cells: Mapping[str, Cell]
    left_out: Mapping[str, str] = field(default_factory=dict)


def columns(tasks: Sequence[TaskFacts]) -> dict[str, tuple[TaskFacts, str]]:
    """Column name -> (task, headline metric): one a task, two a retrieval task."""
    return {_column(task, metric): (task, metric) for task in tasks for metric in task.headline}


def _column(task: TaskFacts, metric: str) -> str:
    return task.name if len(task.headline) == 1 else f"{task.name} {metric}"


def _averaged(name: str, tasks: Sequence[TaskFacts]) -> list[str]:
    """The columns that an average is of."""
    group, way = AVERAGES[name]
    found = [
        [_column(task, metric) for metric in task.headline if metric.startswith(way)][:1]
        for task in tasks
        if task.group == group
    ]
    return [column for first in found for column in first]


def averages(cells: Mapping[str, Cell], tasks: Sequence[TaskFacts]) -> dict[str, Cell]:
    """Comp, ZS, I2T and T2I: plain means over all the suite's tasks of a group, or nothing.

    The interval takes the tasks as independent: half-widths add in squares.
    """
    found = {}
    for name in AVERAGES:
        wanted = _averaged(name, tasks)
        parts = [cells.get(column) for column in wanted]
        if not parts or any(part is None or not part.counts for part in parts):
            continue
        marked = [name for name, part in zip(wanted, parts, strict=True) if part.note]
        note = f"holds {', '.join(marked)}, not complete" if marked else ""
        found[name] = _mean(parts, note)
    return found


def _mean(parts: Sequence[Cell], note: str) -> Cell:
    """The plain mean; strict is the mean of what each is by the strict rule."""
    n = len(parts)
    mean = sum(part.value for part in parts) / n
    strict = None
    if any(part.strict is not None for part in parts):
        strict = sum(part.value if part.strict is None else part.strict for part in parts) / n
    if any(part.low is None for part in parts):
        return Cell(mean, note=note, strict=strict)
    below = sqrt(sum((part.value - part.low) ** 2 for part in parts)) / n
    above = sqrt(sum((part.high - part.value) ** 2 for part in parts)) / n
    return Cell(mean, mean - below, mean + above, strict=strict, note=note)


def measured_row(run: Run, tasks: Sequence[TaskFacts]) -> Row:
    """A run's row. Results of another task or task version are holes, partial ones are marked."""
    cells = {}
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
    return Row(run.name, "measured", {**averages(cells, tasks), **cells}, left_out)


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
    """Differences to the row of `base`. Raises UsageError with the near miss."""
    names = [row.model for row in rows]
    if base not in names:
        raise UsageError(f"--relative-to {base!r}: no such row.{near_miss(base, names)}")
    reference = rows[names.index(base)].cells
    return [
        Row(
            row.model,
            f"minus {base}",
            {
                name: Cell(cell.value - reference[name].value, note=cell.note)
                for name, cell in row.cells.items()
                if name in reference
            },
        )
        for row in rows
    ]


def order(rows: Sequence[Row]) -> list[Row]:
    """Best first by the mean of the averages; rows with holes come after, by name."""

    def key(row: Row) -> tuple:
        found = [row.cells[name].value for name in AVERAGES if name in row.cells]
        whole = len(found) == len(AVERAGES)
        return (not whole, -sum(found) if whole else 0.0, row.model)

    return sorted(rows, key=key)


def to_csv(rows: Sequence[Row], tasks: Sequence[TaskFacts]) -> str:
    """One line a row; every column with its interval and, where ties make a difference, the number
    by the strict rule; holes are empty.
    """
    names = [*AVERAGES, *columns(tasks)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["model", "source"]
    for name in names:
        header += [name, f"{name} low", f"{name} high", f"{name} strict"]
    writer.writerow([*header, "notes"])
    for row in rows:
        line = [row.model, row.source]
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
    present = [name for name in AVERAGES if _averaged(name, tasks)]
    lines = [f"# {title}", ""]
    lines += [
        "Percent, with 95% intervals (bootstrap over source images). "
        "`-`: an average that lacks a task, or a task not run. `*`: not every promised sample. "
        "`†`: ties between different answers, or copies of the right one, make a difference; the "
        "number by the strict rule stands below.",
        "",
        *_table(["Model", *present], measured, present, intervals=True),
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
        names = [*present, *(n for n in columns(tasks) if any(n in r.cells for r in published))]
        lines += _table(["Model", *names], published, names)
    for heading, notes in _notes(measured).items():
        lines += ["", f"## {heading}", "", *notes] if notes else []
    return "\n".join(lines) + "\n"


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
        "Left out": [
            f"- {row.model}, {name}: {why}" for row in rows for name, why in row.left_out.items()
        ],
    }


def _table(
    header: list[str], rows: Sequence[Row], names: list[str], intervals: bool = False
) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = []
        for name in names:
            cell = row.cells.get(name)
            text = "-" if cell is None else str(cell)
            cells.append(f"{text} {cell.interval}".strip() if cell and intervals else text)
        lines.append("| " + " | ".join([row.model.replace("|", "\\|"), *cells]) + " |")
    return lines


def write(
    out: Path, suite: str, runs: Sequence[Run], tasks: Sequence[TaskFacts], check: bool = False
) -> list[Path]:
    """Writes `<suite>.csv` and `.md`; with `check` only compares (GateError when stale)."""
    measured = [*order([measured_row(run, tasks) for run in runs]), chance_row(tasks)]
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
