"""What `fsc-bench train` wrote: `run:DIR`, or `run:DIR?weights=ema` for its moving average.

The architecture is built without its first weights where that is possible: nothing is fetched. The
run's own config names it, which may be a stranger's: see `trusted`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import open_clip

from fsc_bench.errors import UsageError, one_line
from fsc_bench.model import Identity
from fsc_bench.models import LONGEST, check_named, load_model, pick_device, stated
from fsc_bench.models.checkpoints.fit import fit
from fsc_bench.models.checkpoints.repository import is_repository
from fsc_bench.models.checkpoints.state import read_state
from fsc_bench.models.checkpoints.transform import check_transform
from fsc_bench.models.open_clip import (
    DTYPES,
    OpenClip,
    activation_of,
    describe_preprocess,
    state_digest,
)
from fsc_bench.system.escape import shortened
from fsc_bench.system.facts import check_name, read_json, typed
from fsc_bench.system.spec import Spec

EXAMPLES = ("run:trained/fsc-clip", "run:trained/fsc-clip?weights=ema")

OPTIONS = ("weights", "skeleton")
SAVED = re.compile(r"(\w+):([\w-]+)")  # a family, and a folder of the run


def load(spec: Spec, device: str, precision: str) -> Any:
    if whole := whole_model(spec):
        return load_model(whole, device, precision)
    file, skeleton, preprocess = _parts(spec)
    adapter = load_model(skeleton, pick_device(device), "fp32")
    if not isinstance(adapter, OpenClip):
        raise UsageError(f"model '{spec}': {skeleton} is no open_clip model.")
    adapter = with_weights(adapter, read_state(file), str(spec))
    if preprocess:
        adapter.preprocess = preprocess
        described = describe_preprocess(adapter.preprocess)
        adapter.identity = replace(adapter.identity, preprocess=described)
    return in_precision(adapter, precision)


def check(spec: Spec) -> None:
    """Raises UsageError for what is wrong with a name or its folder; no weights are read."""
    if whole := whole_model(spec):
        return check_named(whole)
    _, skeleton, _ = _parts(spec)
    check_named(skeleton)


def whole_model(spec: Spec) -> str:
    """The name of the whole folder that a run of a family with such folders left (`hf:`, `blip:`);
    "" for a run that left weights alone. Nothing but the family is chosen by the run's config.
    """
    folder, options = Path(spec.place).expanduser(), spec.options(*OPTIONS, nested="skeleton")
    family, name = saved(folder)
    if not family:
        return ""
    if "skeleton" in options:
        raise UsageError(
            f"model '{spec}': {folder} holds the whole model, which needs no skeleton. Leave it "
            "out."
        )
    which = _which(spec, options)
    place = folder / (name if which == "model" else f"{name}-{which}")
    if not (place / "config.json").is_file():
        raise _unwritten(spec, folder, place.name, which)
    return f"{family}:{place.absolute()}"


def saved(folder: Path) -> tuple[str, str]:
    """The family of the whole models that a run leaves, and the folder of it that holds one; both
    empty where it leaves weights alone. Raises UsageError for a config that says neither.
    """
    said = read_facts(folder).get("saved") or ""
    if not said:
        return "", ""
    found = SAVED.fullmatch(said) if isinstance(said, str) else None
    if not found or not stated(found[1], "SAVES"):
        raise UsageError(
            f"{folder / 'config.json'}: 'saved' is {shortened(said)}, which is no FAMILY:FOLDER "
            "that a run leaves. It is not the config of a training run."
        )
    return found[1], found[2]


def is_written(folder: Path) -> bool:
    """Whether a run directory holds the model that a finished run leaves."""
    family, name = saved(folder)
    last = folder / name / "config.json" if family else folder / "model.safetensors"
    return last.is_file()


def _which(spec: Spec, options: Mapping[str, str]) -> str:
    which = options.get("weights", "model")
    if which not in ("model", "ema"):
        raise UsageError(f"model '{spec}': weights={which!r}: choose model or ema.")
    return which


def _unwritten(spec: Spec, folder: Path, name: str, which: str) -> UsageError:
    unfinished = which == "model" and (folder / "checkpoints").is_dir()
    hint = " It is not finished: go on with `fsc-bench train ... --resume`." * unfinished
    return UsageError(f"model '{spec}': {folder} has no {name}.{hint}")


def _parts(spec: Spec) -> tuple[Path, str, Callable[..., Any] | None]:
    """(file with the weights, the model that they are put into, the image transform if named)."""
    folder, options = Path(spec.place).expanduser(), spec.options(*OPTIONS, nested="skeleton")
    which, facts = _which(spec, options), read_facts(folder)
    file = folder / f"{which}.safetensors"
    if not file.is_file():
        raise _unwritten(spec, folder, file.name, which)
    preprocess = transform(facts["preprocess"], folder) if facts.get("preprocess") else None
    skeleton = options.get("skeleton") or trusted(facts["skeleton"], folder)
    return file, skeleton, preprocess


def spec_of(folder: Path) -> str:
    """The spec of a run directory of one's own, with its skeleton where a file may not name it.

    Raises UsageError where there is no run.
    """
    skeleton = read_facts(folder)["skeleton"]
    if saved(folder)[0]:
        return f"run:{folder}"
    return f"run:{folder}" if needs_only_a_name(skeleton) else f"run:{folder}?skeleton={skeleton}"


def needs_only_a_name(spec: str) -> bool:
    """Whether building a model executes and reads nothing that a file could have chosen."""
    parsed = Spec.read(spec)
    random = parsed.kind == "open_clip" and parsed.place.endswith("/random")
    named = bool(stated(parsed.kind, "BY_NAME"))
    return (random or named) and "@" not in parsed.place and not is_repository(parsed.place)


def trusted(spec: str, folder: Path) -> str:
    """The skeleton that a run's config names, where naming it executes and fetches nothing strange.

    A run directory may be a stranger's. Raises UsageError for all but the models that need nothing
    but a name.
    """
    if needs_only_a_name(spec):
        return spec
    raise UsageError(
        f"{folder / 'config.json'}: its skeleton is {spec!r}. A file may name "
        "open_clip:ARCHITECTURE/random, demo:NAME or fsc_clip:NAME only, for it may be a "
        f"stranger's. Where you trust it: run:{folder}?skeleton={spec}."
    )


def transform(config: Any, folder: Path) -> Callable[[Any], Any]:
    """The image transform that a run's config describes. Raises UsageError where it is none."""
    check_transform(config, f"{folder / 'config.json'}: preprocess")
    try:
        # JSON knows no tuples; a transform is known by its words, in which they differ.
        facts = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
        }
        settings = open_clip.transform.PreprocessCfg(**facts)
        return open_clip.transform.image_transform_v2(settings, is_train=False)
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"{folder / 'config.json'}: its preprocess describes no image transform: "
            f"{one_line(error)}."
        ) from None


