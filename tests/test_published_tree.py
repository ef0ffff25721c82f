"""The averaging trees of the shipped task files against published tables (FSC_BENCH_REAL_DATA).

vl_compo published the score of every subset and the score of every benchmark for 202 models; the
first must give the second through `[subsets]` and `within`, for each of the 201 whose names agree.
"""

import csv
import gzip
import os
from collections import defaultdict
from collections.abc import Mapping
from math import lcm
from pathlib import Path
from statistics import fmean

import pytest

from fsc_bench.score.statistics import ROOT, tree_mean
from fsc_bench.task import SubsetTree, Task, catalogue, walk

REAL = os.environ.get("FSC_BENCH_REAL_DATA", "")
pytestmark = pytest.mark.skipif(not REAL, reason="FSC_BENCH_REAL_DATA names no folder")

TOLERANCE = 1e-6  # percent; results.csv is rounded to ten digits
COMPOSITIONALITY = [
    "aro", "crepe", "eqben", "imagecode", "sugarcrepe", "svo_probes", "valse", "vl_checklist",
    "whatsup", "winoground",
]  # fmt: skip
RETRIEVAL = ("coco_karpathy", "flickr30k")
# vl_compo's names of the 21 classification tasks, where they differ from ours.
ELEVATER = {
    "eurosat-clip": "eurosat", "fgvc-aircraft-2013b": "fgvc_aircraft", "flower102": "flowers102",
    "hateful-memes": "hateful_memes", "imagenet-1k": "imagenet1k",
    "kitti-distance": "kitti_distance", "oxford-iiit-pets": "oxford_pets",
    "rendered-sst2": "rendered_sst2", "resisc45-clip": "resisc45", "stanfordcar": "stanford_cars",
    "voc2007classification": "voc2007",
}  # fmt: skip

Scores = Mapping[str, Mapping[tuple[str, str], float]]  # model -> (benchmark, metric) -> percent


def read_long(name: str) -> dict[str, dict[tuple[str, str], float]]:
    path = Path(REAL, "published", name)
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in csv.DictReader(text.splitlines()):
        model = "|".join(row[k] for k in ("model", "base", "train_data", "method", "lora"))
        found[model][row["benchmark"], row["metric"]] = float(row["value"])
    return found


@pytest.fixture(scope="module")
def published() -> tuple[Scores, Scores, list[str]]:
    parts = read_long("vl_compo_individual_long.csv.gz")
    wholes = read_long("vl_compo_results_long.csv.gz")
    models = sorted(parts.keys() & wholes.keys())
    assert len(models) == 201
    return parts, wholes, models


def headline(task: Task, columns: Mapping[str, float], metric: str) -> float:
    """The task's headline from scores published by column, which may be a node above the leaves."""
    by_node = {}
    for column, value in columns.items():
        name, _, measured = column.partition("/")
        if measured in ("", metric):
            by_node[name] = value
    if len(task.leaves) == 1:  # Winoground's columns are its metrics
        by_node = {next(iter(task.leaves)): columns[metric]}
    tree = cut(task.subsets, by_node)
    return tree_mean(tree, by_node, {}, task.within)[ROOT]


def cut(tree: SubsetTree, known: Mapping[str, float]) -> SubsetTree:
    """The tree with every node that has a published score as a leaf of its samples."""
    if not isinstance(tree, Mapping):
        return tree
    return {name: total(node) if name in known else cut(node, known) for name, node in tree.items()}


def total(node) -> int:
    return sum(map(total, node.values())) if isinstance(node, Mapping) else node


@pytest.mark.parametrize("name", COMPOSITIONALITY)
def test_published_subset_scores_give_the_published_headline(name, published):
    parts, wholes, models = published
    task = catalogue()[name]
    worst = 0.0
    for model in models:
        columns = {
            metric: v for (benchmark, metric), v in parts[model].items() if benchmark == name
        }
        (metric,) = task.headline
        error = abs(headline(task, columns, metric) - wholes[model][name, "benchmark average"])
        worst = max(worst, error)
    print(f"{name}: worst error over {len(models)} models {worst:.1e}")
    assert worst <= TOLERANCE


