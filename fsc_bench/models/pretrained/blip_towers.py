"""BLIP's contrastive towers (ITC, arXiv 2201.12086) as the trainer takes them.

Features are the class tokens through `vision_proj` and `text_proj`; dense tokens are the patches
and words through the same. The matching head and the cross-attention below it are carried along and
written again, and no loss of the trainer reaches them. transformers' class has no temperature: the
scale is a parameter here, that starts as the config's `logit_scale_init_value` says (1 / 0.07) and
is written back there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import transforms

from fsc_bench.errors import UsageError
from fsc_bench.model import Extras, Identity
from fsc_bench.models.trainable import Folder

SCALE = "logit_scale_init_value"  # of BlipConfig
TRAINED = "fsc_bench_trained"  # of a config that we wrote: what training moved
CONTRAST = "contrast"
LEFT_ALONE = (
    "BLIP's matching head and cross-attention stay as they were while the towers around them move: "
    "hf: scores by the contrast, which is what trains, blip: by the head, which was not trained "
    "with it."
)
Both = tuple[Tensor, Tensor]


class ImageTower(nn.Module):
    """Pictures to the common space."""

    tokens_are = "its patches, normed and projected as the class token is"

    def __init__(self, blip: Any):
        super().__init__()
        self.vision_model, self.vision_proj = blip.vision_model, blip.vision_proj

    def forward(self, images: Tensor) -> Tensor:
        """[B, D], not of unit length."""
        return self.vision_proj(self._states(images)[:, 0])

    def with_tokens(self, images: Tensor) -> Both:
        """Features [B, D] and patches [B, P, D]."""
        seen = self.vision_proj(self._states(images))
        return seen[:, 0], seen[:, 1:].contiguous()

    def _states(self, images: Tensor) -> Tensor:
        return self.vision_model(pixel_values=images).last_hidden_state


class TextTower(nn.Module):
    """Texts to the common space, read without a picture."""

    pool_type, masks_padding = "first", True

    def __init__(self, blip: Any, pad: int):
        super().__init__()
        self.text_encoder, self.text_proj, self.pad = blip.text_encoder, blip.text_proj, pad

    def forward(self, ids: Tensor) -> Tensor:
        """[N, D], not of unit length."""
        return self.text_proj(self._states(ids)[:, 0])

    def with_tokens(self, ids: Tensor) -> Both:
        """Features [N, D] and tokens [N, T, D], the class token first."""
        words = self.text_proj(self._states(ids))
        return words[:, 0], words

    def _states(self, ids: Tensor) -> Tensor:
        # All up to a text's last token, as the tokenizer's own mask has it.
        mask = (ids != self.pad).int().flip(1).cummax(1).values.flip(1)
        return self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state


class BlipTowers(nn.Module):
    """BlipForImageTextRetrieval in two towers and a head, with a logit scale."""

    left_alone = LEFT_ALONE

    def __init__(self, blip: Any, pad: int):
        super().__init__()
        self.visual, self.text = ImageTower(blip), TextTower(blip, pad)
        self.itm_head = blip.itm_head
        device = blip.itm_head.weight.device
        self.logit_scale = nn.Parameter(torch.tensor(_scale(blip.config), device=device))

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images)

    def encode_text(self, ids: Tensor) -> Tensor:
        return self.text(ids)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Of the image tower, where the memory goes; transformers has none of the text tower."""
        tower, what = self.visual.vision_model, "enable" if enable else "disable"
        # transformers has two names for it; version 6 keeps one.
        kinds = (f"{kind}_checkpointing_{what}" for kind in ("activation", "gradient"))
        switch = getattr(tower, next(name for name in kinds if hasattr(tower, name)))
        switch({"use_reentrant": False}) if enable else switch()

    def key_biases(self) -> Iterator[tuple[nn.Parameter | None, int, int]]:
        """(a bias, which part of it is the keys', of how many)."""
        for module in self.modules():
            if isinstance(joint := getattr(module, "qkv", None), nn.Linear):
                yield joint.bias, 1, 3
            elif isinstance(key := getattr(module, "key", None), nn.Linear):
                yield key.bias, 0, 1


def _scale(config: Any) -> float:
    return float(getattr(config, SCALE))


class Tokenizer:
    """Token ids [n, context] of texts, filled up; those that are too long are cut."""

    def __init__(self, words: Any):
        # Not `words` itself, whose lock cannot be handed to the processes that read batches.
        self.inner, self.context = words.tokenizer, words.context
        self.pad = self.inner.pad_token_id

    def __call__(self, texts: Sequence[str]) -> Tensor:
        found = self.inner(
            list(texts), padding="max_length", truncation=True, max_length=self.context,
            return_tensors="pt",
        )  # fmt: skip
        return found["input_ids"]


class BlipTrainable:
    """BLIP as the trainer takes it. `saved` names the family by which the start was loaded."""

    def __init__(
        self, blip: Any, source: Any, pixels: Any, words: Any, identity: Identity, saved: str
    ):
        self.preprocess = transform_of(pixels.processor, source.spec)
        self.tokenizer = Tokenizer(words)
        self.model = BlipTowers(blip, self.tokenizer.pad)
        self.source, self.identity, self.saved, self.extras = source, identity, saved, Extras()
        self.extras.tokenize = words.tokenize

    def folder(self, weights: Mapping[str, Tensor]) -> Folder:
        """What `hf:` and `blip:` load: transformers' own names, the start's processor and words."""
        scale = float(weights["logit_scale"])
        config = {**self.source.config, SCALE: scale, TRAINED: CONTRAST}
        return Folder(
            {**self.source.beside(), "config.json": json.dumps(config, indent=2).encode()},
            {name.removeprefix("visual.").removeprefix("text."): value
             for name, value in weights.items() if name != "logit_scale"},
        )  # fmt: skip


def transform_of(processor: Any, name: str) -> transforms.Compose:
    """torchvision's words for BLIP's image processor: squashed to a square, and normalised.

    Raises UsageError for a processor that does other things.
    """
    size = dict(processor.size)
    sides = {size.get("height"), size.get("width")}
    does = [processor.do_resize, processor.do_rescale, processor.do_normalize]
    if len(sides) > 1 or None in sides or not all(does):
        raise UsageError(
            f"model {name!r} cannot be trained: its image processor does not resize to a square "
            f"and normalise (size = {size}, do_resize, do_rescale, do_normalize = {does})."
        )
    (side,) = sides
    return transforms.Compose(
        [
            transforms.Resize((side, side), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(processor.image_mean, processor.image_std),
        ]
    )


def notes_of(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """What to say of a matching head that was left behind by a training of the contrast."""
    return (f"{name}: {LEFT_ALONE}",) if config.get(TRAINED) == CONTRAST else ()
