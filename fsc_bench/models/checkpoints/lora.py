"""LoRA factors in a checkpoint, folded into its weights. No model is needed for it.

Shared by the families that load such checkpoints and by the trainer that writes them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fsc_bench.errors import FscBenchError


def merge_reference_lora(state_dict: Mapping[str, Tensor], alpha: float = 1.0) -> dict[str, Tensor]:
    """A state dict with LoRA factors (FSC-CLIP's, TSVLC's or ours) as one of plain weights.

    Strips DDP's `module.` prefix, adds (alpha / rank) B A to each weight (in float32, for half
    precision too) and drops the factors; the result loads with `strict=True`. Without factors it
    returns the same tensors. Raises FscBenchError for a factor without its partner or its weight.
    """
    state = {key.removeprefix("module."): value for key, value in state_dict.items()}
    merged = {key: value for key, value in state.items() if not is_factor(key)}
    for key, value in state.items():
        if not is_factor(key):
            continue
        partner = key[:-1] + ("B" if key.endswith("A") else "A")
        # `mlp.c_fc.lora_A` belongs to `mlp.c_fc.weight`, `attn.in_proj_weight_lora_A` to
        # `attn.in_proj_weight`.
        stem = key[: -len("lora_A")]
        target = stem + "weight" if stem.endswith(".") else stem.removesuffix("_")
        for needed in (partner, target):
            if needed not in state:
                raise FscBenchError(f"the checkpoint has {key} but no {needed}: it is not whole.")
        if key.endswith("A"):
            merged[target] = _merge_factors(merged[target], value, state[partner], alpha)
    return merged


def _merge_factors(weight: Tensor, factor_a: Tensor, factor_b: Tensor, alpha: float) -> Tensor:
    # A convolution's factors are rank * kernel wide, so that B A has the kernel's many numbers.
    rank = factor_a.shape[0] // (weight.shape[-1] if weight.ndim == 4 else 1)
    exact = torch.promote_types(weight.dtype, torch.float32)
    delta = factor_b.to(exact) @ factor_a.to(exact)
    return (weight.to(exact) + (alpha / rank) * delta.view(weight.shape)).to(weight.dtype)


def is_factor(key: str) -> bool:
    return key.endswith(("lora_A", "lora_B"))
