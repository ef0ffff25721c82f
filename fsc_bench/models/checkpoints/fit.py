"""Fit: a state dict into an open_clip model, whole or not at all.

Names that another version of open_clip or another file format gave to the same weights are
translated; a bias that moves no ranking is taken or left, and said. Everything else must agree
name by name and shape by shape, or one line says what does not and what the file looks like.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import takewhile
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from fsc_bench.errors import UsageError, one_line
from fsc_bench.models.checkpoints.lora import is_factor
from fsc_bench.models.checkpoints.positions import POSITIONS, interpolated, is_of_text
from fsc_bench.models.checkpoints.state import listed
from fsc_bench.system.escape import for_terminal, shortened

UNKNOWN = "no model that is known here"
SHOWN = 3  # names of each kind of mismatch
# A name that only one kind of model has -> what that is.
LAYOUTS = {
    r"text_model\.encoder\.layers\.": "a transformers CLIP or SigLIP",
    r"(visual_encoder|text_encoder)\.": "BLIP or ALBEF",
    r"image_encoder\.": "a MobileCLIP of Apple's own code",
    r"(.*\.)?lora_[AB](\.|$)": "LoRA factors",
    r"text_decoder\.": "open_clip's CoCa",
    r"visual\.trunk\.": "an open_clip model with an image tower of timm",
    r"text\.transformer\.(encoder|embeddings)\.": "an open_clip model with a text tower of "
    "transformers",
    r"visual\.layer1\.": "a CLIP with a ResNet",
    r"visual\.transformer\.resblocks\.": "a CLIP with a ViT",
}  # fmt: skip


def fit(
    model: nn.Module, state: Mapping[str, Tensor], spec: str, *, interpolate: bool = False
) -> tuple[str, ...]:
    """Loads `state` into `model` strictly; returns what to tell the user.

    spec: the model as the user wrote it. interpolate: whether position embeddings of another
    length are resized. Raises UsageError, one line, where the two do not agree.
    """
    state, notes = _translated(model, state)
    if interpolate:
        state, resized = interpolated(model, state, spec)
        notes = (*notes, *resized)
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    strange = [name for name in state if name not in own]
    other = [name for name in own if name in state and own[name].shape != state[name].shape]
    retyped = [name for name in own if name in state and _kind(own[name]) != _kind(state[name])]
    positions = [
        name for name in other
        if name.endswith(POSITIONS) and own[name].shape[-1] == state[name].shape[-1]
    ]  # fmt: skip
    if positions and not missing and not strange and set(other) == set(positions):
        raise UsageError(f"model {spec!r}: {_other_positions(positions, own, state)}")
    if missing or strange or other:
        parts = [_shown("missing keys", missing), _shown("unexpected keys", strange)]
        shapes = [f"{name} {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
                  for name in other]  # fmt: skip
        parts.append(_shown("other shapes", shapes))
        parts.append(_common_prefix(state))
        parts.append(_half_wrapped(state, own))
        raise UsageError(
            f"model {spec!r}: the weights do not fit: {'; '.join(filter(None, parts))}. The file's "
            f"keys resemble {resembles(state)}."
        )
    if retyped:
        # Copying would turn whole numbers into weights, or drop imaginary parts, without a word.
        kinds = [f"{name} {state[name].dtype}, here {own[name].dtype}" for name in retyped]
        raise UsageError(
            f"model {spec!r}: the weights do not fit: {_shown('other types', kinds)}. Quantised "
            "weights are to be turned back into floating point first."
        )
    if ill := [name for name in own if not state[name].isfinite().all()]:
        raise UsageError(
            f"model {spec!r}: its weights hold NaN or infinite numbers: {_shown('tensors', ill)}. "
            "The training diverged or the file is damaged; take an earlier checkpoint."
        )
    try:
        model.load_state_dict(dict(state), strict=True)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"model {spec!r}: the weights do not fit: {one_line(error)}.") from None
    return notes


def _kind(tensor: Tensor) -> str:
    """What a tensor's numbers are; only numbers of one kind are copied into one another."""
    if tensor.is_floating_point():
        return "floating point"
    return "complex" if tensor.is_complex() else "whole"


def _shown(what: str, names: list[str]) -> str:
    if not names:
        return ""
    count = f" ({len(names):,})" if len(names) > 1 else ""
    shown = [for_terminal(name) if len(name) <= 200 else shortened(name) for name in names[:SHOWN]]
    return f"{what}{count}: {listed(shown, len(names))}"


def _common_prefix(state: Mapping[str, Tensor]) -> str:
    """A wrapper that every name of the file carries and nobody here knows, in words."""
    shared = _shared_start(state)
    if not shared:
        return ""
    part = for_terminal(shared.rstrip("."))[:200]
    return f"every key of the file begins with {shortened(shared)} (part={part} reads below it)"


def _half_wrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The part of the file that holds this model's names, where others stand beside it."""
    starts = {name.partition(".")[0] for name in state}
    whole = [start for start in starts if all(f"{start}.{name}" in state for name in own)]
    if not whole or _shared_start(state):
        return ""
    return f"the option part={for_terminal(min(whole))} reads the weights below that name alone"


