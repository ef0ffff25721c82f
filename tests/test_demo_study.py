"""The study of the demo world says what its numbers say, and says so where they do not suffice."""

import json
import math
import shutil

import pytest
from safetensors.torch import load_file

from fsc_bench.demo import study
from fsc_bench.demo.model import WEIGHTS
from fsc_bench.demo.study import Condition, overall, t_interval
from fsc_bench.train.config import read_recipe

HIGHER = Condition("ZS", ((1, "new"), (-1, "old")), ">")


def seeds(*pairs, metric="ZS"):
    """Made-up scores: (new, old) of each seed."""
    return {s: {"new": {metric: n}, "old": {metric: o}} for s, (n, o) in enumerate(pairs)}


def test_interval_over_three_seeds_is_students():
    low, high = t_interval([1.0, 2.0, 3.0])

    assert (low, high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=0.001)  # 4.303 / sqrt(3)
    assert t_interval([5.0]) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(60, 50), (61, 50), (62, 50)], "holds"),
        ([(40, 50), (39, 50), (41, 50)], "does not hold"),
        ([(51, 50), (49, 50), (52, 50)], "undecided"),
        ([(60, 50)], "undecided"),  # one seed has no spread to judge by
        ([], "-"),
    ],
)
def test_a_difference_counts_only_beyond_its_interval(pairs, verdict):
    assert HIGHER.verdict(HIGHER.values(seeds(*pairs))) == verdict


@pytest.mark.parametrize(
    ("sign", "values", "verdict"),
    [
        (">=", [-1.0, -1.1, -0.9], "holds"),  # worse, by less than the two points forgiven
        (">=", [-5.0, -5.1, -4.9], "does not hold"),
        (">=", [9.0, 9.1, 8.9], "holds"),
        ("=", [9.0, 9.1, 8.9], "does not hold"),
        ("=", [0.1, -0.1, 0.0], "holds"),
        ("<", [-0.1, -0.2, -0.3], "undecided"),
        ("<", [-5.0, -5.1, -4.9], "holds"),
    ],
)
def test_not_worse_and_the_same_forgive_their_margin(sign, values, verdict):
    margin = 2.0 if "=" in sign else 0.0
    assert Condition("ZS", ((1, "new"), (-1, "old")), sign, margin).verdict(values) == verdict


def test_seeds_are_compared_with_themselves():
    # The seeds differ by 40 points, the models of a seed by 1 every time.
    assert HIGHER.verdict(HIGHER.values(seeds((51, 50), (71.1, 70), (90.9, 90)))) == "holds"


def test_a_claim_is_as_strong_as_its_weakest_condition():
    assert overall(["holds", "holds"]) == "holds"
    assert overall(["holds", "undecided"]) == "undecided"
    assert overall(["undecided", "does not hold", "-"]) == "does not hold"
    assert overall(["holds", "-", "undecided"]) == "-"


def test_c7_asks_whether_the_gains_add_up():
    _, conditions = study.claims()["C7"]
    additive = conditions[1]
    i2t = {"both": 50, "both-focal": 54, "both-smoothing": 53, "fsc-clip": 57}
    scores = {0: {name: {"I2T": value} for name, value in i2t.items()}}

    assert additive.values(scores) == [0]  # 7 = 4 + 3


def test_c1_of_the_papers_own_table():
    # Table 2, rows 0 and 1, as three seeds that agree.
    row = {"pretrained": (46.1, 57.1, 63.4, 46.4), "global-hn": (54.0, 53.6, 50.8, 54.3)}
    names = ("Comp", "ZS", "I2T", "T2I")
    scores = {
        seed: {m: dict(zip(names, (v + 0.1 * seed * (m != "pretrained") for v in values),
                           strict=True)) for m, values in row.items()}
        for seed in range(3)
    }  # fmt: skip
    verdicts = [c.verdict(c.values(scores)) for c in study.claims()["C1"][1]]

    assert verdicts == ["holds"] * 3


def test_every_claim_names_models_and_metrics_of_the_study():
    for comp in ("Comp", "binding"):
        for _, conditions in study.claims(comp).values():
            for condition in conditions:
                assert condition.metric in study.METRICS
                assert {name for _, name in condition.terms} <= {*study.MODELS, "pretrained"}


def test_every_model_of_the_study_is_a_recipe_that_reads():
    for name, (recipe, changes) in study.MODELS.items():
        config = read_recipe(recipe).config.changed(changes)
        assert config.weights, name


def test_tables_are_of_what_is_there(tmp_path):
    kinds = ("swap_attribute", "swap_texture", "swap_size", "swap_object", "replace_relation",
             "replace_object", "replace_attribute", "replace_texture", "replace_size",
             "replace_count", "replace_background", "shuffle")  # fmt: skip
    for seed, binding in ((0, 60.0), (1, 70.0)):
        figures = dict.fromkeys(kinds, 90.0) | dict.fromkeys(kinds[:5], binding)
        figures |= {"zero_shot_shape": 80.0, "zero_shot_colour": 100.0, "i2t": 50.0, "t2i": 40.0}
        suite = {"Comp": 55.0, "ZS": 65.0, "I2T": 75.0, "T2I": 85.0}
        (tmp_path / f"seed-{seed}").mkdir()
        path = tmp_path / f"seed-{seed}" / "pretrained.json"
        path.write_text(json.dumps({"dev": figures, "test": figures | suite}))

    page = study.tables(study.read_scores(tmp_path))

    assert "| pretrained | 2 | 90.0 ±0.0 | 50.0 ±0.0 | 40.0 ±0.0 | 65.0 ±63.5 |" in page  # dev
    assert "| pretrained | 2 | 55.0 ±0.0 | 65.0 ±0.0 | 75.0 ±0.0 | 85.0 ±0.0 | 65.0 ±63.5 |" in page
    assert "ZS: global-hn - pretrained < 0: -, -" in page  # nothing to compare with yet


def test_an_averaged_model_lies_halfway_weight_by_weight(tmp_path):
    for name in ("pretrained", "fsc-clip"):
        run = tmp_path / "seed-0" / name
        run.mkdir(parents=True)
        shutil.copy(WEIGHTS / f"{name}.safetensors", run / "model.safetensors")
        (run / "config.json").write_text('{"skeleton": "demo:pretrained"}')

    half = study.averaged(tmp_path, 0, "fsc-clip-wise")

    start, end, mixed = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "seed-0" / "pretrained", tmp_path / "seed-0" / "fsc-clip", half)
    )
    for key, weight in mixed.items():
        expected = (start[key].float() + end[key].float()) / 2
        assert (weight.float() - expected).abs().max() <= 1e-3 * max(1, expected.abs().max())
    moved = [key for key in mixed if not start[key].equal(end[key])]
    assert len(moved) > len(mixed) / 2
