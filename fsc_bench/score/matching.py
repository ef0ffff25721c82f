"""Matching: does the right answer beat every different one? Text, image and group, any shape.

Options that are equal (the same text, the same picture) are one answer, and an answer is as similar
as the most similar of its options. So an option equal to the right one is the right answer again,
as for official scorers, which take the first of equals and put the right one first.

Shapes: n records of one shape, I images and T texts each: one image and T texts, I images and one
text, or as many images as texts. Image i belongs with text i. Of one image's texts the first R may
be right; then each of them must beat every wrong one (SugarCrepe++, arXiv 2406.11171).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import comb, prod

import numpy as np

LARGEST = 14  # different images and texts of a record whose chance is worked out step by step
LARGEST_MATCH = 5  # images whose texts are assigned in every way, 120 of them

# Of the right answer, the best other one, and whether no wrong option equals a right one: a hit; a
# hit where any tie is a miss; a hit where a tie is one.
RULES = (
    lambda own, other, alone: own > other,
    lambda own, other, alone: (own > other) & alone,
    lambda own, other, alone: own >= other,
)


@dataclass(frozen=True)
class Outcomes:
    """What came out of n records of one shape.

    hits: metric -> bool [n]; `text`: every image chose its text; `image`: every text chose its
    image; `group`: both; `accuracy`: every choice that the shape has came out right; `groupmatch`:
    of all ways to give every image a text of its own, the right one has the greatest sum. Of
    several right texts, `text`: each beats the wrong ones; `caption`: the first does; `drop`: the
    first does and another does not.
    strict: the same where an option equal to the right one ties with it, and any tie is a miss.
    lenient: the same where a tie between different answers is a hit, as for scorers by argmax that
    put the right one first.
    ties: bool [n], a right answer that is exactly as similar as the best different one.
    """

    hits: dict[str, np.ndarray]
    strict: dict[str, np.ndarray]
    lenient: dict[str, np.ndarray]
    ties: np.ndarray


def outcomes(
    similarity: np.ndarray, right: np.ndarray | None = None, alike: np.ndarray | None = None
) -> Outcomes:
    """Outcomes of records with the same shape.

    similarity: float [n, I, T]. right: bool [n, I, T] or [I, T], as in `Offer`; None where all
    options differ. alike: bool [n, R, T], as in `Offer`, where R texts are right. A tie or NaN
    between different answers is a miss, as in Winoground's own scoring (Thrush et al. 2022, section
    4): a model that scores everything alike has matched nothing.
    """
    n, images, texts = similarity.shape
    if right is None:
        right = np.eye(images, texts, dtype=bool)
    right = np.broadcast_to(right, similarity.shape)
    pairs = range(min(images, texts))
    choices: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    if alike is not None:
        choices["text"] = _each_of_several(similarity[:, 0], right[:, 0], alike)
    elif texts > 1:
        choices["text"] = [_choice(similarity[:, i, :], right[:, i, :]) for i in pairs]
    if images > 1:
        choices["image"] = [_choice(similarity[:, :, t], right[:, :, t]) for t in pairs]
    hits, strict, lenient = (
        {name: _all(n, [rule(*choice) for choice in found]) for name, found in choices.items()}
        for rule in RULES
    )
    ties = np.zeros(n, bool)
    for found in choices.values():
        for own, other, _ in found:
            ties |= own == other
    for table in (hits, strict, lenient):
        table["accuracy"] = _all(n, list(table.values()))
        if len(choices) == 2:
            table["group"] = table["accuracy"]
    if len(choices) == 2 and images <= LARGEST_MATCH:
        for table, whole in zip((hits, strict, lenient), _matches(similarity, right), strict=True):
            table["groupmatch"] = whole
    if alike is not None:
        for table, rule in zip((hits, strict, lenient), RULES, strict=True):
            table["caption"] = rule(*choices["text"][0])
            table["drop"] = table["caption"] & ~table["text"]
    return Outcomes(hits, strict, lenient, ties)


def between_texts(similarity: np.ndarray, alike: np.ndarray) -> Outcomes:
    """Outcomes of `tot`, which asks no picture: the right texts are nearer to each other than any
    of them is to a wrong one (SugarCrepe++'s text-only task, arXiv 2406.11171).

    similarity: float [n, T, T], of texts with texts. alike: bool [n, R, T], as in `Offer`.
    """
    near, far = nearness(similarity, alike)
    hits, strict, lenient = ({"tot": rule(near, far, _alone(alike))} for rule in RULES)
    return Outcomes(hits, strict, lenient, near == far)


def nearness(similarity: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the least similarity of two right texts, the greatest of a right and a wrong one), each [n].
    Right texts that are equal are one answer, which is infinitely near to itself.
    """
    wrong = ~alike.any(axis=1)
    near, far = [], []
    for first in range(alike.shape[1]):
        own = alike[:, first]
        # The nearest option of the answer stands for it.
        to_each = np.where(own[:, :, None], similarity, -np.inf).max(axis=1)  # [n, T]
        far.append(np.where(wrong, to_each, -np.inf).max(axis=1))
        for second in range(first + 1, alike.shape[1]):
            other = alike[:, second]
            between = np.where(other, to_each, -np.inf).max(axis=1)
            near.append(np.where(own[:, second], np.inf, between))
    return np.min(near, axis=0), np.max(far, axis=0)


def _each_of_several(
    row: np.ndarray, right: np.ndarray, alike: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The choice of each right text, as `_choice` has it; row, right: [n, T]; alike: [n, R, T]."""
    other = np.where(right, -np.inf, row).max(axis=1)
    each = range(alike.shape[1])
    return [(np.where(alike[:, k], row, -np.inf).max(axis=1), other, _alone(alike)) for k in each]


def _alone(alike: np.ndarray) -> np.ndarray:
    """bool [n]: no option but the R right ones is right."""
    return alike.any(axis=1).sum(axis=1) == alike.shape[1]


def _matches(similarity: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether the best assignment of texts to images is the right one, bool [n], three times: as
    hits, strict and lenient count (GroupMatch, arXiv 2510.07632).
    """
    size = similarity.shape[1]
    orders = np.array(list(permutations(range(size))))
    pairs = (slice(None), np.arange(size), orders)  # [n, orders, size]
    sums = similarity.astype(float)[pairs].sum(axis=2)
    own, other, alone = _choice(sums, right[pairs].all(axis=2))
    return own > other, (own > other) & alone, own >= other


def _choice(row: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best of the right options, best of the others, whether one option alone is right), each [n].

    row, right: [n, options]. NaN stays NaN, which beats nothing; without others the best is -inf.
    """
    own = np.where(right, row, -np.inf).max(axis=1)
    other = np.where(right, -np.inf, row).max(axis=1)
    return own, other, right.sum(axis=1) == 1


def _all(n: int, parts: list[np.ndarray]) -> np.ndarray:
    result = np.ones(n, bool)
    for part in parts:
        result &= part
    return result


# ---------------------------------------------------------------- what a record offers


@dataclass(frozen=True)
class Offer:
    """What a record asks, by which of its options are equal.

    right: bool [I, T], whether a text is a right answer to an image, and the image to the text.
    alike: bool [R, T], which texts are each of the right ones; None where one is right.
    chance: metric -> percent that continuous random similarities reach.
    free: every option is right. easier: fewer different answers than options, some of them wrong.
    """

    right: np.ndarray
    chance: dict[str, float]
    free: bool
    easier: bool
    alike: np.ndarray | None = None


def first_equal(numbers: np.ndarray) -> np.ndarray:
    """int [n, options]: the place of the first option equal to each. Equal numbers: equal options.

    Two records with the same places make the same offer, whatever their options are.
    """
    return (numbers[:, :, None] == numbers[:, None, :]).argmax(axis=2)


@cache
def offer(images: tuple[int, ...], texts: tuple[int, ...], right_texts: int = 1) -> Offer:
    """The offer of a record whose options are equal where their numbers are. right_texts: how many,
    from the first on, are right; of one image there may be several.
    """
    if right_texts > 1:
        return _offer_of_several(texts, right_texts)
    pairs = min(len(images), len(texts))
    same_image, same_text = (np.equal.outer(part, part) for part in (images, texts))
    # Two texts of one picture are both right for it, and so are two pictures of one text.
    right = same_image[:, :pairs] @ same_text[:pairs, :]
    different = right[np.ix_(*(_firsts(part) for part in (images, texts)))]
    free = bool(right.all())
    easier = not free and different.size < right.size
    chance = _chance(different, len(images) > 1, len(texts) > 1)
    if "group" in chance and pairs <= LARGEST_MATCH:
        chance["groupmatch"] = 100 * _share_of_assignments(images, texts, right)
    return Offer(right, chance, free, easier)


def _offer_of_several(texts: tuple[int, ...], right_texts: int) -> Offer:
    """The offer of one image and several right texts."""
    alike = np.equal.outer(texts[:right_texts], texts)
    right = alike.any(axis=0)
    firsts = _firsts(texts)
    answers, wrong = int(right[firsts].sum()), int((~right)[firsts].sum())
    pairs = comb(answers, 2)
    caption, text = 100 / (1 + wrong), 100 * _all_above(answers, wrong)
    chance = {
        "text": text,
        "accuracy": text,
        "caption": caption,
        "drop": caption - text,
        "tot": 100 * _all_above(pairs, answers * wrong),
    }
    free = wrong == 0
    return Offer(right[None], chance, free, not free and len(firsts) < len(texts), alike)


def _all_above(some: int, others: int) -> float:
    """The share of orders in which all of some stand above all others: s! o! / (s + o)!"""
    return 1 / comb(some + others, some)


def _share_of_assignments(images: Sequence[int], texts: Sequence[int], right: np.ndarray) -> float:
    """The share of right ones among the different assignments of texts to images: 1/k! where all k
    differ.
    """
    fits: dict[tuple[tuple[int, int], ...], bool] = {}
    for way in permutations(range(len(texts))):
        pairs = tuple(sorted((images[i], texts[t]) for i, t in enumerate(way)))
        fits[pairs] = all(right[i, t] for i, t in enumerate(way))
    return sum(fits.values()) / len(fits)


def _firsts(numbers: Sequence[int]) -> list[int]:
    return [numbers.index(number) for number in dict.fromkeys(numbers)]


def _chance(right: np.ndarray, asks_image: bool, asks_text: bool) -> dict[str, float]:
    """Chance by metric; right: bool [different images, different texts]."""
    found = {}
    if asks_text:  # each image chooses among the texts, whatever the others choose
        found["text"] = 100 * prod(right.mean(axis=1).tolist())
    if asks_image:
        found["image"] = 100 * prod(right.mean(axis=0).tolist())
    if asks_text and asks_image:
        found["group"] = 100 * _both_ways(right)
    return {**found, "accuracy": next(reversed(found.values()))}


def _both_ways(right: np.ndarray) -> float:
    """The share of orders in which the best of every row and of every column is right.

    NaN for a large record whose options are partly equal, which no benchmark has.
    """
    images, texts = right.shape
    if right.all():
        return 1.0
    if images == texts and right.sum() == images:  # (k - 1)! / (2k - 1)!, 1/6 for two and two
        return prod(1 / (images + step) for step in range(images))
    if images + texts > LARGEST:
        return float("nan")

    @cache
    def share(rows: frozenset[int], columns: frozenset[int]) -> float:
        """The same for rows and columns whose best is still unknown: the best of all their cells
        is every one of them equally often, and settles its row and its column.
        """
        if not rows and not columns:
            return 1.0
        cells = [(i, t) for i in range(images) for t in range(texts) if i in rows or t in columns]
        fitting = [(i, t) for i, t in cells if right[i, t]]
        return sum(share(rows - {i}, columns - {t}) for i, t in fitting) / len(cells)

    return share(frozenset(range(images)), frozenset(range(texts)))
