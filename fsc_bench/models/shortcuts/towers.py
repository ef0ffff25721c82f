"""Shortcuts through an open_clip model that give the same vectors with less work; no family.

Each is tried on the very model that was loaded, against the model's own forward, and is used only
if the answers agree; no configuration flag is believed. Trimming texts is exact for causal towers
that pool at the end token and for those that mask their padding; SigLIP, CoCa and last-token
pooling come out as not exact, because their padding is read.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)

# Unit vectors from two batch shapes of one float32 model differ by 3e-7; a tower that reads its
# padding differs by 0.01 and more.
TOLERANCE = 1e-5
PROBES = (
    "a",
    "a dog",
    "two dogs play on the grass",
    "a photo of a small red bicycle that leans against the wall of an old house",
    "there are exactly three people at the table, two of them wear hats and the third one, who is "
    "not looking at the camera, holds a white cup of coffee in the left hand",
    "word " * 200,
)
Forward = Callable[[torch.Tensor], torch.Tensor]


def unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1)


# ---------------------------------------------------------------- texts


def lengths(ids: np.ndarray, pad: int) -> np.ndarray:
    """int [n]: tokens of each row up to its last that is no padding. ids: int [n, context]."""
    real = ids != pad
    return np.where(real.any(axis=1), ids.shape[1] - real[:, ::-1].argmax(axis=1), 1)


def pad_of(tokenizer: Callable) -> int:
    return int(tokenizer(["a"])[0, -1])


def trimmed(model: Any) -> Forward | None:
    """encode_text for ids [n, length] of any length up to the context, where one can be built."""
    text = getattr(model, "text", None)
    if text is None:
        needed = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
        if not all(hasattr(model, name) for name in needed):
            return None
        return lambda ids: _clip_text(
            model, ids, model.attn_mask, model.text_pool_type, getattr(model, "text_eos_id", None)
        )
    if isinstance(text, TextTransformer) and text.cls_emb is None:
        return lambda ids: _clip_text(
            text, ids, text.attn_mask, text.pool_type, getattr(text, "eos_id", None)
        )
    return lambda ids: first(text(ids))


def _clip_text(tower: Any, ids: torch.Tensor, mask: Any, pool: str, eos: int | None):
    """open_clip's CLIP.encode_text and TextTransformer.forward, all cut at the length."""
    length = ids.shape[1]
    kind = tower.transformer.get_cast_dtype()
    x = tower.token_embedding(ids).to(kind) + tower.positional_embedding[:length].to(kind)
    if mask is not None:
        mask = mask[:length, :length]
    if getattr(tower, "use_pad_mask", False):
        padding = tower._build_additive_mask(ids, length, x.dtype)
        mask = padding if mask is None else mask.unsqueeze(0) + padding
    x = tower.ln_final(tower.transformer(x, attn_mask=mask))
    return project(tower, text_global_pool(x, ids, pool, eos_token_id=eos))


def project(tower: Any, x: torch.Tensor) -> torch.Tensor:
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def exact_trim(model: Any, tokenizer: Callable, device: str) -> Forward | None:
    """`trimmed(model)` if it gives what encode_text gives on texts of many lengths, else None."""
    forward = trimmed(model)
    if forward is None:
        return None
    ids = tokenizer(list(PROBES))
    pad = pad_of(tokenizer)
    whole = unit(first(model.encode_text(ids.to(device))))
    for row, length in enumerate(lengths(ids.numpy(), pad).tolist()):
        short = ids[row : row + 1, :length]
        try:
            vector = unit(forward(short.to(device)))
        except (RuntimeError, IndexError, ValueError):
            return None  # a tower that takes whole contexts only
        if not agree(vector[0], whole[row]):
            return None
    return forward


# ---------------------------------------------------------------- images


def class_token_only(visual: Any) -> Forward | None:
    """The image tower with its last block worked out for the class token alone, where one can be.

    Only that token leaves the tower: 7% of ViT-B/32, whose 49 other tokens then need no query, no
    output projection and no MLP in the last block.
    """
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
        return None
    if visual.pool_type != "tok" or not visual.transformer.batch_first:
        return None
    last = visual.transformer.resblocks[-1]
    if type(last) is not ResidualAttentionBlock:
        return None

    def forward(images: torch.Tensor) -> torch.Tensor:
        x = visual._embeds(images)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        keys = last.ln_1(x)
        # Eight questions, of which one is kept: torch's attention for one or two questions lets an
        # image's place in the batch decide last bits (CPU, two threads, 17 or 197 tokens).
        answers = last.attention(keys[:, :8], keys, keys)[:, :1]
        token = x[:, :1] + last.ls_1(answers)
        token = token + last.ls_2(last.mlp(last.ln_2(token)))
        pooled, _ = visual._pool(token)
        return pooled if visual.proj is None else pooled @ visual.proj

    return forward


@torch.no_grad()
def exact_class_token(model: Any, shape: Sequence[int], device: str) -> Forward | None:
    """`class_token_only` if it gives what encode_image gives, else None. shape: of one image."""
    forward = class_token_only(getattr(model, "visual", None))
    if forward is None:
        return None
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=noise).to(device)
    return (
        forward if agree(unit(forward(images)), unit(first(model.encode_image(images)))) else None
    )


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < TOLERANCE)
