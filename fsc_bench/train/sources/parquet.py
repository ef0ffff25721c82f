"""Parquet files with an image and a caption column, `parquet:FILE`, `parquet:FOLDER` or a glob."""

import glob
from collections.abc import Mapping
from pathlib import Path

from fsc_bench.errors import DataError
from fsc_bench.train.sources import Keys
from fsc_bench.train.sources.hf import Table


def open_pairs(path: str, keys: Keys, links: Mapping[str, str]) -> Table:
    place = Path(path).expanduser()
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else sorted(glob.glob(str(place)))
    if not files:
        raise DataError(f"{path}: there is no Parquet file.")
    import datasets
    import pyarrow as pa

    try:
        table = datasets.Dataset.from_parquet([str(file) for file in files])
    except (OSError, ValueError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as Parquet: {reason}") from None
    return Table(table, keys, path, Path(files[0]).parent)
