"""Shards: a checkpoint in one file or in several, which an index names.

`model.safetensors.index.json` and `pytorch_model.bin.index.json` are what transformers and
accelerate write. The parts lie beside the index; all of them must be there and whole.
"""

from pathlib import Path
from typing import Any

import msgspec

from fsc_bench.errors import UsageError
from fsc_bench.models.checkpoints.reading import kind_of, read_content
from fsc_bench.system.escape import shortened
from fsc_bench.system.facts import read_json

INDEX = ".index.json"


class Index(msgspec.Struct, frozen=True):
    """weight_map: the file that holds each tensor, by the tensor's name."""

    weight_map: dict[str, str]


def read_whole(file: Path) -> tuple[Any, tuple[str, ...]]:
    """As `reading.read_content`, of all parts together where the file is an index of them."""
    if not _is_index(file):
        return read_content(file)
    tensors: dict[str, Any] = {}
    left_out: dict[str, None] = {}
    named = read_json(file, Index).weight_map
    for part in _parts(file):
        content, classes = read_content(part)
        left_out |= dict.fromkeys(classes)
        if not isinstance(content, dict):
            raise UsageError(f"{part}: a part of {file.name} holds no tensors by name.")
        wrong = [name for name in content if named.get(name) != part.name]
        if wrong:
            raise UsageError(
                f"{part}: holds {shortened(wrong[0])}, which {file.name} does not place there."
            )
        tensors |= content
    if gone := [name for name in named if name not in tensors]:
        raise UsageError(f"{file}: no part holds {shortened(gone[0])}, which it promises.")
    return tensors, tuple(left_out)


def check_whole(file: Path) -> None:
    """Raises UsageError for a file that can be no checkpoint, or for a part that is absent."""
    for part in _parts(file) if _is_index(file) else [file]:
        kind_of(part)


def size_of(file: Path) -> int:
    """Bytes of the file, or of all parts of an index."""
    parts = _parts(file) if _is_index(file) else [file]
    return sum(part.stat().st_size for part in parts)


def _is_index(file: Path) -> bool:
    return file.name.endswith(INDEX) and file.is_file()


def _parts(file: Path) -> list[Path]:
    """The files that an index names: beside it, for an index may be a stranger's."""
    parts = []
    for name in dict.fromkeys(read_json(file, Index).weight_map.values()):
        if Path(name).name != name or name in ("", ".", ".."):
            raise UsageError(f"{file}: names the part {shortened(name)}; parts lie beside it.")
        if not (file.parent / name).is_file():
            raise UsageError(f"{file}: its part {name} is not in {file.parent}.")
        parts.append(file.parent / name)
    if not parts:
        raise UsageError(f"{file}: names no parts.")
    return parts
