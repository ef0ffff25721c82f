"""COLA's multi-object file: two images and two captions (arijitray1993/COLA, data/).

`[["https://.../vg_gqa_images/2390970.jpg", caption 1, "https://.../2388902.jpg", caption 2], ...]`;
caption k describes image k. The number in an address is a picture's of Visual Genome, where it is
looked for in both of its folders. Option: `images`, the source of the pictures.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"images": "vg"}
NAME = "COLA_multiobjects_matching_benchmark.json"
ADDRESS = re.compile(r"https?://\S+/(\d+\.jpg)")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    source = task.data.options.get("images", OPTIONS["images"])
    (subset,) = task.leaves
    names = (NAME, f"data/{NAME}")
    path, content = raw.find(*names), raw.json(*names)
    for key, row in raw.items(path, content):
        if not isinstance(row, list) or len(row) != 4:
            raw.fail(path, key, f"is {row!r:.60}, not [image 1, caption 1, image 2, caption 2].")
        pictures = [_picture(raw, path, key, raw.field(path, key, row, k)) for k in (0, 2)]
        if pictures[0] == pictures[1]:
            raw.fail(path, key, f"both captions are of the picture {pictures[0]}.")
        yield Record(
            id=key,
            subset=subset,
            images=tuple(ImageRef(source, f"VG_100K/{name}") for name in pictures),
            texts=tuple(raw.field(path, key, row, k) for k in (1, 3)),
            cluster=key,
        )


def _picture(raw: Raw, path: Path, key: str, address: str) -> str:
    found = ADDRESS.fullmatch(address)
    if not found:
        raw.fail(path, key, f"{address!r:.100} is no address that ends in a number and .jpg.")
    return found[1]
