"""Examination: what a model is, and whether it keeps the protocol (model.py), tried on made-up
pictures and texts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.errors import FscBenchError, one_line
from fsc_bench.model import DualEncoder, PairScorer, as_rows, is_pair_scorer, stacked

UNIT = 1e-3  # how far from 1 a vector's length may be: float16 rounds
ALIKE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}  # between two batch sizes, of a unit vector
SIZES = ((320, 240), (224, 224), (64, 200), (31, 17), (500, 500))  # pixels
TEXTS = (
    "a red square on a table.",
    "dog",
    "a blue dog and two cats, one of them on a sofa beside a window.",
    "",
    "a photo of the number five.",
)


@dataclass(frozen=True)
class Check:
    """One demand of the protocol: whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Examination:
    """facts: what the model is; checks: what it keeps."""

    facts: dict[str, Any]
    checks: list[Check]


def examine(model: DualEncoder | PairScorer) -> Examination:
    """Tries the model on made-up items. What its code raises is a check that does not hold."""
    if is_pair_scorer(model):
        return _examine_pairs(model)
    checks: list[Check] = []
    pictures = _pictures()
    facts = {**vars(model.identity), "fingerprint": model.identity.fingerprint}
    facts |= {"device": str(model.device), **_size(model)}
    try:
        pixels = [model.preprocess(picture) for picture in pictures]
        batch = stacked(pixels)
    except Exception as error:
        checks.append(Check("preprocess", False, _said(error)))
    else:
        checks.append(Check("preprocess", True, f"pictures of shape {tuple(batch.shape[1:])}"))
        checks += _side(
            "images", model.encode_images, lambda rows: stacked([pixels[i] for i in rows]), model
        )
        facts |= _cost(model, batch)
    checks += _side("texts", model.encode_texts, lambda rows: [TEXTS[i] for i in rows], model)
    widths = {
        one.found.split(" wide")[0] for one in checks if one.name.endswith(": shape") and one.holds
    }
    if len(widths) == 2:
        checks.append(
            Check("one space", False, f"images and texts are {' and '.join(widths)} wide")
        )
    return Examination(facts, checks)


def in_half(whole: DualEncoder, load: Callable[[str], DualEncoder]) -> dict[str, str]:
    """What bf16 and fp16 do to the model: vectors that are no numbers, and how far the others move,
    as 1 - cosine. load: the same model in a precision; what it raises is what is said.
    """
    truth = _both_sides(whole)
    found = {}
    for precision in ("bf16", "fp16"):
        try:
            rows = _both_sides(load(precision))
        except Exception as error:
            found[f"in {precision}"] = f"not offered: {_said(error)}"
            continue
        good = np.isfinite(rows).all(axis=1)
        moved = 1 - (rows[good] * truth[good]).sum(axis=1) if good.any() else np.zeros(1)
        found[f"in {precision}"] = (
            f"{int((~good).sum())} of {len(rows)} vectors with NaN or infinity, "
            f"1 - cosine at most {moved.max():.1e}"
        )
    return found


def _both_sides(model: DualEncoder) -> np.ndarray:
    images = model.encode_images(stacked([model.preprocess(picture) for picture in _pictures()]))
    return np.concatenate([as_rows(images), as_rows(model.encode_texts(list(TEXTS)))])


