"""Columns of what `datasets` writes or loads: Parquet, Arrow (`save_to_disk`), CSV, JSON lines.

Images are `datasets.Image` cells or bytes, read in place, or paths, row by row. Labels are numbers,
names, lists of them, or a vector of 0 and 1 with a place for each class. Where the file brings
class names (`ClassLabel`), names decide, since label orders differ between mirrors; a `classes.txt`
beside or above the files says what they mean (class_lists.py).

Options (a name, or several):
    files     globs below the raw folder; by default every file of the split, Parquet first
    split     the word that the split's files have in their path; several are tried in turn
    images    columns, each one image of the record; a column of lists is several images
    texts     columns, the first being right; a column of lists is several texts
    right_texts  how many of the texts, from the first on, are right: all must beat the others
    label     class of a classification task: a number, a name or a list of them; of several columns
              the first that is there
    first     the number of the first class, where numbers alone do not say it
    id subset cluster stratum box   columns of that meaning; id defaults to the row's number. Of
              several columns for `subset` the cells are joined: ["type", "subtype"] is add_obj
    by_file   true: a record's subset is what its file is called, without the ending
    source    image source of paths, such as "coco/val2014"; "." is the raw folder
    where     rows to keep: column = value; a column that is not there keeps them all
    path      how a cell becomes a path, such as "images/{}.jpg"; an absolute path may stand in a
              cell where it leads into the raw folder
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fsc_bench.data.containers.arrow import read_batches
from fsc_bench.data.label_cells import LabelCells
from fsc_bench.data.labels import UNSAID
from fsc_bench.data.listing import files_below, inside, member, of_split, own_path, saved_files
from fsc_bench.data.raw import Raw, named_twice
from fsc_bench.data.readers.records import files_of
from fsc_bench.errors import UsageError, near_miss, one_line
from fsc_bench.records import OWN, ImageRef, Record, pixel_box
from fsc_bench.task import Task

OPTIONS = {
    "files": [],
    "split": "test",
    "images": [],
    "texts": [],
    "right_texts": 1,
    "label": "",
    "first": UNSAID,
    "id": "",
    "subset": "",
    "by_file": False,
    "cluster": "",
    "stratum": "",
    "box": "",
    "source": OWN,
    "path": "{}",
    "where": {},
}
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     items.csv   with the lines   image,caption,foil
#                                  0.png,a cat on a mat,a dog on a mat
#                                  1.png,a red cup,a blue cup
#     images/0.png images/1.png
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
reader = "columns"
[data.options]
files  = "items.csv"
images = "image"
path   = "images/{}"       # how a cell becomes a path
texts  = ["caption", "foil"]   # the right one first
"""
# Options that take one name as well as a list.
SEVERAL = ("files", "images", "texts", "split", "subset", "label")
LONGEST = 1000  # of a path; file systems allow little more
BINARY = (".parquet", ".arrow")
SUFFIXES = (*BINARY, ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
# What the common mirrors call them, asked in this order when the task file does not say.
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_path", "file_name")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls", "classes", "class", "variant")


GENERAL = True
LAYOUT = "Parquet or Arrow files (data/test-00000-of-00001.parquet)"


METADATA = ("metadata.csv", "metadata.jsonl")  # of folders that `datasets` calls imagefolder


def detect(raw: Raw) -> bool:
    return bool(files_below(raw.folder, BINARY) or _metadata(raw))


def _metadata(raw: Raw) -> list[Path]:
    """The tables of a folder that `datasets` calls imagefolder, where they say the classes."""
    found = [path for path in files_below(raw.folder, METADATA) if path.name.lower() in METADATA]
    return [path for path in found if _says_classes(path, raw.task.data.options)]


def _says_classes(path: Path, options: Mapping[str, Any]) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = set(re.findall(r"[\w ]+", file.readline(65536)))
    except OSError:
        return True  # reading it says why
    return "file_name" in head and bool(
        head & {*_several(options.get("label", "")), *LABEL_COLUMNS}
    )


