"""`run:` and `wise:`: what training leaves is loaded as it was trained, and a stranger's run
directory makes nobody execute or fetch anything.
"""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fsc_bench.errors import UsageError
from fsc_bench.models import load_model
from fsc_bench.models.run import skeleton
from fsc_bench.run.provenance import trained_on

START = "open_clip:{}/random?seed=0"


@pytest.fixture(scope="module")
def start(tiny_clip):
    return load_model(START.format(tiny_clip), "cpu")


def write_run(folder, start, facts=None, shift=0.0, names=("model",)):
    """A run directory as the training loop leaves it; every weight is `shift` above the start's."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = skeleton("open_clip:whatever/tag", start.identity)
    preprocess = start.model.visual.preprocess_cfg
    content = {"schema": 1, "skeleton": spec, "preprocess": preprocess, **(facts or {})}
    (folder / "config.json").write_text(json.dumps(content))
    for place, name in enumerate(names):
        state = {k: v + shift * (1 + place) for k, v in start.model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    return folder


def test_a_run_of_a_real_architecture_is_loaded_with_its_weights_and_transform(start, tmp_path):
    cfg = {**start.model.visual.preprocess_cfg, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    write_run(tmp_path / "run", start, {"preprocess": cfg}, shift=0.5)
    model = load_model(f"run:{tmp_path / 'run'}", "cpu")

    assert torch.equal(model.model.state_dict()["logit_scale"],
                       start.model.state_dict()["logit_scale"] + 0.5)  # fmt: skip
    # White is 1: (1 - 0.5) / 0.25 = 2, and not 1.93 as OpenAI's mean and deviation would have it.
    white = model.preprocess(Image.new("RGB", (80, 60), "white"))
    assert torch.equal(white, torch.full((3, 32, 32), 2.0))
    assert "mean=(0.5, 0.5, 0.5)" in model.identity.preprocess
    assert model.identity.architecture == start.identity.architecture


def test_a_run_that_changed_nothing_is_the_model_it_started_from(start, tmp_path):
    write_run(tmp_path / "run", start)

    assert load_model(f"run:{tmp_path / 'run'}", "cpu").identity == start.identity


def test_the_moving_average_is_another_file(start, tmp_path):
    write_run(tmp_path / "run", start, shift=0.5, names=("model", "ema"))
    model = load_model(f"run:{tmp_path / 'run'}?weights=ema", "cpu")

    name = "visual.proj"
    assert torch.equal(model.model.state_dict()[name], start.model.state_dict()[name] + 1.0)


def test_a_mixture_lies_a_quarter_of_the_way(start, tiny_clip, tmp_path):
    write_run(tmp_path / "run", start, shift=2.0)
    spec = f"wise:{START.format(tiny_clip)}+run:{tmp_path / 'run'}?alpha=0.25"
    mixture = load_model(spec, "cpu")

    # 0.75 w + 0.25 (w + 2) = w + 0.5
    for name, value in start.model.state_dict().items():
        found = mixture.model.state_dict()[name]
        assert torch.allclose(found, value + 0.5, atol=1e-6), name
    vectors = mixture.encode_images(torch.zeros(2, 3, 32, 32))
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_a_mixture_of_two_image_transforms_says_which_is_used(start, tiny_clip, tmp_path):
    cfg = {**start.model.visual.preprocess_cfg, "interpolation": "bilinear"}
    write_run(tmp_path / "run", start, {"preprocess": cfg})
    mixture = load_model(f"wise:{START.format(tiny_clip)}+run:{tmp_path / 'run'}", "cpu")

    assert "prepare images differently; the second's way is used." in mixture.extras.notes[-1]
    assert "bilinear" in mixture.identity.preprocess


@pytest.mark.parametrize("activation", ["GELU", "QuickGELU"])
def test_a_skeleton_names_architecture_and_activation_and_no_weights(start, tiny_clip, activation):
    identity = replace(start.identity, activation=activation)

    assert skeleton("open_clip:x", identity) == (
        f"open_clip:{tiny_clip}/random?seed=0&activation={activation.lower()}"
    )
    mixed = replace(start.identity, activation="GELU+QuickGELU")  # towers of two libraries
    assert skeleton("open_clip:x", mixed) == f"open_clip:{tiny_clip}/random?seed=0"


# ---------------------------------------------------------------- a stranger's run directory

STRANGE = (
    "py:evil.py:model", "run:loop", "run:.", "wise:demo:pretrained+run:loop",
    "open_clip:hf-hub:org/name", "open_clip:hf-hub:org/name/random", "open_clip:local-dir:x/random",
    "open_clip:ViT-B-32/openai", "open_clip:ViT-B-32@/etc/passwd",
    "open_clip:ViT-B-32@evil.pt/random", "fsc_clip:laioncoco-ViT-B-32@evil.pt", "other:thing",
)  # fmt: skip


@pytest.mark.parametrize("way", ["run:{0}", "wise:demo:pretrained+run:{0}?alpha=0.5"])
@pytest.mark.parametrize("spec", STRANGE)
def test_a_file_names_only_models_that_need_nothing_but_a_name(
    start, tmp_path, monkeypatch, spec, way
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('executed', 'w')\nmodel = None\n")
    write_run(tmp_path / "loop", start, {"skeleton": spec})

    with pytest.raises(UsageError) as caught:
        load_model(way.format("loop"), "cpu")
    assert f"its skeleton is {spec!r}. A file may name" in str(caught.value)
    assert f"Where you trust it: run:loop?skeleton={spec}." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_what_a_file_may_not_name_its_user_may(tmp_path):
    here = __file__.rpartition("/")[0]
    spec = f"py:{here}/tiny_open_clip.py:load"
    base = load_model(spec, "cpu")
    state = {name: value + 1.0 for name, value in base.model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"skeleton": spec}))

    model = load_model(f"run:{tmp_path}?skeleton={spec}", "cpu")
    assert torch.equal(model.model.state_dict()["logit_scale"], state["logit_scale"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not the config of a training run"),
        ("[" * 100_000, "not the config of a training run"),
        ('{"skeleton": 5}', "'skeleton' must be a string, not 5"),
        ("[]", "not the config of a training run"),
    ],
)
def test_a_config_that_is_none_is_one_line(tmp_path, content, words):
    (tmp_path / "config.json").write_text(content)

    with pytest.raises(UsageError, match=words) as caught:
        load_model(f"run:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preprocess", [{"sise": 224}, {"size": "big"}, [1], {"resize_mode": "x"}])
def test_a_transform_that_is_none_is_one_line(start, tmp_path, preprocess):
    write_run(tmp_path / "run", start, {"preprocess": preprocess})

    with pytest.raises(UsageError, match=r"config\.json: (its )?preprocess"):
        load_model(f"run:{tmp_path / 'run'}", "cpu")


def test_weights_of_another_architecture_are_named(start, tmp_path):
    folder = write_run(tmp_path / "run", start)
    save_file({"foo": torch.ones(2)}, folder / "model.safetensors")

    words = r"^model 'run:.*missing keys \(62\): .*unexpected keys: foo\."
    with pytest.raises(UsageError, match=words):
        load_model(f"run:{folder}", "cpu")


def test_what_a_model_was_trained_on_is_told_by_its_run_its_parts_and_its_name(tmp_path):
    for name, model in (("a", "open_clip:ViT-B-32/random"), ("b", "fsc_clip:laioncoco-ViT-B-32")):
        (tmp_path / name).mkdir()
        facts = {
            "skeleton": "open_clip:ViT-B-32/random",
            "settings": {"model": model, "data": f"coco-tsv:{name}.tsv"},
        }
        (tmp_path / name / "config.json").write_text(json.dumps(facts))
    one, other = f"run:{tmp_path / 'a'}", f"run:{tmp_path / 'b'}"

    assert trained_on(one) == "coco-tsv:a.tsv"
    assert trained_on(other) == "laioncoco, coco-tsv:b.tsv"
    assert trained_on(f"wise:{one}+{other}?alpha=0.5") == (
        "coco-tsv:a.tsv, laioncoco, coco-tsv:b.tsv"
    )
    assert trained_on(f"run:{tmp_path / 'none'}") == ""
    assert trained_on("open_clip:ViT-B-32/laion2b_s34b_b79k") == ""
