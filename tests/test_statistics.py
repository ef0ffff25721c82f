"""The averaging tree and the cluster bootstrap."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.score import statistics
from fsc_bench.score.clusters import Marks, marks_of_records, source_images
from fsc_bench.score.statistics import (
    ROOT,
    Means,
    Support,
    bootstrap,
    cells,
    cluster_weights,
    interval,
    node_support,
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


def keys(n: int) -> np.ndarray:
    """So many different source images."""
    return np.random.default_rng(7).integers(1, 2**63, n, dtype=np.uint64)


def means(hits, clusters, subsets=None, strata=None):
    n = len(hits)
    return Means(
        np.array(hits),
        cells(subsets or ["a"] * n, strata or [""] * n),
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
    value, low, high = bootstrap(
        {"m": means(hits, np.arange(400))}, {"a": 400}, "subsets", keys(400)
    )["a"]["m"]
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
    wide = bootstrap({"m": means(hits, clusters)}, {"a": 1000}, "subsets", keys(100))[ROOT]["m"]
    narrow = bootstrap({"m": means(hits, np.arange(1000))}, {"a": 1000}, "subsets", keys(1000))[
        ROOT
    ]["m"]

    # Ten questions an image, all alike: sqrt(10) times as wide.
    assert (wide[2] - wide[1]) / (narrow[2] - narrow[1]) == pytest.approx(np.sqrt(10), rel=0.2)


def test_coverage_of_the_interval_is_about_95_percent():
    rng = np.random.default_rng(5)
    drawn = keys(80)
    covered = 0
    for _ in range(200):
        share = rng.beta(3, 2, 80)  # each image has its own difficulty
        clusters = np.repeat(np.arange(80), 4)
        hits = (rng.random(320) < share[clusters]).astype(float)
        _, low, high = bootstrap({"m": means(hits, clusters)}, {"a": 320}, "subsets", drawn, 300)[
            "a"
        ]["m"]
        covered += low <= 60.0 <= high
    assert 180 <= covered <= 199


def test_all_right_is_not_certain():
    value, low, high = bootstrap({"m": means([1] * 50, range(50))}, {"a": 50}, "subsets", keys(50))[
        "a"
    ]["m"]

    assert (value, high) == (100.0, pytest.approx(100.0))
    assert low == pytest.approx(wilson(100.0, 50)[0])
    assert low < 95


def test_the_same_results_give_the_same_interval():
    measure = means([1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 2, 2])

    assert bootstrap({"m": measure}, {"a": 6}, "subsets", keys(3)) == bootstrap(
        {"m": measure}, {"a": 6}, "subsets", keys(3)
    )


def test_how_often_an_image_is_drawn_does_not_depend_on_what_is_drawn_beside_it(monkeypatch):
    known = keys(900)
    whole = np.concatenate(list(cluster_weights(known, 202)))

    some = np.concatenate(list(cluster_weights(known[[5, 300, 899]], 202)))
    monkeypatch.setattr(statistics, "AT_ONCE", 900 * 70 + 1)
    parts = list(cluster_weights(known, 202))

    assert whole.shape == (202, 900)
    assert np.array_equal(some, whole[:, [5, 300, 899]])
    assert [len(part) for part in parts] == [68, 68, 66]
    assert np.array_equal(np.concatenate(parts), whole)


def test_draws_are_poissons_of_mean_1_and_of_two_images_independent():
    drawn = np.concatenate(list(cluster_weights(keys(500), 4000)))

    shares = np.bincount(drawn.astype(int).ravel(), minlength=6)[:6] / drawn.size
    # exp(-1) / k!, of two million draws
    assert shares == pytest.approx([0.36788, 0.36788, 0.18394, 0.06131, 0.01533, 0.00307], abs=1e-3)
    alike = np.corrcoef(drawn.T)[np.triu_indices(500, 1)]
    assert alike.std() == pytest.approx(1 / np.sqrt(4000), rel=0.02)
    assert np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1] == pytest.approx(0, abs=3e-3)
    # Keys that follow each other draw as independently as any.
    near = np.concatenate(list(cluster_weights(np.arange(1, 501, dtype=np.uint64), 4000)))
    assert np.corrcoef(near.T)[np.triu_indices(500, 1)].std() == pytest.approx(0.0158, rel=0.02)


def test_of_200_samples_an_interval_is_taken_from_2000_draws_and_of_199_by_wilson():
    values = np.random.default_rng(1).random(200)
    weights = np.concatenate(list(cluster_weights(keys(200))))
    means_of_draws = 100 * (weights @ values) / weights.sum(axis=1)

    found = {
        n: bootstrap({"m": means(values[:n], range(n))}, {"a": n}, "subsets", keys(n))["a"]["m"]
        for n in (199, 200)
    }

    assert len(weights) == 2000
    assert found[200][1:] == pytest.approx(np.percentile(means_of_draws, [2.5, 97.5]))
    assert found[199][1:] == pytest.approx(wilson(100 * values[:199].mean(), 199))


def test_a_part_of_which_no_sample_was_drawn_weighs_nothing():
    """Four samples of x each time: b's four; one of a and three of b; three of a and one of b."""
    values = {"a": np.array([np.nan, 50, 100]), "b": np.array([80, 60, 20])}
    counts = {"a": np.array([0, 1, 3]), "b": np.array([4, 3, 1])}

    found = tree_mean({"x": {"a": 1, "b": 1}}, values, counts, "samples")

    # 80; (50 + 180) / 4; (300 + 20) / 4
    assert found["x"].tolist() == found[ROOT].tolist() == [80.0, 57.5, 80.0]


