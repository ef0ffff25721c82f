"""Repositories: what open_clip's `push_to_hf_hub` writes, on the Hub or in a folder.

A repository is a stranger's: its config is read as data and checked before anything is built from
it, and no Python of it or of what it names is ever executed, whatever it asks for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsc_bench.errors import DataError, UsageError, near_miss, one_line
from fsc_bench.models.checkpoints.hub import hub_file, revision_of
from fsc_bench.models.checkpoints.transform import check_transform
from fsc_bench.system.escape import shortened

HUB, LOCAL = "hf-hub:", "local-dir:"
PATHS = ("./", "../", "/", "~/")
CONFIG = "open_clip_config.json"
# What no model's config exceeds, by key; other numbers are at most `MOST`.
LARGEST = {
    "embed_dim": 65_536, "width": 65_536, "layers": 1024, "heads": 1024, "head_width": 65_536,
    "image_size": 4096, "patch_size": 4096, "context_length": 65_536, "vocab_size": 10_000_000,
}  # fmt: skip
MOST = 10_000_000
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
INDICES = tuple(f"{name}.index.json" for name in WEIGHTS)


@dataclass(frozen=True)
class Repository:
    """folder: where its config lies; config: `model_cfg`, checked; weights: the file with them."""

    spec: str
    folder: Path
    config: Mapping[str, Any]
    weights: Path
    notes: tuple[str, ...]


def is_repository(name: str) -> bool:
    """Whether a name is of the Hub or a folder: `local-dir:PATH`, or a path with a `/` in front."""
    return name.startswith((HUB, LOCAL, *PATHS)) or name in (".", "..")


def whole_name(name: str) -> str:
    """A repository's name; of a bare path, with the `local-dir:` in front that it stands for."""
    return name if name.startswith((HUB, LOCAL)) else f"{LOCAL}{name}"


def is_local(folder: Path) -> bool:
    """Whether a folder holds what open_clip's `push_to_hf_hub` writes."""
    return (folder / CONFIG).is_file()


def is_transformers(folder: Path) -> bool:
    """Whether a folder is what transformers' `save_pretrained` writes, and no open_clip model."""
    if is_local(folder):
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and ("model_type" in config or "architectures" in config)


def check_repository(name: str) -> None:
    """Raises UsageError where a name can be no repository, or a local one is not there."""
    spec = f"open_clip:{name}"
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        if is_transformers(folder):
            raise UsageError(
                f"model {spec!r}: {folder} holds a transformers model (config.json), not one of "
                f"open_clip ({CONFIG}). Write hf:{folder}."
            )
        if not folder.is_dir():
            others = [one.name for one in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise UsageError(
                f"model {spec!r}: there is no folder {folder}.{near_miss(folder.name, others)}"
            )
        if not is_local(folder):
            raise UsageError(f"model {spec!r}: there is no {CONFIG} in {folder}.")
        _local_weights(folder, spec)
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name.removeprefix(HUB)):
        raise UsageError(
            f"model {spec!r}: write {HUB}ORG/NAME, or {HUB}ORG/NAME@REVISION; "
            f"a folder is {LOCAL}PATH."
        )


def open_repository(name: str) -> Repository:
    """`hf-hub:ORG/NAME`, `hf-hub:ORG/NAME@REVISION` or `local-dir:PATH`.

    Raises DataError where it cannot be had, UsageError where it is not one or needs code of its
    own.
    """
    check_repository(name)
    spec = f"open_clip:{name}"
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL)).expanduser()
        file = folder / CONFIG
        weights = _local_weights(folder, spec)
        notes: tuple[str, ...] = ()
    else:
        repository, _, revision = name.removeprefix(HUB).partition("@")
        file = _hub_config(repository, revision, spec)
        weights = _hub_weights(repository, revision_of(file) or revision or None)
        folder = file.parent
        notes = (f"{spec}: revision {revision_of(file) or revision or 'unknown'}.",)
    return Repository(spec, folder, _checked(file, spec), weights, notes)


def _hub_config(repository: str, revision: str, spec: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    try:
        return hub_file(repository, CONFIG, revision or None)
    except DataError:
        other = try_to_load_from_cache(repository, "config.json", revision=revision or None)
        if isinstance(other, str) and is_transformers(Path(other).parent):
            raise UsageError(
                f"model {spec!r}: {repository} in the Hub's cache is a transformers model, not one "
                f"of open_clip. Write hf:{repository}."
            ) from None
        raise


def _hub_weights(repository: str, revision: str | None) -> Path:
    errors = []
    for name in WEIGHTS:
        try:
            return hub_file(repository, name, revision)
        except DataError as error:
            errors.append(error)
    raise errors[0]


def _local_weights(folder: Path, spec: str) -> Path:
    for name in (*WEIGHTS, *INDICES):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"model {spec!r}: there is no {' or '.join(WEIGHTS)} in {folder}.")


def _checked(file: Path, spec: str) -> dict[str, Any]:
    """The `model_cfg` of a repository's config. Raises UsageError where it cannot be used."""
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        config = whole["model_cfg"]
        parts = [config[name] for name in ("vision_cfg", "text_cfg")]
        int(config["embed_dim"])
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("vision_cfg and text_cfg must be tables")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(
            f"model {spec!r}: {file} is not a config of open_clip: {type(error).__name__}: "
            f"{one_line(error)}."
        ) from None
    check_transform(whole.get("preprocess_cfg", {}), f"model {spec!r}: {file}: preprocess_cfg")
    _check_sizes(config, f"model {spec!r}: {file}")
    tower = parts[1].get("hf_model_name")
    if tower:
        refuse_code(str(tower), "config.json", spec)
    return config


def _check_sizes(config: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for sizes that no model has and that would fill the memory."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_sizes(value, where)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= LARGEST.get(key, MOST):
                raise UsageError(
                    f"{where}: {shortened(key)} = {shortened(number)} is no size of a model."
                )


def refuse_code(repository: str, file: str, spec: str) -> None:
    """Raises UsageError where a repository that a config names would have Python of its own run."""
    local = Path(repository).expanduser() / file
    path = local if local.is_file() else hub_file(repository, file)
    try:
        asks = "auto_map" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"model {spec!r}: {path} cannot be read: {one_line(error)}.") from None
    if asks:
        raise UsageError(
            f"model {spec!r}: {repository} wants Python of its own executed ({file}: auto_map), "
            "which is never done. Write an adapter that you trust, py:FILE.py:model."
        )
