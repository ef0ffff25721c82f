"""Matching: records with several texts or images, each right for some and wrong for others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np

from fsc_bench.embed.plan import Wanted
from fsc_bench.records import ImageRef, Record
from fsc_bench.score import matching
from fsc_bench.score.scoring import Material, Scores, Told, text_numbers
from fsc_bench.score.statistics import ROOT, Measure, points, scalar_leaves
from fsc_bench.task import OF_SEVERAL

BLOCK = 4096  # records at once
SHUFFLE = 20241007  # the seed of the shuffled pictures: every model gets the same ones


def score(given: Material) -> Scores:
    rows = given.rows
    sizes = shapes(rows)
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
    several = _compare_texts(given, sizes, offers, found)
    wanted = [m for m in found.hits if m != "accuracy" or "accuracy" in given.task.headline]
    free, easier = (np.array([getattr(offer, name) for offer in offers], bool)
                    for name in ("free", "easier"))  # fmt: skip
    samples = {
        "scores": similarities,  # [images x texts] row by row; image i belongs with text i
        **{f"correct_{metric}": found.hits[metric] for metric in wanted},
        "tie": found.ties,
        "free": free,
        "easier": easier,
        **several.columns,
    }
    means = given.grouping.means
    return Scores(
        measures={m: means(found.hits[m], found.asked[m]) for m in wanted},
        strict={m: means(found.strict[m], found.asked[m]) for m in wanted},
        official={m: means(found.lenient[m], found.asked[m]) for m in wanted},
        chance={m: _chance(given, offers, m, found.asked[m]) for m in wanted},
        samples=samples,
        ties=int(found.ties.sum()),
        nan=nan | several.nan,
        audits={"free": int(free.sum()), "easier": int(easier.sum()), **several.audits},
        blindness=_blindness(given, sizes, offers),
    )


@dataclass(frozen=True)
class _Several:
    """What records with several right texts add: columns, audits, and bool [rows], NaN in them."""

    columns: dict[str, Any]
    audits: dict[str, Any]
    nan: np.ndarray


NO_TEXT_VECTORS = "a model that scores pairs gives no vectors of texts that could be compared"


def _compare_texts(
    given: Material, sizes: np.ndarray, offers: Sequence[matching.Offer], found: "Tally"
) -> _Several:
    """Puts the text-to-text outcomes of records with several right texts into `found`."""
    nan = np.zeros(len(sizes), bool)
    if not (sizes[:, 2] > 1).any():
        return _Several({}, {}, nan)
    columns: dict[str, Any] = {"right_texts": sizes[:, 2]}
    if given.pairs is not None:
        return _Several(columns, {"lacks": {"tot": NO_TEXT_VECTORS}}, nan)
    stored: list[Any] = [np.empty(0, np.float32)] * len(sizes)
    ties = 0
    for part in _parts(sizes):
        if sizes[part[0], 2] > 1:
            pairs = _text_pairs(given, [given.rows[i] for i in part])
            nan[part] = np.isnan(pairs).any(axis=1)
            for number, values in zip(part, pairs, strict=True):
                stored[number] = values
            of_part = _between_texts(pairs, [offers[i] for i in part])
            ties += int(of_part.ties.sum())
            found.put(part, replace(of_part, ties=found.ties[part]))
    return _Several({**columns, "text_scores": stored}, {"tot_ties": ties} if ties else {}, nan)


def _text_pairs(given: Material, rows: Sequence[Record]) -> np.ndarray:
    """float32 [n, T (T - 1) / 2]: cosines of each text of a record with those behind it."""
    vectors = given.vectors.texts([text for row in rows for text in row.texts])
    vectors = vectors.reshape(len(rows), len(rows[0].texts), -1)
    first, second = np.triu_indices(vectors.shape[1], 1)
    return np.stack(
        [(vectors[:, i] * vectors[:, k]).sum(axis=1) for i, k in zip(first, second, strict=True)],
        axis=1,
    )


def _between_texts(pairs: np.ndarray, offers: Sequence[matching.Offer]) -> matching.Outcomes:
    """pairs: as `_text_pairs` gives them, of records with one shape."""
    return matching.between_texts(_square(pairs), np.stack([offer.alike for offer in offers]))


def _square(pairs: np.ndarray) -> np.ndarray:
    """[n, T, T] of [n, T (T - 1) / 2]: every text with every one; with itself 1."""
    texts = (1 + isqrt(1 + 8 * pairs.shape[1])) // 2
    first, second = np.triu_indices(texts, 1)
    similarity = np.ones((len(pairs), texts, texts), pairs.dtype)
    similarity[:, first, second] = similarity[:, second, first] = pairs
    return similarity


def shapes(rows: Sequence[Record]) -> np.ndarray:
    """int [n, 3]: images, texts and right texts of each record."""
    found = [(len(row.images), len(row.texts), row.right_texts) for row in rows]
    return np.array(found, int).reshape(-1, 3)


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
    sizes = shapes(rows)
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
        alike = None
        if offers[part[0]].alike is not None:
            alike = np.stack([offers[i].alike for i in part])
        found.put(part, matching.outcomes(similarity, right, alike))
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
    scores = _Rows(columns.flat("scores"), sizes[:, 0] * sizes[:, 1])
    found = tally(
        ((part, scores.of(part).reshape(len(part), *sizes[part[0], :2])) for part in _parts(sizes)),
        offers,
    )
    for part, pairs in _stored_text_pairs(told, sizes):
        of_part = _between_texts(pairs, [offers[i] for i in part])
        found.put(part, replace(of_part, ties=found.ties[part]))
    return found


def _stored_text_pairs(told: Told, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(places, as `_text_pairs`) of the records with several right texts, where they are told."""
    if "text_scores" in told.columns:
        lengths = told.columns.lengths("text_scores")
        pairs = _Rows(told.columns.flat("text_scores"), lengths)
        yield from ((part, pairs.of(part)) for part in _parts(sizes) if sizes[part[0], 2] > 1)


