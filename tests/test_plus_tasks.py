"""fsc+: BiVLC, ColorSwap, MMVP-VLM, VisMin, Half-Truths and NegBench, from raw files to scores."""

import csv
import gzip
import io
from dataclasses import replace
from graphlib import TopologicalSorter
from math import sqrt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from known import World
from PIL import Image

from fsc_bench.data.images import write_link
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task, catalogue

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
    assert "A ruler wins it" in TASKS["half_truths"].blind.source
    miniature = catalogue()["demo_half_truths"]
    assert miniature.blind.ruler["headline"] == miniature.blind.best == 100


# ---------------------------------------------------------------- a real model's outcomes

CHOICES = ("text_score_i0", "text_score_i1", "image_score_c0", "image_score_c1")
# What each of the choices compares: similarities of (picture, caption), the right one first.
COMPARES = (((0, 0), (0, 1)), ((1, 1), (1, 0)), ((0, 0), (1, 0)), ((1, 1), (0, 1)))


def similarities(row: dict[str, str]) -> dict[tuple[int, int], float]:
    """Four cosines, 0.1 to 0.4, of which each choice of the row follows."""
    below: dict[tuple[int, int], set] = {}
    for choice, (right, wrong) in zip(CHOICES, COMPARES, strict=True):
        more, less = (right, wrong) if row[choice] == "True" else (wrong, right)
        below.setdefault(more, set()).add(less)
    return {
        pair: (place + 1) / 10 for place, pair in enumerate(TopologicalSorter(below).static_order())
    }


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
        near = similarities(row)
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
