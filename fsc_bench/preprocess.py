"""Preprocess: a faster JPEG decoder where one is installed and gives Pillow's pixels, bit for bit.

`pip install simplejpeg` is all it takes. It must first decode a few made-up photographs of every
kind to what Pillow makes of them (both contain libjpeg-turbo, of versions of their own); a file
that it does not like goes to Pillow, whose word on what is readable is the last.
"""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from fsc_bench.data.images import decode


def open_rgb(content: bytes | np.ndarray, where: str = "") -> Image.Image:
    """`decode`, faster for JPEGs where that is exact. Raises DataError as it does."""
    fast = decoder()
    if fast is not None and isinstance(content, bytes) and content[:3] == b"\xff\xd8\xff":
        pixels = fast(content)
        if pixels is not None:
            return Image.fromarray(pixels)
    return decode(content, where)


@cache
def decoder() -> Callable[[bytes], np.ndarray | None] | None:
    """bytes -> uint8 [h, w, 3], or None where Pillow must judge; None if not installed."""
    try:
        from simplejpeg import decode_jpeg, decode_jpeg_header
    except ImportError:
        return None

    def simplejpeg(content: bytes) -> np.ndarray | None:
        try:
            if decode_jpeg_header(content)[2] != "YCbCr":
                return None  # gray, CMYK: Pillow has its own way with them
            return decode_jpeg(content, "RGB")
        except (ValueError, RuntimeError, OSError):
            return None

    return simplejpeg if _is_exact(simplejpeg) else None


def _is_exact(fast: Callable[[bytes], np.ndarray | None]) -> bool:
    noise = np.random.default_rng(0)
    for place, size in enumerate([(48, 64), (33, 47), (100, 75), (17, 16), (240, 320)]):
        coarse = Image.fromarray(noise.integers(0, 256, (9, 12, 3), np.uint8))
        for settings in ({"subsampling": place % 3}, {"progressive": True}, {"quality": 30}):
            file = io.BytesIO()
            coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **settings)
            pixels = fast(file.getvalue())
            own = np.asarray(Image.open(file).convert("RGB"))
            if pixels is None or not np.array_equal(pixels, own):
                return False
    return True
