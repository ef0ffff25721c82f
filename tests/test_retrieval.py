"""Recall at K, by eye and against clip_benchmark's own."""

import numpy as np
import pytest
import torch

from fsc_bench.score import retrieval
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


def test_all_that_is_shown_holds_the_right_answer():
    # The second of four: one of the other three comes first with 3/4, then 2/3 are wrong: 1 - 1/2.
    assert chance(np.array([1]), 4, 2) == pytest.approx([50.0])
    assert chance(np.array([1, 2]), 3, 3).tolist() == [100.0, 100.0]
    assert chance(np.array([1]), 3, 5).tolist() == [100.0]


def test_an_answer_with_a_vector_that_another_answer_has_too_is_not_as_similar_as_that_one():
    """To image 0, x is .8 similar (.6 by its first vector) and y .6, by the vector that is x's too.

    Once y took what x had become by then, .8, and tied.
    """
    images = np.array([[0.6, 0.8], [-1, 0]], np.float32)
    texts = np.array([[1, 0], [-1, 0], [0, 1], [1, 0]], np.float32)  # x, y, x, y

    i2t, _ = ranks(images, texts, np.array([0, 1, 0, 1]), same_text=np.array([0, 1, 0, 1]))

    assert i2t.hits.tolist() == [0, 0]
    assert i2t.strict.tolist() == [0, 0]


def by_definition(similarity, answer_of, right, own):
    """(hits, strict, lenient) of each query, as `Ranks` defines them, one number at a time.

    similarity: [queries, entries]; right: the answers that are right for each query; own: the
    entries that are its own.
    """
    found = []
    for row, rights, mine in zip(similarity, right, own, strict=True):
        level = {answer: np.max(row[answer_of == answer]) for answer in set(answer_of)}
        best = np.max([level[answer] for answer in rights])
        best_own = np.max([level[answer_of[entry]] for entry in mine])
        wrong = [level[answer] for answer in level if answer not in rights]
        others = [
            level[answer]
            for entry, answer in enumerate(answer_of)
            if entry not in mine or level[answer] > best_own
        ]
        lost = np.isnan(best)
        found.append(
            (
                len(answer_of) if lost else sum(not value < best for value in wrong),
                len(answer_of) if np.isnan(best_own) else sum(not v < best_own for v in others),
                len(answer_of) if lost else sum(not value <= best for value in wrong),
            )
        )
    return np.array(found).T.tolist()


@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize("copies", [False, True])
def test_ranks_are_those_of_the_definition(block, copies, monkeypatch):
    """Small whole numbers, so that there are many ties and every product is exact. Some vectors are
    NaN, some images and captions are one although their vectors differ, and some vectors are equal
    although they are different answers. Captions do not stand in the order of their images.
    """
    monkeypatch.setattr(retrieval, "BLOCK", block)
    rng = np.random.default_rng(11)
    for case in range(40):
        images = rng.integers(-2, 3, (7, 2 + case % 3)).astype(np.float32)
        texts = rng.integers(-2, 3, (12, images.shape[1])).astype(np.float32)
        if case % 4 == 0:
            images[rng.integers(7)] = texts[rng.integers(12)] = np.nan
        owner = rng.permutation(np.r_[np.arange(7), rng.integers(0, 7, 5)])
        same_image = 5 * rng.integers(0, 5 if copies else 10**6, 7)
        same_text = 3 * rng.integers(0, 9 if copies else 10**6, 12)
        said = {(same_image[i], same_text[t]) for t, i in enumerate(owner)}

        found = ranks(images, texts, owner, same_image, same_text)

        with np.errstate(invalid="ignore"):
            similarity = images @ texts.T
        i2t = by_definition(
            similarity,
            same_text,
            [{text for image, text in said if image == one} for one in same_image],
            [np.flatnonzero(owner == image) for image in range(7)],
        )
        t2i = by_definition(
            similarity.T,
            same_image,
            [{image for image, text in said if text == one} for one in same_text],
            [[image] for image in owner],
        )
        for ours, theirs in zip(found, (i2t, t2i), strict=True):
            assert [part.tolist() for part in (ours.hits, ours.strict, ours.lenient)] == theirs
        assert [one.gallery for one in found] == [len(set(same_text)), len(set(same_image))]
        assert found[0].right.tolist() == [
            len({text for image, text in said if image == one}) for one in same_image
        ]
