"""Classification: an image among class vectors, made of each class's prompts; by a model that
scores pairs, among one prompt a class.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fsc_bench.embed.plan import Wanted, choose_prompts, class_prompts, single_prompts
from fsc_bench.records import Record, folded
from fsc_bench.score import classification
from fsc_bench.score.retrieval import unique_rows
from fsc_bench.score.scoring import Grouping, Material, Scores, Told, Vectors
from fsc_bench.score.statistics import Measure, Support, Values
from fsc_bench.task import Task

BLOCK = 4096  # images at once
PAIRS_AT_ONCE = 1 << 20  # where a model scores pairs
REPLICATES_AT_ONCE = 160  # of metrics that are computed anew for every draw


def score(given: Material) -> Scores:
    task, rows = given.task, given.rows
    if {"map11", "map11_devkit"} & set(task.headline):
        return _multilabel(given)
    chosen = choose_prompts(task, given.prompts)
    alike = _alike(task, chosen, single=given.pairs is not None)
    labels = np.array([row.labels[0] for row in rows], np.int64)
    found, shown, scores, places = _outcomes(given, chosen, labels, alike)
    classes, answers = len(task.classes), len(np.unique(alike))
    (subset,) = task.leaves
    measures = _shares(given.grouping, labels, found.correct, found.top5)
    strict = _shares(given.grouping, labels, found.strict, found.strict_top5)
    official = _shares(given.grouping, labels, found.official)
    chance = dict.fromkeys(official, 100 / answers)
    if found.top5 is not None:
        chance["top5"] = 100 * min(classification.TOP / answers, 1)
    samples = _answers(task, chosen, rows, found.predicted)
    if classes == 2:
        measures["roc_auc"] = _auc(given.grouping, scores, labels)
        chance["roc_auc"] = 50.0
        samples["scores"] = list(scores)
    samples["score_label"], samples["score_best_other"] = shown.T
    samples["correct"] = found.correct
    if found.top5 is not None:
        samples["correct_top5"] = found.top5
    samples["tie"] = found.ties
    return Scores(
        measures=measures,
        strict=strict,
        official=official,
        chance={metric: {subset: percent} for metric, percent in chance.items()},
        samples=samples,
        ties=int(found.ties.sum()),
        nan=found.predicted < 0,
        audits={"equal_classes": int((np.bincount(alike)[alike] > 1).sum())},
        summary=_summary(task, found, labels),
        theirs=_named(task, classification.shares(places, labels)),
    )


def _named(task: Task, found: Mapping[str, float]) -> dict[str, float]:
    """The metrics of another program that a task names, in percent."""
    return {name: 100 * found[name] for name in task.official_ties.get("metrics", ())}


def _shares(
    grouping: Grouping,
    labels: np.ndarray,
    hits: np.ndarray,
    top5: np.ndarray | None = None,
    asks: Callable[[str], bool] = lambda metric: True,
) -> dict[str, Measure]:
    """Accuracy, mean per class and, where there is one, top 5: the metrics that are means."""
    found: dict[str, Measure] = {}
    whole = [""] * len(labels)
    if asks("accuracy"):
        found["accuracy"] = grouping.means(hits, strata=whole)
    if asks("mean_per_class"):
        found["mean_per_class"] = grouping.means(hits, strata=[str(label) for label in labels])
    if top5 is not None and asks("top5"):
        found["top5"] = grouping.means(top5, strata=whole)
    return found


def _auc(grouping: Grouping, scores: np.ndarray, labels: np.ndarray) -> "Weighted":
    """ROC-AUC of the second of two classes; scores: [n, 2]."""
    margin, positive = classification.margin(scores), labels == 1
    return Weighted(
        lambda drawn: 100 * classification.roc_auc(margin, positive, drawn),
        grouping.clusters,
        grouping.subsets[0],
    )


def _average_precision(
    grouping: Grouping,
    scores: np.ndarray,
    labels: Sequence[Sequence[int]],
    cosines: bool = True,
) -> dict[str, Measure]:
    """Both 11-point mAPs; scores: [n, classes]; labels: as in records, several an image. Cosines
    become shares of an image's classes first; a pair's score says already how well it fits.
    """
    truth = classification.targets(labels, scores.shape[1])
    ranked = classification.probabilities(scores) if cosines else scores
    curves = _Once(lambda drawn: classification.map11(ranked, truth, drawn))
    return {
        name: Weighted(
            lambda drawn, k=k: 100 * curves(drawn)[k],
            grouping.clusters,
            grouping.subsets[0],
            np.float32,  # sums of at most some thousands
        )
        for k, name in enumerate(("map11", "map11_devkit"))
    }


def measures(told: Told) -> dict[str, Measure]:
    columns, grouping = told.columns, told.grouping
    if "correct" not in columns:
        cosines = "scores" in columns
        scores = np.stack(columns["scores" if cosines else "pair_scores"])
        labels = [list(part) for part in columns["labels"]]
        return _average_precision(grouping, scores, labels, cosines)
    labels = columns.flat("labels")
    top5 = columns.get("correct_top5")
    found = _shares(grouping, labels, columns["correct"], top5, told.asks)
    if "scores" in columns and told.asks("roc_auc"):
        found["roc_auc"] = _auc(grouping, np.stack(columns["scores"]), labels)
    return found


def hits(told: Told, metric: str) -> np.ndarray:
    """The right class is the best; of several labels each is above all that are absent."""
    if "correct" in told.columns:
        return told.columns["correct"].astype(bool)
    return margins(told, metric) > 0


def margins(told: Told, metric: str) -> np.ndarray:
    """The right class's score less the best different one's; for images with several labels, the
    least of theirs less the best of the others.
    """
    columns = told.columns
    if "correct" in columns:
        return columns["score_label"].astype(float) - columns["score_best_other"]
    name = "scores" if "scores" in columns else "pair_scores"
    scores = np.stack(columns[name]).astype(float)
    truth = classification.targets([list(part) for part in columns["labels"]], scores.shape[1])
    own = np.where(truth == 1, scores, np.inf).min(axis=1)
    return own - np.where(truth == 0, scores, -np.inf).max(axis=1)


def _answers(
    task: Task, prompts: str | None, rows: Sequence[Record], predicted: np.ndarray
) -> dict[str, Any]:
    """Columns of the samples file: the labels and what was predicted, as numbers and by name."""
    names = task.class_names(choose_prompts(task, prompts))
    labels = [list(row.labels) for row in rows]
    return {
        "labels": labels,
        # ~c marks a class that counts neither as shown nor as absent.
        "label_names": [[names[label] for label in part if label >= 0] for part in labels],
        "prediction": predicted,
        "prediction_name": [names[label] if label >= 0 else "" for label in predicted.tolist()],
    }


def _alike(task: Task, prompts: str, single: bool = False) -> np.ndarray:
    """int [classes]: the first class with the same prompts; single: one a class is used."""
    if single:
        return classification.first_alike(list(map(folded, single_prompts(task, prompts))))
    return classification.first_alike(
        [tuple(map(folded, texts)) for texts in class_prompts(task, prompts)]
    )


def _outcomes(
    given: Material, prompts: str, labels: np.ndarray, alike: np.ndarray
) -> tuple[classification.Outcomes, np.ndarray, np.ndarray | None, np.ndarray]:
    """(outcomes, [n, 2] the right class's score and the best different one's, [n, 2] the scores
    of both classes where there are two, [n] how many classes stand before the right one).
    """
    parts, shown, scores, places = [], [], [], []
    for start, block in _class_scores(given, prompts):
        part = labels[start : start + len(block)]
        parts.append(classification.outcomes(block, part, alike))
        shown.append(_best_scores(block, part, alike))
        places.append(classification.places(block, part))
        if block.shape[1] == 2:
            scores.append(block)
    joined = {
        name: None if first is None else np.concatenate([getattr(part, name) for part in parts])
        for name, first in vars(parts[0]).items()
    }
    both = np.concatenate(scores) if scores else None
    return (
        classification.Outcomes(**joined),
        np.concatenate(shown),
        both,
        np.concatenate(places),
    )


def _best_scores(scores: np.ndarray, labels: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """[n, 2]: the right class's score and the best of the different ones'."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    same = alike[labels][:, None] == alike[None, :]
    others = np.where(same, -np.inf, scores).max(axis=1, keepdims=True)
    return np.concatenate([own, others], axis=1, dtype=np.float32)


