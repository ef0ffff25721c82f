"""The demo world: procedural scenes, sentences that are true of them, and foils that are false.

Everything here is numpy and Pillow. It knows no model, no benchmark format and no metric: `raw/`
writes benchmarks from it, `pretrain.py` and the trainer learn from it.

A `Scene` is a value (what is where), `render` draws it, a `Description` is a value (what is said),
`verbalise` words it and `parse` reads it back, and `holds` decides whether it is true of a scene.
Every foil has been through `holds`: it is false, not merely different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

IMAGE_SIZE = 48  # pixels, square
CELL = 16  # objects sit at the centres of a 3x3 lattice of 16-pixel cells, give or take a pixel
SIZES = {"small": 10, "medium": 13, "large": 16}  # sprite width in pixels
COLOURS = {
    "red": (215, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 220, 50),
    "green": (40, 150, 60),
    "blue": (45, 80, 215),
    "purple": (130, 55, 175),
    "pink": (245, 140, 190),
    "brown": (125, 80, 45),
    "white": (245, 245, 245),
    "black": (22, 22, 22),
}
GREY = {"grey": (128, 128, 128)}  # never in a sampled scene: shapes by outline alone, for a test
SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross",
    "ring", "diamond", "moon", "arrow", "house", "drop",
)  # fmt: skip
TEXTURES = ("solid", "striped", "dotted", "checkered")
BACKGROUNDS = {  # colour at the top, colour at the bottom, strength of the grain
    "grass": ((120, 175, 80), (85, 140, 55), 15),
    "sand": ((230, 205, 150), (205, 175, 115), 11),
    "sky": ((125, 185, 240), (195, 225, 250), 4),
    "night": ((12, 14, 52), (36, 34, 84), 5),
    "snow": ((222, 230, 240), (205, 214, 228), 7),
    "road": ((112, 112, 116), (88, 88, 92), 9),
}
BACKGROUND_PHRASES = {
    "grass": "on the grass",
    "sand": "on the sand",
    "sky": "in the sky",
    "night": "at night",
    "snow": "in the snow",
    "road": "on the road",
}
NUMBERS = ("no", "one", "two", "three", "four")
RELATIONS = {  # wordings; the first is the plainest
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "larger": ("larger than", "bigger than"),
    "smaller": ("smaller than", "smaller than"),
    "same": ("as large as", "as big as"),
}
SPATIAL = ("left", "right", "above", "below")
OPPOSITE = {
    "left": "right", "right": "left", "above": "below", "below": "above",
    "larger": "smaller", "smaller": "larger", "same": "larger",
}  # fmt: skip
CELLS = (  # row by row
    "top left", "top middle", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom middle", "bottom right",
)  # fmt: skip
SIDES = ("left", "right", "top", "bottom")
PLACE_PHRASES = {cell: f"in the {cell}" for cell in CELLS} | {
    "left side": "on the left",
    "right side": "on the right",
    "top side": "at the top",
    "bottom side": "at the bottom",
}
PREFIXES = ("", "a photo of", "a picture of", "an image of", "there is", "this is")
NOISE_WORDS = (
    "stock", "image", "photo", "picture", "free", "download", "hd", "wallpaper",
    "clipart", "art", "cute", "new", "best", "vector", "icon",
)  # fmt: skip
SPLITS = ("train", "dev", "test")
Split = Literal["train", "dev", "test"]
Register = Literal["full", "web"]


# --------------------------------------------------------------------------- what is where


@dataclass(frozen=True)
class Thing:
    """One object. x and y are its centre in pixels, from the top left."""

    shape: str
    colour: str
    texture: str
    size: str
    x: int
    y: int
    rotation: int = 0  # degrees, anticlockwise; sampled scenes are upright


@dataclass(frozen=True)
class Digit:
    """A digit that fills the picture; `style` is how it is drawn, the rest comes from the noise."""

    value: int
    style: Literal["font", "stroke", "pixel"]


@dataclass(frozen=True)
class Scene:
    """All that `render` needs. `noise` seeds grain and jitter; `noise % 3` is the split."""

    things: tuple[Thing, ...]
    background: str
    noise: int
    digit: Digit | None = None

    @property
    def split(self) -> str:
        return SPLITS[self.noise % len(SPLITS)]


@dataclass(frozen=True)
class Domain:
    """The part of the world that scenes are drawn from, and how often each kind of scene is."""

    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    textures: tuple[str, ...] = TEXTURES
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)
    kinds: tuple[tuple[str, float], ...] = (
        ("single", 0.40), ("pair", 0.28), ("triple", 0.08), ("count", 0.12), ("digit", 0.12),
    )  # fmt: skip


FULL = Domain()
# What fine-tuning sees: a part of the world, as COCO is a part of the web. Forgetting shows on the
# classes that are left out (`held_out`).
FINETUNE = Domain(
    shapes=SHAPES[:8],
    colours=("red", "yellow", "green", "blue", "purple", "white"),
    textures=TEXTURES[:3],
    backgrounds=("grass", "sand", "sky"),
    kinds=(("single", 0.10), ("pair", 0.60), ("triple", 0.20), ("count", 0.10)),
)
OBJECTS = replace(FULL, kinds=tuple(k for k in FULL.kinds if k[0] != "digit"))


def random_stream(split: Split, seed: int) -> np.random.Generator:
    """A generator for one split. Scenes must also be sampled with that split's name."""
    return np.random.default_rng([20410, SPLITS.index(split), seed])


