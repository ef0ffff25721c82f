"""What `fsc-bench train` wrote: `run:DIR`, or `run:DIR?weights=ema` for its moving average.

The architecture is built without its first weights where that is possible: nothing is fetched.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip

from fsc_bench.errors import UsageError
from fsc_bench.models import Identity, load_model, pick_device, split_options
from fsc_bench.models.open_clip import (
    DTYPES,
    OpenClip,
    activation_of,
    describe_preprocess,
    read_state,
    state_digest,
)


def load(checkpoint: str, device: str, precision: str) -> OpenClip:
    folder, options = split_options(checkpoint, ("weights",))
    folder = Path(folder).expanduser()
    which = options.get("weights", "model")
    if which not in ("model", "ema"):
        raise UsageError(f"model 'run:{checkpoint}': weights={which!r}: choose model or ema.")
    facts = read_facts(folder)
    file = folder / f"{which}.safetensors"
    if not file.is_file():
        unfinished = which == "model" and (folder / "checkpoints").is_dir()
        hint = " It is not finished: go on with `fsc-bench train ... --resume`." * unfinished
        raise UsageError(f"model 'run:{checkpoint}': {folder} has no {file.name}.{hint}")
    adapter = load_model(facts["skeleton"], pick_device(device), "fp32")
    adapter = with_weights(adapter, read_state(file), f"run:{checkpoint}")
    if facts.get("preprocess"):
        cfg = open_clip.transform.PreprocessCfg(**facts["preprocess"])
        adapter.preprocess = open_clip.transform.image_transform_v2(cfg, is_train=False)
        described = describe_preprocess(adapter.preprocess)
        adapter.identity = replace(adapter.identity, preprocess=described)
    return in_precision(adapter, precision)


def read_facts(folder: Path) -> dict[str, Any]:
    """A run directory's config. Raises UsageError where there is none."""
    path = folder / "config.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(facts.get("skeleton"), str):
            raise ValueError("it names no skeleton")
    except FileNotFoundError:
        raise UsageError(f"{folder}: no training run (there is no config.json).") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not the config of a training run: {error}.") from None
    return facts


def skeleton(spec: str, identity: Identity) -> str:
    """A model spec that builds this architecture, without its weights if open_clip knows it."""
    if identity.architecture in open_clip.list_models():
        activation = "quickgelu" if "QuickGELU" in identity.activation else "gelu"
        return f"open_clip:{identity.architecture}/random?seed=0&activation={activation}"
    family, _, rest = spec.partition(":")
    if family == "run":
        return read_facts(Path(rest.partition("?")[0]).expanduser())["skeleton"]
    return spec


def with_weights(adapter: OpenClip, state: Mapping[str, Any], spec: str) -> OpenClip:
    """The adapter with other weights, and the identity that goes with them; float32."""
    try:
        adapter.model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"model {spec!r}: the weights do not fit: {reason}") from None
    adapter.identity = replace(
        adapter.identity,
        weights=state_digest(adapter.model),
        activation=activation_of(adapter.model),
    )
    return adapter


def in_precision(adapter: OpenClip, precision: str) -> OpenClip:
    """The adapter cast to a precision: after hashing, for one checkpoint has one hash."""
    adapter.model = adapter.model.to(DTYPES[precision])
    adapter.dtype = DTYPES[precision]
    adapter.identity = replace(adapter.identity, precision=precision)
    return adapter
