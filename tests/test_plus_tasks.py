"""fsc+: BiVLC, ColorSwap, MMVP-VLM, VisMin, Half-Truths and NegBench, from raw files to scores."""

import csv
import gzip
import io
import re
from dataclasses import replace
from functools import cache
from graphlib import TopologicalSorter
from math import sqrt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from known import World
from PIL import Image
from test_blind import agree

from fsc_bench.cli.main import app
from fsc_bench.data.images import write_link
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import ImageRef, Record
from fsc_bench.report.leaderboard import Row, columns
from fsc_bench.report.suites import TaskFacts
from fsc_bench.report.tables import write
from fsc_bench.results import Cell
from fsc_bench.score.blind import blind_facts
from fsc_bench.task import Task, catalogue, select

SIX = ("bivlc", "colorswap", "mmvp_vlm", "vismin", "half_truths", "negbench")
TASKS = {name: catalogue()[name] for name in SIX}


def records(task: Task, folder: Path) -> list[Record]:
    return list(load_reader(task.data.reader, task.name).read(task, Raw(task, folder)))


def write_rows(path: Path, columns: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


# ---------------------------------------------------------------- what the task files say


@pytest.mark.parametrize(
    ("name", "n", "chance"),
    [
        ("bivlc", 2933, {"group": 16.6667, "text": 25, "image": 25}),
        ("colorswap", 300, {"group": 16.6667}),
        ("mmvp_vlm", 135, {"group": 16.6667, "image": 25}),
        ("vismin", 2084, {"group": 16.6667}),
        ("half_truths", 1437, {"text": 50}),
        ("negbench", 10945, {"text": 25}),
    ],
)
def test_counts_and_chance_are_the_papers(name, n, chance):
    task = TASKS[name]
    assert (task.suite, task.n, task.chance) == ("fsc_plus", n, chance)
    assert task.blind.source and task.license and task.paper


def test_a_ruler_wins_half_truths_and_its_file_says_so():
    assert "A ruler wins it by construction" in TASKS["half_truths"].blind.source
    miniature = catalogue()["demo_half_truths"]
    assert miniature.blind.ruler["headline"] == miniature.blind.best == 100


NOT_AT_HAND = {"colorswap", "mmvp_vlm", "vismin", "half_truths", "negbench"}


def test_blind_is_a_hole_where_the_texts_were_not_at_hand(tmp_path, capsys):
    tasks = select(["fsc+"])
    assert {task.name for task in tasks if task.blind.best is None} == NOT_AT_HAND
    for name in NOT_AT_HAND:
        blind = TASKS[name].blind
        assert blind.source.startswith("nothing: ") and "not at hand" in blind.source
        assert blind.ruler == blind.bigram == blind.free == {}
    facts = [TaskFacts.of(task) for task in tasks]
    cells = {name: Cell(50.0) for name in columns(facts)}
    write(tmp_path, "fsc_plus", [Row("mine", "measured", cells)], facts)

    page = (tmp_path / "fsc-plus.md").read_text()
    averages, table = ([cell.strip() for cell in line.split("|")[1:-1]]
                       for line in page.splitlines() if "| blind |" in line)  # fmt: skip
    assert averages == ["", "blind", "24.0", "-", "-"]  # ITT, TOT, Group
    known = {name for name, cell in zip(["", *columns(facts)], table, strict=True) if cell != "-"}
    assert known == {
        "",
        "bivlc group",
        "cola",
        "hard_positives",
        "sugarcrepe_pp text",
        "visla text",
    }
    with (tmp_path / "fsc-plus.csv").open() as file:
        (row,) = [one for one in csv.DictReader(file) if one["model"] == "blind"]
    assert row["colorswap"] == row["half_truths"] == row["Group"] == ""
    assert "colorswap headroom" not in row and row["cola"] == "0.0000"
    with pytest.raises(SystemExit):
        app(["tasks"])
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for name in NOT_AT_HAND:
        assert re.search(r" - +(open|gated|manual) ", listed[name]), listed[name]
    assert re.search(r" 0\.0 +open ", listed["cola"])


# ---------------------------------------------------------------- a real model's outcomes

CHOICES = ("text_score_i0", "text_score_i1", "image_score_c0", "image_score_c1")
# What each of the choices compares: similarities of (picture, caption), the right one first.
COMPARES = (((0, 0), (0, 1)), ((1, 1), (1, 0)), ((0, 0), (1, 0)), ((1, 1), (0, 1)))


@cache
def similarities(*chosen: bool) -> dict[tuple[int, int], float]:
    """Four cosines, 0.1 to 0.4, of which each of the choices follows: right or wrong."""
    below: dict[tuple[int, int], set] = {}
    for is_right, (right, wrong) in zip(chosen, COMPARES, strict=True):
        more, less = (right, wrong) if is_right else (wrong, right)
        below.setdefault(more, set()).add(less)
    order = TopologicalSorter(below).static_order()
    return {pair: (place + 1) / 10 for place, pair in enumerate(order)}


@cache
def cell(colour: tuple[int, int, int]) -> dict[str, bytes]:
    """A picture of one colour, as the Hub's files hold it."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), colour).save(file, "PNG")
    return {"bytes": file.getvalue()}


def test_a_real_models_choices_give_bivlcs_published_scores(real_data, tmp_path):
    """open_clip's ViT-B-32/openai, choice by choice: results_BiVLC_ViT-B-32.csv of the authors.

    Captions are one axis and negative captions another: a picture's cosines are its coordinates.
    """
    world = World(tmp_path)
    path = real_data / "fsc_plus/bivlc/results_BiVLC_ViT-B-32.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    said = ("caption", "negative_caption")
    table = []
    for row in rows:
        for key, axis in zip(said, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), strict=True):
            world.text(axis, row[key])
        near = similarities(*(row[choice] == "True" for choice in CHOICES))
        cells = {key: row[key] for key in (*said, "type", "subtype")}
        for k, column in enumerate(("image", "negative_image")):
            x, y = near[k, 0], near[k, 1]
            point = (x, y, sqrt(1 - x * x - y * y))
            cells[column] = cell(world.colours.setdefault(point, (len(world.colours), 0, 0)))
        table.append(cells)
    (tmp_path / "hub/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "hub/data/test-00000-of-00001.parquet")
    write_link(world.data, "bivlc", tmp_path / "hub")

    found = world.read(TASKS["bivlc"], world.run(TASKS["bivlc"]))

    # The paper's table: 75.83, 52.40, 49.06.
    published = {"text": 75.8268, "image": 52.4037, "group": 49.0624}
    reference = TASKS["bivlc"].reference["open_clip:ViT-B-32-quickgelu/openai"]
    for metric, percent in published.items():
        assert found.value(metric) == pytest.approx(percent, abs=6e-5), metric
        assert reference[metric] == percent
        for subset, numbers in reference["subsets"].items():
            assert found.value(metric, subset) == pytest.approx(numbers[metric], abs=6e-5), subset
    assert found.value("group", "swap_obj") == pytest.approx(800 / 81)
    assert found.result["ties"] == found.result["nan"] == found.result["audits"]["free"] == 0
    facts = blind_facts(TASKS["bivlc"], records(TASKS["bivlc"], tmp_path / "hub"), classify=False)
    agree(TASKS["bivlc"].blind, facts)


# ---------------------------------------------------------------- columns: what a subset is


def test_a_subset_may_stand_in_two_columns_or_be_the_files_name(tmp_path):
    rows = [
        {"image": cell((place, 0, 0)), "caption": f"a {word}", "negative_caption": f"no {word}",
         "negative_image": cell((place, 1, 0)), "type": kind, "subtype": part}
        for place, (word, kind, part) in enumerate((("cat", "add", "obj"), ("hat", "swap", "att")))
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    for number in (0, 1):
        path = tmp_path / f"data/test-{number:05d}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(rows[::-1] if number else rows), path)

    found = records(TASKS["bivlc"], tmp_path)

    assert [row.subset for row in found] == ["add_obj", "swap_att", "swap_att", "add_obj"]
    assert found[0].texts == ("a cat", "no cat")
    assert [ref.path.rpartition("::")[2] for ref in found[1].images] == [
        "image/1",
        "negative_image/1",
    ]


def changed(task: Task, **options) -> Task:
    return replace(task, data=replace(task.data, options={**task.data.options, **options}))


def test_half_truths_are_told_apart_by_their_files(tmp_path):
    for name in ("coco_qwen", "coco_mistral", "cc3m_qwen"):
        row = {"image": cell((9, 9, 9)), "anchor": f"a cat, {name}", "full_truth": "a cat, a mat",
               "half_truth": "a cat and a dog", "triplet_type": "entity", "id": "x"}  # fmt: skip
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"data/{name}.parquet")

    found = records(TASKS["half_truths"], tmp_path)

    assert [(row.subset, row.texts) for row in found] == [
        (name, (f"a cat, {name}", "a cat and a dog"))
        for name in ("coco_qwen", "coco_mistral", "cc3m_qwen")
    ]
    with pytest.raises(UsageError, match="subset and by_file both say what the subset is"):
        records(changed(TASKS["half_truths"], subset="triplet_type"), tmp_path)


# ---------------------------------------------------------------- MMVP-VLM

QUESTIONS = ["Question ID", "Type", "Statement"]
PAIRS = [
    [1, "Orientation", "a rabbit, facing left"],
    [2, "Orientation", "a rabbit, facing right"],
    [31, "Camera Perspective", "a dog from above"],
    [32, "Camera Perspective", "a dog from below"],
]


def test_two_lines_are_a_pair_and_a_statement_is_put_into_words(tmp_path):
    write_rows(tmp_path / "Questions.csv", QUESTIONS, PAIRS)

    first, second = records(TASKS["mmvp_vlm"], tmp_path)

    assert first.texts == ("a photo of a rabbit, facing left", "a photo of a rabbit, facing right")
    assert (first.subset, second.subset) == ("orientation", "camera_perspective")
    assert [ref.path for ref in second.images] == [
        "MLLM_VLM Images/Camera Perspective/31.jpg",
        "MLLM_VLM Images/Camera Perspective/32.jpg",
    ]
    assert records(changed(TASKS["mmvp_vlm"], template="{}"), tmp_path)[1].texts[0] == PAIRS[2][2]


@pytest.mark.parametrize(
    ("row", "cell", "value", "line"),
    [
        (1, 0, 3, "1 and 3 are no pair, such as 1 and 2"),
        (2, 0, 32, "32 and 32 are no pair"),
        (0, 0, "one", "'Question ID' is 'one', no number"),
        (1, 1, "Color", "types 'Orientation' and 'Color' are not one type"),
        (3, 2, " ", "'Statement' is empty"),
        (3, None, None, "has 3 lines; two make a pair"),
    ],
)
def test_a_wrong_line_of_questions_is_told_in_one(tmp_path, row, cell, value, line):
    lines = [list(one) for one in PAIRS]
    if cell is None:
        del lines[row]
    else:
        lines[row][cell] = value
    write_rows(tmp_path / "Questions.csv", QUESTIONS, lines)

    with pytest.raises(DataError) as caught:
        records(TASKS["mmvp_vlm"], tmp_path)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_words_without_a_place_for_the_statement_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"template = 'a photo' needs exactly one \{\}"):
        records(changed(TASKS["mmvp_vlm"], template="a photo"), tmp_path)


# ---------------------------------------------------------------- NegBench

MCQ = ["image_path", "caption_0", "caption_1", "caption_2", "caption_3", "correct_answer",
       "correct_answer_template"]  # fmt: skip
COCO = "COCO_val_mcq_llama3.1_rephrased.csv"
VOC = "VOC2007_mcq_llama3.1_rephrased.csv"
QUESTION = ["data/coco/images/val2017/000000000139.jpg", "no cat", "a dog", "a cat", "a hat", 2,
            "positive"]  # fmt: skip


def write_questions(folder: Path, *rows: list) -> None:
    write_rows(folder / "images" / COCO, MCQ, list(rows))
    other = [r"C:\voc\000001.jpg", "a", "b", "c", "d", "0", "hybrid"]
    write_rows(folder / "images" / VOC, MCQ, [other])


def test_the_right_sentence_is_the_one_of_the_number_and_pictures_are_found_by_name(tmp_path):
    write_questions(tmp_path, QUESTION, [*QUESTION[:5], 0, "negative"])

    first, second, third = records(TASKS["negbench"], tmp_path)

    assert (first.subset, first.texts) == ("coco_positive", ("a cat", "no cat", "a dog", "a hat"))
    assert (second.subset, second.texts[0]) == ("coco_negative", "no cat")
    assert first.images == (ImageRef("coco/val2017", "000000000139.jpg"),)
    assert first.cluster == second.cluster and first.id != second.id
    assert (third.subset, third.images) == ("voc_hybrid", (ImageRef("voc/test2007", "000001.jpg"),))


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (5, "4", "'correct_answer' is '4', not the number of one of 4 captions, from 0"),
        (5, "", "'correct_answer' is ''"),
        (6, "double", "'coco_double' is none of coco_positive, coco_negative"),
        (2, "", "'caption_1' is empty"),
        (0, "", "'image_path' is empty"),
    ],
)
def test_a_wrong_question_is_told_in_one_line(tmp_path, place, value, line):
    row = list(QUESTION)
    row[place] = value
    write_questions(tmp_path, QUESTION, row)

    with pytest.raises(DataError) as caught:
        records(TASKS["negbench"], tmp_path)
    assert f"{COCO}: record row 2: {line}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_place_of_the_folder_and_sets_that_say_too_little_are_refused(tmp_path):
    write_questions(tmp_path, QUESTION)
    with pytest.raises(DataError, match="is one file; link the folder that holds those of all"):
        records(TASKS["negbench"], tmp_path / "images" / COCO)
    with pytest.raises(UsageError, match="each needs 'file' and 'source'"):
        records(changed(TASKS["negbench"], sets={"coco": {"file": "a.csv"}}), tmp_path)
    (tmp_path / "images" / VOC).unlink()
    with pytest.raises(DataError, match=r"VOC2007_mcq_llama3\.1_rephrased\.csv"):
        records(TASKS["negbench"], tmp_path)
