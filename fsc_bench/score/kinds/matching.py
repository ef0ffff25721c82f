"""Matching: records with several texts or images, each right for some and wrong for others."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fsc_bench.embed.plan import Wanted
from fsc_bench.records import ImageRef, Record
from fsc_bench.score import matching
from fsc_bench.score.scoring import Material, Scores, Told, text_numbers
from fsc_bench.score.statistics import ROOT, Measure, points, scalar_leaves

BLOCK = 4096  # records at once
SHUFFLE = 20241007  # the seed of the shuffled pictures: every model gets the same ones


def score(given: Material) -> Scores:
    rows = given.rows
    sizes = np.array([(len(row.images), len(row.texts)) for row in rows])
    offers = offered(
        sizes,
        given.image_numbers([ref for row in rows for ref in row.images]),
        text_numbers([text for row in rows for text in row.texts]),
    )
    similarities: list[Any] = [None] * len(rows)
    nan = np.zeros(len(rows), bool)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in _parts(sizes):
            similarity = _similarity(given, [rows[i] for i in part])
            nan[part] = np.isnan(similarity).any(axis=(1, 2))
            for number, values in zip(part, similarity.reshape(len(part), -1), strict=True):
                similarities[number] = values
            yield part, similarity

    found = tally(blocks(), offers)
    wanted = [m for m in found.hits if m != "accuracy" or "accuracy" in given.task.headline]
    free, easier = (np.array([getattr(offer, name) for offer in offers], bool)
                    for name in ("free", "easier"))  # fmt: skip
    samples = {
        "scores": similarities,  # [images x texts] row by row; image i belongs with text i
        **{f"correct_{metric}": found.hits[metric] for metric in wanted},
        "tie": found.ties,
        "free": free,
        "easier": easier,
    }
    means = given.grouping.means
    return Scores(
        measures={m: means(found.hits[m], found.asked[m]) for m in wanted},
        strict={m: means(found.strict[m], found.asked[m]) for m in wanted},
        official={m: means(found.lenient[m], found.asked[m]) for m in wanted},
        chance={m: _chance(given, offers, m, found.asked[m]) for m in wanted},
        samples=samples,
        ties=int(found.ties.sum()),
        nan=nan,
        audits={"free": int(free.sum()), "easier": int(easier.sum())},
        blindness=_blindness(given, sizes, offers),
    )


def _blindness(
    given: Material, sizes: np.ndarray, offers: Sequence[matching.Offer]
) -> dict[str, dict[str, float]]:
    """The headline with pictures that tell nothing: {which: {metric: percent}}.

    mean_image: every picture is the mean of all, so that the model's texts alone decide; a model
    that scores pairs has no such mean, and no such number. shuffled_images: every picture is
    another one of the same task, drawn once and for all.
    """
    rows, found = given.rows, {}
    number, shown = _instead(given)
    starts = np.cumsum(sizes[:, 0]) - sizes[:, 0]
    for name, instead in shown.items():

        def blocks(instead: Any = instead) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for part in _parts(sizes):
                places = starts[part][:, None] + np.arange(sizes[part[0], 0])
                yield (
                    part,
                    _similarity(given, [rows[i] for i in part], instead[number[places.ravel()]]),
                )

        outcomes = tally(blocks(), offers)
        found[name] = {}
        for metric in given.task.headline:
            if metric in outcomes.hits:
                means = given.grouping.means(outcomes.hits[metric], outcomes.asked[metric])
                value = points(means, given.task.subsets, given.task.within).get(ROOT)
                found[name] |= {} if value is None else {metric: value}  # None: a subset is absent
    return found


def _instead(given: Material) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(which different picture each picture of all records is, what is shown instead of each
    different one): vectors [different pictures, d], or objects, pictures, where pairs are scored.
    """
    refs = [ref for row in given.rows for ref in row.images]
    _, first, number = np.unique(given.image_numbers(refs), return_index=True, return_inverse=True)
    order = np.random.default_rng(SHUFFLE).permutation(len(first))
    other = np.roll(order, 1)[np.argsort(order)]  # none is its own
    if given.pairs is not None:
        pictures = np.empty(len(first), object)
        pictures[:] = [refs[first[place]] for place in other]
        return number.ravel(), {"shuffled_images": pictures}
    images = given.images([refs[place] for place in first])
    mean = images.mean(axis=0)
    with np.errstate(invalid="ignore"):
        mean /= np.linalg.norm(mean)
    shown = {"mean_image": np.broadcast_to(mean, images.shape), "shuffled_images": images[other]}
    return number.ravel(), shown


