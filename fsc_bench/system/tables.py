"""Tables: Parquet files of rows, read whole within the budget."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.system.budget import check
from fsc_bench.system.regular import check_regular

ROWS = 1 << 14  # at once: a column that says one text a billion times is small on disk


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file. Raises OSError where it cannot be opened, ValueError where it is
    damaged or larger than the budget.
    """
    check_regular(path)
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            check("members", rows, f"has {rows:,} rows")
            batches, size = [], 0
            for batch in file.iter_batches(ROWS, columns=columns):
                size += batch.nbytes
                check("bytes", size, f"unpacks to {size:,} bytes or more")
                batches.append(batch)
            schema = batches[0].schema if batches else _empty(file.schema_arrow, columns)
            return pa.Table.from_batches(batches, schema)
    except (OSError, ValueError):
        raise
    except (pa.ArrowException, NotImplementedError, MemoryError, KeyError, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _empty(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])
