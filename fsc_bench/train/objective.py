"""The objective of a batch: the losses that a config switches on, over all parts and processes.

Which losses there are is `losses` and `related_losses`; what they are weighted with is the config.
No optimiser here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fsc_bench.train import losses, related_losses
from fsc_bench.train.batches import Part
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.tokens import TextTokens, pack_tokens
from fsc_bench.train.towers import Encoded


@dataclass(frozen=True)
class Features:
    """The unit-length features of a batch, which the contrast needs all at once."""

    images: Tensor  # [B, D]
    texts: Tensor  # [B, 1 + K, D], the caption first; zeros where a hard negative is absent
    positives: Tensor | None = None  # [B, D], paraphrases; zeros where one is absent

    @classmethod
    def of(cls, part: Part, encoded: Encoded) -> "Features":
        """Puts the texts of a part's blocks where they belong."""
        rows, kinds = part.negative_mask.shape
        own = 1 + kinds + (part.positive_mask is not None)
        flat = torch.cat(encoded.text_features)
        places = [block.image_index * own + block.text_index for block in part.texts]
        places = torch.cat(places).to(flat.device, non_blocking=True)
        texts = flat.new_zeros(rows * own, flat.shape[1]).index_copy(0, places, flat)
        texts = texts.view(rows, own, -1)
        if part.positive_mask is None:
            return cls(encoded.image_features, texts)
        return cls(encoded.image_features, texts[:, : 1 + kinds], texts[:, -1])

    @classmethod
    def join(cls, parts: "list[Features]") -> "Features":
        if len(parts) == 1:
            return parts[0]
        positives = None
        if parts[0].positives is not None:
            positives = torch.cat([p.positives for p in parts])
        images, texts = torch.cat([p.images for p in parts]), torch.cat([p.texts for p in parts])
        return cls(images, texts, positives)


def feature_terms(
    config: TrainConfig,
    features: Features,
    negative_mask: Tensor,
    logit_scale: Tensor,
    rows: Tensor,
    *,
    logit_bias: Tensor | None = None,
    positive_mask: Tensor | None = None,
    teacher: Features | None = None,
    thresholds: Tensor | None = None,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Every loss of whole features that has a weight, and the next step's rank thresholds `[K]`.

    `rows` is `losses.mean_row_count`: averaged over processes, the terms are those of one process
    with the whole batch. With a `logit_bias` the contrast is SigLIP's,
    unless the config asks for CLIP's. `gather` is
    `losses.gather_features`, as the config says.
    """
    gather = gather or partial(losses.gather_features, how=config.gather)
    weights, terms, following = config.weights, {}, None
    own = (features.images, features.texts[:, 0], logit_scale, features.texts[:, 1:], negative_mask)
    images, captions = gather(features.images), gather(features.texts[:, 0].contiguous())
    everyone = (images, captions, logit_scale)
    if config.negative_columns or weights.keys() & {"intra_modal", "rank"}:
        mask = gather(negative_mask.to(torch.uint8)).bool()
        everyone = (*everyone, gather(features.texts[:, 1:].contiguous()), mask)
    calibrated = {
        "focal_gamma": config.focal_gamma,
        "label_smoothing": config.label_smoothing,
        "missing": config.missing,
        "rows": rows,
    }

    if "contrastive" in weights:
        terms["contrastive"] = contrast(config, everyone, logit_bias)
    if "global_hn" in weights:
        terms["global_hn"] = losses.global_hn_loss(*own, **calibrated)
    if "intra_modal" in weights:
        terms["intra_modal"] = related_losses.intra_modal_contrast_loss(
            *everyone, as_released=config.intra_modal_as_released
        )
    if "rank" in weights:
        terms["rank"] = related_losses.cross_modal_rank_loss(*own, thresholds)
        following = related_losses.rank_thresholds(*everyone)
    if "positive_text" in weights:
        terms["positive_text"] = related_losses.positive_text_loss(
            *everyone[:3], gather(features.positives.contiguous()),
            gather(positive_mask.to(torch.uint8)),
        )  # fmt: skip
    if "text_grounded" in weights:
        terms["text_grounded"] = related_losses.text_grounded_contrast_loss(
            features.texts[:, 0], teacher.texts[:, 0], features.texts[:, 1:], negative_mask,
            rows=rows,
        )  # fmt: skip
    if "distillation" in weights:
        mine = torch.cat([features.images, features.texts[:, 0]])
        theirs = torch.cat([teacher.images, teacher.texts[:, 0]])
        terms["distillation"] = related_losses.distillation_loss(gather(mine), gather(theirs))
    return terms, following


def contrast(config: TrainConfig, everyone: Sequence[Tensor], logit_bias: Tensor | None) -> Tensor:
    """The contrast over the whole batch: CLIP's, NegCLIP's, or SigLIP's with its bias.

    `everyone` is images, captions and logit scale, then hard negatives and their mask if used.
    """
    if logit_bias is not None and config.contrast != "softmax":
        further = everyone[3:] if config.negative_columns else ()
        return related_losses.sigmoid_loss(*everyone[:3], logit_bias, *further)
    if config.negative_columns:
        return related_losses.negclip_loss(*everyone, missing=config.missing)
    return losses.contrastive_loss(*everyone[:3])


def local_term(
    config: TrainConfig, part: Part, encoded: Encoded, rows: Tensor, logit_scale: Tensor
) -> Tensor:
    """A part's share of the local loss: its rows' sum over the whole batch's `rows`."""
    packed, text_index = packed_texts(part, encoded)
    return losses.local_hn_loss_packed(
        encoded.image_tokens,
        packed,
        text_index,
        part.negative_mask.to(packed.device, non_blocking=True),
        logit_scale,
        focal_gamma=config.focal_gamma,
        label_smoothing=config.label_smoothing,
        alignment=config.alignment,
        missing=config.missing,
        rows=rows,
    )


def packed_texts(part: Part, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """The tokens of a part's captions and hard negatives, packed for the local loss."""
    # A paraphrase has no part in it: a text without a token is not packed, and costs nothing.
    last = part.negative_mask.shape[1]
    blocks = [
        TextTokens(
            tokens,
            block.token_mask & (block.text_index <= last)[:, None],
            block.image_index,
            block.text_index,
        )
        for block, tokens in zip(part.texts, encoded.text_tokens, strict=True)
    ]
    return pack_tokens(blocks, len(part.images))


@torch.no_grad()
def negative_accuracy(features: Features, negative_mask: Tensor) -> Tensor:
    """[hits, rows]: images closer to their caption than to each of their hard negatives."""
    if not negative_mask.shape[1]:
        return features.images.new_zeros(2)
    cosine = (features.texts @ features.images[..., None]).squeeze(-1)
    best = cosine[:, 1:].masked_fill(~negative_mask, -torch.inf).amax(1)
    kept = negative_mask.any(1)
    return torch.stack([((cosine[:, 0] > best) & kept).sum(), kept.sum()]).float()


def weighted(config: TrainConfig, terms: dict[str, Any]) -> Tensor:
    """The sum of the terms that are there, each times its weight."""
    return losses.weighted_sum(terms, {name: config.weights[name] for name in terms})
