"""Scores worked out by hand: stated vectors go the whole way from records to a table's row.

On the half circle a picture's nearest text is the one at the nearest angle, so ranks can be counted
on paper. Every expected number lies strictly between 0 and 100 and differs from the numbers that it
could be taken for: one direction for the other, one average for another, items for images.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from math import cos, radians, sqrt
from pathlib import Path

import pytest
from known import NOTHING, World, captioned, labelled, matching

from fsc_bench.records import Record
from fsc_bench.score.kinds import classification
from fsc_bench.score.kinds import matching as matching_kind
from fsc_bench.score.statistics import wilson
from fsc_bench.task import Task

HAND = 1e-6  # percent: the numbers below are fractions, written out


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def asked(world: World, right: bool, number: int, subset: str = "all", cluster: str = ""):
    """A question about a picture of its own, at 10 degrees; the right caption is at 15 or at 80."""
    picture = world.picture(cluster or f"{subset}{number}", 10 + number / 100)
    near, far = world.text(15), world.text(80)
    texts = [near, far] if right else [far, near]
    return matching([picture], texts, subset, cluster)


# ---------------------------------------------------------------- matching


def test_text_image_and_group_are_three_different_numbers(world):
    """Pictures at 0 and 10 degrees. A caption at a belongs with 0, one at b with 10."""
    left, right = world.picture("left", 0), world.picture("right", 10)
    pairs = [
        (1, 9),  # all four right
        (6, 9),  # both pictures choose their caption; the caption at 6 is nearer to 10
        (7, 11),  # likewise
        (-8, 6),  # both captions choose their picture; the picture at 0 is nearer to 6 than to -8
        (9, 1),  # all four wrong
    ]
    task = world.task("pairs", ["text"], {"all": 5})

    found = world.ask(
        task, [matching([left, right], [world.text(a), world.text(b)]) for a, b in pairs]
    )

    assert found.value("text") == pytest.approx(60.0, abs=HAND)  # the first three of five
    assert found.value("image") == pytest.approx(40.0, abs=HAND)  # the first and the fourth
    assert found.value("group") == pytest.approx(20.0, abs=HAND)  # the first alone
    assert found.samples["correct_text"] == [True, True, True, False, False]
    assert found.samples["correct_image"] == [True, False, False, True, False]
    assert set(found.result["metrics"]["headline"]) == {"text", "image", "group", "groupmatch"}
    assert float(found.row["pairs"]) == 60.0


@pytest.mark.parametrize(
    ("within", "inner", "headline"),
    [
        # a pools 3 of 4 and 1 of 2: 4/6; the headline is the mean of 4/6 and b's 1/3.
        ("samples", 200 / 3, 50.0),
        # a is the mean of 3/4 and 1/2: 5/8; the headline is the mean of 5/8 and 1/3.
        ("subsets", 62.5, 575 / 12),
    ],
)
def test_unequal_subsets_pool_or_average_as_within_says(world, within, inner, headline):
    """All nine pooled would be 5/9 = 55.6, the three leaves' mean 52.8."""
    hits = {"a1": [1, 1, 1, 0], "a2": [1, 0], "b": [1, 0, 0]}
    task = world.task("tree", ["text"], {"a": {"a1": 4, "a2": 2}, "b": 3}, within=within)
    records = [
        asked(world, bool(hit), number, leaf)
        for leaf, row in hits.items()
        for number, hit in enumerate(row)
    ]

    found = world.ask(task, records)

    leaves = [found.value("text", leaf) for leaf in ("a1", "a2", "b")]
    assert leaves == pytest.approx([75.0, 50.0, 100 / 3], abs=HAND)
    assert found.value("text", "a") == pytest.approx(inner, abs=HAND)
    assert found.value("text") == pytest.approx(headline, abs=HAND)
    assert found.result["metrics"]["a"]["text"]["n"] == 6
    assert float(found.row["tree"]) == pytest.approx(headline, abs=1e-4)


def test_what_a_models_texts_alone_decide(world):
    """Pictures at 0 and 60 degrees: their mean is at 30, and shuffled each shows the other.

    Right and wrong text, and which is nearer to the own picture, the mean, the other one:
      0: 20, 50  right, right, wrong     60: 70, 35  right, wrong, wrong
     60:  5, 40  wrong, wrong, right      0: 25, 55  right, right, wrong
    """
    one, two = world.picture("one", 0), world.picture("two", 60)
    asks = [(one, 20, 50), (two, 70, 35), (two, 5, 40), (one, 25, 55)]
    records = [matching([image], [world.text(a), world.text(b)]) for image, a, b in asks]
    task = world.task("blindness", ["text"], {"all": 4})

    found = world.ask(task, records)

    assert found.value("text") == pytest.approx(75.0)
    assert found.result["blindness"] == {
        "mean_image": {"text": 50.0}, "shuffled_images": {"text": 25.0}
    }  # fmt: skip


def test_two_crops_of_a_picture_are_one_source(world):
    """Both records are about one file, though no reader says so, and neither is about the third."""
    world.picture("halves", 0, 90)
    left, right = world.part("halves", 0), world.part("halves", 1)
    other = world.picture("other", 40)
    near, far = world.text(15), world.text(80)
    records = [matching([image], [near, far]) for image in (left, right, other)]

    found = world.ask(world.task("crops", ["text"], {"all": 3}), records)

    first, second, third = found.samples["source"]
    assert first == second != third
    assert found.samples["image_digests"][0] != found.samples["image_digests"][1]


