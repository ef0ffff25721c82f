"""Records: one row a sample, checked on reading. They say what belongs together, never a score.

*Image i belongs with text i; every other image or text of the row is a distractor.* That sentence
covers one image and K texts (ARO, SugarCrepe), K images and one text (ImageCoDe), two and two
(Winoground) and, with the other rows as distractors, retrieval (one image and all its captions).
Of one image's K texts the first few may be right; then all of them must beat the others.
A classification record has one image, no text, and labels.
"""

import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.errors import DataError
from fsc_bench.system.files import write_atomically
from fsc_bench.system.tables import read_parquet
from fsc_bench.task import OF_SEVERAL, Task

OWN = "."  # the source name of a task's own raw folder

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("subset", pa.string()),
        ("images", pa.list_(pa.struct([("source", pa.string()), ("path", pa.string())]))),
        ("boxes", pa.list_(pa.list_(pa.int32()))),
        ("texts", pa.list_(pa.string())),
        ("labels", pa.list_(pa.int32())),
        ("cluster", pa.string()),
        ("stratum", pa.string()),
        ("scored", pa.bool_()),
    ]
)
RIGHT_TEXTS = pa.field("right_texts", pa.int32())  # stands in a file where a record has several


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image: a source (`coco/val2014`, or "." for the task's own folder) and a path inside it.

    A path may reach into a container, `archive.zip::folder/image.jpg`; data/containers has one file
    a container format. `box` = (left, upper, right, lower) in pixels crops before preprocessing.
    """

    source: str
    path: str
    box: tuple[int, int, int, int] | None = None

    def __str__(self) -> str:
        place = self.path if self.source == OWN else f"{self.source}:{self.path}"
        return place if self.box is None else f"{place}{list(self.box)}"


@dataclass(frozen=True, slots=True)
class Record:
    """One sample.

    cluster: the source image, the unit that the bootstrap draws.
    stratum: where not empty, the subset's score is the plain mean over its strata (ARO's
    relations). scored: False keeps a record in the file, counted, but out of the score (ARO's
    dropped relations). right_texts: how many of an image's texts, from the first on, are right.
    """

    id: str
    subset: str
    images: tuple[ImageRef, ...]
    texts: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    cluster: str = ""
    stratum: str = ""
    scored: bool = True
    right_texts: int = 1


def shown_as(ref: ImageRef) -> str:
    """A picture as samples files name it: source, path, and the box of a crop."""
    return f"{ref.source}:{ref.path}" + (f"{list(ref.box)}" if ref.box else "")


SHOWN = re.compile(r"([^:]*):(.+?)(?:\[(\d+), (\d+), (\d+), (\d+)\])?", re.DOTALL)


def read_shown(text: str) -> ImageRef | None:
    """The picture that `shown_as` named; None where it names none."""
    found = SHOWN.fullmatch(text)
    if found is None:
        return None
    source, path, *box = found.groups()
    return ImageRef(source, path, tuple(map(int, box)) if box[0] else None)


def folded(text: str) -> str:
    """The text as CLIP's tokenizer reads it: two texts that are equal so are one answer.

    OpenAI's and open_clip's cleaning (open_clip/tokenizer.py, `_clean_lower`): encodings mended by
    ftfy, HTML entities written out, runs of white space one space, lower case. Punctuation counts.
    """
    if not (text.isascii() and text.isprintable() and "&" not in text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def write_records(path: Path, records: Iterable[Record], facts: Mapping[str, Any]) -> str:
    """Writes records with `facts` as metadata, atomically. Returns their fingerprint."""
    rows = list(records)
    digest = fingerprint(rows)
    several = any(row.right_texts != 1 for row in rows)
    columns = {"right_texts": [row.right_texts for row in rows]} if several else {}
    schema = SCHEMA.append(RIGHT_TEXTS) if several else SCHEMA
    table = pa.Table.from_pydict(
        {
            "id": [row.id for row in rows],
            "subset": [row.subset for row in rows],
            "images": [
                [{"source": image.source, "path": image.path} for image in row.images]
                for row in rows
            ],
            "boxes": [[image.box for image in row.images] for row in rows],
            "texts": [row.texts for row in rows],
            "labels": [row.labels for row in rows],
            "cluster": [row.cluster for row in rows],
            "stratum": [row.stratum for row in rows],
            "scored": [row.scored for row in rows],
            **columns,
        },
        schema=schema.with_metadata({"fsc_bench": json.dumps({**facts, "fingerprint": digest})}),
    )
    write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    return digest


def fingerprint(records: Iterable[Record]) -> str:
    """Hash of what the records say, wherever they lie on disk."""
    digest = hashlib.sha256()
    for row in records:
        images = [[image.source, image.path, image.box] for image in row.images]
        fields = [row.id, row.subset, images, row.texts, row.labels, row.cluster, row.stratum]
        fields += [row.scored] if row.right_texts == 1 else [row.scored, row.right_texts]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()


def read_facts(path: Path) -> dict[str, Any]:
    """The metadata that write_records stored; empty where the file is absent or not ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return json.loads(metadata.get(b"fsc_bench", b"{}"))
    except (OSError, pa.ArrowException, ValueError):
        return {}


