"""CLIP's own tokenizer, a word at a time: each different word is cut into tokens once.

open_clip's SimpleTokenizer cleans every text (ftfy, HTML) and runs a regular expression and a table
over all its words, in Python: 0.13 ms a caption, for which a card waits. Cleaning changes nothing
in a text of printable ASCII without `&`, and no token spans a blank, so the tokens of such a text
are those of its words; any other text goes to the tokenizer itself. Tried against the tokenizer,
like everything in towers.py, and used only if it agrees. No family.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

KNOWN = 1_000_000  # words that are remembered at most, some 200 bytes each
PROBES = (
    "",
    "  Two DOGS   play\ton the grass. ",
    "it's a man's 3 red umbrellas, they'll re-open (x_y) <start_of_text> at 10:45!!",
    "tom &amp; jerry's caf\u00e9 \u201cquoted\u201d \u72ac",
    "word " * 200,
    "&",
    "a\x1b[31mred\x1b[0m line\r\nand another",
)


def token_ids(tokenizer: Callable) -> Callable[[Sequence[str]], np.ndarray]:
    """Texts -> ids [n, context], the tokenizer's own, by its words where that is exact."""

    def own(texts: Sequence[str]) -> np.ndarray:
        return tokenizer(list(texts)).numpy()

    if not _is_plain(tokenizer):
        return own
    words = Words(tokenizer)
    return words if np.array_equal(words(PROBES), own(PROBES)) else own


def _is_plain(tokenizer: Any) -> bool:
    """Whether it is CLIP's tokenizer as it was published: lower case, cut at the end, no tokens
    added.
    """
    return (
        type(tokenizer) is SimpleTokenizer
        and tokenizer.clean_fn is get_clean_fn("lower")
        and tokenizer.reduction_fn is None
        and len(tokenizer.all_special_ids) == 2
        and bool(tokenizer.context_length)
    )


class Words:
    """Texts to ids [n, context] as a plain SimpleTokenizer gives them."""

    def __init__(self, tokenizer: SimpleTokenizer):
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        context, end = self.tokenizer.context_length, self.tokenizer.eot_token_id
        found = [self._inside(text)[: context - 1] for text in texts]
        ids = np.zeros((len(found), context), np.int64)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids[:, 0] = self.tokenizer.sot_token_id
        column = np.arange(context - 1)
        total = int(lengths.sum())
        ids[:, 1:][column < lengths[:, None]] = np.fromiter(
            chain.from_iterable(found), np.int64, total
        )
        ids[np.arange(len(found)), np.minimum(lengths + 1, context - 1)] = end
        return ids

    def _inside(self, text: str) -> list[int]:
        """A text's tokens without the first and the last, however many."""
        if not (text.isascii() and text.isprintable() and "&" not in text):
            return self.tokenizer.encode(text)
        tokens: list[int] = []
        for word in text.lower().split():
            known = self.known.get(word)
            tokens += self._learned(word) if known is None else known
        return tokens

    def _learned(self, word: str) -> list[int]:
        if len(self.known) >= KNOWN:
            self.known.clear()
        self.known[word] = tokens = self.tokenizer.encode(word)
        return tokens