def test_a_stratum_of_which_no_sample_was_drawn_is_left_out_of_the_mean():
    """Strata: 2 of 3 about images 0 and 1; 1 of 2 about images 1 and 2; 4 of 4 about image 2."""
    measure = means(
        [1, 1, 0, 1, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 2, 2, 2, 2, 2],
        strata=["on"] * 3 + ["under"] * 2 + ["by"] * 4,
    )
    once, twice_first, last = np.array([[1, 1, 1], [2, 1, 0], [0, 0, 3]], float)

    values, counts = measure.leaves(np.asfortranarray([once, twice_first, last]))

    # (2/3 + 1/2 + 1) / 3; (4/5 + 1/1) / 2; (0/1 + 1) / 2
    assert values["a"] == pytest.approx([1300 / 18, 90.0, 50.0])
    assert counts["a"].tolist() == [9, 6, 15]


def test_what_a_value_rests_on():
    """a: two strata, of images 0, 1, 2 and of image 0 twice; b: images 3, 4, 5; c: 6 twice, 7, 8.

    The smaller of a's strata has one image, and two such strata are like one of two images.
    """
    subsets = ["a"] * 5 + ["b"] * 3 + ["c"] * 4
    strata = ["on"] * 3 + ["under"] * 2 + [""] * 7
    measure = means([1.0] * 12, [0, 1, 2, 0, 0, 3, 4, 5, 6, 6, 7, 8], subsets, strata)
    tree = {"x": {"a": 5, "b": 3}, "c": 4}

    leaves = {"a": Support(2, False), "b": Support(3, True), "c": Support(3, False)}
    assert measure.support() == leaves
    # x: 2 images by half the weight, 4; b's 3 would be 6. All: c's 3 by half the weight; a's 2 by a
    # quarter would be 8.
    by_subsets = node_support(tree, "subsets", measure)
    assert by_subsets == {**leaves, "x": Support(4, False), ROOT: Support(6, False)}
    # x: a has 5 of 8 samples: 2 / (5 / 8). All: c as before; a 2 / (5 / 16) = 6.4.
    by_samples = node_support(tree, "samples", measure)
    assert by_samples["x"].images == pytest.approx(3.2)
    assert by_samples[ROOT].images == pytest.approx(6.0)


def test_a_mean_of_two_independent_subsets_is_not_a_share_of_independent_samples():
    """Of one it is: b, and y, which is b alone; the whole is of b and d, 2 images by half."""
    measure = means([1.0] * 5, range(5), ["b"] * 3 + ["d"] * 2)

    found = node_support({"y": {"b": 3}, "d": 2}, "subsets", measure)

    alone = {"b": Support(3, True), "y": Support(3, True), "d": Support(2, True)}
    assert found == {**alone, ROOT: Support(4, False)}


