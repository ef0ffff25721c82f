"""Fine-tuned models of others by their names: `zoo:negclip`, `zoo:ce-clip`, `zoo:dac-llm@FILE.pt`.

Each is described by a TOML file (`fsc-bench models zoo` lists them): where its weights are, what it
was fine-tuned from, its activation, the scale of its LoRA factors, what it is mixed with. Files of
the Hub are fetched; others are downloaded by hand and named behind the `@`. `zoo:MINE.toml@FILE`
reads a description of one's own; `?base=MODEL` names the model that a mixture starts from.
"""

from dataclasses import replace
from pathlib import Path

import open_clip
import torch

from fsc_bench.errors import DataError, FscBenchError, UsageError
from fsc_bench.models import check_named, load_model, pick_device
from fsc_bench.models.checkpoints.catalogue import FineTune, entry
from fsc_bench.models.checkpoints.hub import check_sum, hub_file
from fsc_bench.models.checkpoints.lora import is_factor, merge_reference_lora, ranks
from fsc_bench.models.checkpoints.repository import is_local, is_repository
from fsc_bench.models.checkpoints.shards import check_whole
from fsc_bench.models.checkpoints.state import State, open_state
from fsc_bench.models.checkpoints.transformers_names import from_transformers
from fsc_bench.models.open_clip import OpenClip, built_in
from fsc_bench.models.run import needs_only_a_name
from fsc_bench.system.escape import shortened
from fsc_bench.system.spec import Spec

EXAMPLES = ("zoo:clic-cogvlm", "zoo:negclip@negclip.pth")

OPTIONS = ("base",)
TABLE = "positional_embedding"
ENCODERS = ("vision-encoder", "text-encoder")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # as transformers saves them
ACTIVATIONS = {"gelu": "GELU", "quickgelu": "QuickGELU"}


def check(spec: Spec) -> None:
    """Raises UsageError for a name that is not known and for a copy that is not there, DataError
    for a model that must be downloaded by hand.
    """
    facts = entry(spec.name)
    options = spec.options(*OPTIONS, nested="base")
    if facts.architecture not in open_clip.list_models():
        raise UsageError(
            f"model '{spec}': open_clip {open_clip.__version__} has no architecture "
            f"{facts.architecture!r}."
        )
    if "base" in options and not facts.wise:
        raise UsageError(f"model '{spec}': {facts.title} is not mixed with a base; leave it out.")
    if facts.wise:
        check_named(_base(spec, facts))
    if "@" in spec.place:
        _check_copy(spec, facts)
    elif facts.by_hand:
        raise DataError(
            f"model '{spec}': download {facts.by_hand} by hand, and name it: "
            f"zoo:{spec.name}@{facts.get.file or 'FILE'}."
        )


def _base(spec: Spec, facts: FineTune) -> str:
    """The model that a mixture starts from: what the user names, or what its description does.

    A description may be a stranger's. Raises UsageError where it names more than a model that
    needs nothing but a name.
    """
    if own := spec.options(*OPTIONS, nested="base").get("base"):
        return own
    parsed = Spec.read(facts.base)
    tag = parsed.kind == "open_clip" and "@" not in parsed.place and not is_repository(parsed.place)
    if tag or needs_only_a_name(facts.base):
        return facts.base
    raise UsageError(
        f"model '{spec}': its base is {shortened(facts.base)}. A file may name open_clip:"
        "ARCHITECTURE/TAG, demo:NAME or fsc_clip:NAME only, for it may be a stranger's. Where you "
        "trust it, name it yourself: add the option base."
    )


def _check_copy(spec: Spec, facts: FineTune) -> None:
    path = spec.file
    if path is None or not path.exists():
        raise UsageError(f"model '{spec}': there is no file {path or 'behind the @'}.")
    if facts.layout == "encoders":
        for part in ENCODERS:
            if not any((path / part / name).is_file() for name in WEIGHTS):
                raise UsageError(
                    f"model '{spec}': {facts.title} is a folder with {' and '.join(ENCODERS)}; "
                    f"there is no {part}/{WEIGHTS[0]} in {path}."
                )
    elif path.is_dir() and not (facts.layout == "repository" and is_local(path)):
        raise UsageError(f"model '{spec}': {path} is a folder; name the file in it.")
    elif path.is_file():
        check_whole(path)


def load(spec: Spec, device: str, precision: str) -> OpenClip:
    check(spec)
    facts, device = entry(spec.name), pick_device(device)
    if facts.layout == "repository" and (spec.file is None or spec.file.is_dir()):
        place = f"local-dir:{spec.file}" if spec.file else f"hf-hub:{facts.get.hub}"
        return _described(load_model(f"open_clip:{place}", device, precision), facts)
    try:
        state = _in_our_names(_read(spec, facts), facts)
        tensors = _merged(state.tensors, facts)
    except FscBenchError as error:
        raise type(error)(f"model '{spec}': {error}") from None
    tensors, notes = _of_length(tensors, facts, str(spec))
    if facts.wise:
        base = _base(spec, facts)
        tensors = _mixed(tensors, base, facts.wise.alpha, str(spec))
        notes.append(f"{facts.wise.alpha:g} of {facts.title}, the rest of {base}, as published.")
    model = built_in(
        facts.architecture, str(spec), device, precision, facts.activation == "quickgelu",
        state=State(tensors, state.notes), notes=notes, context=_length(tensors),
    )  # fmt: skip
    return _described(model, facts)


