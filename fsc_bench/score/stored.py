"""Stored: what a finished run says of every sample, read again without the model.

A samples file may be a stranger's: its columns are checked for type and length where they are read.
What fits no result raises UsageError, one line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fsc_bench.errors import UsageError
from fsc_bench.results import Result, Run, RunDirectory
from fsc_bench.samples import check_samples, read_samples
from fsc_bench.score.clusters import Marks, Sources, name_marks
from fsc_bench.score.evaluate import KINDS
from fsc_bench.score.scoring import Grouping, SampleColumns, Told
from fsc_bench.score.statistics import ROOT, Measure, leaves_below, points

ROUNDING = 1e-6  # percent, between a result and the mean of its samples


class Columns(SampleColumns):
    """The columns of a samples file, each read when it is wanted.

    Lists are objects [n], numbers in them arrays and strings in them Python lists. Raises
    UsageError where one cannot be read, KeyError where there is none.
    """

    def __init__(self, path: Path, wanted: Sequence[str], n: int):
        """wanted: the columns that there must be; n: the number of samples."""
        self.path, self.rows = path, n
        self.names = check_samples(path, wanted, n)
        self.arrays: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def arrow(self, name: str) -> pa.Array:
        if name not in self.arrays:
            self.arrays[name] = self.read(name)
        return self.arrays[name]

    def read(self, name: str) -> pa.Array:
        if name not in self.names:
            raise KeyError(name)
        found = read_samples(self.path, [name], self.rows).column(0).combine_chunks()
        if isinstance(found, pa.ChunkedArray):
            found = found.chunk(0) if found.num_chunks else pa.array([], found.type)
        return found

    def __getitem__(self, name: str) -> np.ndarray:
        return _as_numpy(self.arrow(name))

    def flat(self, name: str) -> np.ndarray:
        values = self.arrow(name).flatten()
        if pa.types.is_string(values.type):
            values = values.dictionary_encode().indices
        return values.to_numpy(zero_copy_only=False)

    def lengths(self, name: str) -> np.ndarray:
        return np.diff(_offsets(self.arrow(name)))

    def forget(self) -> None:
        """Gives the memory back; what is wanted again is read again."""
        self.arrays.clear()


class Part(Columns):
    """Some rows of a samples file, in another order."""

    def __init__(self, whole: Columns, rows: Sequence[int]):
        self.path, self.names, self.arrays = whole.path, whole.names, {}
        self.whole, self.kept, self.rows = whole, pa.array(rows, pa.int64()), len(rows)

    def read(self, name: str) -> pa.Array:
        return self.whole.arrow(name).take(self.kept)


def _as_numpy(column: pa.Array) -> np.ndarray:
    if not pa.types.is_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    offsets = _offsets(column)
    values = column.flatten()
    if pa.types.is_string(values.type):
        values = values.to_pylist()
    else:
        values = values.to_numpy(zero_copy_only=False)
    rows = np.empty(len(column), object)
    for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
        rows[row] = values[begin:end]
    return rows


def _offsets(column: pa.Array) -> np.ndarray:
    offsets = np.asarray(column.offsets)
    return offsets - offsets[0]


@dataclass(frozen=True)
class Stored:
    """One finished task of a run."""

    result: Result
    columns: Columns
    whole: bool = True  # whether all samples of the result are meant

    def narrowed(self, rows: Sequence[int]) -> "Stored":
        """Some of the samples, in another order."""
        return Stored(self.result, Part(self.columns, rows), whole=False)

    def count(self, node: str, metric: str, rows: int) -> int:
        """What a node's value is of: as the result says (captions, in text-to-image retrieval);
        the number of rows where only some are meant.
        """
        return self.result.metrics[node][metric].n if self.whole else rows

    @property
    def tree(self) -> Mapping[str, Any]:
        return self.result.facts["subsets"]

    @property
    def within(self) -> str:
        return self.result.facts["within"]

    @cached_property
    def ids(self) -> list[str]:
        return self.column("id")

    @cached_property
    def marks(self) -> Marks:
        """What tells the source images of the samples."""
        pictures = [int(digest, 16) if digest else 0 for digest in self.column("source")]
        names = name_marks(self.result.task, zip(self.column("cluster"), self.ids, strict=True))
        return Marks(names, np.array(pictures, np.uint64))

    def column(self, name: str) -> list[str]:
        return self.columns.arrow(name).to_pylist()

    def told(self, sources: Sources, wanted: Sequence[str] | None = None) -> Told:
        """The samples, grouped by subset, stratum and source image. wanted: the metrics that are
        asked for; None for all that they tell.
        """
        subsets, strata = (np.array(self.column(name), object) for name in ("subset", "stratum"))
        grouping = Grouping(subsets, strata, sources.of, len(sources.keys))
        return Told(self.columns, grouping, self.result.headline, wanted)

    def measures(self, told: Told) -> dict[str, Measure]:
        """The metrics of the headline. Raises UsageError where they are not the result's."""
        found = KINDS[self.result.kind].measures(told)
        has = self.result.metrics.get(ROOT, {})
        asked = [m for m in self.result.headline if m in has or m not in self.result.lacks]
        for metric in asked:
            if metric not in found:
                raise UsageError(f"{self.columns.path}: tells nothing of {metric!r}.")
            if not self.whole:
                continue
            stated = has.get(metric)
            value = points(found[metric], self.tree, self.within).get(ROOT)
            if stated is None or stated.value is None or value is None:
                raise UsageError(f"{self.columns.path}: {metric} has no headline number.")
            if not abs(value - stated.value) <= ROUNDING:
                raise UsageError(
                    f"{self.columns.path}: its samples make {metric} {value:.4f}, the result says "
                    f"{stated.value:.4f}: they do not belong together."
                )
        return {metric: found[metric] for metric in asked}


