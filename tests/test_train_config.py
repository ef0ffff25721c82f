"""Recipes and settings: what is accepted, what is refused, and what the paper says comes out."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.train.config import TrainConfig, parse_setting, read_recipe, recipe_names
from fsc_bench.train.published import differences, published_lines

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
        ({"epsilon": float("nan")}, "epsilon = nan: it must be above 0"),
        ({"weight_decay": float("inf")}, "weight_decay = inf: it must be finite"),
        ({"lora_alpha": -1.0}, "lora_alpha = -1.0: it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan: it must be above 0, below 1"),
        ({"crop_scale": float("nan")}, "crop_scale = nan: it must be above 0, at most 1"),
        ({"learning_rate": 10**400}, "it must be a number"),
        ({"seed": -1}, "seed = -1: it must be 0 or more"),
        ({"epochs": 2**40}, "epochs = 1099511627776: it must be below 2,147,483,648"),
        ({"workers": -2}, "workers = -2: 0 or more"),
        ({"max_pairs": -5}, "max_pairs = -5"),
        ({"negatives": "spacey:en_core_web_md"}, "Did you mean 'spacy'?"),
        ({"negatives": "file:"}, "negatives = 'file:'"),
        ({"negatives": "none:x"}, "negatives = 'none:x'"),
        ({"negative_kinds": "swap"}, 'a list of strings, such as ["swap", "replace"]'),
        ({"gather": "refrence"}, "Did you mean 'reference'?"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_line_that_names_it(settings, says):
    with pytest.raises(UsageError) as caught:
        TrainConfig().changed(settings)

    assert says in str(caught.value)


def test_a_number_of_every_setting_that_is_no_number_is_refused():
    numbers = [
        name for name, value in TrainConfig().settings().items() if type(value) in (int, float)
    ]
    assert len(numbers) > 25
    for name in numbers:
        for wrong in (float("nan"), float("inf"), -7.0, -7):
            with pytest.raises(UsageError, match=f"{name} = "):
                TrainConfig().changed({name: wrong})


def test_spacy_takes_a_model_behind_a_colon():
    config = TrainConfig().changed({"negatives": "spacy:en_core_web_md", "global_hn_weight": 0.5})

    assert config.negatives == "spacy:en_core_web_md"


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
        ("title = 3\n", "'title' must be a string, not 3"),
        ('extends = "fsc-clop"\n', "Did you mean 'fsc-clip'?"),
        ('extends = "mine.toml"\n', "extend each other in a ring"),
        ("title = \n", "not TOML"),
        ("notes = [3]\n", "'notes[0]' must be a string, not 3"),
        ("[reference]\nprocess = 4\n", "Did you mean 'processes'?"),
        ('[reference]\nprocesses = "4"\n', "processes = '4' is no int"),
        ("[reference]\nlearning_rate = nan\n", "learning_rate = nan"),
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


# --- what differs from what was published -------------------------------------------------------


def test_a_recipe_has_the_notes_of_what_it_extends_and_as_many_readers_as_there_is_room_for():
    base, run = read_recipe("fsc-clip"), read_recipe("cc3m-ViT-B-32")

    assert len(base.notes) == 3 and run.notes[2:] == base.notes
    assert run.config.workers == base.config.workers == -1
    assert read_recipe("demo-fsc-clip").config.workers == 0  # drawn, not read: no gain


def told_of(recipe, **facts) -> dict[str, str]:
    return {one.name: f"{one.ours} | {one.theirs}" for one in differences(recipe, **facts)}


def test_what_differs_from_the_published_run_is_counted_from_the_settings():
    recipe = read_recipe("laioncoco-ViT-B-32")
    # 100,131 pairs in batches of 256: 391 whole ones and 35 pairs. The reference's four readers
    # fill up to 392 batches, a multiple of four.
    assert told_of(recipe, pairs=100_131, processes=1) == {
        "negatives": "rules | the reference code's: spaCy, WordNet and a scene-graph parser",
        "missing": "mask | zero",
        "epochs": "391 steps each, rounded down | 392, rounded up",
        "logits": "float32 | float16",
    }
    # With 102,400 pairs, 400 batches, nothing is rounded.
    assert "epochs" not in told_of(recipe, pairs=102_400, processes=1)


def test_other_settings_data_and_processes_are_told_beside_the_published_numbers():
    recipe = read_recipe("laioncoco-ViT-L-14")
    config = recipe.config.changed({"learning_rate": 1e-5, "missing": "zero", "max_pairs": 50_000})
    other = replace(recipe, config=config)
    found = told_of(other, pairs=50_000, processes=2)

    assert found["learning_rate"] == "1e-05 | 5e-06"
    assert found["processes"] == "2 | 4" and "missing" not in found
    assert found["data"].startswith("a sample of 50,000 pairs of your own | ")
    # 195 whole batches of 50,000 pairs; there 196, a multiple of its two readers already.
    assert found["epochs"] == "195 steps each, rounded down | 196, rounded up"
    # Gathered as we do it, in whatever number of processes.
    whole = replace(recipe, config=recipe.config.changed({"gather": "whole"}))
    assert told_of(whole, processes=1)["gather"] == "whole | reference, over 4 processes"
    assert told_of(recipe, processes=4).keys() & {"gather", "processes"} == set()


def test_data_of_another_size_is_told_and_of_nearly_the_same_size_not():
    recipe = read_recipe("laioncoco-ViT-B-32")

    assert told_of(recipe, pairs=3_000_000)["data"].startswith("3,000,000 pairs | about 100,000: ")
    assert "data" not in told_of(recipe, pairs=104_000)


def test_where_nothing_was_published_nothing_differs_and_every_number_has_its_differences():
    assert differences(read_recipe("clip")) == []
    assert published_lines(read_recipe("clip"), []) == []
    for name in recipe_names():
        recipe = read_recipe(name)
        found = differences(recipe)
        assert bool(found) == bool(recipe.expected), name
        lines = published_lines(recipe, found)
        assert [line.partition(":")[0] for line in lines[1:]] == ["differs"] * len(found)
