"""Pretraining teaches facts that are true, repeats itself, and made the weights that ship."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from fsc_bench.demo import finetune, world
from fsc_bench.demo import model as demo_model
from fsc_bench.demo.pretrain import (
    FACTS,
    FactHead,
    LookHead,
    PretrainConfig,
    facts_of_scene,
    facts_of_text,
    metadata,
    pretrain,
)
from fsc_bench.demo.world import Scene, Thing
from fsc_bench.train.config import TrainConfig, read_recipe

SCENE = Scene(
    (
        Thing("star", "red", "solid", "small", 8, 8),
        Thing("ring", "blue", "striped", "large", 40, 8),
    ),
    "grass",
    2,
)
FEW = {
    "look_steps": 2, "look_batch": 4, "read_steps": 2, "read_batch": 4, "web_steps": 1,
    "mixed_steps": 2, "batch": 4,
}  # fmt: skip


def test_facts_of_a_scene_one_can_see():
    assert facts_of_scene(SCENE) == {
        "colour": [("red", "star"), ("blue", "ring")],
        "texture": [("solid", "star"), ("striped", "ring")],
        "size": [("small", "star"), ("large", "ring")],
        "role": [("left", "star"), ("right", "ring")],
        "background": ["grass"],
        "count": [],
        "digit": [],
    }


def test_facts_of_a_sentence_are_what_it_states():
    facts = facts_of_text("a red star left of a striped ring on the grass")

    assert facts["colour"] == [("red", "star")]
    assert facts["texture"] == [("striped", "ring")]
    assert facts["role"] == [("left", "star"), ("right", "ring")]
    assert facts["background"] == ["grass"]
    assert not any(facts_of_text("stock red star ring blue").values())


def test_what_a_true_sentence_states_its_scene_holds():
    rng = world.random_stream("dev", 3)
    stated = dict.fromkeys(FACTS, 0)
    for _ in range(1000):
        scene = world.sample_scene(rng, split="dev")
        seen, said = facts_of_scene(scene), facts_of_text(world.caption(scene, rng))
        for name in FACTS:
            assert set(said[name]) <= set(seen[name]), (name, scene, said)
            stated[name] += len(said[name])
    assert all(stated.values()), stated


def test_swapped_colours_are_other_facts_in_the_same_words():
    true = facts_of_text("a red star and a blue ring")
    swapped = facts_of_text("a blue star and a red ring")

    assert not set(true["colour"]) & set(swapped["colour"])


def test_a_pairs_cells_are_asked_where_they_are_as_seen_from_each_other():
    """The star is left, the ring right. A head that says "left, 3 to 1" and "no, 3 to 1" of the
    other three wherever it looks is wrong of the ring twice."""
    head = LookHead(4, 8)
    with torch.no_grad():
        head.roles.weight.zero_()
        head.roles.bias.copy_(math.log(3) * torch.tensor([1.0, -1.0, -1.0, -1.0]))
    third = Thing("square", "green", "solid", "small", 24, 40)
    crowd = Scene((*SCENE.things, third), "grass", 2)

    losses = head(torch.zeros(2, 8), torch.zeros(2, 36, 4), [SCENE, crowd])

    right, wrong = -math.log(3 / 4), -math.log(1 / 4)
    assert float(losses["roles"].detach()) == pytest.approx(
        4 * (6 * right + 2 * wrong) / 8, abs=1e-6
    )
    assert "roles" not in head(torch.zeros(1, 8), torch.zeros(1, 36, 4), [crowd])


def test_nothing_stated_nothing_lost():
    head = FactHead(8)

    assert float(head(torch.randn(2, 8), [facts_of_text(""), facts_of_text("cute icon")])) == 0


def test_a_seed_names_one_model():
    quiet = {"log": lambda line: None}
    one, same, other = (
        pretrain(PretrainConfig(seed=seed, **FEW), **quiet).state_dict() for seed in (0, 0, 1)
    )

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["visual.proj"], other["visual.proj"])


def test_shipped_weights_name_the_recipes_that_stand_here():
    said = demo_model.read_metadata(demo_model.WEIGHTS / "pretrained.safetensors")
    assert json.loads(said["config"]) == asdict(PretrainConfig())
    assert said == json.loads(json.dumps(metadata(PretrainConfig())))

    for name in finetune.MODELS:
        said = demo_model.read_metadata(demo_model.WEIGHTS / f"{name}.safetensors")
        recipe = read_recipe(f"demo-{name}").config
        assert said["recipe"] == f"demo-{name}"
        # Settings that came after the weights were made have their defaults, which change nothing.
        defaults = json.loads(json.dumps(TrainConfig().settings()))
        recorded = defaults | json.loads(said["config"])
        assert recorded == json.loads(json.dumps(recipe.settings()))


def test_shipped_models_start_from_the_shipped_pretrained_one():
    from fsc_bench.models import load_model

    base = load_model("demo:pretrained", "cpu").identity.weights
    for name in finetune.MODELS:
        said = demo_model.read_metadata(demo_model.WEIGHTS / f"{name}.safetensors")
        assert said["base"] == base


def test_shipped_weights_stay_small():
    for path in demo_model.WEIGHTS.glob("*.safetensors"):
        assert path.stat().st_size < 3 * 2**20, path
