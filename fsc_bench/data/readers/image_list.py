"""Lists of images with labels: CSV, JSON lines or plain text, as many ship their test split.

Options:
    file        the list's name (or several) below the raw folder, up to two folders down
    separator   of columns: "," or ";" or " " (blanks; the last column keeps its own)
    columns     their names, where the file has no header
    image       the column that says the image; "row" is the row's number from 1
    path        where that image lies, from the folder that `file` starts in; several are tried
    pixels      the column that holds the image itself as numbers (FER2013), instead of `image`
    label       the column with the class; "folder" is the folder of the image
    first       the number of the first class, where numbers alone do not say it
    codes       class ids in the order of the file's own numbers
    first_word  whether only the first word of the label's cell is the label
    where       rows to keep: column = value
    like        a pattern (Python's re) that the first image's name fits, where other lists are
                called so too
A `classes.txt` beside or above the list says what its labels mean (class_lists.py).
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import find_path, folders_below, own_path
from fsc_bench.data.raw import Raw
from fsc_bench.errors import UsageError
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {
    "file": [],
    "separator": ",",
    "columns": [],
    "image": "image",
    "path": "{}",
    "pixels": "",
    "label": "label",
    "first": UNSAID,
    "codes": [],
    "first_word": False,
    "where": {},
    "like": "",
}
SEVERAL = ("file",)
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test.csv   with the lines   image,label
#                                 0.png,cat
#                                 1.png,dog
#     pictures/0.png pictures/1.png
title    = "Mine"
suite    = "mine"
group    = "classification"
kind     = "classification"
version  = 1
headline = ["accuracy"]
chance   = 50.0
[subsets]
test = 2
[classes]
names = ["cat", "dog"]
[prompts.plain]
templates = ["a photo of a {}."]
[data]
reader = "image_list"
[data.options]
file  = "test.csv"
image = "image"
label = "label"
path  = "pictures/{}"
"""


LAYOUT = "a list of images with labels"
LONGEST = 250  # what file systems allow for a name


def detect(raw: Raw) -> bool:
    """Whether a list of that name is there, with the columns it should have."""
    options = {**OPTIONS, **raw.task.data.options}
    found = _find(raw, options)
    if found is None:
        return False
    path, _ = found
    if options["like"]:
        return _is_like(path, options)
    needed = {options["pixels"], *options["where"]} - {""}
    if options["columns"] or path.suffix == ".jsonl" or not needed:
        return True
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(65536).rstrip("\r\n").split(options["separator"])
    except OSError:
        return True
    return needed <= set(header)


def _is_like(path: Path, options: Mapping[str, Any]) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            line = file.readline(65536)
    except OSError:
        return True
    return re.match(options["like"], line.strip().rpartition("/")[2]) is not None


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    (subset,) = task.leaves
    found = _find(raw, options)
    if found is None:
        names = options["file"]
        path = raw.find(*([names] if isinstance(names, str) else names))
        raw.fail(path, None, "is not a file.")
    path, root = found
    lists = ClassLists(Labels(raw), path.parent)
    words = options["label"] == "folder" or bool(options["codes"])
    answers = Answers(lists.labels, lists, text=words, first=options["first"])
    rows = list(_images(raw, path, root, options, answers))
    classes = answers.classes()
    for name, image, key in rows:
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, image),),
            labels=(classes[key],),
            cluster=name,
        )


def _images(
    raw: Raw, path: Path, root: Path, options: Mapping[str, Any], answers: Answers
) -> Iterator[tuple[str, str, str | int]]:
    """(name, path of the image, key of its label) of each row."""
    pattern = None
    width = 6
    for number, row in _rows(raw, path, options):
        if any(str(row.get(column, "")) != value for column, value in options["where"].items()):
            continue
        if options["pixels"]:
            raw.field(path, number, row, options["pixels"])
            inside = path.relative_to(raw.folder).as_posix()
            image, name = f"{inside}::{options['pixels']}/{number - 1}", f"{number - 1:0{width}d}"
        else:
            name = _image_name(raw, path, number, row, options)
            image = own_path(raw, name, path, number) if isinstance(name, str) else ""
            if not image:
                pattern = pattern or _pattern(raw, root, options, name)
                image = _fill(raw, pattern, name)
            name = str(name)
        yield name, image, _label(raw, answers, path, number, row, options, image)


