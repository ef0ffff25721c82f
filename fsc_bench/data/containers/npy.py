"""NumPy arrays of pixels: one image a file, member `bgr` or `rgb` naming the channel order.

EqBen stores its YouCook2 frames so, in BGR (Wangt-CN/EqBen, example/eqben_eval_CLIP.py).
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from fsc_bench.data.border import read_array
from fsc_bench.system.regular import read_file

SUFFIXES = (".npy",)


class Container:
    def __init__(self, path: Path):
        self.pixels = read_array(read_file(path))
        if self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"holds {self.pixels.dtype} {self.pixels.shape}, not uint8 [h, w, 3]")

    def names(self) -> Collection[str]:
        return ("bgr", "rgb")

    def read(self, member: str) -> np.ndarray:
        order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}[member]
        return np.ascontiguousarray(self.pixels[:, :, order])