def _shared_start(names: Collection[str]) -> str:
    """What all names begin with, up to a dot."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)  # all others lie between them
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))  # noqa: B905
    return first[: first.rfind(".", 0, same) + 1]


def _other_positions(names: list[str], own: Mapping, state: Mapping) -> str:
    """The line for position embeddings of another length: the numbers, and what to do."""
    parts = []
    for name in names:
        there, here = (table[name].shape[-2] for table in (state, own))
        what = "tokens of text" if is_of_text(name) else "places of a picture"
        parts.append(f"{name} has {there} {what} in the file, {here} in this architecture")
    return (
        f"{'; '.join(parts)}. The context length or image size was changed: name the architecture "
        "that has it, or add the option resize=interpolate, which is another model and is recorded "
        f"as one. The file's keys resemble {resembles(state)}."
    )


def _translated(
    model: nn.Module, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state in the model's own names, and what was taken, added or left out for it."""
    notes = []
    own = model.state_dict()
    state = dict(convert_state_dict(model, dict(state)))
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    if "text.positional_embedding" in state and "positional_embedding" in own:
        state = {name.removeprefix("text."): value for name, value in state.items()}
    for name in ("logit_scale", "logit_bias"):  # a number or a vector of one
        if name in state and name in own and state[name].numel() == own[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in state and "logit_bias" not in own and state["logit_bias"].numel() == 1:
        bias = float(state.pop("logit_bias"))
        notes.append(
            f"The file's logit_bias ({bias:.4g}) is left out: one number added to every cosine "
            "moves no ranking."
        )
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
        notes.append("The file has no logit_bias; 0 is used, which moves no ranking.")
    if own.keys() - state.keys() == {"logit_scale"}:  # in a loss of its own, which encodes nothing
        state["logit_scale"] = own["logit_scale"]
        notes.append("The file has no logit_scale; the architecture's moves no ranking either.")
    ids = "text.transformer.embeddings.position_ids"  # a table of 0, 1, 2 ... of old transformers
    if ids in state and ids not in own:
        del state[ids]
    return state, tuple(notes)


# ---------------------------------------------------------------- what a file looks like


def resembles(state: Mapping[str, Any]) -> str:
    """What kind of model has such names, and which architectures such sizes."""
    shared = _shared_start(state)
    state = {name.removeprefix(shared): value for name, value in state.items()}
    layouts = LAYOUTS.items()
    kind = next((what for start, what in layouts if any(re.match(start, n) for n in state)), "")
    if not kind:
        starts = Counter(name.partition(".")[0] for name in state if "." in name)
        start = f"{starts.most_common(1)[0][0]}." if len(starts) > 1 else ""
        inner = {
            n.removeprefix(start): v for n, v in state.items() if start and n.startswith(start)
        }
        found = resembles(inner) if inner else UNKNOWN
        return found if found == UNKNOWN else f"{found}, below {shortened(start)}"
    if any(map(is_factor, state)):
        kind = "LoRA factors beside weights"
    names = _architectures(state)
    return f"{kind}: {listed(names[:SHOWN], len(names))}" if names else kind


def _architectures(state: Mapping[str, Any]) -> list[str]:
    """open_clip's architectures with a ViT and a text transformer of these sizes, likest first."""
    sizes = _sizes(state)
    if not sizes:
        return []
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name) or {}
        image, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
        known = {
            "width": image.get("width", 768), "layers": image.get("layers", 12),
            "patch": image.get("patch_size", 16), "dimension": config.get("embed_dim"),
            "text width": text.get("width", 512), "text layers": text.get("layers", 12),
        }  # fmt: skip
        if "timm_model_name" in image or "hf_model_name" in text:
            continue
        if any(sizes[key] != value for key, value in known.items()):
            continue
        grid = (image.get("image_size", 224) // known["patch"]) ** 2
        exact = sizes["places"] in (grid, grid + 1)
        exact = exact and sizes["context"] == text.get("context_length", 77)
        found.append((not exact, name))
    return [name for _, name in sorted(found)]


def _sizes(state: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a ViT with a text transformer; nothing where it is not one."""
    text = "text." if "text.token_embedding.weight" in state else ""
    try:
        patches = state["visual.conv1.weight"].shape
        return {
            "width": patches[0], "patch": patches[-1], "layers": _depth(state, "visual."),
            "dimension": state[f"{text}text_projection"].shape[-1],
            "text width": state[f"{text}token_embedding.weight"].shape[1],
            "text layers": _depth(state, text),
            "places": state["visual.positional_embedding"].shape[0],
            "context": state[f"{text}positional_embedding"].shape[0],
        }  # fmt: skip
    except (KeyError, IndexError):
        return {}


def _depth(state: Mapping[str, Any], tower: str) -> int:
    pattern = re.compile(re.escape(tower) + r"transformer\.resblocks\.(\d+)\.")
    return 1 + max((int(m[1]) for n in state if (m := pattern.match(n))), default=-1)
