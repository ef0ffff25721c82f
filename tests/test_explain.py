"""Explain: maps that are the loss's own tensors, boxes where the model sees them, and scores."""

import csv
import json
import re

import numpy as np
import open_clip
import pytest
import tiny_families
import torch
import typer
from PIL import Image
from test_train_cli import command as of_training

from fsc_bench.cli import explain as cli
from fsc_bench.cli.main import OneLineErrors
from fsc_bench.demo import world
from fsc_bench.study import boxes as sources
from fsc_bench.study.boxes import content_places, named_places, places_in_scene
from fsc_bench.study.explain import Explainer, different, explain, split_words
from fsc_bench.study.geometry import Grid, frame_of
from fsc_bench.study.localisation import ALL, Scored, localise, mass_inside, table
from fsc_bench.train.batches import Part, text_blocks
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.layout import OF_CLIP
from fsc_bench.train.objective import local_term

app = typer.Typer(cls=OneLineErrors)
cli.add_commands(app)
app.command("other")(lambda: None)  # a lone command would be the program itself

CAPTION = "a small red star left of a large blue ring"
FOIL = "a small blue star left of a large red ring"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def demo() -> Explainer:
    return Explainer("demo:fsc-clip", "cpu")


@pytest.fixture(scope="module")
def scene() -> world.Scene:
    things = (
        world.Thing("star", "red", "solid", "small", 8, 24),
        world.Thing("ring", "blue", "solid", "large", 40, 25),
    )
    return world.Scene(things, "grass", noise=5)


@pytest.fixture(scope="module")
def picture(scene) -> Image.Image:
    return Image.fromarray(world.render(scene))


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        app(["explain", *map(str, arguments)])
    return end.value.code


# ---------------------------------------------------------------- maps


def loss_tensors(explainer: Explainer, images, texts) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [B, L, P] and cosine [B, L] as the training's own local loss keeps them."""
    rows = [row for row, own in enumerate(texts) for _ in own]
    places = [place for own in texts for place in range(len(own))]
    ids = explainer.adapter.tokenizer([text for own in texts for text in own])
    blocks = text_blocks(ids, rows, places, 1, explainer.layout)
    mask = torch.tensor([[len(own) > 1] for own in texts])
    part = Part(
        torch.stack([explainer.adapter.preprocess(image) for image in images]), blocks, mask
    )
    explainer.towers.requires_grad_(True)
    encoded = explainer.towers(part.images, [b.ids for b in blocks], [b.end for b in blocks])
    config = TrainConfig(local_hn_weight=0.2, negatives="data")
    loss = local_term(config, part, encoded, torch.tensor(2.0), encoded.logit_scale)
    nodes = [loss.grad_fn]
    while "AlignedCosine" not in nodes[-1].name():
        node = nodes.pop()
        nodes += [before for before, _ in node.next_functions if before is not None]
    node = nodes[-1]
    return node.saved_tensors[2].detach(), node.saved_tensors[3].detach()


def test_maps_are_the_local_losss_own_tensors(demo, picture):
    images = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    texts = [[CAPTION, FOIL], ["a blue ring"]]
    attention, cosine = loss_tensors(demo, images, texts)

    ((caption, foil), (lone,)) = demo.read(images, texts)

    # A word is a token here, the end token is the loss's and no word's: 10 + 1 + 10 + 1 of a row.
    share = attention / attention.sum(-1, keepdim=True)
    for reading, row, begin in ((caption, 0, 0), (foil, 0, 11), (lone, 1, 0)):
        assert len(reading.words) == len(reading.text.split())
        for number, word in enumerate(reading.words, begin):
            assert word.map.ravel() == pytest.approx(share[row, number].numpy(), abs=1e-7)
            assert word.cosine == pytest.approx(float(cosine[row, number]), abs=1e-6)
        assert sum(word.share for word in reading.words) + reading.rest == pytest.approx(1)
    scale = float(demo.adapter.model.logit_scale.detach().exp())
    expected = torch.logsumexp(scale * cosine[0, 11:22], 0)
    assert foil.local_score == pytest.approx(float(expected), rel=1e-5)
    assert foil.words[2].map.std() > 0 and not np.allclose(foil.words[2].map, caption.words[2].map)


