"""IDX files of MNIST and its kin: images and labels in two files (yann.lecun.com/exdb/mnist).

Big-endian: magic 0x00000803, count, rows, columns, then bytes; labels 0x00000801, count, then
bytes. Options: `images` and `labels`, the two file names (also as .gz, also with a dot before
`idx`, as some archives call them); `first`, the number of the first class, where numbers alone do
not say it (EMNIST's letters begin at 1). A `classes.txt` beside them says what numbers mean
(class_lists.py).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import files_below, member
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {
    "images": "t10k-images-idx3-ubyte",
    "labels": "t10k-labels-idx1-ubyte",
    "first": UNSAID,
}
LAYOUT = "IDX files (t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte)"


def detect(raw: Raw) -> bool:
    return bool(_files(raw, "images"))


def begins_with(raw: Raw) -> list[str]:
    """The name of the file of images, also spelt with a dot."""
    name = {**OPTIONS, **raw.task.data.options}["images"]
    return [name, name.replace("-idx", ".idx")]


def _files(raw: Raw, what: str) -> list[Path]:
    """The files of that name, the nearest first: torchvision keeps them in MNIST/raw, Kaggle's copy
    has each in a folder that is called like it.
    """
    name = {**OPTIONS, **raw.task.data.options}[what]
    spelt = [name, name.replace("-idx", ".idx")]
    names = tuple(one.casefold() for two in spelt for one in (two, f"{two}.gz"))
    found = [path for path in files_below(raw.folder, names) if path.name.casefold() in names]
    return sorted(found, key=lambda path: (len(path.parts), names.index(path.name.casefold())))


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    (subset,) = task.leaves
    images, labels = (
        found[0] if (found := _files(raw, what)) else raw.find(options[what])
        for what in ("images", "labels")
    )
    pixels, answers = raw.bytes_of(images), raw.bytes_of(labels)
    if len(pixels) < 16 or pixels[:4] != b"\0\0\x08\x03":
        raw.fail(images, None, "is not an IDX image file.")
    if len(answers) < 8 or answers[:4] != b"\0\0\x08\x01":
        raw.fail(labels, None, "is not an IDX label file.")
    count, rows, columns = struct.unpack(">3I", pixels[4:16])
    if len(pixels) != 16 + count * rows * columns:
        raw.fail(images, None, f"promises {count} images of {rows}x{columns} and is cut short.")
    if struct.unpack(">I", answers[4:8])[0] != count or len(answers) != 8 + count:
        raw.fail(labels, None, f"does not hold one label for each of {count} images.")
    known = Labels(raw)
    first = options["first"]
    values = Answers(known, ClassLists(known, labels.parent), text=False, first=first)
    keys = [values.add(answers[8 + place], labels, place) for place in range(count)]
    classes = values.classes()
    for place, key in enumerate(keys):
        name = f"{place:0{len(str(count))}d}"
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, member(raw, images, str(place))),),
            labels=(classes[key],),
            cluster=name,
        )
