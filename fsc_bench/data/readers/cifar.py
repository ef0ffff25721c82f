"""CIFAR-10 and CIFAR-100 as published: the test batch as a Python pickle or as binary records.

Nothing is unpickled that could run (containers/cifar.py). The two keep their images in the order of
the original file. torchvision keeps both data sets in one folder: the batch is the one whose labels
fit the task. Options: `files`, names that the batch may have.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.containers.cifar import NAMES, read_batch
from fsc_bench.data.evidence import labels_fit
from fsc_bench.data.labels import Answers, Labels
from fsc_bench.data.listing import files_below, member
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"files": list(NAMES)}
LAYOUT = "CIFAR's test batch (cifar-10-batches-py/test_batch, cifar-100-python/test)"


def detect(raw: Raw) -> bool:
    return bool(_batches(raw))


def begins_with(raw: Raw) -> list[str]:
    """The names that the batch may have."""
    return [f"cifar-10-batches-py/{NAMES[0]}", "cifar-100-python/test"]


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    found = _batches(raw)
    if not found:
        raw.find(*{**OPTIONS, **task.data.options}["files"])
    path = _own(task, raw, found) if len(found) > 1 else found[0]
    raw.note(path)
    try:
        pixels, answers = read_batch(path)
    except (OSError, ValueError) as error:
        raw.fail(path, None, f"cannot be read: {error}")
    labels = Labels(raw)
    values = Answers(labels, ClassLists(labels, path.parent), text=False, first=0)
    keys = [values.add(answer, path, place) for place, answer in enumerate(answers)]
    classes = values.classes()
    for place in range(len(pixels)):
        name = f"{place:05d}"
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, member(raw, path, str(place))),),
            labels=(classes[keys[place]],),
            cluster=name,
        )


def _own(task: Task, raw: Raw, found: list[Path]) -> Path:
    """The one batch of several whose labels can be the task's; the first of equal ones."""
    fits = {}
    for path in found:
        with suppress(OSError, ValueError):  # a damaged one is complained of if it is the only one
            pixels, answers = read_batch(path)
            if labels_fit(task, answers):
                fits[path] = (pixels.tobytes(), answers)
    if len({(pixels, tuple(answers)) for pixels, answers in fits.values()}) > 1:
        names = " and ".join(str(path.relative_to(raw.folder)) for path in fits)
        raw.fail(
            raw.folder,
            None,
            f"{names} could both be it; link the folder of one of them, or name the file in the "
            "option `files` of the task file.",
        )
    return next(iter(fits), found[0])


def _batches(raw: Raw) -> list[Path]:
    names = {**OPTIONS, **raw.task.data.options}["files"]
    files = files_below(raw.folder, tuple(names))
    return [path for name in names for path in files if path.name.casefold() == name]