def test_records_of_several_shapes_are_each_asked_what_their_shape_asks(world):
    """Three choose a text, one chooses both ways, two choose a picture.

    Text: the first, third and fourth, 3 of 4; by chance 1/2, 1/2, 1/3 and 1/4. Image: the fifth, 1
    of 3; by chance 1/4, 1/3 and 1/2. All that is asked: the first, third and fifth, 3 of 6; by
    chance 1/2, 1/2, 1/3, 1/6, 1/3 and 1/2.
    """
    near, far, farther = world.text(15), world.text(80), world.text(100)
    one, left, right = world.picture("one", 10), world.picture("left", 0), world.picture("right", 9)
    records = [
        matching([one], [near, far]),
        matching([one], [far, near]),
        matching([one], [near, far, farther]),
        matching([left, right], [world.text(5), world.text(8)]),  # right is nearer to both
        matching([right, one, left], [world.text(4.6)]),
        matching([left, right], [near]),
    ]
    task = world.task("shapes", ["text", "accuracy"], {"all": 6})

    found = world.ask(task, records)

    metrics = ("text", "image", "accuracy")
    assert [found.value(m) for m in metrics] == pytest.approx([75.0, 100 / 3, 50.0], abs=HAND)
    assert [found.chance(m) for m in metrics] == pytest.approx([1900 / 48, 1300 / 36, 1400 / 36])
    assert [found.result["metrics"]["all"][m]["n"] for m in (*metrics, "group")] == [4, 3, 6, 1]
    assert found.samples["correct_text"] == [True, False, True, True, False, False]
    assert found.samples["correct_image"] == [False] * 4 + [True, False]
    assert [len(row) for row in found.samples["images"]] == [1, 1, 1, 2, 3, 2]
    assert found.samples["images"][4] == [f".:{name}.png" for name in ("right", "one", "left")]
    assert [len(row) for row in found.samples["texts"]] == [2, 2, 3, 2, 1, 1]
    assert found.samples["texts"][1] == [far, near]
    # Picture by picture: 0 with 5 and 8, 9 with 5 and 8; and three pictures with 4.6.
    angles = [5, 8, 4, 1], [4.4, 5.4, 4.6]
    for scores, degrees in zip(found.samples["scores"][3:5], angles, strict=True):
        assert scores == pytest.approx([cos(radians(angle)) for angle in degrees], abs=1e-6)


def test_strata_of_a_subset_are_averaged_equally(world):
    """On: 3 of 4, by chance 1/2; under: 1 of 3, by chance 1/3. Pooled it would be 4/7 and 3/7."""
    farther = world.text(100)
    on = [replace(asked(world, number < 3, number), stratum="on") for number in range(4)]
    rows = [asked(world, number < 5, number) for number in range(4, 7)]
    under = [replace(row, texts=(*row.texts, farther), stratum="under") for row in rows]

    found = world.ask(world.task("strata", ["text"], {"all": 7}), on + under)

    assert found.value("text") == pytest.approx(1300 / 24, abs=HAND)
    assert found.chance("text") == pytest.approx(500 / 12)
    assert found.samples["stratum"] == ["on"] * 4 + ["under"] * 3


def test_tables_within_tables_pool_all_that_is_below_them(world):
    """deep pools 1 of 1 and 2 of 3: 3/4; a pools that and 1 of 2: 4/6; the whole is the mean of a
    and b, 1 of 3. Averaged throughout, deep would be 5/6.
    """
    hits = {"a1": [1, 0], "d1": [1], "d2": [1, 1, 0], "b": [0, 1, 0]}
    tree = {"a": {"a1": 2, "deep": {"d1": 1, "d2": 3}}, "b": 3}
    task = world.task("nested", ["text"], tree, within="samples")
    records = [
        asked(world, bool(hit), number, leaf)
        for leaf, row in hits.items()
        for number, hit in enumerate(row)
    ]

    found = world.ask(task, records)

    assert found.value("text", "deep") == pytest.approx(75.0, abs=HAND)
    assert found.value("text", "a") == pytest.approx(200 / 3, abs=HAND)
    assert found.value("text") == pytest.approx(50.0, abs=HAND)
    nodes = ("d2", "deep", "a", "b", "headline")
    assert [found.result["metrics"][node]["text"]["n"] for node in nodes] == [3, 4, 6, 3, 9]


def test_two_boxes_of_one_picture_are_two_images(world):
    """The left half is at 0 degrees, the right half at 90: four of five are right.

    With the left half's vector for both, 2 of 5 would be; with the right half's, 3.
    """
    world.picture("halves", 0, 90)
    left, right = world.part("halves", 0), world.part("halves", 1)
    low, high = world.text(20), world.text(70)
    records = [
        matching([left], [low, high]),
        matching([right], [high, low]),
        matching([right], [high, low, world.text(30)]),
        matching([right], [high, world.text(40)]),
        matching([right], [low, high]),
    ]

    found = world.ask(world.task("boxes", ["text"], {"all": 5}), records)

    assert found.value("text") == pytest.approx(80.0, abs=HAND)
    assert found.samples["correct_text"] == [True] * 4 + [False]


# ---------------------------------------------------------------- intervals


def test_ten_questions_about_one_image_weigh_as_one(world):
    """7 of 10: Wilson's interval of n = 1, [10.3, 97.9]; of ten images it would be [39.7, 89.2].

    z = 1.95996, z^2 = 3.84146: (.7 + 3.84146 / 2) / 4.84146 = .54131 is the middle, and the half
    width 1.95996 sqrt(.7 * .3 + 3.84146 / 4) / 4.84146 = .43796.
    """
    task = world.task("one", ["text"], {"all": 10})
    records = [asked(world, number < 7, number, cluster="same") for number in range(10)]

    found = world.ask(task, records)

    assert found.value("text") == pytest.approx(70.0, abs=HAND)
    assert found.interval("text") == pytest.approx([10.3352, 97.9268], abs=1e-4)
    assert found.interval("text") == pytest.approx(wilson(70, 1))
    assert wilson(70, 10) == pytest.approx((39.678, 89.221), abs=1e-2)
    assert found.row["one low"] == "10.3352" and found.row["one high"] == "97.9268"


def test_questions_about_two_images_rise_and_fall_together(world):
    """3 of 4 about one image, 1 of 6 about the other: 40% of ten.

    Two images are drawn of two: twice the first in a quarter of the draws (3/4), twice the second
    in a quarter (1/6), so the interval is exactly [1/6, 3/4]. By items it would end near 10 and 70.
    """
    task = world.task("two", ["text"], {"all": 10})
    first = [asked(world, hit, 1, cluster="first") for hit in (True, True, True, False)]
    second = [asked(world, number < 1, 2, cluster="second") for number in range(6)]

    found = world.ask(task, first + second)

    assert found.value("text") == pytest.approx(40.0, abs=HAND)
    assert found.interval("text") == pytest.approx([100 / 6, 75.0], abs=HAND)


def test_captions_of_one_image_rise_and_fall_together(world):
    """Text to image, the same numbers: 3 of 4 captions of one picture, 1 of 6 of the other."""
    first, second = world.picture("first", 0), world.picture("second", 90)
    near_first = [world.text(angle) for angle in (1, 2, 3, 4, 5, 6, 7, 8)]
    near_second = [world.text(angle) for angle in (81, 82)]
    task = world.task("captions", ["i2t_r1", "t2i_r1"], {"test": 2})

    found = world.ask(
        task,
        [
            captioned(first, *near_first[:3], near_second[0]),
            captioned(second, *near_first[3:], near_second[1]),
        ],
    )

    assert found.value("t2i_r1") == pytest.approx(40.0, abs=HAND)
    assert found.interval("t2i_r1") == pytest.approx([100 / 6, 75.0], abs=HAND)
    assert found.row["captions t2i_r1 low"] == "16.6667"
    assert found.row["captions t2i_r1 high"] == "75.0000"


