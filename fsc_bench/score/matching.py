"""Matching: does the right answer beat every distractor? Text, image and group, any shape."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcomes:
    """What came out of n records of one shape.

    hits:  metric -> bool [n]; `text`: every image chose its text; `image`: every text chose its
    image;
           `group`: both; `accuracy`: every choice that the shape has came out right.
    lenient: the same with a tie counted as a hit, as scorers by argmax with the answer first do.
    ties:  bool [n], a right answer that equals its best distractor exactly.
    """

    hits: dict[str, np.ndarray]
    lenient: dict[str, np.ndarray]
    ties: np.ndarray


def outcomes(similarity: np.ndarray) -> Outcomes:
    """Outcomes of records with the same shape.

    similarity: float [n, images, texts]; image i belongs with text i. One image and K texts, K
    images and one text, or K and K. A hit is strict: a tie or NaN is a miss, as in Winoground's own
    scoring (Thrush et al. 2022, section 4); a model that scores everything alike has matched
    nothing.
    """
    n, images, texts = similarity.shape
    choices: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    if texts > 1:
        choices["text"] = [_choice(similarity[:, i, :], i) for i in range(min(images, texts))]
    if images > 1:
        choices["image"] = [_choice(similarity[:, :, t], t) for t in range(min(images, texts))]
    hits = {
        name: _all(n, [right > best for right, best in pairs]) for name, pairs in choices.items()
    }
    lenient = {
        name: _all(n, [right >= best for right, best in pairs]) for name, pairs in choices.items()
    }
    ties = np.zeros(n, bool)
    for pairs in choices.values():
        for right, best in pairs:
            ties |= right == best
    for table in (hits, lenient):
        table["accuracy"] = _all(n, list(table.values()))
        if len(choices) == 2:
            table["group"] = table["accuracy"]
    return Outcomes(hits, lenient, ties)


def _choice(row: np.ndarray, answer: int) -> tuple[np.ndarray, np.ndarray]:
    """(similarity of the answer, best of the distractors), each [n]; NaN stays NaN."""
    return row[:, answer], np.delete(row, answer, axis=1).max(axis=1)


def _all(n: int, parts: list[np.ndarray]) -> np.ndarray:
    result = np.ones(n, bool)
    for part in parts:
        result &= part
    return result


def chance(images: int, texts: int) -> dict[str, float]:
    """Percent that continuous random similarities reach on a shape.

    K and K: every image its text, (1/K)^K; for two and two both together 1/6 (of the 24 orders of
    four similarities, 4 put both right ones above both wrong ones).
    """
    if texts == 1 or images == 1:
        percent = 100 / max(images, texts)
        return {"text" if images == 1 else "image": percent, "accuracy": percent}
    single = 100 * (1 / images) ** images
    both = 100 / 6 if images == 2 else float("nan")  # no closed form is used beyond two
    return {"text": single, "image": single, "group": both, "accuracy": both}
