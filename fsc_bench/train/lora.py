"""LoRA (arXiv 2106.09685) on open_clip's ViT towers, where FSC-CLIP's reference code puts it.

Attention's joint input projection and its output projection, both MLP layers, and the patch
embedding. A forward of many rows multiplies with the merged weight W + (alpha / rank) B A, the very
matrix that `merge_lora` saves; of few, with W and the factors. Backward never forms W's gradient.
Parameter names are those of the released checkpoints. `merge_reference_lora` needs no model.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsc_bench.errors import FscBenchError
from fsc_bench.models.checkpoints.lora import is_factor
from fsc_bench.models.checkpoints.lora import merge_reference_lora as merge_reference_lora
from fsc_bench.models.shortcuts import parts

Init = Literal["zero", "reference"]


def apply_lora(
    model: nn.Module,
    rank: int = 4,
    alpha: float = 1.0,
    init: Init = "zero",
    patch_embedding: bool = True,
) -> nn.Module:
    """Freeze `model` and add trainable low-rank factors, in place; returns `model`.

    `model` is an open_clip CLIP or CustomTextCLIP with ViT and text transformer towers. With
    `init="zero"` the model computes what it did before; `"reference"` starts the input
    projection's B from xavier-uniform instead, as the released models did. Raises FscBenchError
    for a rank below 1, a model that has LoRA already, and towers it does not know.
    """
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if rank < 1:
        raise FscBenchError(
            f"LoRA rank {rank}: a rank is at least 1. For full fine-tuning, no LoRA."
        )
    if not alpha > 0:
        raise FscBenchError(f"LoRA alpha {alpha}: the scale alpha / rank must be above 0.")
    if init not in ("zero", "reference"):
        raise FscBenchError(f"no LoRA init called {init!r} (known: zero, reference).")
    if any(isinstance(module, LORA_CLASSES) for module in model.modules()):
        raise FscBenchError("this model has LoRA already: merge it first with merge_lora.")

    towers = {"image": parts.visual(model), "text": parts.text_tower(model)}
    for name, tower in towers.items():
        blocks = [
            module
            for module in (tower.modules() if tower is not None else ())
            if isinstance(module, ResidualAttentionBlock) and not hasattr(module, "ln_1_kv")
        ]
        if not blocks:
            raise FscBenchError(
                f"LoRA does not know the {name} tower {type(tower).__name__}: it needs open_clip's "
                "own ViT and text transformer."
            )

    model.requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, ResidualAttentionBlock) and not hasattr(module, "ln_1_kv"):
            _extend(module.attn, LoraAttention, rank, alpha, init)
            _extend(module.attn.out_proj, LoraLinear, rank, alpha, init)
            _extend(module.mlp.c_fc, LoraLinear, rank, alpha, init)
            _extend(module.mlp.c_proj, LoraLinear, rank, alpha, init)
        elif isinstance(module, VisionTransformer) and patch_embedding:
            _extend(module.conv1, LoraConv2d, rank, alpha, init)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Fold the factors into the weights and restore the plain layers, in place; returns `model`.

    Everything stays frozen. For a copy instead: `merge_reference_lora(model.state_dict(), alpha)`.
    """
    for module in list(model.modules()):
        if isinstance(module, LORA_CLASSES):
            with torch.no_grad():
                module.frozen_weight().copy_(module.merged_weight())
            for name in module.lora_names:
                delattr(module, name)
            module.__class__ = module.plain_class
            del module.plain_class, module.lora_scaling
    return model


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The factors alone, under the released checkpoints' names; load with `strict=False`."""
    return factors(model.state_dict())


