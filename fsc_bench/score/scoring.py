"""Scoring: what the three scorings of kinds/ are given, and what each gives back."""

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from fsc_bench.embed.plan import Wanted
from fsc_bench.records import ImageRef, Record, folded
from fsc_bench.score.statistics import Cells, Means, Measure, cells
from fsc_bench.task import Task

# Raised whenever the same vectors would give other numbers: results of another way of counting are
# scored anew.
VERSION = 3


class Vectors(Protocol):
    """Unit vectors by what they are vectors of: [n, d] float32 for n references or texts."""

    def images(self, task: str, refs: Sequence[ImageRef]) -> np.ndarray: ...

    def texts(self, texts: Sequence[str]) -> np.ndarray: ...

    def image_keys(self, task: str, refs: Sequence[ImageRef]) -> Sequence[Hashable]:
        """Equal for references with the same bytes and crop: those are one image."""
        ...

    def source_keys(self, task: str, refs: Sequence[ImageRef]) -> Sequence[bytes]:
        """Equal for references with the same bytes, whatever part of them is shown."""
        ...


class Pairs(Protocol):
    """Scores of images with texts, where a model gives them without vectors. depth: how many
    answers of a first stage retrieval ranks anew.
    """

    depth: int

    def scores(self, task: str, wanted: Wanted) -> np.ndarray:
        """float32 [n] of the wanted pairs."""
        ...


@dataclass(frozen=True)
class Grouping:
    """Which samples are averaged together, and drawn together; one value a sample.

    subsets, strata: objects [n], strings. clusters: int [n], the source image of each, below
    cluster_count.
    """

    subsets: np.ndarray
    strata: np.ndarray
    clusters: np.ndarray
    cluster_count: int

    def means(
        self,
        values: np.ndarray,
        kept: np.ndarray | None = None,
        strata: Sequence[str] | None = None,
        of: np.ndarray | None = None,
    ) -> Means:
        """The means of values over subsets and strata.

        values: one a sample, or one for each of `of`, int [values], the sample that it belongs to.
        kept: bool [n], the samples that have one; only where each has at most one.
        """
        found = self.cells if strata is None else cells(self.subsets, strata)
        clusters = self.clusters
        if of is not None:
            found, clusters = Cells(found.names, found.of[of]), clusters[of]
        if kept is not None and not kept.all():
            rows = np.flatnonzero(kept)
            values, found, clusters = values[rows], found.kept(rows), clusters[rows]
        return Means(values, found, clusters, self.cluster_count)

    @cached_property
    def cells(self) -> Cells:
        return cells(self.subsets, self.strata)


@dataclass(frozen=True)
class Material:
    """What a scoring is given.

    rows: the scored records. grouping: of the same. prompts: the wanted prompt set of a
    classification task; None for the first in its file. pairs: of a model that scores pairs;
    vectors are then those of its first stage.
    """

    task: Task
    rows: Sequence[Record]
    grouping: Grouping
    vectors: Vectors
    prompts: str | None = None
    pairs: Pairs | None = None

    def images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        return self.vectors.images(self.task.name, refs)

    def image_numbers(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """int [refs]: equal where two references are one image."""
        return numbered(self.vectors.image_keys(self.task.name, refs))


class SampleColumns(Mapping[str, np.ndarray]):
    """Columns of a samples file, as results.py lists them; lists are objects [n] of arrays, or of
    Python's lists of strings.
    """

    @abstractmethod
    def flat(self, name: str) -> np.ndarray:
        """All rows' lists of a column one after the other; strings as numbers, equal where the
        strings are.
        """

    @abstractmethod
    def lengths(self, name: str) -> np.ndarray:
        """int [n]: how many each row of a column of lists has."""


@dataclass(frozen=True)
class Told:
    """What a samples file tells of a finished task: enough for other metrics and rules of ties.

    headline: the metrics of the result. wanted: those that are asked for; None for all that the
    file tells.
    """

    columns: SampleColumns
    grouping: Grouping
    headline: Sequence[str]
    wanted: Sequence[str] | None = None

    def asks(self, metric: str) -> bool:
        return self.wanted is None or metric in self.wanted


@dataclass(frozen=True)
class Scores:
    """What a scoring gives: outcomes of all samples and what to write of each.

    measures: by metric. strict: the same with every tie a miss, also with an option equal to the
    right one. official: the same as the official scorer counts ties, where a task file says that it
    differs (`[official_ties]`). chance: metric -> subset -> percent.
    samples: columns of the samples file, one value a record. ties: how many samples tie between
    different answers; nan: bool [rows], whether a similarity of the sample is no number.
    audits, summary: what to count in the result, and to write beside the samples. blindness: the
    headline with pictures that tell nothing, {which: {metric: percent}}. theirs: metrics of another
    program by its own names, percent, where the task names them.
    """

    measures: Mapping[str, Measure]
    chance: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Any]
    ties: int
    nan: np.ndarray
    strict: Mapping[str, Measure] = field(default_factory=dict)
    official: Mapping[str, Measure] = field(default_factory=dict)
    audits: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    blindness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    theirs: Mapping[str, float] = field(default_factory=dict)


class Kind(Protocol):
    """A module of kinds/, which is named as the task's `kind`."""

    def score(self, given: Material) -> Scores: ...

    def pairs(self, given: Material) -> Iterator[Wanted]:
        """What `score` asks of a model that scores pairs, a block at a time, and nothing else.
        Vectors of its first stage are there by then where the kind needs them.
        """
        ...

    def measures(self, told: Told) -> dict[str, Measure]:
        """The wanted metrics that a samples file tells, from its hits."""
        ...

    def hits(self, told: Told, metric: str) -> np.ndarray:
        """bool [n], the samples that a metric has as hits; only they can be."""
        ...

    def margins(self, told: Told, metric: str) -> np.ndarray:
        """float [n], how far the right answer is ahead of the best different one, or what else
        orders samples; NaN for samples that do not have the metric.
        """
        ...


def numbered(values: Iterable[Hashable]) -> np.ndarray:
    """int [values]: 0, 1, 2, ... in the order in which different values first appear."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def text_numbers(texts: Sequence[str]) -> np.ndarray:
    """int [texts]: equal where two texts are one answer: the same once `folded`."""
    fold = {text: folded(text) for text in dict.fromkeys(texts)}
    return numbered(fold[text] for text in texts)