def _summary(task: Task, found: classification.Outcomes, labels: np.ndarray) -> dict[str, Any]:
    """What lies beside the samples: each class's recall, and what it was taken for."""
    classes = len(task.classes)
    counts = classification.confusion(found.predicted, labels, classes)
    recall = classification.per_class_recall(found.correct, labels, classes)
    return {
        "classes": task.classes,
        "n": np.bincount(labels, minlength=classes).tolist(),
        "recall": (100 * recall).tolist(),
        # [class, taken for, how often], where it happened at all
        "confusion": np.column_stack([np.argwhere(counts), counts[counts > 0]]).tolist(),
    }


def _multilabel(given: Material) -> Scores:
    """11-point mAP on softmax(100 cos), or on scores of pairs: it ranks images, not classes."""
    task, rows = given.task, given.rows
    (subset,) = task.leaves
    blocks = _class_scores(given, choose_prompts(task, given.prompts))
    scores = np.concatenate([block for _, block in blocks])
    measures = _average_precision(
        given.grouping, scores, [row.labels for row in rows], given.pairs is None
    )  # fmt: skip
    nan = np.isnan(scores).any(axis=1)
    samples = {
        **_answers(task, given.prompts, rows, np.where(nan, -1, scores.argmax(axis=1))),
        "scores" if given.pairs is None else "pair_scores": list(scores),
        "tie": np.zeros(len(rows), bool),
    }
    known = task.chance[task.headline[0]]  # for the one that the task file may not name
    chance = {metric: {subset: task.chance.get(metric, known)} for metric in measures}
    truth = classification.targets([row.labels for row in rows], scores.shape[1])
    mean = {"mean_average_precision": classification.mean_average_precision(scores, truth)}
    theirs = _named(task, mean)
    return Scores(measures, chance, samples, ties=0, nan=nan, theirs=theirs)


