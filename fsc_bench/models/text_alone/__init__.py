"""Text alone: how likely a caption is the right one, for scorers that never see a picture.

Two rules, both of a text by itself. The ruler says that the shorter caption is right. The bigram
says that the likelier one is, by a model of pairs of words, whose counts are in `bigrams.json.gz`;
`fit.py` makes them of the captions of Flickr30k and COCO. Where foils are longer than captions, or
read oddly, both know the answer without the picture. No torch.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from math import frexp, fsum, ldexp, log, ulp
from pathlib import Path
from typing import NamedTuple

import numpy as np

RULES = ("bigram", "ruler")  # the first is the default
COUNTS = Path(__file__).with_name("bigrams.json.gz")
EDGE = ""  # stands before the first token of a text and behind the last
PAIRS, WORDS, ADDED = 0.7, 0.3, 0.5  # shares of the pair and of the word alone; added to its count


def tokens(text: str) -> list[str]:
    """Words and single signs of punctuation, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Score(NamedTuple):
    """How likely a text is the right one, by one rule.

    value: at most 0, higher is likelier. rounding: how far adding up moved it, in units of its last
    place: that alone tells texts of the same pairs in another order apart.
    """

    value: float
    rounding: int = 0


def ruler(text: str) -> Score:
    """The fewer tokens, the higher."""
    return Score(-float(len(tokens(text))))


@dataclass(frozen=True)
class Bigrams:
    """How often a token followed another: count by token, by the token before it.

    `EDGE` is the token before the first, and the one behind the last.
    """

    after: dict[str, dict[str, int]]

    @cached_property
    def before(self) -> dict[str, int]:
        """How often each token had one behind it."""
        return {first: sum(counts.values()) for first, counts in self.after.items()}

    @cached_property
    def words(self) -> dict[str, int]:
        """How often each token stood behind another: every one of a text, and its end."""
        found: dict[str, int] = {}
        for counts in self.after.values():
            for second, count in counts.items():
                found[second] = found.get(second, 0) + count
        return found

    @cached_property
    def all(self) -> float:
        """The count of all tokens together, with what is added to each and to an unknown one."""
        return sum(self.words.values()) + ADDED * (len(self.words) + 1)

    def score(self, text: str) -> Score:
        """The natural logarithm of the text's probability, its end included.

        Added up from the first pair to the last, as for the published figures of this rule.
        """
        parts = [EDGE, *tokens(text), EDGE]
        logs = [self.logs[pair] for pair in pairwise(parts)]
        value = 0.0
        for part in logs:  # not `sum`, which from Python 3.12 on rounds otherwise
            value += part
        exact = fsum(logs)
        return Score(value, round((value - exact) / ulp(exact)))

    @cached_property
    def logs(self) -> "Logs":
        """The logarithm of each pair's share."""
        return Logs(self)

    def share(self, first: str, second: str) -> float:
        """The probability of `second` behind `first`."""
        pair = self.after.get(first, {}).get(second, 0) / self.before.get(first, 1)
        return PAIRS * pair + WORDS * (self.words.get(second, 0) + ADDED) / self.all


class Logs(dict[tuple[str, str], float]):
    """Logarithms of the shares of pairs, each worked out once: most texts are of few pairs."""

    def __init__(self, bigrams: Bigrams):
        super().__init__()
        self.bigrams = bigrams

    def __missing__(self, pair: tuple[str, str]) -> float:
        self[pair] = found = log(self.bigrams.share(*pair))
        return found


def count(captions: Iterable[str]) -> Bigrams:
    """The pairs of tokens in the captions."""
    after: dict[str, dict[str, int]] = {}
    for caption in captions:
        parts = [EDGE, *tokens(caption), EDGE]
        for first, second in pairwise(parts):
            row = after.setdefault(first, {})
            row[second] = row.get(second, 0) + 1
    return Bigrams(after)


# ---------------------------------------------------------------- as vectors

PICTURE = np.array([1.0, 0.0], np.float32)  # what every picture is to these scorers
VALUE_BITS, ROUNDING_BITS = 19, 5


def vectors(rule: str, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors float32 [n, 2] whose cosine with `PICTURE` puts texts in the rule's order."""
    score = scorer(rule)
    found = [cosine(score(text)) for text in texts]
    rows = [(near, (1 - near * near) ** 0.5) for near in found]
    return np.array(rows, np.float32).reshape(-1, 2)


def scorer(rule: str) -> Callable[[str], Score]:
    """The function of a rule, one of `RULES`."""
    return ruler if rule == "ruler" else shipped().score


def cosine(score: Score) -> float:
    """A number above 0, at most 1, that float32 holds exactly; higher for a higher score.

    Of its 24 bits a score's value gets 19, in which texts of other pairs differ, and how it was
    rounded 5.
    """
    fraction, exponent = frexp(1 / (1 - score.value))
    most = 2 ** (ROUNDING_BITS - 1) - 1
    rounding = max(-most, min(most, score.rounding)) + most
    bits = (int(ldexp(fraction, VALUE_BITS)) << ROUNDING_BITS) + rounding
    return ldexp(bits, exponent - VALUE_BITS - ROUNDING_BITS)


# ---------------------------------------------------------------- the file


@cache
def shipped() -> Bigrams:
    """The counts that the package has."""
    return unpacked(COUNTS.read_bytes())


def counts_hash() -> str:
    """The SHA-256 of the file of counts."""
    return hashlib.sha256(COUNTS.read_bytes()).hexdigest()


def packed(bigrams: Bigrams, facts: dict[str, str]) -> bytes:
    """The counts as compressed JSON, alike for alike counts: `facts`, then `tokens`, sorted, then
    `after`, for each token the tokens behind it and their counts in turn, tokens as steps from one
    place in the list to the next.
    """
    names = sorted({*bigrams.after, *bigrams.words})
    place = {name: number for number, name in enumerate(names)}
    after = []
    for name in names:
        row, last = [], 0
        for second in sorted(bigrams.after.get(name, {})):
            row += [place[second] - last, bigrams.after[name][second]]
            last = place[second]
        after.append(row)
    content = json.dumps({**facts, "tokens": names, "after": after}, separators=(",", ":"))
    return gzip.compress(content.encode(), mtime=0)


def unpacked(content: bytes) -> Bigrams:
    """What `packed` packed."""
    table = json.loads(gzip.decompress(content))
    names = table["tokens"]
    after: dict[str, dict[str, int]] = {}
    for name, row in zip(names, table["after"], strict=True):
        number = 0
        for step, times in zip(row[::2], row[1::2], strict=True):
            number += step
            after.setdefault(name, {})[names[number]] = times
    return Bigrams(after)
