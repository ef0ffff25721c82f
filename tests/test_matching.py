"""Matching, by eye and against a brute-force reading of Winoground's definition."""

import numpy as np
import pytest

from fsc_bench.score.matching import first_equal, offer, outcomes

BOTH_WAYS = ("text", "image", "group", "groupmatch")


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        # rows are images, columns are captions; image i belongs with caption i
        (
            [[0.9, 0.1], [0.2, 0.8]],
            {"text": True, "image": True, "group": True, "groupmatch": True},
        ),
        (
            [[0.9, 0.1], [0.95, 0.96]],
            {"text": True, "image": False, "group": False, "groupmatch": True},
        ),
        (
            [[0.3, 0.4], [0.1, 0.9]],
            {"text": False, "image": True, "group": False, "groupmatch": True},
        ),
        (
            [[0.5, 0.5], [0.1, 0.9]],
            {"text": False, "image": True, "group": False, "groupmatch": True},
        ),  # a tie is a miss
        ([[np.nan, 0.1], [0.2, 0.8]], dict.fromkeys(BOTH_WAYS, False)),
        ([[0.2, 0.2], [0.2, 0.2]], dict.fromkeys(BOTH_WAYS, False)),
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


def test_groupmatch_asks_whether_the_best_assignment_is_the_right_one():
    """Three pictures and texts. Right: .5 + .4 + .3 = 1.2. The best of the others is .6 + .4 + .1,
    1.1, though the first picture is nearest to text 2. With .8 there, .8 + .4 + .1 = 1.3 is better.
    """
    similarity = np.array([[0.5, 0.2, 0.6], [0.3, 0.4, 0.2], [0.1, 0.2, 0.3]])
    worse = similarity.copy()
    worse[0, 2] = 0.8

    found = outcomes(np.stack([similarity, worse]))

    assert found.hits["groupmatch"].tolist() == [True, False]
    assert found.hits["group"].tolist() == [False, False]


def test_a_tied_assignment_is_a_miss_and_a_hit_only_in_the_lenient_reading():
    found = outcomes(np.array([[[0.5, 0.25], [0.5, 0.25]]]))

    assert [table["groupmatch"].tolist() for table in (found.hits, found.strict)] == [[False]] * 2
    assert found.lenient["groupmatch"].tolist() == [True]


@pytest.mark.parametrize(
    ("images", "texts"),
    [
        ((0,), (0, 1)),
        ((0,), (0, 1, 2, 3, 4)),
        (tuple(range(10)), (0,)),
        ((0, 1), (0, 1)),
        ((0, 1, 2), (0, 1, 2)),
        ((0,), (0, 1, 0, 3, 4)),  # the right caption again among its four shuffles
        ((0,), (0, 1, 1, 3, 1)),  # three equal shuffles are one distractor
        ((0, 1), (0, 0)),  # two pictures of one caption
        ((0, 1, 2), (0, 1, 0)),
    ],
)
def test_chance_is_what_random_similarities_reach(images, texts):
    rng = np.random.default_rng(1)
    # Equal options have equal similarities: draw one for each different pair.
    drawn = rng.normal(size=(100_000, max(images) + 1, max(texts) + 1))
    similarity = drawn[:, images][:, :, texts]
    made = offer(images, texts)
    hits = outcomes(similarity, made.right).hits

    for name, percent in made.chance.items():
        assert abs(100 * hits[name].mean() - percent) < 0.6, name


def test_chance_worked_out_by_hand():
    # One of five; of four different ones (the right caption again); of three different ones.
    assert offer((0,), (0, 1, 2, 3, 4)).chance["text"] == pytest.approx(20.0)
    assert offer((0,), (0, 1, 0, 3, 4)).chance["text"] == pytest.approx(25.0)
    assert offer((0,), (0, 1, 1, 3, 1)).chance["text"] == pytest.approx(100 / 3)
    # Two and two: each image its text, 1/2 x 1/2; both ways together 4 of 24 orders.
    assert offer((0, 1), (0, 1)).chance == pytest.approx(
        {"text": 25, "image": 25, "group": 100 / 6, "accuracy": 100 / 6, "groupmatch": 50}
    )


def test_an_option_equal_to_the_right_one_is_the_right_one_again():
    # Captions: right, a, right again, b. The copy ties with the right one; a and b are below.
    made = offer((0,), tuple(first_equal(np.array([[7, 3, 7, 9]]))[0].tolist()))
    similarity = np.array([[[0.8, 0.5, 0.8, 0.6]], [[0.8, 0.5, 0.8, 0.8]]], np.float32)

    found = outcomes(similarity, made.right)

    assert made.right.tolist() == [[True, False, True, False]]
    assert (made.easier, made.free) == (True, False)
    assert found.hits["text"].tolist() == [True, False]  # in the second b ties: a miss
    assert found.strict["text"].tolist() == [False, False]
    assert found.lenient["text"].tolist() == [True, True]
    assert found.ties.tolist() == [False, True]


def test_a_copy_that_came_out_more_similar_is_still_the_right_answer():
    # "A dog" and "a dog" are one answer whose vectors may differ in the last bit.
    made = offer((0,), (0, 1, 0))
    found = outcomes(np.array([[[0.70, 0.75, 0.80]]], np.float32), made.right)

    assert found.hits["text"].tolist() == [True]


