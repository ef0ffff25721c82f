"""Retrieval: recall at K both ways, from embeddings, in blocks: the full matrix is never held."""

from dataclasses import dataclass
from math import comb

import numpy as np

K = (1, 5, 10)
BLOCK = 1024  # queries at once: 1,024 x 25,010 float32 are 100 MB


@dataclass(frozen=True)
class Ranks:
    """How many distractors come before (or tie with) the best right answer of each query.

    i2t_strict, i2t_lenient: int [images]; t2i_strict, t2i_lenient: int [texts]. Strict counts a tie
    as before; lenient does not. A query whose right answer is NaN ranks behind everything.
    """

    i2t_strict: np.ndarray
    i2t_lenient: np.ndarray
    t2i_strict: np.ndarray
    t2i_lenient: np.ndarray


def ranks(images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> Ranks:
    """Ranks both ways.

    images: float32 [n, d]; texts: float32 [m, d]; owner: int [m], the image that each text describes.
    A right answer's similarity is taken from the same matrix product as its distractors': a product
    computed on its own differs in the last bit, and exact copies would then beat each other.
    """
    # Equal rows are multiplied once, so that equal texts (and equal images) tie exactly.
    text_rows, text_place = unique_rows(texts)
    image_rows, image_place = unique_rows(images)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(images) + 1))
    i2t_strict = np.empty(len(images), np.int64)
    i2t_lenient = np.empty(len(images), np.int64)
    for begin in range(0, len(images), BLOCK):
        block = images[begin : begin + BLOCK] @ text_rows.T
        for row in range(len(block)):
            image = begin + row
            own = order[starts[image] : starts[image + 1]]
            similarity = block[row][text_place]
            best = similarity[own].max() if len(own) else np.nan
            before, level = _count(similarity, best)
            mine_before, mine_level = _count(similarity[own], best)
            i2t_lenient[image] = before - mine_before
            i2t_strict[image] = before - mine_before + level - mine_level
    t2i_strict = np.empty(len(texts), np.int64)
    t2i_lenient = np.empty(len(texts), np.int64)
    for begin in range(0, len(texts), BLOCK):
        part = slice(begin, min(begin + BLOCK, len(texts)))
        similarity = (texts[part] @ image_rows.T)[:, image_place]
        right = similarity[np.arange(len(similarity)), owner[part]]
        before = (similarity > right[:, None]).sum(axis=1)
        level = (similarity == right[:, None]).sum(axis=1) - 1
        lost = np.isnan(right) * len(images)
        t2i_lenient[part] = before + lost
        t2i_strict[part] = before + level + lost
    return Ranks(i2t_strict, i2t_lenient, t2i_strict, t2i_lenient)


def _count(similarity: np.ndarray, best: float) -> tuple[int, int]:
    if np.isnan(best):
        return len(similarity) + 1, 0
    return int((similarity > best).sum()), int((similarity == best).sum())


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct rows [u, d], place of each row among them [n])."""
    contiguous = np.ascontiguousarray(rows)
    view = contiguous.view(np.dtype((np.void, contiguous.dtype.itemsize * contiguous.shape[1])))
    _, first, place = np.unique(view.ravel(), return_index=True, return_inverse=True)
    return contiguous[first], place.ravel()


def chance(right: np.ndarray, gallery: int, k: int) -> float:
    """Percent of queries with any right answer in a random top k.

    right: int [queries], right answers of each in a gallery of that size.
    """
    values, counts = np.unique(right, return_counts=True)
    missed = [comb(gallery - int(v), k) / comb(gallery, k) if k <= gallery else 0 for v in values]
    return 100 * (1 - float(np.dot(missed, counts)) / len(right))
