"""CSV files with images as numbers in a cell: member `column/row`, pixels [side, side] uint8.

FER2013 comes so: `pixels` holds 2,304 numbers of a 48x48 face (Kaggle's fer2013.csv). Where each
number has a cell of its own, member `1-784/12` is cells 1 to 784 of line 12, both from 0.
"""

import csv
import io
import math
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fsc_bench.data.border import read_packed
from fsc_bench.system.budget import check

SUFFIXES = (".csv", ".csv.gz")


class Container:
    """A CSV file whose rows are lines; they are cut when asked for."""

    def __init__(self, path: Path):
        data = read_packed(path)
        check("members", lines := data.count(b"\n"), f"has {lines:,} lines")
        self.lines = data.splitlines()
        self.columns = self.cells(0) if self.lines else []

    def cells(self, line: int) -> list[str]:
        """The cells of a line, from 0, the header counted. Raises ValueError."""
        try:
            text = self.lines[line].decode("utf-8-sig")
            return next(csv.reader(io.StringIO(text)), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"line {line + 1}: {error}") from None

    def names(self) -> Collection[str]:
        rows = range(len(self.lines) - 1)
        return [f"{column}/{row}" for column in self.columns for row in rows]

    def read(self, member: str) -> np.ndarray:
        column, _, number = member.rpartition("/")
        if column not in self.columns and (span := re.fullmatch(r"(\d+)-(\d+)", column)):
            return self._row(int(span[1]), int(span[2]), number, member)
        if column not in self.columns or not number.isdigit() or int(number) + 1 >= len(self.lines):
            raise KeyError(member)
        cells = self.cells(int(number) + 1)
        if len(cells) != len(self.columns):
            raise ValueError(f"{member}: the row has {len(cells)} cells")
        return _pixels(cells[self.columns.index(column)].split(), member)

    def _row(self, first: int, last: int, number: str, member: str) -> np.ndarray:
        if not number.isdigit() or int(number) >= len(self.lines):
            raise KeyError(member)
        return _pixels(self.cells(int(number))[first : last + 1], member)


def _pixels(numbers: list[str], member: str) -> np.ndarray:
    try:
        values = np.array(numbers, dtype=np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"{member} holds no pixels") from None
    side = math.isqrt(len(values))
    if not side or side * side != len(values) or values.min() < 0 or values.max() > 255:
        raise ValueError(f"{member} holds no square image of 8 bits")
    return values.astype(np.uint8).reshape(side, side)