@pytest.mark.parametrize(
    ("value", "sample", "support", "expected"),
    [
        # The percentiles of 10, 30 and 50 lie a twentieth within: 10 + 20 x .05, 50 - 20 x .05.
        (40.0, [np.nan, 30, 10, 50], Support(3, False), (11.0, 49.0)),
        (40.0, [np.nan, 30, 10, 50], Support(200, True), (11.0, 49.0)),
        (40.0, [30, 10, 50], Support(199, True), wilson(40, 199)),
        (40.0, [30, 30, 30], Support(7, False), wilson(40, 7)),
        (40.0, [], Support(7, False), wilson(40, 7)),
        (40.0, [np.nan], Support(7, False), wilson(40, 7)),
    ],
)
def test_an_interval_is_of_what_was_drawn_unless_that_says_nothing(
    value, sample, support, expected
):
    assert interval(value, np.array(sample, float), support) == pytest.approx(expected)


def test_what_is_no_number_has_no_interval():
    assert np.isnan(interval(np.nan, np.array([10.0, 30.0]), Support(3, False))).all()


def test_wilsons_interval_worked_out_by_hand():
    """3 of 5: z^2 / n = .768292; the middle (.6 + .384146) / 1.768292 = .556552; the half width
    1.959964 sqrt(.6 x .4 / 5 + .768292 / 20) / 1.768292 = .325827. The ends are exact.
    """
    assert wilson(60, 5) == pytest.approx((23.0725, 88.2379), abs=1e-3)
    assert wilson(0, 5) == (0.0, pytest.approx(100 * 0.768292 / 1.768292, abs=1e-3))
    assert wilson(100, 5) == (pytest.approx(100 / 1.768292, abs=1e-3), 100.0)
    ends = [(wilson(0, n)[0], wilson(100, n)[1]) for n in range(1, 200)]
    assert set(ends) == {(0.0, 100.0)}


class Pictures:
    """As much of `Vectors` as clusters need: a picture's bytes are the first letter of its name."""

    def source_keys(self, task, refs):
        return [ref.path[0].encode() for ref in refs]


def clusters_of(rows: list[Record], task: str = "mine") -> tuple[list[int], list[int]]:
    found = source_images({task: marks_of_records(task, rows, Pictures())})[task]
    return found.of.tolist(), found.keys.tolist()


def named(given: list[tuple[str, ...]]) -> list[Record]:
    """Records of (cluster, picture, ...), called 0, 1, 2, ..."""
    return [
        Record(str(number), "all", tuple(ImageRef(OWN, name) for name in names), cluster=cluster)
        for number, (cluster, *names) in enumerate(given)
    ]


def test_clusters_with_a_picture_of_the_same_bytes_are_one():
    """z and y share P, and z shares R with the record 4; the reader's "3" is not the record 3.

    What x chooses among is no reason to be one with z.
    """
    rows = named(
        [("z", "P"), ("y", "P again"), ("x", "P", "Q"), ("", "Q"), ("", "R"), ("3", "S"),
         ("z", "R again")]
    )  # fmt: skip

    of, keys_of = clusters_of(rows)

    same = [of[0], of[1], of[4], of[6]]
    assert set(same) == {of[0]}
    assert len({of[0], of[2], of[3], of[5]}) == len(keys_of) == 4


def test_records_that_all_choose_among_pictures_have_clusters_too():
    of, keys_of = clusters_of(named([("b", "P", "Q"), ("", "P", "Q"), ("b", "P", "Q")]))

    assert of[0] == of[2] != of[1]
    assert len(keys_of) == 2


def test_a_picture_is_one_source_in_every_task():
    """Task one asks twice about P and once about Q; two about P, under another name, and about Q
    together with R, which one file's name joins: all of Q and R are one source, known by the least.
    """
    one = Marks(*(np.array(x, np.uint64) for x in ([1, 2, 3], [70, 70, 71])))
    two = Marks(*(np.array(x, np.uint64) for x in ([4, 5, 5], [70, 71, 60])))

    found = source_images({"one": one, "two": two})
    alone = source_images({"one": one})["one"]

    keys_one, keys_two = (found[name].keys[found[name].of] for name in ("one", "two"))
    assert keys_one.tolist() == [70, 70, 60]
    assert keys_two.tolist() == [70, 60, 60]
    assert alone.keys[alone.of].tolist() == [70, 70, 71]
