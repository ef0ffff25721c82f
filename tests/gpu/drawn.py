"""What the parts measure on: drawn photographs, made-up captions, and open_clip's architectures
with random weights. Nothing is fetched.
"""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image, ImageFilter

from fsc_bench.models import load_model
from fsc_bench.models.open_clip import OpenClip, built_in

SUBJECTS = ("dog", "man", "woman", "cat", "horse", "child", "bus", "bird", "player", "sheep")
COLOURS = ("red", "blue", "white", "black", "small", "large", "old", "young", "striped", "wooden")
ACTIONS = ("standing next to", "sitting on", "looking at", "running past", "holding", "under")
THINGS = ("table", "bench", "fence", "surfboard", "pizza", "umbrella", "tree", "car", "sign", "bed")
PLACES = ("in a field", "on the street", "at the beach", "in a kitchen", "near a river", "outside")

# What a CPU encodes and trains in milliseconds, for `--tiny`; its tokenizer is CLIP's own.
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def tiny_architecture(folder: Path) -> str:
    """The name under which open_clip knows TINY from now on."""
    file = folder / "Tiny-check.json"
    file.write_text(json.dumps(TINY))
    open_clip.add_model_config(file)
    return file.stem


def photos(n: int, seed: int = 0) -> list[bytes]:
    """JPEGs of 640x480 and 480x640, quality 90, about 110 KB each, all different."""

    def one(number: int) -> bytes:
        rng = np.random.default_rng([seed, number])
        size = (640, 480) if number % 2 else (480, 640)
        coarse = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(size).filter(ImageFilter.GaussianBlur(1))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        return file.getvalue()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, range(n)))


def scenes(n: int) -> list[Image.Image]:
    """Pictures that differ as photographs do: a few large coloured shapes."""
    found = []
    for number in range(n):
        rng = np.random.default_rng([7, number])
        coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
        found.append(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BILINEAR))
    return found


def captions(n: int) -> list[str]:
    """Different captions of 9 to 16 words, as COCO's are."""
    rng = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < n:
        a, b = rng.choice(COLOURS, 2, replace=False)
        subject, thing = rng.choice(SUBJECTS), rng.choice(THINGS)
        text = f"A {a} {subject} {rng.choice(ACTIONS)} a {b} {thing} {rng.choice(PLACES)}"
        if rng.random() < 0.5:
            text += f" with {rng.integers(2, 99)} {rng.choice(COLOURS)} {rng.choice(THINGS)}s"
        found[f"{text}."] = None
    return list(found)


class Letters:
    """Texts to ids without a vocabulary, for towers whose own must be fetched: the bytes."""

    def __init__(self, context_length: int, pad: int = 1):
        self.context_length, self.pad = context_length, pad

    def __call__(self, texts, context_length: int | None = None) -> torch.Tensor:
        ids = torch.full((len(texts), self.context_length), self.pad)
        for row, text in zip(ids, texts, strict=True):
            codes = torch.tensor(list(text.encode()))[: self.context_length]
            row[: len(codes)] = codes
        return ids


def model_of(architecture: str, device: str, precision: str = "fp32") -> OpenClip:
    """Random weights, the same for every device and precision."""
    if "SigLIP" not in architecture:
        return load_model(f"open_clip:{architecture}/random?seed=0", device, precision)
    import fsc_bench.models.open_clip as family

    length = open_clip.get_model_config(architecture)["text_cfg"].get("context_length", 64)
    of_the_hub = family.built_in_tokenizer
    family.built_in_tokenizer = lambda *_: Letters(length)
    try:
        return built_in(architecture, f"open_clip:{architecture}", device, precision, False)
    finally:
        family.built_in_tokenizer = of_the_hub
