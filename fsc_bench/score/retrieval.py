"""Retrieval: recall at K both ways, from embeddings, in blocks: the full matrix is never held.

A caption that stands twice is one answer, and so is a picture: what is equal takes one place of the
top K together, and is right for every query that any of it is right for. (Two pictures with one
caption are both right for it.)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

K = (1, 5, 10)
# What may change similarities [queries, answers] in place; the number of the first query before.
Change = Callable[[int, np.ndarray], None]
BLOCK = 1024  # queries at once: 1,024 x 25,010 float32 are 100 MB


@dataclass(frozen=True)
class Ranks:
    """How many answers come before the best right one of each query, int [queries] each.

    hits: different wrong answers at least as similar; a tie or NaN comes before. lenient: a tie
    does not. strict: entries of the gallery but the query's own that are at least as similar,
    copies of its own among them. A query whose right answer is NaN ranks behind everything.
    right: how many different right answers each query has. gallery: how many different answers
    there are.
    """

    hits: np.ndarray
    strict: np.ndarray
    lenient: np.ndarray
    right: np.ndarray
    gallery: int


def ranks(
    images: np.ndarray,
    texts: np.ndarray,
    owner: np.ndarray,
    same_image: np.ndarray | None = None,
    same_text: np.ndarray | None = None,
    changes: tuple[Change | None, Change | None] = (None, None),
) -> tuple[Ranks, Ranks]:
    """(ranks of texts for every image, of images for every text).

    images: float32 [n, d]; texts: float32 [m, d]; owner: int [m], the image that each text
    describes. same_image: int [n], same_text: int [m], equal where two are one; None: all differ.
    changes: what changes the similarities of each way, to answers numbered as `numbered` does.
    """
    pictures = numbered(np.arange(len(images)) if same_image is None else same_image)
    captions = numbered(np.arange(len(texts)) if same_text is None else same_text)
    entries = np.arange(len(texts))
    # Every picture with every caption that is said of it, each pair once.
    pairs = np.unique(np.column_stack([pictures[owner], captions]), axis=0)
    order = np.argsort(owner, kind="stable")
    i2t = _ranks(
        images, texts, captions, (owner[order], entries[order]), pictures, pairs, changes[0]
    )
    t2i = _ranks(texts, images, pictures, (entries, owner), captions, pairs[:, ::-1], changes[1])
    return i2t, t2i


def numbered(numbers: np.ndarray) -> np.ndarray:
    """The same with numbers 0, 1, 2, ... in the order of their first appearance."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place.ravel()]


def _ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    answer_of: np.ndarray,
    own: tuple[np.ndarray, np.ndarray],
    asks: np.ndarray,
    pairs: np.ndarray,
    change: Change | None = None,
) -> Ranks:
    """Ranks one way.

    answer_of: int [gallery], the answer that each entry is. own: (query, entry) of each record, by
    query. asks: int [queries], which queries are one; pairs: [pairs, 2] of such a query and a right
    answer.
    """
    answers = Answers(gallery, answer_of)
    right_query, right_answer = _for_each_query(asks, pairs)
    own_query, own_answer = own[0], answer_of[own[1]]
    found = np.empty((3, len(queries)), np.int64)
    for begin in range(0, len(queries), BLOCK):
        end = min(begin + BLOCK, len(queries))
        similarity = answers.similarity(queries[begin:end])
        if change:
            change(begin, similarity)
        part = slice(*np.searchsorted(right_query, (begin, end)))
        best, level = _best(similarity, right_query[part] - begin, right_answer[part])
        part = slice(*np.searchsorted(own_query, (begin, end)))
        best_own, level_own = _best(similarity, own_query[part] - begin, own_answer[part])
        # Counted from behind, so that NaN comes before.
        behind = similarity < best[:, None]
        found[0, begin:end] = answers.count - np.count_nonzero(behind, axis=1) - level
        not_before = similarity <= best[:, None]
        found[2, begin:end] = answers.count - np.count_nonzero(not_before, axis=1)
        if not np.array_equal(best, best_own, equal_nan=True):
            behind = similarity < best_own[:, None]
        found[1, begin:end] = len(gallery) - answers.entries(behind) - level_own
        for row in (0, 2):  # by strict counting it is there: no entry is less than NaN
            found[row, begin:end][np.isnan(best)] = len(gallery)
    right = np.bincount(right_query, minlength=len(queries))
    return Ranks(found[0], found[1], found[2], right, answers.count)


