"""Data sets of CLIP_benchmark by name: `clip_benchmark:NAME`."""

import numpy as np
import pytest
from oracle_clip_benchmark import CLASSES, KINDS, draw

from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.errors import DataError, UsageError
from fsc_bench.score import classification
from fsc_bench.task import data_at, select


@pytest.fixture
def linked(tmp_path):
    """The data folder with one folder of each kind linked."""
    with data_at(tmp_path / "data"):
        for name, kind in KINDS.items():
            draw(tmp_path / name, kind)
            link(f"clip_benchmark:{name}", tmp_path / name, tmp_path / "data")
        yield tmp_path


def test_a_linked_folder_is_a_task_with_its_own_names_templates_and_kind(linked):
    (single,) = select(["clip_benchmark:drawn_single"])
    assert single.classes == tuple(CLASSES) and single.n == 36
    assert single.prompts["clip_benchmark"].templates == (
        "a {} square.",
        "a photo of something {}.",
    )
    (several,) = select(["clip_benchmark:drawn_multi"])
    assert several.official_ties["metrics"] == ["mean_average_precision"]
    assert max(len(row.labels) for row in prepare(several, linked / "data").records) == 3
    (captions,) = select(["clip_benchmark:drawn_captions"])
    rows = prepare(captions, linked / "data").records
    assert captions.kind == "retrieval" and len(rows) == 36
    assert rows[7].texts[0].endswith(", number 7") and rows[7].texts[1].startswith("picture 7 of")


def test_a_name_of_the_package_has_its_names_and_templates_before_its_data_are_there(tmp_path):
    with data_at(tmp_path):
        (task,) = select(["clip_benchmark:pets"])
    assert len(task.classes) == 37 and "Abyssinian" in task.classes
    assert task.n == 0 and task.suite == "clip_benchmark"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("clip_benchmark:sun398", "no data set called 'sun398'.*Did you mean 'sun397'"),
        ("clip_benchmark:a b", "after 'clip_benchmark:' stands the name of a data set"),
        ("clip_bench:sun397", "no task called 'clip_bench:sun397'"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_near_miss(tmp_path, word, line):
    with data_at(tmp_path), pytest.raises(UsageError, match=line) as told:
        select([word])
    assert "\n" not in str(told.value)


def test_a_folder_of_an_unknown_type_is_refused(linked):
    (linked / "drawn_multi" / "dataset_type.txt").write_text("multi-label")
    with pytest.raises(DataError, match="'multi-label' is none of classification"):
        select(["clip_benchmark:drawn_multi"])


def test_of_equal_scores_the_first_class_wins_as_in_clip_benchmark():
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.2, 0.1, 0.3], [0.4, 0.6, 0.5]])
    labels = np.array([0, 1, 2, 1])
    found = classification.shares(classification.places(scores, labels), labels)
    assert found["acc1"] == 0.75
    assert found["mean_per_class_recall"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_mean_average_precision_by_hand():
    scores = np.array([[0.9, 0.1], [0.5, 0.4], [0.3, 0.8]])
    truth = np.array([[1, 0], [0, 1], [1, 0]])
    # Class 0: hits at places 1 and 3, (1 + 2/3) / 2; class 1: one hit at place 2.
    assert classification.mean_average_precision(scores, truth) == pytest.approx(
        (5 / 6 + 1 / 2) / 2
    )
