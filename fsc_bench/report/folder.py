"""Folder: `leaderboards/` as pages for a repository's own web view, from runs and quoted numbers.

    published/*.csv      what sources state (report/published.py)
    measured/            run folders, as runs write them
    README.md            what leads, what it costs, how to read it
    SUITE.csv            every row of the default suite: measured, declared, published
    compositionality.md, classification.md, retrieval.md
    SUITE.md             of every other suite of which measured/ or published/ has a number

Everything but the first two is made here and a function of them alone: equal inputs give equal
bytes. Measured and published numbers, and those of two suites, never share a table or an average.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.errors import GateError, UsageError
from fsc_bench.report.leaderboard import (
    Row,
    blind_row,
    chance_row,
    columns,
    declared,
    members,
    present,
    published_rows,
    reading,
)
from fsc_bench.report.pictures import svg, tradeoff
from fsc_bench.report.published import Quoted, read_published
from fsc_bench.report.ranking import measured_rows
from fsc_bench.report.seen import Seen, mean_of_others, named
from fsc_bench.report.suites import TaskFacts
from fsc_bench.report.tables import bullets, table, to_csv, to_markdown
from fsc_bench.results import Cell, Run, slug
from fsc_bench.suite import Suite, default, suite_of
from fsc_bench.system.escape import for_markdown
from fsc_bench.system.files import write_text
from fsc_bench.task import GROUPS

Draws = Mapping[Path, Mapping[str, Mapping[str, np.ndarray]]]
MADE = "<!-- Made by `fsc-bench leaderboard --folder`; edits are lost. -->"
PICTURE = "tradeoff.svg"

HOW = """\
- Percent. A row that lacks one of an average's tasks has no average, and a row that lacks an
  average has no rank.
- *Measured* rows were run with this software: they carry 95% intervals over source images, ties
  within error share a rank, `*` marks a result that lacks samples. A result of another version of
  a task is left out and named.
- *Published* rows are quoted from their source, as printed there, averages included; another
  software computed them. They are compared within one source only, and have no rank.
- A source's mean over other benchmarks than ours stands in its CSV under a name of its own
  (`AVERAGE/of 12`), in no table. So do subsets (`sugarcrepe/add_obj`) and benchmarks that we lack.
- To add a source, add its CSV to `published/` and run
  `fsc-bench leaderboard --folder leaderboards`: `model` and `source` first, then columns named as
  in the tables, `benchmark/part` for any other number, and `table`, `base`, `train_data` (`none`
  for an untouched base), `method`, `lora` and `notes` in words. Percent, as printed there; averages
  are the source's own.
