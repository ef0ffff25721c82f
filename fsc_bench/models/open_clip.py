"""Every open_clip model: pretrained tags, Hub repositories, local checkpoints, seeded random weights.

    ViT-B-32-quickgelu/openai          a tag of open_clip's own list
    hf-hub:org/name                    a repository with open_clip's config and weights
    ViT-B-32@runs/ft/epoch_5.pt        an architecture with a local checkpoint (.pt, .safetensors)
    ViT-B-32/random?seed=0             an explicit random initialisation

`ViT-B-32` with the tag `openai` builds GELU in open_clip 3.3.0, although those weights were trained
with QuickGELU; it only warns, and 4 to 12 points are lost (open_clip issue #1109). The activation that
the tag declares is forced here, said, and recorded.
"""

import hashlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL
import torch
import torchvision

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models import Identity, pick_device, split_options

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClip:
    """An open_clip model as a DualEncoder."""

    def __init__(self, model, preprocess, tokenizer, identity: Identity, device: str, notes=()):
        self.model = model.eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.identity = identity
        self.device = device
        self.dtype = DTYPES[identity.precision]
        self.notes = tuple(notes)

    # no_grad, not inference_mode: on CPU, bf16 under inference_mode takes a six times slower path.
    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        features = self.model.encode_image(images.to(self.device, self.dtype))
        return torch.nn.functional.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        features = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [n, context], and whether a text filled the context (so that it may be cut)."""
        ids = self.tokenizer(list(texts)).numpy()
        return ids, ids[:, -1] != ids.min()


def load(checkpoint: str, device: str, precision: str) -> OpenClip:
    device = pick_device(device)
    name, options = split_options(checkpoint, ("seed", "activation"))
    if name.startswith("hf-hub:"):
        return _from_hub(name, device, precision)
    if "@" in name:
        architecture, _, file = name.partition("@")
        return _from_file(architecture, Path(file).expanduser(), options, device, precision)
    architecture, _, tag = name.partition("/")
    _check_architecture(architecture)
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise UsageError(
            f"model 'open_clip:{architecture}': an architecture alone has no weights. Add a tag: "
            f"{', '.join(f'{architecture}/{tag}' for tag in [*tags, 'random'])}."
        )
    if tag == "random":
        seed = options.get("seed", "0")
        if not seed.isdigit():
            raise UsageError(f"model 'open_clip:{checkpoint}': seed must be a whole number.")
        torch.manual_seed(int(seed))
        quick = _wants_quick_gelu(architecture, options)
        return _build(architecture, None, device, precision, quick)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise UsageError(
            f"model 'open_clip:{checkpoint}': {architecture} has no tag {tag!r}."
            f"{near_miss(tag, tags)} Its tags: {', '.join(tags) or 'none'}."
        )
    quick, notes = declared_activation(architecture, tag)
    return _build(architecture, tag, device, precision, quick, notes)


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
    _check_architecture(architecture)
    if not file.is_file():
        raise UsageError(f"model 'open_clip:{architecture}@{file}': there is no such file.")
    twin = f"{architecture}-quickgelu"
    if twin in open_clip.list_models() and "activation" not in options:
        # The activation is not in a state dict, and the wrong one costs 5 to 12 points of ImageNet.
        raise UsageError(
            f"model 'open_clip:{architecture}@{file}': the file cannot say which activation it was "
            f"trained with. Started from openai weights: {twin}@{file}. Otherwise: "
            f"{architecture}@{file}?activation=gelu."
        )
    quick = _wants_quick_gelu(architecture, options)
    model = _build(architecture, None, device, precision, quick, weights=read_state(file))
    return model


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, never executing what it holds (`weights_only=True`).

    Takes a bare state dict or one under `state_dict`/`model`; strips DDP's `module.`.
    """
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    import _codecs
    import pickle

    scalar = np._core.multiarray.scalar
    # Optimizer states hold numpy floats (learning rates), under numpy 1's name and numpy 2's; these
    # functions build numbers and nothing else.
    old = (scalar, "numpy.core.multiarray.scalar")
    safe = [scalar, old, np.dtype, type(np.dtype("float64")), _codecs.encode]
    try:
        with torch.serialization.safe_globals(safe):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        unsafe = re.search(r"Unsupported (?:global: GLOBAL|class|operand) ?(\S+)", str(error))
        reason = f"it asks for {unsafe[1]}" if unsafe else str(error).splitlines()[0][:160]
        raise UsageError(
            f"{file}: not a checkpoint that loads without executing it: {reason}"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise UsageError(f"{file}: holds no state dict of tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _from_hub(name: str, device: str, precision: str) -> OpenClip:
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, device=device)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UsageError(f"model 'open_clip:{name}': cannot be loaded: {reason}") from None
    return _wrap(name, model, preprocess, device, precision)


def _build(
    architecture: str,
    tag: str | None,
    device: str,
    precision: str,
    quick_gelu: bool,
    notes: Sequence[str] = (),
    weights: dict[str, torch.Tensor] | None = None,
) -> OpenClip:
    name = architecture
    if not quick_gelu and _config_quick_gelu(architecture):
        name = architecture.removesuffix("-quickgelu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the mismatch it warns of is mended here
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=tag,
                device=device,
                force_quick_gelu=quick_gelu,
                weights_only=True,
            )
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UsageError(
            f"model 'open_clip:{architecture}/{tag}': cannot be loaded: {reason}"
        ) from None
    if weights is not None:
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"model 'open_clip:{architecture}': {reason}") from None
    return _wrap(name, model, preprocess, device, precision, notes, architecture)


def _wrap(
    name: str, model, preprocess, device: str, precision: str, notes=(), shown: str = ""
) -> OpenClip:
    tokenizer = open_clip.get_tokenizer(name)
    weights = state_digest(model)  # before the cast: one checkpoint, one hash
    model = model.to(DTYPES[precision])
    identity = Identity(
        weights=weights,
        architecture=shown or name,
        activation=activation_of(model),
        preprocess=describe_preprocess(preprocess),
        tokenizer=f"{type(tokenizer).__name__} {getattr(tokenizer, 'vocab_size', '')}".strip(),
        context_length=int(getattr(tokenizer, "context_length", 77) or 77),
        precision=precision,
    )
    return OpenClip(model, preprocess, tokenizer, identity, device, notes)


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
