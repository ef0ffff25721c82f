"""Inputs: pictures and texts as a model's own image processor and tokenizer give them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsc_bench.errors import UsageError
from fsc_bench.models.checkpoints.tokenizers import PROBES
from fsc_bench.models.pretrained.kinds import Kind

LIBRARIES = ("transformers", "torchvision", "pillow")
SHORTEST = 3  # a word between the marks of a text's beginning and end
LONGEST = 1_000_000  # a tokenizer without a limit says 10**30


class Pixels:
    """The image processor, for one picture at a time.

    packed: a picture is patches with a mask and a grid (NaFlex), given as one array
    [patches, values + 3]: the last three columns are the mask, the grid's rows and its columns.
    """

    def __init__(self, processor: Any, packed: bool):
        self.processor, self.packed = processor, packed
        facts = {key: value for key, value in processor.to_dict().items() if key[0] != "_"}
        libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
        words = json.dumps(facts, sort_keys=True, default=str)
        self.described = f"{type(processor).__name__} {words}; {libraries}"

    def __call__(self, image: Any) -> Tensor:
        """float32 [3, h, w], or packed [patches, values + 3]."""
        found = self.processor(images=image, return_tensors="pt")
        pixels = found["pixel_values"][0]
        if not self.packed:
            return pixels
        mask = found["pixel_attention_mask"][0].to(pixels.dtype)[:, None]
        grid = found["spatial_shapes"][0].to(pixels.dtype).expand(len(pixels), 2)
        return torch.cat([pixels, mask, grid], dim=1)

    def inputs(self, images: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        """What the model takes, of a batch of what this object made."""
        if not self.packed:
            return {"pixel_values": images.to(dtype)}
        return {
            "pixel_values": images[:, :, :-3].to(dtype),
            "pixel_attention_mask": images[:, :, -3].int(),
            "spatial_shapes": images[:, 0, -2:].long(),
        }


class Words:
    """The tokenizer, with the rules of the model's kind. Texts that are too long are cut."""

    def __init__(self, tokenizer: Any, kind: Kind, config: Any, spec: str):
        """config: that of the text tower."""
        self.tokenizer, self.kind = tokenizer, kind
        self._alone = Lock()  # how texts are cut and filled up is a state of the tokenizer
        if tokenizer.vocab_size > config.vocab_size:
            raise UsageError(
                f"model {spec!r}: its tokenizer has {tokenizer.vocab_size:,} tokens, its weights "
                f"are of {config.vocab_size:,}: they do not belong together."
            )
        if tokenizer.pad_token is None:
            raise UsageError(f"model {spec!r}: its tokenizer has no token to fill texts up with.")
        if tokenizer.padding_side != "right" and not kind.filled:
            raise UsageError(
                f"model {spec!r}: its tokenizer fills texts up on the {tokenizer.padding_side} "
                "(padding_side): a text's vector would depend on the longest text beside it."
            )
        self.context = _context(tokenizer, kind, config, spec)
        self.described = f"{type(tokenizer).__name__} {self._digest()}"

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """input_ids [n, length], and attention_mask where fillings are not read."""
        found = self._tokens(
            texts,
            padding="max_length" if self.kind.filled else "longest",
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        names = ("input_ids",) if self.kind.filled else ("input_ids", "attention_mask")
        return {name: found[name] for name in names}

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids [n, context], filled up with -1; whether each text was cut [n])."""
        whole = self._tokens(texts, verbose=False)["input_ids"]
        cut = self._tokens(texts, truncation=True, max_length=self.context)["input_ids"]
        ids = np.full((len(texts), self.context), -1, np.int64)
        for row, own in zip(ids, cut, strict=True):
            row[: len(own)] = own
        return ids, np.array([len(own) > self.context for own in whole], bool)

    def _tokens(self, texts: Sequence[str], **options: Any) -> Mapping[str, Any]:
        texts = [text.lower() if self.kind.lower else text for text in texts]
        with self._alone:
            return self.tokenizer(texts, return_attention_mask=True, **options)

    def _digest(self) -> str:
        """Of the vocabulary and of what it makes of some texts, which follows from the rest."""
        known = sorted(self.tokenizer.get_vocab().items())
        seen = [known, self(PROBES)["input_ids"].tolist(), self.kind.filled, self.kind.lower]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]


def _context(tokenizer: Any, kind: Kind, config: Any, spec: str) -> int:
    """The most tokens of a text that tokenizer, weights and authors all allow."""
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or not longest >= SHORTEST:
        raise UsageError(f"model {spec!r}: its tokenizer has model_max_length = {longest!r}.")
    places = config.max_position_embeddings
    if kind.offset:
        places -= config.pad_token_id + 1
    return min(places, int(min(longest, LONGEST)), kind.context or LONGEST)
