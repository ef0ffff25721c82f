"""Classification metrics against scikit-learn's, clip_benchmark's and ELEVATER's definition."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fsc_bench.score import classification as ours
from fsc_bench.score.statistics import Means, cells

CASES = 60


def clip_benchmark_accuracy(output, target, topk):
    """clip_benchmark 1.6.2's metrics.zeroshot_classification.accuracy.

    Transcribed: it ends in float(array of one element), which NumPy 2.4 refuses.
    """
    pred = output.topk(max(topk), 1, True, True)[1].t()
    correct = pred.eq(target.view(1, -1).expand_as(pred))
    return [correct[:k].reshape(-1).float().sum().item() / len(target) for k in topk]


def random_scores(rng, n, classes, ties=True):
    """Cosines, on a grid as coarse as makes ties common."""
    scores = rng.normal(0, 0.1, (n, classes))
    return np.round(scores, int(rng.integers(1, 4)) if ties else 9).astype(np.float32)


def elevater_ap11(s, y, quirk=True):
    """The definition in the suite's description of ELEVATER, as written there."""
    o = np.argsort(-s, kind="stable")
    s = s[o]
    tp = np.cumsum(y[o] > 0)
    last = np.r_[np.nonzero(np.diff(s))[0], len(s) - 1]
    prec, rec = tp[last] / (last + 1), tp[last] / tp[-1]
    if quirk:
        prec, rec = np.r_[prec, 1.0], np.r_[rec, 0.0]
    return np.mean([prec[rec >= t].max() for t in np.linspace(1, 0, 11)])


def test_top1_and_top5_equal_clip_benchmark_without_ties():
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        n, classes = int(rng.integers(1, 60)), int(rng.integers(6, 40))
        scores, labels = random_scores(rng, n, classes, ties=False), rng.integers(0, classes, n)
        top1, top5 = clip_benchmark_accuracy(
            torch.from_numpy(scores), torch.from_numpy(labels), topk=(1, 5)
        )
        found = ours.outcomes(scores, labels)
        assert not found.ties.any()
        assert found.correct.mean() == pytest.approx(top1, abs=1e-9)
        assert found.official.mean() == pytest.approx(top1, abs=1e-9)
        assert found.top5.mean() == pytest.approx(top5, abs=1e-9)


def test_with_ties_strict_official_and_clip_benchmark_differ_as_they_should():
    rng = np.random.default_rng(1)
    tied = 0
    for _ in range(CASES):
        n, classes = int(rng.integers(1, 60)), int(rng.integers(2, 12))
        scores, labels = random_scores(rng, n, classes), rng.integers(0, classes, n)
        found = ours.outcomes(scores, labels)
        best_other = np.array(
            [np.delete(row, label).max() for row, label in zip(scores, labels, strict=True)]
        )
        own = scores[np.arange(n), labels]
        assert (found.correct == (own > best_other)).all()
        assert (found.ties == (own == best_other)).all()
        assert (found.official == (scores.argmax(axis=1) == labels)).all()
        assert not (found.correct & ~found.official).any(), "a strict hit is a hit by any rule"
        if classes > 5:
            reach = (scores >= own[:, None]).sum(axis=1)
            assert (found.top5 == (reach <= 5)).all()
        else:
            assert found.top5 is None
        tied += found.ties.sum()
    assert tied > CASES


def test_classes_with_the_same_texts_are_one_answer():
    alike = ours.first_alike(["missile", "tench", "missile", "goldfish", "hen", "jay"])
    assert alike.tolist() == [0, 1, 0, 3, 4, 5]
    scores = np.array([[0.3, 0.1, 0.3, 0.2, 0, 0]] * 2 + [[0.3, 0.3, 0.3, 0.2, 0, 0]], np.float32)
    found = ours.outcomes(scores, np.array([0, 2, 0]), alike)
    # The second "missile" is as right as the first; the third ties with tench, a different class.
    assert found.correct.tolist() == [True, True, False]
    assert found.official.tolist() == [True, False, True]
    assert found.strict.tolist() == [False, False, False]
    assert found.ties.tolist() == [False, False, True]
    assert found.predicted.tolist() == [0, 2, 0]
    assert found.top5.tolist() == [True, True, True]
    # Told nothing of the texts, the twins are two classes that tie.
    assert ours.outcomes(scores, np.array([0, 2, 0])).correct.tolist() == [False, False, False]
    # The reference takes the first of two: what it counts we count, and the second twins besides.
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(2000, 6)).astype(np.float32)
    scores[:, 2] = scores[:, 0]
    labels = rng.integers(0, 6, 2000)
    found = ours.outcomes(scores, labels, alike)
    by_argmax = scores.argmax(axis=1)
    assert (found.official == (by_argmax == labels)).all()
    assert (found.correct == (by_argmax == alike[labels])).all()
    assert 0 < (found.correct & ~found.official).sum() < 2000 / 6