"""


def write_folder(
    folder: Path,
    runs: Sequence[Run],
    suites: Mapping[str, Sequence[TaskFacts]],
    draws: Draws | None = None,
    check: bool = False,
    complain: Callable[[str], Any] | None = None,
    seen: Mapping[str, Seen] | None = None,
) -> list[Path]:
    """Writes every page of `folder`; with `check` only compares (GateError names what is stale).

    runs: what folder/measured holds; suites: the tasks of the default suite and of others, by
    suite; seen: by task.
    """
    tasks = suites[default().name]
    if not check:
        _draw(folder, _rows(runs, tasks, draws), tasks)
    made = texts(folder, runs, suites, draws, complain, seen)
    if not check:
        for path, text in made.items():
            write_text(path, text)
        return list(made)
    stale = [
        path
        for path, text in made.items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]
    if stale:
        raise GateError(
            f"{', '.join(map(str, stale))}: stale. `fsc-bench leaderboard --folder {folder}` "
            "writes anew."
        )
    return list(made)


def _draw(folder: Path, rows: Sequence[Row], tasks: Sequence[TaskFacts]) -> None:
    """The picture, where the extra that draws is installed; else the one that is there stays."""
    every = [*rows, *published_rows(tasks, folder / "published", lambda _: None)]
    y, x = [*present(tasks), "", ""][:2]
    shown = [row for row in every if {x, y} <= set(row.cells)]
    if len(shown) > 1:
        with suppress(UsageError):
            chart = tradeoff([*shown, *_declared(tasks)], x, y, f"What {y} costs")
            write_text(folder / PICTURE, svg(chart))


def texts(
    folder: Path,
    runs: Sequence[Run],
    suites: Mapping[str, Sequence[TaskFacts]],
    draws: Draws | None = None,
    complain: Callable[[str], Any] | None = None,
    seen: Mapping[str, Seen] | None = None,
) -> dict[Path, str]:
    """Path -> what the file has to hold."""
    first = default().name
    tasks = suites[first]
    quoted = _quoted(folder, first, suites, complain)
    held = [row for row in quoted if row.values]
    rows = _rows(runs, tasks, draws)
    others = {
        name: text
        for name in suites
        if name != first and (text := _other(folder, name, runs, suites, draws))
    }
    found = {
        "README.md": "\n".join(
            [
                *_beginning((folder / PICTURE).is_file(), list(others), tasks),
                *_leading(rows, quoted, tasks),
                *(_seen(rows, quoted, tasks, seen) if seen else []),
                *("## How to read it", "", *bullets(reading(tasks))[:-1]),
                HOW,
            ]
        ),
        f"{first}.csv": to_csv([*rows, *_declared(tasks), *map(_shown, held)], tasks),
    }
    for group in GROUPS:
        part = [task for task in tasks if task.group == group]
        found[f"{group}.md"] = _page(group.capitalize(), _rows(runs, part, draws), quoted, part)
    found |= {f"{slug(name)}.md": text for name, text in others.items()}
    return {folder / name: text for name, text in found.items()}


def _quoted(
    folder: Path,
    suite: str,
    suites: Mapping[str, Sequence[TaskFacts]],
    complain: Callable[[str], Any] | None = None,
) -> list[Quoted]:
    """The published rows as a suite's table reads them; columns of other suites are no mistake."""
    known = {name: {*columns(tasks), *declared(tasks)} for name, tasks in suites.items()}
    others = set().union(*known.values())
    return read_published(folder / "published", known[suite], complain, others)


def _other(
    folder: Path,
    name: str,
    runs: Sequence[Run],
    suites: Mapping[str, Sequence[TaskFacts]],
    draws: Draws | None,
) -> str:
    """The page of a suite that is not the default one; empty where there is no number of it."""
    suite, tasks = suite_of(name), suites[name]
    rows = _rows(runs, tasks, draws)
    published = _quoted(folder, name, suites, lambda _: None) if suite.published else []
    held = [row for row in published if set(row.values) & {*columns(tasks)}]
    if not rows and not held:
        return ""
    if held:
        return _page(_title(suite), rows, held, tasks, reading(tasks))
    text = to_markdown(_title(suite), [*rows, *_declared(tasks)], [], tasks, reading(tasks))
    return f"{MADE}\n{text}"


def _title(suite: Suite) -> str:
    return f"The {suite.name}: {suite.apart}" if suite.apart else suite.title or suite.name


def _rows(runs: Sequence[Run], tasks: Sequence[TaskFacts], draws: Draws | None) -> list[Row]:
    names = {task.name for task in tasks}
    return measured_rows([run for run in runs if names & set(run.results)], tasks, draws)


def _declared(tasks: Sequence[TaskFacts]) -> list[Row]:
    """What the task files state: chance, and blind where any does."""
    return [row for row in (chance_row(tasks), blind_row(tasks)) if row.cells]


def _by_file(quoted: Iterable[Quoted]) -> dict[Path, list[Quoted]]:
    files: dict[Path, list[Quoted]] = {}
    for row in quoted:
        files.setdefault(row.path, []).append(row)
    return files


def _shown(row: Quoted) -> Row:
    return Row(row.model, row.source, {name: Cell(value) for name, value in row.values.items()})


