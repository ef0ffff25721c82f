"""Schedule: which pairs are held out, which weights decay, how fast they move, and what is held.

Functions of numbers and parameters; nothing here knows a batch or a loss.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import nn

from fsc_bench.errors import UsageError
from fsc_bench.models.shortcuts import parts
from fsc_bench.train import sharding
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.sources import Pairs

MAX_SCALE = 100.0  # arXiv 2103.00020: logits are never scaled by more


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear over `warmup_steps`, then a cosine to 0: the reference's, stepped per iteration."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict]:
    """The reference's two groups: no decay for vectors, norms, biases and the logit scale."""

    def plain(name: str, value: nn.Parameter) -> bool:
        return value.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    none = [value for name, value in parameters.items() if plain(name, value)]
    some = [value for name, value in parameters.items() if not plain(name, value)]
    groups = [
        {"params": none, "weight_decay": 0.0},
        {"params": some, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def hold_key_biases(model: nn.Module) -> None:
    """Zeros the gradients of attention's key biases, of which softmax takes no notice.

    They are zero but for rounding, and AdamW follows that as far as it follows any other gradient:
    after twenty steps another number of processes had moved them 1e-5, and all else 1e-7.
    """
    plain = []
    for bias, place, of in _key_biases(model):
        if bias is None or bias.grad is None:
            continue
        if not sharding.is_shard(bias.grad):
            plain.append(bias.grad.view(of, -1)[place])
            continue
        kept = torch.ones(of, bias.numel() // of, device=bias.device, dtype=bias.dtype)
        kept[place] = 0
        bias.grad *= sharding.part_of(kept.flatten(), bias.grad)
    if plain:
        torch._foreach_zero_(plain)  # one launch on a GPU, not one a layer


def _key_biases(model: nn.Module) -> Iterator[tuple[nn.Parameter | None, int, int]]:
    """(a bias, which part of it is the keys', of how many)."""
    if hasattr(model, "key_biases"):
        yield from model.key_biases()
    for module in model.modules():
        if isinstance(module, AttentionPool2d):
            yield module.k_proj.bias, 0, 1
        elif isinstance(module, nn.MultiheadAttention):
            yield module.in_proj_bias, 1, 3
        # timm's attention and its attention pool; a norm between bias and product makes it count.
        elif isinstance(getattr(module, "k_norm", None), nn.Identity):
            for name, place, of in (("qkv", 1, 3), ("kv", 0, 2)):
                joint = getattr(module, name, None)
                if isinstance(joint, nn.Linear):
                    yield joint.bias, place, of


@torch.no_grad()
def hold_logit_scale(model: nn.Module) -> None:
    """Keeps a logit scale that trains between 1 and 100, as CLIP's own training does.

    SigLIP's, beside which there is a bias, has no bounds.
    """
    if model.logit_scale.requires_grad and parts.logit_bias(model) is None:
        model.logit_scale.clamp_(0, math.log(MAX_SCALE))


def split_dev(pairs: Pairs, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, dev) indices: by image, so that no image is on both sides."""
    if not share:
        return np.arange(len(pairs)), np.arange(0)

    def drawn(key: str) -> float:
        digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    held_out = np.array([drawn(key) < share for key in pairs.keys])
    if held_out.sum() < 2:
        raise UsageError(
            f"dev_share = {share} of {len(pairs):,} pairs is fewer than 2 pairs: raise it."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
