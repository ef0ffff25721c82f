"""Training worked out by hand: two or twelve steps of a tiny model, in weights one can compute.

A word that no caption holds has no gradient, so AdamW only shrinks it; a moving average after two
steps is three weights of three known models. Nothing here looks at how a step is programmed.
"""

import json
from math import cos, log, pi
from pathlib import Path

import pytest
import tiny_open_clip
import torch
from PIL import Image
from safetensors.torch import load_file

from fsc_bench.models import load_model
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.loop import train
from fsc_bench.train.towers import Teacher, Towers

MODEL = f"py:{Path(tiny_open_clip.__file__)}:load"
UNUSED = 7  # a token id of no word below


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Eight pairs: two steps an epoch."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = ["title\tfilepath"]
    for number in range(8):
        Image.new("RGB", (40, 40), (30 * number, 99, 200 - 20 * number)).save(
            folder / f"{number}.png"
        )
        rows.append(f"picture {'abcdefgh'[number]}\t{number}.png")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return f"coco-tsv:{folder / 'train.tsv'}"


def trained(data: str, out: Path, say=lambda line: None, resume: bool = False, **settings) -> Path:
    """A run of batches of four, by default on a warm-up that is too long to depend on its end."""
    chosen = {
        "model": MODEL, "data": data, "batch_size": 4, "epochs": 6, "learning_rate": 0.4,
        "warmup_steps": 40, "weight_decay": 0.5, "checkpoint_every": 1, "log_every": 1,
        "device": "cpu", **settings,
    }  # fmt: skip
    recipe = Recipe("known", "", TrainConfig().changed(chosen))
    return train(recipe, out, resume=resume, say=say)


def weights(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(out / f"{name}.safetensors")


def logged(out: Path, key: str) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[key] for line in lines]


def adapter(folder: Path, name: str, change: str) -> str:
    """The tiny model with its weights changed by a line of Python."""
    path = folder / f"{name}.py"
    path.write_text(
        "import tiny_open_clip\nimport torch\n\n\n"
        "def load(device, precision):\n"
        "    adapter = tiny_open_clip.load(device, precision)\n"
        "    with torch.no_grad():\n"
        f"        {change}\n"
        "    return adapter\n"
    )
    return f"py:{path}:load"


# ---------------------------------------------------------------- the schedule


def test_the_learning_rate_rises_by_equal_steps_and_falls_on_a_cosine(data, tmp_path):
    """Twelve steps, four of warm-up to 0.4: 0.1, 0.2, 0.3, 0.4, then 0.2 (1 + cos(k pi / 8)).

    The first step after the warm-up is still the highest, half-way is half, and the last is not 0:
    it is step 7 of 8.
    """
    out = trained(data, tmp_path / "run", warmup_steps=4)

    rates = logged(out, "learning_rate")
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[5:] == pytest.approx([0.2 * (1 + cos(k * pi / 8)) for k in range(1, 8)])
    assert rates[8] == pytest.approx(0.2)
    assert rates[11] == pytest.approx(0.0152241, abs=1e-6)


def test_what_has_no_gradient_shrinks_by_rate_times_decay_and_biases_do_not(data, tmp_path):
    """Two steps at 0.01 and 0.02 with a decay of 0.5: 0.995 x 0.99 = 0.98505 of an unused word."""
    before = tiny_open_clip.load("cpu", "fp32").model.state_dict()
    after = weights(trained(data, tmp_path / "run", max_steps=2))

    word, place = "token_embedding.weight", "positional_embedding"
    assert torch.allclose(after[word][UNUSED], 0.98505 * before[word][UNUSED], rtol=1e-5)
    assert torch.allclose(after[place][-1], 0.98505 * before[place][-1], rtol=1e-5)
    keys = "transformer.resblocks.0.attn.in_proj_bias"
    assert torch.equal(after[keys].view(3, -1)[1], before[keys].view(3, -1)[1])