def sample_scene(
    rng: np.random.Generator,
    kind: str = "any",
    domain: Domain = FULL,
    split: Split = "train",
    **fixed,
) -> Scene:
    """Draws a scene: kind is single, pair, triple, crowd, count, mixed, digit or any.

    `fixed` pins shape, colour, texture or size of the first object, `background`, the number of
    objects (`count`, for kind "count") or the digit (`value`, `style`). Objects of one scene differ
    in shape, except in counts and crowds (four to seven unlike objects, too many for a sentence).
    Scenes of two splits are never equal: `noise % 3` is the split.
    """
    noise = int(rng.integers(2**24)) * len(SPLITS) + SPLITS.index(split)
    background = fixed.pop("background", None) or str(rng.choice(domain.backgrounds))
    if kind == "any":
        names, weights = zip(*domain.kinds, strict=True)
        kind = str(rng.choice(names, p=np.array(weights) / sum(weights)))
    if kind == "digit":
        value = fixed.pop("value", None)
        style = fixed.pop("style", None) or str(rng.choice(("font", "stroke", "pixel")))
        value = int(rng.integers(10)) if value is None else value
        return Scene((), background, noise, Digit(value, style))
    if kind == "count":
        number = fixed.pop("count", None) or int(rng.integers(1, 5))
        first = _sample_thing(rng, domain, 0, 0, **fixed)
        things = tuple(replace(first, x=x, y=y) for x, y in _sample_places(rng, number))
    elif kind == "mixed":
        number = int(rng.integers(2, 4))
        first = _sample_thing(rng, domain, 0, 0, **fixed)
        *places, (x, y) = _sample_places(rng, number + 1)
        other = _sample_thing(rng, domain, x, y, without=(first.shape,))
        things = (*(replace(first, x=x, y=y) for x, y in places), other)
    elif kind == "crowd":
        places = _sample_places(rng, int(rng.integers(4, 8)))
        things = tuple(_sample_thing(rng, domain, x, y) for x, y in places)
    else:
        number = {"single": 1, "pair": 2, "triple": 3}[kind]
        things = ()
        for x, y in _sample_places(rng, number, related=number > 1):
            without = tuple(t.shape for t in things)
            things += (_sample_thing(rng, domain, x, y, without, **(fixed if not things else {})),)
    return Scene(things, background, noise)


def _sample_thing(rng, domain: Domain, x, y, without=(), **fixed) -> Thing:
    shapes = [s for s in domain.shapes if s not in without]
    drawn = {
        "shape": shapes[rng.integers(len(shapes))],
        "colour": domain.colours[rng.integers(len(domain.colours))],
        "texture": domain.textures[rng.integers(len(domain.textures))],
        "size": tuple(SIZES)[rng.integers(3)],
    }
    return Thing(**(drawn | fixed), x=int(x), y=int(y))


def _sample_places(rng, number: int, related: bool = False) -> list[tuple[int, int]]:
    """Centres in distinct cells; `related` puts the first two where one axis clearly dominates."""
    while True:
        cells = rng.permutation(9)[:number]
        rows, columns = np.divmod(cells, 3)
        if not related or abs(rows[0] - rows[1]) != abs(columns[0] - columns[1]):
            break
    jitter = rng.integers(-1, 2, (number, 2))
    half = CELL // 2
    return [
        (int(c * CELL + half + dx), int(r * CELL + half + dy))
        for r, c, (dx, dy) in zip(rows, columns, jitter, strict=True)
    ]


def spatial_relation(a: Thing, b: Thing) -> str | None:
    """Where a is as seen from b, or None where no axis clearly dominates."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= abs(dy) + 10:
        return "left" if dx < 0 else "right"
    if abs(dy) >= abs(dx) + 10:
        return "above" if dy < 0 else "below"
    return None


def cell_of(thing: Thing) -> str:
    return CELLS[min(thing.y // CELL, 2) * 3 + min(thing.x // CELL, 2)]


def move_to(thing: Thing, cell: str, rng: np.random.Generator) -> Thing:
    row, column = divmod(CELLS.index(cell), 3)
    dx, dy = rng.integers(-1, 2, 2)
    half = CELL // 2
    return replace(thing, x=int(column * CELL + half + dx), y=int(row * CELL + half + dy))


EDITS = (
    "swap_colour", "swap_texture", "swap_size", "swap_position", "recolour", "reshape",
    "retexture", "resize", "move", "count", "remove", "background",
)  # fmt: skip


def edit(scene: Scene, kind: str, rng: np.random.Generator, domain: Domain = FULL) -> Scene | None:
    """The scene with one thing changed (see `EDITS`), or None where it does not apply.

    Swaps exchange a property of two objects. Grain stays, so that nothing else tells the two
    pictures apart.
    """
    things = list(scene.things)
    attribute = {
        "swap_colour": ("colour",), "swap_texture": ("texture",), "swap_size": ("size",),
        "swap_position": ("x", "y"), "recolour": ("colour",), "reshape": ("shape",),
        "retexture": ("texture",), "resize": ("size",),
    }.get(kind)  # fmt: skip
    if kind == "background":
        others = [b for b in domain.backgrounds if b != scene.background]
        return replace(scene, background=str(rng.choice(others)))
    if not things:
        return None
    if kind.startswith("swap_"):
        pairs = [
            (i, j)
            for i in range(len(things))
            for j in range(i)
            if all(getattr(things[i], a) != getattr(things[j], a) for a in attribute[:1])
            or (kind == "swap_position" and things[i].shape != things[j].shape)
        ]
        if not pairs:
            return None
        i, j = pairs[rng.integers(len(pairs))]
        mine = {a: getattr(things[i], a) for a in attribute}
        theirs = {a: getattr(things[j], a) for a in attribute}
        things[i], things[j] = replace(things[i], **theirs), replace(things[j], **mine)
    elif kind == "count":
        if len(set(replace(t, x=0, y=0) for t in things)) > 1:
            return None
        number = int(rng.choice([n for n in range(1, 5) if n != len(things)]))
        free = [c for c in CELLS if c not in {cell_of(t) for t in things}]
        free = [str(c) for c in rng.permutation(free)]
        while len(things) < number:
            things.append(move_to(things[0], free.pop(), rng))
        things = things[:number]
    elif kind == "remove":
        if len(things) < 2:
            return None
        things.pop(int(rng.integers(len(things))))
    elif kind == "move":
        i = int(rng.integers(len(things)))
        free = [c for c in CELLS if c not in {cell_of(t) for t in things}]
        things[i] = move_to(things[i], str(rng.choice(free)), rng)
    else:  # a new value for every object that shares the old one, so that counts stay counts
        (name,) = attribute
        old = getattr(things[int(rng.integers(len(things)))], name)
        family = {
            "colour": domain.colours, "shape": domain.shapes, "texture": domain.textures,
            "size": tuple(SIZES),
        }[name]  # fmt: skip
        taken = {t.shape for t in things} if name == "shape" else {old}
        new = str(rng.choice([v for v in family if v not in taken]))
        things = [replace(t, **{name: new}) if getattr(t, name) == old else t for t in things]
    return replace(scene, things=tuple(things))


# --------------------------------------------------------------------------- drawing


def render(scene: Scene) -> np.ndarray:
    """Draws the scene: uint8 [48, 48, 3]. The same scene always gives the same bytes."""
    if scene.digit is not None:
        return _render_digit(scene)
    canvas = _backdrops(scene.background)[scene.noise % 8].copy()
    tint = _jitter(scene.noise)
    for number, thing in enumerate(scene.things):
        fill, mark, edge = _sprite(thing.shape, thing.texture, SIZES[thing.size], thing.rotation)
        colour = np.array((COLOURS | GREY)[thing.colour], np.float32) + tint[number % 4]
        dark = colour.mean() < 90
        second = colour * 0.25 + 255 * 0.75 if colour.mean() < 170 else colour * 0.35
        outline = colour * 0.5 + 60 if dark else colour * 0.55
        _composite(canvas, thing, fill, colour)
        if mark is not None:
            _composite(canvas, thing, mark, second)
        _composite(canvas, thing, edge, outline)
    canvas += _grain()[scene.noise // 8 % 64]
    return np.clip(canvas, 0, 255).astype(np.uint8)


def box_of(thing: Thing) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge, in pixels, of what is drawn of a thing."""
    alpha, _, _ = _sprite(thing.shape, thing.texture, SIZES[thing.size], thing.rotation)
    height, width = alpha.shape
    rows, columns = np.nonzero(alpha.max(axis=1) > 0.5)[0], np.nonzero(alpha.max(axis=0) > 0.5)[0]
    edges = (
        thing.x - width // 2 + columns[0], thing.y - height // 2 + rows[0],
        thing.x - width // 2 + columns[-1] + 1, thing.y - height // 2 + rows[-1] + 1,
    )  # fmt: skip
    left, top, right, bottom = (min(max(int(edge), 0), IMAGE_SIZE) for edge in edges)
    return left, top, right, bottom


