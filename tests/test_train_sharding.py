"""Sharding: each process holds its share, and what is gathered is what was cut."""

import processes
import pytest
import tiny_open_clip
import torch

from fsc_bench.system.distributed import open_group
from fsc_bench.train import sharding
from fsc_bench.train.towers import Towers


def hold_a_share(rank, folder):
    open_group("gloo")
    torch.manual_seed(0)
    towers = Towers(tiny_open_clip.build(), tokens=False)
    before = {name: value.clone() for name, value in towers.model.state_dict().items()}
    sharding.shard(towers, "cpu")

    parameters = dict(towers.model.named_parameters())
    cut = {name for name, value in parameters.items() if sharding.is_shard(value)}
    held = sum(sharding.local(parameters[name]).numel() for name in cut)
    gathered = sharding.whole(towers.model.state_dict(), keep=rank == 0)
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    parameters["logit_scale"].grad = torch.tensor(1.0 + rank)
    sharding.average_scalars(towers)
    twice = sharding.part_of(2 * before[name], parameters[name])
    facts = {
        "whole": sorted(set(parameters) - cut),
        "share": held / sum(parameters[name].numel() for name in cut),
        "equal": [torch.equal(gathered[name], value) for name, value in before.items()
                  if rank == 0],
        "kept": [gathered[name] is not None for name in cut],
        "twice": torch.equal(twice.full_tensor(), 2 * before[name]),
        "gradient": float(parameters["logit_scale"].grad),
        "blocks": len(sharding.blocks(towers)),
    }  # fmt: skip
    torch.save(facts, f"{folder}/{rank}.pt")


def test_two_processes_hold_half_each_and_gather_what_was_cut(tmp_path):
    processes.together(hold_a_share, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))

    assert first["whole"] == second["whole"] == ["logit_scale"]
    assert first["share"] + second["share"] == pytest.approx(1.0)
    assert first["share"] == pytest.approx(0.5, abs=0.01)
    assert all(first["equal"]) and all(first["kept"]) and not any(second["kept"])
    assert first["gradient"] == second["gradient"] == 1.5
    assert first["twice"] and first["blocks"] == 4  # two layers in each tower


def test_nothing_changes_where_nothing_is_sharded():
    value = torch.arange(4.0)
    state = {"a": value, "b": [value, {"step": 3}]}

    assert sharding.whole(state)["a"] is value and sharding.whole(state)["b"][1] == {"step": 3}
    assert sharding.part_of(value, torch.zeros(4)) is value and sharding.local(value) is value


def test_scalars_stand_in_groups_of_their_own():
    a, b, scale = (torch.nn.Parameter(torch.zeros(shape)) for shape in [(2, 2), (2,), ()])
    groups = [{"params": [b, scale], "weight_decay": 0.0}, {"params": [a], "weight_decay": 0.1}]

    parted = sharding.separate_scalars(groups)
    assert [len(group["params"]) for group in parted] == [1, 1, 1]
    assert [group["weight_decay"] for group in parted] == [0.0, 0.0, 0.1]
    assert parted[1]["params"][0] is scale