def _link(path: Path) -> str:
    return f"[{for_markdown(path.stem)}](published/{path.name.replace(' ', '%20')})"


def _sources(rows: Sequence[Quoted]) -> str:
    return "; ".join(for_markdown(source) for source in dict.fromkeys(row.source for row in rows))


# ---------------------------------------------------------------- the page of a group


def _page(
    title: str,
    rows: Sequence[Row],
    quoted: Sequence[Quoted],
    tasks: Sequence[TaskFacts],
    words: Sequence[str] = (),
) -> str:
    """A group's page, or a suite's with its words: measured first, then one table a source."""
    text = to_markdown(title, [*rows, *_declared(tasks)], [], tasks, words).rstrip("\n")
    lines = [MADE, text, "", "## Published numbers", ""]
    lines += ["Quoted as their sources state them, one table a source; not measured here."]
    names = [*present(tasks), *columns(tasks)]
    for path, part in _by_file(quoted).items():
        shown = [row for row in part if any(name in row.values for name in names)]
        if not shown:
            continue
        held = [name for name in names if any(name in row.values for row in shown)]
        lines += ["", f"### {_link(path)}", "", f"{_sources(part)}.", ""]
        lines += table(["Model", *held], [_shown(row) for row in shown], held)
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the first page


def _beginning(picture: bool, others: Sequence[str], tasks: Sequence[TaskFacts]) -> list[str]:
    """Title, links and, where it is there, the picture of the trade-off. others: suites with a page
    of their own.
    """
    links = ", ".join(f"[{group}]({group}.md)" for group in GROUPS)
    lines = [MADE, "# Leaderboards", ""]
    lines += [
        f"{len(tasks)} benchmarks: {links}. Every number as a table: "
        f"[{default().name}.csv]({default().name}.csv); what sources state, in full: "
        "[published](published/).",
        "",
    ]
    for name in others:
        title = suite_of(name).title or name
        lines += [f"{title}, apart from all of these: [{name}]({slug(name)}.md).", ""]
    y, x = [*present(tasks), "", ""][:2]
    return lines + [f"![{y} against {x}]({PICTURE})", ""] * picture


def _leading(
    rows: Sequence[Row], quoted: Sequence[Quoted], tasks: Sequence[TaskFacts]
) -> list[str]:
    """What leads, measured and published, and what it costs."""
    averages = present(tasks)
    lines = ["## What leads: measured", ""]
    if rows:
        page = to_markdown("", [*rows, *_declared(tasks)], [], tasks).splitlines()
        start = next(number for number, line in enumerate(page) if line.startswith("| Rank"))
        lines += page[start : page.index("", start)]
    else:
        lines += [
            "No run of the suite is in `measured/` yet. "
            f"`fsc-bench run -m MODEL -t {default().name} -o leaderboards/measured` adds one."
        ]
    lines += ["", "## What leads: published", "", *_leaders(quoted, averages)]
    return [*lines, "", "## What it costs", "", *_costs(quoted, averages), ""]


def _leaders(quoted: Sequence[Quoted], averages: Sequence[str]) -> list[str]:
    """One line a source: its size, and the rows with its highest averages."""
    lines = ["The highest of each source; between sources, software and benchmarks differ.", ""]
    lines += ["| Source | Rows | Numbers | " + " | ".join(averages) + " |"]
    lines += ["|---|---:|---:|" + "---|" * len(averages)]
    for path, rows in _by_file(quoted).items():
        numbers = sum(len(row.values) + len(row.more) for row in rows)
        cells = [_best(rows, name) for name in averages]
        lines.append(
            " | ".join([f"| {_link(path)}", f"{len(rows):,}", f"{numbers:,}", *cells]) + " |"
        )
    return lines


def _best(rows: Sequence[Quoted], name: str) -> str:
    """The highest number of a column and whose it is, equal ones all named."""
    values = [row.values[name] for row in rows if name in row.values]
    if not values:
        return "-"
    shown = f"{max(values):.1f}"
    names = [row.model for row in rows if name in row.values and f"{row.values[name]:.1f}" == shown]
    return f"{shown} {'; '.join(map(for_markdown, names))}"


