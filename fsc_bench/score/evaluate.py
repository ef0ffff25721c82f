"""READ FIRST. Evaluate: one task's records and one model's embeddings to one Result.

The way of the data, from a task file to a table:

    tasks/*.toml --reader--> records.parquet --plan--> unique images and texts
        --encode--> embedding store --score--> result.json + samples.parquet --> leaderboards/

    run/suite.py         walks that way for every model and task, and is where a run continues
    data/                readers and prepare: raw files -> Record ("image i belongs with text i")
    embed/plan.py        which images and texts are needed, each once
    embed/encode.py      their vectors, into embed/store.py; embed/pairs.py: scores of pairs instead
    score/evaluate.py    (here) similarity -> outcome per sample -> mean over the task's tree
    score/kinds/         the three scorings, one of which a task's `kind` picks: matching,
                         classification, retrieval; what they are given and give is in scoring.py
    score/*.py           the arithmetic, which knows nothing of ours: matching.py,
                         classification.py, retrieval.py, and the tree and intervals, statistics.py
    results.py           what is written; report/ makes tables of it

One rule of ties holds for all kinds: the right answer must beat every different answer. An option
equal to it (the same text once folded, the same bytes and crop of a picture) is the right answer
again; a tie or NaN between different answers is a miss. The strict number, for which any tie is a
miss, stands beside it where it differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import Plan, Wanted, choose_prompts, single_template
from fsc_bench.embed.store import Store
from fsc_bench.model import DualEncoder, PairScorer, extras_of
from fsc_bench.records import ImageRef, Record, shown_as
from fsc_bench.results import Cell, Result, Samples, task_facts
from fsc_bench.score.clusters import grouped, marks_of_records, source_images
from fsc_bench.score.kinds import classification, matching, retrieval
from fsc_bench.score.scoring import Kind, Material, Pairs, Scores, Vectors
from fsc_bench.score.statistics import (
    ROOT,
    Estimate,
    Measure,
    draws,
    estimates,
    leaves_below,
    scalar_leaves,
    tree_mean,
)
from fsc_bench.task import Task

KINDS: dict[str, Kind] = {
    "matching": matching,
    "classification": classification,
    "retrieval": retrieval,
}


@dataclass(frozen=True)
class Embeddings:
    """Vectors by what they are vectors of. Where they come from is the store's business."""

    plan: Plan
    store: Store

    def images(self, task: str, refs: Sequence[ImageRef]) -> np.ndarray:
        return self.store.get("image", self.image_keys(task, refs))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.store.get("text", [self.plan.text_key[text] for text in texts])

    def image_keys(self, task: str, refs: Sequence[ImageRef]) -> list[bytes]:
        return [self.plan.image_key[(task, ref)] for ref in refs]

    def source_keys(self, task: str, refs: Sequence[ImageRef]) -> list[bytes]:
        whole, shown = self.plan.whole_key, self.plan.image_key
        return [whole.get((task, ref)) or shown[(task, ref)] for ref in refs]


def evaluate(
    prepared: Prepared,
    embeddings: Vectors,
    model: DualEncoder | PairScorer,
    prompts: str | None = None,
    settings: Mapping[str, Any] | None = None,
    pairs: Pairs | None = None,
) -> tuple[Result, Samples]:
    """Scores one task. Returns the result and what goes into its samples file. pairs: of a model
    that scores them; embeddings are then those of its first stage.
    """
    task = prepared.task
    rows = [row for row in prepared.records if row.scored]
    marks = marks_of_records(task.name, rows, embeddings)
    sources = source_images({task.name: marks})[task.name]
    scores = KINDS[task.kind].score(
        Material(task, rows, grouped(rows, sources), embeddings, prompts, pairs)
    )
    drawn = draws(scores.measures, task.subsets, task.within, sources.keys)
    table = estimates(scores.measures, task.subsets, task.within, drawn)
    result = Result(
        task=task.name,
        version=task.version,
        kind=task.kind,
        fingerprint=prepared.fingerprint,
        n=len(rows),
        expected=task.n,
        metrics=_cells(task, table, scores),
        headline=task.headline,
        ties=scores.ties,
        nan=int(scores.nan.sum()),
        audits={**audit(task, rows, model, prepared), **scores.audits},
        official=_official(task, scores),
        blindness=scores.blindness,
        flags=_flags(prepared, scores),
        settings={**(settings or {}), **_prompt_setting(task, prompts, pairs)},
        facts=task_facts(task),
    )
    columns = {
        "id": [row.id for row in rows],
        "subset": [row.subset for row in rows],
        "cluster": [row.cluster for row in rows],
        "stratum": [row.stratum for row in rows],
        "source": [f"{mark:016x}" if mark else "" for mark in marks.pictures.tolist()],
        "images": [[shown_as(ref) for ref in row.images] for row in rows],
        "texts": [list(row.texts) for row in rows],
        **scores.samples,
    }
    headline = {
        metric: drawn[metric][ROOT] for metric in task.headline if ROOT in drawn.get(metric, {})
    }
    return result, Samples(columns, scores.summary, headline)