def pairs(given: Material) -> Iterator[Wanted]:
    """Every picture with every text of its record, and the same for the shuffled pictures: the one
    measure of what the texts alone decide that such a model has.
    """
    rows = given.rows
    sizes = np.array([(len(row.images), len(row.texts)) for row in rows])
    starts = np.cumsum(sizes[:, 0]) - sizes[:, 0]
    number, instead = _instead(given)
    for shuffled in (False, True):
        for part in _parts(sizes):
            places = (starts[part][:, None] + np.arange(sizes[part[0], 0])).ravel()
            shown = instead["shuffled_images"][number[places]] if shuffled else None
            yield _every_pair([rows[i] for i in part], shown)


def _every_pair(rows: Sequence[Record], shown: Sequence[ImageRef] | None = None) -> Wanted:
    """Every picture with every text of each record; all have one shape. shown: as `_similarity`."""
    n, images, texts = len(rows), len(rows[0].images), len(rows[0].texts)
    row, image, text = np.indices((n, images, texts)).reshape(3, -1)
    refs = [ref for row in rows for ref in row.images] if shown is None else shown
    return Wanted(
        refs, [text for row in rows for text in row.texts], row * images + image, row * texts + text
    )


def tally(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], offers: Sequence[matching.Offer]
) -> "Tally":
    """Outcomes of records in blocks of one shape: (their places [n], similarities [n, I, T])."""
    found = Tally(len(offers))
    for part, similarity in blocks:
        right = np.stack([offers[i].right for i in part])
        found.put(part, matching.outcomes(similarity, right))
    return found


def measures(told: Told) -> dict[str, Measure]:
    return {
        metric: told.grouping.means(told.columns[f"correct_{metric}"], asked)
        for metric, asked in _asked(_sizes(told)).items()
        if told.asks(metric) and f"correct_{metric}" in told.columns
    }


def recounted(told: Told) -> "Tally":
    """Outcomes from the scores of a samples file: by every rule of ties, and of metrics that the
    file does not name.
    """
    sizes, columns = _sizes(told), told.columns
    texts = text_numbers([text for part in columns["texts"] for text in part])
    offers = offered(sizes, columns.flat("image_digests"), texts)
    scores = _Rows(columns.flat("scores"), sizes)
    return tally(((part, scores.of(part)) for part in _parts(sizes)), offers)


def hits(told: Told, metric: str) -> np.ndarray:
    found = told.columns[f"correct_{metric}"].astype(bool)
    return found & _asked(_sizes(told))[metric]


def margins(told: Told, metric: str) -> np.ndarray:
    """The least, over the choices that the metric is of, of the right answer's score less the best
    different one's.
    """
    sizes = _sizes(told)
    alone = np.column_stack([np.ones(len(sizes), int), sizes[:, 1]])
    scores = _Rows(told.columns.flat("scores"), sizes)
    texts = _Rows(told.columns.flat("texts"), alone)
    margin = np.full(len(sizes), np.nan)
    for part in _parts(sizes):
        similarity, shown = scores.of(part).astype(float), texts.of(part)
        margin[part] = _margin(similarity, shown[:, 0] == shown[:, 0, :1], metric)
    return margin


