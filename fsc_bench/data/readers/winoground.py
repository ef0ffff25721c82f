"""Winoground's files: two images and two captions of the same words (facebook/winoground, data/).

`examples.jsonl` has lines `{"id", "image_0", "image_1", "caption_0", "caption_1", "tag", ...}`; the
images are `<stem>.png` inside `images.zip`, or in `images/`. Caption k describes image k.
"""

from collections.abc import Iterator

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    path = raw.find("examples.jsonl", "data/examples.jsonl")
    prefix = _prefix(raw, path.parent.relative_to(raw.folder).as_posix())
    for number, row in raw.json_lines("examples.jsonl", "data/examples.jsonl"):
        line = f"line {number}"
        stems = [raw.field(path, line, row, f"image_{k}") for k in (0, 1)]
        name = raw.field(path, line, row, "id", (int, str))
        yield Record(
            id=str(name),
            subset=subset,
            images=tuple(ImageRef(OWN, f"{prefix}{stem}.png") for stem in stems),
            texts=tuple(raw.field(path, line, row, f"caption_{k}") for k in (0, 1)),
            cluster=str(name),
        )


def _prefix(raw: Raw, folder: str) -> str:
    """What a picture's stem is appended to: a folder, or the archive and the folder inside it."""
    archive = "images.zip" if folder == "." else f"{folder}/images.zip"
    if not (raw.folder / archive).exists():
        return f"{archive.removesuffix('.zip')}/"
    inside = (name for name in raw.zip_names(archive) if name.endswith(".png"))
    first = next((name for name in inside if not name.startswith("__MACOSX")), "images/")
    return f"{archive}::{first[: first.rfind('/') + 1]}"