# ---------------------------------------------------------------- retrieval


def circle(world: World) -> list[Record]:
    """Twelve pictures and their captions, as the next test describes them."""
    home, away = (1, 4, 7, 8, 10), (0, 2, 3, 5, 6, 9, 11, 4, 10)
    captions: dict[int, list[str]] = {number: [] for number in range(12)}
    for number in home:
        captions[number].append(world.text(10 * number + 1))
    for place, number in enumerate(away):
        captions[number].append(world.text(-1.5 - place / 10))
    return [
        captioned(world.picture(f"{number}", 10 * number), *captions[number])
        for number in range(12)
    ]


def test_recall_at_1_5_and_10_both_ways_are_six_different_numbers(world):
    """Twelve pictures at 0, 10 ... 110 degrees; 14 captions.

    Five captions are at home, a degree beside their picture (1, 4, 7, 8, 10). Nine are away, below
    -1.5 degrees, in this order of nearness: of 0, 2, 3, 5, 6, 9, 11, 4, 10 (the last two second
    captions).

    Text to image: a caption at home finds its picture first; one away finds 0, 1, 2 ... in turn,
    so that picture i has rank i + 1. At 1: five and picture 0's, 6 of 14. At 5: those of 2, 3 and
    4 too, 9 of 14. At 10: those of 5, 6 and 9 too, 12 of 14.

    Image to text: pictures with a caption at home find it first. The others find captions at home
    that are nearer than 0, then those away in their order: 0 has rank 1; 2 rank 4 (behind the homes
    of 1 and 4, and 0's); 3 rank 5; 5 rank 9 (behind all five homes); 6 rank 10; 9 rank 11; 11 rank
    12. At 1: 6 of 12; at 5: 8 of 12; at 10: 10 of 12.
    """
    task = world.task("circle", ["i2t_r1", "t2i_r1"], {"test": 12})

    found = world.ask(task, circle(world))

    i2t = [found.value(f"i2t_r{k}") for k in (1, 5, 10)]
    t2i = [found.value(f"t2i_r{k}") for k in (1, 5, 10)]
    assert i2t == pytest.approx([600 / 12, 800 / 12, 1000 / 12], abs=HAND)
    assert t2i == pytest.approx([600 / 14, 900 / 14, 1200 / 14], abs=HAND)
    assert found.samples["i2t_rank"] == [1, 1, 4, 5, 1, 9, 10, 1, 1, 11, 1, 12]
    assert found.samples["t2i_rank"][4] == [1, 5]
    assert found.result["metrics"]["test"]["t2i_r1"]["n"] == 14
    assert found.row["circle i2t_r1"] == "50.0000" and found.row["circle t2i_r1"] == "42.8571"


def test_ranks_ties_and_chance_of_both_ways(world):
    """Five pictures; r has captions with the vectors of p's and q's, t and s have one vector.

    Image to text: p and q tie with r's copies; t's caption at 152 comes after s's at 151: 2 of 5.
    Text to image: the captions of s and t tie; r's "as 1" comes after p and q, "as 61" after q: 3
    of 7. Ties: two and two. Chance to hold one of seven captions in five: 15/21, all three of r: 1.
    """
    records = [
        captioned(world.picture("p", 0), world.text(1)),
        captioned(world.picture("q", 60), world.text(61)),
        captioned(
            world.picture("r", 100), world.text(99), world.text(1, "as 1"), world.text(61, "as 61")
        ),
        captioned(world.picture("s", 150), world.text(151)),
        captioned(world.picture("t", 150, 150), world.text(152)),
    ]

    found = world.ask(world.task("ties", ["i2t_r1", "t2i_r1"], {"test": 5}), records)

    assert found.value("i2t_r1") == pytest.approx(40.0, abs=HAND)
    assert found.value("t2i_r1") == pytest.approx(300 / 7, abs=HAND)
    assert found.samples["i2t_rank"] == [2, 2, 1, 1, 2]
    assert found.samples["t2i_rank"] == [[1], [1], [1, 3, 2], [2], [2]]
    assert found.samples["correct"] == [False, False, True, True, False]
    assert found.samples["tie"] == [True, True, False, False, False]
    assert found.result["ties"] == 4
    assert found.chance("i2t_r1") == pytest.approx(20.0)
    assert found.chance("i2t_r5") == pytest.approx((4 * 1500 / 21 + 100) / 5)
    assert found.result["nan"] == 0


def test_captions_and_pictures_that_stand_twice_are_counted_and_strictly_come_before(world):
    """Of seven captions three equal an earlier one; of four pictures one does; two pictures have a
    caption twice.

    Image to text: both p find a, which is right for p; q (at 50) and the last find another's: 2 of
    4. Text to image: all but the last caption, which q is nearer to, find a picture that is right
    for them, 6 of 7. Strictly p and its copy tie, and q's a finds them first: only b is right.
    """
    a, b, c = world.text(1), world.text(55), world.text(3)
    records = [
        captioned(world.picture("p", 0), a, a),
        captioned(world.picture("q", 50), a, b),
        captioned(world.picture("p again", 0), c, c),
        captioned(world.picture("far", 90), world.text(50)),
    ]

    found = world.ask(world.task("copies", ["i2t_r1", "t2i_r1"], {"test": 4}), records)

    audits = {"repeated_texts": 3, "repeated_images": 1, "duplicate_texts": 2}
    assert found.result["audits"] == {"missing_images": 0, **audits}
    assert found.value("i2t_r1") == pytest.approx(50.0, abs=HAND)
    assert found.value("t2i_r1") == pytest.approx(600 / 7, abs=HAND)
    assert found.strict("t2i_r1") == pytest.approx(100 / 7, abs=HAND)


