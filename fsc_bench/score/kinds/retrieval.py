"""Retrieval: every image among all images of the task, every caption among all its captions."""

from collections.abc import Sequence

import numpy as np

from fsc_bench.score import retrieval
from fsc_bench.score.scoring import Material, Scores, Told, text_numbers
from fsc_bench.score.statistics import Measure, scalar_leaves


def score(given: Material) -> Scores:
    rows = given.rows
    refs = [row.images[0] for row in rows]
    texts = [text for row in rows for text in row.texts]
    counts = [len(row.texts) for row in rows]
    owner = np.repeat(np.arange(len(rows)), counts)
    images, captions = given.images(refs), given.vectors.texts(texts)
    pictures, answers = given.image_numbers(refs), text_numbers(texts)
    i2t, t2i = retrieval.ranks(images, captions, owner, pictures, answers)

    measures, strict, official, chance, theirs = {}, {}, {}, {}, {}
    # Captions of one image are drawn together.
    for way, found, of in (("i2t", i2t, None), ("t2i", t2i, owner)):
        for k in retrieval.K:
            name = f"{way}_r{k}"
            measures[name] = given.grouping.means(found.hits < k, of=of)
            strict[name] = given.grouping.means(found.strict < k, of=of)
            official[name] = given.grouping.means(found.lenient < k, of=of)
            named = f"{'text' if way == 'i2t' else 'image'}_retrieval_recall@{k}"
            theirs[named] = 100 * float((found.strict < k).mean())
            luck = retrieval.chance(found.right, found.gallery, k) / 100
            chance[name] = scalar_leaves(given.grouping.means(luck, of=of).leaves())[0]
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
        theirs={name: theirs[name] for name in given.task.official_ties.get("metrics", ())},
        audits={
            "repeated_texts": _repeated(answers),
            "repeated_images": _repeated(pictures),
            "duplicate_texts": sum(len(set(row.texts)) < len(row.texts) for row in rows),
        },
    )


def measures(told: Told) -> dict[str, Measure]:
    ranks = told.columns["t2i_rank"]
    owner = np.repeat(np.arange(len(ranks)), [len(part) for part in ranks])
    ways = {"i2t": (told.columns["i2t_rank"], None), "t2i": (np.concatenate(ranks), owner)}
    return {
        f"{way}_r{k}": told.grouping.means(rank <= k, of=of)
        for way, (rank, of) in ways.items()
        for k in retrieval.K
        if told.asks(f"{way}_r{k}")
    }


def hits(told: Told, metric: str) -> np.ndarray:
    """Of an image's captions all must be hits."""
    return margins(told, metric) >= 0


def margins(told: Told, metric: str) -> np.ndarray:
    """How many places before the last of the top K the best right answer stands; of an image's
    captions the worst placed one counts.
    """
    way, _, k = metric.partition("_r")
    rank = told.columns[f"{way}_rank"]
    if way == "t2i":
        rank = np.array([part.max() for part in rank])
    return int(k) - rank.astype(float)


def _repeated(numbers: Sequence[int]) -> int:
    """How many stand in the gallery that an earlier one equals."""
    return len(numbers) - len(np.unique(numbers))
