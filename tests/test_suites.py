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
from fsc_bench.report.leaderboard import Row, averages, members, present, reading
from fsc_bench.report.site import Board, site
from fsc_bench.report.suites import TaskFacts
from fsc_bench.report.tables import write as write_tables
from fsc_bench.results import Cell
from fsc_bench.suite import default, read_suite, shipped, suite_of
from fsc_bench.task import catalogue, own_task, select

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


# ---------------------------------------------------------------- how to read a suite's numbers


def test_how_to_read_a_suite_stands_in_its_file_or_follows_from_its_averages(tmp_path):
    suite = read_suite(write(tmp_path))
    facts = [TaskFacts.of(task, suite) for task in suite.tasks]
    assert reading(facts) == [
        "Order is the mean of 2 columns: winoground, aro.",
        "Found is the score of flickr30k t2i_r1.",
    ]
    told = MINE.replace("[groups]", 'reading = ["Order asks for order."]\n[groups]', 1)
    suite = read_suite(write(tmp_path, told, "told"))
    assert reading([TaskFacts.of(task, suite) for task in suite.tasks]) == ["Order asks for order."]
    twice = MINE.replace("[groups]", 'reading = ["a\\nb"]\n[groups]', 1)
    with pytest.raises(UsageError, match=r"'reading' is 'a.*one line of printable"):
        read_suite(write(tmp_path, twice, "twice"))


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_suites_own_words_name_its_averages_and_no_others(name):
    facts = [TaskFacts.of(task) for task in catalogue().values() if task.suite == name]
    words = set(re.findall(r"[\w+]+", " ".join(shipped()[name].reading)))
    every = {average for suite in shipped().values() for average in suite.averages}
    assert words, name
    if not shipped()[name].apart:
        beside = {"Comp"} if name == "fsc_plus" else set()  # which says that it is another's
        assert words & every == {*present(facts)} | beside


def test_no_report_names_an_average_of_a_shipped_suite():
    names = {average for suite in shipped().values() for average in suite.averages} - {"Group"}
    files = [*(PACKAGE / "report").glob("*.py")]
    found = {(file.name, word) for file in files for word in words_of(file) & names}
    page = set(re.findall(r"\w+", (PACKAGE / "report" / "page.html.j2").read_text()))
    assert not found and not page & names and len(files) > 10


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


def test_the_words_of_fsc_plus_stand_on_its_page_and_its_markdown(tmp_path):
    facts = [TaskFacts.of(task) for task in select(["fsc+"])]
    row = Row("mine", "measured", {"cola": Cell(25.0)})
    write_tables(tmp_path, "fsc_plus", [row], facts)
    text, page = (tmp_path / "fsc-plus.md").read_text(), site([Board("fsc_plus", facts, [row])])
    for line in shipped()["fsc_plus"].reading:
        assert f"\n- {line}\n" in text and f"<li>{line}</li>" in page
    assert "Comp is the mean" not in text + page


def test_the_page_has_the_suite_that_is_asked_for_and_no_other(runs, capsys):
    page = runs / "page.html"
    words = ("leaderboard", runs / "runs", "-o", runs / "out", "--html", page)
    assert ran(capsys, *words, "-t", runs / "pair.toml")[0] == 0
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)
    (suite,) = json.loads(data[1])["suites"]
    assert suite["title"] == "pair" and list(suite["groups"]["averages"]) == ["Both"]
    both = {row["model"]: row["cells"][0][0] for row in suite["rows"] if row["kind"] == "measured"}
    assert both == {"mine:a": 45.0, "mine:b": 70.0}  # (70 + 20) / 2, (90 + 50) / 2
    own = "Both is the mean of 2 columns: one, two."
    assert f"\n- {own}\n" in (runs / "out/pair.md").read_text()
    assert f"<li>{own}</li>" in page.read_text() and "FSC-CLIP" not in page.read_text()
    assert ran(capsys, *words)[0] == 0  # the suite that the tasks' own files name
    own = "Comp is the mean of 3 columns: one, three, two."
    assert f"\n- {own}\n" in (runs / "out/private.md").read_text()
    assert f"<li>{own}</li>" in page.read_text()
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