class _Rows:
    """Values that all rows have one after the other, as [part, I, T]; sizes: int [n, 2]."""

    def __init__(self, values: np.ndarray, sizes: np.ndarray):
        lengths = sizes[:, 0] * sizes[:, 1]
        self.values, self.sizes, self.begins = values, sizes, np.cumsum(lengths) - lengths

    def of(self, part: np.ndarray) -> np.ndarray:
        """The values of some rows of one shape."""
        images, texts = self.sizes[part[0]].tolist()
        places = self.begins[part][:, None] + np.arange(images * texts)
        return self.values[places].reshape(len(part), images, texts)


def _margin(similarity: np.ndarray, same: np.ndarray, metric: str) -> np.ndarray:
    """float [n]; same: bool [n, T], texts that are the first one again."""
    n, images, texts = similarity.shape
    pairs = range(min(images, texts))
    found = []
    if texts > 1 and metric != "image":
        copies = same if images == 1 else np.zeros_like(same)
        for i in pairs:
            other = copies.copy()
            other[:, i] = True
            wrong = np.where(other, -np.inf, similarity[:, i]).max(axis=1)
            found.append(similarity[:, i, i] - wrong)
    if images > 1 and metric != "text":
        for t in pairs:
            found.append(similarity[:, t, t] - np.delete(similarity[:, :, t], t, axis=1).max(1))
    return np.min(found, axis=0) if found else np.full(n, np.nan)


def _sizes(told: Told) -> np.ndarray:
    """int [n, 2]: images and texts of each record."""
    return np.column_stack([told.columns.lengths(name) for name in ("images", "texts")])


def _asked(sizes: np.ndarray) -> dict[str, np.ndarray]:
    """metric -> bool [n], the records that have it, as `matching.outcomes` gives them."""
    texts, images = sizes[:, 1] > 1, sizes[:, 0] > 1
    small = sizes[:, 0] <= matching.LARGEST_MATCH
    return {
        "text": texts,
        "image": images,
        "accuracy": texts | images,
        "group": texts & images,
        "groupmatch": texts & images & small,
    }


class Tally:
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


def _by_shape(sizes: np.ndarray) -> list[np.ndarray]:
    """The places of the records of each shape, int arrays."""
    shape_of = sizes[:, 0] * (sizes[:, 1].max(initial=0) + 1) + sizes[:, 1]
    return [np.flatnonzero(shape_of == shape) for shape in dict.fromkeys(shape_of.tolist())]


def _parts(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """The places of records of one shape, some at a time."""
    for numbers in _by_shape(sizes):
        for start in range(0, len(numbers), BLOCK):
            yield numbers[start : start + BLOCK]


def offered(sizes: np.ndarray, images: np.ndarray, texts: np.ndarray) -> list[matching.Offer]:
    """What each record offers, by which of its images and texts are equal.

    sizes: int [n, 2], images and texts of each; images, texts: int, of all records one after the
    other, equal where two are one.
    """
    image_ends, text_ends = np.cumsum(sizes, axis=0).T
    offers: list[Any] = [None] * len(sizes)
    for numbers in _by_shape(sizes):
        split, width = sizes[numbers[0]].tolist()
        sides = (images, image_ends, split), (texts, text_ends, width)
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


def _similarity(given: Material, rows: Sequence[Record], shown: Any = None) -> np.ndarray:
    """float32 [n, images, texts] of records of one shape. Summed along one axis, not by BLAS, whose
    last bit depends on a column's place: equal texts must tie exactly. shown: float32 [all images,
    d], instead of the vectors of their pictures; the pictures to show where pairs are scored.
    """
    n, images, texts = len(rows), len(rows[0].images), len(rows[0].texts)
    if given.pairs is not None:
        wanted = _every_pair(rows, shown)
        return given.pairs.scores(given.task.name, wanted).reshape(n, images, texts)
    v = given.images([ref for row in rows for ref in row.images]) if shown is None else shown
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
    return scalar_leaves(given.grouping.means(shares, asked).leaves())[0]
