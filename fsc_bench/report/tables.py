"""Tables: a leaderboard's rows as CSV and Markdown. It computes nothing.

Names and notes may be a stranger's: they are escaped for where they go.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsc_bench.errors import GateError
from fsc_bench.report.blind import headroom_cell
from fsc_bench.report.leaderboard import (
    Row,
    blind_row,
    chance_row,
    columns,
    declared,
    present,
    published_rows,
    reading,
)
from fsc_bench.report.ranking import SeedGroup, seed_groups
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, slug
from fsc_bench.suite import suite_of
from fsc_bench.system.escape import for_csv, for_markdown
from fsc_bench.system.files import write_text


def write(
    out: Path,
    suite: str,
    rows: Sequence[Row],
    tasks: Sequence[TaskFacts],
    check: bool = False,
    complain: Callable[[str], Any] | None = None,
) -> list[Path]:
    """Writes `<suite>.csv` and `.md`; with `check` only compares (GateError when stale). rows: from
    `measured_rows`. complain: told, in one line each, of published rows that cannot be read.
    """
    measured = [*rows, chance_row(tasks)]
    blind = blind_row(tasks)
    measured += [blind] if blind.cells else []
    published = published_rows(tasks, complain=complain) if suite_of(suite).published else []
    title = f"fsc_bench: {suite}"
    if why := suite_of(suite).apart:
        title += f" ({why})"
    texts = {
        out / f"{slug(suite)}.csv": to_csv([*measured, *published], tasks),
        out / f"{slug(suite)}.md": to_markdown(title, measured, published, tasks, reading(tasks)),
    }
    for path, text in texts.items():
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                raise GateError(f"{path}: stale. `fsc-bench leaderboard -o {out}` writes it anew.")
        else:
            write_text(path, text)
    return list(texts)


def to_csv(rows: Sequence[Row], tasks: Sequence[TaskFacts]) -> str:
    """One line a row; every column with its interval and, where ties make a difference, the number
    by the strict rule; holes are empty.
    """
    names = [*declared(tasks), *columns(tasks)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = ["model", "source", "rank low", "rank high", "tied with", "base", "signature"]
    blind = blind_row(tasks).cells
    for name in names:
        header += [name, f"{name} low", f"{name} high", f"{name} strict"]
        header += [f"{name} headroom"] * (name in blind)
    official = _official_names(rows)
    writer.writerow([*header, *(f"official {name}" for name in official), "notes"])
    for row in rows:
        line = [for_csv(row.model), for_csv(row.source), *(row.rank or ("", ""))]
        line += [for_csv(text) for text in ("; ".join(row.tied), row.base, row.signature)]
        notes = [row.scorer] if row.scorer else []
        for name in names:
            cell = row.cells.get(name)
            numbers = [cell.value, cell.low, cell.high, cell.strict] if cell else [None] * 4
            if name in blind:
                numbers.append(headroom_cell(cell, blind[name]).value)
            line += ["" if number is None else f"{number:.4f}" for number in numbers]
            if cell and cell.note:
                notes.append(f"{name}: {cell.note}")
        found = [row.official.get(name, Cell(None)).value for name in official]
        line += ["" if number is None else f"{number:.4f}" for number in found]
        notes += [f"{name} left out: {why}" for name, why in row.left_out.items()]
        writer.writerow([*line, for_csv("; ".join(notes))])
    return out.getvalue()


def to_markdown(
    title: str,
    measured: Sequence[Row],
    published: Sequence[Row],
    tasks: Sequence[TaskFacts],
    words: Sequence[str] = (),
) -> str:
    """The page: averages with intervals, one table a group, then the published numbers. words: how
    to read the averages, a line each.
    """
    averages = present(tasks)
    lines = [f"# {for_markdown(title)}", ""]
    lines += [
        f"Percent, with 95% intervals ({_intervals(measured)}). The rank is "
        "by the mean of the averages, as 95% of the draws give it. "
        "`-`: an average that lacks a task, or a task not run. `*`: not every promised sample. "
        "`†`: ties between different answers, or copies of the right one, make a difference; the "
        "number by the strict rule stands below.",
        "",
        *bullets(words),
        *table(["Rank", "Model", *averages], measured, averages, intervals=True, rank=True),
    ]
    for group in dict.fromkeys(task.group for task in tasks):
        part = [task for task in tasks if task.group == group]
        lines += ["", f"## {group.capitalize()}", ""]
        lines += table(["Model", *columns(part)], measured, list(columns(part)))
    lines += _headroom(measured, tasks)
    lines += _official(measured)
    if published:
        lines += [
            "",
            "## Published numbers",
            "",
            "Quoted, not measured here; sources in the CSV.",
            "",
        ]
        names = [*averages, *(n for n in columns(tasks) if any(n in r.cells for r in published))]
        lines += table(["Model", *names], published, names)
    lines += _seeds(seed_groups(measured, averages), averages)
    for heading, notes in _notes(measured).items():
        lines += ["", f"## {heading}", "", *notes] if notes else []
    return "\n".join(lines) + "\n"


def bullets(words: Sequence[str]) -> list[str]:
    """The lines of a Markdown list and the empty one below it; none of no words."""
    return [*(f"- {for_markdown(text)}" for text in words), ""] if words else []


def _intervals(rows: Sequence[Row]) -> str:
    """Where the intervals of averages come from."""
    if all(row.draws for row in rows if row.source == "measured"):
        return "one bootstrap over source images for all tasks"
    return (
        "one bootstrap over source images for all tasks; where a run's samples are not at hand, "
        "those of averages as if tasks were independent, and without a rank"
    )


def _headroom(rows: Sequence[Row], tasks: Sequence[TaskFacts]) -> list[str]:
    """The section on what is left above scorers that see no picture, or nothing."""
    blind = blind_row(tasks).cells
    shown = [
        Row(row.model, row.source, {name: headroom_cell(row.cells[name], cell)
                                    for name, cell in blind.items() if name in row.cells})
        for row in rows
        if row.source == "measured"
    ]  # fmt: skip
    if not blind or not shown:
        return []
    lines = ["", "## Headroom", ""]
    lines += ["(score - blind) / (100 - blind), in percent: what is won beyond text alone.", ""]
    return lines + table(["Model", *blind], shown, list(blind))


def _official_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.official))


def _official(rows: Sequence[Row]) -> list[str]:
    """The section on the metrics of other programs, or nothing."""
    names = _official_names(rows)
    if not names:
        return []
    sources = dict.fromkeys(cell.note for row in rows for cell in row.official.values())
    shown = [
        Row(row.model, row.source, {name: replace(cell, note="")
                                    for name, cell in row.official.items()})
        for row in rows
        if row.official
    ]  # fmt: skip
    said = "; ".join(map(for_markdown, filter(None, sources)))
    lines = ["", "## Official metrics", "", f"{said}. No average and no rank is of them.", ""]
    return lines + table(["Model", *names], shown, names)


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
        names = ", ".join(map(for_markdown, group.models))
        lines.append("| " + " | ".join([names, str(len(group.models)), *cells]) + " |")
    return lines


def _notes(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The lines below the tables, by heading."""
    cells = [
        (f"{for_markdown(row.model)}, {for_markdown(name)}", cell)
        for row in rows
        for name, cell in row.cells.items()
        if cell.note or cell.strict is not None
    ]
    return {
        "Pair scorers (`‡`)": [
            f"- {for_markdown(row.model)}: {for_markdown(row.scorer)}" for row in rows if row.scorer
        ],
        "Not complete (`*`)": [
            f"- {where}: {for_markdown(cell.note)}" for where, cell in cells if cell.note
        ],
        "Any tie a miss (`†`)": [
            f"- {where}: {cell.value:.1f}, by the strict rule {cell.strict:.1f}"
            for where, cell in cells
            if cell.strict is not None
        ],
        "Against their base": [
            f"- {for_markdown(row.model)}, from {for_markdown(row.base)}: {row.signature}"
            for row in rows
            if row.signature
        ],
        "Tied within error": [
            f"- {for_markdown(row.model)}: {', '.join(map(for_markdown, row.tied))}"
            for row in rows
            if row.tied
        ],
        "Left out": [
            f"- {for_markdown(row.model)}, {for_markdown(name)}: {for_markdown(why)}"
            for row in rows
            for name, why in row.left_out.items()
        ],
    }


def table(
    header: list[str],
    rows: Sequence[Row],
    names: list[str],
    intervals: bool = False,
    rank: bool = False,
) -> list[str]:
    """The lines of a Markdown table: a row's name, then its cells of `names`; holes are `-`."""
    lines = ["| " + " | ".join(header) + " |"]
    lines += ["|---:" * rank + "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = []
        for name in names:
            cell = row.cells.get(name)
            text = "-" if cell is None else str(cell)
            cells.append(f"{text} {cell.interval}".strip() if cell and intervals else text)
        place = [_place(row)] if rank else []
        model = for_markdown(row.model) + " ‡" * bool(row.scorer)
        lines.append("| " + " | ".join([*place, model, *cells]) + " |")
    return lines


def _place(row: Row) -> str:
    """A rank, or the interval of ranks; empty for a row that has none."""
    if row.rank is None:
        return ""
    return f"{row.rank[0]}" if row.rank[0] == row.rank[1] else f"{row.rank[0]}-{row.rank[1]}"
