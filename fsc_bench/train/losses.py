"""Losses of FSC-CLIP (arXiv 2410.05210) as functions of tensors. Others' are related_losses.py.

No towers, no state, no weights: every term is returned unweighted, and `weighted_sum` adds them.
All of them compute in float32 (float64 where the input is), also inside autocast.

Shapes: B images, each with one caption and K hard negatives, P patches, T text positions,
D dimensions. Features are unit length, tokens raw. `logit_scale` is s = 1/temperature, not its log.
A hard negative that `negative_mask` marks absent has, by default, no part in any softmax
(`missing="mask"`); `missing="zero"` keeps it with logit 0, as the reference code does.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Literal, ParamSpec, TypeVar, get_args

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsc_bench.errors import FscBenchError, near_miss
from fsc_bench.train.tokens import TextTokens, pack_tokens

Alignment = Literal["minmax", "minmax-sparse", "softmax"]
Missing = Literal["mask", "zero"]
Gather = Literal["whole", "reference"]

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def fsc_clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    *,
    negative_features: Tensor,
    negative_mask: Tensor,
    image_tokens: Tensor,
    text_tokens: Tensor,
    text_token_mask: Tensor,
    negative_tokens: Tensor,
    negative_token_mask: Tensor,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    alignment: Alignment = "minmax",
    missing: Missing = "mask",
) -> dict[str, Tensor]:
    """The three terms of FSC-CLIP's loss (paper eq. 10), unweighted.

    Features `[B, D]` and `[B, K, D]`, tokens `[B, P, D]`, `[B, T, D]` and `[B, K, T, D]`, masks
    true where a hard negative or token is there. Returns scalars `contrastive`, `global_hn` and
    `local_hn`. A training loop calls the three functions below with tokens packed already.
    """
    hard_negatives = {
        "focal_gamma": focal_gamma,
        "label_smoothing": label_smoothing,
        "missing": missing,
    }
    packed, token_text_index = pack_texts(
        text_tokens, text_token_mask, negative_tokens, negative_token_mask, negative_mask
    )
    return {
        "contrastive": contrastive_loss(image_features, text_features, logit_scale),
        "global_hn": global_hn_loss(
            image_features,
            text_features,
            logit_scale,
            negative_features,
            negative_mask,
            **hard_negatives,
        ),
        "local_hn": local_hn_loss_packed(
            image_tokens,
            packed,
            token_text_index,
            negative_mask,
            logit_scale,
            alignment=alignment,
            **hard_negatives,
        ),
    }


def in_full_precision(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Turns autocast off inside `function`: logits near 100 have no room in half precision."""

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with autocast(tensor.device.type, None):
            return function(*args, **kwargs)

    return call


def autocast(kind: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Autocast to `dtype` on a kind of device, off for None. Tensors of shapes alone (meta) have
    none, and are what they are.
    """
    if kind == "meta":
        return contextlib.nullcontext()
    return torch.autocast(kind, dtype=dtype, enabled=dtype is not None)


def upcast(*tensors: Tensor) -> list[Tensor]:
    """All of them in float32, or in float64 where one of them is."""
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return [tensor.to(torch.float64 if double else torch.float32) for tensor in tensors]


def one_of(name: str, value: str, choices: object) -> None:
    """Raises FscBenchError where `value` is none of a Literal's `choices`."""
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise FscBenchError(
            f"no {name} called {value!r} (known: {known}).{near_miss(value, get_args(choices))}"
        )


# --- Contrastive --------------------------------------------------------------------------------


@in_full_precision
def contrastive_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float
) -> Tensor:
    """CLIP's loss over `[B, D]` images and texts (paper eq. 1), the mean of both directions.

    Pass `gather_features(...)` of both to contrast with the whole batch of all processes.
    """
    image_features, text_features = upcast(image_features, text_features)
    logits = logit_scale * image_features @ text_features.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def gather_features(tensor: Tensor, how: Gather = "whole") -> Tensor:
    """Concatenate `[B, ...]` of all processes along the first axis, with gradient to each.

    Every process must bring the same shape. The gradient is the sum over all processes' losses,
    so a loss of gathered features on every process, with gradients averaged over processes (as
    DDP does), is the loss of one process with the whole batch. Returns `tensor` itself when
    torch.distributed is not initialised or there is one process.

    With `how="reference"` a process keeps the gradient of its own loss alone, as the reference code
    (and open_clip without gather_with_grad) has it: averaged over P processes, features get a
    P-th of the gradient, and what is not gathered weighs P times as much beside it.
    """
    if not _several_processes():
        return tensor
    return _Gather.apply(tensor, how)


