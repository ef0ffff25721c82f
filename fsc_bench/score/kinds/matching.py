"""Matching: records with several texts or images, each right for some and wrong for others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsc_bench.records import Record
from fsc_bench.score import matching
from fsc_bench.score.scoring import Material, Scores, text_numbers
from fsc_bench.score.statistics import scalar_leaves

BLOCK = 4096  # records at once


def score(given: Material) -> Scores:
    rows = given.rows
    shapes = _by_shape(rows)
    offers = _offers(given, shapes)
    right = [offer.right for offer in offers]
    found = _Table(len(rows))
    similarities: list[Any] = [None] * len(rows)
    nan = np.zeros(len(rows), bool)
    for numbers in shapes:
        for start in range(0, len(numbers), BLOCK):
            part = np.array(numbers[start : start + BLOCK])
            similarity = _similarity(given, [rows[i] for i in part])
            found.put(part, matching.outcomes(similarity, np.stack([right[i] for i in part])))
            nan[part] = np.isnan(similarity).any(axis=(1, 2))
            for number, values in zip(part, similarity.reshape(len(part), -1), strict=True):
                similarities[number] = values
    wanted = [m for m in found.hits if m != "accuracy" or "accuracy" in given.task.headline]
    free, easier = (np.array([getattr(offer, name) for offer in offers], bool)
                    for name in ("free", "easier"))  # fmt: skip
    samples = {
        "scores": similarities,  # [images x texts] row by row; image i belongs with text i
        "images": [len(row.images) for row in rows],
        "texts": [len(row.texts) for row in rows],
        **{f"correct_{metric}": found.hits[metric] for metric in wanted},
        "tie": found.ties,
        "free": free,
        "easier": easier,
    }
    return Scores(
        measures={m: given.means(found.hits[m], found.asked[m]) for m in wanted},
        strict={m: given.means(found.strict[m], found.asked[m]) for m in wanted},
        official={m: given.means(found.lenient[m], found.asked[m]) for m in wanted},
        chance={m: _chance(given, offers, m, found.asked[m]) for m in wanted},
        samples=samples,
        ties=int(found.ties.sum()),
        nan=nan,
        audits={"free": int(free.sum()), "easier": int(easier.sum())},
    )


class _Table:
    """Outcomes of records of several shapes, put together; `asked`: which have the metric."""

    def __init__(self, n: int):
        self.n = n
        self.hits: dict[str, np.ndarray] = {}
        self.strict: dict[str, np.ndarray] = {}
        self.lenient: dict[str, np.ndarray] = {}
        self.asked: dict[str, np.ndarray] = {}
        self.ties = np.zeros(n, bool)

    def put(self, part: np.ndarray, found: matching.Outcomes) -> None:
        self.ties[part] = found.ties
        for metric, hits in found.hits.items():
            for table, values in (
                (self.hits, hits),
                (self.strict, found.strict[metric]),
                (self.lenient, found.lenient[metric]),
                (self.asked, True),
            ):
                table.setdefault(metric, np.zeros(self.n, bool))[part] = values


def _by_shape(rows: Sequence[Record]) -> list[list[int]]:
    """The places of the records of each shape."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault((len(row.images), len(row.texts)), []).append(number)
    return list(found.values())


def _offers(given: Material, shapes: Sequence[Sequence[int]]) -> list[matching.Offer]:
    """What each record offers, by which of its images and texts are equal."""
    rows = given.rows
    images = given.image_numbers([ref for row in rows for ref in row.images])
    texts = text_numbers([text for row in rows for text in row.texts])
    image_ends = np.cumsum([len(row.images) for row in rows])
    text_ends = np.cumsum([len(row.texts) for row in rows])
    offers: list[Any] = [None] * len(rows)
    for numbers in shapes:
        split = len(rows[numbers[0]].images)
        sides = (images, image_ends, split), (texts, text_ends, len(rows[numbers[0]].texts))
        places = [
            matching.first_equal(of[ends[numbers][:, None] - np.arange(size, 0, -1)])
            for of, ends, size in sides
        ]
        kinds, kind_of = np.unique(np.hstack(places), axis=0, return_inverse=True)
        found = [
            matching.offer(tuple(kind[:split]), tuple(kind[split:])) for kind in kinds.tolist()
        ]
        for number, kind in zip(numbers, kind_of.ravel().tolist(), strict=True):
            offers[number] = found[kind]
    return offers


def _similarity(given: Material, rows: Sequence[Record]) -> np.ndarray:
    """float32 [n, images, texts] of records of one shape. Summed along one axis, not by BLAS, whose
    last bit depends on a column's place: equal texts must tie exactly.
    """
    n, images, texts = len(rows), len(rows[0].images), len(rows[0].texts)
    v = given.images([ref for row in rows for ref in row.images])
    t = given.vectors.texts([text for row in rows for text in row.texts])
    v, t = v.reshape(n, images, 1, -1), t.reshape(n, 1, texts, -1)
    result = np.empty((n, images, texts), np.float32)
    for i in range(images):
        for k in range(texts):
            result[:, i, k] = (v[:, i, 0] * t[:, 0, k]).sum(axis=1)
    return result


def _chance(
    given: Material, offers: Sequence[matching.Offer], metric: str, asked: np.ndarray
) -> dict[str, float]:
    """Chance by subset: the mean over its samples and strata, as of the outcomes."""
    shares = np.array([offer.chance.get(metric, np.nan) / 100 for offer in offers])
    return scalar_leaves(given.means(shares, asked).leaves())[0]
