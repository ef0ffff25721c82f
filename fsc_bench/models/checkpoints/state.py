"""State: a checkpoint file to the state dict in it, whatever people wrapped it in.

One rule for all: known containers are opened and known wrappers of names stripped while all names
carry them; what was left out is said. Everything else is refused by a line that names what is
there. Nothing here knows a model; fit.py puts the tensors into one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models.checkpoints.reading import LeftOut
from fsc_bench.models.checkpoints.shards import read_whole, size_of
from fsc_bench.system.escape import for_terminal, shortened

# Where training scripts keep the weights: open_clip and Lightning, PyTorch's tutorials, DeepSpeed.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network")
# DataParallel and DistributedDataParallel, torch.compile, modules that hold a `model`, a `net`.
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "clip.", "clip_model.")
# What a Lightning module keeps beside its model: losses may have parameters, and they encode
# nothing.
LOSSES = ("loss.", "loss_fn.", "criterion.", "losses.")
# torch.compile, FSDP and activation checkpointing of parts put these inside names; no weight of a
# model is ever called so.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
MOST_NAMED = 8  # of what is not weights
LARGEST_REPEATED = 2**26  # bytes that one number of the file, repeated, may stand for
# Single numbers beside the weights: torch's AveragedModel, and OpenAI's exported models.
NUMBERS = ("n_averaged", "input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class State:
    """The tensors of a checkpoint by name, and what a user should know of how they were found."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the model, on the CPU; nothing is executed.

    Raises UsageError, one line, where there are none or the file cannot be read.
    """
    return open_state(file).tensors


def open_state(file: Path, part: str = "") -> State:
    """As `read_state`, with what was left out of the file.

    part: which weights are meant, where a file holds more than one model's: the name that they
    are kept under, or what their names begin with.
    """
    content, left_out = read_whole(file)
    if part and isinstance(content, Mapping) and _holds_weights(content.get(part)):
        content, part = content[part], ""
    found, others = _opened(file, content)
    found, values = _tensors_among(found)
    notes = [
        f"{file}: holds weights under {other!r} too, which are not read; the option part={other} "
        "reads them."
        for other in others
    ]
    if part:
        found, rest = _below(found, part, file, others)
        if rest:
            notes.append(f"{file}: {len(rest):,} tensors outside of {part!r} are left out.")
    tensors, no_weights = _unwrapped(found, file)
    _check_tensors(tensors, file)
    if beside := [*left_out, *values, *no_weights]:
        names = listed(list(map(for_terminal, beside[:MOST_NAMED])), len(beside))
        notes.append(f"{file}: not read, because it is not weights: {names}.")
    if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
        notes.append(f"{file}: weights in float64 are rounded to float32.")
    return State(tensors, tuple(notes))


def _below(
    state: Mapping[str, Tensor], part: str, file: Path, others: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """(the tensors whose names begin with `part.`, by the rest of their names; all other names)."""
    start = part.rstrip(".") + "."
    found = {name.removeprefix(start): v for name, v in state.items() if name.startswith(start)}
    if not found:
        known = dict.fromkeys([*others, *(name.partition(".")[0] for name in state)])
        raise UsageError(
            f"{file}: part={shortened(part)}: nothing is called so.{near_miss(part, known)} There "
            f"are {listed(list(map(shortened, known))[:6], len(known))}."
        )
    return found, [name for name in state if not name.startswith(start)]


def _check_tensors(state: Mapping[str, Tensor], file: Path) -> None:
    """Raises UsageError for tensors that hold no numbers of the file, or more than the file has."""
    size = size_of(file)
    for name, tensor in state.items():
        kind = ""
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "without numbers" if tensor.is_meta else "sparse or quantised"
        elif tensor.numel() * tensor.element_size() > max(size, LARGEST_REPEATED):
            kind = f"of {tensor.numel():,} numbers, in a file of {size:,} bytes"
        if kind:
            raise UsageError(f"{file}: the tensor {shortened(name)} is {kind}; it is not read.")


def _opened(file: Path, content: Any) -> tuple[Mapping[str, Tensor], list[str]]:
    """(the state dict among what a file holds, names of other sets of weights beside it).

    Raises UsageError that names what there is.
    """
    others: list[str] = []
    for _ in range(len(CONTAINERS)):
        if _is_almost_state(content) or not isinstance(content, Mapping):
            break
        names = [name for name in CONTAINERS if _holds_weights(content.get(name))]
        if len(names) > 1:
            raise UsageError(
                f"{file}: holds weights under {' and '.join(map(repr, names))}, and which are "
                f"meant cannot be known. Say so with the option part={names[0]} or "
                f"part={names[1]}."
            )
        if not names:
            break
        others += [str(name) for name in content if name != names[0] and is_state(content[name])]
        content = content[names[0]]
    if not _is_almost_state(content):
        raise UsageError(
            f"{file}: holds no state dict of tensors, neither bare nor under "
            f"{', '.join(map(repr, CONTAINERS))}. It holds {describe(content)}.{_ways(content)}"
        )
    return content, others


def _ways(content: Any) -> str:
    """How the weights of other names are read, if there are any."""
    inner = content.items() if isinstance(content, Mapping) else ()
    names = [shortened(name).strip("'") for name, value in inner if _holds_weights(value)]
    return f" The option part={names[0]} reads its weights." if names else ""


def _holds_weights(content: Any) -> bool:
    inner = content.values() if isinstance(content, Mapping) else ()
    return is_state(content) or any(map(is_state, inner))


def _is_almost_state(content: Any) -> bool:
    """Whether this is a dictionary of tensors, but for a few values that are no weights."""
    if is_state(content):
        return True
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False
    others = [value for value in content.values() if not torch.is_tensor(value)]
    return len(others) < len(content) - len(others) and not any(
        isinstance(value, Mapping | list | tuple) for value in others
    )


def _tensors_among(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """(the tensors, the names of all other values)."""
    tensors = {name: value for name, value in content.items() if torch.is_tensor(value)}
    return tensors, [name for name in content if name not in tensors]


def is_state(content: Any) -> bool:
    """Whether this is a dictionary of tensors by name, and not an empty one."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and torch.is_tensor(v) for name, v in content.items())
    )


