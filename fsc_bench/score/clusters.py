"""Clusters: which samples share a source image, the unit that the bootstrap draws."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import sparse

from fsc_bench.records import Record
from fsc_bench.score.scoring import Vectors, numbered
from fsc_bench.task import Task


def source_images(
    task: Task, rows: Sequence[Record], vectors: Vectors
) -> tuple[np.ndarray, list[str]]:
    """(int [rows], the cluster of each record; the clusters' names).

    A record's cluster is the one its reader names, else its own. Two clusters are one when a
    picture of theirs has the same bytes and crop, whatever it is called: a mirror may repeat a
    picture row by row, and one file may lie under several names. Records that choose among pictures
    say nothing of that kind: their distractors would chain all of them together.
    """
    # A name given by the reader never meets the id of a record without one.
    names: list[tuple[str, bool]] = [(row.cluster or row.id, bool(row.cluster)) for row in rows]
    different = sorted(set(names))
    place: dict[Hashable, int] = {name: number for number, name in enumerate(different)}
    name_of = np.array([place[name] for name in names], np.int64)
    alone = np.array([len(row.images) == 1 for row in rows], bool)
    refs = [row.images[0] for row in rows if len(row.images) == 1]
    picture_of = numbered(vectors.image_keys(task.name, refs))
    joined = _components(len(different), name_of[alone], picture_of)
    # A cluster is called, and stands in order, as the first of its names.
    first, cluster_of = np.unique(joined, return_inverse=True)
    return cluster_of[name_of], [different[number][0] for number in first]


def _components(names: int, name_of: np.ndarray, picture_of: np.ndarray) -> np.ndarray:
    """int [names]: the first of the names that each is joined with by pictures."""
    size = names + len(picture_of)  # there are no more different pictures than that
    edges = sparse.csr_matrix(
        (np.ones(len(name_of), bool), (name_of, names + picture_of)), shape=(size, size)
    )
    labels = sparse.csgraph.connected_components(edges)[1][:names]
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return first[place.ravel()]