def hint(raw: Raw) -> str:
    """The tables that are here but no other reader of `any_layout` knows; empty where none is."""
    found = files_below(raw.folder, SUFFIXES)
    if not found:
        return ""
    return (
        f'{inside(raw, found[0])} is a table; a task file of your own with `reader = "columns"` '
        "says which of its columns is what."
    )


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    if options["by_file"] and options["subset"]:
        where = f"{task.path}: [data.options]"
        raise UsageError(f"{where} subset and by_file both say what the subset is; leave one out.")
    records: list[Record] = []
    labels = LabelCells(raw, options["first"]) if task.kind == "classification" else None
    for path in _files(raw, options):
        raw.note(path)
        table = _open(raw, path, options)
        for row in table.rows():
            if any(row["where"][column] != value for column, value in table.where.items()):
                continue
            number = len(records)
            place = number if not options["id"] else row["id"]
            record = Record(
                id=_text(raw, path, place, row.get("id", f"{number:06d}"), "id"),
                subset=_subset(raw, path, place, row, options),
                images=_images(raw, path, place, row, options),
                texts=_texts(raw, path, place, row["texts"]),
                cluster=_text(raw, path, place, row.get("cluster", f"{number:06d}"), "cluster"),
                stratum=_text(raw, path, place, row.get("stratum", ""), "stratum"),
                right_texts=options["right_texts"],
            )
            records.append(record)
            if labels:
                labels.add(table, place, row["label"])
    if labels is None:
        yield from records
        return
    for record, classes in zip(records, labels.classes(), strict=True):
        yield replace(record, labels=classes)


def _files(raw: Raw, options: Mapping[str, Any]) -> list[Path]:
    if options["files"] or raw.folder.is_file():
        return files_of(raw, options["files"], SUFFIXES)
    found = files_below(raw.folder, BINARY) or _metadata(raw) or files_below(raw.folder, SUFFIXES)
    chosen = of_split(raw, found, options["split"]) or [raw.find("*.parquet")]
    return saved_files(raw, chosen)


# ---------------------------------------------------------------- four formats, one kind of row


class _Table:
    """Rows of one file as `{role: value}`; an image is an ImageRef or a path to be placed."""

    label = ""
    untyped = False  # whether every cell is text

    def __init__(self, raw: Raw, path: Path, options: Mapping[str, Any], names: list[str]):
        self.raw, self.path, self.options, self.names = raw, path, options, names
        self.class_names: dict[str, list[str]] = {}
        if not names:
            raw.fail(path, None, "is empty: it has no columns.")
        self.images = _several(options["images"]) or self._guess("an image", IMAGE_COLUMNS)
        self.texts = _several(options["texts"])
        if raw.task.kind == "classification":
            said = [name for name in _several(options["label"]) if name in names]
            said = said or _several(options["label"])
            self.label = (said or self._guess("a label", LABEL_COLUMNS))[0]
        if twice := named_twice(names):
            raw.fail(path, None, f"names the column {twice!r:.60} twice; rename one.")
        self.where = {name: value for name, value in options["where"].items() if name in names}
        roles = {role: options[role] for role in ("id", "cluster", "stratum", "box")}
        self.roles = {role: column for role, column in roles.items() if column}
        self.subset = _several(options["subset"])
        for column in [*self.images, *self.texts, self.label, *self.subset, *self.roles.values()]:
            if column and column not in names:
                hint = near_miss(column, names) or f" It has: {', '.join(names)}."
                raw.fail(path, None, f"has no column {column!r}.{hint:.300}")
        self._check_texts()

    @property
    def plain(self) -> list[str]:
        """The columns that hold no image."""
        one = filter(None, [self.label])
        return [*self.texts, *one, *self.subset, *self.roles.values(), *self.where]

    def _check_texts(self) -> None:
        """What a record will lack is said with the columns that there are, before any is made."""
        kind, has = self.raw.task.kind, ", ".join(self.names)
        if kind != "classification" and not self.texts:
            self.raw.fail(
                self.path,
                None,
                f"has the columns {has:.300}; which hold the texts? In the task file, "
                '[data.options] texts = ["caption", ...], the right one first.',
            )
        if kind == "matching" and self.untyped and len(self.images) == len(self.texts) == 1:
            self.raw.fail(
                self.path,
                None,
                f"gives each record one image ({self.images[0]}) and one text ({self.texts[0]}): "
                f"there is nothing to choose from. It has {has:.300}; name a foil too: texts = "
                f'["{self.texts[0]}", "..."], or further images.',
            )

    def _guess(self, what: str, candidates: tuple[str, ...]) -> list[str]:
        found = [name for name in candidates if name in self.names][:1]
        if not found:
            self.raw.fail(
                self.path,
                None,
                f"has no column for {what} ({', '.join(self.names):.300}); name it in the options.",
            )
        return found

    def row(self, cells: Mapping[str, Any], images: list[Any]) -> dict[str, Any]:
        return {
            "images": images,
            "texts": [cells[column] for column in self.texts],
            "label": cells.get(self.label),
            "subset": [cells[column] for column in self.subset],
            **{role: cells[column] for role, column in self.roles.items()},
            "where": {column: cells[column] for column in self.where},
        }


def _several(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) and names else list(names)


