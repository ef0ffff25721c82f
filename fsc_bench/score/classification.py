"""Classification: accuracy, top-5, mean per class, ROC-AUC, 11-point mAP; scores are [n, classes].

Shares come out in 0..1, not in percent. `weights` [replicates, n] says how often each sample was
drawn in each bootstrap replicate; then the answer has one value a replicate, NaN where it is
undefined there.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

SCALE = 100.0  # ELEVATER's fixed temperature; it ranks images in mAP and moves no argmax
RECALLS = np.linspace(1, 0, 11)  # vision-evaluation 0.2.9's grid, 0.29999999999999993 and all
TOP = 5


@dataclass(frozen=True)
class Outcomes:
    """What came out of n single-label samples.

    correct: bool [n], the right class beats every different one.
    strict: bool [n], the same where a class equal to the right one ties with it, as a miss.
    official: bool [n], argmax, the first index winning ties, as in the published evaluators.
    top5, strict_top5: bool [n], at most four different classes (for the second: other classes)
    reach the right one's score; None up to five classes.
    ties: bool [n], the best of the different classes equals the right one exactly.
    predicted: int [n], the best class, of equals the sample's own, else the first; -1 where a score
    is NaN.
    """

    correct: np.ndarray
    strict: np.ndarray
    official: np.ndarray
    top5: np.ndarray | None
    strict_top5: np.ndarray | None
    ties: np.ndarray
    predicted: np.ndarray


def first_alike(texts: Sequence[Hashable]) -> np.ndarray:
    """int [classes]: the first class whose name or prompts are the same as this one's.

    ImageNet has "missile" and "sunglasses" twice, in ELEVATER, OpenAI's notebook and open_clip
    alike.
    """
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(text, place) for place, text in enumerate(texts)])


def outcomes(
    scores: np.ndarray, labels: np.ndarray, alike: np.ndarray | None = None, rows: int = 4096
) -> Outcomes:
    """Outcomes of samples with one label each.

    scores: float [n, classes]; labels: int [n]; alike: from `first_alike`. A tie or NaN between
    different classes is a miss. Classes with the same texts are one answer: they tie by
    construction, which says nothing of the model, so the second "missile" is as right as the first.
    The reference evaluators take the first of the two (`official`).
    """
    n, classes = scores.shape
    alike = np.arange(classes) if alike is None else np.asarray(alike)
    order = np.argsort(alike, kind="stable")
    _, answer_of, copies = np.unique(alike, return_inverse=True, return_counts=True)
    starts = np.cumsum(copies) - copies
    predicted, first = np.empty(n, np.int64), np.empty(n, np.int64)
    ahead, entries = np.empty(n, np.int64), np.empty(n, np.int64)
    ties, whole = np.empty(n, bool), np.empty(n, bool)
    for begin in range(0, n, rows):
        part = slice(begin, begin + rows)
        score, label = scores[part], labels[part]
        whole[part] = ~np.isnan(score).any(axis=1)
        best = score.argmax(axis=1)
        first[part] = best
        predicted[part] = np.where(alike[best] == alike[label], label, best)
        if len(copies) < classes:  # an answer is as similar as the most similar of its classes
            score = np.maximum.reduceat(score[:, order], starts, axis=1)
        own = np.take_along_axis(score, answer_of[label][:, None], axis=1)
        reaches = score >= own
        ahead[part] = reaches.sum(axis=1) - 1
        entries[part] = reaches @ copies - 1
        ties[part] = whole[part] & (ahead[part] > 0) & ~(score > own).any(axis=1)
    several = classes > TOP
    return Outcomes(
        correct=whole & (ahead == 0),
        strict=whole & (entries == 0),
        official=whole & (first == labels),
        top5=whole & (ahead < TOP) if several else None,
        strict_top5=whole & (entries < TOP) if several else None,
        ties=ties,
        predicted=np.where(whole, predicted, -1),
    )


def per_class_recall(hits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """float [classes]: share of hits within each class, NaN where it has no sample."""
    total = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, weights=np.asarray(hits, float), minlength=classes) / total


def places(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [n]: how many classes stand before the right one, of equal scores the first in order: as
    clip_benchmark takes them (its `argmax`, and `topk` but for the order of equals). A NaN leaves
    the sample behind all of them.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None] < labels[:, None]
    ahead = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return np.where(np.isnan(scores).any(axis=1), scores.shape[1], ahead)


def shares(places: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """clip_benchmark's acc1, acc5 and mean_per_class_recall (zeroshot_classification.evaluate),
    0..1; the last is the mean over the classes that are there. places: from `places`.
    """
    recall = per_class_recall(places < 1, labels, int(labels.max()) + 1)
    return {
        "acc1": float((places < 1).mean()),
        "acc5": float((places < TOP).mean()),
        "mean_per_class_recall": float(np.nanmean(recall)),
    }


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """clip_benchmark's mean_average_precision, 0..1: the precision at each positive's place, meant
    over positives, then over all classes; one without a positive counts 0. truth: from `targets`.
    """
    found = []
    ranks = np.arange(1, len(scores) + 1)
    for k in range(scores.shape[1]):
        hit = truth[np.argsort(-scores[:, k], kind="stable"), k] == 1
        found.append((np.cumsum(hit) / ranks)[hit].sum() / max(hit.sum(), 1))
    return float(np.mean(found))


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """int [classes, classes]: how often each class (row) was taken for each (column), if any."""
    known = predicted >= 0
    cells = labels[known] * classes + predicted[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


# ---------------------------------------------------------------- ranking images: AUC and mAP


def margin(scores: np.ndarray) -> np.ndarray:
    """How much more the second of two classes is meant: it ranks as softmax(...)[:, 1] does.

    The second class's similarity alone does not: an image may be near to both texts.
    """
    return scores[:, 1].astype(float) - scores[:, 0]


def roc_auc(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray | float:
    """Area under the ROC curve, ties counting half. scores, positive: [n]; NaN ranks as a miss."""
    positive = np.asarray(positive, bool)
    scores = _worst_for_nan(scores, positive)
    order = np.argsort(scores, kind="stable")
    starts = _group_starts(scores[order])
    draws = np.ones(len(scores))[None] if weights is None else weights
    right = np.add.reduceat((draws * positive)[:, order], starts, axis=1, dtype=float)
    wrong = np.add.reduceat((draws * ~positive)[:, order], starts, axis=1, dtype=float)
    below = np.cumsum(wrong, axis=1) - wrong
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return _plain((right * (below + wrong / 2)).sum(axis=1) / pairs, weights)


def targets(labels: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """int8 [n, classes] from each image's labels: 1 shown, 0 not, -1 neither right nor wrong.

    A label ~c (that is -1 - c) says that class c is only there as VOC's "difficult".
    """
    table = np.zeros((len(labels), classes), np.int8)
    for row, shown in enumerate(labels):
        for label in shown:
            table[row, label if label >= 0 else ~label] = 1 if label >= 0 else -1
    return table


def probabilities(scores: np.ndarray) -> np.ndarray:
    """softmax(100 cos) over the classes: what ELEVATER ranks images by. [n, classes] both."""
    logits = SCALE * scores.astype(float)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def map11(
    ranked: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """(ELEVATER's, the VOC devkit's) 11-point mAP over the classes that have a positive.

    ranked: float [n, classes], such as `probabilities`; truth: from `targets`.
    """
    pairs = [ap11(ranked[:, c], truth[:, c], weights) for c in range(ranked.shape[1])]
    elevater, devkit = (np.stack([np.atleast_1d(pair[k]) for pair in pairs], 1) for k in (0, 1))
    return (
        _plain(_mean_of_defined(elevater), weights),
        _plain(_mean_of_defined(devkit), weights),
    )


def ap11(
    scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """(ELEVATER's, the VOC devkit's) 11-point average precision of a class; NaN without positives.

    Mean over recalls 1.0, 0.9 ... 0 of the best precision at that recall or beyond; equal scores
    enter together. ELEVATER inherits sklearn's end point (recall 0, precision 1), so its term at
    recall 0 is always 1; the devkit has no such point. Samples with truth -1 are left out.
    """
    draws = np.ones(len(scores))[None] if weights is None else np.asarray(weights)
    if not np.issubdtype(draws.dtype, np.floating):
        draws = draws.astype(float)
    kept = truth >= 0
    scores, positive = scores[kept], truth[kept] > 0
    draws = draws if kept.all() else draws[:, kept]
    if not positive.any():
        nothing = np.full(len(draws), np.nan)
        return _plain(nothing, weights), _plain(nothing, weights)
    scores = _worst_for_nan(scores, positive)
    order = np.argsort(-scores, kind="stable")
    # Only where a positive enters can precision be best; groups of equal scores enter whole.
    starts = _group_starts(scores[order])
    ends = np.r_[starts[1:], len(order)]
    holds = np.add.reduceat(positive[order], starts, dtype=int) > 0
    begins = np.r_[0, ends[holds][:-1]]  # each stretch ends with a group that holds a positive
    order = order[: ends[holds][-1]]
    drawn = draws[:, order]
    entering = np.flatnonzero(positive[order])  # positives, of which every stretch has some
    firsts = np.searchsorted(entering, begins)
    found = np.add.reduceat(drawn[:, entering], firsts, axis=1).cumsum(axis=1)
    seen = np.add.reduceat(drawn, begins, axis=1).cumsum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.where(seen > 0, found / seen, 0)
        recall = found / found[:, -1:]
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    rows = np.arange(len(best))
    terms = [best[rows, (recall < t).sum(axis=1)] for t in RECALLS]  # the last recall is 1
    devkit = np.stack(terms, axis=1)
    devkit[found[:, -1] == 0] = np.nan
    elevater = devkit.copy()
    elevater[:, -1] = 1.0  # where nothing was drawn the other ten terms, and the mean, stay NaN
    return _plain(elevater.mean(axis=1), weights), _plain(devkit.mean(axis=1), weights)


def _worst_for_nan(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """A NaN is a miss: below everything for a positive, above everything for a negative."""
    return np.where(np.isnan(scores), np.where(positive, -np.inf, np.inf), scores)


def _group_starts(ordered: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """[n] of [n, classes]: the mean over what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0).sum(axis=1) / defined.sum(axis=1)


def _plain(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray | float:
    return float(values[0]) if weights is None else values
