"""Published: quoted numbers out of CSV files, typed and bounded.

A file has a header with `model` and `source`, then columns named as a leaderboard's; a cell is a
number in percent, or empty or `-` where nothing was published. Further columns are carried beside
them, so that a source's file can hold all that it states: `benchmark/part`, a number in percent of
any benchmark, which no table and no average takes (`sugarcrepe/add_obj`, `colorswap/average`,
`Comp/of 12`), and the words of `ABOUT`. Files may be anybody's: what does not fit is told in one
line and left out, the rest is read.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from fsc_bench.errors import UsageError, near_miss, reason
from fsc_bench.system.escape import for_terminal, shortened
from fsc_bench.system.facts import check_name, read_text

NAMES = ("model", "source")
ABOUT = ("table", "base", "train_data", "method", "lora", "notes")  # columns of words
HOLES = ("", "-")
MOST_ROWS = 10_000
LONGEST = 1000  # characters of a cell


@dataclass(frozen=True)
class Quoted:
    """One published row: values in percent by column, of the columns that a table has.

    more: values in percent by column, of columns `benchmark/part`; about: words by column.
    elsewhere: whether it has a number of another table.
    """

    model: str
    source: str
    values: Mapping[str, float]
    path: Path
    line: int
    more: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False


class _Complaints:
    """Tells what was left out of one file; without a listener it raises instead."""

    def __init__(self, path: Path, complain: Callable[[str], Any] | None):
        self.path, self.complain = path, complain

    def __call__(self, what: str) -> None:
        line = for_terminal(f"{self.path}: {what}")
        if self.complain is None:
            raise UsageError(line)
        self.complain(line)


def read_published(
    folder: Path,
    known: Collection[str],
    complain: Callable[[str], Any] | None = None,
    others: Collection[str] = (),
) -> list[Quoted]:
    """Rows of every CSV file in `folder`, in the order of files and lines.

    known: the columns of the table. others: names of columns that other tables have, which are
    passed over without a word. complain: told, in one line each, of files, columns, rows and cells
    that were left out, with the near miss. Without it the first of them raises UsageError.
    """
    rows: list[Quoted] = []
    try:
        files = sorted(folder.glob("*.csv"))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {reason(error)}.") from None
    for path in files:
        rows += read_published_file(path, known, complain, others)
    return rows


def read_published_file(
    path: Path,
    known: Collection[str],
    complain: Callable[[str], Any] | None = None,
    others: Collection[str] = (),
) -> list[Quoted]:
    """Rows of one CSV file, as `read_published` reads them."""
    told = _Complaints(path, complain)
    try:
        lines = list(_lines(path))
    except UsageError as error:
        told(str(error).removeprefix(f"{path}: "))
        return []
    if not lines:
        told("empty; its first line names the columns: model, source and a table's.")
        return []
    return list(_rows(path, lines, known, others, told))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(the number of its last line, cells) of every row that is not empty."""
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
            if reader.line_num > MOST_ROWS:
                raise UsageError(f"{path}: more than {MOST_ROWS:,} lines; no more are read.")
    except csv.Error as problem:
        raise UsageError(f"{path}: line {reader.line_num}: not CSV: {problem}.") from None


def _rows(
    path: Path,
    lines: list[tuple[int, list[str]]],
    known: Collection[str],
    others: Collection[str],
    told: _Complaints,
) -> Iterator[Quoted]:
    header = [name.strip() for name in lines[0][1]]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        told(f"its header names {shortened(twice[0])} twice; which is meant cannot be known.")
        return
    if lacking := [name for name in NAMES if name not in header]:
        told(f"its header lacks {lacking[0]!r}.{near_miss(lacking[0], header)}")
        return
    for name in header:
        if name not in (*NAMES, *ABOUT, *known, *others) and not is_further(name):
            hint = near_miss(name[:80], [*known, *others])
            told(f"the column {shortened(name)} is no column of a table; left out.{hint}")
    for number, cells in lines[1:]:
        if row := _row(path, number, header, cells, known, others, told):
            yield row


def _row(
    path: Path,
    number: int,
    header: list[str],
    cells: list[str],
    known: Collection[str],
    others: Collection[str],
    told: _Complaints,
) -> Quoted | None:
    if len(cells) != len(header):
        told(f"line {number}: {len(cells)} cells below {len(header)} columns; left out.")
        return None
    found = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    try:
        for name in NAMES:
            check_name(found[name][: LONGEST + 1], f"line {number}: {name!r}")
            if len(found[name]) > LONGEST:
                raise UsageError(f"line {number}: {name!r} has more than {LONGEST:,} characters.")
    except UsageError as error:
        told(f"{error} Left out.")
        return None
    numbers, about = {}, {}
    for name in header:
        if found[name] in HOLES:
            continue
        if name in ABOUT:
            about[name] = for_terminal(found[name])
            continue
        if name not in known and not is_further(name):
            continue
        value = _percent(found[name])
        if value is None:
            told(
                f"line {number}: {shortened(name)[1:-1]} = {shortened(found[name])} is no number "
                "within 0 and 100."
            )
        else:
            numbers[name] = value
    values = {name: value for name, value in numbers.items() if name in known}
    more = {name: value for name, value in numbers.items() if name not in known}
    filled = {name for name, cell in found.items() if cell not in HOLES}
    elsewhere = not filled.isdisjoint({*others} - {*known})
    return Quoted(found["model"], found["source"], values, path, number, more, about, elsewhere)


def is_further(name: str) -> bool:
    """Whether a column says by its shape, `benchmark/part`, that no table has it."""
    benchmark, slash, part = name.partition("/")
    return bool(slash and benchmark.strip() and part.strip()) and len(name) <= LONGEST


def _percent(text: str) -> float | None:
    """The number that a cell says; None where it says none in percent."""
    try:
        value = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
    return value if value is not None and isfinite(value) and 0 <= value <= 100 else None
