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
        target = _target(key)
        for needed in (partner, target):
            if needed not in state:
                raise FscBenchError(f"the checkpoint has {key} but no {needed}: it is not whole.")
        if key.endswith("A"):
            merged[target] = _merge_factors(merged[target], value, state[partner], alpha, key)
    return merged


def _merge_factors(
    weight: Tensor, factor_a: Tensor, factor_b: Tensor, alpha: float, name: str
) -> Tensor:
    exact = torch.promote_types(weight.dtype, torch.float32)
    try:
        delta = factor_b.to(exact) @ factor_a.to(exact)
        if weight.ndim == 2 and delta.shape != weight.shape == delta.T.shape:
            delta = delta.T  # loralib's factors of an embedding are those of its transposed table
        elif weight.ndim == 2 and delta.shape != weight.shape:
            raise ValueError
        delta = delta.reshape(weight.shape)
    except (RuntimeError, ValueError):
        raise FscBenchError(
            f"the checkpoint's {name} {tuple(factor_a.shape)} and its partner "
            f"{tuple(factor_b.shape)} do not multiply to the weight's {tuple(weight.shape)}."
        ) from None
    return (weight.to(exact) + (alpha / _rank(weight, factor_a)) * delta).to(weight.dtype)


def _rank(weight: Tensor, factor_a: Tensor) -> int:
    # A convolution's factors are rank * kernel wide, so that B A has the kernel's many numbers.
    return max(factor_a.shape[0] // (weight.shape[-1] if weight.ndim == 4 else 1), 1)


def ranks(state_dict: Mapping[str, Tensor]) -> set[int]:
    """The ranks of all factors in a state dict."""
    found = set()
    for key, value in state_dict.items():
        if is_factor(key) and key.endswith("A"):
            weight = state_dict.get(_target(key))
            found.add(_rank(value if weight is None else weight, value))
    return found


def _target(key: str) -> str:
    """The weight that a factor belongs to: `mlp.c_fc.weight` of `mlp.c_fc.lora_A`, and
    `attn.in_proj_weight` of `attn.in_proj_weight_lora_A`.
    """
    stem = key[: -len("lora_A")]
    return stem + "weight" if stem.endswith(".") else stem.removesuffix("_")


def is_factor(key: str) -> bool:
    return key.endswith(("lora_A", "lora_B"))
