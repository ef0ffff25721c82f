"""Arrow files with images in a column, as `Dataset.save_to_disk` writes them: member `column/row`.

Cells are as in a Parquet file (parquet.py). The file is mapped into memory, not read.
"""

import bisect
from collections.abc import Collection, Iterable
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from fsc_bench.data.border import HARMLESS, check_growth
from fsc_bench.data.containers.parquet import cell_bytes, split_member
from fsc_bench.system.regular import check_regular

SUFFIXES = (".arrow",)


class Container:
    def __init__(self, path: Path):
        self.schema, self.batches = read_batches(path)
        self.starts = [0, *accumulate(batch.num_rows for batch in self.batches)]
        self.columns = self.schema.names

    def names(self) -> Collection[str]:
        return [f"{column}/{row}" for column in self.columns for row in range(self.starts[-1])]

    def read(self, member: str) -> bytes:
        column, row, place = split_member(member, self.columns)
        if row >= self.starts[-1]:
            raise KeyError(member)
        part = bisect.bisect_right(self.starts, row) - 1
        cell = (
            self.batches[part].column(self.columns.index(column))[row - self.starts[part]].as_py()
        )
        return cell_bytes(cell, place, member)


def read_batches(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """(schema, batches) of an Arrow file or stream. Raises ValueError or OSError."""
    check_regular(path)
    packed = path.stat().st_size
    try:
        source = pa.memory_map(str(path))
        try:
            with pa.ipc.open_stream(source) as reader:
                schema, batches = reader.schema, _within(reader, packed)
        except pa.ArrowInvalid:
            with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
                numbers = range(reader.num_record_batches)
                schema, batches = reader.schema, _within(map(reader.get_batch, numbers), packed)
        for batch in batches:
            batch.validate(full=True)  # Arrow believes a file's offsets: a wrong one would crash
        return schema, batches
    except (pa.ArrowException, MemoryError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _within(batches: Iterable[pa.RecordBatch], packed: int) -> list[pa.RecordBatch]:
    """The batches, where their buffers are no bomb: compressed ones are unpacked on reading."""
    found, size = [], 0
    for batch in batches:
        size += batch.nbytes
        if size > HARMLESS and size > 2 * packed:
            check_growth(size, packed)
        found.append(batch)
    return found
