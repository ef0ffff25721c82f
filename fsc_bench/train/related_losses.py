"""Losses of other methods: SigLIP, NegCLIP, CE-CLIP, TSVLC and DeGLA, as functions of tensors.

Shapes, precision and absent hard negatives are as in losses.py, which holds FSC-CLIP's own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsc_bench.train.losses import (
    Missing,
    hard_negative_cross_entropy,
    in_full_precision,
    one_of,
    own_texts,
    upcast,
)


@in_full_precision
def sigmoid_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    negative_features: Tensor | None = None,
    negative_mask: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, algorithm 1) over `[B, D]` images and texts.

    Each of the B * B pairs is told apart by itself; the sum is divided by B. Hard negatives
    `[B, K, D]` are further pairs with label -1, each with its own image alone, in our words
    (m is `negative_mask`, s the scale, b the bias, v images, t texts, h hard negatives):

        L = -1/B sum_i [ sum_j log sigmoid(y_ij (s v_i.t_j + b))
                         + sum_k m_ik log sigmoid(-(s v_i.h_ik + b)) ],  y_ij = 1 if i = j, else -1

    An absent one has no part in it. All are `gather_features(...)`, as for `contrastive_loss`.
    """
    image_features, text_features = upcast(image_features, text_features)
    logits = logit_scale * image_features @ text_features.T + logit_bias
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    total = F.logsigmoid(signs * logits).sum()
    if negative_features is not None:
        present = negative_mask.bool()
        # An absent hard negative's features are whatever the caller left there, NaN included.
        further = upcast(negative_features)[0].masked_fill(~present[..., None], 0.0)
        further = (further.to(logits.dtype) @ image_features[..., None]).squeeze(-1)
        refused = F.logsigmoid(-(logit_scale * further + logit_bias))
        total = total + refused.masked_fill(~present, 0.0).sum()
    return -total / len(logits)


@in_full_precision
def negclip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    negative_features: Tensor,
    negative_mask: Tensor,
    *,
    missing: Missing = "mask",
) -> Tensor:
    """CLIP's loss with all B*K hard negatives as further columns of image-to-text (NegCLIP).

    Texts to images sees the captions only. Absent hard negatives are `[B, K]` columns of -inf, or
    of logit 0 with `missing="zero"` (arXiv 2210.01936, and FSC-CLIP's own NegCLIP baseline).
    """
    one_of("missing", missing, Missing)
    image_features, text_features, negative_features = upcast(
        image_features, text_features, negative_features
    )
    logits = logit_scale * image_features @ text_features.T
    present = negative_mask.bool().flatten()
    columns = negative_features.flatten(0, 1).masked_fill(~present[:, None], 0.0)
    further = logit_scale * image_features @ columns.T
    if missing == "mask":
        further = further.masked_fill(~present, -torch.inf)
    labels = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(torch.cat([logits, further], dim=1), labels)
    return (to_text + F.cross_entropy(logits.T, labels)) / 2


@in_full_precision
def cross_modal_rank_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    negative_features: Tensor,
    negative_mask: Tensor,
    thresholds: Tensor,
) -> Tensor:
    """CE-CLIP's hinge (arXiv 2306.08832, L_cmr): caption above each hard negative by a margin.

    `thresholds` is `[K]`, in units of logits, one per type of hard negative: those that
    `rank_thresholds` gave for the step before, zeros at the start of each epoch. The mean is over
    all B*K, absent ones counting 0, as released.
    """
    image_features, text_features, negative_features = upcast(
        image_features, text_features, negative_features
    )
    logits = logit_scale * own_texts(
        image_features, text_features, negative_features, negative_mask
    )
    margin = F.relu(logits[:, 1:] + thresholds.to(logits) - logits[:, :1])
    return (margin * negative_mask.bool()).sum() / max(negative_mask.numel(), 1)


