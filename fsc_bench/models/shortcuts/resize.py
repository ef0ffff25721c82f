"""A transform's resizing and centre crop, compiled by numba and equal to Pillow's, byte for byte.

Pillow resamples 8-bit images in two passes of 22-bit fixed-point weights, each rounded to bytes
(its Resample.c). So does this, for the window alone that the centre crop keeps, and as loops that
a compiler makes into vector instructions. `build` compiles, tries the result against the
transform's own steps, and gives None if numba is missing or one byte differs. No family.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torchvision import transforms

BITS = 22
HALF = 1 << (BITS - 1)
ROWS = 16  # of an image, resampled side by side: 64 bytes, a whole vector register
FILTERS = {
    transforms.InterpolationMode.BICUBIC: "bicubic",
    transforms.InterpolationMode.BILINEAR: "bilinear",
}
# (width, height) of what is tried, in sides of the result: shrinking, tall enough for the other
# order of the passes, equal, enlarging. Each also with one pixel more, for half-pixel offsets.
TRIALS = [
    (2.9, 2.1), (2.1, 2.9), (1.3, 4.5), (4.5, 1.3), (1.1, 2.3), (2.3, 1.1), (1, 1), (1, 2), (2, 1),
    (0.4, 0.3), (0.1, 0.6), (3.1, 0.2),
]  # fmt: skip


def build(steps: Sequence[Any]) -> "Resize | None":
    """`steps` (up to, not with, ToTensor) compiled, or None if they cannot be had exactly."""
    plan = _recognised(steps)
    if plan is None:
        return None
    try:
        kernels = _compiled()
    except Exception:  # an installed numba can be broken in many ways; Pillow does the same work
        return None
    head = transforms.Compose(list(steps))
    # Pillow 13 does; 11.3 went across first whatever the shape.
    for tall_first in (True, False):
        resize = Resize(*plan, tall_first, *kernels)
        if _is_exact(resize, head):
            return resize
    return None


class Resize:
    """uint8 [h, w, 4], the last a filler, -> uint8 [height, width, 3]; in any thread.

    short: the new length of the shorter side, or (height, width); crop: (height, width).
    """

    def __init__(
        self,
        short: int | tuple[int, int],
        crop: tuple[int, int],
        kind: str,
        tall_first: bool,
        horizontal: Callable,
        vertical: Callable,
    ):
        self.short, self.crop, self.kind, self.tall_first = short, crop, kind, tall_first
        self.horizontal, self.vertical = horizontal, vertical

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """None for the rare size of which a weight lies too near the edge between two integers."""
        height, width = image.shape[:2]
        new_height, new_width = self._size(height, width)
        across = weights(width, new_width, self.crop[1], self.kind)
        down = weights(height, new_height, self.crop[0], self.kind)
        if across is None or down is None:
            return None
        image = np.ascontiguousarray(image)
        # Resample.c, ImagingResampleInner: tall images shrink to fewer rows first.
        shorter = height - new_height
        if self.tall_first and shorter > 0 and shorter > 2 * (width - new_width):
            image = self._down(image[:, across.begin : across.end], down, 0)
            image = self._across(image, across, 0)
        else:
            image = self._across(image[down.begin : down.end], across, across.begin)
            image = self._down(image, down, down.begin)
        pixels = np.empty((*self.crop, 3), np.uint8)
        for channel in range(3):
            pixels[:, :, channel] = image[:, :, channel]
        return pixels

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """As torchvision has it."""
        if not isinstance(self.short, int):
            return self.short
        if width <= height:
            return int(self.short * height / width), self.short
        return self.short, int(self.short * width / height)

    def _across(self, image: np.ndarray, taps: "Taps", skip: int) -> np.ndarray:
        """skip: columns on the left that are there and not used; the others are, in order."""
        out = np.empty((len(image), len(taps.first), 4), np.uint8)
        strip = np.zeros((taps.end - taps.begin, 4 * ROWS), np.uint8)
        sums, done = np.empty(4 * ROWS, np.int32), np.empty(4 * ROWS, np.uint8)
        self.horizontal(
            _words(image), skip, _words(out), strip, strip.view(np.uint32), sums, done,
            done.view(np.uint32), taps.first - taps.begin, taps.count, taps.weight,
        )  # fmt: skip
        return out

    def _down(self, image: np.ndarray, taps: "Taps", cut: int) -> np.ndarray:
        """cut: rows at the top that are no longer there."""
        image = np.ascontiguousarray(image).reshape(len(image), -1)
        out = np.empty((len(taps.first), image.shape[1]), np.uint8)
        sums = np.empty(image.shape[1], np.int32)
        self.vertical(image, out, sums, taps.first - cut, taps.count, taps.weight)
        return out.reshape(len(out), -1, 4)


def rgbx(image: Image.Image) -> np.ndarray:
    """uint8 [h, w, 4] of an RGB image, as Pillow itself stores it."""
    content = image.tobytes("raw", "RGBX")
    return np.frombuffer(content, np.uint8).reshape(image.height, image.width, 4)


class Taps(NamedTuple):
    """Of each kept output place: the first input place, how many there are, and their weights."""

    first: np.ndarray  # [out]
    count: np.ndarray  # [out]
    weight: np.ndarray  # int32 [out, most], 0 beyond `count`
    begin: int  # of all the input places that are used
    end: int


@lru_cache(1024)
def weights(size: int, new: int, keep: int, kind: str) -> Taps | None:
    """The middle `keep` of `new` places made from `size`: Resample.c, precompute_coeffs."""
    scale = size / new
    wider = max(scale, 1.0)
    support = (2.0 if kind == "bicubic" else 1.0) * wider
    offset = round((new - keep) / 2.0)  # torchvision's CenterCrop
    centre = (np.arange(offset, offset + keep) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    places = np.arange(count.max())
    x = np.abs((places + first[:, None] - centre[:, None] + 0.5) * (1.0 / wider))
    near = (1.5 * x - 2.5) * x * x + 1 if kind == "bicubic" else 1.0 - x
    far = (((x - 5) * x + 8) * x - 4) * -0.5 if kind == "bicubic" else 0.0
    weight = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    weight[places >= count[:, None]] = 0.0
    weight *= (1 << BITS) / weight.sum(axis=1, keepdims=True)
    fraction = np.abs(weight) % 1.0
    # A C compiler may round the last bit of a double otherwise; never a weight this far from 0.5.
    if np.any(np.abs(fraction - 0.5) < 1e-7):
        return None
    whole = np.rint(weight).astype(np.int32)
    return Taps(first, count, whole, int(first.min()), int((first + count).max()))


def _words(image: np.ndarray) -> np.ndarray:
    """uint32 [h, w] of uint8 [h, w, 4], in place."""
    return image.view(np.uint32)[:, :, 0]


def _horizontal(image, skip, out, strip, strip_words, sums, done, done_words, first, count, weight):
    """Rows of words, 16 at a time: turned into columns, all their bytes are summed side by side."""
    for top in range(0, len(image), ROWS):
        rows = min(ROWS, len(image) - top)
        for column in range(len(strip)):
            for row in range(rows):
                strip_words[column, row] = image[top + row, skip + column]
        for place in range(len(first)):
            for j in range(4 * ROWS):
                sums[j] = HALF
            for tap in range(count[place]):
                factor = weight[place, tap]
                line = strip[first[place] + tap]
                for j in range(4 * ROWS):
                    sums[j] += np.int32(np.int32(line[j]) * factor)
            for j in range(4 * ROWS):
                done[j] = min(max(sums[j] >> BITS, 0), 255)
            for row in range(rows):
                out[top + row, place] = done_words[row]


def _vertical(image, out, sums, first, count, weight):
    """Rows of bytes: each output row is a sum of whole input rows."""
    length = image.shape[1]
    for place in range(len(first)):
        for j in range(length):
            sums[j] = HALF
        for tap in range(count[place]):
            factor = weight[place, tap]
            line = image[first[place] + tap]
            for j in range(length):
                sums[j] += np.int32(np.int32(line[j]) * factor)
        for j in range(length):
            out[place, j] = min(max(sums[j] >> BITS, 0), 255)


@cache
def _compiled() -> tuple[Callable, Callable]:
    """The two passes as machine code, about 2 seconds' work.

    Not kept on disk: of those seconds a cache would save one half, and would need a folder.
    """
    from numba import int32, int64, njit, types, uint8, uint32, void

    def given(kind: Any) -> Any:
        return types.Array(kind, 2, "C", readonly=True)

    taps = (int64[::1], int64[::1], int32[:, ::1])
    strip = (uint8[:, ::1], uint32[:, ::1], int32[::1], uint8[::1], uint32[::1])
    horizontal = void(given(uint32), int64, uint32[:, ::1], *strip, *taps)
    vertical = void(given(uint8), uint8[:, ::1], int32[::1], *taps)
    return njit(horizontal, nogil=True)(_horizontal), njit(vertical, nogil=True)(_vertical)


def _recognised(steps: Sequence[Any]) -> tuple | None:
    """(short, crop, kind) of open_clip's and torchvision's own: Resize, CenterCrop, to RGB."""
    steps = list(steps)
    if steps and _name(steps[-1]) in ("MaybeConvertMode", "_convert_to_rgb"):
        steps.pop()
    if not steps or type(steps[0]) is not transforms.Resize or steps[0].max_size is not None:
        return None
    kind = FILTERS.get(steps[0].interpolation)
    size = steps[0].size
    if not isinstance(size, int):
        size = tuple(size)
        size = size[0] if len(size) == 1 else size
    crop = (size, size) if isinstance(size, int) else size
    smallest = crop
    if len(steps) == 2 and type(steps[1]) is transforms.CenterCrop:
        crop = tuple(steps[1].size)
    elif len(steps) > 1 or isinstance(size, int):
        return None
    if kind is None or crop[0] > smallest[0] or crop[1] > smallest[1]:
        return None
    return size, crop, kind


def _name(step: Any) -> str:
    return getattr(step, "__name__", type(step).__name__)


def _is_exact(resize: Resize, head: Callable) -> bool:
    noise = np.random.default_rng(0)
    for more_across, more_down in ((0, 0), (0, 1), (1, 0)):
        for across, down in TRIALS:
            width = max(1, int(across * resize.crop[1]) + more_across)
            height = max(1, int(down * resize.crop[0]) + more_down)
            image = Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8))
            ours = resize(rgbx(image))
            if ours is not None and not np.array_equal(ours, np.asarray(head(image))):
                return False
    return True