def test_a_caption_that_is_no_number_is_compared_with_every_picture(world):
    """Of p, q and r one picture is NaN: two find their caption. With a caption that is NaN too, all
    three have a similarity that is none."""
    records = [
        captioned(world.picture("p", 0), world.text(1)),
        captioned(world.picture("q", 60), world.text(61)),
        captioned(world.picture("r", NOTHING), world.text(120)),
    ]
    one = world.ask(world.task("one", ["i2t_r1", "t2i_r1"], {"test": 3}), records)
    records[2] = captioned(records[2].images[0], world.text(120), world.text(NOTHING))
    world.out = world.folder / "again"
    every = world.ask(world.task("every", ["i2t_r1", "t2i_r1"], {"test": 3}), records)

    assert one.value("i2t_r1") == pytest.approx(200 / 3, abs=HAND)
    assert (one.result["nan"], every.result["nan"]) == (1, 3)


# ---------------------------------------------------------------- classification


def classes(names, *templates: str) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    shown = ", ".join(f'"{template}"' for template in templates or ("{}",))
    return f"[classes]\nnames = [{quoted}]\n[prompts.only]\ntemplates = [{shown}]"


SEVEN = ("a", "b", "c", "d", "e", "f", "g")  # at 0, 20 ... 120 degrees


def seven_classes(world: World) -> list[Record]:
    for place, name in enumerate(SEVEN):
        world.text(20 * place, name)
    right_a = [(angle, 0) for angle in (0, 1, 2, 3, 4)]  # five of a, right
    # 130 is a's seventh; 61 is d's first, 72 its second (80 is nearer); 55 is f's fifth (60, 40,
    # 80 and 20 are nearer); 5 its sixth.
    rows = [*right_a, (130, 0), (61, 3), (72, 3), (55, 5), (5, 5)]
    return [
        labelled(world.picture(f"p{place}", angle), label)
        for place, (angle, label) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("metric", "percent"),
    [
        ("accuracy", 60.0),  # 6 of 10
        ("mean_per_class", 400 / 9),  # 5/6, 1/2 and 0/2 of the three classes that are there
        ("top5", 80.0),  # all but rank 7 and rank 6
    ],
)
def test_accuracy_mean_per_class_and_top_5_are_three_different_numbers(world, metric, percent):
    task = world.task("seven", [metric], {"test": 10}, tables=classes(SEVEN))

    found = world.ask(task, seven_classes(world))

    assert found.value(metric) == pytest.approx(percent, abs=HAND)
    assert float(found.row["seven"]) == pytest.approx(percent, abs=1e-4)
    assert sum(found.samples["correct"]) == 6
    assert found.chance(metric) == pytest.approx(500 / 7 if metric == "top5" else 100 / 7)
    assert found.summary == {
        "classes": list(SEVEN),
        "n": [6, 0, 0, 2, 0, 2, 0],
        "recall": [pytest.approx(500 / 6), None, None, 50.0, None, 0.0, None],
        # Of a, one is taken for g; of d, one for e (at 80, from 72); of f, one for d and one for a.
        "confusion": [[0, 0, 5], [0, 6, 1], [3, 3, 1], [3, 4, 1], [5, 0, 1], [5, 3, 1]],
    }


def test_blocks_of_records_make_no_difference(world, monkeypatch):
    """Ten pictures in blocks of three, and questions of two shapes in blocks of two."""
    near, far = world.text(15), world.text(80)
    pictures = [world.picture(f"q{number}", 10 + number) for number in range(5)]
    texts = [(near, far), (far, near), (near, far, "at 80"), (near, far), (far, near, near)]
    pairs = [matching([one], some) for one, some in zip(pictures, texts, strict=True)]
    classified = seven_classes(world)
    tasks = [
        (world.task("seven", ["accuracy"], {"test": 10}, tables=classes(SEVEN)), classified),
        (world.task("pairs", ["text"], {"all": 5}), pairs),
    ]
    whole = [world.ask(*task) for task in tasks]
    monkeypatch.setattr(classification, "BLOCK", 3)
    monkeypatch.setattr(matching_kind, "BLOCK", 2)
    world.out = world.folder / "again"

    parts = [world.ask(*task) for task in tasks]

    for before, after in zip(whole, parts, strict=True):
        assert after.samples == before.samples
        assert after.result["metrics"] == before.result["metrics"]


def test_class_vectors_are_means_of_their_prompts_made_unit_length(world):
    """Class a's prompts at -60 and 60 degrees: their mean is half as long, at 0. b's both at 30.

    The border lies at 15: of a, 5 and 10 are right and 20 is not; of b, 25 is and 5 is not: 3 of 5.
    With means as they are, b (length 1) takes everything: 2 of 5; with the first prompt alone too.
    """
    world.text(-60, "one a")
    world.text(60, "two a")
    world.text(30, "one b")
    world.text(30, "two b")
    rows = [(5, 0), (10, 0), (20, 0), (25, 1), (4, 1)]
    records = [labelled(world.picture(f"p{angle}", angle), label) for angle, label in rows]
    tables = classes(("a", "b"), "one {}", "two {}")

    found = world.ask(world.task("mean", ["accuracy"], {"test": 5}, tables=tables), records)

    assert found.value("accuracy") == pytest.approx(60.0, abs=HAND)
    assert found.samples["prediction"] == [0, 0, 1, 1, 0]


def test_of_two_classes_the_margin_ranks_the_pictures(world):
    """ROC-AUC: margins of b over a .3, .1, -.2 for pictures of b; .05, -.1 for pictures of a.

    Of six pairs, .3 and .1 beat both and -.2 neither: 4 of 6. The cosine with b alone would rank
    .8, .2, .45 against .5, .6: 2 of 6, as with the classes exchanged. Three of five are right.
    """
    world.text((1.0, 0.0, 0.0), "a")
    world.text((0.0, 1.0, 0.0), "b")
    rows = [((0.5, 0.8), 1), ((0.1, 0.2), 1), ((0.65, 0.45), 1), ((0.45, 0.5), 0), ((0.7, 0.6), 0)]
    records = [labelled(world.picture(f"p{x}-{y}", filled(x, y)), label) for (x, y), label in rows]
    task = world.task("two", ["roc_auc"], {"test": 5}, tables=classes(("a", "b")))

    found = world.ask(task, records)

    assert found.value("roc_auc") == pytest.approx(400 / 6, abs=1e-4)
    assert found.value("accuracy") == pytest.approx(60.0, abs=HAND)
    assert (found.chance("roc_auc"), found.chance("accuracy")) == (50.0, 50.0)
    assert found.samples["scores"][2] == pytest.approx([0.65, 0.45])
    assert found.samples["score_label"] == pytest.approx([0.8, 0.2, 0.45, 0.45, 0.7])
    assert found.samples["score_best_other"] == pytest.approx([0.5, 0.1, 0.65, 0.5, 0.6])
    assert found.samples["labels"] == [[1], [1], [1], [0], [0]]
    assert found.result["metrics"]["test"]["roc_auc"]["n"] == 5