def _costs(quoted: Sequence[Quoted], averages: Sequence[str]) -> list[str]:
    """What fine-tuning changed, against the same source's row of the untouched base."""
    first = averages[0]
    lines = [
        "Fine-tuned minus the untouched base of the same source, in points: what a gain in "
        f"{first} took elsewhere.",
        "",
        "| Source | Model | " + " | ".join(averages) + " |",
        "|---|---|" + "---:|" * len(averages),
    ]
    for path, rows in _by_file(quoted).items():
        bases = {
            row.about.get("base"): row
            for row in reversed(rows)
            if row.about.get("train_data") == "none" and first in row.values
        }
        for row in rows:
            base = bases.get(row.about.get("base"))
            if base is None or row is base or first not in row.values:
                continue
            cells = [
                f"{row.values[name] - base.values[name]:+.1f}"
                if name in row.values and name in base.values
                else "-"
                for name in averages
            ]
            lines.append(
                f"| {_link(path)} | {for_markdown(row.model)} | " + " | ".join(cells) + " |"
            )
    return lines


# ---------------------------------------------------------------- what training may have seen


def _seen(
    rows: Sequence[Row],
    quoted: Sequence[Quoted],
    tasks: Sequence[TaskFacts],
    seen: Mapping[str, Seen],
) -> list[str]:
    """The section on pictures of COCO and Visual Genome."""
    comp = present(tasks)[0]
    wanted = members(comp, tasks)
    built_on = [name for name in wanted if seen[columns(tasks)[name][0].name].built_on]
    others = [name for name in wanted if name not in built_on]
    lines = ["## Seen in training", ""]
    lines += [
        "Percent of a benchmark's samples that show pictures of COCO or of Visual Genome (VG), by "
        "the subsets that [images.toml](images.toml) names.",
        "",
        "| Benchmark | COCO | VG | Unknown |",
        "|---|---:|---:|---:|",
    ]
    for task in tasks:
        found = seen[task.name]
        if found.built_on:
            cells = (found.coco, found.vg, found.unknown)
            lines.append(f"| {task.name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    lines += [
        "",
        f"Which of the two a row's training data names, {comp}, and the plain mean of the "
        f"{len(others)} of its benchmarks that show neither ({', '.join(others)}), "
        "computed here. `neither`: it names neither, which says nothing of pictures crawled from "
        "the web. `?`: the row does not say what it was trained on.",
        "",
        f"| Source | Model | Trained on | {comp} | {comp} without |",
        "|---|---|---|---:|---:|",
    ]
    for row in rows:
        trained = _names(row.trained_on or None)
        values = _values(row)
        lines.append(_without("measured", row.model, trained, comp, values, wanted, built_on))
    for path, part in _by_file(quoted).items():
        for row in part:
            trained = _names(row.about.get("train_data"))
            named_row = (_link(path), row.model, trained, comp, row.values)
            lines.append(_without(*named_row, wanted, built_on))
    return [*(line for line in lines if line is not None), ""]


def _names(words: str | None) -> str:
    """Which of COCO and VG the words on training data name; `?` where there are none."""
    return "?" if words is None else ", ".join(named(words)) or "neither"


def _values(row: Row) -> dict[str, float]:
    return {name: cell.value for name, cell in row.cells.items() if cell.value is not None}


def _without(
    source: str,
    model: str,
    trained: str,
    average: str,
    values: Mapping[str, float],
    wanted: Sequence[str],
    built_on: Sequence[str],
) -> str | None:
    """A row's line; None where it has no such average or lacks one of the others."""
    mean = mean_of_others(values, wanted, built_on)
    if mean is None or average not in values:
        return None
    cells = [source, for_markdown(model), trained, f"{values[average]:.1f}", f"{mean:.1f}"]
    return f"| {' | '.join(cells)} |"
