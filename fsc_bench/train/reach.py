"""Reach: which parameters the objective moves at all, read off its graph before the first step.

A parameter without a gradient stops several processes at their second step, and trains nothing in
one: CoCa's captioning half under a contrast, a tower that no switched-on loss looks at.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fsc_bench.models.shortcuts import parts
from fsc_bench.train.batches import Part, Pixels, text_blocks
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.objective import Features, feature_terms, local_term, weighted
from fsc_bench.train.towers import Towers

TEXTS = ["a dog and a cat", "a cat and a dog", "a dog, and a cat"]


def freeze_unreached(
    towers: Towers, config: TrainConfig, tokenizer: Callable[[list[str]], Tensor], pixels: Pixels
) -> list[str]:
    """Freezes what `config`'s losses do not move, in place. Returns lines that say so."""
    within = reached(towers, config, tokenizer, pixels)
    left = {
        name: value
        for name, value in towers.model.named_parameters()
        if value.requires_grad and value not in within
    }
    if not left:
        return []
    for value in left.values():
        value.requires_grad_(False)
    sizes: Counter[str] = Counter()
    for name, value in left.items():
        sizes[_place(name)] += value.numel()
    places = ", ".join(f"{place} ({size:,} parameters)" for place, size in sizes.items())
    line = f"Left as it is, for no loss that is switched on reaches it: {places}."
    if parts.writes_texts(towers.model):
        line += " CoCa's captioning loss is left out: the contrast alone trains."
    said = parts.left_alone(towers.model)
    return [line, said] if said else [line]


def reached(
    towers: Towers, config: TrainConfig, tokenizer: Callable[[list[str]], Tensor], pixels: Pixels
) -> set[nn.Parameter]:
    """The parameters in the graph of the loss of one image with a caption and a hard negative."""
    device = towers.model.logit_scale.device
    positives = bool(config.positive_text_weight)
    texts = TEXTS if positives else TEXTS[:2]
    blocks = text_blocks(tokenizer(texts), [0] * len(texts), range(len(texts)), int(towers.trims),
                         towers.layout)  # fmt: skip
    part = Part(
        torch.zeros(1, 3, pixels.size, pixels.size, dtype=torch.uint8), blocks,
        torch.ones(1, 1, dtype=torch.bool),
        positive_mask=torch.ones(1, dtype=torch.bool) if positives else None,
    )  # fmt: skip
    training = towers.training
    towers.eval()  # running statistics stay where they are
    with torch.enable_grad():
        encoded = towers(
            pixels.normalise(part.images.to(device)),
            [block.ids.to(device) for block in blocks],
            [block.end.to(device) for block in blocks],
        )
        features, rows = Features.of(part, encoded), torch.ones((), device=device)
        mask = part.negative_mask.to(device)
        terms, _ = feature_terms(
            config, features, mask, encoded.logit_scale, rows, logit_bias=encoded.logit_bias,
            positive_mask=part.positive_mask.to(device) if positives else None, teacher=features,
            thresholds=torch.zeros(1, device=device), gather=lambda tensor: tensor,
        )  # fmt: skip
        if config.local_hn_weight:
            terms["local_hn"] = local_term(config, part, encoded, rows, encoded.logit_scale)
        loss = weighted(config, terms)
    towers.train(training)
    return leaves(loss)


def leaves(result: Tensor) -> set[nn.Parameter]:
    """The tensors that `result.backward()` would give a gradient."""
    found, seen, waiting = set(), set(), [result.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):  # where a gradient is added up
            found.add(function.variable)
        waiting += [following for following, _ in function.next_functions]
    return found


def _place(name: str) -> str:
    """The part of the model that a parameter belongs to, such as `visual.attn_pool`."""
    path = name.split(".")
    return ".".join(path[: 2 if path[0] in ("visual", "text") and len(path) > 2 else 1])
