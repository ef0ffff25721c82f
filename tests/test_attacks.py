"""Attacks: a small share of each script of tests/attack, the same every time.

`python tests/attack/NAME.py` tries them all. Beside the count of wrong outcomes each test wants
both of the right ones: an attack of which nothing is ever read, or ever refused, tests nothing.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "attack"))

import adapters
import archives
import flips
import model_specs
import pictures
import result_files
import rights
import run_configs
import safetensors_files
import servers
import toml_files
import torch_files

LIARS = {
    "endless body, pinned",
    "length of 5,000 digits",
    "206 of 5,000 digits",
    "204",
    "no HTTP",
    "redirect to 'ftp://127.0.0.1/a'",
    "redirect to 'http://[::1/a'",
    "chunk of words",
}


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


def test_damaged_pictures_are_read_or_refused_by_one_line():
    found = pictures.attack(count=660, large=False)

    assert found.faults == []
    assert sum(found.counts.values()) == 660
    assert found.counts["read"] > 100 and found.counts["refused"] > 100


def test_hostile_archives_are_read_or_refused_and_stay_in_their_folder():
    found = archives.attack(large=False, every=3)

    assert found.faults == []
    assert found.counts["refused"] > 12


def test_servers_that_lie_are_refused_and_stop_no_other():
    found = servers.attack(LIARS)

    assert found.faults == []
    assert found.counts == {"refused": len(LIARS)}


def test_flipped_bits_in_prepared_records_are_never_believed():
    found = flips.attack(count=24)

    assert found.faults == []
    assert found.counts == {"read": 18, "refused": 6}  # each fourth time the raw files are away


def test_folders_without_rights_are_one_line():
    found = rights.attack({"prepare, read-only", "link of raw, no entry"})
    if found is None:
        pytest.skip("root cannot give its rights away here: there is no setpriv")

    assert found.faults == []
    assert found.counts == {"refused": 2}
