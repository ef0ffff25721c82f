"""Every open_clip model: pretrained tags, Hub repositories, local checkpoints, seeded random
weights.

    ViT-B-32-quickgelu/openai          a tag of open_clip's own list
    hf-hub:org/name                    a repository with open_clip's config and weights
    ViT-B-32@runs/ft/epoch_5.pt        an architecture with a local checkpoint (.pt, .safetensors)
    local-dir:FOLDER, ./FOLDER         the same in a folder
    ViT-B-32/random?seed=0             an explicit random initialisation

`@FILE?lora_alpha=1` folds LoRA factors in with alpha / rank, `?activation=gelu` says what a state
dict cannot, `?part=ema` which of several sets of weights is meant, `?resize=interpolate` fits
position embeddings to another image size or text length.

`ViT-B-32` with the tag `openai` builds GELU in open_clip 3.3.0, although those weights were trained
with QuickGELU; it only warns, and 4 to 12 points are lost (open_clip issue #1109). The activation
that the tag declares is forced here, said, and recorded.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import PIL
import torch
import torchvision

from fsc_bench.errors import FscBenchError, UsageError, near_miss, one_line
from fsc_bench.model import Identity
from fsc_bench.models import pick_device
from fsc_bench.models.checkpoints.fit import fit
from fsc_bench.models.checkpoints.hub import how_to_get
from fsc_bench.models.checkpoints.lora import is_factor, merge_reference_lora
from fsc_bench.models.checkpoints.quiet import quiet
from fsc_bench.models.checkpoints.repository import (
    LOCAL,
    check_repository,
    is_local,
    is_repository,
    is_transformers,
    open_repository,
    whole_name,
)
from fsc_bench.models.checkpoints.shards import check_whole
from fsc_bench.models.checkpoints.state import State, open_state
from fsc_bench.models.checkpoints.tokenizers import (
    CONTEXT,
    built_in_tokenizer,
    describe_tokenizer,
    repository_tokenizer,
)
from fsc_bench.models.shortcuts.extras import OpenClipExtras
from fsc_bench.models.shortcuts.towers import first, unit
from fsc_bench.system.memory import out_of_memory
from fsc_bench.system.spec import Spec, is_seed

EXAMPLES = (
    "open_clip:ViT-B-32-quickgelu/openai",
    "open_clip:ViT-B-32-quickgelu@FILE.pt",
    "open_clip:hf-hub:ORG/NAME",
    "open_clip:local-dir:FOLDER",
    "open_clip:ViT-B-32/random?seed=0",
)

OPTIONS = ("seed", "activation", "lora_alpha", "part", "resize")
# What each way of naming a model has a use for; an option without one would do nothing in silence.
USED = {
    "a random initialisation": ("seed", "activation"),
    "a file": ("activation", "lora_alpha", "part", "resize"),
    "a tag": (),
    "a repository": (),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClip:
    """An open_clip model as a DualEncoder, with its shortcuts as its extras."""

    def __init__(self, model, preprocess, tokenizer, identity: Identity, device: str, notes=()):
        self.model = model.eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.identity = identity
        self.device = device
        self.dtype = DTYPES[identity.precision]
        self.extras = OpenClipExtras(self, notes)

    saved = ""  # a run of it leaves weights alone: models/trainable

    def trainable(self) -> "OpenClip":
        """Itself: its towers are what the trainer knows best."""
        return self

    # no_grad, not inference_mode: on CPU, bf16 under inference_mode takes a six times slower path.
    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors [n, d] of images [n, 3, h, w], as `preprocess` gave them."""
        return unit(first(self.extras.image_tower(images.to(self.device, self.dtype))))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors [n, d]."""
        return unit(first(self.model.encode_text(self.tokenizer(list(texts)).to(self.device))))


def load(spec: Spec, device: str, precision: str) -> OpenClip:
    check(spec)
    device = pick_device(device)
    options = spec.options(*OPTIONS)
    if is_repository(spec.place):
        return _from_repository(whole_name(spec.place), device, precision)
    if spec.file:
        return _from_file(spec.name, spec.file, options, device, precision)
    architecture, _, tag = spec.name.partition("/")
    if tag == "random":
        seed = int(options.get("seed", "0"))
        quick = _wants_quick_gelu(architecture, options)
        model = built_in(architecture, str(spec), device, precision, quick, seed=seed)
        return _with_activation(model, options, str(spec))
    quick, notes = declared_activation(architecture, tag)
    return built_in(architecture, str(spec), device, precision, quick, tag=tag, notes=notes)


def check(spec: Spec) -> None:
    """Raises UsageError for what is wrong with a name; no weights are read."""
    options = spec.options(*OPTIONS)
    if empty := next((name for name, value in options.items() if not value), ""):
        raise UsageError(f"model '{spec}': the option {empty} has no value.")
    if not is_seed(options.get("seed", "0")):
        raise UsageError(f"model '{spec}': seed must be a whole number of at most 18 digits.")
    if is_repository(spec.place):
        check_repository(whole_name(spec.place))
        way = "a repository"
    elif "@" in spec.place:
        _check_file(spec, options)
        way = "a file"
    else:
        architecture, _, tag = spec.name.partition("/")
        _check_tag(spec, architecture, tag)
        way = "a random initialisation" if tag == "random" else "a tag"
    for name, value in options.items():
        if name not in USED[way]:
            owners = " and ".join(owner for owner, used in USED.items() if name in used)
            raise UsageError(
                f"model '{spec}': the option {name}={value} does nothing for {way}; it is for "
                f"{owners}. Leave it out."
            )


def _check_tag(spec: Spec, architecture: str, tag: str) -> None:
    _check_architecture(architecture)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        raise UsageError(
            f"model 'open_clip:{architecture}': an architecture alone has no weights. Add a tag: "
            f"{', '.join(f'{architecture}/{tag}' for tag in [*tags, 'random'])}."
        )
    if tag not in (*tags, "random"):
        raise UsageError(
            f"model '{spec}': {architecture} has no tag {tag!r}."
            f"{near_miss(tag, tags)} Its tags: {', '.join(tags) or 'none'}."
        )


def _check_file(spec: Spec, options: dict[str, str]) -> None:
    """A local checkpoint is there and looks like one, and its activation is known."""
    architecture, file = spec.name, spec.file
    _check_architecture(architecture)
    if file is None:
        raise UsageError(f"model '{spec}': name the checkpoint behind the @.")
    if not file.exists():
        beside = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
        raise UsageError(
            f"model 'open_clip:{architecture}@{file}': there is no such file."
            f"{near_miss(file.name, beside)}"
        )
    if file.is_dir():
        raise UsageError(f"model 'open_clip:{architecture}@{file}': {_folder(file)}")
    if options.get("resize", "interpolate") != "interpolate":
        raise UsageError(
            f"model '{spec}': resize={options['resize']!r}: the one way is resize=interpolate."
        )
    _wants_quick_gelu(architecture, options)
    twin = f"{architecture}-quickgelu"
    if twin in open_clip.list_models() and "activation" not in options:
        # The activation is not in a state dict, and the wrong one costs 5 to 12 points of ImageNet.
        raise UsageError(
            f"model 'open_clip:{architecture}@{file}': the file cannot say which activation it was "
            f"trained with. Started from openai weights: {twin}@{file}. Otherwise: "
            f"{architecture}@{file}?activation=gelu."
        )
    check_whole(file)


def _folder(folder: Path) -> str:
    """What to write for a folder in place of a file."""
    if is_transformers(folder):
        return f"a transformers model. Write hf:{folder}."
    if is_local(folder):
        return f"a folder with open_clip's config. Write open_clip:{LOCAL}{folder}."
    return "a folder, not a checkpoint file. Name the file in it."


def declared_activation(architecture: str, tag: str) -> tuple[bool, list[str]]:
    """(QuickGELU?, what to tell the user) for a tag: what its weights were trained with decides."""
    wanted = bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False))
    built = _config_quick_gelu(architecture)
    if wanted == built:
        return wanted, []
    names = {True: "QuickGELU", False: "GELU"}
    note = (
        f"{architecture}/{tag}: the weights were trained with {names[wanted]}, the architecture "
        f"alone would build {names[built]}; using {names[wanted]}."
    )
    return wanted, [note]


def _config_quick_gelu(architecture: str) -> bool:
    return bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu", False))


def _check_architecture(architecture: str) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        if "/" not in architecture and (folder := Path(architecture)).is_dir():
            raise UsageError(
                f"model 'open_clip:{architecture}': a folder is written open_clip:./{folder}."
            )
        raise UsageError(
            f"model 'open_clip:{architecture}': open_clip {open_clip.__version__} has no such "
            f"architecture.{near_miss(architecture, known)}"
        )


def _wants_quick_gelu(architecture: str, options: dict[str, str]) -> bool:
    activation = options.get("activation")
    if activation is None:
        return _config_quick_gelu(architecture)
    if activation not in ("gelu", "quickgelu"):
        raise UsageError(f"model option activation={activation!r}: choose gelu or quickgelu.")
    return activation == "quickgelu"


def _from_file(
    architecture: str, file: Path, options: dict[str, str], device: str, precision: str
) -> OpenClip:
    spec = f"open_clip:{architecture}@{file}"
    quick = _wants_quick_gelu(architecture, options)
    state = open_state(file, options.get("part", ""))
    state = replace(state, tensors=_merged(state.tensors, options.get("lora_alpha"), spec))
    model = built_in(
        architecture, spec, device, precision, quick, state=state, interpolate="resize" in options
    )
    return _with_activation(model, options, spec)


def _merged(
    tensors: dict[str, torch.Tensor], alpha: str | None, spec: str
) -> dict[str, torch.Tensor]:
    """The tensors with LoRA factors folded in: only with the scale that the user names."""
    factors = any(map(is_factor, tensors))
    if not factors and alpha is None:
        return tensors
    if not factors:
        raise UsageError(f"model {spec!r}: lora_alpha={alpha}: the file holds no LoRA factors.")
    if alpha is None:
        raise UsageError(
            f"model {spec!r}: the file holds LoRA factors, whose scale alpha / rank it cannot say. "
            "FSC-CLIP's, TSVLC's and DAC's alpha is 1: add the option lora_alpha=1, as in "
            f"{spec}?lora_alpha=1. One of FSC-CLIP's released files: fsc_clip:NAME@FILE."
        )
    try:
        number = float(alpha)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"model {spec!r}: lora_alpha={alpha!r} must be a number above 0.")
    try:
        return merge_reference_lora(tensors, number)
    except FscBenchError as error:
        raise UsageError(f"model {spec!r}: {error}") from None


def _with_activation(model: OpenClip, options: dict[str, str], spec: str) -> OpenClip:
    """The model, if its towers follow the option `activation`: those of other libraries do not."""
    wanted = {"gelu": "GELU", "quickgelu": "QuickGELU"}.get(options.get("activation", ""))
    if wanted and model.identity.activation != wanted:
        raise UsageError(
            f"model {spec!r}: its towers have {model.identity.activation}, which "
            f"activation={options['activation']} cannot change. Leave it out."
        )
    return model


def _from_repository(name: str, device: str, precision: str) -> OpenClip:
    source = open_repository(name)
    local = source.folder if name.startswith(LOCAL) else None
    tokenizer = repository_tokenizer(source.config, local, source.spec)
    state = open_state(source.weights)
    model, preprocess = _create(
        f"{LOCAL}{source.folder}", source.spec, load_weights=False, pretrained_text=False
    )
    notes = (*source.notes, *state.notes, *fit(model, state.tensors, source.spec))
    architecture = next(
        (known for known in open_clip.list_models()
         if open_clip.get_model_config(known) == source.config),
        f"open_clip config {_digest(source.config)}",  # not its folder: a copy is the same model
    )  # fmt: skip
    return _wrap(architecture, model.to(device), preprocess, tokenizer, device, precision, notes)


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def built_in(
    architecture: str,
    spec: str,
    device: str,
    precision: str,
    quick_gelu: bool,
    *,
    tag: str | None = None,
    seed: int = 0,
    state: State | None = None,
    interpolate: bool = False,
    context: int | None = None,
    notes: Sequence[str] = (),
) -> OpenClip:
    """One of open_clip's own architectures, with a tag's weights, a file's or random ones.

    interpolate: whether the file's position embeddings are resized; the identity then says so.
    context: tokens of a text, where that is not the architecture's own number.
    """
    # Before the model: what is absent is said before gigabytes are built.
    tokenizer = built_in_tokenizer(architecture, spec, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, preprocess = _create(
            architecture, spec, pretrained=tag, quick_gelu=quick_gelu, pretrained_text=False,
            force_context_length=context,
        )  # fmt: skip
        if tag is None and state is None:
            _fill_what_is_left(model)
    if state is not None:
        fitted = fit(model, state.tensors, spec, interpolate=interpolate)
        notes = (*notes, *state.notes, *fitted)
    own = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    if context and context != own.get("context_length", CONTEXT):
        architecture = f"{architecture}, texts of {context} tokens"
    if interpolate:
        architecture = f"{architecture}, {fitted[-1]}"
    return _wrap(architecture, model.to(device), preprocess, tokenizer, device, precision, notes)


def _fill_what_is_left(model: torch.nn.Module) -> None:
    """open_clip 3.3.0 leaves a projection of CoCa's text decoder as memory happened to be."""
    projection = getattr(getattr(model, "text_decoder", None), "text_projection", None)
    if isinstance(projection, torch.nn.Parameter):
        torch.nn.init.normal_(projection, std=projection.shape[0] ** -0.5)


