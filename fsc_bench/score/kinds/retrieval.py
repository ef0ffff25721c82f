"""Retrieval: every image among all images of the task, every caption among all its captions."""

from collections.abc import Sequence

import numpy as np

from fsc_bench.score import retrieval
from fsc_bench.score.scoring import Material, Scores, text_numbers
from fsc_bench.score.statistics import Means, scalar_leaves


def score(given: Material) -> Scores:
    rows = given.rows
    (subset,) = given.task.leaves
    refs = [row.images[0] for row in rows]
    texts = [text for row in rows for text in row.texts]
    counts = [len(row.texts) for row in rows]
    owner = np.repeat(np.arange(len(rows)), counts)
    images, captions = given.images(refs), given.vectors.texts(texts)
    pictures, answers = given.image_numbers(refs), text_numbers(texts)
    i2t, t2i = retrieval.ranks(images, captions, owner, pictures, answers)

    def means(values: np.ndarray, clusters: np.ndarray) -> Means:
        n = len(values)
        return Means(values, [subset] * n, [""] * n, clusters, given.cluster_count)

    measures, strict, official, chance = {}, {}, {}, {}
    # Captions of one image are drawn together.
    for way, found, clusters in (
        ("i2t", i2t, given.clusters),
        ("t2i", t2i, given.clusters[owner]),
    ):
        for k in retrieval.K:
            name = f"{way}_r{k}"
            measures[name] = means(found.hits < k, clusters)
            strict[name] = means(found.strict < k, clusters)
            official[name] = means(found.lenient < k, clusters)
            luck = retrieval.chance(found.right, found.gallery, k) / 100
            chance[name] = scalar_leaves(means(luck, clusters).leaves())[0]
    tied = i2t.hits != i2t.lenient
    samples = {
        "i2t_rank": i2t.hits + 1,
        "t2i_rank": np.split(t2i.hits + 1, np.cumsum(counts)[:-1]),
        "correct": i2t.hits < 1,
        "tie": tied,
    }
    # A text or picture that is NaN is compared with every other one.
    nan = np.isnan(images).any(axis=1) | bool(np.isnan(captions).any())
    return Scores(
        measures=measures,
        strict=strict,
        official=official,
        chance=chance,
        samples=samples,
        ties=int(tied.sum() + (t2i.hits != t2i.lenient).sum()),
        nan=nan,
        audits={
            "repeated_texts": _repeated(answers),
            "repeated_images": _repeated(pictures),
            "duplicate_texts": sum(len(set(row.texts)) < len(row.texts) for row in rows),
        },
    )


def _repeated(numbers: Sequence[int]) -> int:
    """How many stand in the gallery that an earlier one equals."""
    return len(numbers) - len(np.unique(numbers))
