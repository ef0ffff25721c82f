"""The demo world says only what is true, its foils only what is false, and it repeats itself."""

import ast
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsc_bench.demo import raw, world
from fsc_bench.demo.raw import folders
from fsc_bench.demo.world import Description, Mention, Scene, Thing

STAR = Thing("star", "red", "solid", "small", 8, 8)
RING = Thing("ring", "blue", "striped", "large", 40, 8)
SCENE = Scene((STAR, RING), "grass", 2)


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("a red star left of a blue ring", True),
        ("a red star right of a blue ring", False),
        ("a blue ring to the right of a red star on the grass", True),
        ("a blue ring to the right of a red star on the sand", False),
        ("a blue star left of a red ring", False),
        ("a photo of a small red star and a large striped ring", True),
        ("a dotted ring", False),
        ("one star and no heart", True),
        ("no star", False),
        ("two stars", False),
        ("a red object", True),
        ("a ring larger than a star", True),
        ("a ring as large as a star", False),
        ("a red star in the top left", True),
        ("a red star on the left", True),
        ("a red star on the right", False),
        ("On the grass a red star.", True),
        ("star a red of left ring blue a", False),
        ("an red star", False),
        ("a red star left of", False),
    ],
)
def test_a_sentence_is_true_or_false_of_a_scene_one_can_see(text, true):
    assert world.is_true(text, SCENE) is true


def test_relation_needs_distinct_things():
    lone = replace(SCENE, things=(STAR,))
    said = Description((Mention("star"), Mention(colour="red")))
    assert not world.holds(said, lone)


def test_captions_are_true_and_foils_false_on_800_random_scenes():
    rng = world.random_stream("dev", 0)
    made = dict.fromkeys(world.FOILS, 0)
    for number in range(800):
        kind = ("single", "pair", "triple", "count", "mixed", "digit")[number % 6]
        scene = world.sample_scene(rng, kind, split="dev")
        text = world.caption(scene, rng, place=0.2)
        assert world.is_true(text, scene), (text, scene)
        for foil in world.FOILS:
            pair = world.caption_and_foil(scene, foil, rng)
            if pair is None:
                continue
            made[foil] += 1
            true, false = pair
            assert world.is_true(true, scene), (foil, true, scene)
            assert not world.is_true(false, scene), (foil, false, scene)
            if foil != "shuffle":  # false as a sentence, not for being none
                assert world.parse(false) is not None, (foil, false)
    assert min(made.values()) > 80, made


def test_parse_reads_back_what_verbalise_wrote():
    rng = world.random_stream("dev", 1)
    for _ in range(2000):
        scene = world.sample_scene(rng, split="dev")
        description = world.describe(scene, rng, place=0.3)
        assert world.parse(world.verbalise(description, world.sample_style(rng))) == description


def test_edits_change_the_picture_and_keep_the_grain():
    rng = world.random_stream("dev", 2)
    for number in range(600):
        scene = world.sample_scene(rng, ("pair", "count")[number % 2], split="dev")
        changed = world.edit(scene, world.EDITS[number % len(world.EDITS)], rng)
        if changed is not None:
            assert changed != scene and changed.noise == scene.noise
            assert not np.array_equal(world.render(changed), world.render(scene))


def test_the_same_scene_is_drawn_alike_and_another_is_not():
    def draw(seed):
        rng = world.random_stream("train", seed)
        scenes = [world.sample_scene(rng) for _ in range(50)]
        return np.stack([world.render(s) for s in scenes]), [world.caption(s, rng) for s in scenes]

    pictures, captions = draw(3)
    again, words = draw(3)
    assert pictures.shape == (50, 48, 48, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, again) and captions == words
    assert not np.array_equal(pictures, draw(4)[0])


def test_no_scene_is_in_two_splits():
    noise = {
        split: {
            world.sample_scene(world.random_stream(split, s), split=split).noise for s in range(300)
        }
        for split in world.SPLITS
    }
    assert not noise["train"] & noise["dev"]
    assert not noise["train"] & noise["test"]
    assert not noise["dev"] & noise["test"]
    assert world.sample_scene(world.random_stream("test", 0), split="test").split == "test"


def test_fine_tuning_sees_a_part_of_the_world():
    rng = world.random_stream("train", 5)
    scenes = [world.sample_scene(rng, domain=world.FINETUNE) for _ in range(500)]
    things = [t for s in scenes for t in s.things]
    assert {t.shape for t in things} == set(world.FINETUNE.shapes) < set(world.SHAPES)
    assert {t.colour for t in things} == set(world.FINETUNE.colours) < set(world.COLOURS)
    assert {s.background for s in scenes} == set(world.FINETUNE.backgrounds)
    assert all(s.digit is None for s in scenes)


def test_things_do_not_cover_each_other():
    rng = world.random_stream("dev", 6)
    for _ in range(500):
        scene = world.sample_scene(rng, split="dev")
        cells = [world.cell_of(t) for t in scene.things]
        assert len(cells) == len(set(cells))


# --------------------------------------------------------------------------- raw copies


