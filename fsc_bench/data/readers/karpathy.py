"""Karpathy-split retrieval files as BLIP published them: one image and all its captions.

A list of `{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": [five or six strings]}`
(salesforce/BLIP data/coco_karpathy_dataset.py). Captions are kept raw. A record is called like its
image; where two folders hold an image of one name, like the path of each. Options: `file`, its
name; `images`, the image source; `strip`, the leading folders that the source itself stands for.
"""

from collections import Counter
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
    rows = [
        (key, row, raw.field(path, key, row, "image").removeprefix(options["strip"]))
        for key, row in raw.items(path, content)
    ]
    stems = Counter(PurePosixPath(image).stem for image in {image for _, _, image in rows})
    for key, row, image in rows:
        captions = raw.field(path, key, row, "caption", list)
        for place in range(len(captions)):
            raw.field(path, key, captions, place)
        if not captions:
            raw.fail(path, key, "has no caption.")
        yield Record(
            id=image if stems[PurePosixPath(image).stem] > 1 else PurePosixPath(image).stem,
            subset=subset,
            images=(ImageRef(options["images"], image),),
            texts=tuple(captions),
            cluster=image,
        )
