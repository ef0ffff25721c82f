"""Your own adapter: `py:FILE.py:ATTRIBUTE`. The file is executed, because you named it.

The attribute is the model itself, a class that is built without arguments, or a function or class
that takes the device and the precision. What it must have is written in fsc_bench/model.py; it is
tried on two made-up pictures and two texts before anything is encoded. An adapter without an
`identity` is known by its file and by what it makes of a few made-up pictures and texts.

One with `score_pairs` scores pairs: behind its name `?first=FAMILY:NAME&depth=64` names the model
whose best answers it ranks anew in retrieval.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.errors import UsageError
from fsc_bench.model import Extras, Identity, as_rows, is_pair_scorer
from fsc_bench.models.adapter import METHODS, SIZES, TEXTS, Source
from fsc_bench.models.first_stage import check_first, first_stage, options_of
from fsc_bench.system.escape import shortened
from fsc_bench.system.spec import Spec

EXAMPLES = ("py:mine.py:model",)

OPTIONS = re.compile(r":[^\W\d]\w*\?(first|depth)=")  # where the options of a pair scorer begin


def load(spec: Spec, device: str, precision: str) -> Any:
    source = _source(spec)
    with source.beside():
        made = source.build(source.module(), device, precision)
        source.check_members(made)
        if _is_whole(made):
            source.try_out(made)
            made.identity = replace(made.identity, precision=precision)
            return made
        kind = PairAdapter if is_pair_scorer(made) else Adapter
        adapter = kind(source, made, precision)
        adapter.finish(source.try_out(adapter))
    return _with_options(spec, adapter, device, precision)


def _with_options(spec: Spec, adapter: "Adapter", device: str, precision: str) -> "Adapter":
    """The adapter with the first stage and the depth that stand behind its name."""
    options = _split(spec)[1]
    if not isinstance(adapter, PairAdapter):
        if options.rest.count("?"):
            raise UsageError(
                f"model '{spec}': first and depth are for models with score_pairs(); this one "
                "encodes images and texts by itself."
            )
        return adapter
    first, depth = options_of(options)
    if first:
        adapter.first = first_stage(spec, first, device, precision)
    adapter.depth = depth or adapter.depth
    return adapter


def check(spec: Spec) -> None:
    """Raises UsageError for a name of another form and a file that is not there; nothing is run."""
    _source(spec)
    options_of(_split(spec)[1])


def _split(spec: Spec) -> tuple[str, Spec]:
    """(FILE.py:ATTRIBUTE, the name with no question mark but that of the options)."""
    found = OPTIONS.search(spec.rest)
    if not found:
        return spec.rest, Spec(spec.kind, spec.rest.replace("?", "_"))
    mark = spec.rest.index("?", found.start())
    return spec.rest[:mark], Spec(spec.kind, spec.rest[:mark].replace("?", "_") + spec.rest[mark:])


def _source(spec: Spec) -> Source:
    file, _, attribute = _split(spec)[0].rpartition(":")
    path = Path(file).expanduser()
    if not file or path.suffix != ".py" or not attribute.isidentifier():
        raise UsageError(
            f"model '{spec}': write py:FILE.py:ATTRIBUTE, where the attribute is a name in the "
            "file, such as model."
        )
    if not path.is_file():
        raise UsageError(f"model '{spec}': there is no file {path}.")
    return Source(path.resolve(), attribute)


def _is_whole(model: Any) -> bool:
    """Whether it is a model of a shipped family, which other code may look into."""
    return type(model).__module__.startswith("fsc_bench.models.")


class Adapter:
    """A user's model behind the protocol: what its code raises names the file, line and method."""

    def __init__(self, source: Source, model: Any, precision: str):
        self._source, self._model = source, model
        self._tried, self._width = False, 0  # the width of its vectors, once it is known
        self.precision = precision
        self.device = self._own_device()
        self.extras = self._own_extras()
        self.identity = self._own_identity()

    def preprocess(self, image: Image.Image) -> Any:
        return self._call("preprocess", image)

    def encode_images(self, images: Any) -> Any:
        return self._vectors("encode_images", images)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self._vectors("encode_texts", list(texts))

    def _vectors(self, method: str, argument: Any) -> Any:
        """What a method gives; from the trial on it must go on as it began."""
        found = self._call(method, argument)
        if self._tried:
            self._width = self._source.check_vectors(method, found, len(argument), self._width)
        return found

    def _call(self, method: str, argument: Any) -> Any:
        with self._source.explained(method):
            return getattr(self._model, method)(argument)

    def _member(self, name: str, absent: Any = None) -> Any:
        """A member of the model, which may be a property that raises."""
        with self._source.explained(name):
            return getattr(self._model, name, absent)

    def _own_device(self) -> str:
        """Where it says that it works; empty where it does not say."""
        own = self._member("device")
        if own is None or own == "":
            return ""
        if not re.fullmatch(r"(cpu|cuda|mps|xpu|hpu|mtia|meta|privateuseone)(:\d+)?", str(own)):
            raise UsageError(
                f'{self._source.name}: device is {shortened(own)}; write it as torch does: "cpu", '
                '"cuda", "cuda:1", "mps".'
            )
        return str(own)

    def _own_extras(self) -> Extras:
        """Its extras; `notes` and `tokenize` may also stand beside the methods."""
        extras = self._member("extras")
        if extras is None:
            extras = Extras()
        elif not isinstance(extras, Extras):
            raise UsageError(
                f"{self._source.name}: extras is a {type(extras).__name__}; it must be an "
                "fsc_bench.models.Extras."
            )
        notes = self._member("notes", extras.notes)
        if not isinstance(notes, str | list | tuple):
            raise UsageError(
                f"{self._source.name}: notes is a {type(notes).__name__}; it must be a text or a "
                "list of texts."
            )
        extras.notes = (notes,) if isinstance(notes, str) else tuple(map(str, notes))
        if callable(self._member("tokenize")):
            extras.tokenize = partial(self._call, "tokenize")
            self._source.check_tokens(extras.tokenize(list(TEXTS)))
        return extras

    def _own_identity(self) -> Identity | None:
        own = self._member("identity")
        if own is None:
            return None
        if isinstance(own, Identity):
            return replace(own, precision=self.precision)
        if isinstance(own, str) and own:
            return self._source.identity(f"identity {own}", self.precision)
        raise UsageError(
            f"{self._source.name}: identity is a {type(own).__name__}; it must be a text, such as "
            "a hash of the weights, or an fsc_bench.models.Identity."
        )

    def finish(self, trial: Mapping[str, Any]) -> None:
        """Fills in what the model does not say itself, from what it made of the trial."""
        name = self._source.name
        self._tried = True
        self._width = next((int(part.shape[-1]) for part in trial.values()), 0)
        if not self.device:
            first = next(iter(trial.values()), None)
            self.device = str(getattr(first, "device", "cpu"))
        for method, vectors in trial.items():
            if np.isnan(as_rows(vectors)).any():
                self._note(f"{name}: {method} gives NaN for a made-up item.")
        if self.identity is None:
            self.identity = self._source.identity(self._source.digest(trial), self.precision)
            items = f"{len(SIZES)} made-up pictures and {len(TEXTS)} texts"
            seen = f"its file and what it makes of {items}"
            if len(trial) < (1 if isinstance(self, PairAdapter) else 2):
                seen = "its file alone, for it does not take the made-up items of the trial"
            self._note(
                f"{name} has no identity of its own: it is known by {seen}. Changes that these do "
                "not show go unseen: give it an `identity`, such as a hash of its weights."
            )

    def _note(self, line: str) -> None:
        self.extras.notes = (*self.extras.notes, line)