def test_vectors_norms_and_biases_do_not_decay_and_matrices_do(data, tmp_path):
    """With a decay of 0 everything moves alike; what differs with one is what decays."""
    plain, decayed = (
        weights(trained(data, tmp_path / f"{decay}", max_steps=1, weight_decay=decay))
        for decay in (0.0, 0.5)
    )
    before = tiny_open_clip.load("cpu", "fp32").model.state_dict()

    for name, value in before.items():
        shrunk = 0.005 * value if value.ndim >= 2 else torch.zeros_like(value)
        assert torch.allclose(plain[name] - decayed[name], shrunk, atol=1e-6), name


@pytest.mark.parametrize(
    ("start", "scale"),
    [
        (log(100) + 0.5, 100.0),  # 165: too high, whatever the step did
        (-0.5, 1.0),  # 0.61: too low
    ],
)
def test_the_logit_scale_is_held_between_1_and_100(data, tmp_path, start, scale):
    model = adapter(tmp_path, "scaled", f"adapter.model.logit_scale.fill_({start})")
    out = trained(data, tmp_path / "run", model=model, max_steps=1)

    assert logged(out, "logit_scale") == pytest.approx([scale])
    assert float(weights(out)["logit_scale"]) == pytest.approx(log(scale), abs=1e-6)


def test_a_logit_scale_within_is_left_where_the_step_puts_it(data, tmp_path):
    """One step of Adam at 0.01 moves it by 0.01, up or down, from log 50."""
    model = adapter(tmp_path, "scaled", f"adapter.model.logit_scale.fill_({log(50)})")
    out = trained(data, tmp_path / "run", model=model, max_steps=1)

    moved = float(weights(out)["logit_scale"]) - log(50)
    assert abs(moved) == pytest.approx(0.01, rel=0.05)


# ---------------------------------------------------------------- averages of weights


def test_a_moving_average_keeps_nine_tenths_of_itself():
    """From 10 with a decay of 0.9: at 20 it is 9 + 2 = 11, then at 40 it is 9.9 + 4 = 13.9."""
    towers = Towers(tiny_open_clip.build(), tokens=False)
    fill(towers, 10)
    teacher = Teacher(towers, 0.9)
    for now, mean in ((20, 11.0), (40, 13.9)):
        fill(towers, now)
        teacher.update()
        values = torch.cat([value.flatten() for value in teacher.towers.parameters()])
        assert torch.allclose(values, torch.tensor(mean)), now


@torch.no_grad()
def fill(module: torch.nn.Module, value: float) -> None:
    for parameter in module.parameters():
        parameter.fill_(value)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_moving_average_after_two_steps_is_81_9_and_10_parts(data, tmp_path, interrupted):
    """0.9 (0.9 start + 0.1 first) + 0.1 second, resumed after the first step or not."""

    def stop(line: str) -> None:
        if line.startswith("step 2/"):
            raise KeyboardInterrupt

    out = tmp_path / "run"
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            trained(data, out, say=stop, max_steps=2, ema_decay=0.9)
    average = weights(trained(data, out, resume=interrupted, max_steps=2, ema_decay=0.9), "ema")
    start = tiny_open_clip.load("cpu", "fp32").model.state_dict()
    first = weights(trained(data, tmp_path / "first", max_steps=1))
    second = weights(out)

    for name, mean in average.items():
        if mean.is_floating_point():
            expected = 0.81 * start[name] + 0.09 * first[name] + 0.1 * second[name]
            assert torch.allclose(mean, expected, atol=1e-6), name
    moved = (average["text_projection"] - start["text_projection"]).abs().max()
    assert moved > 1e-3


def test_wise_with_alpha_a_quarter_is_three_parts_of_the_first_and_one_of_the_second(tmp_path):
    """Every weight 2 in one model and 6 in the other: 3, where alpha turned round would give 5."""
    two, six = (
        adapter(tmp_path, f"all{value}",
                f"[p.fill_({value}.0) for p in adapter.model.parameters()]")
        for value in (2, 6)
    )  # fmt: skip
    mixed = load_model(f"wise:{two}+{six}?alpha=0.25").model

    values = torch.cat([value.flatten() for value in mixed.parameters()])
    assert torch.allclose(values, torch.tensor(3.0))
