"""Transformers' names of a CLIP's weights, as open_clip's; both compute the same.

transformers keeps queries, keys and values apart and projections the other way round.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fsc_bench.errors import UsageError
from fsc_bench.models.checkpoints.fit import SHOWN, resembles
from fsc_bench.models.checkpoints.state import listed
from fsc_bench.system.escape import shortened

TOWERS = {"vision_model.": "visual.", "text_model.": ""}
NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.": "ln_pre.",  # their spelling
    "post_layernorm.": "ln_post.",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
}
PARTS = {
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
NO_WEIGHTS = ".embeddings.position_ids"  # 0, 1, 2 ... which old versions saved
JOINT = re.compile(r"(.*resblocks\.\d+\.)self_attn\.([qkv])_proj\.(weight|bias)")


def from_transformers(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A transformers CLIP's state dict under open_clip's names.

    Raises UsageError that begins with `where` for a name that is not one of such a model.
    """
    found: dict[str, Tensor] = {}
    joint: dict[str, dict[str, Tensor]] = {}
    strange: list[str] = []
    for name, tensor in state.items():
        if name.endswith(NO_WEIGHTS):
            continue
        if name in PROJECTIONS:
            found[PROJECTIONS[name]] = tensor.T.contiguous()
            continue
        new = _renamed(name)
        if part := JOINT.fullmatch(new):
            joint.setdefault(f"{part[1]}attn.in_proj_{part[3]}", {})[part[2]] = tensor
        elif new == name and name != "logit_scale":
            strange.append(name)
        else:
            found[new] = tensor
    if strange:
        raise UsageError(
            f"{where}: these are no names of a transformers CLIP: "
            f"{listed(list(map(shortened, strange[:SHOWN])), len(strange))}. The file's keys "
            f"resemble {resembles(state)}."
        )
    for name, parts in joint.items():
        if len(parts) < 3:
            raise UsageError(f"{where}: {name} is not whole: only {', '.join(sorted(parts))}.")
        found[name] = torch.cat([parts[kind] for kind in "qkv"])
    return found


def _renamed(name: str) -> str:
    tower = next((tower for tower in TOWERS if name.startswith(tower)), "")
    if not tower:
        return name
    rest = name.removeprefix(tower)
    for table in (NAMES, PARTS):
        for theirs, ours in table.items():
            rest = rest.replace(theirs, ours)
    return TOWERS[tower] + rest