def test_margins_of_two_images_rise_and_fall_together(world):
    """Margins of b over a. Of the first image .3 for b, .1 and .35 for a: 1 of 2. Of the second .2
    for b, .25, .1 and .05 for a: 2 of 3. Of both: .3 beats four of five, .2 three: 7 of 10.

    An image that is not drawn leaves 1/2 or 2/3. Drawn u and v times they make (uu + 4 uv + 2 vv)
    / ((u + v)(2 u + 3 v)), at most 17/24, for one and two.
    """
    world.text((1.0, 0.0, 0.0), "a")
    world.text((0.0, 1.0, 0.0), "b")
    margins = {"first": [(0.3, 1), (0.1, 0), (0.35, 0)],
               "second": [(0.2, 1), (0.25, 0), (0.11, 0), (0.05, 0)]}  # fmt: skip
    records = [
        labelled(world.picture(f"p{margin}", filled(0.4, 0.4 + margin)), label, cluster=image)
        for image, rows in margins.items()
        for margin, label in rows
    ]
    task = world.task("two", ["roc_auc"], {"test": 7}, tables=classes(("a", "b")))

    found = world.ask(task, records)

    assert found.value("roc_auc") == pytest.approx(70.0, abs=1e-4)
    assert found.interval("roc_auc") == pytest.approx([50.0, 1700 / 24], abs=1e-4)


def test_a_class_that_is_no_number_makes_every_picture_of_several_classes_one(world):
    world.text((1.0, 0.0), "a")
    world.text(NOTHING, "b")
    records = [labelled(world.picture(f"p{at}", at), label) for at, label in ((5, 0), (60, 1))]
    task = world.task("none", ["map11"], {"test": 2}, tables=classes("ab"))

    found = world.ask(task, records)

    assert found.result["nan"] == 2
    assert found.samples["prediction"] == [-1, -1]


def test_classes_of_the_same_name_are_one_answer(world):
    """Six classes, four answers: a at 0 and b at 30 stand twice. All but 40, which is c's, are
    right: 4 of 5, by chance 1 of 4; four answers are all among the first five.

    Strictly the copies of a and b tie, and only d's is right: 1 of 5.
    """
    for name, angle in zip("abcd", (0, 30, 60, 90), strict=True):
        world.text(angle, name)
    rows = [(2, 0), (28, 1), (31, 5), (40, 2), (91, 3)]
    records = [labelled(world.picture(f"p{angle}", angle), label) for angle, label in rows]
    task = world.task("twins", ["accuracy"], {"test": 5}, tables=classes("abcdab"))

    found = world.ask(task, records)

    assert found.value("accuracy") == pytest.approx(80.0, abs=HAND)
    assert found.strict("accuracy") == pytest.approx(20.0, abs=HAND)
    assert found.samples["prediction"] == [0, 1, 5, 1, 3]
    names = found.summary["classes"]
    assert found.samples["prediction_name"] == [names[place] for place in (0, 1, 5, 1, 3)]
    others = [cos(radians(angle)) for angle in (28, 28, 29, 10, 31)]
    assert found.samples["score_best_other"] == pytest.approx(others, abs=1e-6)
    assert (found.chance("accuracy"), found.chance("top5")) == (25.0, 100.0)
    assert found.result["audits"]["equal_classes"] == 4


def filled(*first: float) -> tuple[float, ...]:
    """The coordinates with one more, so that the whole is of unit length."""
    return (*first, sqrt(1 - sum(part * part for part in first)))


def test_mean_average_precision_ranks_pictures_by_softmax_of_100_cosines(world):
    """Classes a, b, c are axes; four pictures by their cosines with them.

        W  .30  .10  .00   b        chance of a  1         (100 cos)    .391 (cos)
        Y  .50  .42  .42   a, c                  .99933                 .351
        X  .51  .46 -.39   c                     .99331                 .424
        Z  .60  .62  .00   b                     .119                   .389

    a ranks W Y X Z: Y, its only one, comes second: precision 1/2 at every recall. (By cosines Y is
    third, by softmax of bare cosines fourth.) b ranks Z X Y W: Z first, W last, 1 up to recall .5
    (six of eleven points) and 1/2 beyond: 8.5 / 11. c ranks Y W Z X: likewise. The devkit's mean is
    (1/2 + 17/22 + 17/22) / 3 = 15/22; ELEVATER's point at recall 0 is always 1: (6/11 + ...) / 3.
    """
    for place, name in enumerate("abc"):
        world.text(tuple(float(place == axis) for axis in range(4)), name)
    pictures = {
        "W": ((0.30, 0.10, 0.00), (1,)),
        "Y": ((0.50, 0.42, 0.42), (0, 2)),
        "X": ((0.51, 0.46, -0.39), (2,)),
        "Z": ((0.60, 0.62, 0.00), (1,)),
    }
    records = [
        labelled(world.picture(name, filled(*cosines)), *labels, cluster=str(name in "WY"))
        for name, (cosines, labels) in pictures.items()
    ]
    headline, chance = ["map11", "map11_devkit"], {"map11": 20, "map11_devkit": 15}
    task = world.task("several", headline, {"test": 4}, chance=chance, tables=classes("abc"))

    found = world.ask(task, records)

    assert found.value("map11_devkit") == pytest.approx(1500 / 22, abs=1e-4)
    assert found.value("map11") == pytest.approx(100 * (6 / 11 + 17 / 11) / 3, abs=1e-4)
    assert found.samples["prediction"] == [0, 0, 0, 1]
    assert found.samples["labels"] == [[1], [0, 2], [2], [1]]
    assert found.samples["scores"][2] == pytest.approx([0.51, 0.46, -0.39])
    assert found.samples["tie"] == [False] * 4
    assert (found.chance("map11"), found.chance("map11_devkit")) == (20.0, 15.0)
    # Two images are drawn of two. W and Y twice: a and b 1/2 each (Y and W come last), c 1. X and Z
    # twice: b 1, c 1/2 (X comes last), and nothing of a. So the ends are 2/3 and 3/4.
    assert found.interval("map11_devkit") == pytest.approx([200 / 3, 75.0], abs=1e-4)
    assert (found.result["ties"], found.result["nan"]) == (0, 0)


# ---------------------------------------------------------------- averages