def test_where_every_option_is_right_the_item_is_free():
    made = offer((0,), (0, 0))
    found = outcomes(np.array([[[0.3, 0.3]]], np.float32), made.right)

    assert (made.free, made.easier, made.chance["text"]) == (True, False, 100.0)
    assert found.hits["text"].tolist() == [True]
    assert found.strict["text"].tolist() == [False]


def test_two_pictures_of_one_caption_are_both_right_for_it():
    made = offer((0, 1), (0, 0))
    # Image 1 is nearer to the caption than image 0; both belong to it.
    found = outcomes(np.array([[[0.2, 0.2], [0.9, 0.9]]], np.float32), made.right)

    assert made.right.all()
    assert made.free
    assert found.hits["group"].tolist() == [True]


def test_nan_is_a_miss_whatever_equals_it():
    made = offer((0,), (0, 1, 0))
    similarity = np.array([[[np.nan, 0.1, 0.9]], [[0.9, np.nan, 0.9]]], np.float32)

    assert outcomes(similarity, made.right).hits["text"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("row", "headline", "strict", "lenient", "tie"),
    [
        # the first and the second option are the same answer
        ([0.5, 0.5, 0.1], True, False, True, False),
        ([0.1, 0.5, 0.4], True, False, True, False),  # as similar as the most similar of both
        ([0.1, 0.4, 0.5], False, False, False, False),
        ([0.5, 0.2, 0.5], False, False, True, True),
        ([0.5, np.nan, 0.1], False, False, False, False),
    ],
)
def test_headline_strict_and_lenient_of_a_right_option_that_stands_twice(
    row, headline, strict, lenient, tie
):
    found = outcomes(np.array([[row]], np.float32), np.array([[True, True, False]]))

    assert found.hits["text"].tolist() == found.hits["accuracy"].tolist() == [headline]
    assert found.strict["text"].tolist() == [strict]
    assert found.lenient["text"].tolist() == [lenient]
    assert found.ties.tolist() == [tie]


@pytest.mark.parametrize(
    ("images", "texts", "chance", "free", "easier"),
    [
        ([0], [0, 1, 2], {"text": 100 / 3}, False, False),
        ([0], [0, 1, 0], {"text": 50}, False, True),  # two different captions
        ([0], [3, 3], {"text": 100}, True, False),  # nothing but the right one
        ([0, 1, 2, 0], [0], {"image": 100 / 3}, False, True),
        ([0, 1], [0, 1], {"text": 25, "image": 25, "group": 100 / 6}, False, False),
        ([0, 0], [0, 1], {"text": 100, "image": 100, "group": 100}, True, False),
        # The first text is right for the first and the third picture. Both ways: the best of six
        # cells is (0, 0) or (2, 0), and then (1, 1) or the other of the two is the best of five:
        # 1/6 (1/5 1/2 + 1/5 1/4) twice; or it is (1, 1), then one of the two: 1/6 2/5 1/2.
        ([0, 1, 2], [0, 1, 0], {"text": 12.5, "image": 200 / 9, "group": 100 / 12}, False, True),
    ],
)
def test_what_a_record_offers_is_what_is_different_in_it(images, texts, chance, free, easier):
    found = offer(tuple(images), tuple(texts))

    expected = {**chance, "accuracy": found.chance.get("group", list(chance.values())[-1])}
    assert {name: found.chance[name] for name in expected} == pytest.approx(expected)
    assert (found.free, found.easier) == (free, easier)


def test_the_first_equal_option_of_each():
    assert first_equal(np.array([[7, 3, 7, 9], [4, 4, 4, 8]])).tolist() == [
        [0, 1, 0, 3],
        [0, 0, 0, 3],
    ]


def test_chance_both_ways_of_as_many_images_as_texts_some_of_which_are_equal():
    """Image 0 stands twice, with texts 0 and 1; text 1 twice, with images 0 and 1: of the different
    pairs all but (1, 0) are right.

    The best of four cells is (0, 0): of (0, 1), (1, 0) and (1, 1) then (0, 1) is the best, and
    (1, 1) that of row 1, 1/3 1/2, or (1, 1), 1/3: 1/2. Likewise from (1, 1): 1/2. From (0, 1): 1/3
    1/2 twice, 1/3. All in all 1/4 (1/2 + 1/2 + 1/3). (With one text each it would be 1/6.)
    """
    found = offer((0, 0, 1), (0, 1, 1)).chance

    # The second picture has text 1 and the first both, or it has text 0 and the first twice text 1.
    assert found.pop("groupmatch") == 50
    assert found == pytest.approx({"text": 50, "image": 50, "group": 100 / 3, "accuracy": 100 / 3})


def test_chance_both_ways_of_large_records():
    """Of eight and eight: 7! / 15!. Partly equal ones are worked out up to seven and seven."""
    eight = tuple(range(8))
    partly = (0, *range(7)), (*range(7), 0)

    assert offer(eight, eight).chance["group"] == pytest.approx(100 * 5040 / 1307674368000)
    assert 0 < offer(*partly).chance["group"] < 1
    assert np.isnan(offer(eight, partly[1]).chance["group"])
