"""Matching, by eye and against a brute-force reading of Winoground's definition."""

import numpy as np
import pytest

from fsc_bench.score.matching import chance, outcomes


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        # rows are images, columns are captions; image i belongs with caption i
        ([[0.9, 0.1], [0.2, 0.8]], {"text": True, "image": True, "group": True}),
        ([[0.9, 0.1], [0.95, 0.96]], {"text": True, "image": False, "group": False}),
        ([[0.3, 0.4], [0.1, 0.9]], {"text": False, "image": True, "group": False}),
        (
            [[0.5, 0.5], [0.1, 0.9]],
            {"text": False, "image": True, "group": False},
        ),  # a tie is a miss
        ([[np.nan, 0.1], [0.2, 0.8]], {"text": False, "image": False, "group": False}),
        ([[0.2, 0.2], [0.2, 0.2]], {"text": False, "image": False, "group": False}),
        # one image, three captions: the first is right
        ([[0.9, 0.8, 0.1]], {"text": True}),
        ([[0.8, 0.9, 0.1]], {"text": False}),
        # three images, one caption
        ([[0.9], [0.8], [0.1]], {"image": True}),
        ([[0.7], [0.8], [0.1]], {"image": False}),
    ],
)
def test_right_answer_beats_every_distractor(similarity, expected):
    found = outcomes(np.array([similarity], np.float32)).hits

    assert {name: bool(hit[0]) for name, hit in found.items() if name != "accuracy"} == expected


def test_ties_are_counted_and_are_hits_only_in_the_lenient_reading():
    found = outcomes(np.array([[[0.5, 0.5]], [[0.6, 0.5]]], np.float32))

    assert found.ties.tolist() == [True, False]
    assert found.hits["text"].tolist() == [False, True]
    assert found.lenient["text"].tolist() == [True, True]


def test_equals_winogrounds_definition_by_brute_force():
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (2000, 2, 2)).astype(np.float32)  # many ties
    found = outcomes(similarity).hits

    for s, text, image, group in zip(
        similarity, found["text"], found["image"], found["group"], strict=True
    ):
        c0_i0, c1_i0, c0_i1, c1_i1 = s[0, 0], s[0, 1], s[1, 0], s[1, 1]
        assert text == (c0_i0 > c1_i0 and c1_i1 > c0_i1)
        assert image == (c0_i0 > c0_i1 and c1_i1 > c1_i0)
        assert group == (text and image)


@pytest.mark.parametrize("shape", [(1, 2), (1, 5), (10, 1), (2, 2)])
def test_chance_is_what_random_similarities_reach(shape):
    rng = np.random.default_rng(1)
    hits = outcomes(rng.normal(size=(200_000, *shape))).hits

    for name, percent in chance(*shape).items():
        assert abs(100 * hits[name].mean() - percent) < 0.4
