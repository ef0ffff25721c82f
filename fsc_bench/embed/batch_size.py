"""Batch size: how many images, and tokens of texts, a card encodes at once, found by trying. Not
what memory then holds: encode.py shrinks a batch that does not fit.

A card's last bits may depend on the batch, so what was found is kept beside the vectors that were
made with it, a file a card; a run that goes on, and every process of one, works as the first did.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsc_bench.system.files import locked, write_json
from fsc_bench.system.memory import out_of_memory

SIZES = {
    "images": (64, 128, 256, 512, 1024),
    "tokens": (2048, 4096, 8192, 16384, 32768, 65536),
}
GAIN = 1.05  # a larger batch must be faster than the best so far by this much
TRIALS = 3


def found_batch(folder: Path, card: str, trial: Callable[[int], Any], what: str = "images") -> int:
    """ "images" or "tokens" at once, as kept in `folder` for this card, or after a few seconds of
    trying.

    trial: encodes so many and waits for them.
    """
    file = folder / f"batch-{re.sub('[^A-Za-z0-9]+', '-', card).strip('-')}.json"
    if (size := _size(_kept(file), what)) is not None:
        return size
    best = _fastest(trial, SIZES[what])
    with locked(file):
        kept = _kept(file)
        if (size := _size(kept, what)) is not None:
            return size  # the first of several processes decides
        write_json(file, {**kept, "card": card, what: best})
    return best


def _fastest(trial: Callable[[int], Any], sizes: tuple[int, ...]) -> int:
    """The smallest size that no larger one beats clearly."""
    best, speed = sizes[0], 0.0
    for size in sizes:
        try:
            trial(size)  # the first call of a shape chooses kernels
            seconds = min(_seconds(trial, size) for _ in range(TRIALS))
        except Exception as error:
            if not out_of_memory(error):
                raise
            break
        if size / seconds < GAIN * speed:
            break
        best, speed = size, size / seconds
    return best


def _kept(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _size(facts: dict[str, Any], what: str) -> int | None:
    size = facts.get(what)
    return size if isinstance(size, int) and size > 0 else None


def _seconds(trial: Callable[[int], Any], size: int) -> float:
    begun = time.perf_counter()
    trial(size)
    return time.perf_counter() - begun
