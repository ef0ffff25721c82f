"""Captions as text: words, what lies between them, capitals, and the bigram shuffle.

Shared by the generators that make text; nothing here knows parts of speech.
"""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from typing import Protocol

from fsc_bench.train.negatives.lexicon import article

# "T.V" and "U.S" are one word, as are "it's", "t-shirt" and "3.5".
WORD = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]\b|[^\W_]+(?:['’&/-][^\W_]+|[.,]\d+)*")
NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
REDRAWS = 10
TRIES = 10  # draws for each candidate wanted, before a kind counts as exhausted; the paper's number
DELETED = dict.fromkeys(k for k in range(128) if not chr(k).isalnum())
ARTICLES = frozenset(["a", "an", "A", "An", "AN"])
SENTENCE_END = re.compile(r"[.!?]")
STEPS = 5  # of a replacement's length, see `_step`
THIN = 30  # draws passed over in a row, before one of any length is taken


class Random(Protocol):
    """What a generator needs of `rng`: `random.Random` and `numpy.random.Generator` have it."""

    def random(self) -> float:
        """A number in [0, 1)."""


def normalise(text: str) -> str:
    """Lower case, letters and digits only: two texts that agree here say the same words."""
    if text.isascii():
        return text.lower().translate(DELETED)  # five times as fast, and nearly every caption
    return NOT_ALPHANUMERIC.sub("", text.casefold())


def distinct(caption: str, drawn: Iterable[str], count: int) -> list[str]:
    """The first `count` texts that differ, normalised, from the caption and from each other."""
    seen, kept = {normalise(caption)}, []
    for text in islice(drawn, TRIES * count):
        key = normalise(text)
        if key not in seen:
            seen.add(key)
            kept.append(text)
            if len(kept) == count:
                break
    return kept


@dataclass(slots=True)
class Words:
    """Where the words of a text are, and whose their capitals are.

    slot[k]: the place of word k opens a sentence and shows it, so what moves there gets a capital.
    lowers[k]: the capital of word k is the sentence's, so it goes when the word moves.
    """

    text: str
    starts: list[int]
    ends: list[int]
    slot: list[bool]
    lowers: list[bool]

    def moved(self, first: int, end: int, to: int | None = None) -> str:
        """Words first to end (exclusive) as they read where word `to` is, or inside a sentence."""
        fragment = self.text[self.starts[first] : self.ends[end - 1]]
        if to is not None and self.slot[to]:
            return fragment[:1].upper() + fragment[1:]
        if self.lowers[first]:
            return fragment[:1].lower() + fragment[1:]
        return fragment

    def between(self, start: int, end: int) -> tuple[int, int] | None:
        """The words from one character to another; None where these cut a word in two."""
        first, last = bisect_left(self.starts, start), bisect_left(self.ends, end)
        whole = self.starts[first : first + 1] == [start] and self.ends[last : last + 1] == [end]
        return (first, last + 1) if whole else None


def find_words(text: str, spans: list[tuple[int, int]], is_common: Callable[[int], bool]) -> Words:
    """The `Words` at `spans`. is_common(k): word k is written small elsewhere, so it is no name.

    In a caption in capitals or Title Case every capital is the word's own.
    """
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    count = len(spans)
    slot = [False] * count
    if count and 2 * sum(text[start].isupper() for start in starts[1:]) <= count - 1:
        slot[0] = text[starts[0]].isupper()
        if SENTENCE_END.search(text, ends[0], starts[-1]):
            for k in range(1, count):
                gap = text[ends[k - 1] : starts[k]]
                slot[k] = text[starts[k]].isupper() and bool(SENTENCE_END.search(gap))
    lowers = [slot[k] and is_common(k) for k in range(count)]
    return Words(text, starts, ends, slot, lowers)


@lru_cache(maxsize=65536)
def with_article(old: str, following: str) -> str:
    """The article `old` ("a", "An", ...) as it must read before `following`."""
    right = article(following)
    if old.lower() == right:
        return old
    if right == "a":
        return old[0]
    return old + ("N" if old.isupper() and following.isupper() and len(following) > 1 else "n")


def exchanged(words: Words, first: tuple[int, int], second: tuple[int, int]) -> str:
    """The text with two ranges of words (start, end) in each other's places, the first first."""
    edits = [
        (*first, words.moved(*second, first[0])),
        (*second, words.moved(*first, second[0])),
    ]
    return _edited(words, edits)


def replaced(words: Words, k: int, new: str) -> str:
    """The text with `new` for word k."""
    return _edited(words, [(k, k + 1, new)])


def _edited(words: Words, edits: list[tuple[int, int, str]]) -> str:
    """The text with new ones for ranges of words, and a or an before them put right."""
    text, starts, ends = words.text, words.starts, words.ends
    parts, done = [], 0
    for first, end, new in edits:
        if first and starts[first - 1] >= done:
            before = text[starts[first - 1] : ends[first - 1]]
            if before in ARTICLES:
                parts += (text[done : starts[first - 1]], with_article(before, new))
                done = ends[first - 1]
        parts += (text[done : starts[first]], new)
        done = ends[end - 1]
    return "".join(parts) + text[done:]


def recapitalised(old: str, new: str) -> str:
    """`new` in the capitals of `old`: small, Capitalised or ALL CAPITALS."""
    if not old[:1].isupper():
        return new
    return new.upper() if len(old) > 1 and old.isupper() else new[:1].upper() + new[1:]


@dataclass(slots=True, frozen=True)
class Options:
    """What may replace a form of `length` letters: words, the running sums of their weights, and
    the share of the weight by how many steps each is longer, from -STEPS to STEPS."""

    length: int
    words: tuple[str, ...]
    sums: Sequence[float]
    shares: tuple[float, ...]


def _step(longer: int) -> int:
    """A difference of lengths as a step: 0, 1, 2, 3, 4 to 5, 6 and more, or the negative."""
    size = abs(longer)
    step = size if size < 4 else 4 if size < 6 else STEPS
    return step if longer > 0 else -step


def options_of(form: str, weighted: Collection[tuple[str, float]]) -> Options | None:
    """The `Options` of a form, from (word, weight); None where there are none."""
    if not weighted:
        return None
    total = sum(weight for _, weight in weighted)
    shares = [0.0] * (2 * STEPS + 1)
    for word, weight in weighted:
        shares[STEPS + _step(len(word) - len(form))] += weight / total
    words = tuple(word for word, _ in weighted)
    # An array, for of a word there may be thousands of options, and thousands of words.
    sums = array("d", accumulate(weight for _, weight in weighted))
    return Options(len(form), words, sums, tuple(shares))


def substitutions(
    places: list[tuple[int, Options]], present: Collection[str], rng: Random
) -> Iterator[tuple[int, str]]:
    """(place, a word for it that is not `present`), without end, unless there is none.

    A replacement that makes the caption longer is as likely as one that makes it shorter by as
    much: of two such steps the likelier is thinned out to the other. Else rarer words, which are
    longer, would tell the negatives.
    """
    places = [
        (k, options) for k, options in places if any(word not in present for word in options.words)
    ]
    if not places:
        return
    likely = list(map(sum, zip(*[options.shares for _, options in places], strict=True)))
    keep = [
        back / there if there > back else 1
        for there, back in zip(likely, likely[::-1], strict=True)
    ]
    passed = 0
    while True:
        k, options = places[pick(rng, len(places))]
        new = drawn(options.words, options.sums, rng)
        step = _step(len(new) - options.length)
        if (rng.random() >= keep[STEPS + step] and passed < THIN) or new in present:
            passed += 1
            continue
        passed = 0
        yield k, new


def bigram_shuffles(words: Words, rng: Random) -> Iterator[str]:
    """The caption with its pairs of neighbouring words in other orders, without end; none below two
    pairs. A draw may repeat another, or the caption.

    The paper's shuffle [FSC-CLIP, A.1], less what would give it away: punctuation and spaces stay
    where they are (the paper moves a final full stop into the middle), the capital stays in front,
    and a/an agree with their new neighbours.
    """
    text, count = words.text, len(words.starts)
    pieces = [words.moved(k, k + 1) for k in range(count)]
    pairs = [pieces[k : k + 2] for k in range(0, count, 2)]
    if len(pairs) < 2:
        return
    capitals = [to for to, opens in enumerate(words.slot) if opens]
    # The text from one word to the next, which stays while the words move.
    gaps = [text[end:start] for end, start in zip(words.ends[:-1], words.starts[1:], strict=True)]
    gaps.append(text[words.ends[-1] :])
    head = text[: words.starts[0]]
    redraws = 0
    while True:
        order, moved = shuffled(pairs, rng), []
        if order == pairs:
            yield text  # not with articles put right, for that is no other order
            continue
        for pair in order:
            if moved and moved[-1] in ARTICLES:
                moved[-1] = with_article(moved[-1], pair[0])
            moved += pair
        for to in capitals:
            moved[to] = moved[to][:1].upper() + moved[to][1:]
        shuffle = head + "".join([word + gap for word, gap in zip(moved, gaps, strict=True)])
        # Before "of", "in" or "a" many an "a" becomes "an", which alone would tell the shuffles.
        if len(shuffle) == len(text) or redraws == REDRAWS:
            redraws = 0
            yield shuffle
        else:
            redraws += 1


def pick(rng: Random, count: int) -> int:
    """A number in range(count)."""
    return int(rng.random() * count)


def drawn(things: Sequence, sums: Sequence[float], rng: Random):
    """One of `things`, by the running sums of their weights."""
    place = bisect_right(sums, rng.random() * sums[-1])
    return things[min(place, len(things) - 1)]


def shuffled(items: list, rng: Random) -> list:
    """A shuffled copy (not `rng.shuffle`: the two kinds of rng disagree on it)."""
    items, random = list(items), rng.random
    for last in range(len(items) - 1, 0, -1):
        other = int(random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items
