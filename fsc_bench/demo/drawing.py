"""What the recipes of `raw/` share: scenes with captions that are true and false, and files."""

import csv
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fsc_bench.demo import world
from fsc_bench.demo.world import Description, Mention, Scene, Style

ImageFolder = Callable[[str], Path]  # the folder of a named image source


def stream(seed: int, benchmark: int) -> np.random.Generator:
    """Random numbers of the test split. `benchmark`: a number that no other recipe has."""
    return world.random_stream("test", 1000 * seed + benchmark)


def image_number(seed: int, benchmark: int, i: int) -> int:
    """An image's number: benchmarks that share an image source must not share names."""
    return (benchmark + 1) * 10_000_000 + seed % 100 * 100_000 + i


def foiled(rng, kind: str, foil_kind: str, **detail: float) -> tuple[Scene, str, str]:
    """A scene, a caption that is true of it, and one that is false by `foil_kind` of change."""
    while True:
        scene = world.sample_scene(rng, kind, split="test")
        pair = world.caption_and_foil(scene, foil_kind, rng, style=plain_style(rng), **detail)
        if pair is not None:
            return scene, *pair


def reworded(text: str, rng) -> str:
    """What a caption says in other words: two things in the other order, another beginning."""
    said = world.parse(text)
    if len(said.mentions) == 2 and all(word != "same" for _, word, _ in said.relations):
        turned = tuple((0, world.OPPOSITE[word], 1) for _, word, _ in said.relations)
        said = replace(said, mentions=said.mentions[::-1], relations=turned)
    prefix = str(rng.choice(world.PREFIXES[1:4]))
    return world.verbalise(said, Style(prefix, int(rng.integers(2))))


def plain_style(rng) -> Style:
    """No prefix: a caption and its foil then differ in what they say alone."""
    return Style("", int(rng.integers(2)))


def twins(rng, kind: str) -> tuple[tuple[Scene, Scene], tuple[str, str]]:
    """Two scenes that differ by `kind` of edit; a caption of each that is false of the other."""
    needed = {
        "swap_colour": {"colour": 1.0}, "recolour": {"colour": 1.0},
        "swap_texture": {"texture": 1.0}, "retexture": {"texture": 1.0},
        "swap_size": {"size": 1.0}, "resize": {"size": 1.0},
        "swap_position": {"relation": 1.0}, "background": {"background": 1.0},
    }.get(kind, {})  # fmt: skip
    while True:
        scene = world.sample_scene(rng, "count" if kind == "count" else "pair", split="test")
        other = world.edit(scene, kind, rng)
        if other is None:
            continue
        style, state = plain_style(rng), rng.bit_generator.state
        said = []
        for one in (scene, other):  # the same draws, so that both state the same kinds of fact
            rng.bit_generator.state = state
            said.append(world.describe(one, rng, **{"background": 0.3, **needed}))
        if kind == "swap_position" and said[0].relations:  # the same words in another order
            said[1] = replace(said[0], mentions=said[0].mentions[::-1])
            if not world.holds(said[1], other):
                continue
        if not world.holds(said[0], other) and not world.holds(said[1], scene):
            texts = [world.verbalise(d, style) for d in said]
            return (scene, other), (texts[0], texts[1])


def lone(rng) -> tuple[Scene, Mention]:
    """A scene of one thing, and its shape and colour."""
    scene = world.sample_scene(rng, "single", split="test")
    return scene, Mention(scene.things[0].shape, scene.things[0].colour)


def relative_spatial(rng) -> tuple[list[Scene], list[Description]]:
    """Four scenes, a thing left of, right of, above and below another; a description of each."""
    scene = world.sample_scene(rng, "pair", split="test")
    a, b = scene.things
    said = (Mention(a.shape, a.colour), Mention(b.shape, b.colour))
    b = world.move_to(b, "center", rng)
    cells = {
        "left": "middle left", "right": "middle right",
        "above": "top middle", "below": "bottom middle",
    }  # fmt: skip
    scenes = [replace(scene, things=(world.move_to(a, cell, rng), b)) for cell in cells.values()]
    return scenes, [Description(said, ((0, word, 1),)) for word in cells]


def captioned(rng, number: int, said: set[tuple[str, ...]]) -> tuple[Scene, list[str]]:
    """A scene and true captions of it, in words that no other scene's captions have (`said`).

    No two captions are reorderings of each other: ARO shuffles words, and a shuffle that is true by
    chance would be a wrong answer that is right.
    """
    while True:
        scene = world.sample_scene(rng, domain=world.OBJECTS, split="test")
        mine: dict[tuple[str, ...], str] = {}
        captions = []
        for _ in range(number):
            text = _sentence(world.caption(scene, rng))
            captions.append(mine.setdefault(tuple(sorted(world.words_of(text))), text))
        if not said & mine.keys():
            said.update(mine)
            return scene, captions


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def whole_picture(prefix: str) -> dict[str, int]:
    """The box of a whole picture, in pixels: keys x, y, w and h behind the prefix."""
    size = world.IMAGE_SIZE
    return {f"{prefix}x": 0, f"{prefix}y": 0, f"{prefix}w": size, f"{prefix}h": size}


def encode(scene: Scene, suffix: str) -> bytes:
    """A rendered scene as a `.npy`, `.png` or `.jpg` file."""
    buffer = io.BytesIO()
    pixels = world.render(scene)
    if suffix == ".npy":
        np.save(buffer, np.ascontiguousarray(pixels[:, :, ::-1]))  # BGR, as OpenCV read the films
    elif suffix == ".png":
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    else:  # small pictures: hardly any loss, no colour subsampling
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def picture_cell(scene: Scene, name: str = "") -> dict[str, Any]:
    """A picture as a cell of `datasets.Image`: its bytes, and what the file was called."""
    return {"bytes": encode(scene, ".png"), "path": name or None}


class PictureFolder:
    """Writes pictures below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, scene: Scene, name: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(scene, path.suffix))
        return name


class PictureZip:
    """Gathers pictures and writes them as one archive. Fixed dates: the same bytes every time."""

    def __init__(self):
        self.members: dict[str, bytes] = {}

    def add(self, scene: Scene, name: str) -> None:
        self.members[name] = encode(scene, Path(name).suffix)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in self.members.items():
                archive.writestr(zipfile.ZipInfo(name), content)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_json_lines(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def image_table(rows: Sequence[Mapping[str, Any]], images: Sequence[str]) -> pa.Table:
    """Rows as a table in which `images` are columns of pictures, as `datasets` writes them."""
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table(
        {name: pa.array(cells, cell if name in images else None) for name, cells in columns.items()}
    )


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], images: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_table(rows, images), path)


def write_idx(raw: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """MNIST's two test files of uint8 pixels [n, rows, columns] and labels [n]."""
    raw.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">4i", 2051, *pixels.shape) + pixels.tobytes()
    answers = struct.pack(">2i", 2049, len(labels)) + labels.tobytes()
    for name, content in (("images-idx3", images), ("labels-idx1", answers)):
        # mtime 0: the same bytes every time
        (raw / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(content, 1, mtime=0))
