"""Recall at K, by eye and against clip_benchmark's own."""

import numpy as np
import pytest
import torch

from fsc_bench.score.retrieval import chance, ranks


def test_by_eye():
    images = np.eye(3, dtype=np.float32)
    # captions 0 and 1 belong to image 0, caption 2 to image 1, caption 3 to image 2
    texts = np.array([[0.6, 0.8, 0], [0, 0, 1], [0, 1, 0], [0, 0.6, 0.8]], np.float32)

    i2t, t2i = ranks(images, texts, np.array([0, 0, 1, 2]))

    assert i2t.hits.tolist() == [0, 0, 1]  # image 2: caption 1 (1.0) beats its own (0.8)
    assert t2i.hits.tolist() == [1, 2, 0, 0]
    assert i2t.right.tolist() == [2, 1, 1]
    assert (i2t.gallery, t2i.gallery) == (4, 3)


def test_a_tie_between_different_answers_is_a_miss_and_lenient_takes_it():
    images = np.array([[1, 0], [1, 0]], np.float32)
    texts = np.array([[1, 0], [1, 0]], np.float32)

    i2t, t2i = ranks(images, texts, np.array([0, 1]))

    assert i2t.hits.tolist() == i2t.strict.tolist() == [1, 1]
    assert i2t.lenient.tolist() == [0, 0]
    assert t2i.hits.tolist() == [1, 1]


def test_a_caption_that_stands_twice_is_one_answer():
    # Images 0 and 1 are both called x; image 2 is called y. Vectors in the plane:
    images = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    texts = np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32)  # x, x, y
    i2t, t2i = ranks(images, texts, np.array([0, 1, 2]), same_text=np.array([0, 0, 1]))

    # Image 0: x 1.0, y 0.6. Image 1: x 0.8, y 0.96, so y comes before. Image 2: y 0.8, x 0.
    assert i2t.hits.tolist() == [0, 1, 0]
    assert i2t.gallery == 2
    # Entries of the gallery that reach its own: for image 0 the other x; for image 1 y and the
    # other x; none for image 2.
    assert i2t.strict.tolist() == [1, 2, 0]
    # x is right with image 0 or 1, whoever asks; strictly the second x's own image 1 is second.
    assert t2i.hits.tolist() == [0, 0, 1]  # y: image 1 has 0.96, its own 0.8
    assert t2i.strict.tolist() == [0, 1, 1]
    assert t2i.right.tolist() == [2, 2, 1]


def test_what_is_nan_ranks_behind_everything():
    images = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    texts = np.array([[1, 0], [np.nan, np.nan], [0.8, 0.6]], np.float32)

    i2t, t2i = ranks(images, texts, np.arange(3))

    assert i2t.hits.tolist() == [1, 3, 1]  # the caption that is NaN comes before 0's and 2's own
    assert t2i.hits.tolist() == [0, 3, 0]


def clip_benchmark_recall(scores: np.ndarray, owner: np.ndarray, k: int) -> tuple[float, float]:
    """(t2i, i2t) recall as clip_benchmark.metrics.zeroshot_retrieval computes it."""
    from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k

    similarity = torch.from_numpy(scores)  # [texts, images]
    positive = torch.zeros_like(similarity, dtype=torch.bool)
    positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
    t2i = (recall_at_k(similarity, positive, k) > 0).float().mean().item()
    i2t = (recall_at_k(similarity.T, positive.T, k) > 0).float().mean().item()
    return t2i, i2t


@pytest.mark.parametrize("seed", range(20))
def test_equals_clip_benchmark_where_nothing_ties(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 40))
    owner = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, 60)]))
    images = rng.normal(size=(n, 16)).astype(np.float32)
    texts = (images[owner] + rng.normal(size=(len(owner), 16))).astype(np.float32)
    of_texts, of_images = ranks(images, texts, owner)

    for k in (1, 5, 10):
        t2i, i2t = clip_benchmark_recall(texts @ images.T, owner, k)
        assert (of_images.hits < k).mean() == pytest.approx(t2i, abs=1e-6)
        assert (of_texts.hits < k).mean() == pytest.approx(i2t, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_with_ties_clip_benchmark_lies_between_ours_and_lenient(seed):
    rng = np.random.default_rng(seed)
    owner = np.sort(np.concatenate([np.arange(20), rng.integers(0, 20, 40)]))
    images = rng.integers(-1, 2, (20, 4)).astype(np.float32)  # few values: many exact ties
    texts = rng.integers(-1, 2, (60, 4)).astype(np.float32)
    of_texts, of_images = ranks(images, texts, owner)

    for k in (1, 5, 10):
        t2i, i2t = clip_benchmark_recall(texts @ images.T, owner, k)
        for theirs, found in ((t2i, of_images), (i2t, of_texts)):
            assert (found.hits < k).mean() <= theirs + 1e-6
            assert theirs <= (found.lenient < k).mean() + 1e-6


def test_chance_is_hypergeometric():
    # 5 right answers among 25,010: the chance that the first of a random order is right
    assert chance(np.array([5]), 25_010, 1) == pytest.approx([100 * 5 / 25_010])
    assert chance(np.array([1, 3]), 10, 2) == pytest.approx([20.0, 100 * (1 - 21 / 45)])