def describe(content: Any) -> str:
    """What a file holds, in a few words: the first names and their kinds."""
    if isinstance(content, LeftOut):
        return f"an object of {content.name}"
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if not content:
        return "an empty dictionary"
    shown = [f"{shortened(name)} ({_kind(value)})" for name, value in list(content.items())[:6]]
    return listed(shown, len(content))


def _kind(value: Any) -> str:
    if is_state(value):
        return f"{len(value)} tensors"
    if isinstance(value, LeftOut):
        return value.name
    if isinstance(value, Mapping) and value and all(isinstance(v, LeftOut) for v in value.values()):
        return f"{len(value)} of {next(iter(value.values())).name}, which are no tensors"
    return "tensor" if torch.is_tensor(value) else type(value).__name__


def listed(names: list[str], count: int) -> str:
    """`a, b, c and 7 more` of `count` names."""
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return ", ".join(names) + more


def _unwrapped(state: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by their names in the model, names of what is not weights and was left out)."""
    left_out = [name for name in NUMBERS if name in state and state[name].ndim == 0]
    found = {name: value for name, value in state.items() if name not in left_out}
    for inserted in INSERTED:
        found = _renamed(found, lambda name, part=inserted: name.replace(part, ""), file)
    while True:
        losses = [name for name in found if name.startswith(LOSSES)]
        wrapper = next((w for w in WRAPPERS if _all_below(found, w)), "")
        if not wrapper:
            return found, left_out
        left_out += losses
        found = {name: value for name, value in found.items() if name not in losses}
        found = _renamed(found, lambda name, part=wrapper: name.removeprefix(part), file)


def _all_below(state: Mapping[str, Tensor], wrapper: str) -> bool:
    """Whether all names carry a wrapper, but for those of losses."""
    names = [name for name in state if not name.startswith(LOSSES)]
    return bool(names) and all(name.startswith(wrapper) for name in names)


def _renamed(state: dict[str, Tensor], rename: Any, file: Path) -> dict[str, Tensor]:
    new = {rename(name): value for name, value in state.items()}
    if len(new) < len(state):
        raise UsageError(f"{file}: two of its tensors have one name once their wrappers are gone.")
    return new
