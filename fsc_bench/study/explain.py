"""Explain: what the local loss aligns each word of a caption with, for any model it can train.

The maps are the loss's own tensors (`losses.word_alignment`), of the tokens that the trainer would
see: the model's patches and words by train/dense.py, its layout by train/layout.py. Nothing is
drawn or scored here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fsc_bench.errors import UsageError
from fsc_bench.model import is_pair_scorer, stacked
from fsc_bench.models import load_model
from fsc_bench.models.run import read_facts
from fsc_bench.models.trainable import offers_towers, trainable_of
from fsc_bench.study.geometry import Frame, Grid, frame_of, grid_of
from fsc_bench.system.escape import shortened
from fsc_bench.system.spec import Spec
from fsc_bench.train.batches import text_blocks
from fsc_bench.train.layout import TextLayout
from fsc_bench.train.losses import Alignment, one_of, word_alignment
from fsc_bench.train.tokens import TextTokens, pack_tokens
from fsc_bench.train.towers import Towers


@dataclass(frozen=True)
class Word:
    """A word of a text, its tokens joined."""

    text: str
    map: np.ndarray  # [rows, columns], the local loss's attention; sums to 1
    cosine: float  # of the word with the patches it attends to; of several tokens the mean
    share: float  # of the text's local score: its tokens' part of the logsumexp
    differs: bool = False  # not in the text it is compared with, or elsewhere in it

    @property
    def spread(self) -> float:
        """How many of the patches it attends to, from 0 to 1: exp(entropy) over their number."""
        mass = self.map[self.map > 0]
        return float(np.exp(-(mass * np.log(mass)).sum()) / self.map.size)

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the patch with the most mass."""
        row, column = np.unravel_index(int(self.map.argmax()), self.map.shape)
        return int(row), int(column)


@dataclass(frozen=True)
class Reading:
    """One text over one picture. `rest`: the share of the local score that is no word's: that of
    the end token, which the loss counts as it counts words.
    """

    text: str
    words: tuple[Word, ...]
    local_score: float  # logsumexp over words of s * cosine
    cosine: float  # of the picture's and the text's whole vectors
    rest: float


class Explainer:
    """A model whose words and patches can be looked at. Raises UsageError for one that has none."""

    def __init__(self, name: str, device: str = "auto", alignment: str | None = None):
        loaded = load_model(name, device, "fp32")
        if is_pair_scorer(loaded) and not offers_towers(loaded):
            raise UsageError(
                f"model {name!r} scores a picture and a text together: it has no vectors of "
                "patches and words to align. Explained are models that the local loss can train."
            )
        if not offers_towers(loaded):
            raise UsageError(
                f"model {name!r} gives one vector of a picture and one of a text, no tokens: the "
                "local loss reads open_clip's towers and BLIP's. Of an open_clip model write "
                "open_clip:..., run:FOLDER or wise:..."
            )
        adapter = trainable_of(loaded, name, "explained")
        try:
            towers = Towers(adapter.model, tokens=True)
        except UsageError as error:
            raise UsageError(f"model {name!r} cannot be explained: {error}") from None
        self.name, self.adapter, self.towers = name, adapter, towers.eval()
        self.device = loaded.device
        self.alignment = alignment or own_alignment(name)
        one_of("alignment", self.alignment, Alignment)
        towers.probe(adapter.tokenizer)
        self.layout: TextLayout = towers.layout

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[list[Reading]]:
        """The texts of each picture, all over that picture. Raises UsageError for a text that the
        model's context cannot hold.
        """
        flat = [text for own in texts for text in own]
        rows = [row for row, own in enumerate(texts) for _ in own]
        places = [place for own in texts for place in range(len(own))]
        self.check_length(flat)
        pixels = stacked([self.adapter.preprocess(image) for image in images])
        words = {text: self._words(text) for text in dict.fromkeys(flat)}
        packed = self._aligned(pixels, flat, rows, places)
        grid = self.grid(packed.attention.shape[-1], pixels)
        found = [
            self._reading(text, words[text], packed.of(row, place), grid)
            for text, row, place in zip(flat, rows, places, strict=True)
        ]
        return [[found.pop(0) for _ in own] for own in texts]

    def grid(self, patches: int, pixels: Tensor) -> Grid:
        size = (pixels.shape[-1], pixels.shape[-2])
        return grid_of(self.adapter.model.visual, patches, size, self.name)

    def frame(self, image: Image.Image) -> Frame:
        """Where the model's input lies in this picture."""
        return frame_of(self.adapter.preprocess, *image.size, self.name)

    def check_length(self, texts: Sequence[str]) -> None:
        """Raises UsageError, one line, for the first text that is cut."""
        _, cut = self.adapter.extras.tokenize(texts)
        for text, lost in zip(texts, cut, strict=True):
            if lost:
                context = self.adapter.identity.context_length
                raise UsageError(
                    f"caption {shortened(text)}: it needs more tokens than the {context} that "
                    f"model {self.name!r} reads. Shorten it."
                )

    def split(self, text: str) -> list[tuple[str, range]]:
        """The words of a text, each with the places of its tokens in the text's token ids."""
        return split_words(text, self.adapter.tokenizer, self.layout)

    def _words(self, text: str) -> list[tuple[str, range]]:
        if found := self.split(text):
            return found
        raise UsageError(f"caption {shortened(text)}: model {self.name!r} reads no word in it.")

    @torch.no_grad()
    def _aligned(
        self, pixels: Tensor, texts: list[str], rows: list[int], places: list[int]
    ) -> "Packed":
        """The loss's tensors, of the texts packed as the loss packs a caption and its negatives."""
        device = self.device
        ids = self.adapter.tokenizer(texts)
        blocks = text_blocks(ids, rows, places, int(self.towers.trims), self.layout)
        encoded = self.towers(
            pixels.to(device),
            [b.ids.to(device) for b in blocks],
            [b.end.to(device) for b in blocks],
        )
        tokens = [
            TextTokens(tokens, block.token_mask, block.image_index, block.text_index)
            for block, tokens in zip(blocks, encoded.text_tokens, strict=True)
        ]
        packed, text_index = pack_tokens(tokens, len(pixels))
        attention, cosine = word_alignment(encoded.image_tokens, packed, alignment=self.alignment)
        whole, places_of = {}, {}
        for block, features in zip(blocks, encoded.text_features, strict=True):
            near = (features * encoded.image_features[block.image_index]).sum(-1)
            for number, (row, place) in enumerate(
                zip(block.image_index.tolist(), block.text_index.tolist(), strict=True)
            ):
                whole[row, place] = float(near[number])
                places_of[row, place] = block.token_mask[number].nonzero()[:, 0].numpy()
        return Packed(
            F.normalize(attention, p=1.0, dim=-1).cpu(), cosine.cpu(), text_index.cpu(),
            float(encoded.logit_scale), whole, places_of,
        )  # fmt: skip

    def _reading(
        self, text: str, words: list[tuple[str, range]], one: "Aligned", grid: Grid
    ) -> Reading:
        logits = one.scale * one.cosine
        shares = logits.softmax(0)
        at = {int(place): number for number, place in enumerate(one.places)}
        found = []
        for word, tokens in words:
            numbers = [at[place] for place in tokens]
            shape = (grid.rows, grid.columns)
            found.append(
                Word(
                    word,
                    one.attention[numbers].mean(0).double().numpy().reshape(shape),
                    float(one.cosine[numbers].mean()),
                    float(shares[numbers].sum()),
                )
            )
        rest = max(0.0, 1.0 - sum(word.share for word in found))
        return Reading(text, tuple(found), float(logits.logsumexp(0)), one.whole, rest)