class Weighted:
    """A measure that is no mean (AUC, mAP): computed anew for the samples' weights."""

    def __init__(
        self,
        compute: Callable[[np.ndarray], np.ndarray],
        clusters: np.ndarray,
        subset: str,
        exact: type = np.float64,
    ):
        """compute: sample weights [replicates, n] -> percent [replicates]. exact: a type of number
        in which the counts that it needs are exact.
        """
        self.compute, self.exact = compute, exact
        self.clusters = clusters
        self.subset = subset

    def leaves(
        self, weights: np.ndarray | None = None
    ) -> tuple[dict[str, Values], dict[str, Values]]:
        if weights is None:
            one = np.ones(len(self.clusters))[None]
            return {self.subset: self.compute(one)}, {self.subset: one.sum(axis=1)}
        values, totals = [], []
        for row in range(0, len(weights), REPLICATES_AT_ONCE):  # in the processor's cache
            some = np.ascontiguousarray(weights[row : row + REPLICATES_AT_ONCE], self.exact)
            drawn = some[:, self.clusters]
            values.append(self.compute(drawn))
            totals.append(drawn.sum(axis=1))
        return {self.subset: np.concatenate(values)}, {self.subset: np.concatenate(totals)}

    def support(self) -> dict[str, Support]:
        return {self.subset: Support(float(len(np.unique(self.clusters))), False)}


class _Once:
    """Remembers the last answer: both mAPs come out of one pass over the same draws."""

    def __init__(self, compute: Callable[[np.ndarray], Any]):
        self.compute = compute
        self.last: tuple[np.ndarray, Any] | None = None

    def __call__(self, drawn: np.ndarray) -> Any:
        if self.last is None or not np.array_equal(self.last[0], drawn):
            self.last = (drawn, self.compute(drawn))
        return self.last[1]


def _class_scores(given: Material, prompts: str) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, cosines [rows, classes]) in blocks. Classes of equal vectors ("missile" twice in
    ImageNet) are multiplied once, so that they tie exactly.
    """
    if given.pairs is not None:
        for start, wanted in _blocks_of_pairs(given, prompts):
            scores = given.pairs.scores(given.task.name, wanted)
            yield start, scores.reshape(len(wanted.refs), len(wanted.texts))
        return
    columns, column_of = unique_rows(class_weights(given.task, prompts, given.vectors))
    for start in range(0, len(given.rows), BLOCK):
        part = given.rows[start : start + BLOCK]
        vectors = given.images([row.images[0] for row in part])
        yield start, (vectors @ columns.T)[:, column_of]


def pairs(given: Material) -> Iterator[Wanted]:
    """Every picture with one prompt of every class."""
    for _, wanted in _blocks_of_pairs(given, choose_prompts(given.task, given.prompts)):
        yield wanted


def _blocks_of_pairs(given: Material, prompts: str) -> Iterator[tuple[int, Wanted]]:
    """(first row, pairs [rows, classes] one after the other) in blocks."""
    texts = single_prompts(given.task, prompts)
    at_once = max(1, PAIRS_AT_ONCE // len(texts))
    for start in range(0, len(given.rows), at_once):
        refs = [row.images[0] for row in given.rows[start : start + at_once]]
        image, text = np.indices((len(refs), len(texts))).reshape(2, -1)
        yield start, Wanted(refs, texts, image, text)


def class_weights(task: Task, prompts: str, vectors: Vectors) -> np.ndarray:
    """Unit class vectors [classes, d]: the normalised mean of each class's prompt embeddings.

    ELEVATER, evaluation/feature.py::extract_text_features; CLIP, section 3.1.4. NaN for prompts
    that point away from one another so that nothing is left.
    """
    rows = []
    for texts in class_prompts(task, prompts):
        mean = vectors.texts(texts).mean(axis=0)
        with np.errstate(invalid="ignore"):
            rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows).astype(np.float32)
