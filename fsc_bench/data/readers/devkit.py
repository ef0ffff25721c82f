"""ImageNet's development kit: the validation images by number, their classes in two files.

`ILSVRC2012_validation_ground_truth.txt` has a number 1..1000 for each image, in the images' order;
these numbers are the kit's own, and `meta.mat` beside it says which synset each is. The images are
`ILSVRC2012_val_00000001.JPEG` ..., in a folder or in ILSVRC2012_img_val.tar. Option: `path`, where
they may lie, from the folder that the kit lies in.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.data.border import reason
from fsc_bench.data.labels import Labels
from fsc_bench.data.listing import files_below, prefix
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers.image_list import first_there
from fsc_bench.data.readers.mat_list import load_mat
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.system.regular import read_file
from fsc_bench.task import Task

TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
IMAGE = "ILSVRC2012_val_{:08}.JPEG"
OPTIONS = {
    "path": [
        f"val/{IMAGE}",
        f"ILSVRC2012_img_val/{IMAGE}",
        IMAGE,
        f"ILSVRC2012_img_val.tar::{IMAGE}",
    ]
}
LAYOUT = f"ImageNet's development kit ({TRUTH} and {META}) beside the images"


def detect(raw: Raw) -> bool:
    return bool(files_below(raw.folder, (TRUTH,)))


def begins_with(raw: Raw) -> list[str]:
    """The name of the file of classes."""
    return [TRUTH]


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    found = files_below(raw.folder, (TRUTH,))
    path = found[0] if found else raw.find(TRUTH)
    synsets = _synsets(raw, path.with_name(META))
    patterns = {**OPTIONS, **task.data.options}["path"]
    numbers = [line.strip() for line in raw.text_of(path).splitlines() if line.strip()]
    pattern = _pattern(raw, path, patterns) if numbers else ""
    labels = Labels(raw)
    for place, number in enumerate(numbers, 1):
        synset = synsets.get(number)
        if synset is None:
            raw.fail(path, f"line {place}", f"{META} has no class {number!r:.20}.")
        label = labels.find(synset)
        if label is None:
            labels.unknown(synset, path.with_name(META), number)
        image = pattern.format(place)
        yield Record(
            id=f"{place:08d}",
            subset=subset,
            images=(ImageRef(OWN, image),),
            labels=(label,),
            cluster=f"{place:08d}",
        )


def _pattern(raw: Raw, path: Path, patterns: list[str]) -> str:
    """Where the images lie: in the kit's folder, or in one around it."""
    around = [place for place in (path.parent, *path.parents) if place.is_relative_to(raw.folder)]
    bases = [prefix(raw, place) for place in dict.fromkeys(around)]
    full = [f"{base}{one}" for base in reversed(bases) for one in patterns]
    return first_there(raw, full, 1)


def _synsets(raw: Raw, path: Path) -> dict[str, str]:
    """`{the kit's number: synset}`; only synsets without children are classes."""
    if not path.is_file():
        raw.fail(
            path,
            None,
            f"is not there. {TRUTH} numbers the classes in the kit's own order, and only {META} "
            "says which number is which class; both lie in ILSVRC2012_devkit_t12.tar.gz, in data/.",
        )
    raw.note(path)
    try:
        rows = load_mat(read_file(path), "synsets")
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raw.fail(path, None, f"is no MATLAB file with 'synsets': {reason(error)}.")
    found: dict[str, str] = {}
    for row in rows if isinstance(rows, list) else []:
        number, children = _whole(row.get("ILSVRC2012_ID")), _whole(row.get("num_children"))
        synset = row.get("WNID")
        if not isinstance(synset, str) or number is None:
            raw.fail(path, None, "has a synset without 'WNID' and 'ILSVRC2012_ID'.")
        if children == 0 and found.setdefault(str(number), synset) != synset:
            raw.fail(path, None, f"gives the number {number} to two synsets.")
    if not found:
        raw.fail(path, None, "holds no synset without children.")
    return found


def _whole(values: Any) -> int | None:
    """The one whole number that a field of the file holds; None for anything else."""
    if not isinstance(values, np.ndarray) or values.size != 1 or not np.isfinite(values[0]):
        return None
    return int(values[0]) if values[0] == int(values[0]) else None
