"""Preprocess: a faster JPEG decoder where one is installed and gives Pillow's pixels, bit for bit.

`pip install simplejpeg` is all it takes; the extra `fast` has it. It must first decode a few
made-up photographs of every kind to what Pillow makes of them (both contain libjpeg-turbo, of
versions of their own); a file that it does not like goes to Pillow, whose word on what is readable
is the last.
"""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from fsc_bench.data.pixels import decode, is_ordinary


def open_rgb(
    content: bytes | np.ndarray, where: str = "", array: bool = False
) -> Image.Image | np.ndarray:
    """`decode`, faster for JPEGs where that is exact. Raises DataError as it does.

    array: what the faster decoder gives is wanted as uint8 [h, w, 4], the last a filler.
    """
    fast = decoder()
    if fast is not None and isinstance(content, bytes) and content[:3] == b"\xff\xd8\xff":
        pixels = fast(content, "RGBX" if array else "RGB")
        if pixels is not None:
            return pixels if array else Image.fromarray(pixels)
    return decode(content, where)


@cache
def decoder() -> Callable[[bytes, str], np.ndarray | None] | None:
    """(bytes, RGB or RGBX) -> uint8 [h, w, 3 or 4], or None where Pillow must judge; None if not
    installed.
    """
    try:
        from simplejpeg import decode_jpeg, decode_jpeg_header
    except ImportError:
        return None

    def simplejpeg(content: bytes, order: str) -> np.ndarray | None:
        try:
            height, width, colours, _ = decode_jpeg_header(content)
            if colours != "YCbCr" or not is_ordinary(content, width, height):
                return None  # gray, CMYK: Pillow has its own way with them, and limits
            return decode_jpeg(content, order)
        except (ValueError, RuntimeError, OSError):
            return None

    return simplejpeg if _is_exact(simplejpeg) else None


def _is_exact(fast: Callable[[bytes, str], np.ndarray | None]) -> bool:
    noise = np.random.default_rng(0)
    for place, size in enumerate([(48, 64), (33, 47), (100, 75), (17, 16), (240, 320)]):
        coarse = Image.fromarray(noise.integers(0, 256, (9, 12, 3), np.uint8))
        for settings in ({"subsampling": place % 3}, {"progressive": True}, {"quality": 30}):
            file = io.BytesIO()
            coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **settings)
            own = np.asarray(Image.open(file).convert("RGB"))
            for order in ("RGB", "RGBX"):
                pixels = fast(file.getvalue(), order)
                if pixels is None or not np.array_equal(pixels[:, :, :3], own):
                    return False
    return True
