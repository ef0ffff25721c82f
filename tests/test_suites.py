"""Suites of one's own: a TOML that names tasks, groups and averages."""

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import averages, members, present
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell
from fsc_bench.suite import default, read_suite, suite_of
from fsc_bench.task import select

MINE = """
title = "Word order"
tasks = ["winoground", "aro", "flickr30k"]
[groups]
order = ["aro", "winoground"]
[averages]
Order = { of = "order" }
Found = { of = "retrieval", metric = "t2i" }
"""


def write(folder, text=MINE, name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_suite_of_ones_own_selects_its_tasks_and_declares_its_averages(tmp_path):
    path = write(tmp_path)
    assert {task.name for task in select([str(path)])} == {"winoground", "aro", "flickr30k"}
    suite = read_suite(path)
    facts = [TaskFacts.of(task, suite) for task in suite.tasks]
    assert present(facts) == ["Order", "Found"]
    assert members("Found", facts) == ["flickr30k t2i_r1"]
    cells = {
        name: Cell(value) for name, value in zip(members("Order", facts), (30, 61), strict=True)
    }
    assert averages(cells, facts)["Order"].value == 45.5


def test_the_averages_of_the_shipped_suites_are_those_of_their_files():
    facts = [TaskFacts.of(task) for task in select([default().name])]
    assert [len(members(name, facts)) for name in ("Comp", "ZS", "I2T", "T2I")] == [11, 21, 3, 3]
    assert suite_of("clip_benchmark").averages == {}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"winoground", "aro", "f', '"winogrond", "aro", "f', "called 'winogrond'.*winoground"),
        ('["winoground", "aro", "f', '["aro", "winoground", "aro", "f', "names 'aro' twice"),
        ('{ of = "order" }', '{ of = "ordr" }', "no group 'ordr'.*'order'"),
        ('{ of = "order" }', '{ of = "classification" }', "is of no task"),
        ('{ of = "order" }', '{ of = ["aro", "flickr30k"] }', "metrics of different scales"),
        ('{ of = "order" }', '{ of = ["aro", "valse"] }', "'valse' is no task of the suite"),
        ('{ of = "order" }', '{ of = ["aro"], metric = "txet" }', "no headline metric 'txet'"),
        ('"flickr30k"]', '"flickr30k", "mine.toml"]', "leads back to itself"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_suite_is_one_line(tmp_path, old, new, line):
    path = write(tmp_path, MINE.replace(old, new))
    with pytest.raises(UsageError, match=line) as told:
        read_suite(path)
    assert "\n" not in str(told.value)


def test_a_suite_takes_no_name_that_stands_for_something_else(tmp_path):
    with pytest.raises(UsageError, match="the name 'aro' is taken"):
        read_suite(write(tmp_path, name="aro"))


def test_a_task_stands_in_a_suite_of_a_suite_once(tmp_path):
    write(tmp_path, 'title = "Inner"\ntasks = ["aro"]\n', "inner")
    outer = write(tmp_path, 'title = "Outer"\ntasks = ["inner.toml", "valse"]\n', "outer")
    assert [task.name for task in read_suite(outer).tasks] == ["aro", "valse"]
