"""Every demo task, through the door a user's data comes in by: raw format, reader, metric.

An adapter that knows the answers scores 100, its opposite 0, one that knows nothing the declared
chance; and where the right answer stands among its distractors changes nothing.
"""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from oracle import Oracle

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import prepare
from fsc_bench.embed.encode import encode
from fsc_bench.embed.plan import make_plan
from fsc_bench.embed.store import Store
from fsc_bench.models import load_model
from fsc_bench.score.evaluate import Embeddings, evaluate
from fsc_bench.score.matching import offer
from fsc_bench.score.statistics import ROOT, tree_mean
from fsc_bench.task import catalogue

DEMO = [task for task in catalogue().values() if task.suite == "demo"]
FSC = [task for task in catalogue().values() if task.suite == "fsc"]


@pytest.fixture(scope="session")
def world(drawn, tmp_path_factory):
    """A data folder with the demo suite's raw files."""
    return shutil.copytree(drawn, tmp_path_factory.mktemp("demo") / "data")


def score(prepared, model, images, folder):
    """The result of a model on prepared records, and the columns of its samples file."""
    cache = DigestCache(folder / "digests.sqlite")
    plan = make_plan(prepared, images, cache)
    store = Store(folder / model.identity.fingerprint[:16])
    assert encode(plan, model, images, store) == {}
    cache.close()
    found = evaluate(prepared, Embeddings(plan, store), model)
    store.close()
    return found


def headline(result) -> dict[str, float]:
    return {metric: cell.value for metric, cell in result.metrics[ROOT].items()}


@pytest.mark.parametrize("task", DEMO, ids=lambda task: task.name)
def test_oracle_100_opposite_0_chance_as_declared(task, world, tmp_path):
    prepared, images = prepare(task, world), Images(world)

    right, _ = score(prepared, Oracle(prepared, images), images, tmp_path)
    assert {headline(right)[metric] for metric in task.headline} == {100.0}
    assert right.ties == 0
    assert right.n == sum(row.scored for row in prepared.records)

    wrong, _ = score(prepared, Oracle(prepared, images, -1), images, tmp_path)
    assert {headline(wrong)[metric] for metric in task.headline} == {0.0}

    # Five seeds' mean lies outside the intervals' mean ends about once in a hundred thousand times.
    for metric in task.headline:
        ends = []
        for seed in range(5):
            model = load_model(f"control:chance?seed={seed}")
            luck, _ = score(prepared, model, images, tmp_path)
            cell = luck.metrics[ROOT][metric]
            ends.append((cell.low, cell.high))
            assert luck.metrics[ROOT][metric].chance == pytest.approx(task.chance[metric], abs=0.01)
        low, high = np.mean(ends, axis=0)
        assert low <= task.chance[metric] <= high, metric


@pytest.mark.parametrize(
    "task", [task for task in DEMO if task.kind == "matching"], ids=lambda task: task.name
)
def test_where_the_answer_stands_changes_nothing(task, world, tmp_path):
    """Distractors in another order, pairs in another order: the same score for every sample."""
    prepared, images = prepare(task, world), Images(world)
    rng = random.Random(0)

    def shuffled(row):
        if len(row.images) == len(row.texts):
            order = rng.sample(range(len(row.texts)), len(row.texts))
            return replace(
                row,
                images=tuple(row.images[place] for place in order),
                texts=tuple(row.texts[place] for place in order),
            )
        texts = [row.texts[0], *rng.sample(row.texts[1:], len(row.texts) - 1)]
        pictures = [row.images[0], *rng.sample(row.images[1:], len(row.images) - 1)]
        return replace(row, images=tuple(pictures), texts=tuple(texts))

    model = load_model("control:chance")
    before, samples = score(prepared, model, images, tmp_path)
    moved = replace(prepared, records=[shuffled(row) for row in prepared.records])
    after, moved_samples = score(moved, model, images, tmp_path)

    assert after.metrics == before.metrics
    for column in samples.columns:
        if column.startswith("correct"):
            assert list(samples.columns[column]) == list(moved_samples.columns[column])


def test_per_class_recall_and_confusion_lie_beside_the_samples(world, tmp_path):
    task = catalogue()["demo_shapes"]
    prepared, images = prepare(task, world), Images(world)
    result, samples = score(prepared, load_model("control:chance"), images, tmp_path)

    summary = samples.summary
    assert summary["n"] == [20] * 12
    assert sum(summary["recall"]) / 12 == pytest.approx(
        result.metrics["test"]["mean_per_class"].value
    )
    hits = sum(count for label, taken_for, count in summary["confusion"] if label == taken_for)
    assert 100 * hits / 240 == pytest.approx(result.metrics["test"]["accuracy"].value)
    assert sum(count for *_, count in summary["confusion"]) == 240


def test_the_demo_has_all_eleven_and_all_three_and_six_classifications():
    names = {task.name.removeprefix("demo_") for task in DEMO}

    assert {task.name for task in FSC if task.group != "classification"} <= names
    assert sum(task.group == "classification" for task in DEMO) >= 6


@pytest.mark.parametrize(
    "task", [task for task in FSC if task.kind == "matching"], ids=lambda task: task.name
)
def test_declared_chance_of_the_real_task_follows_from_its_shapes(task, world):
    """The miniature has the real benchmark's shapes (SPEC's file says its own).

    ARO's order subsets, whose shuffles are partly equal, get 1.1 and 1.3 more, the whole a quarter.
    """
    records = prepare(catalogue()[f"demo_{task.name}"], world).records
    (metric,) = task.headline
    shapes = {row.subset: (len(row.images), len(row.texts)) for row in records if row.scored}
    values = {
        name: offer(tuple(range(images)), tuple(range(texts))).chance[metric]
        for name, (images, texts) in shapes.items()
    }
    for part, count in task.data.options.get("candidates", {}).items():
        values[f"{part}_i2t"] = values[f"{part}_t2i"] = 100 / count

    expected = tree_mean(task.subsets, values, task.leaves, task.within)[ROOT]

    expected += (1.1 + 1.3) / 4 if task.name == "aro" else 0
    assert task.chance[metric] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    "task", [task for task in FSC if task.kind == "classification"], ids=lambda task: task.name
)
def test_declared_chance_of_classification(task):
    (metric,) = task.headline

    if metric in ("accuracy", "mean_per_class"):
        assert task.chance[metric] == pytest.approx(100 / len(task.classes), abs=0.01)
    elif metric == "roc_auc":
        assert task.chance[metric] == 50.0
    else:
        assert (
            metric == "map11"
        )  # its expectation under random scores is worked out in the task file
