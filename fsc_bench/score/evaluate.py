"""READ FIRST. Evaluate: one task's records and one model's embeddings to one Result.

The way of the data, from a task file to a table:

    tasks/*.toml --reader--> records.parquet --plan--> unique images and texts
        --encode--> embedding store --score--> result.json + samples.parquet --> leaderboards/

    run.py        walks that way for every model and task, and is where a run continues
    data/         readers and prepare: raw files -> Record ("image i belongs with text i")
    plan.py       which images and texts are needed, each once
    encode.py     their vectors, into store.py
    evaluate.py   (here) similarity -> outcome per sample -> mean over the task's tree -> interval
    results.py    what is written; leaderboard.py the tables

A task's `kind` picks one of three scorings: matching, classification, retrieval. Each gives
outcomes per sample; the tree, the intervals and the audits are the same for all.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import Plan, choose_prompts, class_prompts
from fsc_bench.embed.store import Store
from fsc_bench.models import DualEncoder
from fsc_bench.records import ImageRef, Record
from fsc_bench.results import Result, Samples
from fsc_bench.score import classification, matching, retrieval
from fsc_bench.score.statistics import ROOT, Means, bootstrap, scalar_leaves, tree_mean
from fsc_bench.task import Task, walk


@dataclass(frozen=True)
class Embeddings:
    """Vectors by what they are vectors of. Where they come from is the store's business."""

    plan: Plan
    store: Store

    def images(self, task: str, refs: Sequence[ImageRef]) -> np.ndarray:
        return self.store.get("image", [self.plan.image_key[(task, ref)] for ref in refs])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.store.get("text", [self.plan.text_key[text] for text in texts])


@dataclass(frozen=True)
class Scores:
    """What a scoring gives: outcomes per sample and what to write of each sample.

    measures: metric -> object with `leaves(weights)` (statistics.py), the same with ties as hits in
    `lenient`; chance: subset -> metric -> percent.
    """

    measures: Mapping[str, Any]
    chance: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Any]
    ties: np.ndarray
    nan: np.ndarray
    lenient: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)


def evaluate(
    prepared: Prepared,
    embeddings: Embeddings,
    model: DualEncoder,
    prompts: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Result, Samples]:
    """Scores one task. Returns the result and what goes into its samples file."""
    task = prepared.task
    rows = [row for row in prepared.records if row.scored]
    names = sorted({row.cluster or row.id for row in rows})
    place = {name: number for number, name in enumerate(names)}
    clusters = np.fromiter((place[row.cluster or row.id] for row in rows), np.int64, len(rows))
    scoring = {"matching": _matching, "classification": _classification, "retrieval": _retrieval}
    scores = scoring[task.kind](task, rows, clusters, len(names), embeddings, prompts)
    table = bootstrap(scores.measures, task.subsets, task.within, len(names))
    flags = [prepared.partial] if prepared.partial else []
    result = Result(
        task=task.name,
        version=task.version,
        kind=task.kind,
        fingerprint=prepared.fingerprint,
        n=len(rows),
        expected=task.n,
        metrics=_with_n_and_chance(task, table, scores),
        headline=task.headline,
        ties=int(scores.ties.sum()),
        nan=int(scores.nan.sum()),
        audits=audit(task, rows, model, prepared),
        official=_official(task, scores),
        flags=tuple(flags),
        settings={**(settings or {}), **_prompt_setting(task, prompts)},
    )
    return result, Samples(scores.samples, scores.summary)


def _prompt_setting(task: Task, prompts: str | None) -> dict[str, str]:
    return {"prompts": choose_prompts(task, prompts)} if task.kind == "classification" else {}


# ---------------------------------------------------------------- matching


