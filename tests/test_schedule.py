"""The schedule by itself: rates, decay, what is held, who is held out, and the moving average."""

from math import cos, log, pi

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import nn

from fsc_bench.errors import UsageError
from fsc_bench.train import schedule
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.towers import Teacher


def test_rates_rise_by_equal_steps_to_the_highest_and_fall_on_a_cosine():
    """Four steps of warm-up to 0.4; of the eight that follow the first is still the highest."""
    config = TrainConfig(learning_rate=0.4, warmup_steps=4)
    rates = [schedule.learning_rate(config, step, 12) for step in range(12)]
    assert rates == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, *(0.2 * (1 + cos(k * pi / 8)) for k in range(8))]
    )
    assert schedule.learning_rate(config, 4, 5) == 0.4


def test_matrices_decay_but_not_vectors_nor_what_is_a_norm_bias_or_scale_by_its_name():
    shapes = {"proj": (2, 3), "conv": (2, 2, 2), "cls": (4,), "ln_1.w": (2, 2), "bn.w": (2, 2)}
    shapes |= {"fc.bias": (2, 2), "logit_scale": (1, 1), "scalar": ()}
    named = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    names = {id(value): name for name, value in named.items()}

    none, some = schedule.decay_groups(named, 0.3)
    assert (none["weight_decay"], some["weight_decay"]) == (0.0, 0.3)
    assert [names[id(value)] for value in some["params"]] == ["proj", "conv"]
    assert [names[id(value)] for value in none["params"]] == [*shapes][2:]
    only = schedule.decay_groups({"proj": named["proj"]}, 0.3)
    assert [group["weight_decay"] for group in only] == [0.3]


def test_key_biases_lose_their_gradients_and_nothing_else_does():
    """Of attention's one vector the middle third; of an attention pool its keys' own vector."""
    attention, still = nn.MultiheadAttention(2, 1), nn.MultiheadAttention(2, 1)
    without = nn.MultiheadAttention(2, 1, bias=False)
    pool, still_pool = AttentionPool2d(2, 4, 2), AttentionPool2d(2, 4, 2)
    model = nn.ModuleList([attention, still, without, pool, still_pool, nn.Linear(2, 2)])
    attention.in_proj_bias.grad = torch.tensor([1.0, 2, 3, 4, 5, 6])
    attention.in_proj_weight.grad = torch.ones(6, 2)
    for part in (pool.k_proj, pool.q_proj):
        part.bias.grad = torch.tensor([7.0, 8, 9, 10])

    schedule.hold_key_biases(model)

    assert attention.in_proj_bias.grad.tolist() == [1, 2, 0, 0, 5, 6]
    assert attention.in_proj_weight.grad.all()
    assert pool.k_proj.bias.grad.tolist() == [0, 0, 0, 0]
    assert pool.q_proj.bias.grad.tolist() == [7, 8, 9, 10]
    assert still.in_proj_bias.grad is None and still_pool.k_proj.bias.grad is None


@pytest.mark.parametrize(
    ("trains", "bias", "scale"),
    [(True, None, 100), (True, -10.0, 200), (False, None, 200), (False, -10.0, 200)],
)
def test_a_scale_of_200_is_held_at_100_where_it_trains_and_there_is_no_bias(trains, bias, scale):
    model = nn.Module()
    model.logit_scale = nn.Parameter(torch.tensor(log(200)), requires_grad=trains)
    model.logit_bias = bias if bias is None else nn.Parameter(torch.tensor(bias))
    schedule.hold_logit_scale(model)
    assert model.logit_scale.exp().item() == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize(("before", "after"), [(-0.5, 0.0), (0.5, 0.5), (4.6, 4.6)])
def test_a_scale_below_1_is_raised_and_one_within_is_left(before, after):
    model = nn.Module()
    model.logit_scale = nn.Parameter(torch.tensor(before))
    schedule.hold_logit_scale(model)
    assert model.logit_scale.item() == pytest.approx(after)


# ---------------------------------------------------------------- who is held out


class Keyed:
    def __init__(self, *keys: str):
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)


def test_a_pictures_name_and_the_seed_decide_whether_it_is_held_out():
    """The first 64 bits of their hash, as a share of all: of a.jpg to h.jpg, in percent,

    39, 46, 72, 38, 6, 27, 66 and 56 with the seed 0; 87, 24, 4, 89, 38, 92, 26 and 97 with 1.
    """
    pairs = Keyed(*(f"{letter}.jpg" for letter in "abcdefgha"))  # the first has two captions
    held_out = {
        (share, seed): schedule.split_dev(pairs, share, seed)[1].tolist()
        for share, seed in ((0.4, 0), (0.3, 0), (0.3, 1))
    }
    assert held_out == {(0.4, 0): [0, 3, 4, 5, 8], (0.3, 0): [4, 5], (0.3, 1): [1, 2, 6]}
    training, dev = schedule.split_dev(pairs, 0.4, 0)
    assert sorted(np.concatenate([training, dev])) == [*range(9)]
    assert training.tolist() == [1, 2, 6, 7]


def test_a_share_that_holds_out_fewer_than_two_pairs_is_refused_and_0_holds_out_none():
    training, dev = schedule.split_dev(Keyed("a", "b", "c"), 0, seed=0)
    assert training.tolist() == [0, 1, 2] and dev.tolist() == []
    with pytest.raises(UsageError, match=r"dev_share = 0\.1 of 2 pairs is fewer than 2 pairs"):
        schedule.split_dev(Keyed("e.jpg", "a.jpg"), 0.1, seed=0)  # 6 and 39 percent


# ---------------------------------------------------------------- the moving average


class Normed(nn.Module):
    """One weight that trains, one that does not, running statistics, a count, a mask unsaved."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))
        self.frozen = nn.Parameter(torch.tensor([10.0]), requires_grad=False)
        self.register_buffer("running_mean", torch.tensor([10.0]))
        self.register_buffer("running_var", torch.tensor([20.0]))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mask", torch.tensor([1.0]), persistent=False)


@torch.no_grad()
def test_a_teacher_averages_what_trains_and_running_statistics_and_copies_the_rest():
    """With a decay of 0.75: from 10 to 20 is 12.5, from 20 to 40 is 25, and then 7.5 on."""
    now = Normed()
    teacher = Teacher(now, 0.75)
    assert not teacher.towers.training and now.training
    assert not any(value.requires_grad for value in teacher.towers.parameters())
    assert now.weight.requires_grad
    for value, number in ((now.weight, 20), (now.frozen, 99), (now.running_mean, 20)):
        value.fill_(number)
    now.running_var.fill_(40)
    now.count.fill_(7)

    teacher.update()

    mean = teacher.towers
    assert (mean.weight.item(), mean.running_mean.item()) == (12.5, 12.5)
    assert (mean.running_var.item(), mean.count.item()) == (25.0, 7)
    assert mean.frozen.item() == 10
