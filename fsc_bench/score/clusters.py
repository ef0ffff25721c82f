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

from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.score.scoring import Vectors

NOTHING = 0  # a mark that says nothing


@dataclass(frozen=True)
class Marks:
    """What tells the source images of n samples, uint64 [n] each; equal marks are one source.

    names: the cluster that the reader names, else the record. pictures: the content and crop of the
    sample's picture. places: the picture's source and path, where that is a source which tasks
    share. The last two are `NOTHING` for a sample that chooses among pictures, whose distractors
    would chain all of them together.
    """

    names: np.ndarray
    pictures: np.ndarray
    places: np.ndarray


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
    pictures[alone] = [picture_mark(key) for key in vectors.image_keys(task, refs)]
    places = np.zeros(len(rows), np.uint64)
    places[alone] = [place_mark(ref) for ref in refs]
    names = name_marks(task, ((row.cluster, row.id) for row in rows))
    return Marks(names, pictures, places)


def place_mark(ref: ImageRef | None) -> int:
    """Where a picture lies, whatever part of it is shown; `NOTHING` for a task's own folder."""
    if ref is None or ref.source == OWN:
        return NOTHING
    return mark(f"{ref.source}:{ref.path}")


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


def picture_mark(key: object) -> int:
    """The first 64 bits of a picture's digest, as the samples file shows them."""
    return int.from_bytes(key[:8]) or 1 if isinstance(key, bytes) else mark(repr(key))


def source_images(marks: Mapping[str, Marks]) -> dict[str, Sources]:
    """The source images of several tasks' samples, by task.

    Two clusters are one when a picture of theirs has the same bytes and crop, whatever it is
    called (a mirror may repeat a picture row by row, and one file may lie under several names), and
    when their pictures are cut from one file.
    """
    every = [
        np.concatenate([getattr(one, kind) for one in marks.values()])
        for kind in ("names", "pictures", "places")
    ]
    names, name_of = np.unique(every[0], return_inverse=True)
    label = np.arange(len(names))
    for other in every[1:]:
        said = other != NOTHING
        _, other_of = np.unique(other[said], return_inverse=True)
        label = _components(label, label[name_of[said]], other_of)
    of = label[name_of]
    keys = _keys(of, every)
    found, begin = {}, 0
    for task, one in marks.items():
        part = of[begin : begin + len(one.names)]
        begin += len(one.names)
        clusters, within = np.unique(part, return_inverse=True)
        found[task] = Sources(within, keys[clusters])
    return found


def _components(label: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The labels, joined where `other` has one number; one, other: int [samples]."""
    labels = int(label.max(initial=-1)) + 1
    size = labels + int(other.max(initial=-1)) + 1
    edges = sparse.csr_matrix((np.ones(len(one), bool), (one, labels + other)), shape=(size, size))
    return sparse.csgraph.connected_components(edges, directed=False)[1][:labels][label]


def _keys(of: np.ndarray, every: Sequence[np.ndarray]) -> np.ndarray:
    """uint64 [clusters]: the least mark of its pictures; of its names where no picture says."""
    highest = np.iinfo(np.uint64).max
    count = int(of.max(initial=-1)) + 1
    names, pictures = np.full(count, highest), np.full(count, highest)
    np.minimum.at(names, of, every[0])
    said = every[1] != NOTHING
    np.minimum.at(pictures, of[said], every[1][said])
    return np.where(pictures < highest, pictures, names)
