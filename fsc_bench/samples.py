"""Samples: the columns of a `samples/<task>.parquet`, checked where they are read.

A run folder may be a stranger's: of the wanted columns the types, the number of rows and the size
once unpacked are looked at before anything is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsc_bench.errors import UsageError, near_miss, one_line, reason
from fsc_bench.system.escape import for_terminal

MOST_SAMPLES = 50_000_000
MOST_BYTES = 8_000_000_000  # of the wanted columns once unpacked; 5,000,000 captions have 1e9
_TEXTS = ("id", "subset", "cluster", "stratum", "source", "prediction_name")
_FLAGS = ("tie", "free", "easier")  # and all that begin with "correct"
_NUMBERS = ("prediction", "score_label", "score_best_other", "i2t_rank", "right_texts")
_LISTS_OF = {  # what pyarrow.types calls the values
    "labels": "is_integer",
    "t2i_rank": "is_integer",
    "scores": "is_floating",
    "pair_scores": "is_floating",
    "text_scores": "is_floating",
    "image_digests": "is_string",
    "images": "is_string",
    "texts": "is_string",
    "label_names": "is_string",
}


def read_samples(path: Path, wanted: Sequence[str], n: int | None = None) -> Any:
    """The wanted columns of a samples file, which may be a stranger's, as a table of pyarrow.

    n: how many samples the result is of. Raises UsageError, one line, for a file that is no
    Parquet, lacks a column, has one of another type or with holes, has other than n rows, or is
    larger than memory should be asked for.
    """
    with _opened(path) as file:
        _check_samples(path, file, wanted, n)
        table = file.read(columns=list(wanted))
    for name in wanted:
        if table[name].null_count:
            raise UsageError(f"{path}: the column {name!r} has {table[name].null_count:,} holes.")
    return table


def check_samples(path: Path, wanted: Sequence[str], n: int | None = None) -> list[str]:
    """The same without reading: the names of all columns. Raises UsageError as `read_samples`."""
    with _opened(path) as file:
        _check_samples(path, file, wanted, n)
        return list(file.schema_arrow.names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Parquet file; what a library raises meanwhile becomes UsageError, one line."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file: the samples are gone.")
        with pq.ParquetFile(path) as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {reason(error)}.") from None
    except (pa.ArrowException, ValueError, MemoryError) as error:
        raise UsageError(f"{path}: no samples file: {for_terminal(one_line(error))}.") from None


def _check_samples(path: Path, file: Any, wanted: Sequence[str], n: int | None) -> None:
    schema, about = file.schema_arrow, file.metadata
    if n is not None and about.num_rows != n:
        raise UsageError(f"{path}: {about.num_rows:,} samples; its result is of {n:,}.")
    if about.num_rows > MOST_SAMPLES:
        raise UsageError(f"{path}: {about.num_rows:,} samples; at most {MOST_SAMPLES:,} are read.")
    for name in wanted:
        if schema.names.count(name) != 1:
            raise UsageError(
                f"{path}: no column {name!r}, or several.{near_miss(name, schema.names)} Where an "
                "older version wrote it, score the task anew."
            )
        kind = schema.field(name).type
        if not _fits(name, kind):
            raise UsageError(f"{path}: the column {name!r} is of type {for_terminal(str(kind))}.")
    unpacked = sum(
        group.column(place).total_uncompressed_size
        for group in map(about.row_group, range(about.num_row_groups))
        for place in range(group.num_columns)
        if group.column(place).path_in_schema.partition(".")[0] in wanted
    )
    if unpacked > MOST_BYTES:
        raise UsageError(f"{path}: {unpacked:,} bytes once unpacked; at most {MOST_BYTES:,}.")


def _fits(name: str, kind: Any) -> bool:
    """Whether a column has the type that its name asks for; of other names nothing is known."""
    import pyarrow.types as types

    if name in _TEXTS:
        return types.is_string(kind) or types.is_large_string(kind)
    if name in _FLAGS or name.startswith("correct"):
        return types.is_boolean(kind)
    if name in _NUMBERS:
        return types.is_integer(kind) or types.is_floating(kind)
    if name in _LISTS_OF:
        return types.is_list(kind) and getattr(types, _LISTS_OF[name])(kind.value_type)
    return True
