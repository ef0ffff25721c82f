"""Ranking: rows in order, and what the one bootstrap says of ranks, ties, differences and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.report.leaderboard import (
    Row,
    mean_of_draws,
    measured_row,
    percentiles,
    present,
)
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Run


def measured_rows(
    runs: Sequence[Run],
    tasks: Sequence[TaskFacts],
    draws: Mapping[Path, Mapping[str, Mapping[str, np.ndarray]]] | None = None,
) -> list[Row]:
    """The runs' rows, best first, ranked. draws: by run folder, as `measured_row` takes them."""
    averages = present(tasks)
    rows = [measured_row(run, tasks, (draws or {}).get(run.path)) for run in runs]
    return signed(ranked(order(rows, averages), averages), averages)


def signed(rows: Sequence[Row], averages: Sequence[str]) -> list[Row]:
    """The rows, each with its signature against its base where that is a row too. averages: the
    suite's.
    """
    known = {row.model: row for row in rows}
    return [
        replace(row, signature=signature(row, known[row.base], averages))
        if row.base in known and row.base != row.model
        else row
        for row in rows
    ]


def signature(row: Row, base: Row, averages: Sequence[str]) -> str:
    """What fine-tuning did, beyond error, by paired intervals: GAIN, where the suite's first
    average (Comp) is up and none of the others down; TRADE-OFF, where one is down; LOSS, where the
    first is down; otherwise nothing.
    """
    moved = {
        name: _moved(_difference(row.cells[name], base.cells[name], row.draws.get(name),
                                 base.draws.get(name)))
        for name in averages
        if name in row.cells and name in base.cells
    }  # fmt: skip
    first = moved.get(averages[0], 0) if averages else 0
    if first == 0:
        return ""
    if first < 0:
        return "LOSS"
    return "TRADE-OFF" if -1 in moved.values() else "GAIN"


def _moved(difference: Cell) -> int:
    """1 for up and -1 for down beyond error, else 0."""
    if difference.low is None:
        return 0
    return (difference.low > 0) - (difference.high < 0)


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


def order(rows: Sequence[Row], averages: Sequence[str]) -> list[Row]:
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
