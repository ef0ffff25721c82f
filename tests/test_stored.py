"""What samples files tell of each kind of task, on columns written out by hand."""

from typing import Any

import numpy as np
import pytest

from fsc_bench.score.kinds import classification, matching, retrieval
from fsc_bench.score.scoring import Grouping, SampleColumns, Told
from fsc_bench.score.statistics import cells


class Written(SampleColumns):
    """Columns that are there: lists of numbers, of strings, or of lists of them."""

    def __init__(self, **columns: list[Any]):
        self.columns = columns

    def __getitem__(self, name: str) -> np.ndarray:
        column = self.columns[name]
        if not isinstance(column[0], list):
            return np.array(column)
        rows = np.empty(len(column), object)
        for place, row in enumerate(column):
            rows[place] = row if row and isinstance(row[0], str) else np.array(row)
        return rows

    def __iter__(self):
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def lengths(self, name: str) -> np.ndarray:
        return np.array([len(row) for row in self.columns[name]])

    def flat(self, name: str) -> np.ndarray:
        values = [value for row in self.columns[name] for value in row]
        if isinstance(values[0], str):
            return np.array([values.index(value) for value in values])
        return np.array(values)


def told(n: int, wanted: list[str] | None = None, **columns: list[Any]) -> Told:
    names = np.array(["test"] * n, object)
    grouping = Grouping(names, np.array([""] * n, object), np.arange(n), n)
    return Told(Written(**columns), grouping, [], wanted)


def values(measures: dict[str, Any]) -> dict[str, float]:
    return {name: float(np.ravel(one.leaves()[0]["test"])[0]) for name, one in measures.items()}


ONE_LABEL = {
    "labels": [[0], [0], [0], [1]],
    "correct": [True, False, True, False],
    "correct_top5": [True, True, True, False],
    "score_label": [0.4, 0.2, 0.5, 0.1],
    "score_best_other": [0.3, 0.45, 0.1, 0.25],
}


def test_classification_of_one_label():
    """2 of 4; class 0 has 2 of 3 and class 1 none: 33.3; top 5: 3 of 4."""
    given = told(4, **ONE_LABEL)

    assert values(classification.measures(given)) == pytest.approx(
        {"accuracy": 50.0, "mean_per_class": 100 / 3, "top5": 75.0}
    )
    assert list(classification.measures(told(4, ["mean_per_class"], **ONE_LABEL))) == [
        "mean_per_class"
    ]
    assert classification.hits(given, "accuracy").tolist() == [True, False, True, False]
    margins = classification.margins(given, "accuracy")
    assert margins == pytest.approx([0.1, -0.25, 0.4, -0.15])


def test_the_area_under_the_curve_of_two_classes():
    """Margins of class 1: .2 and -.1 where it is shown, -.3 and .1 where not: 3 of 4 pairs."""
    given = told(
        4, labels=[[1], [1], [0], [0]], correct=[True, False, True, False],
        scores=[[0.1, 0.3], [0.3, 0.2], [0.4, 0.1], [0.2, 0.3]],
    )  # fmt: skip

    assert values(classification.measures(given))["roc_auc"] == pytest.approx(75.0)


def test_classification_of_several_labels():
    """The first shows a and c: .5 and .4 against b's .2. The second shows b, .3 against a's .6; its
    c, only there as difficult (~2), counts neither way.
    """
    given = told(2, labels=[[0, 2], [1, ~2]], scores=[[0.5, 0.2, 0.4], [0.6, 0.3, 0.9]])

    assert classification.margins(given, "map11") == pytest.approx([0.2, -0.3])
    assert classification.hits(given, "map11").tolist() == [True, False]
    assert set(classification.measures(given)) == {"map11", "map11_devkit"}


def test_retrieval_both_ways():
    """I2T ranks 1 and 6: R@1 1 of 2. T2I ranks 1, 7 and 3: R@1 1 of 3, R@5 2 of 3; of the first
    image the worst placed caption is 7th, two places behind the fifth.
    """
    given = told(2, i2t_rank=[1, 6], t2i_rank=[[1, 7], [3]])

    found = values(retrieval.measures(given))
    assert (found["i2t_r1"], found["i2t_r10"]) == (50.0, 100.0)
    assert (found["t2i_r1"], found["t2i_r5"]) == pytest.approx((100 / 3, 200 / 3))
    assert retrieval.margins(given, "t2i_r5").tolist() == [-2.0, 2.0]
    assert retrieval.margins(given, "i2t_r1").tolist() == [0.0, -5.0]
    assert retrieval.hits(given, "t2i_r5").tolist() == [False, True]
    assert list(retrieval.measures(told(2, ["t2i_r5"], **given.columns.columns))) == ["t2i_r5"]


def test_matching_of_several_shapes():
    """One picture and three texts, the third the first again: .5 against .3. Three pictures and one
    text: .4 against .6. Two and two: texts .7 - .2 and .5 - .4, pictures .7 - .4 and .5 - .2.
    """
    given = told(
        3,
        images=[["p"], ["p", "q", "r"], ["p", "q"]],
        texts=[["a", "b", "a"], ["a"], ["a", "b"]],
        scores=[[0.5, 0.3, 0.9], [0.4, 0.6, 0.1], [0.7, 0.2, 0.4, 0.5]],
        correct_text=[True, False, True], correct_image=[False, False, True],
        correct_group=[False, False, True],
    )  # fmt: skip

    nan = pytest.approx(float("nan"), nan_ok=True)
    assert matching.margins(given, "text").tolist() == [pytest.approx(0.2), nan, pytest.approx(0.1)]
    assert matching.margins(given, "image").tolist() == [
        nan, pytest.approx(-0.2), pytest.approx(0.3)
    ]  # fmt: skip
    assert matching.margins(given, "group")[2] == pytest.approx(0.1)
    assert matching.hits(given, "text").tolist() == [True, False, True]
    found = values(matching.measures(given))
    assert found == {"text": 100.0, "image": 50.0, "group": 100.0}  # of those that are asked


def test_cells_are_pairs_of_subset_and_stratum_in_order_of_appearance():
    found = cells(["a", "b", "c", "a", "c"], ["x", "x", "x", "y", "x"])

    assert found.names == [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y")]
    assert found.of.tolist() == [0, 1, 2, 3, 2]