def _described(model: OpenClip, facts: FineTune) -> OpenClip:
    """The model, with what nobody could check about it; and a word where its towers are others."""
    notes = [f"{facts.title}: uncertain: {line}" for line in facts.uncertain]
    wanted = ACTIVATIONS[facts.activation]
    if model.identity.activation != wanted:
        notes.append(
            f"{facts.title}: its own config builds {model.identity.activation}, which is used; its "
            f"base was trained with {wanted}."
        )
    model.extras.notes = (*model.extras.notes, *notes)
    return model


def _read(spec: Spec, facts: FineTune) -> State:
    """What the files of an entry hold, from the copy that is named or from the Hub."""
    if facts.layout == "encoders":
        states = [open_state(_encoder(spec, facts, part)) for part in ENCODERS]
        tensors = {name: value for one in states for name, value in one.tensors.items()}
        return State(tensors, tuple(note for one in states for note in one.notes))
    path = spec.file or hub_file(
        facts.get.hub, facts.get.file, instead=f" With a copy at hand: zoo:{spec.name}@FILE."
    )
    if facts.get.sha256:
        check_sum(path, facts.get.sha256)
        return open_state(path)
    state = open_state(path)
    note = f"{path.name}: no sha256 is published for it; taken as it is."
    return replace(state, notes=(*state.notes, note))


def _encoder(spec: Spec, facts: FineTune, part: str) -> Path:
    """The file with one tower's weights."""
    if spec.file:
        return next(p for n in WEIGHTS if (p := spec.file / part / n).is_file())
    try:
        return hub_file(facts.get.hub, f"{part}/{WEIGHTS[0]}")
    except DataError as first:
        try:
            return hub_file(facts.get.hub, f"{part}/{WEIGHTS[1]}")
        except DataError:
            raise first from None


def _in_our_names(state: State, facts: FineTune) -> State:
    if facts.layout not in ("transformers", "encoders"):
        return state
    tensors = from_transformers(state.tensors, "the file")
    if "logit_scale" in tensors or facts.layout == "transformers":
        return replace(state, tensors=tensors)
    tensors["logit_scale"] = torch.tensor(0.0)
    note = "Its encoders have no logit_scale; 1 is used, which moves no ranking."
    return replace(state, tensors=tensors, notes=(*state.notes, note))


def _merged(tensors: dict[str, torch.Tensor], facts: FineTune) -> dict[str, torch.Tensor]:
    """The tensors with LoRA factors folded in, with the scale that the model was trained with."""
    found = ranks(tensors)
    if not facts.lora:
        if any(map(is_factor, tensors)):
            raise UsageError(f"the file holds LoRA factors, which {facts.title} does not have.")
        return tensors
    if found != {facts.lora.rank}:
        there = f"factors of rank {', '.join(map(str, sorted(found)))}" if found else "no factors"
        raise UsageError(
            f"{facts.title} has LoRA factors of rank {facts.lora.rank}; the file holds {there}. "
            "Weights that are merged already: open_clip:ARCHITECTURE@FILE."
        )
    return merge_reference_lora(tensors, facts.lora.alpha)


def _length(tensors: dict[str, torch.Tensor]) -> int | None:
    return tensors[TABLE].shape[0] if TABLE in tensors else None


def _of_length(
    tensors: dict[str, torch.Tensor], facts: FineTune, where: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """(the tensors with as many position embeddings as texts use, what to say of it)."""
    length = _length(tensors)
    if length is None:  # fit names what is missing
        return tensors, []
    if length not in facts.contexts:
        known = " or ".join(map(str, facts.contexts))
        raise UsageError(
            f"model {where!r}: {TABLE} has {length} tokens of text in the file; {facts.title} has "
            f"{known}."
        )
    if facts.longest_text and facts.longest_text < length:
        cut = {**tensors, TABLE: tensors[TABLE][: facts.longest_text].clone()}
        return cut, [f"Texts are cut to {facts.longest_text} tokens, as it was trained."]
    return tensors, [] if length == 77 else [
        f"Texts are cut to {length} tokens, as it was trained."
    ]


def _mixed(
    tensors: dict[str, torch.Tensor], base: str, alpha: float, where: str
) -> dict[str, torch.Tensor]:
    """(1 - alpha) base + alpha tensors; of the base's position embeddings the first ones."""
    start = load_model(base, "cpu", "fp32")
    if not isinstance(start, OpenClip):
        raise UsageError(f"model {where!r}: the weights of {base} cannot be mixed.")
    own = start.model.state_dict()
    if TABLE in tensors and TABLE in own:
        own[TABLE] = own[TABLE][: tensors[TABLE].shape[0]]
    same = own.keys() == tensors.keys()
    if not same or any(own[name].shape != tensors[name].shape for name in own):
        raise UsageError(f"model {where!r}: {base} and the file are different architectures.")
    return {
        name: torch.lerp(value, tensors[name].to(value), alpha)
        if value.is_floating_point()
        else value
        for name, value in own.items()
    }