def test_published_recalls_give_the_published_retrieval_columns_and_averages(published):
    parts, wholes, models = published
    worst = 0.0
    for model in models:
        for direction in ("i2t", "t2i"):
            found = []
            for name in RETRIEVAL:
                task = catalogue()[name]
                assert f"{direction}_r1" in task.headline
                (leaf,) = task.leaves
                value = parts[model][name, f"{direction}/R@1"]
                found.append(tree_mean(task.subsets, {leaf: value}, {}, task.within)[ROOT])
                theirs = wholes[model][name.removesuffix("_karpathy"), f"{direction} R@1"]
                worst = max(worst, abs(found[-1] - theirs))
            average = wholes[model][f"{direction}_avg", "mean R@1 of 2 (coco,flickr30k)"]
            worst = max(worst, abs(fmean(found) - average))
    print(f"retrieval: worst error over {len(models)} models {worst:.1e}")
    assert worst <= TOLERANCE


def test_published_accuracies_give_the_published_average_of_21(published):
    parts, wholes, models = published
    tasks = {
        name: task
        for name, task in catalogue().items()
        if task.group == "classification" and task.suite == "fsc"
    }
    worst = 0.0
    for model in models:
        values = {}
        for (benchmark, column), value in parts[model].items():
            if benchmark == "elevator":
                task = tasks[ELEVATER.get(column, column)]
                (leaf,) = task.leaves
                values[task.name] = tree_mean(task.subsets, {leaf: value}, {}, task.within)[ROOT]
        assert values.keys() == tasks.keys() and len(values) == 21
        average = wholes[model]["zs_avg", "mean of 21 (top-1)"]
        worst = max(worst, abs(fmean(values.values()) - average))
    print(f"21 tasks: worst error over {len(models)} models {worst:.1e}")
    assert worst <= TOLERANCE


def test_comp_is_the_plain_mean_of_the_suites_eleven():
    """The paper's own twelve rows: Comp over 11, SPEC among them."""
    rows = read_long("repo_extended_results_long.csv")
    names = [
        name
        for name, task in catalogue().items()
        if task.group == "compositionality" and task.suite == "fsc"
    ]
    assert len(names) == 11
    worst = max(
        abs(fmean(row[name, "benchmark average"] for name in names) - row["comp_avg", "mean of 11"])
        for row in rows.values()
    )
    print(f"Comp: worst error over {len(rows)} models {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", [*COMPOSITIONALITY, *RETRIEVAL])
def test_the_reference_in_the_task_file_is_the_published_row(name, published):
    """`[reference]` of CLIP ViT-B/32 quotes vl_compo to four decimals, subsets and headline."""
    parts, wholes, models = published
    (model,) = [m for m in models if m.startswith("ViT-B-32|openai|")]
    task = catalogue()[name]
    quoted = task.reference["open_clip:ViT-B-32-quickgelu/openai"]
    for metric in task.headline:
        if name in RETRIEVAL:
            theirs = wholes[model][name.removesuffix("_karpathy"), f"{metric[:3]} R@1"]
        else:
            theirs = wholes[model][name, "benchmark average"]
        assert quoted[metric] == pytest.approx(theirs, abs=5.1e-5)
    for subset, value in quoted.get("subsets", {}).items():
        values = value if isinstance(value, Mapping) else {task.headline[0]: value}
        for metric, percent in values.items():
            columns = (subset, f"{subset}/{metric}", metric)
            found = [parts[model][name, c] for c in columns if (name, c) in parts[model]]
            if found:  # nodes above the published columns have none
                assert percent == pytest.approx(found[0], abs=5.1e-5), (subset, metric)


@pytest.mark.parametrize("name", ["sugarcrepe", "svo_probes", "valse", "vl_checklist", "whatsup"])
def test_promised_counts_are_the_denominators_of_published_scores(name, published):
    """A score times its number of samples is a whole number of hits, for every model.

    Nested means too: denominators of VL-CheckList's columns reach 1e11 and fit nothing else.
    """
    parts, _, models = published
    checked = wrong = 0
    for column, node in walk(catalogue()[name].subsets):
        for model in models:
            value = parts[model].get((name, column))
            if value is not None:
                hits = value / 100 * denominator(node)
                checked += 1
                wrong += abs(hits - round(hits)) > 0.01
    # Nine models saw SVO-Probes when fewer, and other, pictures were alive.
    assert wrong == (27 if name == "svo_probes" else 0)
    assert checked >= 3 * len(models)


def denominator(node) -> int:
    """Of a mean of means of hits."""
    if isinstance(node, Mapping):
        return len(node) * lcm(*map(denominator, node.values()))
    return node
