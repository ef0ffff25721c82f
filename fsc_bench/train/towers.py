"""Towers: a model as training needs it, with features and dense tokens in one forward.

It computes what `encode_image` and `encode_text` compute, on texts cut to the longest of a block.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from fsc_bench.errors import UsageError
from fsc_bench.models.shortcuts import parts
from fsc_bench.models.shortcuts import towers as _towers
from fsc_bench.train import dense
from fsc_bench.train.layout import TextLayout
from fsc_bench.train.sharding import local

PROBES = ["a", "two dogs and a cat on a red sofa", "two dogs and a bird"]


@dataclass(frozen=True)
class Encoded:
    """What the towers make of a part; features are unit length, float32 or better, tokens raw."""

    image_features: Tensor  # [b, D]
    image_tokens: Tensor | None  # [b, P, D], patches after ln_post and projection
    text_features: list[Tensor]  # [N, D] for each block of texts
    text_tokens: list[Tensor] | None  # [N, T, D] for each block
    logit_scale: Tensor  # 1 / temperature
    logit_bias: Tensor | None = None  # SigLIP's


class Towers(nn.Module):
    """Both towers of an open_clip CLIP, CustomTextCLIP or CoCa, or of another family's model whose
    towers say themselves what is to be known of them (models/trainable).

    `trims` tells whether texts may be cut after their end token, `layout` where their words lie:
    both are probed, not assumed.
    Raises UsageError for towers that have no dense tokens where `tokens` asks for them.
    """

    def __init__(self, model: nn.Module, tokens: bool):
        super().__init__()
        if need := parts.lacks(model):
            raise UsageError(f"{type(model).__name__} is no open_clip model: it has no {need}.")
        self.model, self.tokens = model, tokens
        text = parts.text_home(model)
        # CLIP keeps the parts of a TextTransformer in itself, under the same names.
        self.open_text = (
            (isinstance(text, TextTransformer) and text.cls_emb is None and not text.use_pad_mask)
            or parts.is_clip(model)
        ) and parts.text_pool(model) == "argmax"
        self.open_image = isinstance(model.visual, VisionTransformer)
        if tokens and (why := dense.lacks(model)):
            raise UsageError(f"the local loss needs dense tokens: {why}.")
        self.trims, self.layout = False, TextLayout()

    @property
    def text(self) -> nn.Module:
        return parts.text_home(self.model)

    def forward(
        self, images: Tensor, ids: Sequence[Tensor], ends: Sequence[Tensor], tokens: bool = True
    ) -> Encoded:
        """images [b, 3, H, W] float; for each block ids [N, T] and end positions [N]."""
        tokens = tokens and self.tokens
        image_features, image_tokens = self.encode_image(images, tokens)
        texts = [self.encode_text(*block, tokens) for block in zip(ids, ends, strict=True)]
        return Encoded(
            image_features,
            image_tokens,
            [features for features, _ in texts],
            [block for _, block in texts] if tokens else None,
            self.model.logit_scale.exp(),
            parts.logit_bias(self.model),
        )

    def encode_image(self, images: Tensor, tokens: bool) -> tuple[Tensor, Tensor | None]:
        visual = self.model.visual
        if tokens:
            pooled, patches = dense.image_rule(visual).encode(visual, images)
            return _unit(pooled), patches
        return _unit(_towers.first(visual(images))), None

    def encode_text(self, ids: Tensor, end: Tensor, tokens: bool) -> tuple[Tensor, Tensor | None]:
        if not self.open_text:
            if not tokens:
                return _unit(self.model.encode_text(ids)), None
            pooled, words = dense.encode_text(self.text, ids)
            return _unit(pooled), words
        text, length = self.text, ids.shape[1]
        words = text.token_embedding(ids) + text.positional_embedding[:length]
        mask = text.attn_mask[:length, :length] if text.attn_mask is not None else None
        words = text.ln_final(text.transformer(words, attn_mask=mask))
        rows = torch.arange(len(ids), device=ids.device)
        if not tokens:
            return _unit(_towers.project(text, words[rows, end])), None
        words = _towers.project(text, words)
        return _unit(words[rows, end]), words

    @torch.no_grad()
    def probe(self, tokenizer: Callable[[list[str]], Tensor]) -> None:
        """Sets `layout`, and `trims`: whether texts mean the same, cut or whole."""
        self.layout = TextLayout.of(self.model, tokenizer)
        if not self.open_text and not getattr(self.text, "masks_padding", False):
            return
        device = self.model.logit_scale.device
        ids = tokenizer(PROBES)
        end, ids = self.layout.end(ids).to(device), ids.to(device)
        whole, context = _unit(self.model.encode_text(ids)), ids.shape[1]
        ids = ids[:, : int(end.max()) + 1]
        cut, _ = self.encode_text(ids, end, tokens=False)
        self.trims = ids.shape[1] < context and _close(whole, cut)


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-4)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


class Teacher:
    """A moving average of the model, for DeGLA's terms or to be saved beside it. No gradient.

    Running statistics are averaged as weights are, so that they belong to them; whole numbers and
    other buffers are the model's own.
    """

    def __init__(self, towers: Towers, decay: float):
        # In training mode its own forward would move its running statistics.
        self.towers = copy.deepcopy(towers).requires_grad_(False).eval()
        self.decay, self._current = decay, towers

    @torch.no_grad()
    def update(self) -> None:
        # Looked up each time: sharding gives both of them other parameters.
        both = zip(self.towers.parameters(), self._current.parameters(), strict=True)
        pairs = [(local(mean), local(now)) for mean, now in both if now.requires_grad]
        means, currents = zip(*pairs, strict=True)
        torch._foreach_lerp_(list(means), list(currents), 1 - self.decay)
        now = saved_buffers(self._current)
        for name, buffer in saved_buffers(self.towers).items():
            if name.endswith(("running_mean", "running_var")):
                buffer.lerp_(now[name], 1 - self.decay)
            else:
                buffer.copy_(now[name])


def saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """What a state dict holds beside parameters, by name: running statistics above all."""
    return {
        f"{prefix}.{name}".lstrip("."): buffer
        for prefix, part in module.named_modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
    }
