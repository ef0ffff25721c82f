"""Attacks: a small share of each script of tests/attack, the same every time.

`python tests/attack/NAME.py` tries them all. Beside the count of wrong outcomes each test wants
both of the right ones: an attack of which nothing is ever read, or ever refused, tests nothing.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "attack"))

import adapters
import model_specs
import result_files
import run_configs
import safetensors_files
import toml_files
import torch_files


@pytest.mark.parametrize(
    ("attack", "count", "least"),
    [
        (safetensors_files.attack, 60, {"refused": 50, "read": 1}),
        (torch_files.attack, 90, {"refused": 60, "read": 9}),
        (lambda count: result_files.attack(count, every=4), 20, {"refused": 20}),
        (lambda count: toml_files.attack(count, every=6), 13, {"refused": 13}),
        (lambda count: run_configs.attack(count, every=4), 10, {"refused": 10}),
        (lambda count: adapters.attack(count, every=5), 12, {"refused": 12}),
        (lambda count: model_specs.attack(count, every=2), 15, {"refused": 15}),
    ],
    ids=["safetensors", "torch", "results", "toml", "configs", "adapters", "specs"],
)
def test_what_strangers_send_is_read_rightly_or_refused_in_one_line(
    attack, count, least, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tally = attack(count)

    assert not tally.wrong, "\n".join(tally.lines())
    assert sum(tally.counts.values()) == count
    for outcome, number in least.items():
        assert tally.counts[outcome] >= number, tally.lines()