def test_the_tokens_of_a_word_are_joined_and_start_and_end_left_out():
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    text = "A  giraffe's sunhat, 1234"
    found = split_words(text, tokenizer, OF_CLIP)
    ids = tokenizer([text])[0]

    assert [word for word, _ in found] == ["A", "giraffe's", "sunhat,", "1234"]
    # giraffe + 's; sun + hat + comma; a token for each digit; 0 is the start, 11 the end.
    assert [(own.start, own.stop) for _, own in found] == [(1, 2), (2, 4), (4, 7), (7, 11)]
    assert int(ids[11]) == tokenizer.eot_token_id


def test_a_word_without_a_token_of_its_own_goes_with_its_neighbour(demo):
    found = split_words("- a red - star !", demo.adapter.tokenizer, demo.layout)

    assert found == [("- a", range(1, 2)), ("red", range(2, 3)), ("- star !", range(3, 4))]


@pytest.mark.parametrize("kind", ["vit", "resnet", "coca", "sigmoid", "map"])
def test_every_tower_that_the_local_loss_trains_is_explained(kind, tmp_path_factory, picture):
    tiny_families.register(tmp_path_factory.mktemp("families"))

    one = explain(Explainer(f"open_clip:tiny-{kind}/random", "cpu"), picture, "a red car", None)

    rows = 2 if kind == "resnet" else 4 if kind != "map" else one.grid.rows
    assert (one.grid.rows, one.grid.columns) == (rows, rows)
    assert [word.text for word in one.caption.words] == ["a", "red", "car"]
    for word in one.caption.words:
        assert word.map.shape == (rows, rows) and word.map.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("caption", "foil", "numbers"),
    [
        (CAPTION, FOIL, ({2, 8}, {2, 8})),
        ("a dog, and a cat", "A dog and a red cat.", (set(), {4})),
        ("a man on a horse", "a horse on a man", ({1, 4}, {1, 4})),
        ("two dogs run", "two dogs", ({2}, set())),
    ],
)
def test_words_that_the_other_text_lacks_in_its_place_differ(caption, foil, numbers):
    assert different(caption, foil) == numbers


def test_explain_writes_a_picture_a_page_and_json_of_both_models(picture, tmp_path, capsys):
    picture.save(tmp_path / "in <1>.png")

    assert run("demo:fsc-clip", tmp_path / "in <1>.png", CAPTION, "--foil", FOIL, "--base",
               "demo:pretrained", "-o", tmp_path / "out", "--json") == 0  # fmt: skip

    found = json.loads(capsys.readouterr().out)["explained"]
    assert [one["model"] for one in found] == ["demo:pretrained", "demo:fsc-clip"]
    for one in found:
        assert [w["word"] for w in one["foil"]["words"] if w["differs"]] == ["blue", "red"]
        assert np.sum(one["caption"]["words"][3]["map"]) == pytest.approx(1)
    page = (tmp_path / "out" / "explain.html").read_text()
    assert page.count("<figure>") == 40 and page.count('class="differs"') == 8
    assert "http" not in page and 'src="data:image/png' in page
    with Image.open(tmp_path / "out" / "explain.png") as sheet:
        assert sheet.width > 1000 and len(sheet.getcolors(1 << 20)) > 1000


# ---------------------------------------------------------------- geometry