def _create(name: str, spec: str, **options: Any) -> tuple[Any, Any]:
    """(model in float32 on the CPU, its image transform). Raises UsageError, one line."""
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the mismatch it warns of is mended here
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, weights_only=True, **options
            )
    except MemoryError:
        raise
    except Exception as error:  # a config or a library that does not know it raises anything
        if out_of_memory(error):
            raise
        hub = open_clip.get_pretrained_cfg(name, options.get("pretrained") or "").get("hf_hub", "")
        way = f" {how_to_get(hub.rstrip('/'))}" if hub else ""
        raise UsageError(
            f"model {spec!r}: cannot be loaded: {type(error).__name__}: {one_line(error)}.{way} "
            "With a file at hand: open_clip:ARCHITECTURE@FILE."
        ) from None
    return model, preprocess


def _wrap(
    architecture: str, model, preprocess, tokenizer, device: str, precision: str, notes=()
) -> OpenClip:
    weights = state_digest(model)  # before the cast: one checkpoint, one hash
    model = model.to(DTYPES[precision])
    identity = Identity(
        weights=weights,
        architecture=architecture,
        activation=activation_of(model),
        preprocess=describe_preprocess(preprocess),
        tokenizer=describe_tokenizer(tokenizer),
        context_length=int(getattr(tokenizer, "context_length", 77) or 77),
        precision=precision,
    )
    return OpenClip(model, preprocess, tokenizer, identity, device, notes)


def wrapped(model: torch.nn.Module, preprocess: Any, tokenizer: Any) -> OpenClip:
    """An open_clip model that is in memory, as it is: its device and its type of number stay."""
    own = next(model.parameters())
    precision = next((name for name, kind in DTYPES.items() if kind is own.dtype), None)
    if precision is None:
        raise UsageError(f"model: its numbers are {own.dtype}; make them one of {list(DTYPES)}.")
    kind, device = type(model).__name__, str(own.device)
    return _wrap(kind, model, preprocess, tokenizer, device, precision)


def state_digest(model: torch.nn.Module) -> str:
    """sha256 over every tensor of the state (name, type, shape, bytes), in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    return digest.hexdigest()


def activation_of(model: torch.nn.Module) -> str:
    """The activations that the towers really have."""
    names = {type(part).__name__ for part in model.modules() if "GELU" in type(part).__name__}
    return "+".join(sorted(names)) or "other"


def describe_preprocess(preprocess: Any) -> str:
    """The transform in words, with the versions of the libraries that decide its pixels."""
    words = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(preprocess).split()))
    return f"{words}; Pillow {PIL.__version__}, torchvision {torchvision.__version__}"
