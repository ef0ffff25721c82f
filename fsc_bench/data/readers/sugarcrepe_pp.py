"""SugarCrepe++'s JSON files: one image, two right captions and one foil (Sri-Harsha/scpp, data/).

`[{"id": 0, "filename": "000000289393.jpg", "caption": ..., "caption2": ..., "negative_caption":
...}, ...]`, one file a subset; both captions must beat the foil. Images are COCO val2017's.
Option: `images`, their source.
"""

from collections.abc import Iterator

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"images": "coco/val2017"}
TEXTS = ("caption", "caption2", "negative_caption")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    source = task.data.options.get("images", OPTIONS["images"])
    for subset in task.leaves:
        names = (f"{subset}.json", f"data/{subset}.json")
        path, content = raw.find(*names), raw.json(*names)
        for place, row in raw.items(path, content):
            key = raw.field(path, place, row, "id", (int, str))
            filename = raw.field(path, key, row, "filename")
            yield Record(
                id=f"{subset}/{key}",
                subset=subset,
                images=(ImageRef(source, filename),),
                texts=tuple(raw.field(path, key, row, name) for name in TEXTS),
                cluster=filename,
                right_texts=2,
            )