def read_records(path: Path) -> list[Record]:
    """Reads a records file (ours, or anybody's with these columns).

    Raises DataError, one line, for a file that is absent, truncated or lacks a column.
    """
    try:
        table = read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason}). Delete it.") from None
    return list(records_from_table(table, str(path)))


def records_from_table(table: pa.Table, where: str) -> Iterator[Record]:
    """Records from Arrow columns; only id, images and texts or labels must be there."""
    columns = set(table.column_names)
    for name in ("id", "images"):
        if name not in columns:
            raise DataError(f"{where}: the column {name!r} is missing (has {sorted(columns)}).")
    wanted = [field for field in (*SCHEMA, RIGHT_TEXTS) if field.name in columns]
    try:
        table = table.select([field.name for field in wanted]).cast(pa.schema(wanted))
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{where}: a column has the wrong type: {reason}") from None
    for batch in table.to_batches(max_chunksize=65536):
        for row in batch.to_pylist():
            boxes = row.get("boxes") or [None] * len(row["images"] or ())
            yield Record(
                id=row["id"] or "",
                subset=row.get("subset") or "all",
                images=tuple(
                    ImageRef(
                        image["source"] or OWN, image["path"] or "", tuple(box) if box else None
                    )
                    for image, box in zip(row["images"] or (), boxes, strict=False)
                ),
                texts=tuple(row.get("texts") or ()),
                labels=tuple(row.get("labels") or ()),
                cluster=row.get("cluster") or "",
                stratum=row.get("stratum") or "",
                scored=row.get("scored") is not False,
                right_texts=1 if row.get("right_texts") is None else row["right_texts"],
            )


def check_records(task: Task, records: list[Record], where: str, partial: bool = False) -> None:
    """Checks the shape of every record and, unless `partial`, the counts that the task promises.

    Raises DataError, one line, that names the file and the record.
    """
    leaves = task.leaves
    seen: set[str] = set()
    for row in records:
        place = f"{where}: record {row.id!r:.100}"
        if not row.id or row.id in seen:
            raise DataError(f"{place}: the id is {'used twice' if row.id else 'empty'}.")
        seen.add(row.id)
        if row.subset not in leaves:
            raise DataError(f"{place}: subset {row.subset!r} is not one of {', '.join(leaves)}.")
        _check_shape(task, row, place)
    _check_several(task, records, where)
    if not partial:
        _check_counts(task, records, where)


