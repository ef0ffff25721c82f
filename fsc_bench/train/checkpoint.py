"""Checkpoints and the run directory: what is on disk is whole, or is not there.

    out/config.json                architecture, preprocessing, data, settings, versions
    out/metrics.jsonl              one line a logged step
    out/checkpoints/step-N.pt      trainable weights, optimiser, scaler, teacher, step
    out/model.safetensors          the model as `-m run:out` loads it (LoRA merged); in its place,
                                   of a family with folders of its own, a folder: out/blip/
    out/lora.safetensors           the factors alone
    out/ema.safetensors            the moving average, where there is one

Every file is written beside its place, synced and renamed.
"""

import contextlib
import json
import platform
import re
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from fsc_bench import __version__
from fsc_bench.errors import UsageError
from fsc_bench.models.checkpoints.reading import read_content
from fsc_bench.models.trainable import Folder
from fsc_bench.system.facts import read_json as read_any
from fsc_bench.system.facts import typed
from fsc_bench.system.files import (
    Witness,
    complaints,
    remove_abandoned,
    system_error,
    write_atomically,
    write_text,
)
from fsc_bench.train.config import RESUMABLE, TrainConfig
from fsc_bench.train.lora import factors, merge_reference_lora

SCHEMA = 1
PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "safetensors")
BEST = "checkpoints/best.pt"
RESUME = "What was there before is untouched; make room and go on with --resume."


class RunFacts(msgspec.Struct):
    """What is read of a run's config.json to continue it; the rest is compared as it is."""

    settings: dict[str, Any] = msgspec.field(default_factory=dict)


def read_json(path: Path) -> dict[str, Any]:
    """A run's config. Raises UsageError, one line, where it is absent or none."""
    content = read_any(path, dict[str, Any])
    typed(content, RunFacts, str(path))
    return content


def check_same_run(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A resumed run must be the same run. Raises UsageError that names the first difference."""
    # A setting that an older version did not know had the value that now switches it off.
    before, now = {**TrainConfig().settings(), **old.get("settings", {})}, new["settings"]
    for name in now:
        if name not in RESUMABLE and before.get(name) != now[name]:
            raise UsageError(
                f"{out} was started with {name} = {before.get(name)!r}, not {now[name]!r}: resume "
                "with the same settings, or choose another --out."
            )
    for name, what in (("base", "the model"), ("data", "the data"), ("negatives", "negatives")):
        if json.dumps(old.get(name)) != json.dumps(new[name]):
            raise UsageError(
                f"{out} was started from other contents of {what}: choose another --out."
            )


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def save_weights(
    out: Path, weights: Mapping[str, Tensor], average: Mapping[str, Tensor], config: TrainConfig
) -> None:
    """model.safetensors (LoRA merged), and the factors and the moving average where there are."""
    facts = {"fsc_bench": __version__}
    if config.tune == "lora":
        write_tensors(
            out / "lora.safetensors", factors(weights),
            {**facts, "rank": str(config.lora_rank), "alpha": str(config.lora_alpha)},
        )  # fmt: skip
    for name, state in (("model", weights), ("ema", average)):
        if state:
            merged = merge_reference_lora(state, config.lora_alpha)
            write_tensors(out / f"{name}.safetensors", merged, facts)


def save_folder(place: Path, model: Folder) -> None:
    """A whole model, as its family loads it; its config.json, by which it is known, comes last."""
    write_tensors(place / "model.safetensors", model.weights, {"fsc_bench": __version__})
    for name in sorted(model.files, key=lambda name: name == "config.json"):
        content = model.files[name]
        write_atomically(place / name, lambda partial, b=content: partial.write_bytes(b), RESUME)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Safetensors of exact copies on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}

    def save(partial: Path) -> None:
        try:
            save_file(plain, partial, metadata={"format": "pt", **facts})
        except SafetensorError as error:
            raise system_error(error) or error from None
        partial.chmod(0o644)  # written for its owner alone otherwise

    write_atomically(path, save, RESUME)


def save_checkpoint(out: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Writes `step-N.pt`, then deletes all but the newest `keep`."""
    path = out / "checkpoints" / f"step-{step:08d}.pt"
    _write_pickled(path, {**state, "step": step})
    for old in checkpoints(out)[:-keep]:
        old.unlink()
    return path


def save_best(out: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes `best.pt`: the weights of the best evaluation, in the place of the one before."""
    _write_pickled(out / BEST, dict(weights))


def _write_pickled(path: Path, content: dict[str, Any]) -> None:
    def save(partial: Path) -> None:
        with open(partial, "wb") as file:
            witness = Witness(file)
            try:
                torch.save(content, witness)
            except RuntimeError as error:
                raise witness.error or error from None

    # A killed run's half of a checkpoint bears the name of a step that may never come again.
    with complaints(path, RESUME):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
    write_atomically(path, save, RESUME)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = out / "checkpoints"
    found = [path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+", path.stem)]
    return sorted(found)


def read_checkpoint(path: Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """Its content, on the CPU; nothing that a file holds is executed, and no bit is another.

    needed: what it must hold. Raises UsageError, one line.
    """
    onward = "Delete it to go on from the one before."
    try:
        content, _ = read_content(path)
    except UsageError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise UsageError(f"{path}: not a readable checkpoint: {why} {onward}") from None
    if not isinstance(content, dict) or not content.keys() >= set(needed):
        raise UsageError(f"{path}: no checkpoint of a training run. {onward}")
    return content


def cut_metrics(path: Path, step: int) -> None:
    """Drops the lines after `step`: a resumed run writes them again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # the line that a killed run was writing
    write_text(path, "".join(kept), RESUME)
