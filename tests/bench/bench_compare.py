"""How long `fsc-bench compare` takes on two runs of all 35 tasks at their true sizes, and how much
memory; with --coverage, how often intervals hold the truth on simulated data.

    python tests/bench/bench_compare.py [--coverage]

Outcomes are drawn at random; nothing is encoded. The bound is 20 seconds and 1.5 GB, without torch.
"""

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from made_runs import digest, write_run

from fsc_bench.task import Task, catalogue

SEVERAL = {"aro": 5, "crepe": 6, "spec": 9, "whatsup": 4}  # texts of a picture; else 2
SHARED = ("sugarcrepe", "whatsup", "valse", "coco_karpathy")  # ask about pictures of COCO


def samples(task: Task, rng: np.random.Generator, skill: float) -> dict[str, Any]:
    """Samples of a task at its true size; a sample is a hit with probability `skill`."""
    subsets = [leaf for leaf, n in task.leaves.items() for _ in range(n)]
    n = len(subsets)
    questions = 4 if task.kind == "matching" else 1
    source = "coco/val2017" if task.name in SHARED else "."
    pictures = [f"{'coco' if source != '.' else task.name}-{row // questions}" for row in range(n)]
    found = {
        "id": [f"{row:06d}" for row in range(n)],
        "subset": subsets,
        "cluster": pictures,
        "stratum": [""] * n,
        "source": [digest(name) for name in pictures],
        "images": [[f"{source}:{name}"] for name in pictures],
        "image_digests": [[digest(name)] for name in pictures],
        "texts": [[]] * n,
        "tie": [False] * n,
    }
    makers = {"matching": matching, "classification": classification, "retrieval": retrieval}
    return {**found, **makers[task.kind](task, rng.random(n) < skill, rng, found)}


def matching(task: Task, hits: np.ndarray, rng: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    n, texts = len(hits), SEVERAL.get(task.name, 2)
    both = {"group", "accuracy"} & set(task.headline) and task.name != "spec"
    images = 2 if both else 10 if task.name == "imagecode" else 2 if "image" in task.headline else 1
    texts = 1 if "image" in task.headline else 2 if both else texts
    columns = {
        "texts": [[f"caption {k} of {row}" for k in range(texts)] for row in range(n)],
        "scores": list(rng.random((n, images * texts), np.float32)),
        **{f"correct_{metric}": hits for metric in ("text", "image", "group", "accuracy")},
    }
    if images > 1:
        columns["source"] = [""] * n
        columns["images"] = [names * images for names in found["images"]]
        columns["image_digests"] = [names * images for names in found["image_digests"]]
    return columns


def classification(
    task: Task, hits: np.ndarray, rng: Any, found: Mapping[str, Any]
) -> dict[str, Any]:
    n, classes = len(hits), len(task.classes)
    labels = np.random.default_rng(n).integers(0, classes, n)  # the same in both runs
    columns = {
        "labels": [[int(label)] for label in labels],
        "label_names": [[task.classes[label]] for label in labels],
        "prediction": labels,
        "prediction_name": [task.classes[label] for label in labels],
        "score_label": rng.random(n, np.float32),
        "score_best_other": rng.random(n, np.float32),
    }
    if "map11" in " ".join(task.headline):
        return {**columns, "scores": list(rng.random((n, classes), np.float32))}
    if classes == 2:
        columns["scores"] = list(rng.random((n, 2), np.float32))
    return {**columns, "correct": hits}


def retrieval(task: Task, hits: np.ndarray, rng: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    n, captions = len(hits), 1 if task.name == "coco_counterfactuals" else 5
    rank = np.where(hits, 1, rng.integers(2, 50, n))
    return {
        "texts": [[f"caption {k} of {row}" for k in range(captions)] for row in range(n)],
        "i2t_rank": rank,
        "t2i_rank": list(np.repeat(rank[:, None], captions, axis=1)),
        "correct": hits,
    }


def measure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        tasks = [task for task in catalogue().values() if task.suite == "fsc"]
        for model, skill in (("mine:a", 0.6), ("mine:b", 0.62)):
            write_run(Path(folder), model, [(task, samples(task, rng, skill)) for task in tasks])
        total = sum(task.n for task in tasks)
        print(f"{len(tasks)} tasks, {total:,} samples")
        command = [
            sys.executable,
            "-c",
            "import resource, sys\n"
            "from fsc_bench.cli.main import app\n"
            "try:\n    app()\nexcept SystemExit:\n    pass\n"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6\n"
            "print(f'{peak:.2f} GB', 'torch' in sys.modules, file=sys.stderr)",
            *("compare", "mine:a", "mine:b", "--runs", folder, "--flips", "20"),
        ]
        for _ in range(2):
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - begun
            print(f"compare: {seconds:.1f} s, {done.stderr.strip().splitlines()[-1]} (torch)")
        print("\n".join(done.stdout.splitlines()[:6]))


def one_model(rng: np.random.Generator, images: int) -> dict[str, tuple[float, float]]:
    """Intervals of one model on two tasks of three and two questions about the same images, whose
    ease is what they mostly differ in: of a task, of the average, and of the average as if the
    tasks were independent. The truth is 60.
    """
    from fsc_bench.score.statistics import ROOT, Means, cells, draws, points

    keys = rng.integers(1, 2**63, images, dtype=np.uint64)
    ease = rng.beta(1.2, 0.8, images)
    values, drawn = [], []
    for questions in (3, 2):
        clusters = np.repeat(np.arange(images), questions)
        hits = rng.random(len(clusters)) < ease[clusters]
        measure = Means(hits, cells(["a"] * len(hits), [""] * len(hits)), clusters, images)
        values.append(points(measure, {"a": len(hits)}, "subsets")[ROOT])
        drawn.append(draws({"m": measure}, {"a": len(hits)}, "subsets", keys)["m"][ROOT])
    ends = [np.percentile(one, [2.5, 97.5]) for one in (*drawn, sum(drawn) / 2)]
    half = np.hypot(*((high - low) / 2 for low, high in ends[:2])) / 2
    mean = sum(values) / 2
    return {
        "task": tuple(ends[0]),
        "average": tuple(ends[2]),
        "average, tasks taken as independent": (mean - half, mean + half),
    }


def coverage(worlds: int = 2000) -> None:
    """Two tasks about the same 150 images; b is better than a by 4 points."""
    from test_compare import simulated

    from fsc_bench.score.contrast import average, contrast
    from fsc_bench.score.statistics import ROOT

    rng = np.random.default_rng(9)
    covered: Counter[str] = Counter()
    null = 0
    for _ in range(worlds):
        for name, (low, high) in one_model(rng, 150).items():
            covered[name] += low <= 60 <= high
        one, two = simulated(rng, 150, 4.0)
        single, other = contrast(one[ROOT]), contrast(two[ROOT])
        both = contrast(average([one[ROOT], two[ROOT]]))
        half = np.hypot(*((c.high - c.low) / 2 for c in (single, other))) / 2
        covered["paired difference of a task"] += single.low <= 4 <= single.high
        covered["paired difference of averages"] += both.low <= 4 <= both.high
        covered["the same, tasks taken as independent"] += abs(both.difference - 4) <= half
        same = contrast(average([pair[ROOT] for pair in simulated(rng, 150, 0.0)]))
        null += same.verdict(0.0) in ("BETTER", "WORSE")
    for name, count in covered.items():
        print(f"{100 * count / worlds:.1f}% of 95% intervals hold the truth: {name}")
    print(f"equal models called BETTER or WORSE: {100 * null / worlds:.1f}%")


if __name__ == "__main__":
    coverage() if "--coverage" in sys.argv else measure()
