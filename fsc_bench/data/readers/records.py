"""Parquet files that already hold records, with the columns of records.py: id, images, texts ...

The way to bring a benchmark that no other reader knows. Options: `files`, globs below the raw
folder; by default every Parquet file there.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.border import reason
from fsc_bench.data.listing import files_below, natural
from fsc_bench.data.raw import Raw
from fsc_bench.records import Record, records_from_table
from fsc_bench.system.tables import read_parquet
from fsc_bench.task import Task

OPTIONS = {"files": []}
SEVERAL = ("files",)
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     items.parquet   with the columns
#         id      text, each its own
#         images  list of {source, path}; source "." is FOLDER
#         texts   list of texts, the right one first
#         subset  text, a name of [subsets]
#     and, where the first few texts of an image are all right, right_texts, how many
#     0.png 1.png
title    = "Mine"
suite    = "mine"
group    = "compositionality"
kind     = "matching"
version  = 1
headline = ["text"]
chance   = 50.0
[subsets]
items = 2
[data]
reader = "records"
[data.options]
files = "items.parquet"
"""


def read(task: Task, raw: Raw) -> Iterator[Record]:
    for path in files_of(raw, task.data.options.get("files", []), (".parquet",)):
        raw.note(path)
        try:
            table = read_parquet(path)
        except (OSError, ValueError) as error:
            raw.fail(path, None, f"is no readable Parquet file: {reason(error)}.")
        yield from records_from_table(table, f"{task.name}: {path}")


def files_of(raw: Raw, globs: list[str] | str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that globs name, or all with such endings. Raises DataError when there are none."""
    if raw.folder.is_file():
        return [raw.folder]
    if not globs:
        found = files_below(raw.folder, suffixes)
        return found or [raw.find(f"*{suffixes[0]}")]
    found = []
    for pattern in [globs] if isinstance(globs, str) else globs:
        if ".." in Path(pattern).parts or Path(pattern).is_absolute():
            raw.fail(raw.folder, None, f"the pattern {pattern!r} leaves the folder.")
        matching = sorted(raw.folder.glob(pattern), key=natural)
        found += matching or [raw.find(pattern)]
    return list(dict.fromkeys(found))
