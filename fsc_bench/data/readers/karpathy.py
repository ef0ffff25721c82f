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
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test.json   [{"image": "0.png", "caption": ["a cat", "a cat on a mat"]},
#                  {"image": "1.png", "caption": ["a dog", "a dog in a bog"]}]
#     0.png 1.png
title    = "Mine"
suite    = "mine"
group    = "retrieval"
kind     = "retrieval"
version  = 1
headline = ["i2t_r1"]
chance   = 50.0
[subsets]
test = 2
[data]
reader = "karpathy"
[data.options]
file   = "test.json"
images = "."     # the pictures lie beside it; else an image source, such as "coco/val2014"
"""


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
