"""Task files: what the strict reader takes and what it says of the rest."""

from pathlib import Path

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.task import catalogue, read_task, select, walk

GOOD = """
title = "Three"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
a = 2
b = { c = 1 }
[data]
reader = "records"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "three.toml"
    path.write_text(text)
    return path


def test_reads_a_task(tmp_path):
    task = read_task(written(tmp_path, GOOD))

    assert task.name == "three"
    assert task.leaves == {"a": 2, "c": 1}
    assert task.n == 3
    assert task.chance == {"text": 50.0}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("headline", "headlin", "unknown key 'headlin'. Did you mean 'headline'?"),
        ('kind = "matching"', 'kind = "maching"', "Did you mean 'matching'?"),
        ("version = 1", 'version = "1"', "'version' must be a whole number, not '1'"),
        ("version = 1", "", "the key 'version' is missing"),
        ("chance = 50.0", "chance = 500", "must lie in 0..100"),
        ('["text"]', '["txt"]', "Did you mean 'text'?"),
        ("a = 2", "a = 0", "a = 0 must be a count of records"),
        ("b = { c = 1 }", "b = { a = 1 }", "names 'a' twice"),
        ('reader = "records"', 'raeder = "records"', "Did you mean 'reader'?"),
        ('reader = "records"', "", "data: the key 'reader' is missing"),
        ("[subsets]", "[subsets", "not TOML"),
        ('reader = "records"', 'reader = "r"\nsources = [{ ulr = "x" }]', "Did you mean 'url'?"),
    ],
)
def test_says_what_is_wrong_in_one_line(tmp_path, old, new, line):
    with pytest.raises(UsageError) as caught:
        read_task(written(tmp_path, GOOD.replace(old, new, 1)))

    assert line in str(caught.value)
    assert "three.toml" in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_every_shipped_task_reads():
    tasks = catalogue()

    assert {"sugarcrepe", "winoground", "mnist", "coco_karpathy"} <= set(tasks)
    for task in tasks.values():
        assert set(task.chance) == set(task.headline)
        names = [name for name, _ in walk(task.subsets)]
        assert len(names) == len(set(names))


def test_select_takes_names_groups_suites_and_globs():
    assert [task.name for task in select(["mnist"])] == ["mnist"]
    assert {task.group for task in select(["retrieval"])} == {"retrieval"}
    assert {task.suite for task in select(["demo"])} == {"demo"}
    assert "sugarcrepe" in [task.name for task in select(["sugar*"])]
    assert "mnist" not in [task.name for task in select(["fsc"], ["mnist"])]
    with pytest.raises(UsageError, match=r"no task called 'winogrund'\. Did you mean 'winoground'"):
        select(["winogrund"])
