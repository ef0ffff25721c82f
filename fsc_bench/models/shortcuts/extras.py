"""The extras of an open_clip model: its shortcuts, each tried when first needed; no family.

None is believed: a shortcut is used only if it agrees with the model's own forward on that very
model (towers.py, prefixes.py, pixels.py).
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from fsc_bench.model import Extras
from fsc_bench.models.shortcuts import pixels as _pixels
from fsc_bench.models.shortcuts import prefixes as _prefixes
from fsc_bench.models.shortcuts import towers as _towers
from fsc_bench.models.shortcuts import words as _words

if TYPE_CHECKING:
    from fsc_bench.models.open_clip import OpenClip


class OpenClipExtras(Extras):
    """What the engine may use of an open_clip model. notes: what loading it had to tell."""

    rows_alike = True

    def __init__(self, adapter: "OpenClip", notes: Sequence[str] = ()):
        # Weakly: model and extras would else be a ring, which stays until it is collected.
        self.adapter: OpenClip = weakref.proxy(adapter)
        self.notes = tuple(notes)
        self._compiled: _towers.Forward | None = None

    @property
    def one_shape(self) -> bool:
        return self._compiled is not None

    @cached_property
    def pixels(self) -> _pixels.Pixels | None:
        return _pixels.split(self.adapter.preprocess, self.adapter.device)

    @cached_property
    def tokens(self) -> "TokenIds":
        return TokenIds(self.adapter, self.trimmed, self.token_ids)

    @cached_property
    def trees(self) -> _prefixes.Prefixes | None:
        """None on a GPU too, where nobody has measured yet what many small steps cost."""
        if self.adapter.device != "cpu" or self.trimmed is None:
            return None
        with self._in_float32() as model:
            return _prefixes.exact_prefixes(model, self.adapter.tokenizer, self.adapter.device)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [n, context], and whether a text needs more tokens than the context holds."""
        ids = self.token_ids(texts)
        return ids, cut_at_context(self.adapter.tokenizer, texts, ids)

    @cached_property
    def token_ids(self) -> Callable[[Sequence[str]], np.ndarray]:
        """Texts -> ids [n, context]."""
        return _words.token_ids(self.adapter.tokenizer)

    def compile(self) -> None:
        """Runs the image tower through torch.compile, which moves last bits: another identity.

        Images come in batches of one shape (`one_shape`), so it compiles once. Texts come in
        dozens of shapes and stay as they are.
        """
        self._compiled = torch.compile(self.image_tower, dynamic=False)
        identity = self.adapter.identity
        self.adapter.identity = replace(identity, precision=f"{identity.precision}, compiled")

    @property
    def image_tower(self) -> _towers.Forward:
        """The fastest way through the image tower that gives the model's own vectors."""
        return self._compiled or self._class_token_only or self.adapter.model.encode_image

    @cached_property
    def trimmed(self) -> _towers.Forward | None:
        """The text tower for ids cut short, where that changes nothing."""
        with self._in_float32() as model:
            return _towers.exact_trim(model, self.adapter.tokenizer, self.adapter.device)

    @cached_property
    def _class_token_only(self) -> _towers.Forward | None:
        shape = self.adapter.preprocess(Image.new("RGB", (64, 64))).shape
        with self._in_float32() as model:
            return _towers.exact_class_token(model, shape, self.adapter.device)

    @contextmanager
    def _in_float32(self) -> Iterator[torch.nn.Module]:
        """Shortcuts are judged without rounding: float32 holds bf16 and fp16 weights exactly."""
        model, own = self.adapter.model, self.adapter.dtype
        if own is torch.float32:
            yield model
            return
        model.float()
        try:
            yield model
        finally:
            model.to(own)


class TokenIds:
    """Texts as token ids: `fsc_bench.model.Tokens`. trimmed: the tower for ids that were cut."""

    def __init__(
        self,
        adapter: "OpenClip",
        trimmed: _towers.Forward | None,
        token_ids: Callable[[Sequence[str]], np.ndarray],
    ):
        self.adapter = adapter
        self.trimmed = trimmed
        self.token_ids = token_ids
        self.pad = _towers.pad_of(adapter.tokenizer)

    def ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids [n, context], tokens needed [n]): the whole context where padding is read."""
        ids = self.token_ids(texts)
        if self.trimmed is None:
            return ids, np.full(len(ids), ids.shape[1])
        return ids, _towers.lengths(ids, self.pad)

    @torch.no_grad()
    def encode(self, ids: np.ndarray) -> torch.Tensor:
        """Unit vectors of ids [n, length], cut where `ids` said they may be."""
        forward = self.trimmed or self.adapter.model.encode_text
        tokens = torch.from_numpy(ids).to(self.adapter.device)
        return _towers.unit(_towers.first(forward(tokens)))


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
