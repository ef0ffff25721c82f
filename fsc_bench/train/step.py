"""A step: a batch turned into losses and gradients, whole or in parts, and the dev split's loss.

It moves no weight: the optimiser, the schedule and what is written are the loop's.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from fsc_bench.train.batches import Batches, Part, Pixels
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.losses import autocast, mean_row_count
from fsc_bench.train.objective import (
    Features,
    feature_terms,
    local_term,
    negative_accuracy,
    weighted,
)
from fsc_bench.train.towers import Encoded, Teacher, Towers

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Around:
    """What the losses of a batch need beside its features."""

    negative_mask: Tensor  # [B, K]
    positive_mask: Tensor | None  # [B]
    rows: Tensor  # of the hard-negative losses' mean, over all processes
    teacher: Features | None
    thresholds: Tensor  # [K], CE-CLIP's


@dataclass(frozen=True)
class Shares:
    """Gradients of a whole batch's loss at its features, at the logit scale and its bias."""

    images: Tensor  # [B, D]
    texts: Tensor  # [B, 1 + K, D]
    positives: Tensor | None  # [B, D]
    scale: Tensor
    bias: Tensor | None

    def surrogate(self, mine: Features, rows: slice, encoded: Encoded, last: bool) -> Tensor:
        """A sum whose gradient at the features of `rows` is theirs; the scale's counts once."""
        total = (mine.images * self.images[rows]).sum()
        total = total + (mine.texts * self.texts[rows]).sum()
        if mine.positives is not None:
            total = total + (mine.positives * self.positives[rows]).sum()
        total = total + encoded.logit_scale * (self.scale if last else 0.0)
        if encoded.logit_bias is None:
            return total
        return total + encoded.logit_bias * (self.bias if last else 0.0)


