"""`file:PATH`: negatives made before, by `build` or by those who made the data.

Two layouts are read: the Parquet of `build` (columns caption, kind, negatives), and a table with a
column of captions and one of lists, such as NegCLIP's `train_neg_clip.tsv` (title, neg_caption):
`file:train_neg_clip.tsv?captions=title&negatives=neg_caption`.
"""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.data.delimited import BadTable, read_columns
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.system.spec import Spec
from fsc_bench.train.negatives.text import Random, distinct, shuffled

OPTIONS = ("captions", "negatives")
CAPTION_NAMES = ("caption", "title", "text", "sentence")
NEGATIVES_NAMES = ("neg_caption", "negatives", "hard_negatives", "neg_captions")


class FileGenerator:
    """The negatives of a file; a caption that it does not hold has none.

    rows: caption -> kind -> negatives. source: where they come from, for the version.
    """

    name = "file"

    def __init__(self, rows: dict[str, dict[str, list[str]]], kinds: tuple[str, ...], source: str):
        self.rows = rows
        self.kinds = kinds
        self.version = source

    def generate(self, caption: str, rng: Random, count: int = 4) -> dict[str, list[str]]:
        """`count` of the file's negatives for each kind, in an order that `rng` draws."""
        kinds = self.rows.get(caption, {})
        return {
            kind: distinct(caption, shuffled(kinds.get(kind, []), rng), count)
            for kind in self.kinds
        }


def load(argument: str) -> FileGenerator:
    """`PATH` or `PATH?captions=COLUMN&negatives=COLUMN`, Parquet, TSV or CSV.

    Raises UsageError for a path, column or option that is not there, DataError for a broken file.
    """
    spec = Spec("file", argument)
    name, options = spec.place, dict.fromkeys(OPTIONS) | spec.options(*OPTIONS)
    path = Path(name).expanduser()
    if not name or not path.is_file():
        raise UsageError(f"negatives 'file:{argument}': there is no file {name or 'named'!r}.")
    try:
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            if not any(options.values()) and "kind" in file.schema_arrow.names:
                return _built(file, path)
            table = file.read().to_pandas()
        else:
            delimited, cells = read_columns(path)
            table = pd.DataFrame(dict(zip(delimited.columns, cells, strict=True)), dtype=str)
    except (pa.ArrowException, BadTable, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as a table: {reason}") from error
    return _column(table, path, options["captions"], options["negatives"])


def _built(file: pq.ParquetFile, path: Path) -> FileGenerator:
    """What `build` wrote; its version is the maker's and the seed, not the file's name."""
    metadata = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (file.schema_arrow.metadata or {}).items()
        if key != b"pandas"
    }
    missing = {"caption", "kind", "negatives"} - set(file.schema_arrow.names)
    if missing:
        raise DataError(f"{path}: has a column 'kind' but no {', '.join(sorted(missing))}.")
    texts, lists = (pa.string(), pa.large_string()), (pa.types.is_list, pa.types.is_large_list)
    types = {name: file.schema_arrow.field(name).type for name in ("caption", "kind", "negatives")}
    inner = getattr(types["negatives"], "value_type", None)
    if {types["caption"], types["kind"], inner} - set(texts) or not any(
        is_list(types["negatives"]) for is_list in lists
    ):
        raise DataError(f"{path}: wants columns of text, text and lists of texts, not {types}.")
    rows: dict[str, dict[str, list[str]]] = {}
    found: dict[str, None] = {}
    for batch in file.iter_batches(columns=["caption", "kind", "negatives"]):
        for caption, kind, negatives in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            rows.setdefault(caption, {})[kind] = negatives or []
            found[kind] = None
    kinds = tuple(metadata["kinds"].split(",")) if "kinds" in metadata else tuple(found)
    parts = [metadata.get(key, "unknown") for key in ("generator", "version", "seed")]
    source = f"{parts[0]} {parts[1]}, seed {parts[2]}, sha256 {_sha256(path)[:16]}"
    return FileGenerator(rows, kinds, source)


def _column(
    table: pd.DataFrame, path: Path, captions: str | None, negatives: str | None
) -> FileGenerator:
    captions = _choose(table, path, "captions", captions, CAPTION_NAMES)
    negatives = _choose(table, path, "negatives", negatives, NEGATIVES_NAMES)
    rows: dict[str, dict[str, list[str]]] = {}
    pairs = zip(table[captions], table[negatives], strict=True)
    for line, (caption, cell) in enumerate(pairs, start=1):
        texts = _texts(cell)
        if texts is None:
            raise DataError(
                f"{path}: row {line}, column {negatives!r}: {str(cell)[:60]!r} is no list of texts."
            )
        # One caption of several images has the negatives of all of them.
        rows.setdefault(str(caption).strip(), {}).setdefault(negatives, []).extend(texts)
    return FileGenerator(rows, (negatives,), f"{negatives}, sha256 {_sha256(path)[:16]}")


def _choose(
    table: pd.DataFrame, path: Path, role: str, wanted: str | None, usual: tuple[str, ...]
) -> str:
    columns = [str(column) for column in table.columns]
    for name in (wanted,) if wanted else usual:
        if name in columns:
            return name
    hint = near_miss(wanted, columns) if wanted else ""
    raise UsageError(
        f"{path}: no column {wanted or ' or '.join(usual)} of {role}; it has {', '.join(columns)}."
        f"{hint or f' Name it with ?{role}=COLUMN.'}"
    )


def _texts(cell: Any) -> list[str] | None:
    """A cell as texts: a list, the text of a Python or JSON list, or nothing at all."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, str):
        if not cell.strip():
            return []
        for read in (ast.literal_eval, json.loads):
            try:
                cell = read(cell)
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        else:
            return None
    elif hasattr(cell, "tolist"):
        cell = cell.tolist()
    if not isinstance(cell, list | tuple) or not all(isinstance(text, str) for text in cell):
        return None
    return list(cell)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