class PairAdapter(Adapter):
    """A user's pair scorer behind the protocol."""

    def __init__(self, source: Source, model: Any, precision: str):
        super().__init__(source, model, precision)
        self.first = self._own_first()
        self.depth = self._own_depth()
        if callable(self._member("read_images")):
            self.read_images = partial(self._call, "read_images")

    def score_pairs(self, images: Any, texts: Sequence[str]) -> Any:
        with self._source.explained("score_pairs"):
            found = self._model.score_pairs(images, list(texts))
        self._source.check_scores(found, len(texts))
        return found

    def _own_first(self) -> Any:
        own = self._member("first")
        if own is None:
            return None
        lacks = [name for name in METHODS if not callable(getattr(own, name, None))]
        if lacks or not isinstance(getattr(own, "identity", None), Identity):
            raise UsageError(
                f"{self._source.name}: first is a {type(own).__name__}; it must be a dual encoder "
                "with an identity, such as load_model(...) gives it. A name stands behind the "
                "model's: ?first=FAMILY:NAME."
            )
        return check_first(own, self._source.name, "its first")

    def _own_depth(self) -> int | None:
        own = self._member("depth")
        if own is not None and (not isinstance(own, int) or isinstance(own, bool) or own < 1):
            raise UsageError(
                f"{self._source.name}: depth is {shortened(own)}; it must be a whole number of at "
                "least 1."
            )
        return own
