"""Vectors and decisions on the device against float32 on the CPU."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from drawn import captions, model_of, scenes, tiny_architecture

from fsc_bench.embed.encode import wait_for
from fsc_bench.model import as_rows, stacked
from fsc_bench.system.settings import working

SIZES = {"ViT-B-32": 256, "RN50": 128, "ViT-B-16-SigLIP": 128, "ViT-L-14": 64}
NEAR = 10  # margins of so many largest differences, and smaller ones, are near-ties


def measure(check: Any) -> Iterator[tuple[str, dict]]:
    with working():
        yield "tf32", tf32(check.device)
        sizes = {tiny_architecture(check.folder): 8} if check.tiny else SIZES
        for architecture, n in sizes.items():
            yield from compared(architecture, n, check.device)


def tf32(device: str) -> dict[str, Any]:
    """Float32 products and convolutions against float64: TF32 would be off by about 1e-3."""
    torch.manual_seed(0)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    product = (a.to(device) @ b.to(device)).cpu().double()
    true = a.double() @ b.double()
    pictures, kernel = torch.randn(4, 64, 56, 56), torch.randn(64, 64, 3, 3)
    convolved = torch.conv2d(pictures.to(device), kernel.to(device)).cpu().double()
    exact = torch.conv2d(pictures.double(), kernel.double())
    apart = {
        "product": float((product - true).norm() / true.norm()),
        "convolution": float((convolved - exact).norm() / exact.norm()),
    }
    return {**apart, "holds": max(apart.values()) < 1e-5}


def compared(architecture: str, n: int, device: str) -> Iterator[tuple[str, dict]]:
    pictures, texts = scenes(n), captions(n)
    truth = vectors(model_of(architecture, "cpu"), pictures, texts)
    for precision in ("fp32", "bf16", "fp16"):
        if device == "cpu" and precision == "fp16":
            continue  # no CPU kernel of note
        found = vectors(model_of(architecture, device, precision), pictures, texts)
        yield f"{architecture} {precision}", difference(truth, found, precision)


def vectors(model: Any, pictures: list, texts: list[str]) -> list[np.ndarray]:
    """[images [n, d], texts [n, d]]."""
    pixels = [model.preprocess(picture) for picture in pictures]
    images = [model.encode_images(stacked(pixels[i : i + 64])) for i in range(0, len(pixels), 64)]
    words = [model.encode_texts(texts[i : i + 64]) for i in range(0, len(texts), 64)]
    wait_for(words[-1])
    return [np.concatenate([as_rows(part) for part in parts]) for parts in (images, words)]


def difference(truth: list, found: list, precision: str) -> dict[str, Any]:
    """How far apart vectors and similarities are, and which decisions changed: the nearest text of
    each image, and the nearest image of each text.
    """
    whole = [pair[0] @ pair[1].T for pair in (truth, found)]
    most = float(np.abs(whole[0] - whole[1]).max())
    changed = beyond = decisions = 0
    for true, other in ((whole[0], whole[1]), (whole[0].T, whole[1].T)):
        best = np.sort(true, axis=1)
        margin = best[:, -1] - best[:, -2]
        differs = true.argmax(1) != other.argmax(1)
        decisions += len(true)
        changed += int(differs.sum())
        beyond += int((differs & (margin > NEAR * most)).sum())
    figures: dict[str, Any] = {
        "images": float(np.abs(truth[0] - found[0]).max()),
        "texts": float(np.abs(truth[1] - found[1]).max()),
        "one_minus_cosine": float(
            max((1 - (a * b).sum(1)).max() for a, b in zip(truth, found, strict=True))
        ),
        "similarities": most,
        "decisions": decisions,
        "changed": changed,
        "changed_percent": round(100 * changed / decisions, 2),
    }
    if precision == "fp32":
        figures["changed_beyond_near_ties"] = beyond
        figures["holds"] = beyond == 0 and most < 1e-4
    return figures