def _matching(task, rows, clusters, cluster_count, embeddings, prompts) -> Scores:
    n = len(rows)
    by_shape: dict[tuple[int, int], list[int]] = {}
    for number, row in enumerate(rows):
        by_shape.setdefault((len(row.images), len(row.texts)), []).append(number)
    hits: dict[str, np.ndarray] = {}
    lenient: dict[str, np.ndarray] = {}
    ties, nan = np.zeros(n, bool), np.zeros(n, bool)
    similarities: list[Any] = [None] * n
    defined: dict[str, np.ndarray] = {}
    for (images, texts), numbers in by_shape.items():
        for start in range(0, len(numbers), 4096):
            part = np.array(numbers[start : start + 4096])
            similarity = _similarity(task, [rows[i] for i in part], images, texts, embeddings)
            found = matching.outcomes(similarity)
            for name, values in found.hits.items():
                hits.setdefault(name, np.zeros(n, bool))[part] = values
                lenient.setdefault(name, np.zeros(n, bool))[part] = found.lenient[name]
                defined.setdefault(name, np.zeros(n, bool))[part] = True
            ties[part] = found.ties
            nan[part] = np.isnan(similarity).any(axis=(1, 2))
            for number, values in zip(part, similarity.reshape(len(part), -1), strict=True):
                similarities[number] = values
    wanted = [name for name in hits if name != "accuracy" or "accuracy" in task.headline]
    subsets = np.array([row.subset for row in rows], object)
    strata = np.array([row.stratum for row in rows], object)

    def means(table: Mapping[str, np.ndarray], name: str) -> Means:
        keep = defined[name]
        return Means(table[name][keep], subsets[keep], strata[keep], clusters[keep], cluster_count)

    samples = {
        **_sample_columns(rows),
        "scores": similarities,  # [images x texts] row by row; image i belongs with text i
        "images": [len(row.images) for row in rows],
        "texts": [len(row.texts) for row in rows],
        **{f"correct_{name}": hits[name] for name in wanted},
        "tie": ties,
    }
    return Scores(
        measures={name: means(hits, name) for name in wanted},
        lenient={name: means(lenient, name) for name in wanted},
        chance=_matching_chance(rows),
        samples=samples,
        ties=ties,
        nan=nan,
    )


def _similarity(task, rows, images: int, texts: int, embeddings) -> np.ndarray:
    """float32 [n, images, texts]. Summed along one axis, not by BLAS, whose last bit depends
    on a column's place: equal texts must tie exactly.
    """
    n = len(rows)
    v = embeddings.images(task.name, [ref for row in rows for ref in row.images])
    t = embeddings.texts([text for row in rows for text in row.texts])
    v, t = v.reshape(n, images, 1, -1), t.reshape(n, 1, texts, -1)
    result = np.empty((n, images, texts), np.float32)
    for i in range(images):
        for k in range(texts):
            result[:, i, k] = (v[:, i, 0] * t[:, 0, k]).sum(axis=-1)
    return result


def _matching_chance(rows: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Mean over the samples of a subset of each shape's chance."""
    shapes: dict[str, Counter] = {}
    for row in rows:
        shapes.setdefault(row.subset, Counter())[(len(row.images), len(row.texts))] += 1
    result: dict[str, dict[str, float]] = {}
    for subset, counter in shapes.items():
        total: dict[str, float] = {}
        for shape, count in counter.items():
            for metric, percent in matching.chance(*shape).items():
                total[metric] = total.get(metric, 0.0) + percent * count
        n = sum(counter.values())
        result[subset] = {metric: value / n for metric, value in total.items()}
    return result


# ---------------------------------------------------------------- classification


@dataclass(frozen=True)
class Weighted:
    """A measure that is no mean (AUC, mAP): computed anew for the samples' weights."""

    compute: Any  # sample weights int [replicates, n] -> percent [replicates]
    clusters: np.ndarray
    subset: str

    def leaves(self, weights: np.ndarray | None = None) -> tuple[dict, dict]:
        one = np.ones((1, len(self.clusters)))
        drawn = one if weights is None else np.ascontiguousarray(weights)[:, self.clusters]
        return {self.subset: self.compute(drawn)}, {self.subset: drawn.sum(axis=1)}


def _classification(task, rows, clusters, cluster_count, embeddings, prompts) -> Scores:
    (subset,) = task.leaves
    multilabel = bool({"map11", "map11_devkit"} & set(task.headline))
    chosen = choose_prompts(task, prompts)
    weights = class_weights(task, chosen, embeddings)
    samples = {**_sample_columns(rows), "labels": [list(row.labels) for row in rows]}
    if multilabel:
        return _multilabel(task, rows, clusters, embeddings, weights, samples)
    alike = classification.first_alike([tuple(texts) for texts in class_prompts(task, chosen)])
    labels = np.array([row.labels[0] for row in rows], np.int64)
    n, classes = len(rows), len(task.classes)
    binary = np.empty((n, 2), np.float32) if classes == 2 else None
    parts = []
    shown = []
    for start, scores in _class_scores(task, rows, embeddings, weights):
        part = labels[start : start + len(scores)]
        parts.append(classification.outcomes(scores, part, alike))
        shown.append(_best_scores(scores, part))
        if binary is not None:
            binary[start : start + len(scores)] = scores
    correct, official, ties, predicted = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("correct", "official", "ties", "predicted")
    )
    same = ([subset] * n, [""] * n, clusters, cluster_count)
    each = ([subset] * n, [str(label) for label in labels], clusters, cluster_count)
    measures: dict[str, Any] = {
        "accuracy": Means(correct, *same),
        "mean_per_class": Means(correct, *each),
    }
    lenient = {"accuracy": Means(official, *same), "mean_per_class": Means(official, *each)}
    chance = dict.fromkeys(measures, 100 / classes)
    if classes > classification.TOP:
        measures["top5"] = Means(np.concatenate([part.top5 for part in parts]), *same)
        chance["top5"] = 100 * classification.TOP / classes
    if binary is not None:
        margin, positive = classification.margin(binary), labels == 1
        measures["roc_auc"] = Weighted(
            lambda drawn: 100 * classification.roc_auc(margin, positive, drawn), clusters, subset
        )
        chance["roc_auc"] = 50.0
        samples["scores"] = list(binary)
    samples["prediction"] = predicted
    samples["score_label"], samples["score_best_other"] = np.concatenate(shown).T
    samples["correct"] = correct
    samples["tie"] = ties
    nan = predicted < 0
    counts = classification.confusion(predicted, labels, classes)
    taken = np.argwhere(counts)
    summary = {
        "classes": task.classes,
        "n": np.bincount(labels, minlength=classes).tolist(),
        "recall": (100 * classification.per_class_recall(correct, labels, classes)).tolist(),
        # [class, taken for, how often], where it happened at all
        "confusion": np.column_stack([taken, counts[counts > 0]]).tolist(),
    }
    return Scores(measures, {subset: chance}, samples, ties, nan, lenient, summary)


