"""Anatomy: what of a model decides how it trains, refused or told before data are read.

Which contrast it was made for (CLIP's softmax, SigLIP's sigmoid with a bias), what becomes of its
logit scale, and whether it has batch normalisation, whose statistics training moves too. What the
objective cannot reach is reach.py.
"""

from collections.abc import Sequence

from open_clip.modified_resnet import ModifiedResNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsc_bench.errors import UsageError
from fsc_bench.models.shortcuts import parts
from fsc_bench.train import dense
from fsc_bench.train.batch_norm import KNOWN
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.schedule import MAX_SCALE

# Losses that compare with the whole batch by a softmax: SigLIP has no such thing.
OF_SOFTMAX = ("intra_modal_weight", "positive_text_weight")


def examine(model: nn.Module, name: str, config: TrainConfig, processes: int) -> None:
    """Raises UsageError, one line, for a model that these settings would train wrongly."""
    if parts.logit_bias(model) is not None and config.contrast != "softmax":
        _check_sigmoid(name, config)
    elif config.contrast == "sigmoid" and parts.logit_bias(model) is None:
        raise UsageError(
            f'contrast = "sigmoid": model {name!r} has no logit bias, which SigLIP\'s sigmoid of '
            'every pair trains. Set contrast = "softmax", or take a model that has one, such as '
            "open_clip:ViT-B-16-SigLIP/webli."
        )
    if parts.says_itself(model):
        _check_own_towers(name, config)
    if config.local_hn_weight and (why := dense.lacks(model)):
        raise UsageError(
            f"local_hn_weight = {config.local_hn_weight}: the local loss needs dense tokens, and "
            f"model {name!r} gives none: {why}. Set local_hn_weight = 0; all other losses train it."
        )
    if norms := batch_norms(model):
        _check_batch_norms(name, model, norms, config, processes)


def told(model: nn.Module, name: str, config: TrainConfig, processes: int) -> list[str]:
    """How a model that is ready to train will train, in lines."""
    towers = (model, parts.visual(model), parts.text_tower(model))
    classes = [type(part).__name__ for part in towers]
    contrast, lines = _contrast(model, config)
    lines = [
        f"{name}: {classes[0]} of {classes[1]} and {classes[2]}; contrast: {contrast}.",
        *lines,
    ]
    if config.local_hn_weight:
        lines.append(f"Local loss: on {dense.image_rule(model.visual).words}.")
    if norms := batch_norms(model):
        whole = f", over the batch of all {processes} processes" if processes > 1 else ""
        lines.append(
            f"Batch normalisation in {len(norms)} places ({_some(tuple(norms))}): its running "
            f"statistics are trained{whole}, saved and averaged as weights are."
        )
    return lines


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Its batch normalisations by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, _BatchNorm)}


def _contrast(model: nn.Module, config: TrainConfig) -> tuple[str, list[str]]:
    """The contrast in words, and what of it may be unexpected."""
    scale, trains = float(model.logit_scale.detach().exp()), model.logit_scale.requires_grad
    words = f"logit scale {scale:.1f}" + ("" if trains else ", frozen")
    bias = parts.logit_bias(model)
    if bias is not None and config.contrast == "softmax":
        return f"softmax over the batch, as contrast = softmax asks; {words}, no bounds", [
            f"Its logit bias, {float(bias.detach()):.1f}, shifts all logits of a softmax alike: it "
            "is left as it is. SigLIP's own loss is contrast = sigmoid."
        ]
    if bias is not None:
        frozen = "" if bias.requires_grad else ", frozen"
        return (
            f"sigmoid of every pair (SigLIP), {words}, bias {float(bias.detach()):.1f}{frozen}",
            [],
        )
    words = f"softmax over the batch, {words}"
    if not trains:
        return words, []
    words += f", kept within 1 and {MAX_SCALE:.0f}"
    if scale <= 1.001 * MAX_SCALE:
        return words, []
    return words, [
        f"Its logit scale, {scale:.1f}, is above {MAX_SCALE:.0f}, the most that CLIP trains with: "
        "the first step cuts it to that."
    ]


def _check_sigmoid(name: str, config: TrainConfig) -> None:
    wanted = [setting for setting in OF_SOFTMAX if getattr(config, setting)]
    if wanted:
        verb, pronoun = ("are", "them") if wanted[1:] else ("is", "it")
        raise UsageError(
            f"model {name!r} has a logit bias: it trains by SigLIP's sigmoid of every pair, and "
            f"{' and '.join(wanted)} {verb} a softmax over the batch. Switch {pronoun} off: "
            "contrastive_weight, negative_columns, global_hn_weight, local_hn_weight and "
            'rank_weight go with such a model; contrast = "softmax" asks for CLIP\'s objective.'
        )


def _check_own_towers(name: str, config: TrainConfig) -> None:
    """What is built for open_clip's layers alone."""
    for wrong, setting, instead in (
        (config.tune == "lora", 'tune = "lora"', 'tune = "full"'),
        (config.compile, "compile = true", "compile = false"),
    ):
        if wrong:
            raise UsageError(
                f"{setting}: it knows the layers of open_clip's models, and model {name!r} is none "
                f"of them. Set {instead}."
            )


def _check_batch_norms(
    name: str, model: nn.Module, norms: dict[str, nn.Module], config: TrainConfig, processes: int
) -> None:
    what = f"model {name!r} has batch normalisation ({_some(tuple(norms))})"
    if config.accumulate > 1:
        raise UsageError(
            f"{what}, whose statistics are the whole batch's: accumulate = {config.accumulate} "
            "would take those of each part, twice. Set accumulate = 1."
        )
    # open_clip's own ResNet ignores it, and is computed once.
    if config.activation_checkpointing and not isinstance(model.visual, ModifiedResNet):
        raise UsageError(
            f"{what}: activation_checkpointing = true computes it twice a step, and its running "
            "statistics with it. Set it to false."
        )
    if processes > 1 and config.parallel == "fsdp":
        raise UsageError(f'{what}, which parallel = "fsdp" does not know. Set parallel = "ddp".')
    strange = {type(part).__name__ for part in norms.values() if type(part) not in KNOWN}
    if processes > 1 and strange:
        raise UsageError(
            f"{what}: of {' and '.join(sorted(strange))} each process would take the statistics of "
            "its own share of the batch. Train in one process, without torchrun."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
