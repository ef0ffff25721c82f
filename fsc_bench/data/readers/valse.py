"""VALSE's JSON files: one image, a caption and a foil (Heidelberg-NLP/VALSE, data/).

`{id: {"dataset", "image_file", "caption", "foil", "mturk": {"caption": votes, ...}, ...}, ...}`,
one file a piece. Valid are the records of which at least two of three annotators chose the caption
and not the foil (the repository's README): the published counts are theirs. Option: `votes`, that
threshold.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"votes": 2}

# These names say which folder they are from; one piece mixes two folders.
PREFIXES = {
    "v7w_": "visual7w",
    "COCO_train2014_": "coco/train2014",
    "COCO_val2014_": "coco/val2014",
    "VisualDialog_val2018_": "visdial",
}
# Both spellings occur.
DATASETS = {"coco2017": "coco/val2017", "coco_2017": "coco/val2017", "SWiG": "swig"}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    for subset in task.leaves:
        yield from read_piece(task, raw, subset)


def read_piece(task: Task, raw: Raw, subset: str) -> Iterator[Record]:
    votes = task.data.options.get("votes", OPTIONS["votes"])
    names = (f"{subset}.json", f"data/{subset}.json")
    path, content = raw.find(*names), raw.json(*names)
    for key, row in raw.items(path, content):
        chosen = raw.field(path, key, raw.field(path, key, row, "mturk", dict), "caption", int)
        if not 0 <= chosen <= 3:
            raw.fail(path, key, f"has {chosen} votes for the caption, of three annotators.")
        if chosen < votes:
            continue
        image = _image(raw, path, key, row)
        yield Record(
            # An id occurs in more than one piece: the piece belongs to it.
            id=f"{subset}/{key}",
            subset=subset,
            images=(image,),
            texts=(raw.field(path, key, row, "caption"), raw.field(path, key, row, "foil")),
            cluster=str(image),
        )


def _image(raw: Raw, path: Path, key: str, row: dict) -> ImageRef:
    name = raw.field(path, key, row, "image_file")
    for prefix, source in PREFIXES.items():
        if name.startswith(prefix):
            return ImageRef(source, name)
    dataset = raw.field(path, key, row, "dataset")
    if dataset not in DATASETS:
        raw.fail(path, key, f"{name!r:.60} is of {dataset!r:.60}; no image source is known for it.")
    return ImageRef(DATASETS[dataset], name)