def _several_processes() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor, how):
        ctx.rows, ctx.how = len(tensor), how
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        if ctx.how == "whole":
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            distributed.all_reduce(gradient)
        start = distributed.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows], None


# --- Hard negatives -----------------------------------------------------------------------------


def hard_negative_cross_entropy(
    logits: Tensor,
    negative_mask: Tensor,
    *,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    missing: Missing = "mask",
    rows: Tensor | float | None = None,
) -> Tensor:
    """Caption against its own hard negatives, selectively calibrated (paper eq. 9, "SCR").

    `logits` is `[B, 1 + K]`, the caption first. Labels are smoothed over the hard negatives that
    exist, and every class's term carries its focal factor (1 - p)^gamma, gradient included;
    gamma = beta = 0 is cross-entropy. Rows without a hard negative are left out: the sum is
    divided by `rows`, by default the number of rows left (see `mean_row_count`), at least 1.
    """
    one_of("missing", missing, Missing)
    negative_mask = negative_mask.bool()
    present = F.pad(negative_mask, (1, 0), value=True)
    logits = logits.masked_fill(~present, -torch.inf if missing == "mask" else 0.0)
    log_p = logits.log_softmax(-1).masked_fill(~present, 0.0)  # not -inf: 0 * -inf is NaN

    target = label_smoothing * F.normalize(present.to(log_p.dtype), p=1.0)
    target[:, 0] += 1.0 - label_smoothing
    weighted = target * log_p
    if focal_gamma:
        # Kept off zero, where the slope of x^gamma is infinite for gamma < 1.
        rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        weighted = weighted * rest**focal_gamma

    kept = negative_mask.any(-1)
    total = -weighted.sum(-1).masked_fill(~kept, 0.0).sum()
    return total / (kept.sum().clamp_min(1) if rows is None else rows)


def mean_row_count(negative_mask: Tensor, how: Gather = "whole") -> Tensor:
    """Rows `[B, K]` with a hard negative, as a mean over the processes; 0-d, above 0, no gradient.

    As `rows` of the hard-negative losses it makes their average over processes (DDP's average
    of gradients) the loss of one process with the whole batch, however unevenly rows fall. With
    `how="reference"` each process divides by its own rows.
    """
    count = negative_mask.bool().any(-1).sum().float()
    if how == "reference" or not _several_processes():
        return count.clamp_min(1.0)
    distributed.all_reduce(count)
    return count.clamp_min(1.0) / distributed.get_world_size()


@in_full_precision
def global_hn_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    negative_features: Tensor,
    negative_mask: Tensor,
    *,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    missing: Missing = "mask",
    rows: Tensor | float | None = None,
) -> Tensor:
    """Each image picks its caption among its own hard negatives `[B, K, D]` (paper eq. 2).

    With gamma = beta = 0 it is also TSVLC's negative loss and DeGLA's image-grounded contrast.
    """
    image_features, text_features, negative_features = upcast(
        image_features, text_features, negative_features
    )
    return hard_negative_cross_entropy(
        logit_scale * own_texts(image_features, text_features, negative_features, negative_mask),
        negative_mask,
        focal_gamma=focal_gamma,
        label_smoothing=label_smoothing,
        missing=missing,
        rows=rows,
    )


def own_texts(anchor: Tensor, caption: Tensor, negatives: Tensor, negative_mask: Tensor) -> Tensor:
    """Cosines `[B, 1 + K]` of each anchor with its caption and its hard negatives."""
    # An absent hard negative's features are whatever the caller left there, NaN included.
    negatives = negatives.masked_fill(~negative_mask.bool()[..., None], 0.0)
    positive = (anchor * caption).sum(-1, keepdim=True)
    return torch.cat([positive, (negatives @ anchor[..., None]).squeeze(-1)], dim=1)


