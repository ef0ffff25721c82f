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

from fsc_bench.errors import UsageError
from fsc_bench.models.checkpoints.reading import LeftOut, read_content
from fsc_bench.system.escape import shortened

# Where training scripts keep the weights: open_clip and Lightning, PyTorch's tutorials, DeepSpeed.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
# DataParallel and DistributedDataParallel, torch.compile, Lightning modules that hold a `model`.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# torch.compile, FSDP and activation checkpointing of parts put these inside names; no weight of a
# model is ever called so.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
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


def open_state(file: Path) -> State:
    """As `read_state`, with what was left out of the file."""
    content, left_out = read_content(file)
    notes = []
    if left_out:
        notes.append(f"{file}: not read, because it is not weights: {', '.join(left_out)}.")
    tensors, numbers = _unwrapped(_opened(file, content), file)
    _check_tensors(tensors, file)
    if numbers:
        notes.append(f"{file}: not read, because it is not weights: {', '.join(numbers)}.")
    return State(tensors, tuple(notes))


def _check_tensors(state: Mapping[str, Tensor], file: Path) -> None:
    """Raises UsageError for tensors that hold no numbers of the file, or more than the file has."""
    size = file.stat().st_size
    for name, tensor in state.items():
        kind = ""
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            kind = "without numbers" if tensor.is_meta else "sparse or quantised"
        elif tensor.numel() * tensor.element_size() > max(size, LARGEST_REPEATED):
            kind = f"of {tensor.numel():,} numbers, in a file of {size:,} bytes"
        if kind:
            raise UsageError(f"{file}: the tensor {shortened(name)} is {kind}; it is not read.")


def _opened(file: Path, content: Any) -> Mapping[str, Tensor]:
    """The state dict among what a file holds. Raises UsageError that names what there is."""
    for _ in range(len(CONTAINERS)):
        if is_state(content) or not isinstance(content, Mapping):
            break
        names = [name for name in CONTAINERS if _holds_weights(content.get(name))]
        if len(names) > 1:
            raise UsageError(
                f"{file}: holds weights under {' and '.join(map(repr, names))}, and which are "
                "meant cannot be known. Save one of them alone."
            )
        if not names:
            break
        content = content[names[0]]
    if not is_state(content):
        raise UsageError(
            f"{file}: holds no state dict of tensors, neither bare nor under "
            f"{', '.join(map(repr, CONTAINERS))}. It holds {describe(content)}."
        )
    return content


def _holds_weights(content: Any) -> bool:
    inner = content.values() if isinstance(content, Mapping) else ()
    return is_state(content) or any(map(is_state, inner))


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
    return "tensor" if torch.is_tensor(value) else type(value).__name__


def listed(names: list[str], count: int) -> str:
    """`a, b, c and 7 more` of `count` names."""
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return ", ".join(names) + more


def _unwrapped(state: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors by their names in the model, the numbers beside them that were left out)."""
    numbers = [name for name in NUMBERS if name in state and state[name].ndim == 0]
    found = {name: value for name, value in state.items() if name not in numbers}
    for inserted in INSERTED:
        found = _renamed(found, lambda name, part=inserted: name.replace(part, ""), file)
    while wrapper := next((w for w in WRAPPERS if all(n.startswith(w) for n in found)), ""):
        found = _renamed(found, lambda name, part=wrapper: name.removeprefix(part), file)
        if not found:
            break
    return found, numbers


def _renamed(state: dict[str, Tensor], rename: Any, file: Path) -> dict[str, Tensor]:
    new = {rename(name): value for name, value in state.items()}
    if len(new) < len(state):
        raise UsageError(f"{file}: two of its tensors have one name once their wrappers are gone.")
    return new