def _check_shape(task: Task, row: Record, place: str) -> None:
    for image in row.images:
        if why := unusable_path(image.path):
            raise DataError(f"{place}: the image path {image.path!r:.120} {why}.")
        if image.box and (len(image.box) != 4 or _empty(image.box)):
            raise DataError(f"{place}: the box {list(image.box)} is empty.")
    if not all(isinstance(text, str) for text in row.texts):
        raise DataError(f"{place}: a text is not a string.")
    shape = (len(row.images), len(row.texts))
    if row.right_texts != 1:
        _check_right_texts(task, row, place)
    if task.kind == "matching":
        if min(shape) < 1 or max(shape) < 2 or (min(shape) > 1 and shape[0] != shape[1]):
            raise DataError(
                f"{place}: {_counted(shape[0], 'picture')} and {_counted(shape[1], 'text')}; a "
                "record of a matching task needs one picture and several texts, several pictures "
                "and one text, or as many of both."
            )
    elif task.kind == "retrieval":
        if shape[0] != 1 or shape[1] < 1:
            raise DataError(
                f"{place}: {_counted(shape[0], 'picture')} and {_counted(shape[1], 'text')}; a "
                "record of a retrieval task needs one picture and at least one text."
            )
    else:
        if shape[0] != 1:
            raise DataError(
                f"{place}: {_counted(shape[0], 'picture')}; a record of a classification task "
                "needs one picture."
            )
        multilabel = {"map11", "map11_devkit"} & set(task.headline)
        if len(row.labels) != 1 and not multilabel:
            raise DataError(
                f"{place}: {_counted(len(row.labels), 'label')}; a record of a classification "
                "task needs one label."
            )
        # With several labels an image, ~c marks a class that counts neither as shown nor as absent.
        lowest = -len(task.classes) if multilabel else 0
        for label in row.labels:
            if not lowest <= label < len(task.classes):
                raise DataError(
                    f"{place}: label {label} is out of range; the task has "
                    f"{len(task.classes)} classes (0..{len(task.classes) - 1})."
                )


def _counted(count: int, what: str) -> str:
    """`no text`, `1 text`, `5 texts`"""
    return f"{count or 'no'} {what}{'s' * (count > 1)}"


def _check_right_texts(task: Task, row: Record, place: str) -> None:
    """Several right texts are of one image, and of tasks that match; one text at least is wrong."""
    images, texts = len(row.images), len(row.texts)
    if task.kind != "matching" or images != 1 or not 1 <= row.right_texts < texts:
        raise DataError(
            f"{place}: right_texts = {row.right_texts} of {texts} texts and {images} images, "
            f"kind {task.kind!r}; a matching record with one image may have several right texts, "
            "and has a wrong one."
        )


def _check_several(task: Task, records: list[Record], where: str) -> None:
    """A headline that only several right texts have needs records that have them."""
    asked = [metric for metric in task.headline if metric in OF_SEVERAL]
    if asked and records and all(row.right_texts == 1 for row in records):
        raise DataError(
            f"{where}: 'headline' names {asked[0]!r}, which is of records with several right "
            "texts; these have one each (right_texts)."
        )


def unusable_path(path: str) -> str:
    """Why `path` cannot name an image below its source's folder; empty where it can."""
    outer = path.partition("::")[0]
    parts = outer.split("/")
    if outer.startswith("/") or ".." in parts:
        return "leaves its folder"
    if {"", "."}.issuperset(parts):
        return "is empty"
    if "\0" in path or len(path) > 1000 or max(len(part.encode()) for part in parts) > 255:
        return "cannot be the name of a file"
    return ""


def pixel_box(edges: Iterable[float]) -> tuple[int, ...]:
    """(left, upper, right, lower) in whole pixels, rounded as Pillow's own crop rounds them."""
    return tuple(round(edge) for edge in edges)


def _empty(box: tuple[int, ...]) -> bool:
    return box[2] <= box[0] or box[3] <= box[1]


def _check_counts(task: Task, records: list[Record], where: str) -> None:
    for name, line in broken_promises(task, records):
        if name not in task.evidence.unchecked:
            raise DataError(
                f"{where}: {line}. `--allow-partial` scores it anyway and flags the result."
            )


def broken_promises(task: Task, records: list[Record]) -> Iterator[tuple[str, str]]:
    """(subset or key of [counts], what was found and what is promised), where the two differ."""
    found = Counter(row.subset for row in records)
    for subset, promised in task.leaves.items():
        if found[subset] != promised:
            line = f"{task.name}/{subset}: {found[subset]:,} records"
            yield subset, f"{line}, the task file promises {promised:,}"
    measured = {
        "images": len({(image.source, image.path) for row in records for image in row.images}),
        "texts": sum(len(row.texts) for row in records),
    }
    for key, promised in task.counts.items():
        if measured[key] != promised:
            line = f"{task.name}: {measured[key]:,} {key}"
            yield key, f"{line}, the task file promises {promised:,}"