def factors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`lora_state_dict` of a state dict that is at hand already."""
    return {key: value for key, value in state.items() if is_factor(key)}


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters an optimiser gets, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


# --- Layers -------------------------------------------------------------------------------------


def _extend(module: nn.Module, to: type, rank: int, alpha: float, init: Init) -> None:
    """Make `module` a `to` in place, as torch.nn.utils.parametrize does: names and hooks stay."""
    module.plain_class = type(module)
    module.__class__ = to
    module.lora_scaling = alpha / rank
    weight = module.frozen_weight()
    if weight.ndim == 4:
        kernel = weight.shape[-1]
        rank, outputs, inputs = rank * kernel, weight.shape[0] * kernel, weight.shape[1] * kernel
    else:
        outputs, inputs = weight.shape
    factors = weight.new_empty(rank, inputs), weight.new_empty(outputs, rank)
    for name, factor in zip(module.lora_names, factors, strict=True):
        module.register_parameter(name, nn.Parameter(factor))
    module.reset_factors(init)


class _Lora:
    """What the three layers share: a frozen weight, two factors and the merged weight."""

    lora_names = ("lora_A", "lora_B")

    def frozen_weight(self) -> Tensor:
        return self.weight

    def factors(self) -> tuple[Tensor, Tensor]:
        return tuple(getattr(self, name) for name in self.lora_names)

    def merged_weight(self) -> Tensor:
        return _merged(self.frozen_weight(), *self.factors(), self.lora_scaling)

    def reset_factors(self, init: Init) -> None:
        factor_a, factor_b = self.factors()
        nn.init.kaiming_uniform_(factor_a, a=math.sqrt(5))  # nn.Linear's own, as in loralib
        nn.init.zeros_(factor_b)


class LoraLinear(_Lora, nn.Linear):
    """nn.Linear with low-rank factors A `[rank, in]` and B `[out, rank]`."""

    def forward(self, input: Tensor) -> Tensor:
        return _LowRankLinear.apply(
            input, self.weight, self.bias, self.lora_A, self.lora_B, self.lora_scaling
        )


class LoraAttention(_Lora, nn.MultiheadAttention):
    """Self-attention whose joint input projection has low-rank factors."""

    lora_names = ("in_proj_weight_lora_A", "in_proj_weight_lora_B")

    def frozen_weight(self) -> Tensor:
        return self.in_proj_weight

    def reset_factors(self, init: Init) -> None:
        super().reset_factors(init)
        if init == "reference":
            # nn.MultiheadAttention's reset, run over the factors too: B A is not zero.
            for factor in self.factors():
                nn.init.xavier_uniform_(factor)

    def input_projection(self, tokens: Tensor) -> Tensor:
        """[..., 3 D]: queries, keys and values of tokens [..., D]."""
        return _LowRankLinear.apply(
            tokens, self.in_proj_weight, self.in_proj_bias, *self.factors(), self.lora_scaling
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As nn.MultiheadAttention with `need_weights=False`; `[N, L, D]`, or `[L, N, D]`."""
        assert query is key is value and not need_weights, "open_clip's blocks call it so"
        tokens = query if self.batch_first else query.transpose(0, 1)
        batch, length, width = tokens.shape
        projected = self.input_projection(tokens)
        heads = projected.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = ~attn_mask  # true means masked here, and attended to in SDPA
            else:
                attn_mask = attn_mask.to(projected.dtype)
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.view(batch, self.num_heads, length, length)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=attn_mask, dropout_p=dropout)
        output = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return output if self.batch_first else output.transpose(0, 1), None


class LoraConv2d(_Lora, nn.Conv2d):
    """nn.Conv2d with loralib's factors A `[rank * k, in * k]` and B `[out * k, rank * k]`."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.merged_weight(), self.bias)


LORA_CLASSES = (LoraLinear, LoraAttention, LoraConv2d)


def _merged(weight: Tensor, factor_a: Tensor, factor_b: Tensor, scaling: float) -> Tensor:
    """weight + scaling * B A in the weight's own shape, outside autocast."""
    with torch.autocast(weight.device.type, enabled=False):
        flat = weight.reshape(len(factor_b), -1)
        return torch.addmm(flat, factor_b, factor_a, alpha=scaling).view(weight.shape)


class _LowRankLinear(torch.autograd.Function):
    """input (weight + scaling * B A)^T + bias, with gradients to input, A and B only.

    Autograd's own backward of the same would form the weight's whole gradient, a third of a
    linear layer's work, only to project it onto the factors.
    """

    @staticmethod
    def forward(ctx, input, weight, bias, factor_a, factor_b, scaling):
        (outputs, inputs), through_a = weight.shape, None
        # The factors' branch reads the input and changes the output; merging writes a weight, adds
        # to it and reads it. Both are bound by the numbers they move.
        if input.numel() // inputs * (inputs + 2 * outputs) < 3 * weight.numel():
            output = F.linear(input, weight, bias)
            through_a = F.linear(input, factor_a).flatten(0, -2)
            output.view(-1, outputs).addmm_(through_a, factor_b.mT.to(output.dtype), alpha=scaling)
        else:
            output = F.linear(input, _merged(weight, factor_a, factor_b, scaling), bias)
        ctx.scaling, ctx.input_dtype = scaling, input.dtype
        # Under autocast the output's type is the one that the product was computed in.
        ctx.save_for_backward(input.to(output.dtype), weight, factor_a, factor_b, through_a)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        input, weight, factor_a, factor_b, through_a = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            rows = gradient.flatten(0, -2)
            inputs = input.flatten(0, -2)
            a, b = factor_a.to(rows.dtype), factor_b.to(rows.dtype)
            through_b = rows @ b  # [N, rank]
            through_a = inputs @ a.mT if through_a is None else through_a
            to_a = (through_b.mT @ inputs).mul_(ctx.scaling).to(factor_a.dtype)
            # The wide one on the right: the other way round it takes a CPU twice as long.
            to_b = (through_a.mT @ rows).mul_(ctx.scaling).mT.to(factor_b.dtype).contiguous()
            to_input = None
            if ctx.needs_input_grad[0]:
                to_input = rows @ weight.to(rows.dtype)
                to_input.addmm_(through_b, a, alpha=ctx.scaling)
                to_input = to_input.view(input.shape).to(ctx.input_dtype)
        return to_input, None, None, to_a, to_b, None
