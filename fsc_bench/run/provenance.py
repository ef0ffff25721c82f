"""Provenance: which model, which code, which machine and which command made a result."""

import hashlib
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fsc_bench import __version__
from fsc_bench.data.lock import Lock
from fsc_bench.errors import UsageError
from fsc_bench.model import DualEncoder, extras_of
from fsc_bench.results import RunDirectory, read_run_facts
from fsc_bench.system.spec import Spec

# What two training runs of one recipe share in their configs, whatever their seeds.
RECIPE = ("recipe", "skeleton", "base", "preprocess", "data", "negatives", "steps")

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "numpy",
    "pillow",
    "datasets",
)


def run_facts(
    spec: str,
    model: DualEncoder,
    started: float,
    seconds: Mapping[str, float],
    directory: RunDirectory,
    lock: Lock | None = None,
) -> dict[str, Any]:
    """Provenance: which model, which code, which machine, which command.

    seconds: of the tasks that this command scored, whose data it held to `lock`, if there is one.
    """
    earlier: dict[str, Any] = {}
    with suppress(UsageError):  # none yet, or damaged: it is written anew
        earlier = read_run_facts(directory.path)
    held = {name: one for name, one in _locked(earlier).items() if name not in seconds}
    if lock:
        held |= {name: {"file": lock.path.name, "sha256": lock.sha256} for name in seconds}
    return {
        "model": spec,
        "identity": vars(model.identity),
        "fingerprint": model.identity.fingerprint,
        "seeds": seeds_of(spec),
        "base": base_of(spec),
        "trained_on": trained_on(spec),
        "notes": list(extras_of(model).notes),
        "fsc_bench": __version__,
        "git": git_commit(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(model.device),
        "precision": model.identity.precision,
        "argv": sys.argv[1:],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {**earlier.get("seconds", {}), **seconds},
        **({"locked": held} if held else {}),
    }


def _locked(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Which lock file each task's data were held to, by task."""
    found = facts.get("locked", {})
    return found if isinstance(found, Mapping) else {}


def seeds_of(spec: str) -> str:
    """What a model has in common with those that differ from it in their seed alone; empty where
    nothing says so. A training run is known by its config, other models by their name.
    """
    parsed = Spec.read(spec)
    if parsed.kind == "run":
        config = _config(parsed)
        if not config:
            return ""
        settings = {**config["settings"], "seed": None, "out": None}
        which = parsed.rest.partition("?")[2]  # the moving average is another model
        same = [config.get(key) for key in RECIPE]
        words = json.dumps([same, settings, which], sort_keys=True, default=str)
        return f"run {hashlib.sha256(words.encode()).hexdigest()[:16]}"
    without = re.sub(r"(?<=[?&])seed=\d+&?", "", spec).rstrip("?&")
    return without if without != spec else ""


def _config(run: Spec) -> Mapping[str, Any]:
    """What a training run says of itself, with its `settings`; empty where it cannot be read."""
    from fsc_bench.models.run import read_facts  # which imports torch

    try:
        config = read_facts(Path(run.place).expanduser())
    except UsageError:
        return {}
    settings = config.get("settings", {})
    return {**config, "settings": settings} if isinstance(settings, Mapping) else {}


def _settings(run: Spec) -> Mapping[str, Any]:
    return _config(run).get("settings", {})


def base_of(spec: str) -> str:
    """The model that a model was made from: the one that a training run began with, or the first of
    the two that lie around it (`wise:`); empty where nothing says so.
    """
    parsed = Spec.read(spec)
    if parsed.kind == "wise":
        return parsed.place.partition("+")[0]
    if parsed.kind != "run":
        return ""
    return str(_settings(parsed).get("model", ""))


def trained_on(spec: str) -> str:
    """What a model was fine-tuned on, in the words of whoever did it; empty where nothing says so.

    A training run's config names its data; a mixture (`wise:`) was trained on what its parts were;
    a released file has it in its name.
    """
    parsed = Spec.read(spec)
    if parsed.kind == "wise":
        parts = [trained_on(part) for part in parsed.place.split("+")]
        return ", ".join(dict.fromkeys(filter(None, parts)))
    if parsed.kind == "fsc_clip":
        return parsed.name.partition("-")[0]
    if parsed.kind != "run":
        return ""
    settings = _settings(parsed)
    return ", ".join(filter(None, [trained_on(_model(settings)), str(settings.get("data", ""))]))


def _model(settings: Mapping[str, Any]) -> str:
    """The model that a training began with, if that is no run: a chain of runs could be a ring."""
    model = str(settings.get("model", ""))
    return "" if Spec.read(model).kind in ("run", "wise") else model


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def git_commit() -> str | None:
    """Commit of the checkout that this runs from, "-dirty" with changes; None for a wheel."""
    folder = Path(__file__).parent.parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
