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

    images: float32 [n, d]; texts: float32 [m, d]; owner: int [m], the image that each text
    describes. A right answer's similarity is taken from the same matrix product as its
    distractors': a product computed on its own differs in the last bit, and exact copies would then
    beat each other.
    """
    # Equal rows are multiplied once, so that equal texts (and equal images) tie exactly.
    text_rows, text_place = unique_rows(texts)
    image_rows, image_place = unique_rows(images)
    image_of = image_place[owner]  # the right answer of each text, among the distinct images
    i2t = np.empty((2, len(images)), np.int64)
    t2i = np.empty((2, len(texts)), np.int64)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(images) + 1))
    copies = np.bincount(text_place, minlength=len(text_rows))
    for begin in range(0, len(images), BLOCK):
        end = min(begin + BLOCK, len(images))
        similarity = images[begin:end] @ text_rows.T
        own = order[starts[begin] : starts[end]]
        rows = owner[own] - begin
        mine = similarity[rows, text_place[own]]
        best = np.full(end - begin, -np.inf, np.float32)
        with np.errstate(invalid="ignore"):
            np.maximum.at(best, rows, mine)  # NaN stays NaN
        best[np.bincount(rows, minlength=end - begin) == 0] = np.nan
        # Right answers do not stand in one another's way.
        before = np.bincount(rows, mine > best[rows], end - begin)
        level = np.bincount(rows, mine == best[rows], end - begin)
        i2t[:, begin:end] = _placed(similarity, best, copies, len(texts), before, level)
    copies = np.bincount(image_place, minlength=len(image_rows))
    for begin in range(0, len(texts), BLOCK):
        end = min(begin + BLOCK, len(texts))
        similarity = texts[begin:end] @ image_rows.T
        right = similarity[np.arange(end - begin), image_of[begin:end]]
        t2i[:, begin:end] = _placed(similarity, right, copies, len(images), 0, 1)
    return Ranks(i2t[0], i2t[1], t2i[0], t2i[1])


def _placed(
    similarity: np.ndarray,
    best: np.ndarray,
    copies: np.ndarray,
    gallery: int,
    own_before: np.ndarray | int,
    own_level: np.ndarray | int,
) -> tuple[np.ndarray, np.ndarray]:
    """(strict, lenient) ranks of `best` [n] among similarities [n, distinct], each held `copies`
    times.

    own_before, own_level: the query's own right answers above and level with its best one.
    """
    above, equal = similarity > best[:, None], similarity == best[:, None]
    if len(copies) == gallery:
        before, level = np.count_nonzero(above, axis=1), np.count_nonzero(equal, axis=1)
    else:
        weights = copies.astype(np.float32)  # whole numbers far below 2^24
        before, level = (above @ weights).astype(np.int64), (equal @ weights).astype(np.int64)
    lenient = before - np.asarray(own_before, np.int64)
    strict = lenient + level - np.asarray(own_level, np.int64)
    lost = np.isnan(best)
    lenient[lost] = strict[lost] = gallery
    return strict, lenient


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
