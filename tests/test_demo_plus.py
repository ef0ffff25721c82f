"""The miniatures of fsc+: drawn in the official raw formats, in a suite of their own."""

import csv

import pyarrow.parquet as pq
import pytest
from oracle import Oracle
from test_blind import agree
from test_miniatures import headline, score

from fsc_bench.cli.main import app
from fsc_bench.data.get import status
from fsc_bench.data.images import Images
from fsc_bench.data.offers import offers
from fsc_bench.data.prepare import prepare
from fsc_bench.demo import raw
from fsc_bench.demo.build import build
from fsc_bench.models import load_model
from fsc_bench.run.suite import Options, run
from fsc_bench.score.blind import blind_facts
from fsc_bench.task import catalogue, select

SUITE = "demo_plus"
TASKS = [task for task in catalogue().values() if task.suite == SUITE]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data folder with the suite's raw files."""
    folder = tmp_path_factory.mktemp("plus")
    build(folder, suites={SUITE})
    return folder


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_knows_the_answers_scores_100_and_who_knows_nothing_is_told_the_chance(
    task, world, tmp_path
):
    prepared, images = prepare(task, world), Images(world)

    right, _ = score(prepared, Oracle(prepared, images), images, tmp_path)
    assert {headline(right)[metric] for metric in task.headline} == {100.0}
    assert right.ties == right.audits["free"] == 0
    luck, _ = score(prepared, load_model("control:chance"), images, tmp_path)
    for metric in task.headline:
        cell = luck.metrics["headline"][metric]
        assert cell.chance == pytest.approx(task.chance[metric], abs=0.01)
        assert cell.low <= task.chance[metric] <= cell.high
    agree(task.blind, blind_facts(task, prepared.records, classify=False))


def test_the_suite_has_a_miniature_of_each_benchmark_and_the_demo_has_none():
    plus = {task.name for task in select(["fsc_plus"])}
    assert {task.name.removeprefix("demo_") for task in TASKS} == plus
    assert not {task.name for task in select(["demo"])} & {task.name for task in TASKS}
    assert not {task.name for task in select(["compositionality"])} & {task.name for task in TASKS}


def test_where_its_data_come_from_is_said_with_the_command_that_draws_them(tmp_path):
    (task,) = select(["demo_bivlc"])
    (row,) = status([task], tmp_path)
    assert (row.state, row.next) == ("missing", "fsc-bench run --demo -t demo_plus")
    (offer,) = offers([task], tmp_path)
    assert [place.source for place in offer.places] == [
        "drawn by `fsc-bench run --demo -t demo_plus`"
    ]


def test_it_has_a_table_of_its_own(world, tmp_path, capsys):
    """Two captions that must both win have a column, and texts with texts one; Comp has none."""
    tasks = select(["demo_sugarcrepe_pp", "demo_cola"])
    done = run(["control:chance"], tasks, Options(world, tmp_path / "runs"))
    assert done.failures == []
    with pytest.raises(SystemExit) as end:
        app(["leaderboard", str(tmp_path / "runs"), "--out", str(tmp_path / "tables")])
    assert not end.value.code
    with (tmp_path / "tables" / "demo-plus.csv").open(newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if row["model"] == "control:chance")
    cells = done.results["control:chance"]["demo_sugarcrepe_pp"].metrics["headline"]
    for metric in ("text", "tot"):
        found = float(row[f"demo_sugarcrepe_pp {metric}"])
        assert found == pytest.approx(cells[metric].value, abs=1e-4)
    assert row["demo_cola"] and "Comp" not in row


@pytest.mark.parametrize("name", [task.name.removeprefix("demo_") for task in TASKS])
def test_a_miniature_is_the_same_every_time(name, tmp_path):
    drawn = []
    for place in ("one", "two"):
        raw.write(name, tmp_path / place / "raw", tmp_path / place / "images", n=2)
        files = sorted(path for path in (tmp_path / place).rglob("*") if path.is_file())
        drawn.append({str(f.relative_to(tmp_path / place)): f.read_bytes() for f in files})
    assert drawn[0] == drawn[1] and drawn[0]


def test_a_half_truth_is_its_anchor_with_more_words(tmp_path):
    raw.write("half_truths", tmp_path, tmp_path, n=4)
    rows = pq.read_table(tmp_path / "data/cc3m_qwen.parquet").to_pylist()
    assert [row["triplet_type"] for row in rows] == ["entity", "relation"] * 2
    for row in rows:
        assert row["half_truth"].startswith(f"{row['anchor']} ")
        assert row["full_truth"].startswith(f"{row['anchor']} ")


def test_the_right_sentence_of_a_question_stands_anywhere(tmp_path):
    raw.write("negbench", tmp_path, tmp_path, n=8)
    for name in ("COCO_val", "VOC2007"):
        path = tmp_path / f"images/{name}_mcq_llama3.1_rephrased.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 24 and {row["correct_answer"] for row in rows} == set("0123")
