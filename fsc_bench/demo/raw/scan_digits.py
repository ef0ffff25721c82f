"""The first n of scikit-learn's 1,797 real handwritten digits (UCI optdigits test set), as IDX.

8x8 pixels of 0..16, here 0..255. They are real data: no model of the demo was trained on them.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from fsc_bench.demo.drawing import ImageFolder, write_idx


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 600) -> None:
    pixels, labels = digits()
    write_idx(raw, pixels[:n], labels[:n])


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: uint8 [1797, 8, 8] and their values [1797]."""
    # Its `load_digits` reads the same file, after seconds of imports.
    (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
    with gzip.open(Path(package) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    pixels = (table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return pixels, table[:, 64].astype(np.uint8)
