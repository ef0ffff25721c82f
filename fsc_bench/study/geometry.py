"""Geometry: where a model's patches lie in a picture, and how much of each a box covers.

Boxes are [left, top, right, bottom] in pixels, edges not centres: a picture of 640 x 480 is
[0, 0, 640, 480]. Areas are exact: nothing is rounded to patches or pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.errors import UsageError

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """How a picture becomes a model's input: input = picture * scale - offset, along each axis."""

    scale: tuple[float, float]  # x, y
    offset: tuple[float, float]  # input pixels
    size: tuple[int, int]  # of the input: width, height

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [n, 4] of the picture in pixels of the input, cut at its edges."""
        scale, offset = np.array(self.scale * 2), np.array(self.offset * 2)
        moved = np.asarray(boxes, float).reshape(-1, 4) * scale - offset
        return np.clip(moved, 0, np.array(self.size * 2, float))

    def seen(self, width: int, height: int) -> Box:
        """The part of a picture of this size that the model sees."""
        corners = [
            (place + shift) / scale
            for place, shift, scale in zip(
                (0, 0, *self.size), self.offset * 2, self.scale * 2, strict=True
            )
        ]
        limits = (width, height, width, height)
        left, top, right, bottom = (min(max(c, 0), m) for c, m in zip(corners, limits, strict=True))
        return left, top, right, bottom


def frame_of(preprocess: Any, width: int, height: int, model: str) -> Frame:
    """The frame that a model's image transform gives a picture of this size.

    Reads the steps of torchvision's and open_clip's transforms: Resize (of the short side, or of
    both), ResizeKeepRatio, CenterCrop and CenterCropOrPad. Raises UsageError where the steps do not
    add up to what the transform really gives.
    """
    sides, offset = [width, height], (0.0, 0.0)
    size = None
    for step in getattr(preprocess, "transforms", ()):
        kind = type(step).__name__
        if kind == "Resize":
            sides = _resized(sides, step.size)
        elif kind == "ResizeKeepRatio":
            rows, columns = step.size
            ratios = [sides[1] / rows, sides[0] / columns]
            ratio = max(ratios) * step.longest + min(ratios) * (1 - step.longest)
            sides = [round(side / ratio) for side in sides]
        elif kind in ("CenterCrop", "CenterCropOrPad"):
            size = _both(step.size)[::-1]
            offset = (_cut(sides[0], size[0]), _cut(sides[1], size[1]))
            break
    frame = Frame((sides[0] / width, sides[1] / height), offset, size or (sides[0], sides[1]))
    _check(frame, preprocess, (width, height), model)
    return frame


def _resized(sides: list[int], wanted: int | Sequence[int]) -> list[int]:
    if not isinstance(wanted, int) and len(wanted) == 2:
        return [wanted[1], wanted[0]]
    short = wanted if isinstance(wanted, int) else wanted[0]
    # torchvision: the long side is cut to a whole number, not rounded.
    return [int(short * side / min(sides)) for side in sides]


def _both(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _cut(side: int, target: int) -> float:
    """What a centre crop cuts off before the first pixel; below 0 what it pads."""
    return float(round((side - target) / 2)) if side >= target else -float((target - side) // 2)


def _check(frame: Frame, preprocess: Any, size: tuple[int, int], model: str) -> None:
    found = tuple(preprocess(Image.new("RGB", size)).shape[-2:])
    if found != frame.size[::-1]:
        raise UsageError(
            f"model {model!r}: its image transform gives {found[1]} x {found[0]} pixels, and its "
            f"steps add up to {frame.size[0]} x {frame.size[1]}: where its patches lie in a "
            "picture cannot be told."
        )


@dataclass(frozen=True)
class Grid:
    """The patches of a model's input: rows and columns of them, from the top left, without gaps.

    They may leave a strip at the right and the bottom that is no patch's.
    """

    rows: int
    columns: int
    patch: tuple[float, float]  # width and height in input pixels

    def covered(self, boxes: np.ndarray) -> np.ndarray:
        """The share of each patch that the union of boxes [n, 4] (input pixels) covers,
        [rows, columns].
        """
        (x, column), (y, row) = (
            _cells(boxes[:, axis::2].ravel(), count, side)
            for axis, count, side in (
                (0, self.columns, self.patch[0]),
                (1, self.rows, self.patch[1]),
            )
        )
        middle_x, middle_y = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
        inside = np.zeros((len(middle_y), len(middle_x)), bool)
        for left, top, right, bottom in boxes:
            across = (left < middle_x) & (middle_x < right)
            down = (top < middle_y) & (middle_y < bottom)
            inside |= down[:, None] & across
        areas = np.where(inside, np.diff(y)[:, None] * np.diff(x), 0.0)
        found = np.zeros((self.rows, self.columns))
        np.add.at(found, (row[:, None], column), areas)
        return np.clip(found / (self.patch[0] * self.patch[1]), 0, 1)


def _cells(edges: np.ndarray, count: int, side: float) -> tuple[np.ndarray, np.ndarray]:
    """An axis cut at the patches' and the boxes' edges: (edges [n + 1], the patch of each cell)."""
    own = np.arange(count + 1) * side
    every = np.unique(np.concatenate([own, np.clip(edges, 0, own[-1])]))
    middle = (every[1:] + every[:-1]) / 2
    return every, np.minimum((middle / side).astype(int), count - 1)


def grid_of(visual: Any, patches: int, size: tuple[int, int], model: str) -> Grid:
    """How an image tower's `patches` tokens lie in an input of this size (width, height).

    Raises UsageError where they are no rectangle.
    """
    place = getattr(getattr(visual, "trunk", None), "patch_embed", None) or visual
    side = getattr(place, "patch_size", None)
    if isinstance(side, tuple) and len(side) == 2:
        rows, columns = (int(s // p) for s, p in zip(size[::-1], side, strict=True))
        patch = (float(side[1]), float(side[0]))
    else:  # a ResNet's cells share the picture among them
        rows = columns = isqrt(patches)
        patch = (size[0] / max(columns, 1), size[1] / max(rows, 1))
    if rows * columns != patches:
        raise UsageError(
            f"model {model!r}: its {patches} image tokens do not lie in {rows} rows of {columns} "
            f"over {size[0]} x {size[1]} pixels: where each looks cannot be told."
        )
    return Grid(rows, columns, patch)