def test_raw_copies_repeat_byte_for_byte(tmp_path):
    for folder in ("one", "two"):
        base = tmp_path / folder
        images = base / "images"
        raw.write("winoground", base / "winoground", images, n=8)
        raw.write("sugarcrepe", base / "sugarcrepe", images, n=3)
        raw.write("idx_digits", base / "mnist", images, n=20)
    first, second = (
        {p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*.*")}
        for f in ("one", "two")
    )
    assert first == second and len(first) == 2 + 7 + 21 + 2


def test_sugarcrepe_copy_has_the_official_shape(tmp_path):
    raw.write("sugarcrepe", tmp_path / "raw", tmp_path, n=4)
    for subset in ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att",
                   "add_obj", "add_att"):  # fmt: skip
        rows = json.loads((tmp_path / "raw" / f"{subset}.json").read_text())
        assert len(rows) == 4
        for row in rows.values():
            assert row["caption"] != row["negative_caption"]
            with Image.open(tmp_path / "coco/val2017" / row["filename"]) as image:
                assert image.size == (48, 48)


def test_sources_shared_by_benchmarks_keep_their_images(tmp_path):
    images = tmp_path / "images"
    raw.write("sugarcrepe", tmp_path / "a", images, n=5)
    raw.write("valse", tmp_path / "b", images, n=5)
    raw.write("whatsup", tmp_path / "c", images, n=8)
    # 7 x 5, two pieces of VALSE with one record in five dropped, 8 + 8 of What'sUp
    assert len(list((tmp_path / "images/coco/val2017").iterdir())) == 35 + 2 * 6 + 16


def test_youcook2_pictures_are_blue_green_red(tmp_path):
    raw.write("eqben", tmp_path, tmp_path, n=1)
    rows = json.loads((tmp_path / "ann_json_finegrained_random.json").read_text())
    assert len(rows) == 7 * 4
    frame = np.load(tmp_path / "eqbenyoucook2/scene_00000/000000.npy")
    assert frame.shape == (48, 48, 3) and frame.dtype == np.uint8


def test_crepe_captions_have_five_other_captions(tmp_path):
    raw.write("crepe", tmp_path, tmp_path, n=5)
    for kind in ("atom", "swap", "negate"):
        path = tmp_path / "prod_hard_negatives" / kind / f"prod_vg_hard_negs_{kind}_all.csv"
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert len(rows) == 5
        for row in rows:
            foils = ast.literal_eval(row["hard_negs"])
            assert len({row["caption"], *foils}) == 6


def test_class_folders_hold_every_class(tmp_path):
    for family, names in folders.PARTS.items():
        raw.write(f"folders/{family}", tmp_path / family, tmp_path, n=1)
        assert sorted(p.name for p in (tmp_path / family).iterdir()) == sorted(names)


def test_a_module_of_the_folder_is_a_recipe_and_its_parts_are_recipes():
    names = {path.stem for path in Path(raw.__file__).parent.glob("*.py")} - {"__init__"}
    assert {recipe.partition("/")[0] for recipe in raw.recipes()} == names
    assert {"winoground", "folders/sizes"} < set(raw.recipes())
    with pytest.raises(ValueError, match="no recipe called 'folders'"):
        raw.write("folders", Path("unused"), Path("unused"))


def test_no_two_recipes_draw_the_same_scenes():
    """Pictures of a shared image source would else overwrite each other, under one number."""
    drawn = [
        number
        for path in sorted(Path(raw.__file__).parent.glob("*.py"))
        for number in set(re.findall(r"stream\(seed, (\d+)\)", path.read_text()))
    ]
    assert len(drawn) == len(set(drawn)) >= 14


# --------------------------------------------------------------------------- models


def test_tokenizer_round_trip_and_end_token():
    model = pytest.importorskip("fsc_bench.demo.model")
    tokenizer = model.WordTokenizer()
    rng = world.random_stream("dev", 7)
    texts = [world.caption(world.sample_scene(rng, split="dev"), rng) for _ in range(200)]
    tokens = tokenizer(texts)
    assert tokens.shape == (200, model.CONTEXT_LENGTH)
    assert [tokenizer.decode(row.tolist()) for row in tokens] == texts
    assert (tokens.max(dim=1).values == tokenizer.eot_token_id).all()
    assert tokenizer.encode("a zyzzyva") == [tokenizer.ids["a"], model.UNKNOWN]
    assert tokenizer(["red " * 50])[0, -1] == tokenizer.eot_token_id  # cut, the end kept


def test_captions_fit_the_context():
    model = pytest.importorskip("fsc_bench.demo.model")
    rng = world.random_stream("dev", 8)
    for kind in ("triple", "pair"):
        for _ in range(500):
            scene = world.sample_scene(rng, kind, split="dev")
            text = world.caption(scene, rng)
            assert len(text.split()) + 2 <= model.CONTEXT_LENGTH


def test_shipped_weights_load_and_recognise():
    model = pytest.importorskip("fsc_bench.demo.model")
    files = sorted(model.WEIGHTS.glob("*.safetensors"))
    assert model.WEIGHTS / "pretrained.safetensors" in files
    for file in files:
        assert file.stat().st_size <= 4e6
        metadata = model.read_metadata(file)
        assert json.loads(metadata["architecture"]) == model.architecture()
        assert {"recipe", "seed", "steps"} <= metadata.keys()
    clip, preprocess, tokenizer = model.load(model.WEIGHTS / "pretrained.safetensors")
    clip.visual.output_tokens = False
    scene = world.sample_scene(world.random_stream("dev", 9), "single", split="dev", colour="red")
    image = preprocess(Image.fromarray(world.render(scene)))[None]
    texts = tokenizer([f"a photo of a {c} object" for c in world.COLOURS])
    scores = clip.encode_image(image, normalize=True) @ clip.encode_text(texts, normalize=True).T
    assert tuple(world.COLOURS)[int(scores.argmax())] == "red"
