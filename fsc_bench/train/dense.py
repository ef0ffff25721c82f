"""Dense tokens: the patches and words that the local loss aligns, found by a tower's parts.

One rule for images: a patch's token is what the tower would answer if its pooling looked at that
patch alone. For a class token or a mean that is the last norm and the projection, which is the
reference's own rule (FSC-CLIP). For an attention pool it is the value and the output projection,
with what follows them (an MLP, a norm): our rule, known for ResNets from MaskCLIP (arXiv
2112.01071). One rule for texts: the words through the last norm and the projection, and with them
the token that is pooled, where it is one of the text's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    AttentionalPooler,
    TextTransformer,
    VisionTransformer,
    text_global_pool,
)
from torch import Tensor, nn

from fsc_bench.models.shortcuts import parts
from fsc_bench.models.shortcuts.towers import project

SEQUENCES = 32_768  # at once: CUDA's attention takes fewer than 65,536
Both = tuple[Tensor, Tensor]  # features [B, D] and tokens [B, P, D], neither of unit length


@dataclass(frozen=True)
class ImageRule:
    """How a kind of image tower gives tokens; `words` tell it, and whose rule it is."""

    words: str
    knows: Callable[[nn.Module], bool]
    encode: Callable[[nn.Module, Tensor], Both]


def image_rule(visual: nn.Module) -> ImageRule | None:
    """The rule for this image tower; None where none is known."""
    if _says_itself(visual):
        return ImageRule(visual.tokens_are, _says_itself, type(visual).with_tokens)
    return next((rule for rule in IMAGE_RULES if rule.knows(visual)), None)


def knows_text(model: nn.Module) -> bool:
    """Whether `encode_text` knows the model's text tower."""
    text = parts.text_home(model)
    if hasattr(text, "with_tokens"):
        return True
    if parts.is_clip(model):
        return parts.text_pool(model) == "argmax"
    return isinstance(text, TextTransformer) and text.pool_type != "none"


def lacks(model: nn.Module) -> str:
    """Why the local loss cannot train this model, in words; "" where it can."""
    visual, text = parts.visual(model), parts.text_home(model)
    if image_rule(visual) is None:
        trunk = getattr(visual, "trunk", None)
        inner = f" of {type(trunk).__name__}" if trunk is not None else ""
        return (
            f"its image tower, {type(visual).__name__}{inner}, pools in a way that no patch of its "
            "own can be read off"
        )
    if not knows_text(model):
        pool = parts.text_pool(model)
        return f"its text tower, {type(text).__name__}{f' with pool {pool}' if pool else ''}, " + (
            "gives no words in the space of its images"
        )
    return ""


# --- Images -------------------------------------------------------------------------------------


def _says_itself(visual: nn.Module) -> bool:
    """Towers of other families than open_clip's: models/trainable."""
    return hasattr(visual, "with_tokens")


def _plain_vit(visual: nn.Module) -> bool:
    known = isinstance(visual, VisionTransformer) and visual.attn_pool is None
    return known and visual.pool_type in ("tok", "avg")


def _encode_plain_vit(visual: nn.Module, images: Tensor) -> Both:
    pooled, patches = visual._pool(visual.transformer(visual._embeds(images)))
    if visual.final_ln_after_pool:
        patches = visual.ln_post(patches)
    if visual.proj is None:
        return pooled, patches
    return pooled @ visual.proj, patches @ visual.proj


def _each_alone(patches: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """What a pooling answers to each patch of [B, P, w] as a sequence of its own: [B * P, ...]."""
    alone = patches.flatten(0, 1)[:, None]
    return torch.cat([answer(part) for part in alone.split(SEQUENCES)])


def _pooler_vit(visual: nn.Module) -> bool:
    """CoCa's: one pooler whose first query is the image. Two of them are open_clip's own draft."""
    known = isinstance(visual, VisionTransformer) and isinstance(
        visual.attn_pool, AttentionalPooler
    )
    return known and visual.attn_pool_contrastive is None and visual.pool_type in ("tok", "avg")


def _encode_pooler_vit(visual: nn.Module, images: Tensor) -> Both:
    seen = visual.transformer(visual._embeds(images))
    pooled, _ = visual._pool(seen)
    pool = visual.attn_pool

    def answer(patch: Tensor) -> Tensor:
        # With one thing to attend to, every question has one answer.
        question = patch.new_zeros(len(patch), 1, pool.query.shape[1])
        return pool.attn(question, patch, patch, need_weights=False)[0]

    tokens = _each_alone(pool.ln_k(seen[:, 1:]), answer)
    tokens = visual.ln_post(tokens).view(len(seen), -1, tokens.shape[-1])
    if visual.proj is None:
        return pooled, tokens
    return pooled @ visual.proj, tokens @ visual.proj


def _timm_vit(visual: nn.Module) -> bool:
    """timm's transformers (SigLIP, EVA) by their parts; trunks of feature maps have others."""
    trunk = getattr(visual, "trunk", None)
    needed = ("forward_features", "forward_head", "fc_norm", "head_drop", "head", "blocks",
              "num_prefix_tokens", "global_pool")  # fmt: skip
    if not isinstance(visual, TimmModel) or not all(hasattr(trunk, part) for part in needed):
        return False
    pool = getattr(trunk, "attn_pool", None)
    if pool is not None:
        return getattr(pool, "pos_embed", None) is None and hasattr(pool, "latent")
    return trunk.global_pool in ("token", "avg")


def _encode_timm_vit(visual: nn.Module, images: Tensor) -> Both:
    trunk = visual.trunk
    seen = trunk.forward_features(images)
    pooled = visual.head(trunk.forward_head(seen))
    patches = seen[:, trunk.num_prefix_tokens :]
    if getattr(trunk, "attn_pool", None) is not None:
        alone = _each_alone(patches, trunk.attn_pool)
        patches = alone.view(*patches.shape[:2], -1)
    return pooled, visual.head(trunk.head(trunk.head_drop(trunk.fc_norm(patches))))


def _resnet(visual: nn.Module) -> bool:
    return isinstance(visual, ModifiedResNet)


def _encode_resnet(visual: nn.Module, images: Tensor) -> Both:
    cells = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        cells = layer(cells)
    pool = visual.attnpool
    pooled = pool(cells)
    placed = cells.flatten(2).mT + pool.positional_embedding[1:].to(cells.dtype)
    return pooled, pool.c_proj(pool.v_proj(placed))


IMAGE_RULES = (
    ImageRule("its patches, normed and projected as the reference does", _plain_vit,
              _encode_plain_vit),
    ImageRule("its patches, each alone through the attention pool (our rule)", _pooler_vit,
              _encode_pooler_vit),
    ImageRule("its patches, each alone through the tower's head (our rule)", _timm_vit,
              _encode_timm_vit),
    ImageRule("its cells, each alone through the attention pool (our rule, as MaskCLIP's)",
              _resnet, _encode_resnet),
)  # fmt: skip


# --- Texts --------------------------------------------------------------------------------------


def encode_text(text: nn.Module, ids: Tensor) -> Both:
    """Features [N, D] and tokens [N, T, D] of whole texts, for any pooling of open_clip's tower and
    for towers that say themselves.
    """
    if hasattr(text, "with_tokens"):
        return text.with_tokens(ids)
    words, mask = text._embeds(ids)
    words = text.transformer(words, attn_mask=mask)
    words = text.ln_final(words)
    if text.cls_emb is not None:
        pooled, words = words[:, -1], words[:, :-1]
    else:
        pooled = text_global_pool(words, ids, text.pool_type, getattr(text, "eos_id", None))
    return project(text, pooled), project(text, words)