def begins_with(raw: Raw) -> list[str]:
    """The names that the list may have."""
    names = {**OPTIONS, **raw.task.data.options}["file"]
    return [names] if isinstance(names, str) and names else list(names)


def _find(raw: Raw, options: Mapping[str, Any]) -> tuple[Path, Path] | None:
    """(the list, the folder that its name starts in), at most two folders below the raw folder."""
    names = options["file"]
    for place in folders_below(raw.folder, 3, 300):
        for name in [names] if isinstance(names, str) else names:
            found = find_path(str(place), [name], raw.listing)
            if found and os.path.isfile(found):
                return Path(found), place
    return None


def _rows(raw: Raw, path: Path, options: Mapping[str, Any]) -> Iterator[tuple[int, Mapping]]:
    name = str(path.relative_to(raw.folder))
    raw.note(path)
    columns, separator = options["columns"], options["separator"]
    if path.suffix in (".jsonl", ".json"):
        yield from raw.json_lines(name)
    elif not columns:
        needed = [options["pixels"] or options["image"], options["label"], *options["where"]]
        required = tuple(word for word in needed if word not in ("row", "folder"))
        yield from raw.csv(name, required=required, delimiter=separator)
    else:
        for number, line in enumerate(raw.text(name).splitlines(), 1):
            if not line.strip():
                continue
            blank = separator == " "
            cells = line.split(None, len(columns) - 1) if blank else line.split(separator)
            if len(cells) != len(columns):
                raw.fail(path, f"line {number}", f"has {len(cells)} columns, not {len(columns)}.")
            yield number, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _image_name(raw: Raw, path: Path, number: int, row: Any, options: Mapping) -> str | int:
    if options["image"] == "row":
        return number
    name = raw.field(path, number, row, options["image"], (str, int))
    if isinstance(name, str) and (len(name) > LONGEST or not name.isprintable()):
        raw.fail(path, number, f"{name!r:.60} is no image name.")
    return name


def _pattern(raw: Raw, root: Path, options: Mapping[str, Any], name: str | int) -> str:
    """The first way to spell an image's path under which the first image is there."""
    patterns = [options["path"]] if isinstance(options["path"], str) else list(options["path"])
    base = root.relative_to(raw.folder).as_posix()
    full = [pattern if base == "." else f"{base}/{pattern}" for pattern in patterns]
    return first_there(raw, full, name)


def first_there(raw: Raw, patterns: Sequence[str], name: str | int) -> str:
    """The first pattern under which a picture, or its archive, is there; else the first of all."""
    for pattern in patterns:
        if raw.has(_fill(raw, pattern, name).partition("::")[0]):
            return pattern
    return patterns[0]


def _fill(raw: Raw, pattern: str, name: str | int) -> str:
    try:
        return pattern.format(name)
    except (ValueError, LookupError, AttributeError):
        raise UsageError(f"{raw.task.path}: path = {pattern!r} cannot hold {name!r}.") from None


def _label(
    raw: Raw, answers: Answers, path: Path, number: int, row: Any, options: Mapping, image: str
) -> str | int:
    if options["label"] == "folder":
        return answers.add(PurePosixPath(image).parent.name, path, number)
    value = raw.field(path, number, row, options["label"], (str, int))
    if options["first_word"] and isinstance(value, str):
        value = value.split()[0]
    if options["codes"]:
        codes = options["codes"]
        if not str(value).isdigit() or int(value) >= len(codes):
            raw.fail(path, number, f"label {value!r:.20} is out of range (0..{len(codes) - 1}).")
        value = codes[int(value)]
    return answers.add(value, path, number)