# --- The local loss -----------------------------------------------------------------------------


def pack_texts(
    text_tokens: Tensor,
    text_token_mask: Tensor,
    negative_tokens: Tensor,
    negative_token_mask: Tensor,
    negative_mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """`pack_tokens` for captions `[B, T, D]` and hard negatives `[B, K, T, D]`, padded alike.

    Returns tokens `[B, L, D]` and their text index `[B, L]`; absent hard negatives are left out.
    """
    batch, negatives = negative_mask.shape
    device = text_tokens.device
    images = torch.arange(batch, device=device)
    captions = TextTokens(text_tokens, text_token_mask, images, torch.zeros_like(images))
    texts = torch.arange(1, negatives + 1, device=device).repeat(batch)
    mask = negative_token_mask.bool() & negative_mask.bool()[..., None]
    others = TextTokens(
        negative_tokens.flatten(0, 1),
        mask.flatten(0, 1),
        images.repeat_interleave(negatives),
        texts,
    )
    return pack_tokens([captions, others], batch)


@in_full_precision
def local_hn_loss_packed(
    image_tokens: Tensor,
    packed_text_tokens: Tensor,
    token_text_index: Tensor,
    negative_mask: Tensor,
    logit_scale: Tensor | float,
    *,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    alignment: Alignment = "minmax",
    missing: Missing = "mask",
    rows: Tensor | float | None = None,
) -> Tensor:
    """Each image picks its caption among its own hard negatives by local scores (eq. 6-8).

    `image_tokens` is `[B, P, D]`, `packed_text_tokens` `[B, L, D]` and `token_text_index`
    `[B, L]`, as `pack_tokens` makes them: 0 for the caption, k for hard negative k, -1 for padding.
    A hard negative without a token counts as absent, and so does a row whose caption has none.
    """
    logits = local_scores(
        image_tokens,
        packed_text_tokens,
        token_text_index,
        1 + negative_mask.shape[1],
        logit_scale,
        alignment=alignment,
    )
    has_tokens = ~logits.isneginf()
    return hard_negative_cross_entropy(
        logits.masked_fill(~has_tokens, 0.0),
        negative_mask.bool() & has_tokens[:, 1:] & has_tokens[:, :1],
        focal_gamma=focal_gamma,
        label_smoothing=label_smoothing,
        missing=missing,
        rows=rows,
    )


@in_full_precision
def local_scores(
    image_tokens: Tensor,
    packed_text_tokens: Tensor,
    token_text_index: Tensor,
    texts: int,
    logit_scale: Tensor | float,
    *,
    alignment: Alignment = "minmax",
) -> Tensor:
    """Local scores `[B, texts]` (log of paper eq. 8): logsumexp over words of s * cosine.

    The cosine is between a word and the patches it attends to. A text without tokens scores -inf.
    """
    one_of("alignment", alignment, Alignment)
    cosine = _AlignedCosine.apply(image_tokens, packed_text_tokens, alignment)
    which = torch.arange(texts, device=cosine.device)[:, None]
    belongs = token_text_index.to(cosine.device)[:, None, :] == which  # [B, texts, L]
    empty = ~belongs.any(-1)
    scores = (logit_scale * cosine)[:, None, :].masked_fill(~belongs, -torch.inf)
    # logsumexp of nothing has no gradient to give but NaN; an empty text never gets that far.
    scores = scores.masked_fill(empty[..., None], 0.0).logsumexp(-1)
    return scores.masked_fill(empty, -torch.inf)


class _AlignedCosine(torch.autograd.Function):
    """Cosine `[B, L]` of each word `[B, L, D]` with its attended patches of `[B, P, D]`.

    Attention carries no gradient (reference code; the paper does not say). What is saved for
    backward is the inputs, attention `[B, L, P]` and three numbers a word; the attended patches,
    as large as the packed tokens again, are recomputed.
    """

    @staticmethod
    def forward(ctx, image_tokens, text_tokens, alignment):
        attention, cosine, inverse_attended, inverse_word = _aligned(
            image_tokens, text_tokens, alignment
        )
        ctx.save_for_backward(
            image_tokens, text_tokens, attention, cosine, inverse_attended, inverse_word
        )
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (image_tokens, text_tokens, attention, cosine, inverse_attended, inverse_word) = (
            ctx.saved_tensors
        )
        with autocast(image_tokens.device.type, None):
            patches, words = upcast(image_tokens, text_tokens)
            attended = attention @ patches
            both = (gradient * inverse_attended * inverse_word)[..., None]
            image_gradient = text_gradient = None
            if ctx.needs_input_grad[1]:
                own = (gradient * cosine * inverse_word**2)[..., None]
                text_gradient = (both * attended).addcmul_(own, words, value=-1)
                text_gradient = text_gradient.to(text_tokens.dtype)
            if ctx.needs_input_grad[0]:
                own = (gradient * cosine * inverse_attended**2)[..., None]
                to_attended = (both * words).addcmul_(own, attended, value=-1)
                image_gradient = (attention.mT @ to_attended).to(image_tokens.dtype)
        return image_gradient, text_gradient, None


@in_full_precision
def _aligned(
    image_tokens: Tensor, text_tokens: Tensor, alignment: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention `[B, L, P]`, cosine `[B, L]`, and the inverse norms of both sides of the cosine."""
    patches, words = upcast(image_tokens, text_tokens)
    similarity, attention = _attend(patches, words, alignment)
    attended = attention @ patches
    # A sum of patches that cancel to less than the input's rounding has no direction: the
    # cosine is 0 and has no gradient, where 1 / norm would be anything up to infinity.
    patch_norms = torch.linalg.vector_norm(patches, dim=-1)
    spread = (attention @ patch_norms[..., None]).squeeze(-1)
    noise = (torch.finfo(image_tokens.dtype).eps * spread).clamp_min(1e-12)
    inverse_attended = _inverse(torch.linalg.vector_norm(attended, dim=-1), noise)
    inverse_word = _inverse(torch.linalg.vector_norm(words, dim=-1), 1e-12)
    # words . attended, without another pass over D
    inner = (attention * similarity).sum(-1)
    return attention, inner * inverse_attended * inverse_word, inverse_attended, inverse_word


@torch.no_grad()
def word_alignment(
    image_tokens: Tensor, packed_text_tokens: Tensor, *, alignment: Alignment = "minmax"
) -> tuple[Tensor, Tensor]:
    """What the local loss makes of each word, to be looked at: attention `[B, L, P]`, of the scale
    that the loss has it in, and the cosine `[B, L]` of a word with the patches it attends to.
    """
    one_of("alignment", alignment, Alignment)
    attention, cosine, _, _ = _aligned(image_tokens, packed_text_tokens, alignment)
    return attention, cosine


def _attend(patches: Tensor, words: Tensor, alignment: str) -> tuple[Tensor, Tensor]:
    """Similarity and attention `[B, L, P]`, of any positive scale: it cancels in the cosine."""
    similarity = words @ patches.mT
    if alignment == "softmax":
        return similarity, similarity.softmax(-1)
    low, high = similarity.aminmax(dim=-1, keepdim=True)
    span = high - low
    # All patches alike, or one patch: 0/0 in the reference, uniform attention here.
    flat = span < torch.finfo(span.dtype).tiny
    attention = (similarity - low) / span
    if alignment == "minmax-sparse":
        attention = attention.masked_fill(attention < 1.0 / patches.shape[1], 0.0)
    return similarity, attention.masked_fill(flat, 1.0)


def _inverse(norm: Tensor, floor: Tensor | float) -> Tensor:
    return torch.where(norm > floor, norm.reciprocal(), 0.0)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of `terms`, each times its weight. A name on one side only is an FscBenchError."""
    if odd := sorted(set(terms) ^ set(weights)):
        raise FscBenchError(
            f"losses {sorted(terms)} and weights {sorted(weights)} differ in {', '.join(odd)}."
        )
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
