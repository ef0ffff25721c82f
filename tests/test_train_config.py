"""Recipes and settings: what is accepted, what is refused, and what the paper says comes out."""

import csv
from pathlib import Path

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.train.config import TrainConfig, parse_setting, read_recipe, recipe_names

ROOT = Path(__file__).parent.parent
PRESETS = ["clip", "negclip", "global-hn", "local-hn", "fsc-clip", "fsc-clip-lora", "ce-clip",
           "tsvlc", "degla"]  # fmt: skip


def test_the_presets_and_the_papers_twelve_runs_are_there_by_name():
    names = recipe_names()

    assert names[: len(PRESETS)] == PRESETS
    assert sum("ViT" in name for name in names) == 12


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads_and_says_where_it_comes_from(name):
    recipe = read_recipe(name)

    assert recipe.title and recipe.source
    assert recipe.config.weights


def test_presets_are_settings_of_one_objective():
    weights = {name: read_recipe(name).config.weights for name in PRESETS}

    assert weights["clip"] == {"contrastive": 1.0}
    assert weights["fsc-clip"] == {"contrastive": 1.0, "global_hn": 0.5, "local_hn": 0.2}
    assert read_recipe("fsc-clip").config.focal_gamma == 2.0
    assert read_recipe("fsc-clip").config.label_smoothing == 0.02
    assert read_recipe("fsc-clip-lora").config.learning_rate == 5e-5
    # CC3M has one caption an image and no paraphrases: TSVLC's positive loss is for other data.
    assert weights["tsvlc"] == {"contrastive": 1.0, "global_hn": 1.0}


def test_expected_values_of_the_recipes_are_those_of_the_papers_table():
    # arXiv 2410.05210, table 1, as leaderboards/published quotes it
    with (ROOT / "leaderboards/published/fsc_clip_paper.csv").open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    checked = 0
    for data, lora in [(d, k) for d in ("coco", "cc3m", "laioncoco") for k in ("", "-lora")]:
        name = f"FSC-CLIP{' + LoRA' if lora else ''} (ViT-B-32, {data}-100k)"
        expected = read_recipe(f"{data}{lora}-ViT-B-32").expected
        assert expected == {
            "comp": float(rows[name]["Comp"]),
            "zs": float(rows[name]["ZS"]),
            "i2t": float(rows[name]["I2T"]),
            "t2i": float(rows[name]["T2I"]),
        }
        checked += 1
    assert checked == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lora_rank": 0}, "lora_rank = 0: a rank is at least 1"),
        ({"lora_rnk": 4}, "no setting called 'lora_rnk'. Did you mean 'lora_rank'?"),
        ({"focal_gamma": -1.0}, "focal_gamma = -1.0: it must be 0 (off) or more"),
        ({"label_smoothing": 1.0}, "label_smoothing = 1.0: it must be 0 or more, and below 1"),
        ({"local_hn_weight": -0.2}, "local_hn_weight = -0.2"),
        ({"global_hn_weight": float("nan")}, "global_hn_weight = nan"),
        ({"batch_size": 1}, "batch_size = 1: a contrast needs 2 pairs"),
        ({"batch_size": "256"}, "batch_size = '256': it must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"alignment": "minimax"}, "Did you mean 'minmax'?"),
        ({"precision": "bf8"}, "Did you mean 'bf16'?"),
        ({"negatives": "rule"}, "Did you mean 'rules'?"),
        ({"local_hn_weight": 0.2}, "local_hn_weight need hard negatives"),
        ({"distillation_weight": 0.1}, "set ema_decay too"),
        ({"parallel": "fdsp"}, "parallel = 'fdsp': choose ddp, fsdp. Did you mean 'fsdp'?"),
        ({"parallel": "fsdp", "precision": "fp16"}, 'does not go with precision = "fp16"'),
        ({"positive_text_weight": 1.0}, "positive_text_weight = 1.0 needs paraphrases: set positi"),
        ({"positives": "caption"}, "Did you mean 'captions'?"),
        ({"positive_key": "caption_2"}, "positive_key = 'caption_2' is read with positives"),
        ({"positive_text_weight": -1.0}, "positive_text_weight = -1.0: it must be 0 (off) or more"),
        ({"patience": 2}, "set dev_share too"),
        ({"contrastive_weight": 0.0}, "nothing to learn from"),
        ({"focal_gamma": 2.0}, "both have weight 0"),
        ({"epochs": 0}, "epochs = 0: it must be at least 1"),
        ({"accumulate": 300}, "accumulate = 300 parts"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line_that_names_it(settings, says):
    with pytest.raises(UsageError) as caught:
        TrainConfig().changed(settings)

    assert says in str(caught.value)


def test_a_setting_of_the_command_line_is_toml_or_else_a_word():
    assert parse_setting("epochs=3") == ("epochs", 3)
    assert parse_setting('negative_kinds=["swap"]') == ("negative_kinds", ["swap"])
    assert parse_setting("negatives=rules") == ("negatives", "rules")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_setting("epochs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[setings]\n", "unknown key 'setings'. Did you mean 'settings'?"),
        ("[settings]\nepoch = 3\n", "Did you mean 'epochs'?"),
        ("[expected]\ncompo = 3\n", "Did you mean 'comp'?"),
        ("title = 3\n", "title must be a str"),
        ('extends = "fsc-clop"\n', "Did you mean 'fsc-clip'?"),
        ('extends = "mine.toml"\n', "extend each other in a ring"),
        ("title = \n", "not a readable TOML file"),
    ],
)
def test_a_wrong_recipe_file_is_one_line_that_names_it(text, says, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        read_recipe(path)

    assert says in str(caught.value)


def test_a_recipe_of_ones_own_extends_a_shipped_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "fsc-clip"\n[settings]\nepochs = 1\nlearning_rate = 1\n')

    with pytest.raises(UsageError, match=r"learning_rate = 1\.0"):
        read_recipe(path)
    path.write_text('extends = "fsc-clip"\n[settings]\nepochs = 1\n')
    recipe = read_recipe(path)

    assert (recipe.name, recipe.config.epochs, recipe.config.local_hn_weight) == ("mine", 1, 0.2)