def hits(told: Told, metric: str) -> np.ndarray:
    found = told.columns[f"correct_{metric}"].astype(bool)
    return found & _asked(_sizes(told))[metric]


def margins(told: Told, metric: str) -> np.ndarray:
    """The least, over the choices that the metric is of, of the right answer's score less the best
    different one's.
    """
    sizes, columns = _sizes(told), told.columns
    scores = _Rows(columns.flat("scores"), sizes[:, 0] * sizes[:, 1])
    texts = _Rows(columns.flat("texts"), sizes[:, 1])
    margin = np.full(len(sizes), np.nan)
    if metric == "tot":
        for part, pairs in _stored_text_pairs(told, sizes):
            alike = _alike(texts.of(part), sizes[part[0], 2])
            near, far = matching.nearness(_square(pairs.astype(float)), alike)
            margin[part] = near - far
        return margin
    for part in _parts(sizes):
        images, width, right_texts = sizes[part[0]].tolist()
        shown = texts.of(part)
        similarity = scores.of(part).astype(float).reshape(len(part), images, width)
        if right_texts > 1:
            margin[part] = _margin_of_several(similarity[:, 0], shown, right_texts, metric)
        else:
            margin[part] = _margin(similarity, shown == shown[:, :1], metric)
    return margin


class _Rows:
    """Values that all rows have one after the other, as [part, values]; lengths: int [n]."""

    def __init__(self, values: np.ndarray, lengths: np.ndarray):
        self.values, self.lengths, self.begins = values, lengths, np.cumsum(lengths) - lengths

    def of(self, part: np.ndarray) -> np.ndarray:
        """The values of some rows that have equally many."""
        return self.values[self.begins[part][:, None] + np.arange(self.lengths[part[0]])]


