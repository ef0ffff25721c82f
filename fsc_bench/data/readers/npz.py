"""NumPy's .npz files of images and labels: Keras' mnist.npz, with `x_test` and `y_test`.

Options: `images` and `labels`, names that the two arrays may have; `first`, the number of the first
class, where numbers alone do not say it.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.border import reason
from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.containers.npz import Arrays
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import files_below, member
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {
    "images": ["x_test", "test_images"],
    "labels": ["y_test", "test_labels"],
    "first": UNSAID,
}
LAYOUT = "NumPy arrays (mnist.npz with x_test and y_test)"


def detect(raw: Raw) -> bool:
    return _found(raw) is not None


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    path, image, label = _found(raw) or (raw.find("test.npz"), "", "")
    raw.note(path)
    try:
        arrays = Arrays(path)
        count = len(arrays.read(image))
        values = arrays.read(label)
    except (OSError, ValueError, KeyError) as error:
        raw.fail(path, None, f"cannot be read: {reason(error)}")
    if values.size != count:
        raw.fail(path, None, f"holds {values.size:,} labels for {count:,} images.")
    known = Labels(raw)
    first = {**OPTIONS, **task.data.options}["first"]
    answers = Answers(known, ClassLists(known, path.parent), text=False, first=first)
    numbers = values.reshape(-1).tolist()
    keys = [answers.add(value, path, place) for place, value in enumerate(numbers)]
    classes = answers.classes()
    for place, key in enumerate(keys):
        name = f"{place:06d}"
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, member(raw, path, f"{image}/{place}")),),
            labels=(classes[key],),
            cluster=name,
        )


def _found(raw: Raw) -> tuple[Path, str, str] | None:
    """(file, array of images, array of labels) of the first file that has both."""
    options = {**OPTIONS, **raw.task.data.options}
    for path in files_below(raw.folder, (".npz",)):
        try:
            names = Arrays(path).names()
        except (OSError, ValueError) as error:
            raw.fail(path, None, f"cannot be read: {reason(error)}.")
        image = next((name for name in options["images"] if name in names), "")
        label = next((name for name in options["labels"] if name in names), "")
        if image and label:
            return path, image, label
    return None
