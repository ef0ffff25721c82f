"""`blip:` equals the library's own forward, pair by pair, through the whole pipe."""

import json

import numpy as np
import pytest
import tiny_blip
from known import World, captioned, labelled, matching
from PIL import Image
from test_pairs import ask

from fsc_bench.errors import UsageError
from fsc_bench.models import load_model
from fsc_bench.run.job import Options
from fsc_bench.run.suite import run

CLOSE = 1e-5
TEXTS = ["a red dog", "the blue cat on a table", "two cow and a toy , a car"]
CLASSES = """
[classes]
names = ["dog", "cat", "cow"]
[prompts.one]
templates = ["a photo of a {}."]
"""


@pytest.fixture(scope="module", params=["blip", "blip-2"])
def folder(request, tmp_path_factory):
    return tiny_blip.save(tmp_path_factory.mktemp(request.param) / "model", request.param)


@pytest.fixture
def world(tmp_path) -> World:
    found = World(tmp_path)
    noise = np.random.default_rng(5)
    for number in range(4):
        pixels = noise.integers(0, 256, (20 + number, 30, 3), np.uint8)
        found.picture(f"{number}", float(number))
        Image.fromarray(pixels).save(found.raw / f"{number}.png")
    return found


def pictures(world: World) -> list:
    from fsc_bench.records import OWN, ImageRef

    return [ImageRef(OWN, f"{number}.png") for number in range(4)]


def library(folder, world: World, number: int, text: str, itm: bool = True) -> float:
    """What transformers' own model says of one picture and one text, alone."""
    import torch
    import transformers

    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    image = Image.open(world.raw / f"{number}.png")
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    name = "use_itm_head" if kind.startswith("BlipFor") else "use_image_text_matching_head"
    given = {name: itm, "input_ids": tokens["input_ids"], "pixel_values": pixels}
    with torch.no_grad():
        found = model(**given, attention_mask=tokens["attention_mask"])
    logits = (found.itm_score if "itm_score" in found else found.logits_per_image)[0]
    return float(logits[1] - logits[0]) if itm else float(logits[0])


@pytest.fixture
def loop(folder, world):
    """[4 pictures, 3 texts], one forward a pair."""
    return lambda texts: np.array([[library(folder, world, n, t) for t in texts] for n in range(4)])


def test_matching_and_classification_equal_a_loop_over_the_library(folder, world, loop):
    pairs = world.task("pairs", ["text"], {"all": 4})
    animals = world.task("animals", ["accuracy"], {"test": 4}, tables=CLASSES)
    world.records(pairs, [matching([one], TEXTS) for one in pictures(world)])
    world.records(animals, [labelled(one, n % 3) for n, one in enumerate(pictures(world))])

    _, samples = ask(world, f"blip:{folder}", pairs, animals)

    own = loop(TEXTS)
    assert np.ptp(own) > 0.1  # they differ, so that equal means something
    assert np.array(samples["pairs"]["scores"]) == pytest.approx(own, abs=CLOSE)
    right = own[:, 0] > own[:, 1:].max(axis=1)
    assert samples["pairs"]["correct_text"] == right.tolist()
    classes = loop([f"a photo of a {name}." for name in ("dog", "cat", "cow")])
    assert samples["animals"]["prediction"] == classes.argmax(axis=1).tolist()
    labels = np.array([0, 1, 2, 0])
    shown = np.array(samples["animals"]["score_label"])
    assert shown == pytest.approx(classes[np.arange(4), labels], abs=CLOSE)


def ranks(first: np.ndarray, scores: np.ndarray, depth: int) -> list[int]:
    """Place of the i-th answer of the i-th query, plainly."""
    found = []
    for query, (near, own) in enumerate(zip(first, scores, strict=True)):
        order = sorted(range(len(near)), key=lambda answer: -near[answer])
        best = sorted(order[:depth], key=lambda answer: -own[answer])
        found.append([*best, *order[depth:]].index(query) + 1)
    return found


def test_retrieval_ranks_the_best_of_blips_own_tower_anew(folder, world, loop):
    """BLIP-2, whose tower is no dual encoder, says so."""
    task = world.task("gallery", ["i2t_r1", "t2i_r1"], {"test": 4})
    texts = [*TEXTS, "a photo of the red cow"]
    world.records(task, [captioned(*pair) for pair in zip(pictures(world), texts, strict=True)])
    spec = f"blip:{folder}?depth=2"
    if "blip-2" in str(folder):
        summary = run([spec], [task], Options(world.data, world.out))
        (failure,) = (str(error) for _, _, error in summary.failures)
        assert "retrieval needs a first stage" in failure and "&first=FAMILY:NAME" in failure
        return

    _, samples = ask(world, spec, task)

    first = np.array(
        [[library(folder, world, n, text, itm=False) for text in texts] for n in range(4)]
    )
    own = loop(texts)
    assert samples["gallery"]["i2t_rank"] == ranks(first, own, 2)
    assert [rank for (rank,) in samples["gallery"]["t2i_rank"]] == ranks(first.T, own.T, 2)


def altered(folder, tmp_path, change):
    from safetensors.torch import load_file, save_file

    target = tmp_path / "altered"
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    state = load_file(target / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    return target


def refusal(spec: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_model(spec, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_missing_further_or_of_another_shape_are_one_line(folder, tmp_path):
    """transformers would make up what is missing and go on."""
    import torch

    def put(state):
        state["itm_head.extra"] = torch.zeros(2)

    def widen(state):
        state["itm_head.bias"] = torch.zeros(3)

    for number, (change, line) in enumerate(
        [
            (lambda state: state.pop("itm_head.bias"), "missing keys: itm_head.bias."),
            (put, "unexpected keys: itm_head.extra."),
            (widen, "other shapes: itm_head.bias (3,), by the config (2,)."),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        assert line in refusal(f"blip:{altered(folder, tmp_path / str(number), change)}")


def test_other_models_and_code_of_a_repository_are_one_line(folder, tmp_path):
    target = altered(folder, tmp_path, lambda state: None)
    config = json.loads((target / "config.json").read_text())
    for change, line in [
        ({"model_type": "blip_2"}, "Did you mean 'blip-2'?"),
        (
            {"architectures": ["BlipModel"]},
            "is of a 'BlipModel', which does not have a matching head",
        ),
        ({"auto_map": {"AutoModel": "mine.Model"}}, "wants Python of its own executed"),
    ]:
        (target / "config.json").write_text(json.dumps({**config, **change}))
        assert line in refusal(f"blip:{target}")
    assert "there is no folder" in refusal(f"blip:{tmp_path}/nowhere")
    assert "write blip:ORG/NAME" in refusal("blip:only-a-name")


def test_what_hf_refuses_of_a_repository_is_refused_here_too(folder, tmp_path):
    """One reader for both: test_hf_settings.py has every case."""
    import torch

    def whole(state):
        state["itm_head.weight"] = state["itm_head.weight"].to(torch.int8)

    assert "itm_head.weight is torch.int8. Quantised" in refusal(
        f"blip:{altered(folder, tmp_path, whole)}"
    )
    (tmp_path / "second").mkdir()
    target = altered(folder, tmp_path / "second", lambda state: None)
    settings = json.loads((target / "preprocessor_config.json").read_text())
    for change, line in (
        ({"image_processor_type": "BlipModel"}, "'BlipModel' is no image processor."),
        (
            {"size": {"height": 24, "width": 32}},
            "pictures of 24 x 32, the image tower takes 32 x 32.",
        ),
    ):
        changed = json.dumps({**settings, **change})
        (target / "preprocessor_config.json").write_text(changed)
        assert line in refusal(f"blip:{target}")