def _composite(canvas, thing: Thing, alpha: np.ndarray, colour: np.ndarray) -> None:
    height, width = alpha.shape
    top, left = thing.y - height // 2, thing.x - width // 2
    rows = slice(max(top, 0), min(top + height, IMAGE_SIZE))
    columns = slice(max(left, 0), min(left + width, IMAGE_SIZE))
    part = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    area = canvas[rows, columns]
    area += part[..., None] * (colour - area)


@cache
def _grain() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 4, (64, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def _jitter(noise: int) -> np.ndarray:
    return _tints()[noise // 512 % 256]


@cache
def _tints() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 6, (256, 4, 3)).astype(np.float32)


@cache
def _backdrops(name: str) -> np.ndarray:
    """Eight pictures of one background: float32 [8, 48, 48, 3]."""
    top, bottom, grain = BACKGROUNDS[name]
    rng = np.random.default_rng([3, tuple(BACKGROUNDS).index(name)])
    ramp = np.linspace(0, 1, IMAGE_SIZE, dtype=np.float32)[:, None, None]
    plain = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    shape = (8, IMAGE_SIZE, IMAGE_SIZE, 1)
    pictures = plain[None] + rng.normal(0, grain, shape) + rng.normal(0, 8, (8, 1, 1, 3))
    for picture in pictures:
        if name == "night":  # stars
            picture[rng.integers(0, 48, 12), rng.integers(0, 48, 12)] = (225, 225, 205)
        elif name == "road":  # lane marks
            start = int(rng.integers(0, 8))
            for x in range(start, IMAGE_SIZE, 12):
                picture[23:25, x : x + 6] = (205, 205, 190)
        elif name == "grass":  # blades
            for x, y in rng.integers(0, 45, (30, 2)):
                picture[y : y + 3, x] = (60, 125, 40)
        elif name == "sky":  # a cloud
            x, y = rng.integers(4, 36, 2)
            picture[y : y + 4, x : x + 10] = picture[y : y + 4, x : x + 10] * 0.4 + 255 * 0.6
    return np.clip(pictures, 0, 255).astype(np.float32)


@cache
def _sprite(shape: str, texture: str, size: int, rotation: int):
    """Alpha masks [size, size] float32: filling, second tone (None if solid), and darker edge."""
    scale = 8
    big = size * scale
    mask = _draw_shape(shape, big)
    if rotation:
        mask = mask.rotate(rotation, Image.Resampling.BILINEAR)
    thin = mask.filter(ImageFilter.MinFilter(2 * (scale // 2) + 1))
    thin = thin.filter(ImageFilter.MinFilter(2 * (scale // 4) + 1))

    def small(picture):
        return np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255

    inner = np.asarray(thin) > 127
    y, x = np.mgrid[:big, :big] / scale
    pattern = {
        "solid": None,
        "striped": (y % 4) < 2,
        "dotted": ((x % 4 - 2) ** 2 + (y % 4 - 2) ** 2) < 1.7,
        "checkered": ((x // 3).astype(int) + (y // 3).astype(int)) % 2 == 0,
    }[texture]
    mark = None
    if pattern is not None:
        mark = small(Image.fromarray((inner & pattern).astype(np.uint8) * 255))
    whole = small(mask)
    return whole, mark, np.clip(whole - small(thin), 0, 1)


def _draw_shape(shape: str, n: int) -> Image.Image:
    picture = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(picture)

    def polygon(points: Iterable[tuple[float, float]], ink: int = 255):
        draw.polygon([(x * (n - 1), y * (n - 1)) for x, y in points], fill=ink)

    def disc(left, top, right, bottom, ink: int = 255):
        draw.ellipse([v * (n - 1) for v in (left, top, right, bottom)], fill=ink)

    if shape == "circle":
        disc(0.02, 0.02, 0.98, 0.98)
    elif shape == "square":
        polygon([(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)])
    elif shape == "triangle":
        polygon([(0.5, 0.02), (1, 0.96), (0, 0.96)])
    elif shape == "star":
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2, 0.21, 0.53)
        polygon(
            (0.5 + r * np.cos(a), 0.53 + r * np.sin(a)) for r, a in zip(radius, angles, strict=True)
        )
    elif shape == "heart":
        disc(0, 0.06, 0.54, 0.58)
        disc(0.46, 0.06, 1, 0.58)
        polygon([(0.04, 0.44), (0.96, 0.44), (0.5, 0.98)])
    elif shape == "cross":
        polygon([(0.34, 0), (0.66, 0), (0.66, 1), (0.34, 1)])
        polygon([(0, 0.34), (1, 0.34), (1, 0.66), (0, 0.66)])
    elif shape == "ring":
        disc(0, 0, 1, 1)
        disc(0.29, 0.29, 0.71, 0.71, ink=0)
    elif shape == "diamond":
        polygon([(0.5, 0), (0.86, 0.5), (0.5, 1), (0.14, 0.5)])
    elif shape == "moon":
        disc(0.02, 0.02, 0.98, 0.98)
        disc(0.34, -0.06, 1.12, 0.72, ink=0)
    elif shape == "arrow":
        polygon([(0, 0.36), (0.5, 0.36), (0.5, 0.64), (0, 0.64)])
        polygon([(0.46, 0.06), (1, 0.5), (0.46, 0.94)])
    elif shape == "house":
        polygon([(0.5, 0), (1, 0.46), (0, 0.46)])
        polygon([(0.12, 0.46), (0.88, 0.46), (0.88, 1), (0.12, 1)])
        polygon([(0.4, 0.66), (0.6, 0.66), (0.6, 1), (0.4, 1)], ink=0)
    elif shape == "drop":
        polygon([(0.5, 0), (0.83, 0.58), (0.17, 0.58)])
        disc(0.14, 0.36, 0.86, 1)
    else:
        raise ValueError(f"no shape called {shape!r}")
    return picture


# Strokes of handwritten digits, on a unit square: every variant is a list of polylines. An arc
# (cx, cy, rx, ry, from, to) in degrees, clockwise from the right, is written as a 6-tuple.
_STROKES: dict[int, tuple] = {
    0: (((0.5, 0.5, 0.3, 0.45, -90, 270),), ((0.5, 0.5, 0.22, 0.42, -60, 300),)),
    1: (
        (((0.5, 0.05), (0.5, 0.95)),),
        (((0.3, 0.28), (0.55, 0.05), (0.55, 0.95)),),
        (((0.3, 0.28), (0.52, 0.05), (0.52, 0.95)), ((0.28, 0.95), (0.76, 0.95))),
    ),
    2: (
        ((0.48, 0.28, 0.26, 0.23, -170, 40), ((0.68, 0.43), (0.2, 0.94), (0.8, 0.94))),
        ((0.48, 0.28, 0.24, 0.22, -150, 60), ((0.6, 0.47), (0.22, 0.9), (0.45, 0.84), (0.8, 0.93))),
    ),
    3: (
        ((0.46, 0.28, 0.26, 0.22, -150, 90), (0.46, 0.72, 0.3, 0.24, -90, 150)),
        (((0.24, 0.07), (0.74, 0.07), (0.46, 0.42)), (0.44, 0.68, 0.3, 0.27, -90, 150)),
    ),
    4: (
        (((0.62, 0.95), (0.62, 0.05), (0.16, 0.66), (0.84, 0.66)),),
        (((0.28, 0.05), (0.22, 0.52), (0.78, 0.52)), ((0.7, 0.08), (0.62, 0.95))),
        (((0.5, 0.05), (0.18, 0.6), (0.8, 0.6)), ((0.62, 0.4), (0.58, 0.95))),
    ),
    5: (
        (((0.76, 0.06), (0.32, 0.06), (0.28, 0.44)), (0.47, 0.66, 0.28, 0.28, -120, 140)),
        (((0.78, 0.06), (0.3, 0.06), (0.3, 0.45), (0.5, 0.42)), (0.5, 0.68, 0.26, 0.26, -90, 150)),
    ),
    6: (
        (((0.66, 0.05), (0.4, 0.3), (0.27, 0.62)), (0.5, 0.7, 0.24, 0.24, 0, 360)),
        ((0.6, 0.5, 0.36, 0.45, -110, -190), (0.5, 0.7, 0.25, 0.23, 0, 360)),
    ),
    7: (
        (((0.2, 0.07), (0.8, 0.07), (0.42, 0.95)),),
        (((0.2, 0.07), (0.8, 0.07), (0.45, 0.95)), ((0.34, 0.5), (0.76, 0.5))),
        (((0.2, 0.2), (0.22, 0.07), (0.78, 0.07), (0.5, 0.5), (0.44, 0.95)),),
    ),
    8: (
        ((0.5, 0.28, 0.22, 0.22, 0, 360), (0.5, 0.72, 0.27, 0.23, 0, 360)),
        ((0.5, 0.27, 0.2, 0.21, 0, 360), (0.5, 0.7, 0.22, 0.24, 0, 360)),
    ),
    9: (
        ((0.48, 0.3, 0.25, 0.24, 0, 360), ((0.73, 0.32), (0.7, 0.95))),
        ((0.48, 0.3, 0.24, 0.23, 0, 360), ((0.72, 0.3), (0.68, 0.7), (0.4, 0.95))),
        ((0.5, 0.3, 0.25, 0.24, 0, 360), (0.42, 0.5, 0.33, 0.44, -30, 120)),
    ),
}


def _render_digit(scene: Scene) -> np.ndarray:
    """A digit of Pillow's own font, of jittered strokes, or of such strokes seen in 8x8 pixels."""
    rng = np.random.default_rng([4, scene.noise])
    digit = scene.digit
    if digit.style == "font":
        mask = _draw_font_digit(digit.value, rng)
    else:
        mask = _draw_stroke_digit(digit.value, rng)
    if digit.style == "pixel":  # a coarse scan: counted in blocks, then enlarged
        box = mask.getbbox()
        coarse = mask.crop(box).resize((32, 32)) if rng.random() < 0.85 else mask.resize((32, 32))
        if rng.random() < 0.85 and box[2] - box[0] < 0.75 * (box[3] - box[1]):
            wide = max(12, round(32 * (box[2] - box[0]) / (box[3] - box[1])))
            narrow = mask.crop(box).resize((wide, 32))
            coarse = Image.new("L", (32, 32), 0)
            middle = (32 - wide) // 2
            shift = int(rng.integers(-3, 4))
            coarse.paste(narrow, (min(max(middle + shift, 0), 32 - wide), 0))
        coarse = coarse.resize((8, 8), Image.Resampling.BOX)
        way = Image.Resampling.BICUBIC if rng.random() < 0.8 else Image.Resampling.NEAREST
        mask = coarse.resize((IMAGE_SIZE, IMAGE_SIZE), way)
    else:
        mask = mask.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
        if rng.random() < 0.4:
            mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.4))))
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    look = rng.random()
    if look < 0.5:  # light on dark
        paper, ink = np.full(3, rng.uniform(0, 30)), rng.uniform(200, 255)
    elif look < 0.8:  # dark on light
        paper, ink = np.full(3, rng.uniform(220, 255)), rng.uniform(0, 60)
    else:  # in colour on one of the backgrounds
        paper = _backdrops(scene.background)[scene.noise % 8]
        light = paper.mean() < 128
        ink = rng.uniform(190, 255, 3) if light else rng.uniform(0, 80, 3)
    canvas = paper * (1 - alpha) + ink * alpha
    if rng.random() < 0.5:
        canvas = canvas + _grain()[scene.noise // 8 % 64]
    return np.clip(canvas, 0, 255).astype(np.uint8)


@cache
def _font(size: int):
    return ImageFont.load_default(size=size)


def _draw_font_digit(value: int, rng) -> Image.Image:
    scale = 3
    n = IMAGE_SIZE * scale
    picture = Image.new("L", (n, n), 0)
    size = int(rng.integers(22, 50)) * scale // 6 * 6
    where = (n / 2 + rng.uniform(-12, 12), n / 2 + rng.uniform(-12, 12))
    stroke = int(rng.integers(0, 5))
    ImageDraw.Draw(picture).text(
        where, str(value), fill=255, font=_font(size), anchor="mm", stroke_width=stroke
    )
    if rng.random() < 0.5:
        picture = picture.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR)
    return picture


def _draw_stroke_digit(value: int, rng) -> Image.Image:
    scale = 3
    n = IMAGE_SIZE * scale
    variants = _STROKES[value]
    strokes = variants[rng.integers(len(variants))]
    height = rng.uniform(0.55, 0.92)
    width = height * rng.uniform(0.6, 1.05)
    lean, turn = rng.uniform(-0.25, 0.25), np.deg2rad(rng.uniform(-10, 10))
    centre = 0.5 + rng.uniform(-0.05, 0.05, 2)
    thickness = rng.uniform(0.05, 0.13) * n * height
    picture = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(picture)
    for stroke in strokes:
        if isinstance(stroke[0], tuple):
            points = np.array(stroke, np.float64)
            points += rng.normal(0, 0.03, points.shape)
            points = _smooth(points)
        else:
            cx, cy, rx, ry, start, stop = stroke
            angles = np.deg2rad(
                np.linspace(start + rng.uniform(-12, 12), stop + rng.uniform(-12, 12), 24)
            )
            rx, ry = rx * rng.uniform(0.8, 1.2), ry * rng.uniform(0.88, 1.1)
            points = np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)
            points += rng.normal(0, 0.02, 2)
        x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
        x = x * width - lean * y * height
        y = y * height
        turned = np.stack(
            [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1
        )
        path = [(float(a), float(b)) for a, b in (turned + centre) * n]
        draw.line(path, fill=255, width=max(2, round(thickness)), joint="curve")
        radius = thickness / 2
        for a, b in (path[0], path[-1]):
            draw.ellipse((a - radius, b - radius, a + radius, b + radius), fill=255)
    return picture


def _smooth(points: np.ndarray) -> np.ndarray:
    """One round of Chaikin's corner cutting, ends kept."""
    if len(points) < 3:
        return points
    quarter = points[:-1] * 0.8 + points[1:] * 0.2
    three = points[:-1] * 0.2 + points[1:] * 0.8
    return np.concatenate([points[:1], np.stack([quarter, three], 1).reshape(-1, 2), points[-1:]])


# --------------------------------------------------------------------------- what is said


@dataclass(frozen=True)
class Mention:
    """A noun phrase. None is left unsaid. count None says "a" (at least one), a number exactly."""

    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    count: int | None = None
    place: str | None = None  # one of PLACE_PHRASES


@dataclass(frozen=True)
class Description:
    """A sentence's meaning. A relation (i, word, j) holds between mentions i and j = i + 1."""

    mentions: tuple[Mention, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None
    digit: int | None = None


@dataclass(frozen=True)
class Style:
    """The wording of a description: a caption and its foil share one."""

    prefix: str = ""
    wording: int = 0  # which of the two phrases of a relation
    background_first: bool = False


def sample_style(rng: np.random.Generator) -> Style:
    return Style(
        str(rng.choice((*PREFIXES[:4], "", "")) if rng.random() < 0.9 else rng.choice(PREFIXES)),
        int(rng.integers(2)),
        bool(rng.random() < 0.15),
    )


def holds(description: Description, scene: Scene) -> bool:
    """Whether the description is true of the scene.

    Mentions of a single thing must be found in distinct things that stand in all stated relations;
    an exact number counts every thing that fits its phrase, and "no" says that none does.
    """
    if description.background not in (None, scene.background):
        return False
    if description.digit is not None:
        return scene.digit is not None and scene.digit.value == description.digit
    fitting = [[t for t in scene.things if _fits(m, t)] for m in description.mentions]
    for mention, things in zip(description.mentions, fitting, strict=True):
        if mention.count is not None and len(things) != mention.count:
            return False
    single = [i for i, m in enumerate(description.mentions) if m.count in (None, 1)]

    def assign(position: int, chosen: dict[int, Thing]) -> bool:
        if position == len(single):
            return all(_related(chosen[i], word, chosen[j]) for i, word, j in description.relations)
        index = single[position]
        return any(
            assign(position + 1, chosen | {index: thing})
            for thing in fitting[index]
            if thing not in chosen.values()
        )

    return assign(0, {})


def _fits(mention: Mention, thing: Thing) -> bool:
    for name in ("shape", "colour", "texture", "size"):
        if getattr(mention, name) not in (None, getattr(thing, name)):
            return False
    if mention.place is None:
        return True
    if mention.place in CELLS:
        return cell_of(thing) == mention.place
    third = {"left side": thing.x, "right side": IMAGE_SIZE - thing.x - 1, "top side": thing.y}
    return third.get(mention.place, IMAGE_SIZE - thing.y - 1) < CELL


def _related(a: Thing, word: str, b: Thing) -> bool:
    if word in SPATIAL:
        return spatial_relation(a, b) == word
    difference = SIZES[a.size] - SIZES[b.size]
    return {"larger": difference > 0, "smaller": difference < 0, "same": difference == 0}[word]


def describe(
    scene: Scene,
    rng: np.random.Generator,
    *,
    colour: float = 0.92,
    texture: float = 0.5,
    size: float = 0.4,
    relation: float = 0.8,
    background: float = 0.5,
    place: float = 0.0,
) -> Description:
    """A true description; each keyword is the chance that that kind of fact is stated."""
    said = scene.background if rng.random() < background else None
    if scene.digit is not None:
        return Description(digit=scene.digit.value)
    groups: dict[Thing, list[Thing]] = {}
    for thing in scene.things:
        groups.setdefault(replace(thing, x=0, y=0), []).append(thing)
    say = rng.random((len(groups), 4)) < (colour, texture, size, place)
    mentions = []
    for (key, members), (say_colour, say_texture, say_size, say_place) in zip(
        groups.items(), say, strict=True
    ):
        mentions.append(
            Mention(
                key.shape,
                key.colour if say_colour else None,
                key.texture if say_texture else None,
                key.size if say_size else None,
                len(members) if len(members) > 1 else None,
                cell_of(members[0]) if say_place and len(members) == 1 else None,
            )
        )
    relations = []
    if relation and rng.random() < relation:
        firsts = [members[0] for members in groups.values()]
        if len(mentions) == 2 and rng.random() < 0.5 and mentions[0].count is mentions[1].count:
            firsts, mentions = firsts[::-1], mentions[::-1]
        for i in range(min(len(firsts) - 1, 1)):
            word = spatial_relation(firsts[i], firsts[i + 1])
            if word and mentions[i].count is None and mentions[i + 1].count is None:
                relations.append((i, word, i + 1))
    return Description(tuple(mentions), tuple(relations), said)


def verbalise(description: Description, style: Style = Style()) -> str:
    """Words a description. `parse` reads it back."""
    if description.digit is not None:
        return _join(style.prefix, f"the number {description.digit}")
    related = {i: word for i, word, _ in description.relations}
    words = []
    for i, mention in enumerate(description.mentions):
        words.append(noun_phrase(mention))
        if i in related:
            words.append(RELATIONS[related[i]][style.wording])
        elif i + 1 < len(description.mentions):
            words.append("and")
    background = BACKGROUND_PHRASES.get(description.background, "")
    body = " ".join(words)
    if style.background_first and background and words:
        return _join(background, style.prefix, body)
    return _join(style.prefix, body, background)


def _join(*parts: str) -> str:
    return " ".join(p for p in parts if p)


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def noun_phrase(mention: Mention, article: bool = True) -> str:
    """E.g. "a small striped red star in the top left", "three blue rings", "no white heart"."""
    noun = mention.shape or "object"
    many = mention.count is not None and mention.count > 1
    words = [mention.size, mention.texture, mention.colour, plural(noun) if many else noun]
    words = [w for w in words if w]
    if mention.count is not None:
        words.insert(0, NUMBERS[mention.count])
    elif article:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    if mention.place is not None:
        words.append(PLACE_PHRASES[mention.place])
    return " ".join(words)


def words_of(text: str) -> list[str]:
    """Lower-case words, punctuation dropped: what both `parse` and the tokenizer see."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


_PHRASES: tuple[tuple[str, str, str], ...] = tuple(
    sorted(
        [("background", p, b) for b, p in BACKGROUND_PHRASES.items()]
        + [("place", p, c) for c, p in PLACE_PHRASES.items()]
        + [("relation", p, r) for r, ps in RELATIONS.items() for p in ps]
        + [("prefix", p, p) for p in (*PREFIXES, "there are", "this is a photo of") if p],
        key=lambda entry: -len(entry[1].split()),
    )
)
_SINGULAR = {plural(s): s for s in (*SHAPES, "object")}


def parse(text: str) -> Description | None:
    """The meaning of a sentence of this world, or None if it is none (e.g. shuffled words)."""
    words = words_of(text)
    mentions: list[Mention] = []
    relations: list[tuple[int, str, int]] = []
    background, digit, pending, joined = None, None, None, True
    at = 0
    while at < len(words):
        phrase = next(
            (e for e in _PHRASES if words[at : at + len(e[1].split())] == e[1].split()), None
        )
        if phrase is not None:
            family, wording, value = phrase
            length = len(wording.split())
            if family == "background":
                if background is not None or pending or (mentions and joined):
                    return None
                if mentions and at + length < len(words):
                    return None
                background = value
            elif family == "prefix":
                if mentions or digit is not None:
                    return None
            elif family == "place":
                if not mentions or joined or mentions[-1].place is not None:
                    return None
                mentions[-1] = replace(mentions[-1], place=value)
            else:
                if not mentions or joined:
                    return None
                pending, joined = value, True
            at += length
        elif words[at] == "and":
            if not mentions or joined:
                return None
            joined = True
            at += 1
        elif words[at : at + 2] in (["the", "number"], ["the", "digit"]):
            if words[at + 2 : at + 3] not in ([str(d)] for d in range(10)) or mentions:
                return None
            digit = int(words[at + 2])
            at += 3
        else:
            found = _parse_noun_phrase(words, at)
            if found is None or not joined:
                return None
            mention, at = found
            mentions.append(mention)
            if pending:
                relations.append((len(mentions) - 2, pending, len(mentions) - 1))
            pending, joined = None, False
    if (mentions and joined) or (not mentions and digit is None and background is None):
        return None
    for i, _, j in relations:
        if mentions[i].count not in (None, 1) or mentions[j].count not in (None, 1):
            return None
    return Description(tuple(mentions), tuple(relations), background, digit)


def _parse_noun_phrase(words: list[str], at: int) -> tuple[Mention, int] | None:
    fields: dict[str, object] = {}
    if words[at] in ("a", "an"):
        following = words[at + 1 : at + 2]
        if not following or (words[at] == "an") != (following[0][0] in "aeiou"):
            return None
        at += 1
    elif words[at] in NUMBERS:
        fields["count"] = NUMBERS.index(words[at])
        at += 1
    families: list[tuple[str, Iterable[str]]] = [
        ("size", SIZES), ("texture", TEXTURES), ("colour", (*COLOURS, *GREY)),
    ]  # fmt: skip
    for name, family in families:
        if at < len(words) and words[at] in family:
            fields[name] = words[at]
            at += 1
    if at >= len(words):
        return None
    noun = words[at]
    many = fields.get("count", 0) > 1
    if many != (noun in _SINGULAR) or _SINGULAR.get(noun, noun) not in (*SHAPES, "object"):
        return None
    noun = _SINGULAR.get(noun, noun)
    if noun != "object":
        fields["shape"] = noun
    return Mention(**fields), at + 1


def is_true(text: str, scene: Scene) -> bool:
    """Whether the text is a sentence and true of the scene."""
    description = parse(text)
    return description is not None and holds(description, scene)


def caption(
    scene: Scene, rng: np.random.Generator, register: Register = "full", **detail: float
) -> str:
    """A true sentence ("full"), or the noisy words a web page might set beside it ("web")."""
    if register == "web":
        return _web_caption(scene, rng)
    return verbalise(describe(scene, rng, **detail), sample_style(rng))


def _web_caption(scene: Scene, rng) -> str:
    """A bag: things and attributes go missing, words of several things are mostly shuffled."""
    draws = iter(rng.random(64).tolist())
    words: list[str] = []
    if scene.digit is not None:
        words = [("number", "digit")[next(draws) < 0.5], str(scene.digit.value)]
        if next(draws) < 0.5:
            words = ["the", *words]
    groups: dict[Thing, int] = {}
    for thing in scene.things:
        key = replace(thing, x=0, y=0)
        groups[key] = groups.get(key, 0) + 1
    drop = 0.12 if len(groups) > 1 else 0.0
    for key, number in groups.items():
        if next(draws) < drop:
            continue
        attributes = [(key.size, 0.45), (key.texture, 0.5), (key.colour, 0.75)]
        words += [w for w, p in attributes if next(draws) < p]
        noun = "object" if next(draws) < 0.12 else key.shape
        words.append(plural(noun) if number > 1 else noun)
        if number > 1 and next(draws) < 0.85:
            words.append(NUMBERS[number])
        elif number == 1 and len(groups) == 1 and next(draws) < 0.3:
            words.append("one")
    if next(draws) < 0.45:
        words.append(scene.background)
    if (len(groups) > 1 and next(draws) < 0.85) or (len(groups) == 1 and next(draws) < 0.25):
        words = [words[i] for i in rng.permutation(len(words))]
    if next(draws) < 0.3:
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(NOISE_WORDS)))
    if next(draws) < 0.5:
        words = ["a", "photo", "of", *(["a"] if next(draws) < 0.5 else []), *words]
    return " ".join(words)


# --------------------------------------------------------------------------- foils

FOILS = (
    "swap_attribute", "swap_texture", "swap_size", "swap_object",
    "replace_object", "replace_attribute", "replace_texture", "replace_size",
    "replace_relation", "replace_count", "replace_background", "replace_place",
    "add_object", "add_attribute", "negate", "shuffle",
)  # fmt: skip


def foil(scene: Scene, kind: str, rng: np.random.Generator, domain: Domain = FULL) -> str | None:
    """A sentence close to a caption of the scene but false of it; None where `kind` has none."""
    pair = caption_and_foil(scene, kind, rng, domain)
    return None if pair is None else pair[1]


def caption_and_foil(
    scene: Scene,
    kind: str,
    rng: np.random.Generator,
    domain: Domain = FULL,
    style: Style | None = None,
    **detail: float,
) -> tuple[str, str] | None:
    """A true caption and a false one that differ by `kind` (see `FOILS`) and in nothing else.

    The caption states what the kind needs. False is decided by `holds`; a shuffle is false in that
    its words make no true sentence.
    """
    needs = {
        "swap_attribute": {"colour": 1}, "swap_texture": {"texture": 1}, "swap_size": {"size": 1},
        "swap_object": {"relation": 1}, "replace_attribute": {"colour": 1},
        "replace_texture": {"texture": 1}, "replace_size": {"size": 1},
        "replace_relation": {"relation": 1}, "replace_background": {"background": 1},
        "replace_place": {"place": 1}, "add_attribute": {"size": 0.1, "texture": 0.2},
    }.get(kind, {})  # fmt: skip
    style = style or sample_style(rng)
    for _ in range(8):
        description = describe(scene, rng, **(detail | needs))
        if kind == "shuffle":
            shuffled = _shuffle(verbalise(description, style), scene, rng)
            if shuffled is not None:
                return verbalise(description, style), shuffled
            continue
        changed = falsify(description, scene, kind, rng, domain)
        if changed is not None:
            return verbalise(description, style), verbalise(changed, style)
    return None


def falsify(
    description: Description,
    scene: Scene,
    kind: str,
    rng: np.random.Generator,
    domain: Domain = FULL,
) -> Description | None:
    """A true description changed by `kind` so that it is false of the scene, or None."""
    change = _CHANGES.get(kind)
    if change is None:
        raise ValueError(f"no foil called {kind!r}; there are: {', '.join(FOILS)}")
    for _ in range(6):
        changed = change(description, scene, rng, domain)
        if changed is not None and not holds(changed, scene):
            return changed
    return None


def _shuffle(text: str, scene: Scene, rng) -> str | None:
    words = text.split()
    for _ in range(6):
        shuffled = " ".join(words[i] for i in rng.permutation(len(words)))
        if not is_true(shuffled, scene) and shuffled != text:
            return shuffled
    return None


Change = Callable[[Description, Scene, np.random.Generator, Domain], Description | None]


def _swap(name: str) -> Change:
    def change(description, scene, rng, domain):
        mentions = list(description.mentions)
        pairs = [
            (i, j)
            for i in range(len(mentions))
            for j in range(i)
            if getattr(mentions[i], name) and getattr(mentions[j], name)
            if getattr(mentions[i], name) != getattr(mentions[j], name)
        ]
        if not pairs:
            return None
        i, j = pairs[rng.integers(len(pairs))]
        a, b = getattr(mentions[i], name), getattr(mentions[j], name)
        mentions[i] = replace(mentions[i], **{name: b})
        mentions[j] = replace(mentions[j], **{name: a})
        return replace(description, mentions=tuple(mentions))

    return change


def _swap_objects(description, scene, rng, domain):
    """Exchanges the two noun phrases around a relation: "A left of B" becomes "B left of A"."""
    if not description.relations:
        return None
    i, _, j = description.relations[0]
    mentions = list(description.mentions)
    mentions[i], mentions[j] = mentions[j], mentions[i]
    return replace(description, mentions=tuple(mentions))


def _replace(name: str) -> Change:
    def change(description, scene, rng, domain):
        candidates = [i for i, m in enumerate(description.mentions) if getattr(m, name) is not None]
        if not candidates:
            return None
        i = candidates[rng.integers(len(candidates))]
        family = {
            "shape": domain.shapes, "colour": domain.colours, "texture": domain.textures,
            "size": tuple(SIZES), "count": (1, 2, 3, 4), "place": CELLS,
        }[name]  # fmt: skip
        old = getattr(description.mentions[i], name)
        # Half of the time something that is in view, on another object: absence is no hint then.
        in_view = [v for v in {getattr(t, name, None) for t in scene.things} if v in family]
        in_view = sorted(v for v in in_view if v != old)
        options = in_view if in_view and rng.random() < 0.5 else [v for v in family if v != old]
        new = options[rng.integers(len(options))]
        mentions = list(description.mentions)
        mentions[i] = replace(mentions[i], **{name: new})
        if name == "count" and any(k in (i,) for r in description.relations for k in (r[0], r[2])):
            return None
        return replace(description, mentions=tuple(mentions))

    return change


def _replace_relation(description, scene, rng, domain):
    if not description.relations:
        return None
    i, word, j = description.relations[0]
    return replace(description, relations=((i, OPPOSITE[word], j),))


def _replace_background(description, scene, rng, domain):
    if description.background is None:
        return None
    others = [b for b in domain.backgrounds if b != description.background]
    return replace(description, background=str(rng.choice(others)))


def _add_object(description, scene, rng, domain):
    there = {t.shape for t in scene.things}
    shapes = [s for s in domain.shapes if s not in there]
    shape = shapes[rng.integers(len(shapes))]
    in_view = [t.colour for t in scene.things]
    options = in_view if in_view and rng.random() < 0.5 else domain.colours
    extra = Mention(shape, str(rng.choice(options)))
    return replace(description, mentions=(*description.mentions, extra))


def _add_attribute(description, scene, rng, domain):
    options = [
        (i, name)
        for i, m in enumerate(description.mentions)
        for name in ("colour", "texture", "size")
        if getattr(m, name) is None
    ]
    if not options:
        return None
    i, name = options[rng.integers(len(options))]
    family = {"colour": domain.colours, "texture": domain.textures, "size": tuple(SIZES)}[name]
    mentions = list(description.mentions)
    mentions[i] = replace(mentions[i], **{name: str(rng.choice(family))})
    return replace(description, mentions=tuple(mentions))


def _negate(description, scene, rng, domain):
    """ "a red star and a ring" becomes "no red star and a ring"."""
    loose = [
        i
        for i, m in enumerate(description.mentions)
        if m.count is None and not any(i in (a, b) for a, _, b in description.relations)
    ]
    mentions = list(description.mentions)
    if not loose:
        if not description.relations:
            return None
        loose = [0]
        description = replace(description, relations=())
    i = loose[rng.integers(len(loose))]
    mentions[i] = replace(mentions[i], count=0)
    return replace(description, mentions=tuple(mentions))


_CHANGES: dict[str, Change] = {
    "swap_attribute": _swap("colour"),
    "swap_texture": _swap("texture"),
    "swap_size": _swap("size"),
    "swap_object": _swap_objects,
    "replace_object": _replace("shape"),
    "replace_attribute": _replace("colour"),
    "replace_texture": _replace("texture"),
    "replace_size": _replace("size"),
    "replace_relation": _replace_relation,
    "replace_count": _replace("count"),
    "replace_background": _replace_background,
    "replace_place": _replace("place"),
    "add_object": _add_object,
    "add_attribute": _add_attribute,
    "negate": _negate,
}


def vocabulary() -> tuple[str, ...]:
    """Every word that a sentence or caption of this world can hold, sorted."""
    texts = [
        *SIZES, *TEXTURES, *COLOURS, *GREY, *SHAPES, *map(plural, SHAPES), "object", "objects",
        *NUMBERS, *BACKGROUND_PHRASES, *BACKGROUND_PHRASES.values(), *PLACE_PHRASES.values(),
        *(p for phrases in RELATIONS.values() for p in phrases), *PREFIXES, *NOISE_WORDS,
        "and", "a", "an", "the", "number", "digit", "there are", *map(str, range(10)),
    ]  # fmt: skip
    return tuple(sorted({word for text in texts for word in words_of(text)}))