def _open(raw: Raw, path: Path, options: Mapping[str, Any]) -> Any:
    name = path.name.casefold().removesuffix(".gz")
    if name.endswith(BINARY):
        return _Binary(raw, path, options)
    if name.endswith((".csv", ".jsonl")):
        return _Lines(raw, path, options)
    raw.fail(path, None, f"is none of {', '.join(SUFFIXES)}.")


class _Lines(_Table):
    """CSV and JSON lines: every cell is read, images are paths."""

    def __init__(self, raw: Raw, path: Path, options: Mapping[str, Any]):
        if path == raw.folder:
            raw = Raw(raw.task, path.parent)
        name = str(path.relative_to(raw.folder))
        self.untyped = name.casefold().removesuffix(".gz").endswith(".csv")
        self.read = raw.csv if self.untyped else raw.json_lines
        self.file = name
        # `file_name` is relative to the table that names it, and to no other folder.
        metadata = path.name.lower() in METADATA and path.parent != raw.folder
        self.below = path.parent.relative_to(raw.folder).as_posix() if metadata else ""
        first = next(iter(self.read(name)), (0, {}))[1]
        super().__init__(raw, path, options, list(first))

    def rows(self) -> Iterator[dict[str, Any]]:
        needed = [*self.images, *self.plain]
        for number, cells in self.read(self.file):
            for column in needed:
                if column not in cells:
                    self.raw.fail(self.path, f"row {number}", f"has no {column!r}.")
            images = []
            for column in self.images:
                cell = cells[column]
                images += cell if isinstance(cell, list) else [cell]
            if self.below:
                images = [f"{self.below}/{image}" for image in images]
            yield self.row(cells, images)


class _Binary(_Table):
    """Parquet and Arrow: image bytes are never read here, only where they are."""

    def __init__(self, raw: Raw, path: Path, options: Mapping[str, Any]):
        self.parquet = None
        try:
            if path.suffix.casefold() == ".parquet":
                self.parquet = pq.ParquetFile(path)
                schema = self.parquet.schema_arrow
                self.count = self.parquet.metadata.num_rows
            else:
                schema, self.batches = read_batches(path)
                self.count = sum(batch.num_rows for batch in self.batches)
        except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
            raw.fail(path, None, f"cannot be read: {one_line(error)}")
        super().__init__(raw, path, options, schema.names)
        self.schema = schema
        self.class_names = _class_names(raw, path, schema)

    def rows(self) -> Iterator[dict[str, Any]]:
        kinds = {column: self._image_kind(column) for column in self.images}
        plain = list(self.plain)
        plain += [column for column, kind in kinds.items() if kind == "path"]
        number = 0
        mixed = {c: self._with_bytes(c) for c, kind in kinds.items() if kind == "mixed"}
        plain += mixed
        for batch in self._batches(plain, [c for c, kind in kinds.items() if kind == "list"]):
            names = set(batch.schema.names)
            for cells in batch.to_pylist():
                images = []
                for column, kind in kinds.items():
                    if kind == "cell" or (kind == "mixed" and mixed[column][number]):
                        images.append(self._ref(f"{column}/{number}"))
                    elif kind in ("path", "mixed"):
                        cell = cells[column]
                        cell = cell.get("path") if isinstance(cell, dict) else cell
                        images += cell if isinstance(cell, list) else [cell]
                    elif column in names:
                        count = len(cells[column] or ())
                        images += [self._ref(f"{column}/{number}/{k}") for k in range(count)]
                yield self.row(cells, images)
                number += 1

    def _ref(self, name: str) -> ImageRef:
        return ImageRef(OWN, member(self.raw, self.path, name))

    def _image_kind(self, column: str) -> str:
        """ "cell" holds bytes, "list" several such, "path" says where the image is; a column whose
        rows do this or that is "mixed".
        """
        kind = self.schema.field(column).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return "path" if _is_text(kind.value_type) else "list"
        if _is_text(kind):
            return "path"
        if pa.types.is_struct(kind):
            names = {kind.field(place).name for place in range(kind.num_fields)}
            if "bytes" not in names and "path" not in names:
                self.raw.fail(self.path, None, f"the column {column!r} holds no images.")
            if "bytes" not in names:
                return "path"
            missing = self._without_bytes(column)
            if missing and "path" not in names:
                self.raw.fail(
                    self.path, None, f"the column {column!r} has no image in {missing} rows."
                )
            return "cell" if not missing else "path" if missing == self.count else "mixed"
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return "cell"
        self.raw.fail(self.path, None, f"the column {column!r} holds {kind}, no images.")

    def _without_bytes(self, column: str) -> int:
        """How many rows of an image column hold no bytes: `datasets` may store a path alone."""
        if self.parquet is None:
            return self.count - sum(self._with_bytes(column))
        meta = self.parquet.metadata
        missing = 0
        for group in range(meta.num_row_groups):
            row_group = meta.row_group(group)
            for place in range(row_group.num_columns):
                chunk = row_group.column(place)
                if chunk.path_in_schema == f"{column}.bytes":
                    if chunk.statistics is None or not chunk.statistics.has_null_count:
                        return self.count - sum(self._with_bytes(column))
                    missing += chunk.statistics.null_count
        return missing

    def _with_bytes(self, column: str) -> list[bool]:
        """Whether each row of an image column holds bytes; of Parquet all are read for it."""
        found: list[bool] = []
        for batch in self._batches([column], [], rows=64, whole=True):
            cells = batch.column(column)
            found += pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
        return found

    def _batches(
        self, plain: list[str], lists: list[str], rows: int = 4096, whole: bool = False
    ) -> Iterator[pa.RecordBatch]:
        try:
            if self.parquet is None:
                for batch in self.batches:
                    yield batch.select([*dict.fromkeys([*plain, *lists])])
                return
            schema = self.parquet.schema
            leaves = [schema.column(place).path for place in range(len(schema.names))]
            wanted = []
            for column in dict.fromkeys([*plain, *lists]):
                own = [leaf for leaf in leaves if leaf == column or leaf.startswith(f"{column}.")]
                light = [leaf for leaf in own if not leaf.endswith(".bytes")]
                wanted += light if light and column in self.images and not whole else own
            yield from self.parquet.iter_batches(batch_size=rows, columns=wanted)
        except (OSError, ValueError, KeyError, NotImplementedError, pa.ArrowException) as error:
            self.raw.fail(self.path, None, f"damaged: {one_line(error)}")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _class_names(raw: Raw, path: Path, schema: pa.Schema) -> dict[str, list[str]]:
    """Class names by column, as `datasets` keeps them in the file's metadata."""
    content = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        features = json.loads(content).get("info", {}).get("features", {})
        items = dict(features).items()
    except (ValueError, AttributeError, TypeError, RecursionError):
        raw.fail(path, None, "its `datasets` metadata cannot be read.")
    found = {}
    for column, feature in items:
        while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            found[column] = names
    return found


