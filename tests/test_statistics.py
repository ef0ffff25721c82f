"""The averaging tree and the cluster bootstrap."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from fsc_bench.score.statistics import (
    ROOT,
    SEED,
    Means,
    bootstrap,
    cluster_weights,
    tree_mean,
    wilson,
)

TREE = {"x": {"a": 10, "b": 30}, "y": 5}


def test_subsets_average_equally_and_samples_pool():
    values, counts = {"a": 100.0, "b": 50.0, "y": 0.0}, {"a": 10, "b": 30, "y": 5}

    assert tree_mean(TREE, values, counts, "subsets")[ROOT] == pytest.approx((75 + 0) / 2)
    assert tree_mean(TREE, values, counts, "samples")[ROOT] == pytest.approx((62.5 + 0) / 2)
    assert tree_mean(TREE, values, counts, "samples")["x"] == pytest.approx(62.5)


def test_a_hole_leaves_the_average_out():
    found = tree_mean(TREE, {"a": 1.0, "y": 2.0}, {}, "subsets")

    assert found == {"a": 1.0, "y": 2.0}


def means(hits, clusters, subsets=None, strata=None):
    n = len(hits)
    return Means(
        np.array(hits),
        subsets or ["a"] * n,
        strata or [""] * n,
        np.array(clusters),
        int(max(clusters)) + 1,
    )


def test_strata_are_averaged_equally():
    measure = means([1, 1, 1, 0], [0, 1, 2, 3], strata=["on", "on", "on", "under"])

    values, counts = measure.leaves()

    assert values["a"][0] == pytest.approx(50.0)  # not 75: two relations, one mean each
    assert counts["a"][0] == 4


def test_independent_samples_give_scipys_percentile_interval():
    rng = np.random.default_rng(3)
    hits = (rng.random(400) < 0.7).astype(float)
    value, low, high = bootstrap({"m": means(hits, np.arange(400))}, {"a": 400}, "subsets", 400)[
        "a"
    ]["m"]
    theirs = scipy_bootstrap(
        (hits,), np.mean, method="percentile", n_resamples=4000, rng=rng
    ).confidence_interval

    assert value == pytest.approx(100 * hits.mean())
    assert low == pytest.approx(100 * theirs.low, abs=0.8)
    assert high == pytest.approx(100 * theirs.high, abs=0.8)


def test_samples_of_one_image_rise_and_fall_together():
    rng = np.random.default_rng(4)
    image_is_easy = rng.random(100) < 0.5
    clusters = np.repeat(np.arange(100), 10)
    hits = image_is_easy[clusters].astype(float)
    wide = bootstrap({"m": means(hits, clusters)}, {"a": 1000}, "subsets", 100)[ROOT]["m"]
    narrow = bootstrap({"m": means(hits, np.arange(1000))}, {"a": 1000}, "subsets", 1000)[ROOT]["m"]

    # Ten questions an image, all alike: sqrt(10) times as wide.
    assert (wide[2] - wide[1]) / (narrow[2] - narrow[1]) == pytest.approx(np.sqrt(10), rel=0.2)


def test_coverage_of_the_interval_is_about_95_percent():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        share = rng.beta(3, 2, 80)  # each image has its own difficulty
        clusters = np.repeat(np.arange(80), 4)
        hits = (rng.random(320) < share[clusters]).astype(float)
        _, low, high = bootstrap({"m": means(hits, clusters)}, {"a": 320}, "subsets", 80, 300)["a"][
            "m"
        ]
        covered += low <= 60.0 <= high
    assert 180 <= covered <= 199


def test_all_right_is_not_certain():
    value, low, high = bootstrap({"m": means([1] * 50, range(50))}, {"a": 50}, "subsets", 50)["a"][
        "m"
    ]

    assert (value, high) == (100.0, pytest.approx(100.0))
    assert low == pytest.approx(wilson(100.0, 50)[0])
    assert low < 95


def test_the_same_results_give_the_same_interval():
    measure = means([1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 2])

    assert bootstrap({"m": measure}, {"a": 6}, "subsets", 3) == bootstrap(
        {"m": measure}, {"a": 6}, "subsets", 3
    )


def test_replicates_counted_in_blocks_are_those_drawn_one_by_one():
    rng = np.random.default_rng(SEED)
    each = [np.bincount(rng.integers(0, 900, 900), minlength=900) for _ in range(200)]

    assert np.array_equal(np.concatenate(list(cluster_weights(900, 200))), each)