def test_nan_is_a_miss_everywhere():
    scores = np.array([[0.9, 0.1, np.nan], [np.nan] * 3, [0.9, 0.1, 0.2]], np.float32)
    found = ours.outcomes(scores, np.array([0, 0, 0]))
    assert found.correct.tolist() == found.official.tolist() == [False, False, True]
    assert found.predicted.tolist() == [-1, -1, 0]
    assert not found.ties.any()
    assert ours.roc_auc(np.array([np.nan, 0.5]), np.array([True, False])) == 0
    assert ours.roc_auc(np.array([0.5, np.nan]), np.array([True, False])) == 0
    assert ours.ap11(np.array([0.5, np.nan]), np.array([1, 0]))[1] == pytest.approx(0.5)


def test_mean_per_class_equals_balanced_accuracy_over_classes_present():
    rng = np.random.default_rng(3)
    for _ in range(CASES):
        n, classes = int(rng.integers(1, 80)), int(rng.integers(2, 30))
        scores, labels = random_scores(rng, n, classes), rng.integers(0, classes, n)
        found = ours.outcomes(scores, labels)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # sklearn remarks that classes are absent: they are meant to be
            expected = balanced_accuracy_score(labels, found.predicted)
        assert mean_per_class(found.official, labels)[0] == pytest.approx(100 * expected)
        recall = ours.per_class_recall(found.official, labels, classes)
        assert np.nanmean(recall) == pytest.approx(expected, abs=1e-12)
        table = ours.confusion(found.predicted, labels, classes)
        assert table.sum() == n and table.trace() == found.official.sum()
        assert (table.sum(axis=1) == np.bincount(labels, minlength=classes)).all()


def test_roc_auc_equals_sklearn_with_ties():
    rng = np.random.default_rng(4)
    for _ in range(CASES):
        n = int(rng.integers(2, 120))
        positive = rng.random(n) < rng.uniform(0.1, 0.9)
        positive[:2] = [True, False]
        scores = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
        assert ours.roc_auc(scores, positive) == pytest.approx(
            roc_auc_score(positive, scores), abs=1e-12
        )
        weights = rng.integers(0, 4, (3, n))
        weights[:, :2] += 1
        expected = [roc_auc_score(positive, scores, sample_weight=row) for row in weights]
        assert ours.roc_auc(scores, positive, weights) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ours.roc_auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_the_margin_ranks_as_softmax_does():
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 0.1, (200, 2)).astype(np.float32)
    positive = rng.random(200) < 0.5
    by_softmax = roc_auc_score(positive, ours.probabilities(scores)[:, 1])
    assert ours.roc_auc(ours.margin(scores), positive) == pytest.approx(by_softmax, abs=1e-12)
    by_one = roc_auc_score(positive, scores[:, 1])
    assert by_one != pytest.approx(by_softmax, abs=1e-3), (
        "one class's similarity is not the same ranking"
    )


def test_ap11_equals_elevaters_definition_and_the_devkits():
    rng = np.random.default_rng(6)
    for _ in range(CASES):
        n = int(rng.integers(1, 150))
        truth = (rng.random(n) < rng.uniform(0.02, 0.9)).astype(np.int8)
        truth[rng.integers(n)] = 1
        scores = np.round(rng.normal(size=n), int(rng.integers(0, 4)))
        elevater, devkit = ours.ap11(scores, truth)
        assert elevater == pytest.approx(elevater_ap11(scores, truth), abs=1e-12)
        assert devkit == pytest.approx(elevater_ap11(scores, truth, quirk=False), abs=1e-12)
        assert devkit <= elevater <= devkit + 1 / 11 + 1e-12
        weights = rng.integers(0, 3, (4, n))
        both = ours.ap11(scores, truth, weights)
        for row, drawn in enumerate(weights):
            picked = np.repeat(np.arange(n), drawn)
            if truth[picked].any():
                for found, quirk in zip(both, (True, False), strict=True):
                    expected = elevater_ap11(scores[picked], truth[picked], quirk)
                    assert found[row] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(both[0][row]) and np.isnan(both[1][row])