# ---------------------------------------------------------------- cells


def _images(
    raw: Raw, path: Path, record: Any, row: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[ImageRef, ...]:
    box = row.get("box")
    if box is not None:
        if not isinstance(box, list) or not all(type(edge) in (int, float) for edge in box):
            raw.fail(path, record, f"the box {box!r:.60} is no list of numbers.")
        if not all(-1e6 < edge < 1e6 for edge in box):
            raw.fail(path, record, f"the box {box!r:.60} lies beyond any image.")
        box = pixel_box(box)
    found = []
    for image in row["images"]:
        if isinstance(image, Mapping):
            image = image.get("path")
        if isinstance(image, ImageRef):
            found.append(ImageRef(image.source, image.path, box))
            continue
        if not isinstance(image, (str, int)) or isinstance(image, bool) or not str(image).strip():
            raw.fail(path, record, f"the image {image!r:.60} is no path.")
        if len(str(image)) > LONGEST or not str(image).isprintable():
            raw.fail(path, record, f"the image {image!r:.60} is no path.")
        if isinstance(image, str) and (inner := own_path(raw, image, path, record)):
            found.append(ImageRef(OWN, inner, box))
            continue
        try:
            found.append(ImageRef(options["source"], options["path"].format(image), box))
        except (ValueError, LookupError, AttributeError):
            place = f"{raw.task.path}: path = {options['path']!r}"
            raise UsageError(f"{place} cannot hold {image!r:.60}.") from None
    return tuple(found)


def _subset(
    raw: Raw, path: Path, record: Any, row: Mapping[str, Any], options: Mapping[str, Any]
) -> str:
    if options["by_file"]:
        return path.name.removesuffix(".gz").rpartition(".")[0]
    cells = row["subset"] or [next(iter(raw.task.leaves))]
    return "_".join(_text(raw, path, record, cell, "subset") for cell in cells)


def _texts(raw: Raw, path: Path, record: Any, cells: list[Any]) -> tuple[str, ...]:
    found = []
    for cell in cells:
        found += cell if isinstance(cell, list) else [cell]
    for text in found:
        if not isinstance(text, str) or not text.strip():
            raw.fail(path, record, f"{text!r:.60} is no text.")
    return tuple(found)


def _text(raw: Raw, path: Path, record: Any, value: Any, what: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or len(value) > LONGEST:
        raw.fail(path, f"{record!s:.60}", f"its {what} {value!r:.60} is no short text.")
    return value