@torch.no_grad()
@in_full_precision
def rank_thresholds(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    negative_features: Tensor,
    negative_mask: Tensor,
) -> Tensor:
    """The next step's `[K]` thresholds of `cross_modal_rank_loss`: the mean lead of the captions.

    The mean logit of captions less that of the hard negatives present, within 0 and 10; 0 for a
    type of which the batch has none.
    """
    image_features, text_features, negative_features = upcast(
        image_features, text_features, negative_features
    )
    logits = logit_scale * own_texts(
        image_features, text_features, negative_features, negative_mask
    )
    present = negative_mask.bool()
    count = present.sum(0)
    mean = logits[:, 1:].masked_fill(~present, 0.0).sum(0) / count.clamp_min(1)
    return (logits[:, 0].mean() - mean).clamp(0.0, 10.0).masked_fill(count == 0, 0.0)


@in_full_precision
def intra_modal_contrast_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    negative_features: Tensor,
    negative_mask: Tensor,
    *,
    as_released: bool = False,
) -> Tensor:
    """CE-CLIP's L_imc: the pair (image, caption) against the caption with every hard negative.

    `as_released` gives what an early public version computes: no positive column, and the
    batch's first hard negative as the label of every row. Absent hard negatives take no part.
    """
    image_features, text_features, negative_features = upcast(
        image_features, text_features, negative_features
    )
    present = negative_mask.bool().flatten()
    columns = negative_features.flatten(0, 1).masked_fill(~present[:, None], 0.0)
    logits = (logit_scale * text_features @ columns.T).masked_fill(~present, -torch.inf)
    if as_released:
        # Row 0's first hard negative may be absent: the first that exists stands in for it.
        logits = logits[:, present]
        if logits.shape[1] == 0:
            return text_features.sum() * 0.0
    else:
        positive = logit_scale * (image_features * text_features).sum(-1, keepdim=True)
        logits = torch.cat([positive, logits], dim=1)
    return -logits.log_softmax(-1)[:, 0].mean()


@in_full_precision
def positive_text_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    positive_features: Tensor,
    positive_mask: Tensor,
) -> Tensor:
    """TSVLC's positive loss (arXiv 2211.11733): images and captions pick their paraphrase.

    The mean of CE(I, T+) and CE(T, T+) over the batch's paraphrases `[B, D]`. A row that
    `positive_mask` `[B]` marks absent is left out, as an anchor and as a column; with none left it
    is 0. Like `contrastive_loss` it takes `gather_features(...)` of everything, the mask included.
    """
    image_features, text_features, positives = upcast(
        image_features, text_features, positive_features
    )
    present = positive_mask.bool()
    # An absent paraphrase's features are whatever the caller left there, NaN included.
    positives = positives.masked_fill(~present[:, None], 0.0)
    labels = torch.arange(len(positives), device=positives.device)
    # Masked and not cut out: no shape depends on the data, so no GPU is waited for.
    rows = present.sum().clamp_min(1)
    total = 0.0
    for anchors in (image_features, text_features):
        logits = (logit_scale * anchors @ positives.T).masked_fill(~present, -torch.inf)
        logits = logits.masked_fill(~present[:, None], 0.0)  # such rows are zeroed below
        total = total + F.cross_entropy(logits, labels, reduction="none").masked_fill(~present, 0.0)
    return total.sum() / rows / 2


@in_full_precision
def text_grounded_contrast_loss(
    text_features: Tensor,
    teacher_text_features: Tensor,
    negative_features: Tensor,
    negative_mask: Tensor,
    *,
    scale: float = 10.0,
    rows: Tensor | float | None = None,
) -> Tensor:
    """DeGLA's TGC: a caption picks its teacher's `[B, D]` embedding among its hard negatives.

    The teacher (a moving average of the model) gets no gradient. `scale` is fixed, as released.
    """
    text_features, teacher, negative_features = upcast(
        text_features, teacher_text_features.detach(), negative_features
    )
    logits = scale * own_texts(text_features, teacher, negative_features, negative_mask)
    return hard_negative_cross_entropy(logits, negative_mask, rows=rows)


@in_full_precision
def distillation_loss(features: Tensor, teacher_features: Tensor) -> Tensor:
    """DeGLA's distance from its teacher: the squared error summed over `[N, D]`, as released.

    A sum, so several processes must pass gathered features. The teacher gets no gradient.
    """
    features, teacher = upcast(features, teacher_features.detach())
    return (features - teacher).square().sum()