@pytest.fixture
def suite(world) -> list[Task]:
    """Two tasks of each group, run: the classification and retrieval tasks from above, and one."""
    hits = {"more": (True, True, True, False), "less": (True, False, False)}
    tasks = [world.task(name, ["text"], {"all": len(row)}) for name, row in hits.items()]
    for task, row in zip(tasks, hits.values(), strict=True):
        world.records(task, [asked(world, hit, n, cluster=f"c{n}") for n, hit in enumerate(row)])
    for metric in ("accuracy", "mean_per_class"):
        tasks.append(world.task(metric, [metric], {"test": 10}, tables=classes(SEVEN)))
        world.records(tasks[-1], seven_classes(world))
    for name, records in (("circle", circle(world)), ("three", three(world))):
        tasks.append(world.task(name, ["i2t_r1", "t2i_r1"], {"test": len(records)}))
        world.records(tasks[-1], records)
    world.run(*tasks)
    return tasks


def three(world: World) -> list[Record]:
    """Pictures at 0, 50 and 100: 2 of 3 find a caption of theirs, 2 of 4 captions their picture.

    The caption of 50 at 98 is nearest to 100, and 100's own at 51 to 50: both are missed by text.
    100 is nearest to the caption at 98: missed; 50 finds its second, at 49.5.
    """
    captions = {0: (2,), 50: (98, 49.5), 100: (51,)}
    return [
        captioned(world.picture(f"t{place}", place), *map(world.text, angles))
        for place, angles in captions.items()
    ]


def test_comp_zs_i2t_and_t2i_are_four_different_means_of_their_own_tasks(world, suite):
    row = world.row(*suite)

    expected = {
        "Comp": (75 + 100 / 3) / 2,  # 54.17
        "ZS": (60 + 400 / 9) / 2,  # 52.22
        "I2T": (50 + 200 / 3) / 2,  # 58.33
        "T2I": (600 / 14 + 50) / 2,  # 46.43
    }
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_both_sides_of_an_averages_interval_add_in_squares_and_are_divided(world, suite):
    """Half-widths of Pythagorean triples: 3 and 4 below make 5 / 2, 5 and 12 above 13 / 2."""
    stated = {
        "more": {"text": (60, 57, 65)},
        "less": {"text": (40, 36, 52)},
        "accuracy": {"accuracy": (80, 72, 87)},
        "mean_per_class": {"mean_per_class": (30, 24, 54)},
        "circle": {"i2t_r1": (45, 25, 54), "t2i_r1": (61, 49, 69)},
        "three": {"i2t_r1": (57, 36, 97), "t2i_r1": (47, 12, 62)},
    }
    for name, cells in stated.items():
        (path,) = world.out.glob(f"*/tasks/{name}.json")
        state_headline(path, cells)

    row = world.row(*suite)

    expected = {
        "Comp": (50.0, 50 - 5 / 2, 50 + 13 / 2),
        "ZS": (55.0, 55 - 10 / 2, 55 + 25 / 2),  # 8 and 6; 7 and 24
        "I2T": (51.0, 51 - 29 / 2, 51 + 41 / 2),  # 20 and 21; 9 and 40
        "T2I": (54.0, 54 - 37 / 2, 54 + 17 / 2),  # 12 and 35; 8 and 15
    }
    for name, values in expected.items():
        found = [float(row[column]) for column in (name, f"{name} low", f"{name} high")]
        assert found == pytest.approx(values, abs=1e-4), name


def state_headline(path: Path, cells: Mapping[str, tuple[float, float, float]]) -> None:
    """Puts stated numbers in the place of a result's headline."""
    content = json.loads(path.read_text())
    for metric, (value, low, high) in cells.items():
        content["metrics"]["headline"][metric] |= {"value": value, "ci": [low, high]}
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------- ties


def test_where_the_official_scorer_takes_ties_as_hits_both_numbers_are_kept(world):
    """a: right, tied, wrong, wrong; b: right, tied, wrong. The official scorer takes a's ties only.

    Headline: (1/4 + 1/3) / 2 = 7/24. Official: (2/4 + 1/3) / 2 = 10/24. All ties: 14/24.
    """
    near, twin, far = world.text(15), world.text(15, "as near"), world.text(80)
    hits = {"a": [(near, far), (near, twin), (far, near), (far, near)],
            "b": [(near, far), (near, twin), (far, near)]}  # fmt: skip
    records = [
        matching([world.picture(f"{leaf}{n}", 10 + n / 9)], texts, leaf)
        for leaf, rows in hits.items()
        for n, texts in enumerate(rows)
    ]
    tables = '[official_ties]\nsource = "its main.py"\nsubsets = ["a"]'

    found = world.ask(world.task("both", ["text"], {"a": 4, "b": 3}, tables=tables), records)

    assert found.value("text") == pytest.approx(700 / 24, abs=HAND)
    assert found.result["official"]["headline"]["text"] == pytest.approx(1000 / 24, abs=HAND)
    assert found.result["ties"] == 2


def test_an_official_classifier_takes_the_first_of_equal_classes(world):
    """a and b are at 0, c is at 90: a and b tie. Headline: c's at 80 and 88, 2 of 6.

    Official, by the first highest: a's at 1 and 3 too, and not b's at 2: 4 of 6.
    """
    for name, angle in (("a", 0), ("b", 0), ("c", 90)):
        world.text(angle, name)
    rows = [(1, 0), (2, 1), (3, 0), (80, 2), (88, 2), (85, 0)]
    records = [labelled(world.picture(f"p{angle}", angle), label) for angle, label in rows]
    tables = classes("abc") + '\n[official_ties]\nsource = "its main.py"'

    found = world.ask(world.task("first", ["accuracy"], {"test": 6}, tables=tables), records)

    assert found.value("accuracy") == pytest.approx(200 / 6, abs=HAND)
    assert found.result["official"]["headline"]["accuracy"] == pytest.approx(400 / 6, abs=HAND)
    assert found.samples["tie"] == [True, True, True, False, False, False]
    assert found.result["ties"] == 3


def test_official_recall_takes_a_picture_that_ties_with_the_right_one(world):
    """Two pictures at 0, one at 60 and one at 100. Captions at 1 and 2 tie between the first two.

    Headline: 61 and 62 find 60, and 55, which is 100's, does not find it: 2 of 5. Official: 4 of 5.
    """
    records = [
        captioned(world.picture("p", 0), world.text(1)),
        captioned(world.picture("q", 0, 0), world.text(2)),  # other bytes, the same vector
        captioned(world.picture("r", 60), world.text(61), world.text(62)),
        captioned(world.picture("s", 100), world.text(55)),
    ]
    tables = '[official_ties]\nsource = "its main.py"'

    found = world.ask(world.task("recall", ["t2i_r1"], {"test": 4}, tables=tables), records)

    assert found.value("t2i_r1") == pytest.approx(40.0, abs=HAND)
    assert found.result["official"]["headline"]["t2i_r1"] == pytest.approx(80.0, abs=HAND)


