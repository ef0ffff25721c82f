"""Karpathy-split retrieval files as BLIP published them: one image and all its captions.

A list of `{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": [five or six strings]}`
(salesforce/BLIP data/coco_karpathy_dataset.py). Captions are kept raw. Options: `file`, its name;
`images`, the image source; `strip`, the leading folders that the source itself stands for.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"file": "", "images": "", "strip": ""}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    (subset,) = task.leaves
    path, content = raw.find(options["file"]), raw.json(options["file"])
    for key, row in raw.items(path, content):
        image = raw.field(path, key, row, "image").removeprefix(options["strip"])
        captions = raw.field(path, key, row, "caption", list)
        for place in range(len(captions)):
            raw.field(path, key, captions, place)
        if not captions:
            raw.fail(path, key, "has no caption.")
        yield Record(
            id=PurePosixPath(image).stem,
            subset=subset,
            images=(ImageRef(options["images"], image),),
            texts=tuple(captions),
            cluster=image,
        )