def _multilabel(task, rows, clusters, embeddings, weights, samples) -> Scores:
    """11-point mAP on softmax(100 cos), which ranks images, not classes."""
    (subset,) = task.leaves
    scores = np.concatenate([part for _, part in _class_scores(task, rows, embeddings, weights)])
    truth = classification.targets([row.labels for row in rows], len(task.classes))
    ranked = classification.probabilities(scores)
    curves = _Once(lambda drawn: classification.map11(ranked, truth, drawn))
    measures = {
        name: Weighted(lambda drawn, k=k: 100 * curves(drawn)[k], clusters, subset)
        for k, name in enumerate(("map11", "map11_devkit"))
    }
    samples["scores"] = list(scores)
    samples["prediction"] = np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
    samples["tie"] = np.zeros(len(rows), bool)
    chance = dict.fromkeys(measures, task.chance[task.headline[0]])
    nan = np.isnan(scores).any(axis=1)
    return Scores(measures, {subset: chance}, samples, np.zeros(len(rows), bool), nan)


class _Once:
    """Remembers the last answer: both mAPs come out of one pass over the same draws."""

    def __init__(self, compute: Callable[[np.ndarray], Any]):
        self.compute = compute
        self.last: tuple[np.ndarray, Any] | None = None

    def __call__(self, drawn: np.ndarray) -> Any:
        if self.last is None or not np.array_equal(self.last[0], drawn):
            self.last = (drawn, self.compute(drawn))
        return self.last[1]


