"""Suites of one's own: a TOML that names tasks, groups and averages."""

import ast
import json
import re
from pathlib import Path

import pytest
from made_runs import choices, write_run

import fsc_bench
from fsc_bench.cli.main import app
from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import averages, members, present
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell
from fsc_bench.suite import default, read_suite, suite_of
from fsc_bench.task import own_task, select

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


# ---------------------------------------------------------------- suites are no words of the code

PACKAGE = Path(fsc_bench.__file__).parent
SUITES = {"fsc", "demo"}
# A key of task files, beside `url`, `hf` and `images`: it names a writer of fsc_bench.demo.
KEYS = {("task.py", "demo")}


def words_of(path: Path) -> set[str]:
    """The words of the strings of a module but docstrings; `fsc-bench` is one, `--demo` another."""
    tree = ast.parse(path.read_text())
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [one.value for one in texts if isinstance(one.value, str) and id(one) not in told]
    return {word for text in strings for word in re.findall(r"[\w:-]+", text)}


def test_no_code_but_the_demos_own_package_names_a_shipped_suite():
    """Which suite is the default, which stands apart, and what averages it has, its file says."""
    modules = [p for p in PACKAGE.rglob("*.py") if not p.is_relative_to(PACKAGE / "demo")]
    found = {(str(p.relative_to(PACKAGE)), word) for p in modules for word in words_of(p) & SUITES}
    assert found == KEYS and len(modules) > 150
    assert words_of(PACKAGE / "demo" / "__init__.py") == {"demo"}


# ---------------------------------------------------------------- -t, in every command

OWN = """
title = "{name}"
suite = "private"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
items = 10
[data]
reader = "records"
"""
HITS = {"one": {"mine:a": 7, "mine:b": 9}, "two": {"mine:a": 2, "mine:b": 5},
        "three": {"mine:a": 1, "mine:b": 1}}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """Two models on three tasks of one's own; a suite's file of two of the tasks."""
    tasks = []
    for name in HITS:
        (tmp_path / f"{name}.toml").write_text(OWN.format(name=name))
        tasks.append(own_task(tmp_path / f"{name}.toml"))
    for model in ("mine:a", "mine:b"):
        rows = [[("items", f"p{n}", n < HITS[task.name][model]) for n in range(10)]
                for task in tasks]  # fmt: skip
        found = list(zip(tasks, map(choices, rows), strict=True))
        write_run(tmp_path / "runs", model, found)
    text = 'title = "Pair"\ntasks = ["one.toml", "two.toml"]\n'
    (tmp_path / "pair.toml").write_text(f'{text}[averages]\nBoth = {{ of = ["one", "two"] }}\n')
    return tmp_path


def ran(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        app([str(word) for word in words])
    found = capsys.readouterr()
    return end.value.code or 0, found.out, found.err


def test_the_page_has_the_suite_that_is_asked_for_and_no_other(runs, capsys):
    page = runs / "page.html"
    words = ("leaderboard", runs / "runs", "-o", runs / "out", "--html", page)
    assert ran(capsys, *words, "-t", runs / "pair.toml")[0] == 0
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)
    (suite,) = json.loads(data[1])["suites"]
    assert suite["title"] == "pair" and list(suite["groups"]["averages"]) == ["Both"]
    both = {row["model"]: row["cells"][0][0] for row in suite["rows"] if row["kind"] == "measured"}
    assert both == {"mine:a": 45.0, "mine:b": 70.0}  # (70 + 20) / 2, (90 + 50) / 2
    code, _, err = ran(capsys, *words, "-t", runs / "one.toml")
    assert (code, len(err.splitlines())) == (2, 1) and "one.toml: no suite's file" in err


@pytest.mark.parametrize(
    ("word", "averages", "tasks"),
    [
        ("pair.toml", {"Both": 25.0}, {"one": 20.0, "two": 30.0}),
        ("three.toml", {"Comp": 0.0}, {"three": 0.0}),
        ("one,three.toml", {"Comp": 10.0}, {"one": 20.0, "three": 0.0}),
    ],
)
def test_compare_takes_suites_task_files_and_the_names_of_tasks(
    runs, capsys, monkeypatch, word, averages, tasks
):
    monkeypatch.chdir(runs)
    code, out, _ = ran(capsys, "compare", "mine:a", "mine:b", "--json", "-t", word)
    (found,) = json.loads(out)["comparisons"]
    assert code == 0
    assert {line["name"]: line["difference"] for line in found["averages"]} == averages
    assert {line["name"]: line["difference"] for line in found["tasks"]} == tasks


def test_a_misspelt_suite_or_task_of_a_comparison_is_one_line(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    code, _, err = ran(capsys, "compare", "mine:a", "mine:b", "-t", "sugarcrape")
    assert (code, len(err.splitlines())) == (2, 1) and "Did you mean 'sugarcrepe'?" in err
