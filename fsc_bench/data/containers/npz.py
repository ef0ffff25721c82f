"""NumPy's .npz files with arrays of images (Keras' mnist.npz): member `array/number`.

Pixels are uint8 [height, width] or [height, width, 3]. An array is unpacked once and kept.
"""

import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fsc_bench.data.border import read_array
from fsc_bench.data.containers.zip import Container as Zip

SUFFIXES = (".npz",)


class Container:
    def __init__(self, path: Path):
        self.arrays = Arrays(path)
        self.held: tuple[str, np.ndarray] = ("", np.empty(0))
        self.lock = threading.Lock()

    def names(self) -> Collection[str]:
        return [
            f"{name}/{n}" for name in self.arrays.names() for n in range(len(self._array(name)))
        ]

    def read(self, member: str) -> np.ndarray:
        name, _, number = member.rpartition("/")
        if name not in self.arrays.names() or not number.isdigit():
            raise KeyError(member)
        pixels = self._array(name)
        if (
            pixels.dtype != np.uint8
            or pixels.ndim not in (3, 4)
            or pixels.shape[3:] not in ((), (3,))
        ):
            raise ValueError(f"{name!r} holds {pixels.dtype} {pixels.shape}, no images of 8 bits")
        if int(number) >= len(pixels):
            raise KeyError(member)
        return np.ascontiguousarray(pixels[int(number)])

    def _array(self, name: str) -> np.ndarray:
        with self.lock:
            if self.held[0] != name:
                self.held = (name, self.arrays.read(name))
            return self.held[1]


class Arrays:
    """The arrays of one file, by name. Raises ValueError or OSError for a damaged one."""

    def __init__(self, path: Path):
        self.zip = Zip(path)

    def names(self) -> list[str]:
        return [name.removesuffix(".npy") for name in self.zip.names() if name.endswith(".npy")]

    def read(self, name: str) -> np.ndarray:
        """One array, of at least one dimension."""
        return np.atleast_1d(read_array(self.zip.read(f"{name}.npy")))