def wanted_pairs(
    prepared: Prepared, embeddings: Vectors, pairs: Pairs, prompts: str | None = None
) -> Iterator[Wanted]:
    """The pairs that `evaluate` asks for, in blocks."""
    task = prepared.task
    rows = [row for row in prepared.records if row.scored]
    sources = source_images({task.name: marks_of_records(task.name, rows, embeddings)})[task.name]
    return KINDS[task.kind].pairs(
        Material(task, rows, grouped(rows, sources), embeddings, prompts, pairs)
    )


def _prompt_setting(task: Task, prompts: str | None, pairs: Pairs | None) -> dict[str, str]:
    if task.kind != "classification":
        return {}
    chosen = choose_prompts(task, prompts)
    one = {"template": single_template(task, chosen)} if pairs is not None else {}
    return {"prompts": chosen, **one}


def _flags(prepared: Prepared, scores: Scores) -> tuple[str, ...]:
    """Everything a reader of the number must know: with a flag it enters no average."""
    flags = [prepared.partial] if prepared.partial else []
    if scores.nan.any():
        flags.append(
            f"{scores.nan.sum():,} of {len(scores.nan):,} samples have a similarity that is no "
            "number (NaN)"
        )
    return tuple(flags)


def _cells(
    task: Task, table: Mapping[str, Mapping[str, Estimate]], scores: Scores
) -> dict[str, dict[str, Cell]]:
    """Every number with its interval, its n and its chance level, for every node; the strict number
    too, where it differs.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {node: {} for node in table}
    for metric, measure in scores.measures.items():
        _, counts = scalar_leaves(measure.leaves())
        chances = tree_mean(task.subsets, scores.chance[metric], counts, task.within)
        stricts = _nodes(task, scores.strict[metric]) if metric in scores.strict else {}
        for node, leaves in leaves_below(task.subsets).items():
            if metric not in table.get(node, {}):
                continue
            value, low, high = table[node][metric]
            n = int(sum(counts[leaf] for leaf in leaves))
            strict = stricts.get(node, value)
            differs = abs(strict - value) > 1e-9
            found[node][metric] = Cell(
                value, low, high, n, chances.get(node), strict if differs else None
            )
    return found


def _nodes(task: Task, measure: Measure) -> dict[str, float]:
    """A measure's value for every node."""
    return tree_mean(task.subsets, *scalar_leaves(measure.leaves()), task.within)


def _official(task: Task, scores: Scores) -> dict[str, Any]:
    """The headline as the official scorer would give it, where that one counts ties otherwise."""
    if not task.official_ties:
        return {}
    if "metrics" in task.official_ties:
        return {"source": task.official_ties["source"], "metrics": dict(scores.theirs)}
    listed = set(task.official_ties.get("subsets", task.leaves))
    values = {}
    for metric in task.headline:
        if metric not in scores.official:
            continue
        ours, counts = scalar_leaves(scores.measures[metric].leaves())
        theirs, _ = scalar_leaves(scores.official[metric].leaves())
        mixed = {leaf: (theirs if leaf in listed else ours)[leaf] for leaf in ours}
        tree = tree_mean(task.subsets, mixed, counts, task.within)
        if ROOT in tree:
            values[metric] = tree[ROOT]
    return {"source": task.official_ties.get("source", ""), "headline": values}


def audit(
    task: Task, rows: Sequence[Record], model: DualEncoder | PairScorer, prepared: Prepared
) -> dict[str, Any]:
    """What makes samples unfair, counted: texts cut at the context, texts of one sample that are
    equal once cut, and images that are missing. (Equal options are counted by the kinds.)
    """
    found: dict[str, Any] = {"missing_images": len(prepared.missing_images)}
    if prepared.missing_images:
        found["missing"] = list(prepared.missing_images)
    if prepared.notes:
        found["notes"] = list(prepared.notes)
    if task.kind == "classification":
        return found
    tokenize = extras_of(model).tokenize
    if tokenize is None:
        return found
    texts = list(dict.fromkeys(text for row in rows for text in row.texts))
    tokens: dict[str, bytes] = {}
    cut: set[str] = set()
    for start in range(0, len(texts), 4096):
        part = texts[start : start + 4096]
        ids, truncated = tokenize(part)
        tokens.update(zip(part, (row.tobytes() for row in np.asarray(ids)), strict=True))
        cut.update(text for text, flag in zip(part, truncated, strict=True) if flag)
    found["truncated_texts"] = len(cut)
    if task.kind == "matching":
        found["equal_after_tokenizing"] = sum(
            len({tokens[text] for text in row.texts}) < len(row.texts) for row in rows
        )
    return found
