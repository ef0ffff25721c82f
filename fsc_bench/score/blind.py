"""Blind: what a matching benchmark gives away to scorers that never see a picture.

The ruler and the bigram (models/text_alone) are scored as `control:blind` is: the same vectors, the
same rule of ties, the same tree. The classifier learns from four fifths of a subset's pictures to
tell captions from foils, and answers the last fifth: what somebody could learn of the subset by
its texts alone. It is a measure of the data, no rival model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import sparse

from fsc_bench.errors import UsageError
from fsc_bench.models import text_alone
from fsc_bench.records import ImageRef, Record
from fsc_bench.score.clusters import grouped, marks_of_records, source_images
from fsc_bench.score.kinds import matching
from fsc_bench.score.matching import offer, outcomes
from fsc_bench.score.scoring import Grouping, Material, text_numbers
from fsc_bench.score.statistics import ROOT, scalar_leaves, tree_mean
from fsc_bench.task import Task

FOLDS = 5
FIGURES = ("ruler", "bigram", "ruler_strict", "bigram_strict", "classifier")


@dataclass(frozen=True)
class TextAlone:
    """Vectors of texts by a rule of text_alone; every picture has the same one."""

    rule: str

    def images(self, task: str, refs: Sequence[ImageRef]) -> np.ndarray:
        return np.tile(text_alone.PICTURE, (len(refs), 1))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return text_alone.vectors(self.rule, texts)

    def image_keys(self, task: str, refs: Sequence[ImageRef]) -> Sequence[ImageRef]:
        """Pictures are told apart by what they are called: none is opened."""
        return refs

    def source_keys(self, task: str, refs: Sequence[ImageRef]) -> list[bytes]:
        names = (f"{ref.source}:{ref.path}" for ref in refs)
        return [hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names]


def blind_facts(
    task: Task, records: Sequence[Record], classify: bool = True
) -> dict[str, dict[str, Any]]:
    """{node: {"n", "free", and of each of FIGURES percent or None}} for subsets and "headline".

    Of the first headline metric. A node below which a subset has no records is left out. Records
    with several pictures, and subsets of fewer than five, have no classifier. Raises UsageError for
    a task that matches nothing.
    """
    check_kind(task)
    rows = [row for row in records if row.scored]
    found: dict[str, dict[str, float]] = {}
    for rule in text_alone.RULES:
        vectors = TextAlone(rule)
        given = Material(task, rows, _grouping(task, rows, vectors), vectors)
        scores = matching.score(given)
        metric = task.headline[0]
        found[rule], counts = scalar_leaves(scores.measures[metric].leaves())
        found[f"{rule}_strict"], _ = scalar_leaves(scores.strict[metric].leaves())
    if classify:
        found["classifier"] = _classifier_by_subset(given)
    free = _free_by_subset(rows, scores.samples["free"])
    nodes = {name: tree_mean(task.subsets, of, counts, task.within) for name, of in found.items()}
    return {
        node: {
            "n": sum(int(counts[leaf]) for leaf in below),
            "free": sum(free.get(leaf, 0) for leaf in below),
            **{name: nodes.get(name, {}).get(node) for name in FIGURES},
        }
        for node, below in [*((leaf, [leaf]) for leaf in counts), (ROOT, list(counts))]
        if node in nodes["ruler"]
    }


def _grouping(task: Task, rows: Sequence[Record], vectors: TextAlone) -> Grouping:
    sources = source_images({task.name: marks_of_records(task.name, rows, vectors)})[task.name]
    return grouped(rows, sources)


def check_kind(task: Task) -> None:
    """Raises UsageError, one line, for a task that does not match pictures and texts."""
    if task.kind != "matching":
        raise UsageError(
            f"{task.name}: of kind {task.kind!r}; blind figures are of tasks of kind 'matching'."
        )


def _free_by_subset(rows: Sequence[Record], free: Sequence[bool]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row, is_free in zip(rows, free, strict=True):
        found[row.subset] = found.get(row.subset, 0) + bool(is_free)
    return found


# ---------------------------------------------------------------- the classifier


def _classifier_by_subset(given: Material) -> dict[str, float]:
    """Percent by subset, of the records that ask which text is right for one picture."""
    hits, asked = (np.zeros(len(given.rows), bool) for _ in range(2))
    for subset in dict.fromkeys(row.subset for row in given.rows):
        numbers = [
            number
            for number, row in enumerate(given.rows)
            if row.subset == subset and len(row.images) == 1
        ]
        groups = given.grouping.clusters[numbers]
        if len(set(groups)) >= FOLDS:
            asked[numbers] = True
            rows = [given.rows[number] for number in numbers]
            several = [row.right_texts for row in rows]
            hits[numbers] = classified([row.texts for row in rows], groups, several)
    if not asked.any():
        return {}
    return scalar_leaves(given.grouping.means(hits, asked).leaves())[0]


def classified(
    texts: Sequence[Sequence[str]], groups: np.ndarray, right_texts: Sequence[int] | None = None
) -> np.ndarray:
    """bool [records]: whether the right texts are told from the others by a classifier that learned
    from records of other groups, int [records]. right_texts: how many, from the first on, are right
    in each record; None for one in all.

    Logistic regression on the counts of words and of pairs of words and on the length, the right
    text's minus a wrong one's. An equal text is the right one again, a tie with another a miss, as
    everywhere.
    """
    from sklearn.model_selection import GroupKFold

    different = {text: number for number, text in enumerate(dict.fromkeys(_flat(texts)))}
    several = [1] * len(texts) if right_texts is None else right_texts
    features = _features(list(different))
    places = [np.array([different[text] for text in row]) for row in texts]
    hits = np.zeros(len(texts), bool)
    for learned, asked in GroupKFold(FOLDS).split(places, groups=groups):
        values = features @ _weights(features, [(places[n], several[n]) for n in learned])
        for number in asked:
            found = offer((0,), tuple(text_numbers(texts[number]).tolist()), several[number])
            alike = None if found.alike is None else found.alike[None]
            similarity = values[places[number]][None, None]
            hits[number] = bool(outcomes(similarity, found.right, alike).hits["text"][0])
    return hits


def _flat(texts: Sequence[Sequence[str]]) -> list[str]:
    return [text for row in texts for text in row]


def _features(texts: Sequence[str]) -> sparse.csr_matrix:
    """float [texts, features]: counts of tokens and of pairs of them, edges included, and how many
    characters there are.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    def grams(text: str) -> list[tuple[str, ...]]:
        parts = [text_alone.EDGE, *text_alone.tokens(text), text_alone.EDGE]
        return [*zip(parts), *pairwise(parts)]

    counts = CountVectorizer(analyzer=grams).fit_transform(texts)
    lengths = sparse.csr_matrix([[len(text)] for text in texts])
    return sparse.hstack([counts, lengths], "csr", float)


def _weights(features: sparse.csr_matrix, records: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """float [features]: what each speaks for, learned from a right text of each record against one
    of its others, each of them in turn. records: the places of its texts, and how many are right.
    """
    from sklearn.linear_model import LogisticRegression

    right = [row[number % several] for number, (row, several) in enumerate(records)]
    wrong = [
        row[several + number % (len(row) - several)]
        for number, (row, several) in enumerate(records)
    ]
    differences = features[right] - features[wrong]
    both_ways = sparse.vstack([differences, -differences])  # so that no place tells the answer
    answers = np.repeat([1, 0], len(right))
    model = LogisticRegression(fit_intercept=False, max_iter=1000).fit(both_ways, answers)
    return model.coef_[0]
