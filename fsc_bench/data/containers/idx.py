"""IDX image files (MNIST): member = the image's number; pixels are uint8 [rows, columns]."""

import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fsc_bench.data.border import read_packed

SUFFIXES = ("-ubyte", "-ubyte.gz", ".idx3-ubyte")


class Container:
    def __init__(self, path: Path):
        try:
            data = read_packed(path)
            magic, count, rows, columns = struct.unpack(">4I", data[:16])
            if magic != 0x803:
                raise ValueError("not an IDX image file")
            pixels = np.frombuffer(data, np.uint8, offset=16)
            self.images = pixels.reshape(count, rows, columns)
        except struct.error as error:
            raise ValueError(str(error)) from None

    def names(self) -> Collection[str]:
        return [str(number) for number in range(len(self.images))]

    def read(self, member: str) -> np.ndarray:
        if not member.isdigit() or int(member) >= len(self.images):
            raise KeyError(member)
        return self.images[int(member)]