@dataclass(frozen=True)
class Aligned:
    """One text's part: attention [T, P] that sums to 1, cosine [T], and which place each token has
    in the text's ids.
    """

    attention: Tensor
    cosine: Tensor
    places: np.ndarray
    scale: float
    whole: float


@dataclass(frozen=True)
class Packed:
    """Several pictures' texts, as the loss packs them: attention [B, L, P], cosine and text index
    [B, L]; by (picture, text) the cosine of the whole vectors and the places of the tokens.
    """

    attention: Tensor
    cosine: Tensor
    text_index: Tensor
    scale: float
    whole: dict[tuple[int, int], float]
    places: dict[tuple[int, int], np.ndarray]

    def of(self, row: int, place: int) -> Aligned:
        own = self.text_index[row] == place
        return Aligned(
            self.attention[row, own], self.cosine[row, own], self.places[row, place], self.scale,
            self.whole[row, place],
        )  # fmt: skip


def own_alignment(name: str) -> str:
    """The alignment that a run was trained with; the default for any other model."""
    spec = Spec.read(name)
    if spec.kind != "run":
        return "minmax"
    facts = read_facts(Path(spec.place).expanduser())
    settings = facts.get("settings")
    return str(settings.get("alignment", "minmax")) if isinstance(settings, dict) else "minmax"


def split_words(
    text: str, tokenizer: Callable[[list[str]], Tensor], layout: TextLayout
) -> list[tuple[str, range]]:
    """The words of a text as its blanks part them, each with the places of its tokens.

    A word ends where the tokens of the text up to it are the first tokens of the whole text: true
    of any tokenizer that cuts at blanks. Words that one cannot tell apart so (no token of their
    own, or one shared with the next) are joined. Start and end tokens are no word's.
    """
    words = text.split()
    if not words:
        return []
    ids = tokenizer([*(" ".join(words[: k + 1]) for k in range(len(words))), text])
    ends = layout.end(ids) + (not _has_end_token(tokenizer, layout))
    rows = [row[layout.start : end].tolist() for row, end in zip(ids, ends.tolist(), strict=True)]
    whole = rows.pop()
    found: list[tuple[str, range]] = []
    waiting: list[str] = []
    begin = 0
    for number, (word, row) in enumerate(zip(words, rows, strict=True)):
        waiting.append(word)
        stop = len(whole) if number == len(words) - 1 else len(row)
        if stop > begin and (number == len(words) - 1 or whole[:stop] == row):
            found.append((" ".join(waiting), range(layout.start + begin, layout.start + stop)))
            waiting, begin = [], stop
    if waiting and found:
        last, tokens = found[-1]
        found[-1] = (" ".join([last, *waiting]), tokens)
    return found


