"""Scores: the tables of results that a person sees on a terminal. It computes means only."""

from collections.abc import Mapping, Sequence

import numpy as np

from fsc_bench.cli.show import print_table
from fsc_bench.report.blind import blind_cells, headroom_cell
from fsc_bench.report.leaderboard import (
    averages,
    chance_row,
    columns,
    headline_cell,
    present,
)
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result
from fsc_bench.task import Task, catalogue

HEADROOM = "headroom: (score - blind) / (100 - blind), in percent"


Draws = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]  # by model, task and metric


def results_table(
    results: Mapping[str, Mapping[str, Result]],
    tasks: Sequence[Task],
    title: str = "",
    draws: Draws | None = None,
) -> None:
    """Tasks down, models across; the averages of whole groups at the foot. draws: the headlines'
    (results.read_draws), from which the averages have their intervals.

    An average is of a suite's whole group, whatever was selected: it shows once that is complete.
    """
    models = list(results)
    if len(models) == 1:
        drawn = (draws or {}).get(models[0], {})
        _one_model(models[0], results[models[0]], tasks, title, drawn)
        return
    header = ["task", "metric", *[model.removeprefix("demo:") for model in models], "chance"]
    cells = {model: _cells(results[model], tasks) for model in models}
    suite = _whole_suites(tasks)
    chance = chance_row(suite).cells
    shown_columns = columns([TaskFacts.of(task) for task in tasks])
    blind = blind_cells(shown_columns)
    header += ["blind"] if blind else []
    rows: list[list[str]] = []
    group = None
    for name, (task, metric) in shown_columns.items():
        if group not in (None, task.group):
            rows.append([])
        group = task.group
        shown = [_with_half(cells[model].get(name)) for model in models]
        row = [task.name, metric, *shown, f"{task.chance[metric]:.1f}"]
        rows.append([*row, *([str(blind.get(name, "-"))] if blind else [])])
    rows.append([])
    means = {
        model: averages(cells[model], suite, _by_column(suite, (draws or {}).get(model, {})))
        for model in models
    }
    for name in present(suite):
        found = {model: means[model].get(name) for model in models}
        if any(found.values()):
            shown = [_with_half(found[model]) for model in models]
            row = [name, "average", *shown, str(chance.get(name, "-"))]
            rows.append([*row, *([""] if blind else [])])
    print_table(header, rows, title)
    for model in models:
        _print_notes(cells[model], f"{model}, ")
        _print_lacks(results[model], f"{model}, ")
        _print_theirs(results[model], f"{model}, ")
    if blind:
        print()
        _headroom_table(cells, blind)


def _headroom_table(cells: Mapping[str, Mapping[str, Cell]], blind: Mapping[str, Cell]) -> None:
    """Tasks that state what scorers without the picture get: what each model has won above it."""
    header = ["task", *[model.removeprefix("demo:") for model in cells]]
    rows = [
        [name, *[_with_half(headroom_cell(found.get(name), cell)) for found in cells.values()]]
        for name, cell in blind.items()
    ]
    print_table(header, rows, HEADROOM)


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


def _print_lacks(results: Mapping[str, Result], before: str = "") -> None:
    """Why a number of the headline is not there."""
    for name, result in results.items():
        for metric, why in result.lacks.items():
            print(f"- {before}{name} {metric}: {why}")


def _print_theirs(results: Mapping[str, Result], before: str = "") -> None:
    """The metrics of another program, by its own names, where a task has them."""
    for name, result in results.items():
        if found := result.official.get("metrics"):
            told = ", ".join(f"{metric} {value:.2f}" for metric, value in found.items())
            print(f"{before}{name}: {told} ({result.official['source']})")


def _one_model(
    model: str,
    results: Mapping[str, Result],
    tasks: Sequence[Task],
    title: str,
    draws: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """One model: every number with interval, n, chance and, where there is one, the published."""
    cells = _cells(results, tasks)
    suite = _whole_suites(tasks)
    chance = chance_row(suite).cells
    reference_of = {task.name: task.reference.get(model, {}) for task in tasks}
    reference = any(reference_of.values())
    shown_columns = columns([TaskFacts.of(task) for task in tasks])
    blind = blind_cells(shown_columns)
    header = ["task", "metric", "score", "95% interval", "chance"]
    header += ["blind", "headroom"] if blind else []
    header += ["n", "ties"]
    header += ["published"] if reference else []
    rows: list[list[str]] = []
    for name, (task, metric) in shown_columns.items():
        cell, result = cells.get(name), results.get(task.name)
        row = [task.name, metric]
        row += [str(cell), cell.interval] if cell else ["-", ""]
        row += [f"{task.chance[metric]:.1f}"]
        if blind:
            row += [str(blind.get(name, "-")), str(headroom_cell(cell, blind.get(name)))]
        row += [f"{result.n:,}", f"{result.ties:,}"] if result else ["", ""]
        if reference:
            quoted = reference_of[task.name].get(metric)
            row.append("" if quoted is None else f"{quoted:.1f}")
        rows.append(row)
    found = averages(cells, suite, _by_column(suite, draws))
    if found:
        rows.append([])
    for name, cell in found.items():
        row = [name, "average", str(cell), cell.interval, str(chance.get(name, "-"))]
        rows.append([*row, *[""] * (len(header) - len(row))])
    print_table(header, rows, title or model)
    _print_notes(cells)
    _print_lacks(results)
    _print_theirs(results)
    if blind:
        print(HEADROOM)
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


def _by_column(
    tasks: Sequence[TaskFacts], draws: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The draws of one model by column of a table."""
    return {
        name: draws[task.name][metric]
        for name, (task, metric) in columns(tasks).items()
        if metric in draws.get(task.name, {})
    }


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
    if cell is None or cell.value is None:
        return "-"
    half = "" if cell.low is None else f" ±{(cell.high - cell.low) / 2:.1f}"
    return f"{cell}{half}"
