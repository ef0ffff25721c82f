"""Retrieval: every image among all images of the task, every caption among all its captions.

A model that scores pairs ranks the best K answers of its first stage anew; the rest keeps the first
stage's order behind them. (ALBEF's and BLIP's way. BLIP's code adds the first stage's cosine to the
score of the best K; here the pair's score alone decides.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fsc_bench.embed.plan import Wanted
from fsc_bench.records import ImageRef
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
    nan = np.isnan(images).any(axis=1)
    changes = (None, None)
    if given.pairs is not None:
        own = np.arange(len(rows))
        ways = zip(_ways(given), (own, owner), strict=True)
        changes = tuple(_change(given, way, nan, of) for way, of in ways)
    i2t, t2i = retrieval.ranks(images, captions, owner, pictures, answers, changes)

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
    nan |= bool(np.isnan(captions).any())
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


@dataclass(frozen=True)
class _Way:
    """One way of retrieval with what its answers are made of. of_images: whether images ask.

    images, texts: what there is of each, in the order of the vectors. answer_of: int [gallery], the
    answer that each entry of the gallery is. depth: how many answers of each query are the best.
    """

    of_images: bool
    images: Sequence[ImageRef]
    texts: Sequence[str]
    queries: np.ndarray
    gallery: np.ndarray
    answer_of: np.ndarray
    depth: int

    @cached_property
    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """(first entry of each answer, further ones [n, 2]: answer, entry); a text that stands
        twice as it is counts once, in other letters each counts.
        """
        _, first = np.unique(self.answer_of, return_index=True)
        shown = self.texts if self.of_images else [""] * len(self.gallery)
        known = {(answer, shown[entry]) for answer, entry in enumerate(first)}
        more = []
        if self.of_images:
            for entry, answer in enumerate(self.answer_of.tolist()):
                if (answer, shown[entry]) not in known:
                    known.add((answer, shown[entry]))
                    more.append((answer, entry))
        return first, np.array(more, np.int64).reshape(-1, 2)

    def best(self) -> Iterator[np.ndarray]:
        """int [queries, depth] in blocks: the answers that are ranked anew."""
        return retrieval.best_answers(self.queries, self.gallery, self.answer_of, self.depth)

    def wanted(self, begin: int, best: np.ndarray) -> Iterator[tuple[Wanted, np.ndarray]]:
        """(pairs, where in `best` each belongs), with the first entry of every answer and then with
        the further ones; begin: the first query of the block.
        """
        first, more = self.entries
        yield self._pairs(begin, best.shape[1], np.arange(best.size), first[best.ravel()])
        for answer, entry in more.tolist():
            places = np.flatnonzero(best.ravel() == answer)
            if len(places):
                yield self._pairs(begin, best.shape[1], places, np.full(len(places), entry))

    def _pairs(
        self, begin: int, width: int, places: np.ndarray, entries: np.ndarray
    ) -> tuple[Wanted, np.ndarray]:
        queries = begin + places // max(width, 1)
        image, text = (queries, entries) if self.of_images else (entries, queries)
        images, image = np.unique(image, return_inverse=True)
        texts, text = np.unique(text, return_inverse=True)
        refs, words = [self.images[i] for i in images], [self.texts[i] for i in texts]
        return Wanted(refs, words, image.ravel(), text.ravel()), places


def _ways(given: Material) -> tuple[_Way, _Way]:
    """Images that ask for texts, and texts that ask for images."""
    refs = [row.images[0] for row in given.rows]
    texts = [text for row in given.rows for text in row.texts]
    images, captions = given.images(refs), given.vectors.texts(texts)
    pictures = retrieval.numbered(given.image_numbers(refs))
    answers = retrieval.numbered(text_numbers(texts))
    depth = given.pairs.depth
    return (
        _Way(True, refs, texts, images, captions, answers, depth),
        _Way(False, refs, texts, captions, images, pictures, depth),
    )


def pairs(given: Material) -> Iterator[Wanted]:
    """Each image with the best texts of the first stage, each text with its best images."""
    for way in _ways(given):
        begin = 0
        for best in way.best():
            yield from (wanted for wanted, _ in way.wanted(begin, best))
            begin += len(best)


def _change(
    given: Material, way: _Way, nan: np.ndarray, of: np.ndarray
) -> Callable[[int, np.ndarray], None]:
    """What puts the best answers of the first stage first, in the order of their pairs' scores; an
    answer is as good as the best of its entries. nan: bool [rows], set where a score is no number;
    of: int [queries], the row of each.
    """

    def change(begin: int, similarity: np.ndarray) -> None:
        best = retrieval.most_similar(similarity, way.depth)
        scores = np.full(best.size, -np.inf, np.float32)
        for wanted, places in way.wanted(begin, best):
            found = given.pairs.scores(given.task.name, wanted)
            scores[places] = np.maximum(scores[places], found)  # NaN stays NaN
        scores = scores.reshape(best.shape)
        nan[of[begin + np.flatnonzero(np.isnan(scores).any(axis=1))]] = True
        retrieval.put_first(similarity, best, scores)

    return change


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
