"""Dual encoders of transformers, by their name on the Hub or a folder that save_pretrained wrote:
CLIP, MetaCLIP 2, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, FLAVA, BLIP and BLIP-2.

    ORG/NAME             the Hub's commit of now, which is recorded
    ORG/NAME@REVISION    another one
    ./FOLDER             no network is needed

Each has its own image processor and tokenizer. Nothing that a repository brings is executed, and
weights fit to the last tensor or are refused. BLIP-2 compares a text with each of the vectors of an
image, the best of which counts: no dual encoder can do that, so it scores pairs, and retrieval
needs a first stage, `?first=FAMILY:NAME&depth=128`.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.model import DEPTH, Extras, Identity
from fsc_bench.models import pick_device
from fsc_bench.models.first_stage import first_stage, options_of
from fsc_bench.models.open_clip import DTYPES, state_digest
from fsc_bench.models.pretrained.building import build_model, build_pixels, build_words
from fsc_bench.models.pretrained.files import check_name, is_local, open_hub, open_local
from fsc_bench.models.pretrained.inputs import Pixels, Words
from fsc_bench.models.pretrained.kinds import KINDS, Kind
from fsc_bench.models.pretrained.trying import try_out
from fsc_bench.models.shortcuts.towers import unit
from fsc_bench.system.spec import Spec

EXAMPLES = (
    "hf:openai/clip-vit-base-patch32",
    "hf:google/siglip2-base-patch16-naflex",
    "hf:./FOLDER",
)

SAVES = True  # a training run leaves a whole folder of it: models/trainable

# Facts of a config that decide no vector.
ASIDE = ("architectures", "_name_or_path", "dtype", "torch_dtype", "transformers_version")


class Towers:
    """A model of transformers, its two towers one by one."""

    source: Any = None  # the repository that it was loaded from

    def __init__(self, model: Any, kind: Kind, pixels: Pixels, words: Words, identity: Identity):
        self.model, self.kind, self.words = model.eval(), kind, words
        self.preprocess, self.identity = pixels, identity
        self.device = str(next(model.parameters()).device)
        self.extras = Extras()
        self.extras.tokenize = words.tokenize

    @torch.no_grad()
    def _images(self, images: Tensor) -> Tensor:
        given = self.preprocess.inputs(images.to(self.device), DTYPES[self.identity.precision])
        return unit(self.kind.images(self.model, given))

    @torch.no_grad()
    def _texts(self, texts: Sequence[str]) -> Tensor:
        given = {name: part.to(self.device) for name, part in self.words(list(texts)).items()}
        return unit(self.kind.texts(self.model, given))


class HuggingFace(Towers):
    """A model of transformers as a DualEncoder."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors [n, d] of images [n, ...], as `preprocess` gave them."""
        return self._images(images)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n, d]."""
        return self._texts(texts)

    def trainable(self) -> Any:
        """Its towers, of a kind that has any to train. Raises UsageError, one line."""
        name, make = type(self.model).__name__, self.kind.trainable
        if make is None or name not in self.kind.trained or self.source is None:
            trained = sorted({one for kind in KINDS.values() for one in kind.trained})
            raise UsageError(
                f"model {getattr(self.source, 'spec', name)!r}: it is a {name}, and of "
                "transformers' dual encoders those whose patches and words can be trained and "
                f"looked at are {', '.join(trained)}; of open_clip's all: open_clip:..."
            )
        return make(self.model, self.source, self.preprocess, self.words, self.identity, "hf:blip")


class BestOfMany(Towers):
    """A model with several vectors of an image: a PairScorer, by the best cosine."""

    first: Any = None
    depth = DEPTH

    def read_images(self, images: Tensor) -> Tensor:
        """Unit vectors [n, k, d] of images [n, ...], as `preprocess` gave them."""
        return self._images(images)

    def score_pairs(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """[n]: of each pair, the highest cosine. images: rows of what `read_images` gave."""
        return (images.to(self.device) * self._texts(texts)[:, None]).sum(dim=-1).amax(dim=1)


def check(spec: Spec) -> None:
    """Raises UsageError for a name of another form and for a folder that no model can be made of;
    no weights are read.
    """
    options_of(spec)
    if is_local(spec):
        _check_options(spec, open_local(spec).kind)
    else:
        check_name(spec)


def load(spec: Spec, device: str, precision: str) -> Towers:
    check(spec)
    device = pick_device(device)
    source = open_local(spec) if is_local(spec) else open_hub(spec)
    _check_options(spec, source.kind)
    # What is small comes first: its faults are said before gigabytes are read.
    processor, tokenizer = build_pixels(source), build_words(source)
    model, notes = build_model(source)
    weights = state_digest(model)  # before the cast: one checkpoint, one hash
    model = _cast(model.requires_grad_(False), source.kind, precision).to(device)
    made = _made(model, source.kind, processor, tokenizer, weights, precision, source.spec)
    made.source = source
    made.extras.notes = (*source.notes, *notes)
    if isinstance(made, BestOfMany):
        named, depth = options_of(spec)
        made.depth = depth or DEPTH
        made.first = first_stage(spec, named, device, precision) if named else None
    return made


def _check_options(spec: Spec, kind: Kind) -> None:
    if "?" in spec.rest and not kind.many:
        raise UsageError(
            f"model '{spec}': the options first and depth are of models that score pairs, such as "
            "BLIP-2; this is a dual encoder. Leave out what follows the '?'."
        )


def wrapped(model: Any, processor: Any, *, device: str | None = None) -> Towers:
    """A model of transformers that is in memory, with its processor, as it is: its type of number
    stays, and its device too unless one is named. Raises UsageError for what is no dual encoder.
    """
    name = type(model).__name__
    known = {cls: kind for kind in KINDS.values() for cls in kind.classes}
    if name not in known:
        raise UsageError(
            f"model: a {name} is no dual encoder of transformers that is known here."
            f"{near_miss(name, known)} Known are {', '.join(known)}."
        )
    lacks = [part for part in ("image_processor", "tokenizer") if not hasattr(processor, part)]
    if lacks:
        raise UsageError(
            f"model: processor= is a {type(processor).__name__} without {' and '.join(lacks)}; "
            "AutoProcessor.from_pretrained gives one with both."
        )
    kind = known[name]
    bare = getattr(model, kind.classes[name]) if kind.classes[name] else model
    own = next(p for n, p in bare.named_parameters() if n.partition(".")[0] not in kind.single)
    precision = next((word for word, dtype in DTYPES.items() if dtype is own.dtype), None)
    if precision is None:
        raise UsageError(f"model: its numbers are {own.dtype}; make them one of {list(DTYPES)}.")
    if device is not None:
        bare.to(pick_device(device))
    parts = (processor.image_processor, processor.tokenizer)
    return _made(bare, kind, *parts, state_digest(bare), precision, name)


def _cast(model: Any, kind: Kind, precision: str) -> Any:
    """The model in that precision, but for the parts that transformers keeps in float32."""
    dtype = DTYPES[precision]
    for name, part in model.named_children():
        if name not in kind.single:
            part.to(dtype)
    for name, part in model.named_parameters(recurse=False):
        if name not in kind.single:
            part.data = part.data.to(dtype)
    return model


def _made(
    model: Any, kind: Kind, processor: Any, tokenizer: Any, weights: str, precision: str, spec: str
) -> Towers:
    pixels = Pixels(processor, kind.packed)
    words = Words(tokenizer, kind, getattr(model.config, kind.text_config), spec)
    identity = Identity(
        weights=weights,
        architecture=f"{type(model).__name__} {_digest(model.config)}",
        activation=_activation(model),
        preprocess=pixels.described,
        tokenizer=words.described,
        context_length=words.context,
        precision=precision,
    )
    towers = (BestOfMany if kind.many else HuggingFace)(model, kind, pixels, words, identity)
    try_out(pixels, partial(_same_width, towers), kind, model.config, spec)
    return towers


def _same_width(towers: Towers, pictures: Tensor, texts: Sequence[str]) -> None:
    """Raises ValueError where images and texts have no common space."""
    widths = [towers._images(pictures).shape[-1], towers._texts(texts).shape[-1]]
    if widths[0] != widths[1]:
        raise ValueError(f"images have {widths[0]} numbers and texts {widths[1]}")


def _activation(model: Any) -> str:
    """The activations that the towers really have, by the names of their classes."""
    homes = ("transformers.activations", "torch.nn.modules.activation")
    parts = [type(part) for part in model.modules() if type(part).__module__ in homes]
    names = {part.__name__ for part in parts} - {"MultiheadAttention"}
    return "+".join(sorted(names)) or "other"


def _digest(config: Any) -> str:
    """Of what a config says of the model."""
    facts = _facts(config.to_dict())
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _facts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _facts(part) for key, part in value.items() if key not in ASIDE}
    return value