def _class_scores(task, rows, embeddings, weights) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, cosines [rows, classes]) in blocks. Classes of equal vectors ("missile" twice in
    ImageNet) are multiplied once, so that they tie exactly.
    """
    columns, column_of = retrieval.unique_rows(weights)
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        vectors = embeddings.images(task.name, [row.images[0] for row in part])
        yield start, (vectors @ columns.T)[:, column_of]


def _best_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n, 2]: the right class's cosine and the best of the others'."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    others = scores.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return np.concatenate([own, others.max(axis=1, keepdims=True)], axis=1)


def class_weights(task: Task, prompts: str, embeddings: Embeddings) -> np.ndarray:
    """Unit class vectors [classes, d]: the normalised mean of each class's prompt embeddings.

    ELEVATER, evaluation/feature.py::extract_text_features; CLIP, section 3.1.4.
    """
    rows = []
    for texts in class_prompts(task, prompts):
        mean = embeddings.texts(texts).mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows).astype(np.float32)


# ---------------------------------------------------------------- retrieval


def _retrieval(task, rows, clusters, cluster_count, embeddings, prompts) -> Scores:
    (subset,) = task.leaves
    images = embeddings.images(task.name, [row.images[0] for row in rows])
    texts = [text for row in rows for text in row.texts]
    owner = np.repeat(np.arange(len(rows)), [len(row.texts) for row in rows])
    ranks = retrieval.ranks(images, embeddings.texts(texts), owner)
    measures: dict[str, Any] = {}
    lenient: dict[str, Any] = {}
    right = np.bincount(owner, minlength=len(rows))
    chance = {}
    for direction, strict, loose, groups in (
        ("i2t", ranks.i2t_strict, ranks.i2t_lenient, clusters),
        ("t2i", ranks.t2i_strict, ranks.t2i_lenient, clusters[owner]),
    ):
        n = len(strict)
        for k in retrieval.K:
            name = f"{direction}_r{k}"
            fixed = ([subset] * n, [""] * n, groups, cluster_count)
            measures[name] = Means(strict < k, *fixed)
            lenient[name] = Means(loose < k, *fixed)
            if direction == "i2t":
                chance[name] = retrieval.chance(right, len(texts), k)
            else:
                chance[name] = retrieval.chance(np.ones(1, int), len(rows), k)
    ties = ranks.i2t_strict != ranks.i2t_lenient
    text_ties = ranks.t2i_strict != ranks.t2i_lenient
    splits = np.cumsum(right)[:-1]
    samples = {
        **_sample_columns(rows),
        "i2t_rank": ranks.i2t_strict + 1,
        "t2i_rank": np.split(ranks.t2i_strict + 1, splits),
        "correct": ranks.i2t_strict < 1,
        "tie": ties,
    }
    nan = np.isnan(images).any(axis=1)
    all_ties = np.concatenate([ties, text_ties])
    return Scores(measures, {subset: chance}, samples, all_ties, nan, lenient)


# ---------------------------------------------------------------- what all kinds share


def _sample_columns(rows: Sequence[Record]) -> dict[str, Any]:
    return {
        "id": [row.id for row in rows],
        "subset": [row.subset for row in rows],
        "cluster": [row.cluster or row.id for row in rows],
        "stratum": [row.stratum for row in rows],
    }


def _with_n_and_chance(task: Task, table: Mapping, scores: Scores) -> dict[str, Any]:
    """Every number with its interval, its n and its chance level, for every node."""

    counts: dict[str, dict[str, float]] = {}
    chances: dict[str, dict[str, float]] = {}
    for metric, measure in scores.measures.items():
        _, totals = measure.leaves()
        leaf_counts = {leaf: float(np.ravel(total)[0]) for leaf, total in totals.items()}
        leaf_chance = {
            leaf: scores.chance[leaf][metric]
            for leaf in leaf_counts
            if metric in scores.chance.get(leaf, {})
        }
        chances[metric] = tree_mean(task.subsets, leaf_chance, leaf_counts, task.within)
        counts[metric] = {
            node: sum(leaf_counts.get(leaf, 0) for leaf in leaves)
            for node, leaves in _leaves_below(task).items()
        }
    return {
        node: {
            metric: {
                "value": value,
                "ci": [low, high],
                "n": int(counts[metric][node]),
                "chance": chances[metric].get(node),
            }
            for metric, (value, low, high) in metrics.items()
        }
        for node, metrics in table.items()
    }


def _leaves_below(task: Task) -> dict[str, list[str]]:
    """Leaves under every node, and under "headline"."""
    found = {ROOT: list(task.leaves)}
    for name, node in walk(task.subsets):
        is_table = isinstance(node, Mapping)
        below = (
            [leaf for leaf, part in walk(node) if not isinstance(part, Mapping)] if is_table else []
        )
        found[name] = below or [name]
    return found


def _official(task: Task, scores: Scores) -> dict[str, Any]:
    """The headline as the official scorer would give it, where that one counts a tie as a hit."""

    if not task.official_ties or not scores.lenient:
        return {}
    listed = set(task.official_ties.get("subsets", task.leaves))
    values = {}
    for metric in task.headline:
        strict, counts = scalar_leaves(scores.measures[metric].leaves())
        loose, _ = scalar_leaves(scores.lenient[metric].leaves())
        mixed = {leaf: (loose if leaf in listed else strict)[leaf] for leaf in strict}
        tree = tree_mean(task.subsets, mixed, counts, task.within)
        if ROOT in tree:
            values[metric] = tree[ROOT]
    return {"source": task.official_ties.get("source", ""), "headline": values}


def audit(
    task: Task, rows: Sequence[Record], model: DualEncoder, prepared: Prepared
) -> dict[str, Any]:
    """What makes samples unfair or unwinnable, counted: texts cut at the context, right answers
    that equal a distractor as strings or once cut, and images that are missing.
    """
    found: dict[str, Any] = {"missing_images": len(prepared.missing_images)}
    if prepared.missing_images:
        found["missing"] = list(prepared.missing_images)
    if prepared.notes:
        found["notes"] = list(prepared.notes)
    if task.kind == "classification":
        return found
    found["duplicate_texts"] = sum(len(set(row.texts)) < len(row.texts) for row in rows)
    if not hasattr(model, "tokenize"):
        return found
    texts = list(dict.fromkeys(text for row in rows for text in row.texts))
    tokens: dict[str, bytes] = {}
    cut: set[str] = set()
    for start in range(0, len(texts), 4096):
        part = texts[start : start + 4096]
        ids, truncated = model.tokenize(part)
        tokens.update(zip(part, (row.tobytes() for row in np.asarray(ids)), strict=True))
        cut.update(text for text, flag in zip(part, truncated, strict=True) if flag)
    found["truncated_texts"] = len(cut)
    if task.kind == "matching":
        found["equal_after_tokenizing"] = sum(
            len({tokens[text] for text in row.texts}) < len(row.texts) for row in rows
        )
    return found