def _has_end_token(tokenizer: Callable[[list[str]], Tensor], layout: TextLayout) -> bool:
    """Whether a text's last token is the same whatever its last word."""
    ids = tokenizer(["a dog", "two cats"])
    one, other = (row[end] for row, end in zip(ids, layout.end(ids), strict=True))
    return bool(one == other)


def different(caption: str, foil: str) -> tuple[set[int], set[int]]:
    """The numbers of the words (as blanks part them) of either text that the other lacks in its
    place: what is left when a longest sequence of words in common is taken away.
    """
    one, other = ([_bare(word) for word in text.split()] for text in (caption, foil))
    # kept[i, j]: how many words the texts from i and from j on have in common, in order.
    kept = np.zeros((len(one) + 1, len(other) + 1), int)
    for i in reversed(range(len(one))):
        for j in reversed(range(len(other))):
            same = kept[i + 1, j + 1] + 1 if one[i] == other[j] else 0
            kept[i, j] = max(same, kept[i + 1, j], kept[i, j + 1])
    found: tuple[set[int], set[int]] = (set(range(len(one))), set(range(len(other))))
    i = j = 0
    while kept[i, j]:
        if one[i] == other[j] and kept[i, j] == kept[i + 1, j + 1] + 1:
            found[0].remove(i)
            found[1].remove(j)
            i, j = i + 1, j + 1
        elif kept[i, j] == kept[i + 1, j]:
            i += 1
        else:
            j += 1
    return found


def _bare(word: str) -> str:
    return word.casefold().strip(".,;:!?\"'()") or word


def numbered(words: Sequence[Word]) -> list[range]:
    """Of each word as it was split, the numbers of the blank-parted words that it joins."""
    found, at = [], 0
    for word in words:
        count = len(word.text.split())
        found.append(range(at, at + count))
        at += count
    return found


def marked(reading: Reading, numbers: set[int]) -> Reading:
    """The reading with the words of these numbers marked as different."""
    words = tuple(
        replace(word, differs=bool(numbers & set(own)))
        for word, own in zip(reading.words, numbered(reading.words), strict=True)
    )
    return replace(reading, words=words)


@dataclass(frozen=True)
class Explained:
    """What one model makes of a picture's caption, and of its foil if there is one."""

    model: str
    alignment: str
    frame: Frame
    grid: Grid
    caption: Reading
    foil: Reading | None = None


def explain(explainer: Explainer, image: Image.Image, caption: str, foil: str | None) -> Explained:
    """Raises UsageError for a foil that is the caption, or that the model reads as the caption."""
    texts = [caption] if foil is None else [caption, foil]
    if foil is not None:
        check_foil(explainer, caption, foil)
    ((first, *others),) = explainer.read([image], [texts])
    own, other = different(caption, foil) if foil is not None else (set(), set())
    pixels = explainer.adapter.preprocess(image)
    return Explained(
        explainer.name,
        explainer.alignment,
        explainer.frame(image),
        explainer.grid(first.words[0].map.size, pixels),
        marked(first, own),
        marked(others[0], other) if others else None,
    )


def check_foil(explainer: Explainer, caption: str, foil: str) -> None:
    if caption.split() == foil.split():
        raise UsageError(f"--foil {shortened(foil)} is the caption: name a text that says else.")
    ids = explainer.adapter.tokenizer([caption, foil])
    explainer.check_length([caption, foil])
    if bool((ids[0] == ids[1]).all()):
        raise UsageError(
            f"--foil {shortened(foil)}: model {explainer.name!r} reads it as the caption: both "
            "have the same tokens."
        )


def document(one: Explained) -> dict[str, Any]:
    """An explanation for JSON; maps as rows of patches."""

    def reading(text: Reading) -> dict[str, Any]:
        return {
            "text": text.text,
            "cosine": text.cosine,
            "local_score": text.local_score,
            "end_token_share": text.rest,
            "words": [
                {
                    "word": word.text,
                    "differs": word.differs,
                    "cosine": word.cosine,
                    "share": word.share,
                    "spread": word.spread,
                    "peak": list(word.peak),
                    "map": word.map.tolist(),
                }
                for word in text.words
            ],
        }

    return {
        "model": one.model,
        "alignment": one.alignment,
        "grid": [one.grid.rows, one.grid.columns],
        "caption": reading(one.caption),
        "foil": reading(one.foil) if one.foil else None,
    }