def _examine_pairs(model: PairScorer) -> Examination:
    """The same for a model that scores pairs; its first stage is a model of its own."""
    facts = {**vars(model.identity), "fingerprint": model.identity.fingerprint}
    facts |= {"device": str(model.device), **_size(model)}
    try:
        pixels = [model.preprocess(picture) for picture in _pictures()]
        read = getattr(model, "read_images", None) or (lambda images: images)

        def score(rows: Sequence[int]) -> np.ndarray:
            images = read(stacked([pixels[row] for row in rows]))
            return as_rows(model.score_pairs(images, [TEXTS[row] for row in rows]))

        everything = range(len(TEXTS))
        rows, again = score(everything), score(everything)
        single = np.concatenate([score([row]) for row in everything])
    except Exception as error:
        return Examination(facts, [Check("pairs: scored", False, _said(error))])
    if rows.shape != (len(TEXTS),) or single.shape != rows.shape:
        return Examination(facts, [Check("pairs: shape", False, f"{rows.shape} for {len(TEXTS)}")])
    wrong = int((~np.isfinite(rows)).sum())
    checks = [
        Check("pairs: shape", True, "one score a pair"),
        Check("pairs: numbers", not wrong, f"{wrong} of {len(rows)} with NaN or infinity"),
    ]
    if not wrong:
        moved, apart = float(np.abs(rows - again).max()), float(np.abs(rows - single).max())
        most = ALIKE.get(model.identity.precision, 1e-4) * max(1.0, float(np.abs(rows).max()))
        checks.append(Check("pairs: repeats", moved == 0, f"moves by {moved:.1e}"))
        checks.append(Check("pairs: any batch size", apart <= most, f"moves by {apart:.1e}"))
    return Examination(facts, checks)


def _side(what: str, encode: Callable, take: Callable, model: DualEncoder) -> list[Check]:
    """The checks of one encoder. take: the items of some rows as the encoder wants them."""
    everything = range(len(TEXTS))
    try:
        raw = encode(take(everything))
        again, alone = (
            as_rows(encode(take(everything))),
            [encode(take([row])) for row in everything],
        )
    except Exception as error:
        return [Check(f"{what}: encoded", False, _said(error))]
    rows, single = as_rows(raw), np.concatenate([as_rows(one) for one in alone])
    if rows.ndim != 2 or len(rows) != len(TEXTS) or single.shape != rows.shape:
        return [Check(f"{what}: shape", False, f"{rows.shape} for {len(TEXTS)} items")]
    checks = [Check(f"{what}: shape", True, f"{rows.shape[1]} wide")]
    kind = str(raw.dtype).removeprefix("torch.")
    checks.append(Check(f"{what}: float32", kind == "float32", kind))
    wrong = int((~np.isfinite(rows)).any(axis=1).sum())
    checks.append(
        Check(f"{what}: numbers", not wrong, f"{wrong} of {len(rows)} with NaN or infinity")
    )
    if wrong:
        return checks
    lengths = np.linalg.norm(rows, axis=1)
    worst = float(lengths[np.abs(lengths - 1).argmax()])
    checks.append(Check(f"{what}: unit length", abs(worst - 1) <= UNIT, f"{worst:.6f}"))
    moved = float(np.abs(rows - again).max())
    checks.append(Check(f"{what}: repeats", moved == 0, f"moves by {moved:.1e}"))
    moved = float(np.abs(rows - single).max())
    most = ALIKE.get(model.identity.precision, 1e-4)
    checks.append(Check(f"{what}: any batch size", moved <= most, f"moves by {moved:.1e}"))
    return checks


def _pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


def _size(model: DualEncoder) -> dict[str, Any]:
    """The number of parameters, where the model keeps a torch module that tells."""
    import torch

    parts = [part for part in vars(model).values() if isinstance(part, torch.nn.Module)]
    if not parts:
        return {}
    return {"parameters": sum(one.numel() for part in parts for one in part.parameters())}


def _cost(model: DualEncoder, batch: Any) -> dict[str, Any]:
    """FLOPs of one picture and one text, as torch counts them, and how many it does a second."""
    from torch.utils.flop_counter import FlopCounterMode

    found: dict[str, Any] = {}
    sides: Sequence[tuple[str, Callable, Any]] = (
        ("image", model.encode_images, batch),
        ("text", model.encode_texts, list(TEXTS)),
    )
    for name, encode, items in sides:
        try:
            with FlopCounterMode(display=False) as counter:
                encode(items)
            begun = time.perf_counter()
            encode(items)
            seconds = time.perf_counter() - begun
        except Exception:
            continue  # told as a check
        found[f"FLOPs, {name}"] = counter.get_total_flops() // len(items)
        found[f"{name}s a second"] = round(len(items) / seconds, 1)
    return found


def _said(error: Exception) -> str:
    text = one_line(error)
    return text if isinstance(error, FscBenchError) else f"{type(error).__name__}: {text}"
