"""Show: what a person sees on a terminal: progress, tables. It computes nothing; no torch."""

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fsc_bench.report.leaderboard import (
    AVERAGES,
    averages,
    chance_row,
    columns,
    headline_cell,
)
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, plain
from fsc_bench.task import Task, catalogue


class Terminal:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self):
        self.live = sys.stderr.isatty()
        self.bar = None
        self.job = None
        self.what = ""
        self.last = time.monotonic()

    def say(self, line: str) -> None:
        if self.bar:
            self.bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        if not self.live:
            now = time.monotonic()
            if now - self.last > 10:
                self.last = now
                self.say(f"  {what}: {done:,} of {total:,}")
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            self.bar = Progress(
                "[progress.description]{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        if what != self.what:
            if self.job is not None:
                self.bar.remove_task(self.job)
            self.job = self.bar.add_task(what, total=total)
            self.what = what
        self.bar.update(self.job, completed=done, total=total)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def print_json(content: Any) -> None:
    """One document on stdout."""
    print(json.dumps(plain(content), indent=1, default=str))


def readable_time(seconds: float) -> str:
    """5400 as 1 h 30 min; under a minute in seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout, columns of numbers to the right. An empty row parts groups."""
    numbers = [
        all(re.match(r"[-+\[\d]|$", str(row[place])) for row in rows if row)
        for place in range(len(header))
    ]
    if not sys.stdout.isatty():
        _print_plain(header, rows, title, numbers)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if numbers[place] else "left", overflow="fold")
    for row in rows:
        if row:
            table.add_row(*[str(cell).replace("[", "\\[") for cell in row])
        else:
            table.add_section()
    Console().print(table)


def _print_plain(
    header: Sequence[str], rows: Sequence[Sequence[str]], title: str, numbers: Sequence[bool]
) -> None:
    """For files and pipes: as wide as it needs to be, no frames (and no import of rich: 0.1 s)."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[place]) for line in lines if line) for place in range(len(header))]
    if title:
        print(f"{title}\n")
    for line in lines:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=False)
        ]
        print("  ".join(cells).rstrip())


def results_table(
    results: Mapping[str, Mapping[str, Result]], tasks: Sequence[Task], title: str = ""
) -> None:
    """Tasks down, models across; the averages of whole groups at the foot.

    An average is of a suite's whole group, whatever was selected: it shows once that is complete.
    """
    models = list(results)
    if len(models) == 1:
        _one_model(models[0], results[models[0]], tasks, title)
        return
    header = ["task", "metric", *[model.removeprefix("demo:") for model in models], "chance"]
    cells = {model: _cells(results[model], tasks) for model in models}
    suite = _whole_suites(tasks)
    chance = chance_row(suite).cells
    rows: list[list[str]] = []
    group = None
    for name, (task, metric) in columns([TaskFacts.of(task) for task in tasks]).items():
        if group not in (None, task.group):
            rows.append([])
        group = task.group
        shown = [_with_half(cells[model].get(name)) for model in models]
        rows.append([task.name, metric, *shown, f"{task.chance[metric]:.1f}"])
    rows.append([])
    for name in AVERAGES:
        found = {model: averages(cells[model], suite).get(name) for model in models}
        if any(found.values()):
            shown = [_with_half(found[model]) for model in models]
            rows.append([name, "average", *shown, str(chance.get(name, "-"))])
    print_table(header, rows, title)
    for model in models:
        _print_notes(cells[model], f"{model}, ")


def _print_notes(cells: Mapping[str, Cell], before: str = "") -> None:
    """What the marks in a table mean: `*` and its reason, `†` and the strict number."""
    lines = [f"* {before}{name}: {cell.note}" for name, cell in cells.items() if cell.note]
    lines += [
        f"† {before}{name}: {cell.strict:.1f} where any tie is a miss"
        for name, cell in cells.items()
        if cell.strict is not None
    ]
    for line in dict.fromkeys(lines):
        print(line)


def _one_model(
    model: str, results: Mapping[str, Result], tasks: Sequence[Task], title: str
) -> None:
    """One model: every number with interval, n, chance and, where there is one, the published."""
    cells = _cells(results, tasks)
    suite = _whole_suites(tasks)
    chance = chance_row(suite).cells
    reference_of = {task.name: task.reference.get(model, {}) for task in tasks}
    reference = any(reference_of.values())
    header = ["task", "metric", "score", "95% interval", "chance", "n", "ties"]
    header += ["published"] if reference else []
    rows: list[list[str]] = []
    for name, (task, metric) in columns([TaskFacts.of(task) for task in tasks]).items():
        cell, result = cells.get(name), results.get(task.name)
        row = [task.name, metric]
        row += [str(cell), cell.interval] if cell else ["-", ""]
        row += [f"{task.chance[metric]:.1f}"]
        row += [f"{result.n:,}", f"{result.ties:,}"] if result else ["", ""]
        if reference:
            quoted = reference_of[task.name].get(metric)
            row.append("" if quoted is None else f"{quoted:.1f}")
        rows.append(row)
    found = averages(cells, suite)
    if found:
        rows.append([])
    for name, cell in found.items():
        row = [name, "average", str(cell), cell.interval, str(chance.get(name, "-")), "", ""]
        rows.append([*row, *([""] if reference else [])])
    print_table(header, rows, title or model)
    _print_notes(cells)
    for task in tasks:
        if task.name in results and task.reference.get(model, {}).get("subsets"):
            print()
            subsets_table(task, results[task.name], model)


def subsets_table(task: Task, result: Result, model: str) -> None:
    """Every node of a task's tree, with the same model's published number where there is one."""
    reference = task.reference.get(model, {}).get("subsets", {})
    rows = []
    for node, metrics in result.metrics.items():
        for metric, cell in metrics.items():
            quoted = reference.get(node)
            if isinstance(quoted, Mapping):
                quoted = quoted.get(metric)
            elif metric != task.headline[0]:
                quoted = None
            rows.append(
                [
                    node,
                    metric,
                    str(cell),
                    cell.interval,
                    "-" if cell.chance is None else f"{cell.chance:.1f}",
                    f"{cell.n:,}",
                    "" if quoted is None else f"{quoted:.1f}",
                ]
            )
    header = ["subset", "metric", "score", "95% interval", "chance", "n", "published"]
    print_table(header, rows, f"{task.name}: {model}")


def _whole_suites(tasks: Sequence[Task]) -> list[TaskFacts]:
    """Every task of the suites that the selected ones come from."""
    suites = {task.suite for task in tasks}
    known = [task for task in catalogue().values() if task.suite in suites]
    return [TaskFacts.of(task) for task in (*known, *_own(tasks))]


def _own(tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if task.name not in catalogue()]


def _cells(results: Mapping[str, Result], tasks: Sequence[Task]) -> dict[str, Cell]:
    found = {}
    for name, (task, metric) in columns([TaskFacts.of(task) for task in tasks]).items():
        cell = headline_cell(task, results[task.name], metric) if task.name in results else None
        if cell:
            found[name] = cell
    return found


def _with_half(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    half = "" if cell.low is None else f" ±{(cell.high - cell.low) / 2:.1f}"
    return f"{cell}{half}"
