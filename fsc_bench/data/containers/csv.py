"""CSV files with images as numbers in a cell: member `column/row`, pixels [side, side] uint8.

FER2013 comes so: `pixels` holds 2,304 numbers of a 48x48 face (Kaggle's fer2013.csv).
"""

import csv
import io
import math
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
        self.columns = self._cells(0) if self.lines else []

    def _cells(self, line: int) -> list[str]:
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
        if column not in self.columns or not number.isdigit() or int(number) + 1 >= len(self.lines):
            raise KeyError(member)
        cells = self._cells(int(number) + 1)
        if len(cells) != len(self.columns):
            raise ValueError(f"{member}: the row has {len(cells)} cells")
        try:
            values = np.array(cells[self.columns.index(column)].split(), dtype=np.int64)
        except (ValueError, OverflowError):
            raise ValueError(f"{member} holds no pixels") from None
        side = math.isqrt(len(values))
        if not side or side * side != len(values) or values.min() < 0 or values.max() > 255:
            raise ValueError(f"{member} holds no square image of 8 bits")
        return values.astype(np.uint8).reshape(side, side)
