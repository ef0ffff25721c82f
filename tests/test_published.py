"""Published: quoted numbers out of anybody's CSV files."""

import csv
from pathlib import Path

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import published_folder, published_rows
from fsc_bench.report.published import read_published, read_published_file
from fsc_bench.report.suites import TaskFacts
from fsc_bench.score.statistics import ROOT, tree_mean
from fsc_bench.task import catalogue, select

KNOWN = ("Comp", "stairs", "ramps")
GOOD = "model,source,Comp,stairs\nm,p. 3,41.5,-\n"


def read(folder, text, others=()):
    """(rows, what was told of a file with this text)."""
    (folder / "a.csv").write_text(GOOD)
    (folder / "b.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    said = []
    rows = read_published(folder, KNOWN, said.append, others)
    assert all(line.isprintable() and line.startswith(str(folder / "b.csv")) for line in said)
    assert rows[0].values == {"Comp": 41.5}  # whatever the other file is
    return rows[1:], [line.removeprefix(f"{folder / 'b.csv'}: ") for line in said]


def test_rows_say_where_they_stand_and_holes_are_left_out(tmp_path):
    rows, said = read(tmp_path, "\ufeffmodel,source,ramps,stairs\n\nn,p. 4,2.25,\n")

    assert not said
    assert [(row.model, row.source, row.values, row.line) for row in rows] == [
        ("n", "p. 4", {"ramps": 2.25}, 3)
    ]


@pytest.mark.parametrize("cell", ["nan", "inf", "-1", "100.1", "1e400", "٤٢", "4_2", "42%", "=1"])
def test_a_cell_that_is_no_percentage_is_told_and_its_row_shown(tmp_path, cell):
    rows, said = read(tmp_path, f"model,source,ramps,stairs\nn,p,{cell},7.5\n")

    assert [row.values for row in rows] == [{"stairs": 7.5}]
    assert said == [f"line 2: ramps = '{cell}' is no number within 0 and 100."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty; its first line"),
        ("model,sourec,Comp\n", "lacks 'source'. Did you mean 'sourec'?"),
        ("model,source,Comp,Comp\nn,p,1,2\n", "'Comp' twice"),
        ("model,source,Comp\nn,p\n", "line 2: 2 cells below 3 columns"),
        ("model,source,Comp\nn,p,1,2\n", "line 2: 4 cells below 3 columns"),
        ('model,source,Comp\n"n,p,1\n', "not CSV"),
        ('model,source,Comp\n"a\nb",p,1\n', r"'model' is 'a\nb'"),
        ("model,source,Comp\n\x1b[2J,p,1\n", r"'model' is '\x1b[2J'"),
        ("model,source,Comp\n,p,1\n", "'model' is ''"),
        (f"model,source,Comp\n{'x' * 1001},p,1\n", "more than 1,000 characters"),
        (b"model,source,Comp\n\xff,p,1\n", "not UTF-8"),
        (f"model,source,Comp\n{'y' * 200_000},p,1\n", "not CSV: field larger"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_and_left_out(tmp_path, text, words):
    rows, said = read(tmp_path, text)

    assert not rows
    assert len(said) == 1 and words in said[0]


def test_a_column_that_no_table_has_is_told_with_the_near_miss(tmp_path):
    text = "model,source,stiars,pairs\nn,p,3,4\n"

    rows, said = read(tmp_path, text, others=["pairs"])
    assert said == ["the column 'stiars' is no column of a table; left out. Did you mean 'stairs'?"]
    assert [row.values for row in rows] == [{}]
    with pytest.raises(UsageError, match="stiars"):
        read_published(tmp_path, KNOWN)


def test_each_row_stands_in_the_tables_that_it_has_a_number_of(tmp_path):
    """Of columns that another shipped table has nothing is told."""
    (tmp_path / "a.csv").write_text("model,source,negbench,Comp\nn,p,41.5,\nc,p,,52.25\nz,p,,\n")
    said = []
    for suite, models in (("fsc", {"c": {"Comp": 52.25}}), ("fsc_plus", {"n": {"negbench": 41.5}})):
        tasks = [TaskFacts.of(task) for task in select([suite])]
        rows = published_rows(tasks, tmp_path, said.append)
        found = {row.model: {name: cell.value for name, cell in row.cells.items()} for row in rows}
        assert found == {**models, "z": {}}  # of which its file says no number at all
    assert not said


# ---------------------------------------------------------------- NegBench's five models

NEGBENCH = catalogue()["negbench"]
SETS = {"coco": "COCO", "voc": "VOC2007"}  # ours and the authors' names
TEMPLATES = ("positive", "negative", "hybrid")


def negbench() -> dict[str, dict[str, float]]:
    """By model of the shipped file: percent by subset, whole sets and the headline among them."""
    rows = read_published_file(published_folder() / "negbench.csv", ["negbench"])
    return {
        row.model: {ROOT: row.values["negbench"]}
        | {name.removeprefix("negbench/"): value for name, value in row.more.items()}
        for row in rows
    }


def test_negbenchs_totals_follow_from_its_breakdown_and_the_counts():
    """2,032 + 1,870 + 2,012 questions on COCO and 682 + 2,121 + 2,228 on VOC, of whole hits."""
    found = negbench()
    assert len(found) == 5
    for model, percent in found.items():
        leaves = {name: percent[name] for name in NEGBENCH.leaves}
        for name, count in NEGBENCH.leaves.items():
            hits = leaves[name] * count / 100
            assert hits == pytest.approx(round(hits), abs=2e-5), (model, name)
        totals = tree_mean(NEGBENCH.subsets, leaves, NEGBENCH.leaves, NEGBENCH.within)
        for name in (*SETS, ROOT):
            assert totals[name] == pytest.approx(percent[name], abs=2e-6), (model, name)
    assert found["ConCLIP (ViT-B-32)"]["coco"] == pytest.approx(100 * 1412 / 5914, abs=1e-6)


def test_negbenchs_rows_are_its_authors(real_data: Path):
    theirs = {}
    for name in ("1_baseline_total.csv", "1_baseline_breakdown.csv"):
        with (real_data / "fsc_plus/negbench" / name).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                theirs.setdefault(f"{row.pop('Model')} (ViT-B-32)", {}).update(row)
    ours = negbench()
    assert ours.keys() == theirs.keys()
    for model, row in theirs.items():
        for ours_, name in SETS.items():
            columns = {ours_: f"{name} MCQ Total Accuracy"} | {
                f"{ours_}_{kind}": f"{name} {kind.capitalize()} Accuracy" for kind in TEMPLATES
            }
            for column, theirs_ in columns.items():
                percent = 100 * float(row[theirs_])
                assert ours[model][column] == pytest.approx(percent, abs=1e-6), (model, column)
    reference = NEGBENCH.reference["open_clip:ViT-B-32-quickgelu/openai"]
    for name, value in ours["CLIP-OpenAI (ViT-B-32)"].items():
        stated = reference["text"] if name == ROOT else reference["subsets"][name]
        assert stated == pytest.approx(value, abs=6e-5), name