@dataclass
class Worker:
    """What turns a batch into losses and gradients."""

    config: TrainConfig
    encode: nn.Module  # Towers, sharded or not, or DistributedDataParallel around them
    pixels: Pixels
    device: str
    teacher: Teacher | None

    def gradients(
        self, batch: list[Part], step: int, rank: int, scaler, thresholds: Tensor
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Adds the batch's gradients. Returns the terms, next thresholds and [hits, rows]."""
        mask = self._moved([part.negative_mask for part in batch])
        around = Around(
            mask,
            self._positive_mask(batch),
            mean_row_count(mask, self.config.gather),
            self._taught(batch),
            thresholds,
        )
        # What is random in a step comes from its numbers: nothing to save or to restore.
        seeds = [_step_seed(self.config.seed, step, rank, number) for number in range(len(batch))]
        compute = self._whole if len(batch) == 1 else self._in_parts
        terms, following, features = compute(batch, seeds, scaler, around)
        terms = {name: term.detach() for name, term in terms.items()}
        return terms, following, negative_accuracy(features, mask)

    def _whole(
        self, batch: list[Part], seeds: list[int], scaler, around: Around
    ) -> tuple[dict[str, Tensor], Tensor | None, Features]:
        (part,), (seed,) = batch, seeds
        torch.manual_seed(seed)
        encoded = self._forward(self.encode, part)
        features = Features.of(part, encoded)
        terms, following = self._terms(features, encoded.logit_scale, encoded.logit_bias, around)
        if self.config.local_hn_weight:
            terms["local_hn"] = self._local(part, encoded, around.rows)
        scaler.scale(weighted(self.config, terms)).backward()
        return terms, following, features

    def _in_parts(
        self, batch: list[Part], seeds: list[int], scaler, around: Around
    ) -> tuple[dict[str, Tensor], Tensor | None, Features]:
        """Cached gradients (arXiv 2101.06983): encode all parts without a graph, take the gradient
        of the whole batch's loss at the features, then encode part by part again and hand each its
        share. A row's local loss needs nothing of other rows, so it is computed on the way.
        """
        terms, following, features, shares = self._cache(batch, seeds, scaler, around)
        local, at = [], 0
        for part, seed in zip(batch, seeds, strict=True):
            rows, last = slice(at, at + len(part.images)), part is batch[-1]
            silent = hasattr(self.encode, "no_sync") and not last
            with self.encode.no_sync() if silent else contextlib.nullcontext():
                torch.manual_seed(seed)
                encoded = self._forward(self.encode, part)
                mine = Features.of(part, encoded)
                surrogate = shares.surrogate(mine, rows, encoded, last)
                if self.config.local_hn_weight:
                    term = self._local(part, encoded, around.rows)
                    local.append(term.detach())
                    surrogate = surrogate + scaler.scale(self.config.local_hn_weight * term)
                surrogate.backward()
            at = rows.stop
        if local:
            terms["local_hn"] = torch.stack(local).sum()
        return terms, following, features

    def _cache(
        self, batch: list[Part], seeds: list[int], scaler, around: Around
    ) -> tuple[dict[str, Tensor], Tensor | None, Features, Shares]:
        with torch.no_grad():
            cached = []
            for part, seed in zip(batch, seeds, strict=True):
                torch.manual_seed(seed)
                encoded = self._forward(self._bare, part, tokens=False)
                cached.append(Features.of(part, encoded))
        joined = Features.join(cached)
        # Of the features one part after another, of the logit scale and bias once.
        leaves = (joined.images, joined.texts, joined.positives, encoded.logit_scale,
                  encoded.logit_bias)  # fmt: skip
        images, texts, positives, scale, bias = leaves = [_leaf(value) for value in leaves]
        features = Features(images, texts, positives)
        terms, following = self._terms(features, scale, bias, around)
        scaler.scale(weighted(self.config, terms)).backward()
        return terms, following, features, Shares(*(_slope(leaf) for leaf in leaves))

    @torch.no_grad()
    def evaluate(self, dev: Batches, thresholds: Tensor) -> tuple[float, dict[str, float]]:
        """The mean loss on the dev split and, in percent, accuracy and recall within a batch."""
        totals, hits, count = [], torch.zeros(2), torch.zeros(3)
        self._bare.eval()
        for step in range(dev.steps_per_epoch):
            (part,) = batch = dev[step]
            mask = self._moved([part.negative_mask])
            around = Around(
                mask, self._positive_mask(batch), mask.any(1).sum().clamp_min(1).float(),
                self._taught(batch), thresholds,
            )  # fmt: skip
            encoded = self._forward(self._bare, part)
            features = Features.of(part, encoded)
            terms, _ = self._terms(
                features, encoded.logit_scale, encoded.logit_bias, around, gather=_same
            )
            if self.config.local_hn_weight:
                terms["local_hn"] = self._local(part, encoded, around.rows)
            totals.append(float(weighted(self.config, terms)))
            hits += negative_accuracy(features, mask).cpu()
            count += _recalled(features)
        self._bare.train()
        figures = {"i2t": float(100 * count[0] / count[2]), "t2i": float(100 * count[1] / count[2])}
        if hits[1]:
            figures["negatives"] = float(100 * hits[0] / hits[1])
        return float(np.mean(totals)), figures

    def _terms(
        self, features: Features, scale: Tensor, bias: Tensor | None, around: Around, **options
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        return feature_terms(
            self.config, features, around.negative_mask, scale, around.rows, logit_bias=bias,
            positive_mask=around.positive_mask, teacher=around.teacher,
            thresholds=around.thresholds, **options,
        )  # fmt: skip

    def _local(self, part: Part, encoded: Encoded, rows: Tensor) -> Tensor:
        return local_term(self.config, part, encoded, rows, encoded.logit_scale)

    @property
    def _bare(self) -> Towers:
        return getattr(self.encode, "module", self.encode)

    def _forward(self, encode: nn.Module, part: Part, tokens: bool = True) -> Encoded:
        images = self.pixels.normalise(part.images.to(self.device, non_blocking=True))
        ids = [block.ids.to(self.device, non_blocking=True) for block in part.texts]
        ends = [block.end.to(self.device, non_blocking=True) for block in part.texts]
        dtype = DTYPES.get(self.config.precision)
        kind = torch.device(self.device).type
        with autocast(kind, dtype):
            return encode(images, ids, ends, tokens)

    def _positive_mask(self, batch: list[Part]) -> Tensor | None:
        if batch[0].positive_mask is None:
            return None
        return self._moved([part.positive_mask for part in batch])

    def _moved(self, masks: list[Tensor]) -> Tensor:
        # A plain copy would wait for all that the GPU was given, the last step's optimiser too.
        return torch.cat(masks).to(self.device, non_blocking=True)

    @torch.no_grad()
    def _taught(self, batch: list[Part]) -> Features | None:
        wanted = self.config.text_grounded_weight or self.config.distillation_weight
        if self.teacher is None or not wanted:
            return None
        parts = [(part, self._forward(self.teacher.towers, part, tokens=False)) for part in batch]
        return Features.join([Features.of(part, encoded) for part, encoded in parts])


def mean_report(
    total: Tensor, terms: Mapping[str, Tensor], accuracy: Tensor, batch: list[Part]
) -> dict[str, float]:
    """Of all processes: loss, terms, accuracy over hard negatives in percent, unusable pairs."""
    bad = sum(len(part.bad) for part in batch)
    numbers = torch.stack(
        [total.detach(), *terms.values(), *accuracy, total.new_full((), float(bad))]
    ).double()
    world = 1
    if distributed.is_available() and distributed.is_initialized():
        world = distributed.get_world_size()
        distributed.all_reduce(numbers)
    *parts, hits, rows, bad = numbers.tolist()
    loss, *values = (part / world for part in parts)
    report = {"loss": loss, **dict(zip(terms, values, strict=True)), "bad": bad}
    if rows:
        report["negative_accuracy"] = 100 * hits / rows
    return report


def _recalled(features: Features) -> Tensor:
    """[images that find their caption, captions that find their image, pairs] of a batch."""
    similarity = features.images @ features.texts[:, 0].T
    target = torch.arange(len(similarity), device=similarity.device)
    i2t = (similarity.argmax(1) == target).sum().cpu()
    t2i = (similarity.argmax(0) == target).sum().cpu()
    return torch.stack([i2t, t2i, torch.tensor(len(target))])


def _leaf(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().requires_grad_()


def _slope(leaf: Tensor | None) -> Tensor | None:
    """A leaf's gradient; zeros where no loss looks at it."""
    if leaf is None:
        return None
    return leaf.grad if leaf.grad is not None else 0 * leaf.detach()


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _step_seed(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest())
