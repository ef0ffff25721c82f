"""Draws a picture for every file name that a benchmark's real annotations mention.

    python tests/draw_images.py sugarcrepe RAW_FOLDER OUT

The pictures show nothing of what the captions say: they stand in for photographs that cannot be
shipped, so that the whole pipe runs on official annotation files.
"""

import hashlib
import sys
from pathlib import Path

from PIL import Image, ImageDraw


def draw(path: Path, size: tuple[int, int] = (96, 72)) -> None:
    """A picture of its own for each file name: a few shapes, from the name's hash."""
    digest = hashlib.sha256(path.name.encode()).digest()
    picture = Image.new("RGB", size, tuple(digest[:3]))
    pen = ImageDraw.Draw(picture)
    for corner in range(3, 24, 7):
        left, top = digest[corner] % size[0], digest[corner + 1] % size[1]
        box = (left, top, left + 8 + digest[corner + 2] % 40, top + 8 + digest[corner + 3] % 30)
        pen.ellipse(box, fill=tuple(digest[corner + 4 : corner + 7]))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=90)


def draw_for(task_name: str, raw: Path, out: Path) -> int:
    """Draws every image of a task's records below `out`. Returns how many."""
    from fsc_bench.data.raw import Raw
    from fsc_bench.data.readers import load_reader
    from fsc_bench.task import catalogue

    task = catalogue()[task_name]
    records = load_reader(task.data.reader, task_name).read(task, Raw(task, raw))
    names = {ref.path for row in records for ref in row.images}
    for name in names:
        draw(out / name)
    return len(names)


if __name__ == "__main__":
    print(draw_for(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
