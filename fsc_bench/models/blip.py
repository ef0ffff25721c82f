"""BLIP and BLIP-2 with their image-text matching heads, from transformers: `blip:ORG/NAME` or
`blip:./FOLDER`. They score pairs.

A pair's score is the difference of the head's two logits, "matches" less "does not". It orders
pairs as the softmax of the two does, whose logit it is, and where that is 1.0 in float32 from a
difference of 17 on it still tells pairs apart. BLIP's own contrastive tower is the first stage of
retrieval; BLIP-2's is none, for its images have 32 vectors each: name one, `?first=FAMILY:NAME`.

Nothing that a repository brings is executed. Weights are read as those of any checkpoint are, and
must fit to the last tensor: transformers itself would make up what is missing.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fsc_bench.model import DEPTH, Extras, Identity
from fsc_bench.models import pick_device
from fsc_bench.models.first_stage import first_stage, options_of
from fsc_bench.models.open_clip import DTYPES, activation_of, state_digest
from fsc_bench.models.pretrained.blip_towers import BlipTrainable, notes_of
from fsc_bench.models.pretrained.building import build_model, build_pixels, build_words
from fsc_bench.models.pretrained.files import (
    Wanted,
    check_name,
    is_local,
    open_hub,
    open_local,
)
from fsc_bench.models.pretrained.inputs import Pixels, Words
from fsc_bench.models.pretrained.trying import try_out
from fsc_bench.models.shortcuts.towers import unit
from fsc_bench.system.spec import Spec

EXAMPLES = ("blip:Salesforce/blip-itm-base-coco",)
SAVES = True  # a training run leaves a whole folder of it: models/trainable

WITH_HEADS = Wanted(
    "pair scorer",
    "have a matching head",
    {"blip": ["BlipForImageTextRetrieval"], "blip-2": ["Blip2ForImageTextRetrieval"]},
)


def check(spec: Spec) -> None:
    """Raises UsageError for a name of another form and a folder that is no BLIP's."""
    options_of(spec)
    if is_local(spec):
        open_local(spec, WITH_HEADS)
    else:
        check_name(spec)


def load(spec: Spec, device: str, precision: str) -> "Matcher":
    check(spec)
    named, depth = options_of(spec)
    device = pick_device(device)
    source = (open_local if is_local(spec) else open_hub)(spec, WITH_HEADS)
    # What is small comes first: its faults are said before gigabytes are read.
    processor, tokenizer = build_pixels(source), build_words(source)
    model, notes = build_model(source)
    words = Words(tokenizer, source.kind, getattr(model.config, source.kind.text_config), str(spec))
    pixels = Pixels(processor, source.kind.packed)
    identity = Identity(
        weights=state_digest(model),
        architecture=f"{type(model).__name__} {_digest(source.config)[:8]}",
        activation=activation_of(model),
        preprocess=pixels.described,
        tokenizer=words.described,
        context_length=words.context,
        precision=precision,
    )
    kind = Blip2 if source.kind.many else Blip
    matcher = kind(model, pixels, words, identity, device)
    try_out(pixels, matcher.try_pairs, source.kind, model.config, str(spec))
    matcher.source = source
    matcher.extras.notes = (*source.notes, *notes, *notes_of(source.config, str(spec)))
    matcher.depth = depth or DEPTH
    if named:
        matcher.first = first_stage(spec, named, device, precision)
    return matcher


# ---------------------------------------------------------------- the models


class Matcher(ABC):
    """What BLIP and BLIP-2 have in common as pair scorers."""

    first: Any = None
    depth = DEPTH
    source: Any = None  # the repository that it was loaded from

    def __init__(self, model: Any, pixels: Pixels, words: Words, identity: Identity, device: str):
        self.model, self.words = model.eval().requires_grad_(False), words
        self.preprocess, self.identity, self.device = pixels, identity, device
        self.dtype = DTYPES[identity.precision]
        self.extras = Extras()
        self.extras.tokenize = words.tokenize

    @torch.no_grad()
    def read_images(self, images: Tensor) -> Tensor:
        """[n, patches, width] of the image tower, which no text changes."""
        shown = images.to(self.device, self.dtype)
        return self.model.vision_model(pixel_values=shown).last_hidden_state

    @torch.no_grad()
    def score_pairs(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """[n]: the logit of "matches" less that of "does not"."""
        ids, mask = self.ids_of(texts)
        logits = self.logits(images, ids, mask).float()
        return logits[:, 1] - logits[:, 0]

    def try_pairs(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """[n] of n images, as `preprocess` made them, and n texts."""
        return self.score_pairs(self.read_images(images), texts)

    def ids_of(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(ids, mask) [n, longest of these texts]."""
        found = self.words(list(texts))
        return found["input_ids"].to(self.device), found["attention_mask"].to(self.device)

    @abstractmethod
    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """[n, 2] of pairs: "does not match", "matches"."""


class Blip(Matcher):
    """BLIP (arXiv 2201.12086); its contrastive tower is its first stage."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.model.to(self.device, self.dtype)
        self.first = Contrastive(self)

    def trainable(self) -> BlipTrainable:
        """Its contrastive towers; the matching head is carried along."""
        parts = (self.model, self.source, self.preprocess, self.words, self.identity)
        return BlipTrainable(*parts, "blip:blip")

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
        found = self.model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=images,
            encoder_attention_mask=seen,
        )
        return self.model.itm_head(found.last_hidden_state[:, 0])


class Contrastive:
    """BLIP's contrastive tower, a dual encoder on the matching head's weights."""

    def __init__(self, matcher: Blip):
        self.matcher, self.device = matcher, matcher.device
        self.preprocess, self.extras = matcher.preprocess, Extras()
        of = matcher.identity
        self.identity = replace(of, architecture=f"{of.architecture}, contrastive")

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors [n, d]."""
        return unit(self.matcher.model.vision_proj(self.matcher.read_images(images)[:, 0]))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n, d]."""
        model = self.matcher.model
        ids, mask = self.matcher.ids_of(texts)
        found = model.text_encoder(input_ids=ids, attention_mask=mask)
        return unit(model.text_proj(found.last_hidden_state[:, 0]))


class Blip2(Matcher):
    """BLIP-2 (arXiv 2301.12597). Its Q-Former stays in float32, as transformers keeps it."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.model.to(self.device).float()
        self.model.vision_model.to(self.dtype)

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        model, images = self.model, images.float()
        queries = model.query_tokens.expand(len(images), -1, -1)
        seen = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
        found = model.qformer(
            query_embeds=model.embeddings(input_ids=ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=images,
            encoder_attention_mask=seen,
            return_dict=True,
        )
        return model.itm_head(found.last_hidden_state[:, : queries.shape[1]]).mean(dim=1)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