def test_map11_drops_classes_without_positives_and_leaves_out_the_difficult():
    scores = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0]])
    truth = ours.targets([[0], [~0], [1]], 3)
    assert truth.tolist() == [[1, 0, 0], [-1, 0, 0], [0, 1, 0]]
    assert ours.map11(scores, truth) == (1.0, 1.0)
    wrong = ours.targets([[], [0], [0]], 3)  # ranked second and third of three
    terms = [2 / 3] * 11
    assert ours.map11(scores, wrong)[1] == pytest.approx(np.mean(terms))
    assert ours.map11(scores, wrong)[0] == pytest.approx((np.sum(terms[1:]) + 1) / 11)
    assert np.isnan(ours.map11(scores, ours.targets([[], [], []], 3))[0])


def test_softmax_changes_the_ranking_of_images():
    scores = np.array([[0.30, 0.29], [0.25, 0.10]])
    assert scores[:, 0].argmax() == 0 and ours.probabilities(scores)[:, 0].argmax() == 1
    assert ours.probabilities(scores).sum(axis=1) == pytest.approx([1, 1])


def mean_per_class(hits, labels, weights=None) -> np.ndarray:
    """Percent, by the measure that `mean_per_class` is in a result: classes are its strata."""
    n = len(hits)
    measure = Means(hits, cells(["test"] * n, [str(label) for label in labels]), np.arange(n), n)
    return np.atleast_1d(measure.leaves(weights)[0]["test"])


def test_mean_per_class_is_not_accuracy():
    # Class 0: 3 of 4 right; class 1: 0 of 1. Accuracy 3/5 = 60, mean of 75 and 0 = 37.5.
    hits, labels = np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1])

    assert mean_per_class(hits, labels).tolist() == [37.5]


def test_weights_say_how_often_a_sample_was_drawn():
    rng = np.random.default_rng(7)
    labels, hits = rng.integers(0, 7, 60), rng.random(60) < 0.5
    weights = rng.integers(0, 3, (20, 60)).astype(float)
    found = mean_per_class(hits, labels, weights)
    for row, drawn in enumerate(weights.astype(int)):
        picked = np.repeat(np.arange(60), drawn)
        assert found[row] == pytest.approx(mean_per_class(hits[picked], labels[picked])[0])


def test_top_5_counts_different_classes_and_strictly_all_other_classes():
    """Four classes come before the second missile; with the first one as near, five do."""
    alike = ours.first_alike(["missile", "tench", "missile", "goldfish", "hen", "jay", "kite"])
    scores = np.array([[0.1, 0.2, 0.1, 0.2, 0.2, 0.2, 0]], np.float32)

    found = ours.outcomes(scores, np.array([2]), alike)

    assert (found.top5.tolist(), found.strict_top5.tolist()) == ([True], [False])


def test_chance_of_voc_is_what_the_task_file_says():
    from fsc_bench.task import catalogue

    # Images of each class in the test set, difficult ones not counted (VOC2007 devkit).
    counts = [204, 239, 282, 172, 212, 174, 721, 322, 417, 127]
    counts += [190, 418, 274, 222, 2007, 224, 97, 223, 259, 229]
    rng = np.random.default_rng(9)
    truth = np.zeros((4952, 20), np.int8)
    for place, count in enumerate(counts):
        truth[:count, place] = 1
    draws = [ours.map11(rng.random((4952, 20)), truth)[0] for _ in range(40)]
    assert 100 * np.mean(draws) == pytest.approx(catalogue()["voc2007"].chance["map11"], abs=0.05)


def test_probabilities_are_softmax_of_100_cosines():
    # Two hundredths and one: e and 1, of e + 1.
    found = ours.probabilities(np.array([[0.02, 0.01]]))
    assert found[0] == pytest.approx([0.7310586, 0.2689414], abs=1e-7)


def test_average_precision_of_another_program_is_the_mean_over_right_pictures_then_over_classes():
    scores = np.array([[0.9, 0.1], [0.8, 0.7], [0.7, 0.9], [0.6, 0.2]])
    truth = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])

    # Class 0: right at ranks 1, 3, 4: (1/1 + 2/3 + 3/4) / 3 = 29/36. Class 1: at rank 2: 1/2.
    assert ours.mean_average_precision(scores, truth) == pytest.approx(47 / 72)