def _margin_of_several(
    similarity: np.ndarray, texts: np.ndarray, right_texts: int, metric: str
) -> np.ndarray:
    """float [n]; similarity: float [n, T]; texts: int [n, T], equal where two are one."""
    if metric not in ("text", "accuracy", "caption"):
        return np.full(len(similarity), np.nan)
    right = _alike(texts, right_texts).any(axis=1)
    asked = 1 if metric == "caption" else right_texts
    return similarity[:, :asked].min(axis=1) - np.where(right, -np.inf, similarity).max(axis=1)


def _alike(texts: np.ndarray, right_texts: int) -> np.ndarray:
    """bool [n, R, T], which texts are each of the right ones; texts: int [n, T]."""
    return texts[:, :right_texts, None] == texts[:, None, :]


def _margin(similarity: np.ndarray, same: np.ndarray, metric: str) -> np.ndarray:
    """float [n]; same: bool [n, T], texts that are the first one again."""
    n, images, texts = similarity.shape
    pairs = range(min(images, texts))
    found = []
    if texts > 1 and metric != "image" and metric not in OF_SEVERAL:
        copies = same if images == 1 else np.zeros_like(same)
        for i in pairs:
            other = copies.copy()
            other[:, i] = True
            wrong = np.where(other, -np.inf, similarity[:, i]).max(axis=1)
            found.append(similarity[:, i, i] - wrong)
    if images > 1 and metric not in ("text", *OF_SEVERAL):
        for t in pairs:
            found.append(similarity[:, t, t] - np.delete(similarity[:, :, t], t, axis=1).max(1))
    return np.min(found, axis=0) if found else np.full(n, np.nan)


def _sizes(told: Told) -> np.ndarray:
    """int [n, 3], as `shapes` of the records."""
    images, texts = (told.columns.lengths(name) for name in ("images", "texts"))
    one = np.ones(len(images), int)
    right_texts = told.columns.get("right_texts", one)
    return np.column_stack([images, texts, right_texts])


def _asked(sizes: np.ndarray) -> dict[str, np.ndarray]:
    """metric -> bool [n], the records that have it, as `matching.outcomes` gives them."""
    texts, images = sizes[:, 1] > 1, sizes[:, 0] > 1
    small = sizes[:, 0] <= matching.LARGEST_MATCH
    several = sizes[:, 2] > 1
    return {
        "text": texts,
        "image": images,
        "accuracy": texts | images,
        "group": texts & images,
        "groupmatch": texts & images & small,
        "caption": several,
        "drop": several,
        "tot": several,
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
    shape_of = np.zeros(len(sizes), int)
    for size in sizes.T:
        shape_of = shape_of * (size.max(initial=0) + 1) + size
    return [np.flatnonzero(shape_of == shape) for shape in dict.fromkeys(shape_of.tolist())]


def _parts(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """The places of records of one shape, some at a time."""
    for numbers in _by_shape(sizes):
        for start in range(0, len(numbers), BLOCK):
            yield numbers[start : start + BLOCK]


def offered(sizes: np.ndarray, images: np.ndarray, texts: np.ndarray) -> list[matching.Offer]:
    """What each record offers, by which of its images and texts are equal.

    sizes: as `shapes` gives them; images, texts: int, of all records one after the other, equal
    where two are one.
    """
    image_ends, text_ends = np.cumsum(sizes[:, :2], axis=0).T
    offers: list[Any] = [None] * len(sizes)
    for numbers in _by_shape(sizes):
        split, width, right_texts = sizes[numbers[0]].tolist()
        sides = (images, image_ends, split), (texts, text_ends, width)
        places = [
            matching.first_equal(of[ends[numbers][:, None] - np.arange(size, 0, -1)])
            for of, ends, size in sides
        ]
        kinds, kind_of = np.unique(np.hstack(places), axis=0, return_inverse=True)
        found = [
            matching.offer(tuple(kind[:split]), tuple(kind[split:]), right_texts)
            for kind in kinds.tolist()
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
