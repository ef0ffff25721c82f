"""Labels in MATLAB files, the form in which Oxford Flowers and Stanford Cars publish theirs.

Options: `layout`, "flowers" (imagelabels.mat, setid.mat's `tstid`, jpg/image_00001.jpg; labels from
1) or "cars" (cars_test_annos_withlabels.mat, cars_test/00001.jpg; or cars_annos.mat,
car_ims/000001.jpg, of which the rows marked `test` count; classes from 1). The pictures lie beside
the file, or beside the folder that it lies in (devkit/).

The files are parsed here (MAT-file format, level 5): scipy.io.loadmat crashes the process on
damaged ones.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.data.border import reason
from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.labels import Answers, Labels
from fsc_bench.data.listing import files_below, prefix
from fsc_bench.data.raw import Raw
from fsc_bench.errors import UsageError
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.system.regular import read_file
from fsc_bench.task import Task

OPTIONS = {"layout": ""}
LAYOUT = "MATLAB files of labels (imagelabels.mat and setid.mat; cars_test_annos_withlabels.mat)"
FILES = {
    "flowers": ("imagelabels.mat",),
    "cars": ("cars_test_annos_withlabels.mat", "cars_annos.mat"),
}
# Where the pictures lie, from the folder of the file or the one around it.
FOLDERS = {
    "imagelabels.mat": ("jpg/", "102flowers/jpg/", "flowers/jpg/", ""),
    "cars_test_annos_withlabels.mat": ("cars_test/", "cars_test/cars_test/", ""),
    "cars_annos.mat": ("", "car_ims/"),
}


def detect(raw: Raw) -> bool:
    return bool(_files(raw, raw.task.data.options.get("layout", "")))


def begins_with(raw: Raw) -> tuple[str, ...]:
    """The names that the file of labels may have."""
    return FILES.get(raw.task.data.options.get("layout", ""), ())


def _files(raw: Raw, layout: str) -> list[Path]:
    """The files of labels, the one first that is asked for first."""
    names = FILES.get(layout, ())
    found = files_below(raw.folder, names)
    return [path for name in names for path in found if path.name.casefold() == name]


def read(task: Task, raw: Raw) -> Iterator[Record]:
    layout = task.data.options.get("layout", "")
    if layout not in FILES:
        raise UsageError(f"{task.path}: layout = {layout!r} is neither {' nor '.join(FILES)}.")
    (subset,) = task.leaves
    found = _files(raw, layout)
    path = found[0] if found else raw.find(*FILES[layout])
    rows = _flowers(raw, path) if layout == "flowers" else _cars(raw, path)
    base = _base(raw, path, rows[0][0] if rows else "")
    labels = Labels(raw)
    answers = Answers(labels, ClassLists(labels, path.parent), text=False, first=1)
    keys = [answers.add(label, path, image) for image, label in rows]
    classes = answers.classes()
    for (image, _), key in zip(rows, keys, strict=True):
        yield Record(
            id=image,
            subset=subset,
            images=(ImageRef(OWN, f"{base}{image}"),),
            labels=(classes[key],),
            cluster=image,
        )


def _base(raw: Raw, path: Path, image: str) -> str:
    """The folder of the pictures, with a `/`: the first place where one is; the usual one if none.

    They may also lie in an archive there.
    """
    around = [path.parent, *([path.parent.parent] if path.parent != raw.folder else [])]
    folders = FOLDERS[path.name.casefold()]
    places = [f"{prefix(raw, place)}{folder}" for place in around for folder in folders]
    for place in places:
        if raw.has(f"{place}{image}"):
            return place
    return places[0]


def _flowers(raw: Raw, path: Path) -> list[tuple[str, int]]:
    answers = _numbers(raw, path, _load(raw, path, "labels"))
    split = path.parent / "setid.mat"
    rows = []
    for number in _numbers(raw, split, _load(raw, split, "tstid")):
        if not 1 <= number <= len(answers):
            raw.fail(split, number, f"names an image beyond the {len(answers)} labels.")
        rows.append((f"image_{number:05d}.jpg", answers[number - 1]))
    return rows


def _cars(raw: Raw, path: Path) -> list[tuple[str, int]]:
    table = _load(raw, path, "annotations")
    if not isinstance(table, list):
        raw.fail(path, None, "its annotations are no list of structures.")
    rows = []
    for number, row in enumerate(table, 1):
        if "test" in row and _numbers(raw, path, row["test"]) == [0]:
            continue
        image, label = row.get("fname", row.get("relative_im_path")), row.get("class")
        label = _numbers(raw, path, label)
        if not isinstance(image, str) or len(label) != 1:
            raw.fail(path, number, "has no 'fname' with a 'class'.")
        plain = image.removeprefix("car_ims/")
        if not plain or not plain.isprintable() or "/" in plain or plain.startswith("."):
            raw.fail(path, number, f"{image!r:.40} is no image name.")
        if len(image) > 200:
            raw.fail(path, number, f"{image!r:.40} is no image name.")
        rows.append((image, label[0]))
    return rows


def _numbers(raw: Raw, path: Path, values: Any) -> list[int]:
    if not isinstance(values, np.ndarray) or not np.isfinite(values).all():
        raw.fail(path, None, "holds labels that are no numbers.")
    if (np.abs(values) > 1e9).any() or (values != values.astype(np.int64)).any():
        raw.fail(path, None, "holds labels that are no whole numbers.")
    return values.astype(np.int64).tolist()


def _load(raw: Raw, path: Path, variable: str) -> Any:
    if not path.is_file():
        raw.find(path.relative_to(raw.folder).as_posix())
    raw.note(path)
    try:
        return load_mat(read_file(path), variable)
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raw.fail(path, None, f"is no MATLAB file with {variable!r}: {reason(error)}.")


# ---------------------------------------------------------------- MAT-file format, level 5

_TYPES = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8"}
_TYPES |= {13: "<u8", 16: "u1", 17: "<u2"}  # UTF-8 and UTF-16: the names here are ASCII
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_LARGEST = 1 << 26  # bytes of a variable; the published files hold less than one megabyte


def load_mat(content: bytes, variable: str) -> Any:
    """One variable: numbers as a flat array, text as str, a structure array as a list of dicts.

    Raises ValueError, zlib.error or struct.error for damage.
    """
    if content[126:128] != b"IM":
        raise ValueError("not a little-endian level 5 file")
    place = 128
    while place < len(content):
        kind, data, place = _element(content, place)
        if kind == _COMPRESSED:
            inflated = zlib.decompressobj().decompress(data, _LARGEST)
            kind, data, _ = _element(inflated, 0)
        if kind == _MATRIX:
            name, value = _matrix(data, 0)
            if name == variable:
                return value
    raise ValueError("no such variable")


def _element(content: bytes, place: int) -> tuple[int, bytes, int]:
    """(type, data, where the next element begins)."""
    kind, size = struct.unpack_from("<II", content, place)
    if kind >> 16:  # small: type and size share four bytes, the data fill the next four
        kind, size = kind & 0xFFFF, kind >> 16
        data, following = content[place + 4 : place + 4 + size], place + 8
    else:
        data = content[place + 8 : place + 8 + size]
        padded = size if kind == _COMPRESSED else -(-size // 8) * 8
        following = place + 8 + padded
    if len(data) != size:
        raise ValueError("cut short")
    return kind, data, following


def _matrix(content: bytes, depth: int) -> tuple[str, Any]:
    """(name, value) of a matrix element's data."""
    if not content:
        return "", np.empty(0)
    if depth > 4:
        raise ValueError("nested too deep")
    _, flags, place = _element(content, 0)
    _, shape, place = _element(content, place)
    _, name, place = _element(content, place)
    kind = struct.unpack_from("<I", flags)[0] & 0xFF
    count = 1
    for size in struct.unpack(f"<{len(shape) // 4}i", shape):
        count *= max(size, 0)
    if count > len(content):  # each element takes at least a byte
        raise ValueError("promises more elements than it holds")
    title = name.decode("latin1")
    if kind == _CELL:
        raise ValueError("a cell array is not expected")
    if kind == _STRUCT:
        return title, _structures(content, place, count, depth)
    stored, data, _ = _element(content, place)
    if stored not in _TYPES or len(data) % np.dtype(_TYPES[stored]).itemsize:
        raise ValueError(f"data of type {stored}")
    values = np.frombuffer(data, _TYPES[stored])
    if len(values) != count:
        raise ValueError("holds another number of elements than it promises")
    if kind != _CHAR:
        return title, values
    if values.dtype.kind != "u":
        raise ValueError("text of another type than characters")
    return title, "".join(map(chr, values.tolist()))


def _structures(content: bytes, place: int, count: int, depth: int) -> list[dict[str, Any]]:
    _, width, place = _element(content, place)
    (step,) = struct.unpack("<i", width)
    _, names, place = _element(content, place)
    if not 1 <= step <= 64:
        raise ValueError("field names of an impossible length")
    parts = [names[begin : begin + step] for begin in range(0, len(names), step)]
    fields = [part.split(b"\0")[0].decode("latin1") for part in parts]
    rows = []
    for _ in range(count):
        row = {}
        for field in fields:
            kind, data, place = _element(content, place)
            if kind != _MATRIX:
                raise ValueError("a field that is no matrix")
            row[field] = _matrix(data, depth + 1)[1]
        rows.append(row)
    return rows
