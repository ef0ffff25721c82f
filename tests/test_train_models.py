"""Every kind of model that open_clip builds: trained rightly, or refused before data are read."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_families
import torch
from open_clip.loss import SigLipLoss
from safetensors.torch import load_file

from fsc_bench.errors import FscBenchError, UsageError
from fsc_bench.models import load_model
from fsc_bench.train.batches import pixels_of
from fsc_bench.train.checkpoint import read_checkpoint
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.loop import train
from fsc_bench.train.reach import reached
from fsc_bench.train.related_losses import sigmoid_loss
from fsc_bench.train.towers import Teacher, Towers

FEW = {
    "data": "world:finetune?pairs=64", "negatives": "rules", "batch_size": 8, "max_steps": 2,
    "learning_rate": 1e-3, "warmup_steps": 0, "device": "cpu", "checkpoint_every": 1,
    "keep_checkpoints": 9, "log_every": 1,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def families(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny_families.register(tmp_path_factory.mktemp("families"))
    yield
    torch.set_num_threads(threads)


def spec(name: str) -> str:
    return f"open_clip:{name}/random"


def run(name: str, out: Path, resume=False, **settings) -> list[str]:
    """What a run of two steps said."""
    lines: list[str] = []
    config = TrainConfig().changed({"model": spec(name), **FEW, **settings})
    train(Recipe("test", "", config), out, resume=resume, say=lines.append)
    return lines


def moved(name: str, out: Path) -> set[str]:
    """The weights and statistics that training changed."""
    before, after = load_model(spec(name)).model.state_dict(), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    # open_clip leaves a CoCa decoder's projection as the memory was.
    after.pop("text_decoder.text_projection", None)
    assert all(bool(value.isfinite().all()) for value in after.values())
    return {key for key in after if not torch.equal(before[key], after[key])}


# --- what is said, and what moves ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "says", "moves", "stays"),
    [
        ("tiny-vit", {"local_hn_weight": 0.2},
         "CLIP of VisionTransformer and Transformer; contrast: softmax over the batch, logit scale "
         "14.3, kept within 1 and 100.", "logit_scale", None),
        ("tiny-custom", {"tune": "lora", "local_hn_weight": 0.2},
         "CustomTextCLIP of VisionTransformer and TextTransformer; contrast: softmax over the "
         "batch, logit scale 14.3, frozen.", "visual.conv1.weight", "logit_scale"),
        ("tiny-resnet", {"global_hn_weight": 0.5, "activation_checkpointing": True},
         "Batch normalisation in 19 places (visual.bn1, visual.bn2, ...): its running statistics "
         "are trained, saved and averaged", "visual.bn1.running_mean", None),
        ("tiny-mobile", {"negative_columns": True},
         "Batch normalisation in 13 places", "visual.trunk.bn1.running_var", None),
        ("tiny-coca", {},
         "Left as it is, for no loss that is switched on reaches it: text_decoder (1,632,064 "
         "parameters). CoCa's captioning loss is left out: the contrast alone trains.",
         "text.transformer.resblocks.0.mlp.c_fc.weight", "text_decoder.ln_final.weight"),
        ("tiny-sigmoid", {"global_hn_weight": 0.5},
         "contrast: sigmoid of every pair (SigLIP), logit scale 117.0, bias -12.9.",
         "logit_bias", None),
        ("tiny-sigmoid", {"contrastive_weight": 0.0, "global_hn_weight": 0.5},
         "no loss that is switched on reaches it: logit_bias (1 parameters).",
         "logit_scale", "logit_bias"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("tiny") else "",
)  # fmt: skip
def test_each_kind_trains_two_steps_and_says_how(tmp_path, name, settings, says, moves, stays):
    lines = run(name, tmp_path / "run", **settings)
    changed = moved(name, tmp_path / "run")
    steps = [number for number, line in enumerate(lines) if line.startswith("step ")]

    assert any(says in line for line in lines[: steps[0]]), lines
    assert moves in changed and stays not in changed
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("tiny-resnet", {"accumulate": 2}, "statistics are the whole batch's: accumulate = 2"),
        ("tiny-resnet", {"tune": "lora"}, "LoRA does not know the image tower ModifiedResNet"),
        ("tiny-mobile", {"local_hn_weight": 0.2}, "the local loss needs dense tokens, and model "
         "'open_clip:tiny-mobile/random' gives none: its image tower, TimmModel of EfficientNet"),
        ("tiny-mobile", {"activation_checkpointing": True}, "computes it twice a step"),
        ("tiny-map", {"tune": "lora"}, "LoRA does not know the image tower TimmModel"),
        ("tiny-vit", {"contrast": "sigmoid"}, "has no logit bias, which SigLIP's sigmoid of every "
         "pair trains"),
        ("tiny-vit", {"contrast": "sigmod"}, "contrast = 'sigmod': choose model, sigmoid, softmax. "
         "Did you mean 'sigmoid'?"),
        ("tiny-sigmoid", {"contrast": "sigmoid", "intra_modal_weight": 0.1},
         "intra_modal_weight is a softmax over the batch"),
        ("tiny-sigmoid", {"intra_modal_weight": 0.1, "positive_text_weight": 0.1,
                          "positives": "captions"},
         "intra_modal_weight and positive_text_weight are a softmax over the batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_rightly_is_one_line_before_data_are_read(
    tmp_path, name, settings, says
):
    table = tmp_path / "empty.tsv"  # would be refused, if it were looked into
    table.write_text("")
    with pytest.raises(FscBenchError) as caught:
        run(name, tmp_path / "run", data=f"coco-tsv:{table}", **settings)

    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_the_objective_reaches_is_what_gets_a_gradient():
    adapter = load_model(spec("tiny-coca"))
    model = adapter.model.train().requires_grad_(True)
    towers = Towers(model, tokens=False)
    pixels = pixels_of(adapter.preprocess, 1.0)
    within = reached(towers, TrainConfig(), adapter.tokenizer, pixels)
    images, ids = torch.randn(2, 3, 32, 32), adapter.tokenizer(["a dog", "a cat"])
    encoded = towers(images, [ids], [ids.argmax(1)])
    logits = encoded.logit_scale * encoded.image_features @ encoded.text_features[0].T
    torch.nn.functional.cross_entropy(logits, torch.arange(2)).backward()

    assert within == {value for value in model.parameters() if value.grad is not None}
    assert 0 < len(within) < len(list(model.parameters()))
    assert towers.training


# --- running statistics -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """A ResNet of two steps with a moving average of decay 0.75, a checkpoint after each."""
    out = tmp_path_factory.mktemp("resnet") / "run"
    run("tiny-resnet", out, ema_decay=0.75, distillation_weight=0.01)
    return out


def forget_step_two(averaged: Path, out: Path) -> Path:
    """The run as it was when it was killed after its first step."""
    shutil.copytree(averaged, out)
    (out / "checkpoints/step-00000002.pt").unlink()
    (out / "model.safetensors").unlink()
    facts = json.loads((out / "config.json").read_text())
    del facts["finished"]
    (out / "config.json").write_text(json.dumps(facts))
    return out


def test_a_killed_resnet_resumes_to_every_tensor_of_the_undisturbed_run(averaged, tmp_path):
    out = forget_step_two(averaged, tmp_path / "killed")
    lines = run("tiny-resnet", out, resume=True, ema_decay=0.75, distillation_weight=0.01)

    assert any("from step 1" in line for line in lines)
    for file in ("model.safetensors", "ema.safetensors"):
        ours, theirs = load_file(out / file), load_file(averaged / file)
        assert "visual.layer1.0.bn1.running_var" in ours and ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), (file, name)


def test_the_average_of_two_steps_is_worked_out_by_hand_statistics_among_it(averaged, tmp_path):
    start = load_model(spec("tiny-resnet")).model.state_dict()
    first, second = (
        read_checkpoint(averaged / f"checkpoints/step-0000000{step}.pt")["trainable"]
        for step in (1, 2)
    )
    resumed = forget_step_two(averaged, tmp_path / "killed")
    run("tiny-resnet", resumed, resume=True, ema_decay=0.75, distillation_weight=0.01)
    for out in (averaged, resumed):
        average = load_file(out / "ema.safetensors")
        assert average.keys() == start.keys()
        for name in ("visual.bn1.running_mean", "visual.bn1.running_var", "visual.bn1.weight",
                     "text_projection", "logit_scale"):  # fmt: skip
            expected = 0.5625 * start[name] + 0.1875 * first[name] + 0.25 * second[name]
            assert torch.allclose(average[name], expected, rtol=1e-5, atol=1e-7), name
            assert not torch.allclose(average[name], second[name], rtol=1e-5, atol=1e-7), name
        assert average["visual.bn1.num_batches_tracked"] == 2


def test_a_moving_average_of_decay_three_quarters_by_hand():
    model = load_model(spec("tiny-resnet")).model.train().requires_grad_(True)
    towers = Towers(model, tokens=False)

    def put(value: float) -> None:
        with torch.no_grad():
            model.visual.bn1.running_mean[0] = model.visual.bn1.weight[0] = value
        model.visual.bn1.num_batches_tracked.fill_(int(value))

    put(1.0)
    teacher = Teacher(towers, 0.75)
    found = []
    for value in (2.0, 4.0):
        put(value)
        teacher.update()
        mean = teacher.towers.model.visual.bn1
        found.append((float(mean.running_mean[0]), float(mean.weight[0])))

    # 0.75 * 1 + 0.25 * 2, then 0.75 * 1.25 + 0.25 * 4.
    assert found == [(1.25, 1.25), (1.9375, 1.9375)]
    assert int(mean.num_batches_tracked) == 4
    assert float(model.visual.bn1.running_mean[0]) == 4.0
    assert towers.training and not teacher.towers.training


def test_the_best_weights_of_a_resnet_keep_the_statistics_they_had(tmp_path):
    out = tmp_path / "run"
    run("tiny-resnet", out, dev_share=0.5, patience=1, learning_rate=0.3, max_steps=6, epochs=9)
    best = read_checkpoint(out / "checkpoints/best.pt")
    step = json.loads((out / "config.json").read_text())["trained_steps"]
    then = read_checkpoint(out / f"checkpoints/step-0000000{step}.pt")["trainable"]
    last = read_checkpoint(max((out / "checkpoints").glob("step-*.pt")))["trainable"]
    weights = load_file(out / "model.safetensors")

    assert best.keys() == weights.keys()
    for name in weights:
        assert torch.equal(weights[name], then[name]), name
    assert not torch.equal(weights["visual.bn1.running_mean"], last["visual.bn1.running_mean"])


def test_a_checkpoint_of_a_version_without_statistics_is_not_continued(averaged, tmp_path):
    out = forget_step_two(averaged, tmp_path / "old")
    path = out / "checkpoints/step-00000001.pt"
    state = read_checkpoint(path)
    state["trainable"] = {
        name: value for name, value in state["trainable"].items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }  # fmt: skip
    torch.save(state, path)
    with pytest.raises(UsageError, match=r"holds no running statistics \(visual\.bn1\."):
        run("tiny-resnet", out, resume=True, ema_decay=0.75, distillation_weight=0.01)


# --- SigLIP's contrast --------------------------------------------------------------------------


def test_the_sigmoid_contrast_by_hand_and_as_open_clip_has_it():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    scale, bias = torch.tensor(2.0), torch.tensor(-1.0)
    # Logits [[1, 0.2], [-1, 0.6]]: log(1 + exp(-x)) of 1, -0.2, 1 and 0.6 sum up to 1.862151.
    found = float(sigmoid_loss(images, texts, scale, bias))

    assert found == pytest.approx(0.931075, abs=1e-6)
    assert found == pytest.approx(float(SigLipLoss()(images, texts, scale, bias)), abs=1e-6)


def test_parts_give_the_same_scale_bias_and_weights_of_a_siglip(tmp_path):
    for parts in (1, 4):
        run("tiny-sigmoid", tmp_path / str(parts), accumulate=parts, learning_rate=1e-4,
            global_hn_weight=0.5)  # fmt: skip
    whole, parted = (load_file(tmp_path / n / "model.safetensors") for n in ("1", "4"))
    lines = [json.loads(line) for line in (tmp_path / "1/metrics.jsonl").read_text().splitlines()]

    assert max(float((whole[n] - parted[n]).abs().max()) for n in whole) < 1e-6
    assert float(whole["logit_scale"].exp()) > 110  # no ceiling at 100
    assert float(whole["logit_bias"]) != pytest.approx(-12.9, abs=1e-5)
    assert lines[-1]["logit_bias"] == pytest.approx(float(whole["logit_bias"]))
