"""Every open_clip model: pretrained tags, Hub repositories, local checkpoints, seeded random
weights.

    ViT-B-32-quickgelu/openai          a tag of open_clip's own list
    hf-hub:org/name                    a repository with open_clip's config and weights
    ViT-B-32@runs/ft/epoch_5.pt        an architecture with a local checkpoint (.pt, .safetensors)
    ViT-B-32/random?seed=0             an explicit random initialisation

`ViT-B-32` with the tag `openai` builds GELU in open_clip 3.3.0, although those weights were trained
with QuickGELU; it only warns, and 4 to 12 points are lost (open_clip issue #1109). The activation
that the tag declares is forced here, said, and recorded.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL
import torch
import torchvision
from PIL import Image

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models import Identity, pick_device, split_options
from fsc_bench.models.shortcuts import pixels as _pixels
from fsc_bench.models.shortcuts import prefixes as _prefixes
from fsc_bench.models.shortcuts import towers as _towers

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClip:
    """An open_clip model as a DualEncoder.

    What the engine (encode.py) may use of it: `fixed_shapes`, `pixels`, `token_ids`,
    `encode_tokens`, `prefixes` with `encode_prefixes`. Its shortcuts are tried against the model's
    own forward when first needed; see _towers.py and _prefixes.py.
    """

    fixed_shapes = True  # rows of one batch shape do not depend on one another: see encode.py

    def __init__(self, model, preprocess, tokenizer, identity: Identity, device: str, notes=()):
        self.model = model.eval()
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.identity = identity
        self.device = device
        self.dtype = DTYPES[identity.precision]
        self.notes = tuple(notes)
        self._compiled: _towers.Forward | None = None
        # cuDNN would round the patch embedding to TF32; published numbers are float32.
        torch.backends.cudnn.allow_tf32 = False

    # no_grad, not inference_mode: on CPU, bf16 under inference_mode takes a six times slower path.
    @torch.no_grad()
    def encode_images(self, images: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Unit vectors of what `preprocess` gave, or of uint8 [n, h, w, 3] from `pixels.load`."""
        if isinstance(images, np.ndarray):
            images = self.pixels.finish(images)
        return _towers.unit(_towers.first(self._image_tower(images.to(self.device, self.dtype))))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        features = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))
        return _towers.unit(_towers.first(features))

    @torch.no_grad()
    def encode_tokens(self, ids: np.ndarray) -> torch.Tensor:
        """Unit vectors of ids [n, length], cut where `token_ids` said they may be."""
        forward = self._trimmed or self.model.encode_text
        return _towers.unit(_towers.first(forward(torch.from_numpy(ids).to(self.device))))

    @torch.no_grad()
    def encode_prefixes(self, texts: Sequence[np.ndarray], full: int) -> torch.Tensor:
        """Unit vectors of token ids, one array a text, what begins alike once; see _prefixes.py."""
        return _towers.unit(self.prefixes(texts, full))

    def token_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids [n, context], tokens needed [n]): the whole context where padding is read."""
        ids = self.tokenizer(list(texts)).numpy()
        if self._trimmed is None:
            return ids, np.full(len(ids), ids.shape[1])
        return ids, _towers.lengths(ids, self._pad)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [n, context], and whether a text needs more tokens than the context holds."""
        ids = self.tokenizer(list(texts)).numpy()
        return ids, cut_at_context(self.tokenizer, texts, ids)

    @cached_property
    def pixels(self) -> _pixels.Pixels | None:
        return _pixels.split(self.preprocess, self.device)

    @cached_property
    def _pad(self) -> int:
        return _towers.pad_of(self.tokenizer)

    @cached_property
    def _trimmed(self) -> _towers.Forward | None:
        with self._in_float32():
            return _towers.exact_trim(self.model, self.tokenizer, self.device)

    @cached_property
    def prefixes(self) -> _prefixes.Prefixes | None:
        """None on a GPU too, where nobody has measured yet what many small steps cost."""
        if self.device != "cpu" or self._trimmed is None:
            return None
        with self._in_float32():
            return _prefixes.exact_prefixes(self.model, self.tokenizer, self.device)

    @cached_property
    def _class_token_only(self) -> _towers.Forward | None:
        shape = self.preprocess(Image.new("RGB", (64, 64))).shape
        with self._in_float32():
            return _towers.exact_class_token(self.model, shape, self.device)

    @property
    def _image_tower(self) -> _towers.Forward:
        return self._compiled or self._class_token_only or self.model.encode_image

    def compile(self) -> None:
        """Runs the image tower through torch.compile, which moves last bits: another identity.

        Images come in batches of one shape (`fixed_shapes`), so it compiles once. Texts come in
        dozens of shapes and stay as they are.
        """
        self._compiled = torch.compile(self._image_tower, dynamic=False)
        self.identity = replace(self.identity, precision=f"{self.identity.precision}, compiled")

    @contextmanager
    def _in_float32(self) -> Iterator[None]:
        """Shortcuts are judged without rounding: float32 holds bf16 and fp16 weights exactly."""
        if self.dtype is torch.float32:
            yield
            return
        self.model.float()
        try:
            yield
        finally:
            self.model.to(self.dtype)


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


def cut_at_context(tokenizer: Any, texts: Sequence[str], ids: np.ndarray) -> np.ndarray:
    """bool [n]: whether a text lost tokens. ids: the tokenizer's own, int [n, context].

    A text that just fills the context has the same tokens with room for one more, and then padding.
    Only texts that reach the last two places are tokenised again: a cut one always does, even where
    padding and end of text are one token (SigLIP's). Some tokenizers close every row, behind the
    padding (CLIPS's): that place is left out.
    """
    context = ids.shape[1]
    *_, padding, last = tokenizer([""], context_length=context + 1)[0].tolist()
    inside = context - (last != padding)
    full = np.flatnonzero((ids[:, inside - 2 : inside] != padding).any(axis=1))
    cut = np.zeros(len(ids), bool)
    if len(full):
        again = tokenizer([texts[row] for row in full], context_length=context + 1).numpy()
        same = (again[:, :inside] == ids[full, :inside]).all(axis=1)
        cut[full] = ~same | (again[:, inside] != padding)
    return cut


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