# ---------------------------------------------------------------- results that are no longer true


def test_a_result_of_other_records_is_not_accepted(world):
    """3 of 4 before, 1 of 4 after: the same pictures and captions, other captions right."""
    task = world.task("changing", ["text"], {"all": 4})
    before, after = (
        [asked(world, number < right, number) for number in range(4)] for right in (3, 1)
    )

    assert world.ask(task, before).value("text") == 75.0
    found = world.ask(task, after)

    assert found.value("text") == 25.0 and found.row["changing"] == "25.0000"


def test_a_result_of_another_version_is_not_accepted(world):
    """Version 2 of the task counts the first two questions alone: 2 of 2 becomes its own number."""
    records = [asked(world, number < 3, number) for number in range(4)]
    first = world.ask(world.task("changing", ["text"], {"all": 4}), records)
    second = world.task("changing", ["text"], {"all": 4}, version=2)

    assert first.value("text") == 75.0
    assert world.row(second)["changing"] == ""  # a hole until it is scored anew
    summary = world.run(second)

    assert summary.skipped == 0
    assert world.read(second, summary).result["version"] == 2
    assert world.row(second)["changing"] == "75.0000"


TWO_SETS = """[classes]
names = ["a", "b"]
[prompts.first]
templates = ["{} first"]
[prompts.second]
templates = ["{} second"]"""


def prompted(world: World) -> list[Record]:
    """Five pictures, of a below 50 degrees. The first set puts a at 0 and b at 90, the second a at
    60 and b at 140, so that the border lies at 45 and at 100."""
    for text, angle in (("a first", 0), ("b first", 90), ("a second", 60), ("b second", 140)):
        world.text(angle, text)
    rows = [(10, 0), (30, 0), (50, 0), (80, 1), (95, 1)]
    return [labelled(world.picture(f"p{angle}", angle), label) for angle, label in rows]


def test_a_result_of_another_prompt_set_is_not_accepted(world):
    """The first set: 10, 30, 80 and 95 are right, 4 of 5. The second: the three of a, 3 of 5."""
    task = world.task("prompted", ["accuracy"], {"test": 5}, tables=TWO_SETS)
    first = world.ask(task, prompted(world))
    second = world.ask(task, prompted(world), prompts="second")

    assert (first.value("accuracy"), second.value("accuracy")) == (80.0, 60.0)
    assert first.samples["prediction"] == [0, 0, 1, 1, 1]
    assert first.result["settings"]["prompts"] == "first"
    assert second.result["settings"]["prompts"] == "second"
    again = world.run(task)
    assert again.skipped == 1
    assert world.read(task, again).value("accuracy") == 80.0


def test_a_result_of_other_pictures_behind_the_same_names_is_not_accepted(world):
    """3 of 4 questions are right; then two of those pictures are painted over with a wrong one."""
    task = world.task("changing", ["text"], {"all": 4})
    records = [asked(world, number < 3, number) for number in range(4)]
    world.picture("wrong", 85)  # so that the adapter, and the model with it, stays what it is

    assert world.ask(task, records).value("text") == 75.0
    for number in (1, 2):
        world.picture(f"all{number}", 85)
    found = world.ask(task, records)

    assert found.value("text") == 25.0 and found.row["changing"] == "25.0000"


def test_a_result_of_other_templates_under_the_same_name_is_not_accepted(world):
    """The set called first gets the second's template: 4 of 5 become 3 of 5, as above."""
    records = prompted(world)
    task = world.task("prompted", ["accuracy"], {"test": 5}, tables=TWO_SETS)
    assert world.ask(task, records).value("accuracy") == 80.0

    changed = TWO_SETS.replace("{} first", "{} second")
    task = world.task("prompted", ["accuracy"], {"test": 5}, tables=changed)

    assert world.ask(task, records).value("accuracy") == 60.0


# ---------------------------------------------------------------- the same answer again


def test_the_right_caption_again_is_right_and_another_caption_as_near_is_a_miss(world):
    """Headline: all but the third, the fifth and the last, 4 of 7. Strict, any tie a miss: 1 of 7.

    Ties taken as hits would make it 5.
    """
    near, twin, far = world.text(15), world.text(15, "as near"), world.text(80)
    picture = world.picture("p", 10)
    options = [
        [near, far],
        [near, far, near],  # the right caption stands there twice
        [twin, near],  # another caption with the same vector
        [near, near],  # nothing but the right caption
        [far, near, far],  # the right caption twice, and wrong
        [near, near],
        [far, near],
    ]
    records = [matching([picture], texts, cluster=str(n)) for n, texts in enumerate(options)]

    found = world.ask(world.task("ties", ["text"], {"all": 7}), records)

    assert found.value("text") == pytest.approx(400 / 7, abs=HAND)
    assert found.strict("text") == pytest.approx(100 / 7, abs=HAND)
    assert found.samples["free"] == [False, False, False, True, False, True, False]
    assert found.samples["easier"] == [False, True, False, False, True, False, False]
    assert found.samples["tie"] == [False, False, True, False, False, False, False]
    assert found.result["audits"] == {"missing_images": 0, "free": 2, "easier": 2}
    assert found.chance("text") == pytest.approx(450 / 7)  # 1/2 five times, and 1 twice


def test_the_right_picture_again_is_right_and_another_picture_as_near_is_a_miss(world):
    """One caption and three pictures; two files of the same bytes are one picture.

    Headline: the first and the second, 2 of 4. Strict: the first alone, 1 of 4.
    """
    caption = world.text(15)
    near, again, far = world.picture("near", 10), world.picture("again", 10), world.picture("f", 80)
    as_near = world.picture("as near", 10, 10)  # other bytes, the same vector
    options = [[near, far, far], [near, again, far], [near, as_near, far], [far, near, again]]
    records = [matching(images, [caption], cluster=str(n)) for n, images in enumerate(options)]

    found = world.ask(world.task("frames", ["image"], {"all": 4}), records)

    assert found.value("image") == pytest.approx(50.0, abs=HAND)
    assert found.result["metrics"]["headline"]["image"]["strict"] == pytest.approx(25.0, abs=HAND)


