"""Border: where foreign bytes enter. Regular files are read and unpacked within the budget
(system/budget.py), and whatever a library raises over them becomes one line.

Nothing of ours runs inside `said_by_library`: our own faults keep their traceback.
"""

import gzip
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fsc_bench.errors import DataError, FscBenchError
from fsc_bench.system.budget import OverBudget, budget, check, raising
from fsc_bench.system.regular import read_file

HARMLESS = 256 << 20  # bytes; what unpacks to so little is no bomb, whatever its ratio
CHUNK = 1 << 20
# Their texts say nothing without their names.
CRYPTIC = (KeyError, IndexError, TypeError, AttributeError, AssertionError, struct.error)


@contextmanager
def said_by_library(where: str, what: str) -> Iterator[None]:
    """Turns what a library raises within into DataError: where, what, and its reason, whole."""
    try:
        yield
    except FscBenchError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {what}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """A library's reason as one line; its kind where it gives none."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()).strip()
    if not text or isinstance(error, CRYPTIC):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text


# ---------------------------------------------------------------- files


class Inside:
    """Whether paths stay in the folder they are below, symbolic links followed.

    A stranger's folder may hold a link to any file of this machine. The Hub's cache is made of
    links from a revision to its blobs: for one, the whole repository counts as the folder.
    """

    def __init__(self, roots: Iterable[Path | str]):
        self.roots: list[str] = []
        for root in roots:
            real = os.path.realpath(root)
            parent, _ = os.path.split(real)
            above = os.path.dirname(parent)
            self.roots.append(above if os.path.basename(parent) == "snapshots" else real)
        self.folders: dict[str, str] = {}  # folder -> where it really is; a million files have few

    def way_out(self, path: str) -> str:
        """Where a path really leads, if that is outside; empty if it stays inside."""
        folder, name = os.path.split(path)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        real = self.folders[folder]
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
        inside = any(real == root or real.startswith(f"{root}{os.sep}") for root in self.roots)
        return "" if inside or budget().outside else real


def says_way_out(target: str) -> str:
    """The end of the sentence that refuses a link."""
    return (
        f"is or lies behind a symbolic link that leads out of its folder, to {target}; link the "
        "folder that holds it, or allow it with `--budget outside=1`"
    )


def read_packed(path: Path | str) -> bytes:
    """The same, unpacked where it is called `.gz`. Raises ValueError for a damaged one too."""
    content = read_file(path)
    return gunzip(content) if os.fspath(path).casefold().endswith(".gz") else content


def gunzip(packed: bytes) -> bytes:
    """All that a gzip file holds. Raises ValueError for damage, OverBudget for a bomb."""
    allowed = allowed_growth(len(packed))
    pieces, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while piece := file.read(CHUNK):
                pieces.append(piece)
                size += len(piece)
                if size > allowed:
                    says = int.from_bytes(packed[-4:], "little")  # its size, up to 4 GB
                    check_growth(max(size, says), len(packed))
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"not a readable gzip file: {reason(error)}") from None
    return b"".join(pieces)


def allowed_growth(packed: int) -> int:
    """Bytes that a file or member of so many packed bytes may become in memory."""
    return min(budget().bytes, max(HARMLESS, budget().growth * packed))


def check_growth(size: int, packed: int) -> None:
    """Raises OverBudget for what unpacks to too much."""
    check("bytes", size, f"unpacks to {size:,} bytes")
    if size > max(HARMLESS, budget().growth * packed):
        ratio = -(-size // max(1, packed))
        raise OverBudget(
            f"unpacks from {packed:,} bytes to {size:,} or more, over {budget().growth:,} times as "
            f"many ({raising('growth', ratio)})"
        )


# ---------------------------------------------------------------- arrays


def read_array(content: bytes) -> np.ndarray:
    """A .npy file's array of plain numbers.

    Raises ValueError for damage and for a header that promises other bytes than there are: NumPy
    would set the memory aside before it looks.
    """
    file = io.BytesIO(content)
    try:
        shape, _, kind = _header(file)
        count = 1
        for length in shape:
            count *= length
        left = len(content) - file.tell()
        if kind.hasobject:
            raise ValueError("it holds Python objects, not numbers")
        if min((*shape, 0)) < 0 or count * kind.itemsize != left:
            raise ValueError(
                f"its header promises {kind} {shape}, {count * kind.itemsize:,} bytes, and "
                f"{left:,} follow"
            )
        return np.load(io.BytesIO(content), allow_pickle=False)
    except OverBudget:
        raise
    except Exception as error:
        raise ValueError(f"not a readable NumPy array: {reason(error)}") from None


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    try:
        return read.get(version, np.lib.format.read_array_header_2_0)(file)
    except Exception:  # NumPy parses it as Python's own notation, and quotes all of it
        raise ValueError("its header does not say shape and type") from None


# ---------------------------------------------------------------- pictures

# The smallest square that a model sees: a picture is resized until its short side has as many.
SIDE = 224


def check_pixels(width: int, height: int, what: str) -> None:
    """Raises OverBudget for a picture, or a crop of one, that no memory would hold.

    A thin one counts as it is after resizing: 1 x 65,000 pixels become 224 x 14,560,000.
    """
    check("pixels", width * height, f"{what} {width:,} x {height:,} pixels, {width * height:,}")
    short, long = sorted((width, height))
    if short < 1:
        raise ValueError(f"{what} {width:,} x {height:,} pixels: none at all")
    resized = SIDE * SIDE * long // short
    check("pixels", resized, f"{what} {width:,} x {height:,} pixels, {resized:,} once resized")