def test_a_box_lies_where_resize_and_centre_crop_put_it():
    """96 x 64 becomes 48 x 32, of which 8 columns are cut off at the left: a box from (20, 10) to
    (40, 30) is one from (2, 5) to (12, 15) of 32 x 32.
    """
    preprocess = open_clip.image_transform(32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    shown = Image.new("RGB", (96, 64))
    shown.paste((255, 255, 255), (20, 10, 40, 30))
    frame = frame_of(preprocess, 96, 64, "it")

    assert frame.to_input(np.array([[20, 10, 40, 30]])).tolist() == [[2, 5, 12, 15]]
    assert frame.seen(96, 64) == (16, 0, 80, 64)
    bright = np.argwhere(preprocess(shown)[0].numpy() > 0.5)
    assert (*bright.min(0), *bright.max(0)) == (5, 2, 14, 11)  # rows, columns of pixels inside
    # Patches of 8: 6 of 8 columns and 3 of 8 rows of the first, and so on; all is 100 of 1024.
    covered = Grid(4, 4, (8.0, 8.0)).covered(frame.to_input(np.array([[20, 10, 40, 30]])))
    assert (64 * covered[:2, :2]).tolist() == [[18, 12], [42, 28]]
    assert covered.mean() == 100 / 1024 and covered[2:].sum() == covered[:, 2:].sum() == 0


@pytest.mark.parametrize(
    ("mode", "size", "scale", "offset"),
    [
        ("shortest", (99, 64), (49 / 99, 0.5), (8, 0)),  # 49.5 is cut, 8.5 rounded to even
        ("shortest", (40, 60), (0.8, 48 / 60), (0, 8)),
        ("squash", (100, 50), (0.32, 0.64), (0, 0)),
        ("longest", (100, 50), (0.32, 0.32), (0, -8)),  # 16 rows, padded by 8 above
    ],
)
def test_every_way_of_open_clip_to_fit_a_picture_is_known(mode, size, scale, offset):
    preprocess = open_clip.image_transform(
        32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode
    )
    frame = frame_of(preprocess, *size, "it")

    assert frame.scale == pytest.approx(scale) and frame.offset == offset
    assert frame.size == (32, 32)


def test_what_boxes_share_counts_once_and_a_strip_without_patches_not_at_all():
    """Patches of 3 in 10 pixels: a 9 x 9 area. Boxes 0-4 and 2-6 of the columns are 6 of 9."""
    grid = Grid(3, 3, (3.0, 3.0))

    covered = grid.covered(np.array([[0, 0, 4, 10], [2, 0, 6, 10.0]]))

    assert covered.tolist() == [[1, 1, 0]] * 3
    assert grid.covered(np.array([[9, 0, 10, 10.0]])).sum() == 0


# ---------------------------------------------------------------- scores


def test_a_planted_alignment_scores_1_and_a_uniform_one_the_boxs_share():
    covered = Grid(4, 4, (8.0, 8.0)).covered(np.array([[4, 8, 24, 16.0], [0, 24, 8, 32]]))
    planted = np.zeros((4, 4))
    planted[1, 1], planted[1, 2], planted[3, 0] = 0.5, 2.0, 0.25

    assert covered.sum() == 3.5
    assert mass_inside(planted, covered) == (1.0, 3.5 / 16)
    assert mass_inside(np.full((4, 4), 0.2), covered) == pytest.approx((3.5 / 16, 3.5 / 16))
    half = np.zeros((4, 4))
    half[1, 0], half[0, 0] = 3, 1  # the first is half in the box
    assert mass_inside(half, covered)[0] == 1.5 / 4


def scored(picture: str, inside: float, kind="object", text="caption", differs=False) -> Scored:
    return Scored(picture, text, 1, "dog", kind, differs, inside, 0.25)


def test_a_line_has_the_mean_its_difference_from_the_box_and_from_the_base():
    base = [scored("a", 0.2), scored("b", 0.4, "colour", differs=True), scored("c", 0.3)]
    base += [scored("b", 0.1, text="foil", differs=True)]
    tuned = [scored("a", 0.5), scored("b", 0.6, "colour", differs=True), scored("c", 0.4)]
    tuned += [scored("b", 0.2, text="foil", differs=True)]

    lines = {line.group: line for line in table({"base": base, "tuned": tuned})}

    assert list(lines) == [ALL, "caption, object", "caption, colour", "caption, words that differ",
                           "foil, words that differ"]  # fmt: skip
    every = lines[ALL]
    assert (every.words, every.pictures, every.box) == (3, 3, pytest.approx(25))
    assert (every.models["base"].b, every.models["tuned"].b) == pytest.approx((30, 50))
    assert every.models["tuned"].difference == pytest.approx(25)
    assert every.against_base.difference == pytest.approx(20)
    assert every.against_base.low <= 20 <= every.against_base.high
    assert lines["caption, object"].models["tuned"].b == pytest.approx(45)
    assert lines["foil, words that differ"].models["base"].difference == pytest.approx(-15)


def test_a_sentences_words_stand_for_the_thing_with_their_outline(scene):
    star, ring = (world.box_of(thing) for thing in scene.things)
    places = places_in_scene(CAPTION, scene)
    foil = places_in_scene("two blue hearts and a small blue star", scene)

    assert {n: (place.kind, place.boxes) for n, place in places.items()} == {
        1: ("size", (star,)), 2: ("colour", (star,)), 3: ("object", (star,)),
        7: ("size", (ring,)), 8: ("colour", (ring,)), 9: ("object", (ring,)),
    }  # fmt: skip
    assert {n: place.boxes for n, place in foil.items()} == dict.fromkeys((5, 6, 7), (star,))
    # What is drawn of the ring, and nothing else, lies in its box: it reaches all four edges.
    alone = world.Scene(scene.things[:1], scene.background, scene.noise)
    drawn = np.abs(world.render(scene).astype(int) - world.render(alone)).sum(-1) > 60
    rows, columns = np.argwhere(drawn).T
    assert ring == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_categorys_words_are_found_in_singular_and_plural_and_of_several_words():
    here = {name: [(1, 2, 3, 4)] for name in ("dog", "hot dog", "person", "traffic light", "bus")}

    found = named_places("Two Traffic lights, some people, a hot dog and two dogs; buses.", here)

    assert sorted(found) == [1, 2, 4, 6, 7, 10, 11]
    assert named_places("a doghouse and a personal bust", here) == {}


def test_nouns_and_adjectives_of_a_regions_phrase_stand_for_the_region():
    found = content_places("the red bus near a tall building", (1, 2, 3, 4))

    assert {n: place.kind for n, place in found.items()} == {
        1: "adjective", 2: "noun", 5: "adjective", 6: "noun",
    }  # fmt: skip


@pytest.fixture
def coco(tmp_path, picture):
    """Two pictures, one with a ring that COCO's files call a donut, one without a word for it."""
    names = ("000000000001.jpg", "000000000002.jpg")
    for name in names:
        picture.resize((96, 48)).save(tmp_path / name)
    instances = {
        "images": [{"id": n, "file_name": name, "width": 96} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": 0, "category_id": 7, "bbox": [64, 8, 28, 34], "iscrowd": 0},
            {"image_id": 0, "category_id": 9, "bbox": [0, 0, 12, 40], "iscrowd": 0},  # cut off
            {"image_id": 1, "category_id": 7, "bbox": [24, 0, 48, 48], "iscrowd": 0},
        ],
        "categories": [{"id": 7, "name": "ring"}, {"id": 9, "name": "star"}],
    }
    said = [(0, "something"), (0, "a red star and blue rings"), (1, "a large ring on the grass")]
    captions = {"annotations": [{"image_id": n, "caption": text} for n, text in said]}
    (tmp_path / "instances_val2017.json").write_text(json.dumps(instances))
    (tmp_path / "captions_val2017.json").write_text(json.dumps(captions))
    return tmp_path


def test_cocos_instances_and_captions_are_scored_and_say_how_to_repeat_it(coco, capsys):
    out = coco / "out"

    assert run("demo:fsc-clip", "--base", "demo:pretrained", "--score", "--boxes",
               coco / "instances_val2017.json", "--captions", coco / "captions_val2017.json",
               "--images", coco, "-o", out) == 0  # fmt: skip

    found = json.loads((out / "score.json").read_text())
    line = found["lines"][0]
    # 96 x 48 is cropped to columns 24-72: of the first picture's ring 8 of 28 columns are seen.
    shares = (8 * 34 / 48**2, 1.0)
    assert (line["group"], line["words"], line["pictures"]) == (ALL, 2, 2)
    assert line["box"] == pytest.approx(100 * sum(shares) / 2)
    assert found["left_out"] == {
        f"demo:{name}: words whose box the model does not see": 1
        for name in ("pretrained", "fsc-clip")
    }
    rows = list(csv.DictReader((out / "words.csv").read_text().splitlines()))
    assert {(row["picture"], row["word"]) for row in rows if row["text"] == "caption"} == {
        ("000000000001.jpg", "rings"), ("000000000002.jpg", "ring"),
    }  # fmt: skip
    assert float(rows[-1]["box"]) in (1.0, pytest.approx(shares[0], abs=1e-6))
    text = (out / "score.md").read_text()
    assert f"--boxes {coco / 'instances_val2017.json'}" in text and "2 pictures" in text
    assert "caption, object" in capsys.readouterr().out


def test_regions_are_scored_one_of_each_picture(tmp_path, picture, capsys):
    (tmp_path / "VG_100K").mkdir()
    picture.save(tmp_path / "VG_100K" / "7.jpg")
    region = {"region_id": 1, "image_id": 7, "phrase": "a blue ring", "x": 30, "y": 15,
              "width": 18, "height": 20}  # fmt: skip
    other = {**region, "phrase": "in front of it"}  # no noun: nothing to look for
    file = tmp_path / "region_descriptions.json"
    file.write_text(json.dumps([{"id": 7, "regions": [other, region]}, {"id": 8, "regions": []}]))

    examples, words = sources.examples_of_files(file, None, tmp_path, 5, 0, tmp_path)
    found = localise([Explainer("demo:fsc-clip", "cpu")], examples)

    assert words == "1 pictures of region_descriptions.json"
    rows = [row for row in found.rows["demo:fsc-clip"] if row.text == "caption"]
    assert [(row.word, row.kind) for row in rows] == [("blue", "adjective"), ("ring", "noun")]
    assert [row.box for row in rows] == pytest.approx([18 * 20 / 48**2] * 2)


def test_demo_scenes_are_the_same_for_the_same_seeds():
    one, again = (sources.demo_examples(9, (3, 4)) for _ in range(2))

    assert [(e.picture, e.caption, e.foil) for e in one] == [
        (e.picture, e.caption, e.foil) for e in again
    ]
    assert len({e.picture for e in one}) == 9 and one[5].picture == "scene 0 of seed 4"
    assert all(e.words and e.caption != e.foil for e in one)


# ---------------------------------------------------------------- mistakes

LONG = " ".join(["red"] * 31)  # and start and end: 33 of 32


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["open_clip:tiny-mobile/random", "IMAGE", "x"], 2, "'open_clip:tiny-mobile/random' cannot "
         "be explained: the local loss needs dense tokens: its image tower, TimmModel of "
         "EfficientNet, pools in a way"),
        (["control:chance", "IMAGE", "x"], 2, "'control:chance' gives one vector of a"),
        (["control:blind", "IMAGE", "x"], 2, "has no vectors of patches|gives one"),
        (["demo:fsc-clip", "IMAGE", LONG], 2, "it needs more tokens than the 32 that model"),
        (["demo:fsc-clip", "IMAGE", "  "], 2, "reads no word in it"),
        (["demo:fsc-clip", "IMAGE", "?!"], 2, r"'\?!': model 'demo:fsc-clip' reads no word"),
        (["demo:fsc-clip", "IMAGE"], 2, "name a picture and a text about it"),
        (["demo:fsc-clip", "IMAGE", "a red  star", "--foil", "a red star"], 2, "is the caption"),
        (["demo:fsc-clip", "IMAGE", "a red star", "--foil", "A red star!"], 2,
         "'demo:fsc-clip' reads it as the caption: both have the same tokens"),
        (["demo:fsc-clip", "IMAGE", "x", "--alignment", "minmx"], 2, "Did you mean 'minmax'"),
        (["demo:fsc-clip", "IMAGE", "x", "--base", "demo:fsc-clip"], 2, "it is the model itself"),
        (["demo:fsc-clip", "IMAGE", "x", "--boxes", "b.json"], 2, "are for --score"),
        (["demo:fsc-clip", "gone.png", "x"], 3, "gone.png: there is no such picture"),
        (["demo:fsc-clip", "BROKEN", "x"], 3, "broken.png: not a readable image"),
        (["demo:fsc-clip", "FOLDER", "x"], 3, "is a folder, not a file"),
        (["demo:fsc-clip", "IMAGE", "x", "--score"], 2, "leave out yours"),
        (["demo:fsc-clip", "--score", "--seeds", "1,1"], 2, "--seeds '1,1': write different"),
        (["demo:fsc-clip", "--score", "--images", "FOLDER"], 2, "go with --boxes"),
        (["demo:fsc-clip", "--score", "--boxes", "gone.json"], 3, "gone.json: there is no such"),
        (["demo:fsc-clip", "--score", "--boxes", "BROKEN"], 3, "broken.png: .* Read are COCO's"),
        (["demo:fsc-clip", "--score", "--boxes", "OTHER"], 3, "missing required field `images`"),
        (["demo:fsc-clip", "--score", "--boxes", "EMPTY"], 2, "need sentences: name its captions"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, code, says, tmp_path, picture, capsys, tmp_path_factory):
    tiny_families.register(tmp_path_factory.getbasetemp() / "families")
    picture.save(tmp_path / "picture.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "other.json").write_text('{"info": 1}')
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    places = {"IMAGE": "picture.png", "BROKEN": "broken.png", "OTHER": "other.json",
              "EMPTY": "empty.json", "FOLDER": "."}  # fmt: skip
    given = [str(tmp_path / places[word]) if word in places else word for word in arguments]

    assert run(*given, "-o", tmp_path / "out") == code
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and re.search(says, error), error
    assert not (tmp_path / "out").exists()


def test_a_runs_own_alignment_is_taken(tmp_path, capsys):
    assert of_training(
        "train", "demo-fsc-clip", "--data", "world:finetune?pairs=50", "-o", str(tmp_path / "run"),
        *(part for word in ("batch_size=4", "max_steps=1", "device=cpu", "alignment=softmax")
          for part in ("--set", word)),
    ) == 0  # fmt: skip

    assert Explainer(f"run:{tmp_path / 'run'}", "cpu").alignment == "softmax"
