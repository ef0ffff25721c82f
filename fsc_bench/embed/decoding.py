"""Decoding in processes: pictures read, decoded and made small for a card that waits for them.

A part of each picture's way holds the interpreter, so threads stop gaining: on 16 cores beside an
H100 they brought about 700 photographs a second, whatever the card could take. Processes have an
interpreter each; they cost seconds to start, so short runs and runs on a CPU keep to threads. What
comes back is the uint8 half of the model's own transform (`models/shortcuts/pixels.py`), equal to
what a thread gives. Nothing here knows a store or a score.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor

from fsc_bench.data.images import Images
from fsc_bench.data.jpeg import open_rgb
from fsc_bench.data.pixels import cropped
from fsc_bench.embed.plan import Place
from fsc_bench.errors import DataError
from fsc_bench.models.shortcuts.pixels import Pixels, split
from fsc_bench.system.budget import OverBudget

WORTH = 8_000  # pictures; fewer are decoded by threads before processes have started
LEAST = 4  # cores, below which threads do as well
LOT = 16  # pictures of one message
IDLE = 60  # seconds after which a process that nobody asks ends by itself
Groups = Sequence[list[bytes]]  # image keys, those of one file together

# What a process works with, set once when it starts.
_images: Images | None = None
_pixels: Pixels | None = None


def pays(device: str, pixels: Any, pictures: int, cores: int) -> bool:
    """Whether processes bring so many pictures sooner than threads."""
    waits = device != "cpu" and isinstance(pixels, Pixels)
    return waits and pictures >= WORTH and cores >= LEAST


def decoded(
    groups: Groups,
    place: Mapping[bytes, Place],
    data: Path,
    preprocess: Callable[[Any], Any],
    cores: int,
    ahead: int,
) -> Iterator[tuple[list[bytes], list[np.ndarray | None]]]:
    """(keys of one file, uint8 [h, w, 3] of each; None where one is unreadable), in order.

    ahead: pictures that may wait for whoever takes them. Raises joblib's BrokenProcessPool where a
    process was killed; what was yielded before stays good.
    """
    # A process has no card and one thread: there are as many of them as cores.
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pool = ProcessPoolExecutor(
        cores, timeout=IDLE, initializer=begin, initargs=(data, preprocess), env=environment
    )
    window: list[tuple[list[list[bytes]], Any]] = []
    waiting, held = _lots(groups), 0
    try:
        while True:
            while held < ahead + 2 * cores * LOT and (lot := next(waiting, None)) is not None:
                held += sum(map(len, lot))
                window.append((lot, pool.submit(load, [[place[k] for k in keys] for keys in lot])))
            if not window:
                return
            lot, future = window.pop(0)
            yield from zip(lot, future.result(), strict=True)
            held -= sum(map(len, lot))
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _lots(groups: Groups) -> Iterator[list[list[bytes]]]:
    lot: list[list[bytes]] = []
    for keys in groups:
        lot.append(keys)
        if sum(map(len, lot)) >= LOT:
            yield lot
            lot = []
    if lot:
        yield lot


# ---------------------------------------------------------------- in a process


def begin(data: Path, preprocess: Callable[[Any], Any]) -> None:
    """Makes a process ready; once for each."""
    global _images, _pixels
    import torch

    torch.set_num_threads(1)
    os.environ.pop("LOCAL_WORLD_SIZE", None)
    _images, _pixels = Images(data), split(preprocess, "cpu")


def load(files: list[list[Place]]) -> list[list[np.ndarray | None]]:
    """The pictures of some files, several crops of one together; None for what is unreadable."""
    return [_load(places) for places in files]


def _load(places: list[Place]) -> list[np.ndarray | None]:
    task, ref = places[0]
    try:
        whole = open_rgb(_images.content(task, ref), "", _pixels.takes_arrays)
    except DataError:
        return [None] * len(places)
    return [_small(whole, where) for where in places]


def _small(whole: Any, where: Place) -> np.ndarray | None:
    try:
        return _pixels.load(cropped(whole, where[1].box))
    except OverBudget:
        return None