def suite_known(spec: str) -> str:
    """The one suite that a model knows, of a family that states one, or of a run that started from
    such a model; empty for all others.
    """
    parsed = Spec.read(spec)
    if parsed.kind == "run":
        try:
            parsed = Spec.read(read_facts(Path(parsed.place).expanduser())["skeleton"])
        except UsageError:
            return ""  # loading it says what is wrong
    return stated(parsed.kind, "SUITE") or ""


class Config(msgspec.Struct, frozen=True):
    """What a run's config must say to be loaded."""

    skeleton: Annotated[str, msgspec.Meta(max_length=LONGEST)]


def read_facts(folder: Path) -> dict[str, Any]:
    """A run directory's config. Raises UsageError where there is none."""
    path = folder / "config.json"
    if not path.exists():
        raise UsageError(f"{folder}: no training run (there is no config.json).")
    try:
        facts = read_json(path, dict)
        check_name(typed(facts, Config, str(path)).skeleton, f"{path}: 'skeleton'")
    except UsageError as error:
        raise UsageError(f"{error} It is not the config of a training run.") from None
    return facts


def skeleton(spec: str, identity: Identity) -> str:
    """A model spec that builds this architecture, without its weights if open_clip knows it."""
    if identity.architecture in open_clip.list_models():
        known = {"GELU": "&activation=gelu", "QuickGELU": "&activation=quickgelu"}
        option = known.get(identity.activation, "")
        return f"open_clip:{identity.architecture}/random?seed=0{option}"
    parsed = Spec.read(spec)
    if parsed.kind == "run":
        options = parsed.options(*OPTIONS, nested="skeleton")
        return options.get("skeleton") or read_facts(Path(parsed.place).expanduser())["skeleton"]
    return spec


def with_weights(adapter: OpenClip, state: Mapping[str, Any], spec: str) -> OpenClip:
    """The adapter with other weights, and the identity that goes with them; float32."""
    notes = fit(adapter.model, state, spec)
    adapter.extras.notes = (*adapter.extras.notes, *notes)
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
