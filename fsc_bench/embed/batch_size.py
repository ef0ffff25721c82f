"""Batch size: how many images a card encodes at once, found by trying. Not what memory then holds:
encode.py shrinks a batch that does not fit.

A card's last bits may depend on the batch, so what was found is kept beside the vectors that were
made with it, a file a card; a run that goes on, and every process of one, works as the first did.
"""

import json
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsc_bench.system.memory import out_of_memory

SIZES = (64, 128, 256, 512, 1024)
GAIN = 1.05  # a larger batch must be faster than the best so far by this much
TRIALS = 3


def found_batch(folder: Path, card: str, trial: Callable[[int], Any]) -> int:
    """Images at once, as kept in `folder` for this card, or after a few seconds of trying.

    trial: encodes so many images and waits for them.
    """
    file = folder / f"batch-{re.sub('[^A-Za-z0-9]+', '-', card).strip('-')}.json"
    if (size := _kept(file)) is not None:
        return size
    best, speed = SIZES[0], 0.0
    for size in SIZES:
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
    partial = folder / f".{uuid.uuid4().hex[:8]}"
    partial.write_text(json.dumps({"card": card, "images": best}) + "\n")
    try:
        os.link(partial, file)  # the first of several processes decides
    except FileExistsError:
        best = _kept(file) or best
    except OSError:  # a file system without links
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return best


def _kept(file: Path) -> int | None:
    try:
        size = json.loads(file.read_text())["images"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def _seconds(trial: Callable[[int], Any], size: int) -> float:
    begun = time.perf_counter()
    trial(size)
    return time.perf_counter() - begun
