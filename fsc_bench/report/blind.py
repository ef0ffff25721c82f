"""Blind: what is left of a score above scorers that see no picture (fsc_bench/blind.py)."""

from collections.abc import Mapping, Sequence

from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell
from fsc_bench.task import Task


def headroom(value: float, blind: float) -> float | None:
    """How much of what text alone leaves open a score has won, in percent: 0 where it equals the
    blind score, below 0 where it is lower, 100 for a perfect one. None where nothing is left open.
    """
    return None if blind >= 100 else 100 * (value - blind) / (100 - blind)


def blind_cells(columns: Mapping[str, tuple[TaskFacts, str]]) -> dict[str, Cell]:
    """The cells of the row "blind", by column: only of tasks that state it.

    columns: column -> (task, headline metric), as leaderboard.columns gives them.
    """
    return {
        name: Cell(task.blind)
        for name, (task, metric) in columns.items()
        if task.blind is not None and metric == task.headline[0]
    }


def headroom_cell(cell: Cell | None, blind: Cell | None) -> Cell:
    """The headroom of a cell with its interval; without a value where one of the two has none."""
    if cell is None or cell.value is None or blind is None:
        return Cell(None)
    ends = (cell.value, cell.low, cell.high)
    value, low, high = (None if end is None else headroom(end, blind.value) for end in ends)
    return Cell(value, low, high, cell.n)


def stated(tasks: Sequence[Task], model: str) -> str:
    """The Markdown table of what task files state, with a model's published numbers beside it.

    A benchmark's subsets, then its headline, where both are known. Of benchmarks that no text alone
    can win, the headline stands for all.
    """
    lines = [
        f"| benchmark | subset | n | chance | ruler | bigram | {model.partition(':')[2]} |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in tasks:
        metric, blind, published = task.headline[0], task.blind, task.reference.get(model, {})
        nodes = published.get("subsets", {})
        for node in [*task.leaves, "headline"]:
            known = published.get(metric) if node == "headline" else nodes.get(node)
            empty = node != "headline" and not any((*blind.ruler.values(), *blind.bigram.values()))
            if known is None or node not in blind.ruler or empty:
                continue
            known = known[metric] if isinstance(known, Mapping) else known
            n = task.leaves.get(node, task.n)
            figures = (task.chance[metric], blind.ruler[node], blind.bigram[node], known)
            cells = [task.title, "all" if node == "headline" else node, f"{n:,}"]
            lines.append(f"| {' | '.join([*cells, *(f'{figure:.1f}' for figure in figures)])} |")
    return "\n".join(lines) + "\n"
