"""ImageCoDe's files: ten similar pictures and a description of one (McGill-NLP/imagecode, data/).

`valid_data.json` is `{set: {"5": description, ...}}`. The key is the picture's *place* among the
set's ten, sorted by the number in their names: `img31.jpg` may be place 5 (baselines/clip/
zero_shot.py). So the pictures are listed here, in `image-sets.zip` or unpacked: `image-sets/<set>/
img<number>.jpg`.
Sets of Open Images are `static`, frames of films are `videos`.
Options: `file`, the annotation; `frames`, how many pictures a set has.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"file": "valid_data.json", "frames": 10}
FRAME = re.compile(r"(?:.*/)?([^/]+)/img(\d{1,9})\.jpg")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    names = (options["file"], f"data/{options['file']}")
    path, content = raw.find(*names), raw.json(*names)
    frames_of = _frames(raw)
    for name, descriptions in raw.items(path, content):
        frames = frames_of(name)
        if len(frames) != options["frames"]:
            raw.fail(path, name, f"has {len(frames)} pictures on disk, not {options['frames']}.")
        if not isinstance(descriptions, dict) or not descriptions:
            raw.fail(path, name, f"is {descriptions!r:.60}, not descriptions by place.")
        for key in descriptions:
            if not re.fullmatch(r"0|[1-9]\d{0,3}", key) or int(key) >= len(frames):
                raw.fail(path, name, f"the place {key!r:.40} is not one of 0..{len(frames) - 1}.")
            right = frames[int(key)]
            yield Record(
                id=f"{name}/{key}",
                subset="static" if "open-images" in name else "videos",
                images=tuple(
                    ImageRef(OWN, frame)
                    for frame in (right, *(one for one in frames if one != right))
                ),
                # 854 of the 2,302 descriptions have blanks around them; the authors strip them.
                texts=(raw.field(path, name, descriptions, key).strip(),),
                cluster=name,
            )


def _frames(raw: Raw):
    """Function from a set's name to its pictures, in the order of their numbers."""
    if raw.has("image-sets.zip") and not (raw.folder / "image-sets").is_dir():
        return _zip_frames(raw)
    for below in ("image-sets", "data/image-sets", "image-sets/image-sets"):
        root = raw.folder / below
        if root.is_dir() and not (root / "image-sets").is_dir():
            return lambda name: _folder_frames(raw, below, name)
    raw.find("image-sets", "image-sets.zip")  # says what is missing


def _zip_frames(raw: Raw):
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for member in raw.zip_names("image-sets.zip"):
        match = FRAME.fullmatch(member)
        if match:
            found[match[1]].append((int(match[2]), f"image-sets.zip::{member}"))
    return lambda name: [path for _, path in sorted(found.get(name, ()))]


def _folder_frames(raw: Raw, below: str, name: str) -> list[str]:
    try:
        files = os.listdir(raw.folder / below / name) if "/" not in name and name[:1] != "." else []
    except (OSError, ValueError):
        files = []
    numbered = []
    for file in files:
        match = FRAME.fullmatch(f"{name}/{file}")
        if match:
            numbered.append((int(match[2]), f"{below}/{name}/{file}"))
    return [path for _, path in sorted(numbered)]
