"""SugarCrepe's JSON files: one image, a caption and one hard negative (RAIVNLab/sugar-crepe).

`{"0": {"filename": "000000085329.jpg", "caption": ..., "negative_caption": ...}, ...}`; keys are
not contiguous, captions are kept raw (some end in a space), images are COCO val2017's.
"""

from collections.abc import Iterator

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"images": "coco/val2017"}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    source = task.data.options.get("images", OPTIONS["images"])
    for subset in task.leaves:
        names = (f"{subset}.json", f"data/{subset}.json")
        path, content = raw.find(*names), raw.json(*names)
        for key, row in raw.items(path, content):
            filename = raw.field(path, key, row, "filename")
            yield Record(
                id=f"{subset}/{key}",
                subset=subset,
                images=(ImageRef(source, filename),),
                texts=(
                    raw.field(path, key, row, "caption"),
                    raw.field(path, key, row, "negative_caption"),
                ),
                cluster=filename,
            )
