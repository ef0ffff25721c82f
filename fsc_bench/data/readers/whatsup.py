"""What'sUp's six JSON files: one image, its caption and the same with another preposition.

amitakamath/whatsup_vlms, data/. The two controlled files are lists of `{"image_path": "data/
controlled_images/x.jpeg", "caption_options": [four]}`, their images beside them; the other four are
lists of `[image id, caption, wrong caption]` over COCO val2017 and the repository's own
`vg_images/`. The first caption is the right one everywhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

FILES = {
    "WhatsUp_A": "controlled_images_dataset.json",
    "WhatsUp_B": "controlled_clevr_dataset.json",
    "COCO_QA_ONE": "coco_qa_one_obj.json",
    "COCO_QA_TWO": "coco_qa_two_obj.json",
    "VG_QA_ONE": "vg_qa_one_obj.json",
    "VG_QA_TWO": "vg_qa_two_obj.json",
}
CONTROLLED = ("WhatsUp_A", "WhatsUp_B")
OPTIONS_OF_CONTROLLED = 4  # captions to choose from; the chance level rests on it


def read(task: Task, raw: Raw) -> Iterator[Record]:
    for subset in task.leaves:
        yield from read_file(task, raw, subset)


def read_file(task: Task, raw: Raw, subset: str) -> Iterator[Record]:
    if subset not in FILES:
        raw.fail(str(task.path), None, f"knows no subset {subset!r}; there are {', '.join(FILES)}.")
    names = (FILES[subset], f"data/{FILES[subset]}")
    path, content = raw.find(*names), raw.json(*names)
    if not isinstance(content, list):
        raw.fail(path, None, "holds no list of records.")
    for number, row in enumerate(content):
        if subset in CONTROLLED:
            image, texts = _controlled(raw, path, number, row)
        else:
            image, texts = _question(raw, path, number, row, subset)
        yield Record(
            id=f"{subset}/{number}",
            subset=subset,
            images=(image,),
            texts=texts,
            cluster=str(image),
        )


def _controlled(raw: Raw, path: Path, number: int, row: Any) -> tuple[ImageRef, tuple[str, ...]]:
    name = raw.field(path, number, row, "image_path")
    options = raw.field(path, number, row, "caption_options", list)
    if len(options) != OPTIONS_OF_CONTROLLED:
        raw.fail(path, number, f"has {len(options)} captions, not {OPTIONS_OF_CONTROLLED}.")
    folder, _, file = name.removeprefix("data/").partition("/")
    if not file:
        raw.fail(path, number, f"{name!r:.60} is no path of an image.")
    # Paths start at the repository's root. A user's folder may be that or the data/ below it.
    base = "data/" if (raw.folder / "data").is_dir() else ""
    return _image(raw, base, folder, file), _texts(raw, path, number, options)


def _question(
    raw: Raw, path: Path, number: int, row: Any, subset: str
) -> tuple[ImageRef, tuple[str, ...]]:
    if not isinstance(row, list) or len(row) != 3:
        raw.fail(path, number, "is not [image id, caption, wrong caption].")
    image_id = str(raw.field(path, number, row, 0, (int, str)))
    if not (image_id.isascii() and image_id.isdigit()) or len(image_id) > 12:
        raw.fail(path, number, f"{image_id!r:.60} is no image id.")
    texts = _texts(raw, path, number, row[1:])
    if subset.startswith("COCO"):
        return ImageRef("coco/val2017", f"{image_id:0>12}.jpg"), texts
    beside = path.parent.relative_to(raw.folder).as_posix()
    base = "" if beside == "." else f"{beside}/"
    return _image(raw, base, "vg_images", f"{image_id}.jpg"), texts


def _image(raw: Raw, base: str, folder: str, file: str) -> ImageRef:
    """An image in its folder or, where that is not unpacked, in the tar of the folder's name."""
    try:
        packed = raw.has(f"{base}{folder}.tar") and not (raw.folder / base / folder).is_dir()
    except (OSError, ValueError):  # a name that no file can have: whoever looks for it will say so
        packed = False
    inside = f"{folder}.tar::{folder}" if packed else folder
    return ImageRef(OWN, f"{base}{inside}/{file}")


def _texts(raw: Raw, path: Path, number: int, options: list) -> tuple[str, ...]:
    return tuple(raw.field(path, number, options, place) for place in range(len(options)))