# ---------------------------------------------------------------- what is counted beside a number


def test_what_is_no_number_is_a_miss_is_counted_and_enters_no_average(world):
    """Of the five questions four would be right; a caption of one and the picture of one are NaN.

    So 2 of 5 are right, and 2 of 5 have a similarity that is no number, of one of them half of it.
    """
    near, far, nothing = world.text(15), world.text(80), world.text(NOTHING)
    pictures = [world.picture(f"p{n}", 10 + n) for n in range(4)]
    options = [[near, far], [near, far], [far, near], [near, nothing]]
    records = [matching([one], texts) for one, texts in zip(pictures, options, strict=True)]
    records.append(matching([world.picture("none", NOTHING)], [near, far]))

    found = world.ask(world.task("holes", ["text"], {"all": 5}), records)

    why = "2 of 5 samples have a similarity that is no number (NaN)"
    assert found.value("text") == pytest.approx(40.0, abs=HAND)
    assert (found.result["nan"], found.result["flags"]) == (2, [why])
    assert (found.row["holes"], found.row["Comp"]) == ("40.0000", "")
    assert found.row["notes"] == f"holes: {why}"
    assert found.samples["correct_text"] == [True, True, False, False, False]


def test_a_picture_without_a_vector_has_no_class_and_is_a_miss(world):
    """3 of 5 are right; of the other two one picture is NaN, the other is nearer to b."""
    world.text(0, "a")
    world.text(90, "b")
    rows = [(5, 0), (10, 0), (80, 1), (60, 0), (NOTHING, 0)]
    records = [labelled(world.picture(f"p{n}", at), label) for n, (at, label) in enumerate(rows)]

    found = world.ask(
        world.task("gone", ["accuracy"], {"test": 5}, tables=classes(("a", "b"))), records
    )

    assert found.value("accuracy") == pytest.approx(60.0, abs=HAND)
    assert found.samples["prediction"] == [0, 0, 1, 1, -1]
    assert found.result["nan"] == 1
    assert found.result["flags"] == ["1 of 5 samples have a similarity that is no number (NaN)"]


def test_what_is_only_kept_in_the_file_is_not_scored(world):
    """2 of 3 scored questions are right; with the two that are not scored it would be 4 of 5."""
    records = [asked(world, number != 2, number) for number in range(5)]
    records = [replace(row, scored=number < 3) for number, row in enumerate(records)]

    found = world.ask(world.task("kept", ["text"], {"all": 5}), records)

    assert found.value("text") == pytest.approx(200 / 3, abs=HAND)
    assert found.samples["id"] == ["kept 0", "kept 1", "kept 2"]
    assert found.result["n"] == 3


def test_texts_that_a_model_cuts_and_texts_that_become_equal_are_counted(world):
    """A model that sees three words: four different captions are cut; in two records all that is
    left of both captions is the same.
    """
    world.context = 3
    world.text(90, "a class of many words")
    options = [
        ("a red dog", "a red cat"),  # whole
        ("a red dog runs", "a red dog sleeps"),  # both cut, and equal
        ("a red dog", "a red dog runs"),  # cut to what the other is
        ("one red dog runs", "two red dogs run"),  # both cut, and different
    ]
    for number, text in enumerate(dict.fromkeys(text for pair in options for text in pair)):
        world.text(number, text)
    records = [matching([world.picture(f"p{n}", 30 + n)], texts) for n, texts in enumerate(options)]
    found = world.ask(world.task("cut", ["text"], {"all": 4}), records).result["audits"]
    captions = [captioned(row.images[0], *row.texts) for row in records]
    gallery = world.ask(world.task("seen", ["t2i_r1"], {"test": 4}), captions).result["audits"]
    labels = [labelled(row.images[0], number % 2) for number, row in enumerate(records)]
    tables = classes(("a class of many words", "a red dog"))
    task = world.task("named", ["accuracy"], {"test": 4}, tables=tables)

    assert (found["truncated_texts"], found["equal_after_tokenizing"]) == (4, 2)
    assert gallery["truncated_texts"] == 4 and "equal_after_tokenizing" not in gallery
    assert "truncated_texts" not in world.ask(task, labels).result["audits"]


def test_missing_pictures_are_named_and_their_questions_left_out(world):
    """Three of five are right; of those three one loses its picture: 2 of 4."""
    records = [asked(world, number < 3, number) for number in range(5)]
    task = world.task("missing", ["text"], {"all": 5})
    whole = world.ask(task, records)
    (world.raw / "all1.png").unlink()

    found = world.ask(task, records, allow_partial=True)

    assert whole.value("text") == pytest.approx(60.0, abs=HAND)
    assert whole.result["flags"] == []
    assert whole.result["audits"] == {"missing_images": 0, "free": 0, "easier": 0}
    assert found.value("text") == pytest.approx(50.0, abs=HAND)
    assert (found.result["n"], found.result["expected"]) == (4, 5)
    assert found.result["flags"] == ["1 images missing, 1 records out"]
    audits = found.result["audits"]
    assert (audits["missing_images"], audits["missing"]) == (1, ["all1.png"])


def test_a_limit_takes_evenly_spaced_records_and_enters_no_average(world):
    """Of six questions 0 to 3 are right; of the limited three (0, 2, 4) two: 66.7, not 100."""
    records = [asked(world, number < 4, number) for number in range(6)]
    task = world.task("some", ["text"], {"all": 6})

    found = world.ask(task, records, limit=3)

    assert found.value("text") == pytest.approx(200 / 3, abs=HAND)
    assert found.samples["id"] == ["some 0", "some 2", "some 4"]
    assert found.result["flags"] == ["limited to 3 records a subset"]
    assert "strict" not in found.result["metrics"]["headline"]["text"]
    assert found.result["settings"]["limit"] == 3


def test_the_strict_number_stands_there_however_near_it_is(world):
    """Of 120 questions 90 are right, and one of these offers the right caption twice."""
    near, far = world.text(15), world.text(80)
    picture = world.picture("p", 10)
    right, wrong, twice = ((near, far), (far, near), (near, far, near))
    records = [matching([picture], texts) for texts in [*[right] * 89, twice, *[wrong] * 30]]

    found = world.ask(world.task("many", ["text"], {"all": 120}), records)

    assert found.value("text") == pytest.approx(75.0, abs=HAND)
    assert found.strict("text") == pytest.approx(8900 / 120, abs=HAND)
