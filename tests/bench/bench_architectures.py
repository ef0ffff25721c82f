"""How far our vectors are from open_clip's own, for architectures as they are shipped.

    python tests/bench/bench_architectures.py [NAME ...]

Random weights, three pictures, texts of two lengths, whole and cut at their length; the worst
difference of a number of a unit vector. Tokenizers of the Hub are replaced by ones of few words, so
that nothing is fetched. tests/test_architectures.py does the same with small ones.
"""

import argparse
import gc
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fsc_bench.models import load_model

# The smallest of each kind that open_clip 3.3.0 ships.
SMALLEST = (
    "RN50", "PE-Core-T-16-384", "MobileCLIP2-S0", "EVA02-B-16", "coca_ViT-B-32", "ViT-B-16-SigLIP",
    "ViT-B-32-SigLIP2-256", "ViT-L-14-CLIPA",
)  # fmt: skip
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "dog", "cat", "two", "and", "red", "ball", "on"]
TEXTS = (["a dog", "two red ball"], ["a cat and a dog on a red ball " * 2, "cat dog " * 90])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=SMALLEST, metavar="NAME")
    logging.disable(logging.WARNING)
    print(f"open_clip {open_clip.__version__}")
    print(f"{'architecture':<24}{'images':>10}{'texts':>10}{'s':>6}")
    for name in parser.parse_args().names:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            images, texts = worst(name, Path(folder))
        print(f"{name:<24}{images:>10.1e}{texts:>10.1e}{time.perf_counter() - started:>6.0f}")
        gc.collect()


def worst(name: str, folder: Path) -> tuple[float, float]:
    """The largest differences of (images, texts)."""
    config = open_clip.get_model_config(name)
    if config["text_cfg"].get("hf_tokenizer_name"):
        save_tokenizer(folder)
        config["text_cfg"]["hf_tokenizer_name"] = str(folder)
    (folder / f"Shipped-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    ours = load_model(f"open_clip:Shipped-{name}/random?seed=1", "cpu")
    theirs, _, transform = open_clip.create_model_and_transforms(f"Shipped-{name}")
    theirs.load_state_dict(ours.model.state_dict())
    theirs.eval()
    tokenizer = open_clip.get_tokenizer(f"Shipped-{name}")
    return of_images(ours, theirs, transform), of_texts(ours, theirs, tokenizer)


def save_tokenizer(folder: Path) -> None:
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", cls_token="<s>",
        sep_token="</s>",
    ).save_pretrained(folder)  # fmt: skip


@torch.no_grad()
def of_images(ours, theirs, transform) -> float:
    rng = np.random.default_rng(5)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        for height, width in ((300, 400), (224, 224), (500, 260))
    ]
    wanted = unit(theirs.encode_image(torch.stack([transform(one) for one in pictures])))
    whole = ours.encode_images(torch.stack([ours.preprocess(one) for one in pictures]))
    halves = ours.extras.pixels
    split = ours.encode_images(
        torch.as_tensor(halves.finish(np.stack([halves.load(one) for one in pictures])))
    )
    return max((whole - wanted).abs().max().item(), (split - wanted).abs().max().item())


@torch.no_grad()
def of_texts(ours, theirs, tokenizer) -> float:
    found = []
    for texts in TEXTS:
        wanted = unit(theirs.encode_text(tokenizer(texts)))
        found.append(ours.encode_texts(texts) - wanted)
        ids, needed = ours.extras.tokens.ids(texts)
        found.append(ours.extras.tokens.encode(ids[:, : needed.max()]) - wanted)
        if ours.extras.trees is not None:
            rows = [row[:n] for row, n in zip(ids, needed, strict=True)]
            found.append(ours.extras.trees.encode(rows, 0) - wanted)
    return max(one.abs().max().item() for one in found)


def unit(features) -> torch.Tensor:
    features = features[0] if isinstance(features, tuple) else features
    return torch.nn.functional.normalize(features.float(), dim=-1)


if __name__ == "__main__":
    main()
