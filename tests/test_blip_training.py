"""BLIP's contrast fine-tuned by FSC-CLIP's losses: a step's losses against transformers' own model
text by text, what a run leaves and how it is loaded, what stays as it was, and refusals.
"""

import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_blip
import torch
from PIL import Image
from safetensors.torch import load_file
from test_trainable_families import in_double, losses, plain_calibrated, plain_local
from test_walk import forget_the_last_step
from torch.nn import functional as F

from fsc_bench.errors import UsageError
from fsc_bench.models import check_named, load_model
from fsc_bench.models.run import is_written, spec_of
from fsc_bench.study.explain import Explainer
from fsc_bench.study.similarity import measure, probe_pairs
from fsc_bench.train.build import build
from fsc_bench.train.checkpoint import read_checkpoint
from fsc_bench.train.config import Recipe, read_recipe
from fsc_bench.train.loop import train
from fsc_bench.train.objective import weighted
from fsc_bench.train.prepare import prepare

# Swapped and replaced captions; two have one hard negative, one has none.
PAIRS = [
    ("a red dog on the table", ["a red table on the dog", "a blue dog on the table"]),
    ("two cat and a toy", ["two toy and a cat", "two cow and a toy"]),
    ("the blue car", ["the red car"]),
    ("a photo of a cow", []),
    ("a dog , a cat and 3 toy", ["a cat , a dog and 3 toy", "a dog , a cat and 4 toy"]),
    ("no cat on a car", ["no car on a cat", "a cat on a car"]),
    ("a square of red", ["a red of square"]),
    ("the number 7 on a blue square", ["the blue number on a 7 square", "a number on a square"]),
]
SETTINGS = {
    "negatives": "data", "negative_kinds": ("swap", "replace"), "batch_size": 8, "max_steps": 2,
    "epochs": 2, "learning_rate": 1e-3, "warmup_steps": 0, "device": "cpu", "checkpoint_every": 1,
    "keep_checkpoints": 9, "log_every": 1, "ema_decay": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return tiny_blip.save(tmp_path_factory.mktemp("start") / "blip")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Eight pairs with pictures of noise that are no squares."""
    root, noise = tmp_path_factory.mktemp("pairs"), np.random.default_rng(7)
    lines = ["title\tfilepath\tneg_caption"]
    for number, (caption, negatives) in enumerate(PAIRS):
        pixels = noise.integers(0, 256, (40 + number, 61, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lines.append(f"{caption}\t{number}.png\t{negatives!r}")
    (root / "pairs.tsv").write_text("\n".join(lines) + "\n")
    return f"coco-tsv:{root / 'pairs.tsv'}"


def recipe(model: str, data: str, **changes) -> Recipe:
    found = read_recipe("blip-fsc")
    config = found.config.changed({**SETTINGS, "model": model, "data": data, **changes})
    return Recipe("blip-fsc", "", config)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(start, data, said, tmp_path_factory) -> Path:
    return train(recipe(f"blip:{start}", data), tmp_path_factory.mktemp("out") / "run",
                 say=said.append)  # fmt: skip


# --- losses -------------------------------------------------------------------------------------


def library(folder: Path):
    import transformers

    return transformers.BlipForImageTextRetrieval.from_pretrained(folder).eval()


def plain_loss(blip, tokenizer, images: torch.Tensor, captions: list[str]) -> dict[str, float]:
    """FSC-CLIP's three terms from transformers' own parts, each text alone and unpadded."""
    seen = blip.vision_proj(blip.vision_model(pixel_values=images).last_hidden_state)
    image, patches = F.normalize(seen[:, 0], dim=-1), seen[:, 1:]

    def read(text: str) -> torch.Tensor:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return blip.text_proj(blip.text_encoder(input_ids=ids).last_hidden_state)[0]

    own = [[read(text) for text in (one, *dict(PAIRS)[one])] for one in captions]
    scale = math.exp(2.6592)  # the config's number for a temperature of 0.07
    texts = F.normalize(torch.stack([words[0][0] for words in own]), dim=-1)
    logits = scale * image @ texts.T
    places = torch.arange(len(captions))
    both = F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)
    world, local = [], []
    for row, words in enumerate(own):
        if len(words) > 1:
            cosines = [image[row] @ F.normalize(one[0], dim=-1) for one in words]
            world.append(plain_calibrated([scale * cosine for cosine in cosines]))
            local.append(plain_calibrated([plain_local(patches[row], one, scale) for one in words]))
    assert len(world) == 7  # of eight; one has no hard negative
    return {
        "contrastive": float(both / 2),
        "global_hn": float(torch.stack(world).mean()),
        "local_hn": float(torch.stack(local).mean()),
    }


def test_a_steps_losses_are_those_of_a_plain_transcription(start, data, trained):
    ready = build(prepare(recipe(f"blip:{start}", data), Path("nowhere"), say=lambda line: None))
    (part,), config = ready.batches[0], ready.config
    terms = in_double(ready)
    with torch.no_grad():
        images = ready.batches.pixels.normalise(part.images).double()
        tokenizer = load_model(f"blip:{start}").words.tokenizer
        captions = [PAIRS[index][0] for index in ready.batches.batch_indices(0)]
        expected = plain_loss(library(start).double(), tokenizer, images, captions)

    assert float(ready.model.logit_scale.detach().exp()) == pytest.approx(1 / 0.07, rel=1e-4)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, abs=1e-6)
    whole = sum(expected[name] * weight for name, weight in config.weights.items())
    assert float(weighted(config, terms)) == pytest.approx(whole, abs=1e-6)
    # What the run itself logged of its first step, in float32.
    assert losses(trained)[0] == pytest.approx(whole, rel=1e-6)
    assert abs(losses(trained)[1] - losses(trained)[0]) > 0.01


def test_activation_checkpointing_and_parts_change_nothing(start, data, trained, tmp_path):
    changes = {"activation_checkpointing": True, "accumulate": 2}
    train(recipe(f"blip:{start}", data, **changes), tmp_path / "run", say=lambda line: None)

    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=1e-5)


def test_texts_are_cut_where_only_padding_is_lost_and_long_ones_at_the_context(start):
    adapter = load_model(f"blip:{start}").trainable()
    handed = pickle.loads(pickle.dumps(adapter.tokenizer))  # to processes that read batches
    ids = handed(["a dog", "red " * 40, "a cat on the table"])

    assert ids.shape == (3, 24)  # the context of the tiny model
    assert ids[0].tolist() == [2, *adapter.tokenizer(["a dog"])[0, 1:3].tolist(), 3, *[0] * 20]
    assert ids[1, 0] == 2 and ids[1, 23] == 3 and len(set(ids[1, 1:23].tolist())) == 1
    whole, words = adapter.model.text.with_tokens(ids[[0, 2]])
    cut, cut_words = adapter.model.text.with_tokens(ids[[0, 2], :7])
    assert torch.allclose(whole, cut, atol=1e-4)
    assert torch.allclose(words[1, :7], cut_words[1], atol=1e-4)


def test_the_dev_split_and_probes_see_pictures_as_the_model_does(start, data):
    ready = prepare(recipe(f"blip:{start}", data), Path("nowhere"), say=lambda line: None)
    picture = Image.open(Path(data.partition(":")[2]).parent / "3.png")  # 61 x 43
    ours = ready.pixels.normalise(torch.tensor(ready.pixels(picture, None))[None])[0]
    theirs = load_model(f"blip:{start}").preprocess(picture)

    assert ready.towers.trims and ready.towers.layout.pooled == 0
    # One of 255 steps, over the least deviation of a channel: PIL and torchvision round apart.
    assert float((ours - theirs).abs().max()) < 1.01 / 255 / 0.26


# --- what a run leaves --------------------------------------------------------------------------


@torch.no_grad()
def test_what_was_trained_is_what_hf_and_blip_and_run_load(start, data, trained):
    ready = build(prepare(recipe(f"blip:{start}", data), Path("nowhere"), say=lambda line: None))
    saved = read_checkpoint(trained / "checkpoints/step-00000002.pt")
    ready.state.restore_weights(saved["trainable"])
    texts = ["a red dog", "the blue cat on a table , a car"]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    ids = ready.prepared.adapter.tokenizer(texts)
    expected = [F.normalize(ready.model.encode_image(images), dim=-1),
                F.normalize(ready.model.encode_text(ids), dim=-1)]  # fmt: skip

    contrast = load_model(f"hf:{trained / 'blip'}", "cpu")
    matcher = load_model(f"blip:{trained / 'blip'}", "cpu")
    before = load_model(f"blip:{start}", "cpu")
    for model in (contrast, matcher.first):
        assert torch.allclose(model.encode_images(images), expected[0], atol=1e-6)
        assert torch.allclose(model.encode_texts(texts), expected[1], atol=1e-6)
    assert not torch.allclose(before.first.encode_texts(texts), expected[1], atol=1e-2)
    found = library(trained / "blip")(
        input_ids=matcher.ids_of(texts[:1])[0], pixel_values=images[:1]
    )
    scores = matcher.try_pairs(images[:1], texts[:1])
    assert float(found.itm_score[0, 1] - found.itm_score[0, 0]) == pytest.approx(
        float(scores), abs=1e-5
    )
    assert any("was not trained" in note for note in matcher.extras.notes)
    assert not any("was not trained" in note for note in before.extras.notes)
    assert spec_of(trained) == f"run:{trained}" and is_written(trained)
    assert load_model(spec_of(trained), "cpu").identity == matcher.identity


def test_the_scale_is_trained_and_read_back_from_the_folder(start, data, trained):
    config = json.loads((trained / "blip/config.json").read_text())
    logged = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["logit_scale"]
    again = load_model(f"run:{trained}", "cpu").trainable()

    assert math.exp(config["logit_scale_init_value"]) == pytest.approx(logged, rel=1e-6)
    assert abs(config["logit_scale_init_value"] - 2.6592) > 1e-4
    assert float(again.model.logit_scale.detach()) == pytest.approx(
        config["logit_scale_init_value"]
    )


def test_the_head_and_its_cross_attention_stay_and_all_else_moves(start, trained, said):
    before, after = (
        load_file(folder / "model.safetensors") for folder in (start, trained / "blip")
    )
    same = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {name for name in before if "crossattention" in name or "itm_head" in name}
    keys = {name for name in before if name.endswith("attention.self.key.bias")} - frozen

    assert before.keys() == after.keys() and len(frozen) == 2 * 10 + 2
    assert same == frozen | keys  # a softmax takes no notice of its keys' bias
    joint = "vision_model.encoder.layers.0.self_attn.qkv.bias"
    assert torch.equal(before[joint][32:64], after[joint][32:64])
    assert sum("matching head and cross-attention stay as they were" in line for line in said) == 1


def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_average(
    start, data, trained, tmp_path
):
    whole = tmp_path / "killed"
    shutil.copytree(trained, tmp_path / "finished")
    (tmp_path / "finished/model.safetensors").touch()  # forget_the_last_step deletes one
    forget_the_last_step(tmp_path / "finished", whole)
    for name in ("blip", "blip-ema"):
        shutil.rmtree(whole / name)
    with pytest.raises(UsageError, match=r"has no blip\. It is not finished"):
        check_named(f"run:{whole}")
    train(recipe(f"blip:{start}", data), whole, resume=True, say=lambda line: None)

    for name in ("blip", "blip-ema"):
        ours, theirs = (load_file(out / name / "model.safetensors") for out in (whole, trained))
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    last, mean = (load_file(trained / name / "model.safetensors") for name in ("blip", "blip-ema"))
    assert not torch.equal(last["text_proj.weight"], mean["text_proj.weight"])
    average = load_model(f"run:{trained}?weights=ema", "cpu")
    assert torch.equal(average.model.text_proj.weight, mean["text_proj.weight"])


def test_a_run_from_hf_is_scored_by_its_contrast(start, data, trained, tmp_path):
    train(recipe(f"hf:{start}", data, ema_decay=0.0), tmp_path / "run", say=lambda line: None)
    model = load_model(f"run:{tmp_path / 'run'}", "cpu")
    ours, theirs = (
        load_file(out / "blip/model.safetensors") for out in (tmp_path / "run", trained)
    )

    assert type(model).__name__ == "HuggingFace"
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@torch.no_grad()
def test_explain_and_semantics_read_what_was_trained(start, data, trained):
    picture = Image.open(Path(data.partition(":")[2]).parent / "0.png")
    explainer = Explainer(f"run:{trained}", "cpu")
    ((reading,),) = explainer.read([picture], [["a red dog on the table"]])
    blip, scale = library(trained / "blip"), explainer.towers.model.logit_scale.exp()
    pixels = explainer.adapter.preprocess(picture)[None]
    ids = explainer.adapter.tokenizer.inner("a red dog on the table", return_tensors="pt")
    patches = blip.vision_proj(blip.vision_model(pixel_values=pixels).last_hidden_state)[0, 1:]
    words = blip.text_proj(blip.text_encoder(input_ids=ids["input_ids"]).last_hidden_state)[0]

    assert [word.text for word in reading.words] == ["a", "red", "dog", "on", "the", "table"]
    assert reading.words[0].map.shape == (4, 4)
    assert reading.local_score == pytest.approx(float(plain_local(patches, words, scale)), abs=1e-4)
    probe = probe_pairs(data, "data", "none", 8, 0)
    found = measure([f"run:{trained}"], f"hf:{start}", probe, device="cpu")
    base, after = found[f"hf:{start}"], found[f"run:{trained}"]
    assert base["base_image"] == pytest.approx(np.ones(8), abs=1e-6)
    assert after["base_image"].max() < 0.999


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tune": "lora"}, 'is none of them. Set tune = "full"'),
        ({"compile": True}, "is none of them. Set compile = false"),
        ({"contrast": "sigmoid"}, "has no logit bias"),
    ],
    ids=["lora", "compile", "sigmoid"],
)
def test_what_blip_cannot_do_is_one_line(start, data, tmp_path, changes, says):
    with pytest.raises(UsageError) as caught:
        train(recipe(f"blip:{start}", data, **changes), tmp_path / "run")

    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_models_without_towers_to_train_are_one_line(start, data, tmp_path):
    second = tiny_blip.save(tmp_path / "second", "blip-2")
    shutil.copytree(start, tmp_path / "cropped")
    file = tmp_path / "cropped/preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "do_normalize": False}))
    for model, says in (
        (f"blip:{second}", "cannot be trained: it offers no towers"),
        (f"hf:{second}", "cannot be trained: it offers no towers"),
        (f"blip:{tmp_path / 'cropped'}", "does not resize to a square and normalise"),
    ):
        with pytest.raises(UsageError) as caught:
            train(recipe(model, data), tmp_path / "run")
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_strangers_run_may_name_no_other_folder_and_no_other_family(trained, tmp_path):
    facts = json.loads((trained / "config.json").read_text())
    for said in ("py:blip", "blip:../elsewhere", "blip:/etc", 7, ["blip:blip"]):
        (tmp_path / "config.json").write_text(json.dumps({**facts, "saved": said}))
        with pytest.raises(UsageError, match=r"'saved' is .* is no FAMILY:FOLDER"):
            check_named(f"run:{tmp_path}")
    with pytest.raises(UsageError, match="holds the whole model, which needs no skeleton"):
        check_named(f"run:{trained}?skeleton=demo:clip")
    with pytest.raises(UsageError, match="cannot be mixed"):
        load_model(f"wise:run:{trained}+run:{trained}?alpha=0.5")


def test_the_recipe_is_fsc_clips_on_blip():
    found = read_recipe("blip-fsc")

    assert found.config.model == "blip:Salesforce/blip-itm-base-coco"
    assert found.config.weights == {"contrastive": 1.0, "global_hn": 0.5, "local_hn": 0.2}
    assert (found.config.focal_gamma, found.config.label_smoothing) == (2.0, 0.02)
    assert not found.expected
