"""Parquet files with images in a column, as `datasets` writes them: member `column/row`.

A cell is encoded bytes or the struct `{bytes, path}` of `datasets.Image`, or a list of those, of
which `column/row/place` is one.
"""

import bisect
import threading
from collections.abc import Collection
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.system.budget import check

SUFFIXES = (".parquet",)


class Container:
    """A Parquet file; one row group of one column is held at a time."""

    def __init__(self, path: Path):
        try:
            self.file = pq.ParquetFile(path)
        except pa.ArrowException as error:
            raise ValueError(str(error).splitlines()[0]) from None
        meta = self.file.metadata
        groups = range(meta.num_row_groups)
        self.starts = [0, *accumulate(meta.row_group(group).num_rows for group in groups)]
        self.columns = self.file.schema_arrow.names
        self.held: tuple[tuple[str, int], pa.Table] | None = None
        self.lock = threading.Lock()

    def names(self) -> Collection[str]:
        return [f"{column}/{row}" for column in self.columns for row in range(self.starts[-1])]

    def read(self, member: str) -> bytes:
        column, row, place = split_member(member, self.columns)
        if row >= self.starts[-1]:
            raise KeyError(member)
        group = bisect.bisect_right(self.starts, row) - 1
        with self.lock:
            if self.held is None or self.held[0] != (column, group):
                self.held = ((column, group), self._group(column, group))
            cell = self.held[1].column(0)[row - self.starts[group]].as_py()
        return cell_bytes(cell, place, member)

    def _group(self, column: str, group: int) -> pa.Table:
        facts = self.file.metadata.row_group(group)
        parts = [facts.column(place) for place in range(facts.num_columns)]
        size = sum(
            part.total_uncompressed_size
            for part in parts
            if part.path_in_schema.partition(".")[0] == column
        )
        check("bytes", size, f"its column {column!r} unpacks to {size:,} bytes in one row group")
        try:
            return self.file.read_row_group(group, columns=[column])
        except (pa.ArrowException, MemoryError) as error:
            raise ValueError(str(error).splitlines()[0]) from None


def split_member(member: str, columns: Collection[str]) -> tuple[str, int, int | None]:
    """(column, row, place in the cell's list or None) of `column/row` or `column/row/place`."""
    column, _, last = member.rpartition("/")
    outer, _, middle = column.rpartition("/")
    if last.isdecimal() and column in columns:
        return column, int(last), None
    if last.isdecimal() and middle.isdecimal() and outer in columns:
        return outer, int(middle), int(last)
    raise KeyError(member)


def cell_bytes(cell: object, place: int | None, member: str) -> bytes:
    """The encoded image in a cell. Raises KeyError beyond its list, ValueError for all else."""
    if place is not None:
        if not isinstance(cell, list) or place >= len(cell):
            raise KeyError(member)
        cell = cell[place]
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise ValueError(f"{member} holds no image bytes")
    return data
