"""Clusters: which samples share a source image, the unit that the bootstrap draws.

A cluster is known by its picture wherever it occurs, so that an image which several tasks ask about
is drawn by all of them alike. It is worked out from `Marks`, a few numbers a sample, which follow
from records and pictures (`marks_of_records`) and from a samples file alike.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fsc_bench.records import Record
from fsc_bench.score.scoring import Grouping, Vectors

NOTHING = 0  # a mark that says nothing


@dataclass(frozen=True)
class Marks:
    """What tells the source images of n samples, uint64 [n] each; equal marks are one source.

    names: the cluster that the reader names, else the record. pictures: the content of the sample's
    picture, whatever part of it is shown; `NOTHING` for a sample that chooses among pictures, whose
    distractors would chain all of them together.
    """

    names: np.ndarray
    pictures: np.ndarray


@dataclass(frozen=True)
class Sources:
    """of: int [n], the cluster of each sample; keys: uint64 [clusters], the same in every task."""

    of: np.ndarray
    keys: np.ndarray


def marks_of_records(task: str, rows: Sequence[Record], vectors: Vectors) -> Marks:
    """The marks of a task's records."""
    refs = [row.images[0] for row in rows if len(row.images) == 1]
    alone = np.array([len(row.images) == 1 for row in rows], bool)
    pictures = np.zeros(len(rows), np.uint64)
    pictures[alone] = [int.from_bytes(key[:8]) or 1 for key in vectors.source_keys(task, refs)]
    names = name_marks(task, ((row.cluster, row.id) for row in rows))
    return Marks(names, pictures)


def grouped(rows: Sequence[Record], sources: Sources) -> Grouping:
    """The records by subset, stratum and source image."""
    subsets, strata = (
        np.array([getattr(row, name) for row in rows], object) for name in ("subset", "stratum")
    )
    return Grouping(subsets, strata, sources.of, len(sources.keys))


def name_marks(task: str, names: Iterable[tuple[str, str]]) -> np.ndarray:
    """uint64 [n] of (cluster that the reader names or "", id of the record). A name given by the
    reader never meets the id of a record without one.
    """
    pairs = [f"{task}\0cluster {name}" if name else f"{task}\0record {own}" for name, own in names]
    known = {pair: mark(pair) for pair in set(pairs)}
    return np.array([known[pair] for pair in pairs], np.uint64)


def mark(text: str) -> int:
    """64 bits that stand for a text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) or 1


def source_images(marks: Mapping[str, Marks]) -> dict[str, Sources]:
    """The source images of several tasks' samples, by task.

    Two clusters are one when a picture of theirs has the same content, whatever it is called and
    whatever part of it is shown: a mirror may repeat a picture row by row, and one file may lie
    under several names.
    """
    every_name = np.concatenate([one.names for one in marks.values()])
    pictures = np.concatenate([one.pictures for one in marks.values()])
    names, name_of = np.unique(every_name, return_inverse=True)
    said = pictures != NOTHING
    _, picture_of = np.unique(pictures[said], return_inverse=True)
    of = _components(len(names), name_of[said], picture_of)[name_of]
    keys = _keys(of, every_name, pictures)
    found, begin = {}, 0
    for task, one in marks.items():
        part = of[begin : begin + len(one.names)]
        begin += len(one.names)
        clusters, within = np.unique(part, return_inverse=True)
        found[task] = Sources(within, keys[clusters])
    return found


def _components(names: int, name_of: np.ndarray, picture_of: np.ndarray) -> np.ndarray:
    """int [names]: a number of what each is joined with by pictures."""
    size = names + int(picture_of.max(initial=-1)) + 1
    edges = sparse.csr_matrix(
        (np.ones(len(name_of), bool), (name_of, names + picture_of)), shape=(size, size)
    )
    return sparse.csgraph.connected_components(edges, directed=False)[1][:names]


def _keys(of: np.ndarray, every_name: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """uint64 [clusters]: the least mark of its pictures; of its names where no picture says."""
    highest = np.iinfo(np.uint64).max
    count = int(of.max(initial=-1)) + 1
    by_name, by_picture = np.full(count, highest), np.full(count, highest)
    np.minimum.at(by_name, of, every_name)
    said = pictures != NOTHING
    np.minimum.at(by_picture, of[said], pictures[said])
    return np.where(by_picture < highest, by_picture, by_name)
