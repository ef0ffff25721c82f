"""Pixels: from the content of one picture to what a model's transforms see, within the budget.

Pillow decodes; here stands what it may be given, and what becomes of its complaints.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, UnidentifiedImageError

from fsc_bench.data.border import SIDE, check_pixels, said_by_library
from fsc_bench.errors import DataError
from fsc_bench.system.budget import budget, check
from fsc_bench.system.regular import HEAD, stand_in

# What benchmarks come in; MPO is read as JPEG. Pillow knows more, EPS among it, which it would have
# Ghostscript execute.
FORMATS = ("JPEG", "PNG", "WEBP", "PPM", "BMP", "GIF", "TIFF", "JPEG2000", "TGA")
LARGE = 25_000_000  # pixels; larger pictures are decoded one at a time, whatever the threads
SCANS = 10  # times over a picture of the largest size: what a progressive JPEG may ask for
NOT_READABLE = "not a readable image"

_one_large = threading.Lock()


def decode(content: bytes | np.ndarray, where: str) -> Image.Image:
    """RGB pixels as CLIP's own transforms see them: `PIL.Image.convert("RGB")`, first frame.

    EXIF orientation is not applied: open_clip and clip_benchmark do not, and they agree with the
    published columns to single images (ELEVATER's own toolkit did turn images). Transparency is
    dropped, not blended, for the same reason. Only 16-bit gray differs: Pillow clips it to white,
    which no benchmark means, so it is scaled to 8 bits; 32-bit pixels have no agreed range and are
    refused.

    Raises DataError for what is no image of FORMATS, is cut short or is larger than the budget.
    """
    if isinstance(content, np.ndarray):
        with said_by_library(where, NOT_READABLE):
            check_pixels(content.shape[1], content.shape[0], "it has")
            return Image.fromarray(content).convert("RGB")
    if not content:
        raise DataError(f"{where}: the image file is empty.")
    try:
        with _pillow(where), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            check_pixels(*image.size, "it says that it has")
            check_scans(content, *image.size)
            large = image.width * image.height > LARGE
            with _one_large if large else nullcontext():
                return _rgb(image, where)
    except UnidentifiedImageError:
        if why := stand_in(content[:HEAD]):
            raise DataError(f"{where}: {NOT_READABLE}: {why}.") from None
        raise DataError(
            f"{where}: {NOT_READABLE}: cannot identify image file: it begins with "
            f"{content[:12]!r}, and {', '.join(FORMATS)} are read."
        ) from None


@contextmanager
def _pillow(where: str) -> Iterator[None]:
    """Pillow raises some fifteen kinds of errors over damaged files, and has limits of its own."""
    if budget().pixels > (Image.MAX_IMAGE_PIXELS or budget().pixels):
        Image.MAX_IMAGE_PIXELS = budget().pixels  # the user's word counts
    with warnings.catch_warnings():
        # Pillow warns of odd EXIF data and of transparent palettes; neither moves a pixel.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            yield
        except UnidentifiedImageError:
            raise
        except Image.DecompressionBombError as error:
            with said_by_library(where, NOT_READABLE):
                pixels = re.search(r"\((\d+) pixels\)", str(error))
                check("pixels", int(pixels[1]), f"it says that it has {int(pixels[1]):,} pixels")
            raise
        except Exception as error:
            with said_by_library(where, NOT_READABLE):
                raise error from None


def _rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"{where}: 32-bit pixels have no agreed range; save the image with 8 bits.")
    return image.convert("RGB")


def is_ordinary(content: bytes, width: int, height: int) -> bool:
    """Whether a picture is so far from every limit that any decoder may have it."""
    long = max(width, height) // max(1, min(width, height))
    scans = content.count(b"\xff\xda")
    return max(width * height, SIDE * SIDE * long) <= LARGE and scans <= SCANS


def check_scans(content: bytes, width: int, height: int) -> None:
    """Raises OverBudget for a JPEG that would be drawn over and over: each scan costs as much time
    as a picture, and a few bytes of the file.
    """
    if content[:2] == b"\xff\xd8" and (scans := content.count(b"\xff\xda")) > SCANS:
        drawn = scans * width * height // SCANS
        check("pixels", drawn, f"it draws {width:,} x {height:,} pixels in {scans:,} scans")


def cropped(
    image: Image.Image | np.ndarray, box: tuple[int, ...] | None
) -> Image.Image | np.ndarray:
    """What lies in the box (left, upper, right, lower; edges as `pixel_box` rounds them) of an
    image or of its pixels, uint8 [h, w, 3 or 4]. What lies outside the image is black.

    Raises OverBudget for a box that is larger than any picture may be.
    """
    if not box:
        return image
    left, upper, right, lower = box
    check_pixels(max(1, right - left), max(1, lower - upper), f"its box {list(box)} has")
    if isinstance(image, np.ndarray):
        if 0 <= left < right <= image.shape[1] and 0 <= upper < lower <= image.shape[0]:
            return image[upper:lower, left:right]
        image = Image.fromarray(image[:, :, :3])
    return image.crop(box)
