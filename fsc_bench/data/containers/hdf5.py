"""HDF5 files with images in one array (PatchCamelyon): member = the image's number.

Pixels are uint8 [height, width, 3]. Needs h5py: `pip install 'fsc-bench[h5]'`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.data.border import reason
from fsc_bench.system.budget import check
from fsc_bench.system.regular import check_regular

SUFFIXES = (".h5", ".hdf5")
IMAGES = "x"  # what PatchCamelyon calls the array


class Container:
    def __init__(self, path: Path):
        self.images = open_array(path, IMAGES)
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            held = f"{self.images.dtype} {self.images.shape}"
            raise ValueError(f"{IMAGES!r} holds {held}, not uint8 [n, height, width, 3]")
        size = int(np.prod(self.images.shape[1:]))
        check("bytes", size, f"says that an image has {size:,} bytes")

    def names(self) -> Collection[str]:
        return [str(number) for number in range(len(self.images))]

    def read(self, member: str) -> np.ndarray:
        if not member.isdigit() or int(member) >= len(self.images):
            raise KeyError(member)
        with _said():
            return np.ascontiguousarray(self.images[int(member)])


def open_array(path: Path, name: str) -> Any:
    """An array of an HDF5 file, not read yet. Raises ValueError, also where h5py is missing.

    What leads to another file is refused: a stranger's file could name any of this machine.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("needs h5py: `pip install 'fsc-bench[h5]'`") from None
    check_regular(path)
    with _said():
        file = h5py.File(path, "r")
        link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118
        if link is None:
            raise ValueError(f"has no array {name!r}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        found = file[name]
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise ValueError(f"{name!r} is no array of this file")
        return found


def read_array_of(path: Path, name: str) -> np.ndarray:
    """All of a small array. Raises ValueError."""
    found = open_array(path, name)
    size = int(np.prod(found.shape, dtype=object)) * found.dtype.itemsize
    check("bytes", size, f"its {name!r} has {size:,} bytes")
    with _said():
        return np.asarray(found[()])


@contextmanager
def _said() -> Iterator[None]:
    """What h5py raises over a damaged file is ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"not a readable HDF5 file: {reason(error)}") from None
