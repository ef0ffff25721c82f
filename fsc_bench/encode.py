"""Encode: the plan's missing images and texts, each once, into the store. Nothing here knows a score."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from fsc_bench.data.images import Images
from fsc_bench.errors import DataError
from fsc_bench.models import DualEncoder
from fsc_bench.plan import Plan
from fsc_bench.store import Store

BATCH = 32  # the best size on a CPU lies between 8 and 32; devices grow it
THREADS = 4
Progress = Callable[[str, int, int], Any]


def encode(
    plan: Plan,
    model: DualEncoder,
    images: Images,
    store: Store,
    batch_size: int = BATCH,
    progress: Progress = lambda what, done, total: None,
) -> dict[bytes, str]:
    """Fills the store. Returns what could not be decoded: image key -> the line to show."""
    failures = _encode_images(plan, model, images, store, batch_size, progress)
    _encode_texts(plan, model, store, batch_size, progress)
    return failures


def _encode_images(
    plan: Plan,
    model: DualEncoder,
    images: Images,
    store: Store,
    batch_size: int,
    progress: Progress,
) -> dict[bytes, str]:
    keys = store.missing("image", list(plan.image_place))
    failures: dict[bytes, str] = {}

    def load(key: bytes) -> Any:
        return model.preprocess(images.open(*plan.image_place[key]))

    # Threads decode the next batches while the encoder works; the window bounds what they hold.
    with ThreadPoolExecutor(THREADS) as pool:
        window: list[tuple[bytes, Future]] = []
        waiting = iter(keys)
        done = 0
        while True:
            while len(window) < 3 * batch_size and (key := next(waiting, None)) is not None:
                window.append((key, pool.submit(load, key)))
            if not window:
                break
            batch, window = window[:batch_size], window[batch_size:]
            good, pixels = [], []
            for key, future in batch:
                try:
                    pixels.append(future.result())
                    good.append(key)
                except DataError as error:
                    failures[key] = str(error)
            if good:
                store.put("image", good, unit_rows(model.encode_images(stack(pixels)), len(good)))
            done += len(batch)
            progress("images", done, len(keys))
    return failures


def _encode_texts(
    plan: Plan, model: DualEncoder, store: Store, batch_size: int, progress: Progress
) -> None:
    key_text = {key: text for text, key in plan.text_key.items()}
    keys = store.missing("text", list(plan.text_key.values()))
    keys.sort(key=lambda key: len(key_text[key]))
    for start in range(0, len(keys), batch_size):
        part = keys[start : start + batch_size]
        vectors = unit_rows(model.encode_texts([key_text[key] for key in part]), len(part))
        store.put("text", part, vectors)
        progress("texts", start + len(part), len(keys))


def stack(pixels: Sequence[Any]) -> Any:
    """One batch of what `preprocess` gave: tensors or arrays."""
    if isinstance(pixels[0], np.ndarray):
        return np.stack(pixels)
    import torch

    return torch.stack(list(pixels))


def unit_rows(vectors: Any, n: int) -> np.ndarray:
    """What an encoder gave as float32 [n, d]; an adapter that breaks its promise is told so."""
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().float().cpu().numpy()
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != n:
        raise ValueError(f"the model gave embeddings of shape {rows.shape} for {n} items")
    lengths = np.linalg.norm(rows, axis=1)
    if not np.all(np.isnan(lengths) | (np.abs(lengths - 1) < 1e-3)):
        raise ValueError(f"the model's embeddings are not unit length: {lengths[:3]} ...")
    return rows