def best_answers(
    queries: np.ndarray, gallery: np.ndarray, answer_of: np.ndarray, depth: int
) -> Iterator[np.ndarray]:
    """The `depth` most similar answers of every query, int [queries, depth] in blocks.

    queries, gallery: float32 [n, d]; answer_of: int [gallery], as `numbered` gives it.
    """
    answers = Answers(gallery, answer_of)
    for begin in range(0, len(queries), BLOCK):
        similarity = answers.similarity(queries[begin : begin + BLOCK])
        yield most_similar(similarity, depth)


def most_similar(similarity: np.ndarray, depth: int) -> np.ndarray:
    """int [queries, depth]: the most similar answers, of equal ones the earlier."""
    return np.argsort(-similarity, axis=1, kind="stable")[:, :depth]


def put_first(similarity: np.ndarray, best: np.ndarray, scores: np.ndarray) -> None:
    """Ranks a few answers of every query by other scores, before all the rest, in place.

    similarity: [queries, answers]; best: int [queries, k], the few; scores: float [queries, k]. The
    few get 2, 3, ... in the order of their scores, equal where these are; cosines are below. A
    score of NaN stays NaN.
    """
    for row, (places, values) in enumerate(zip(best, scores, strict=True)):
        _, place = np.unique(values, return_inverse=True)
        similarity[row, places] = np.where(np.isnan(values), np.nan, 2 + place.ravel())


def _for_each_query(asks: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(query, right answer) of every query with each of its right answers, by query."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = np.searchsorted(pairs[:, 0], np.arange(len(asks) + 1))
    counts = np.diff(starts)[asks]
    query = np.repeat(np.arange(len(asks)), counts)
    within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    return query, pairs[starts[asks][query] + within, 1]


def _best(
    similarity: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(best similarity of each row among its columns, how many of them have it), [rows] each.

    NaN for a row with a NaN among them or without any.
    """
    n = len(similarity)
    mine = similarity[rows, columns]
    best = np.full(n, -np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        np.maximum.at(best, rows, mine)  # NaN stays NaN
    best[np.bincount(rows, minlength=n) == 0] = np.nan
    return best, np.bincount(rows, mine == best[rows], n).astype(np.int64)


class Answers:
    """A gallery's different answers, each as similar as the most similar of its entries.

    Right and wrong answers come out of one matrix product: a product computed on its own differs
    in the last bit, and exact copies would then beat each other. For the same reason equal vectors
    are multiplied once, so that they tie exactly.
    """

    def __init__(self, gallery: np.ndarray, answer_of: np.ndarray):
        vectors, vector_of = unique_rows(gallery)
        self.copies = np.bincount(answer_of)  # entries of each answer
        self.count = len(self.copies)
        _, first = np.unique(answer_of, return_index=True)
        chosen = vector_of[first]  # one vector of each answer, and what others it has
        pairs = np.unique(np.column_stack([answer_of, vector_of]), axis=0)
        self.more = pairs[pairs[:, 1] != chosen[pairs[:, 0]]]
        self.vectors, self.columns = vectors, chosen
        if len(pairs) == len(vectors):  # no two answers share one: no column is moved
            rest = np.setdiff1d(np.arange(len(vectors)), chosen)
            order = np.concatenate([chosen, rest])
            self.vectors, self.columns = vectors[order], None
            self.more[:, 1] = np.argsort(order)[self.more[:, 1]]

    def similarity(self, queries: np.ndarray) -> np.ndarray:
        """float32 [queries, answers]."""
        product = queries @ self.vectors.T
        found = product[:, : self.count] if self.columns is None else product[:, self.columns]
        for answer, column in self.more:
            np.maximum(found[:, answer], product[:, column], out=found[:, answer])  # NaN stays NaN
        return found

    def entries(self, chosen: np.ndarray) -> np.ndarray:
        """How many entries the chosen answers have; bool [queries, answers] -> int [queries]."""
        repeated = np.flatnonzero(self.copies > 1)
        more = chosen[:, repeated] @ (self.copies[repeated] - 1).astype(np.float32)
        return np.count_nonzero(chosen, axis=1) + more.astype(np.int64)


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct rows [u, d], place of each row among them [n])."""
    contiguous = np.ascontiguousarray(rows)
    view = contiguous.view(np.dtype((np.void, contiguous.dtype.itemsize * contiguous.shape[1])))
    _, first, place = np.unique(view.ravel(), return_index=True, return_inverse=True)
    return contiguous[first], place.ravel()


def chance(right: np.ndarray, gallery: int, k: int) -> np.ndarray:
    """Percent [queries]: how often a random top k holds a right answer.

    right: int [queries], the different right answers of each in a gallery of that many.
    """
    values, place = np.unique(right, return_inverse=True)
    shown = min(k, gallery)
    missed = [comb(gallery - int(v), shown) / comb(gallery, shown) for v in values]
    return 100 * (1 - np.array(missed))[place.ravel()]