def open_stored(run: Run, task: str, variant: str = "") -> Stored:
    """A finished task of a run with its samples. Raises UsageError, one line, where they are gone
    or are no samples of the result.
    """
    result = run.results[task]
    path = RunDirectory.at(run.path).samples_file(task, variant)
    columns = Columns(path, (*COLUMNS, *OF_KIND[result.kind]), result.n)
    _check(result, columns)
    return Stored(result, columns)


COLUMNS = (
    "id", "subset", "cluster", "stratum", "source", "images", "image_digests", "texts"
)  # fmt: skip
OF_KIND = {
    "matching": ("scores",),
    "classification": ("labels",),
    "retrieval": ("i2t_rank", "t2i_rank"),
}


def _check(result: Result, columns: Columns) -> None:
    """Whether the samples can be what the result is of."""
    path = columns.path
    facts = result.facts
    if not isinstance(facts.get("subsets"), Mapping) or facts.get("within") not in (
        "subsets",
        "samples",
    ):
        raise UsageError(f"{path}: the result does not say how its subsets are averaged.")
    strange = set(columns.arrow("subset").unique().to_pylist()) - set(
        leaves_below(facts["subsets"])[ROOT]
    )
    if strange:
        raise UsageError(f"{path}: the subset {min(strange)!r:.80} is none of the result's.")
    digests, images = columns.lengths("image_digests"), columns.lengths("images")
    if (digests != images).any():
        raise UsageError(f"{path}: not one digest for each picture.")
    if result.kind == "matching":
        sizes = images * columns.lengths("texts")
        if (columns.lengths("scores") != sizes).any() or (sizes < 2).any():
            raise UsageError(f"{path}: not one score for each picture and text of a sample.")
        if "right_texts" in columns:
            _check_several(columns, images)


def _check_several(columns: Columns, images: np.ndarray) -> None:
    """Whether the columns of several right texts fit the others."""
    texts, right_texts = columns.lengths("texts"), columns["right_texts"]
    several = right_texts > 1
    fits = (right_texts >= 1) & (~several | ((images == 1) & (right_texts < texts)))
    if right_texts.dtype.kind != "i" or not fits.all():
        raise UsageError(f"{columns.path}: 'right_texts' does not fit the texts of a sample.")
    wanted = np.where(several, texts * (texts - 1) // 2, 0)
    if "text_scores" in columns and (columns.lengths("text_scores") != wanted).any():
        raise UsageError(f"{columns.path}: not one text score for each two texts of a sample.")
