"""Finished runs made of stated outcomes, without a model: what comparing and tables read."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.results import Cell, Result, Run, RunDirectory, Samples, read_runs, task_facts
from fsc_bench.score.clusters import source_images
from fsc_bench.score.statistics import ROOT, draws, estimates
from fsc_bench.score.stored import Columns, Stored
from fsc_bench.task import Task


def digest(picture: str) -> str:
    """16 digits that stand for a picture's content."""
    return hashlib.sha256(picture.encode()).hexdigest()[:16]


def choices(rows: Sequence[tuple[str, str, bool]], texts: Sequence[str] = ()) -> dict[str, Any]:
    """The samples of a matching task with one picture and two captions each.

    rows: (subset, picture, whether the right caption wins). A picture is called as its content.
    """
    hits = [hit for _, _, hit in rows]
    captions = texts or [f"caption {number}" for number in range(len(rows))]
    return {
        "id": [f"{number:06d}" for number in range(len(rows))],
        "subset": [subset for subset, _, _ in rows],
        "cluster": [picture for _, picture, _ in rows],
        "stratum": [""] * len(rows),
        "source": [digest(picture) for _, picture, _ in rows],
        "images": [[f".:{picture}"] for _, picture, _ in rows],
        "image_digests": [[digest(picture)] for _, picture, _ in rows],
        "texts": [[caption, f"no {caption}"] for caption in captions],
        "scores": [np.float32([0.3, 0.2] if hit else [0.2, 0.3]) for hit in hits],
        "correct_text": hits,
        "tie": [False] * len(rows),
    }


def write_run(folder: Path, model: str, tasks: Sequence[tuple[Task, Mapping[str, Any]]]) -> Run:
    """A run folder with these tasks and samples; its results' numbers follow from the samples."""
    directory = RunDirectory(folder, model, digest(model))
    directory.path.mkdir(parents=True)
    directory.write_run({"model": model})
    for task, columns in tasks:
        n = len(columns["id"])
        fields = {"task": task.name, "version": task.version, "kind": task.kind, "n": n,
                  "expected": task.n, "headline": task.headline, "ties": 0, "nan": 0,
                  "fingerprint": digest(model), "facts": task_facts(task)}  # fmt: skip
        empty = Result(metrics={}, **fields)
        directory.write_result(empty, Samples(columns))
        stored = Stored(empty, Columns(directory.samples_file(task.name), (), n), whole=False)
        sources = source_images({task.name: stored.marks})[task.name]
        measures = stored.measures(stored.told(sources))
        drawn = draws(measures, task.subsets, task.within, sources.keys)
        table = estimates(measures, task.subsets, task.within, drawn)
        metrics = {
            node: {
                metric: Cell(*estimate, n, task.chance.get(metric))
                for metric, estimate in found.items()
            }
            for node, found in table.items()
        }
        headline = {metric: drawn[metric][ROOT] for metric in drawn if ROOT in drawn[metric]}
        directory.write_result(Result(metrics=metrics, **fields), Samples(columns, draws=headline))
    return read_runs([directory.path])[0]
