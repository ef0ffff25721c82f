"""HDF5 files of images and labels, the form in which PatchCamelyon publishes its test set.

An array `x` [n, 96, 96, 3] in one file, `y` [n, 1, 1, 1] in another (github.com/basveeling/pcam).

Options: `images` and `labels`, names that the files may have; `first`, the number of the first
class. Needs h5py: `pip install 'fsc-bench[h5]'`.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.border import reason
from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.containers.hdf5 import IMAGES, open_array, read_array_of
from fsc_bench.data.labels import Answers, Labels
from fsc_bench.data.listing import files_below, member
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {
    "images": ["camelyonpatch_level_2_split_test_x.h5", "test_split.h5"],
    "labels": ["camelyonpatch_level_2_split_test_y.h5"],
    "first": 0,
}
LAYOUT = (
    "HDF5 files (camelyonpatch_level_2_split_test_x.h5 and camelyonpatch_level_2_split_test_y.h5)"
)
LABELS = "y"


def detect(raw: Raw) -> bool:
    return _file(raw, "labels") is not None


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    images, labels = _unpacked(raw, "images"), _unpacked(raw, "labels")
    try:
        count = len(open_array(images, IMAGES))
    except (OSError, ValueError) as error:
        raw.fail(images, None, f"cannot be read: {reason(error)}")
    try:
        values = read_array_of(labels, LABELS).reshape(-1).tolist()
    except (OSError, ValueError) as error:
        raw.fail(labels, None, f"cannot be read: {reason(error)}")
    if len(values) != count:
        raw.fail(labels, None, f"holds {len(values):,} labels for {count:,} images.")
    known = Labels(raw)
    first = {**OPTIONS, **task.data.options}["first"]
    answers = Answers(known, ClassLists(known, labels.parent), text=False, first=first)
    keys = [answers.add(value, labels, place) for place, value in enumerate(values)]
    classes = answers.classes()
    for place, key in enumerate(keys):
        name = f"{place:06d}"
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, member(raw, images, str(place))),),
            labels=(classes[key],),
            cluster=name,
        )


def _file(raw: Raw, what: str) -> Path | None:
    names = [name.casefold() for name in {**OPTIONS, **raw.task.data.options}[what]]
    packed = [f"{name}.gz" for name in names]
    files = files_below(raw.folder, (*names, *packed))
    found = {path.name.casefold(): path for path in reversed(files)}
    return next((found[name] for name in (*names, *packed) if name in found), None)


def _unpacked(raw: Raw, what: str) -> Path:
    path = _file(raw, what)
    if path is None:
        path = raw.find(*{**OPTIONS, **raw.task.data.options}[what])
    if path.suffix.casefold() == ".gz":
        line = f"is packed and cannot be read in place. `gunzip -k {path.name}` first."
        raw.fail(path, None, line)
    raw.note(path)
    return path
