"""Statistics: the averaging tree, and the cluster bootstrap carried through it. Imports no torch.

The headline of a benchmark is the plain mean over the entries of its `[subsets]`; an entry that is
itself a table is averaged first, by `within`: "subsets" averages its entries equally, "samples"
pools their samples. This reproduces every published headline from published subset scores.

Intervals resample source images (clusters), not samples: SugarCrepe asks 7,511 questions about
1,560 images, and the questions about one image rise and fall together.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from scipy import sparse

REPLICATES = 2000
SEED = 20241007  # any constant: the same results give the same interval
ROOT = "headline"
AT_ONCE = 8_000_000  # draws of clusters, in replicates that are held together
FEW = 200  # independent samples below which Wilson's interval is taken: resampling is too narrow
Tree: TypeAlias = Mapping[str, "int | Tree"]  # a subset's promised count, or a table of nodes
Values: TypeAlias = float | np.ndarray  # one number, or one a replicate


class Support(NamedTuple):
    """What a subset's value rests on: source images (clusters), and whether each of its samples
    has one of its own and is a hit or a miss.
    """

    images: float
    independent: bool


class Estimate(NamedTuple):
    """A value with its 95% interval, in percent."""

    value: float
    low: float
    high: float


class Measure(Protocol):
    """A metric, ready to be resampled: `Means`, or one that is computed anew for every draw."""

    def leaves(
        self, weights: np.ndarray | None = None
    ) -> tuple[dict[str, Values], dict[str, Values]]:
        """(percent by subset, samples by subset): numbers, or [replicates] for weights
        [replicates, clusters].
        """
        ...

    def support(self) -> dict[str, Support]:
        """What each subset's value rests on."""
        ...


def tree_mean(
    tree: Tree, values: Mapping[str, Values], counts: Mapping[str, Values], within: str
) -> dict[str, Values]:
    """The value of every node of a tree of subsets, and of the whole under the key "headline".

    values, counts: by leaf, numbers or arrays of one shape (then everything is elementwise). A node
    below which a leaf has no value is left out: an average with a hole in it is no average.
    """
    found: dict[str, Values] = {}

    def descend(name: str, node: "int | Tree") -> tuple[Values, Values] | None:
        if not isinstance(node, Mapping):
            if name not in values:
                return None
            found[name] = values[name]
            return values[name], counts.get(name, node)
        parts = [descend(child, below) for child, below in node.items()]
        if any(part is None for part in parts):
            return None
        total = sum(count for _, count in parts)
        if within == "samples":
            with np.errstate(invalid="ignore"):  # NaN where no sample of any part was drawn
                value = sum(_total(value, count) for value, count in parts) / total
        else:
            value = sum(value for value, _ in parts) / len(parts)
        found[name] = value
        return value, total

    entries = [descend(name, node) for name, node in tree.items()]
    if all(entry is not None for entry in entries):
        found[ROOT] = sum(value for value, _ in entries) / len(entries)
    return found


def _total(value: Values, count: Values) -> Values:
    """value x count; nothing where a replicate drew no sample, whose value is NaN."""
    return np.where(np.asarray(count) > 0, value * count, 0.0)


def cluster_weights(clusters: int, replicates: int = REPLICATES) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each replicate: float64 [part, clusters], in parts. Each
    cluster's column lies in one piece, as `Means` needs it.
    """
    rng = np.random.default_rng(SEED)
    part = max(1, min(replicates, AT_ONCE // clusters))
    few = max(1, 65_536 // clusters)  # replicates counted at once, in the processor's cache
    for begin in range(0, replicates, part):
        rows = min(part, replicates - begin)
        weights = np.empty((rows, clusters), order="F")
        for row in range(0, rows, few):
            block = weights[row : row + few]
            drawn = rng.integers(0, clusters, block.shape)
            drawn += clusters * np.arange(len(block))[:, None]
            block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
        yield weights


class Means:
    """Means of one outcome over cells (subset, stratum), ready to be resampled.

    hits: [n] numbers; subsets, strata, clusters: [n] strings. A subset with strata is the plain
    mean over them.
    """

    def __init__(
        self,
        hits: np.ndarray,
        subsets: Sequence[str],
        strata: Sequence[str],
        clusters: np.ndarray,
        cluster_count: int,
    ):
        pairs = list(zip(subsets, strata, strict=True))
        self.cells = list(dict.fromkeys(pairs))
        place = {cell: number for number, cell in enumerate(self.cells)}
        cell = np.fromiter((place[pair] for pair in pairs), np.int64, len(pairs))
        shape = (len(self.cells), cluster_count)
        self.sums = sparse.csr_matrix((np.asarray(hits, float), (cell, clusters)), shape)
        self.counts = sparse.csr_matrix((np.ones(len(cell)), (cell, clusters)), shape)

    def leaves(
        self, weights: np.ndarray | None = None
    ) -> tuple[dict[str, Values], dict[str, Values]]:
        if weights is None:
            weights = np.ones(self.sums.shape[1])[None]
        sums = (self.sums @ weights.T).T
        counts = (self.counts @ weights.T).T
        with np.errstate(invalid="ignore"):
            means = 100 * sums / counts  # NaN where a cell was not drawn at all
        values: dict[str, Values] = {}
        totals: dict[str, Values] = {}
        for subset in dict.fromkeys(subset for subset, _ in self.cells):
            columns = [place for place, cell in enumerate(self.cells) if cell[0] == subset]
            drawn = ~np.isnan(means[:, columns])
            with np.errstate(invalid="ignore"):
                kept = np.where(drawn, means[:, columns], 0).sum(axis=1) / drawn.sum(axis=1)
            values[subset] = kept
            totals[subset] = counts[:, columns].sum(axis=1)
        return values, totals

    def support(self) -> dict[str, Support]:
        images = self.counts.getnnz(axis=1)
        most = self.counts.max(axis=1).toarray().ravel()
        found = {}
        for subset in dict.fromkeys(subset for subset, _ in self.cells):
            places = [place for place, cell in enumerate(self.cells) if cell[0] == subset]
            # The smallest of equally weighted strata decides how sure their mean can be.
            least = float(images[places].min()) * len(places)
            found[subset] = Support(least, len(places) == 1 and most[places[0]] == 1)
        return found


def bootstrap(
    measures: Mapping[str, Measure],
    tree: Tree,
    within: str,
    cluster_count: int,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, Estimate]]:
    """{node: {metric: estimate}} for every node of the tree and "headline". All metrics see the
    same draws.
    """
    point = {
        name: tree_mean(tree, *scalar_leaves(measure.leaves()), within)
        for name, measure in measures.items()
    }
    draws: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in measures}
    if cluster_count > 1:
        for weights in cluster_weights(cluster_count, replicates):
            for name, measure in measures.items():
                values, totals = measure.leaves(weights)
                for node, sample in tree_mean(tree, values, totals, within).items():
                    draws[name].setdefault(node, []).append(np.asarray(sample))
    result: dict[str, dict[str, Estimate]] = {}
    for name, nodes in point.items():
        supports = node_support(tree, within, measures[name])
        for node, value in nodes.items():
            sample = np.concatenate(draws[name].get(node, [np.empty(0)]))
            low, high = interval(value, sample, supports[node])
            result.setdefault(node, {})[name] = Estimate(value, low, high)
    return result


def node_support(tree: Tree, within: str, measure: Measure) -> dict[str, Support]:
    """What the value of every node rests on.

    If nothing went wrong in n_i images of subsets of weight w_i, the worst that agrees with it is
    that all error hides where w_i / n_i is largest: as in one subset of min n_i / w_i images.
    """
    supports = measure.support()
    _, counts = scalar_leaves(measure.leaves())
    each = dict(zip(supports, np.eye(len(supports)), strict=True))
    found = {}
    for node, weights in tree_mean(tree, each, counts, within).items():
        parts = [
            (support.images / weight, support.independent)
            for support, weight in zip(supports.values(), weights, strict=True)
            if weight > 0
        ]
        images, independent = min(parts)
        found[node] = Support(images, independent and len(parts) == 1)
    return found


def scalar_leaves(
    leaves: tuple[dict[str, Values], dict[str, Values]],
) -> tuple[dict[str, float], dict[str, float]]:
    """The leaves of a measure as they are, undrawn, as plain numbers."""
    values, totals = leaves
    return _plain(values), _plain(totals)


def _plain(part: dict[str, Values]) -> dict[str, float]:
    return {name: float(np.ravel(value)[0]) for name, value in part.items()}


def interval(value: float, sample: np.ndarray, support: Support) -> tuple[float, float]:
    """95% percentile interval of bootstrap replicates, in percent.

    Where every replicate is alike (all right, all wrong, one cluster) resampling says "certain",
    which a finite test cannot be: then it is Wilson's interval for as many images. So it is for a
    few independent samples, of which resampling makes too little of the unseen.
    """
    sample = sample[~np.isnan(sample)]
    if np.isnan(value):
        return (float("nan"), float("nan"))
    few = support.independent and support.images < FEW
    if not few and len(sample) and sample.max() > sample.min():
        low, high = np.percentile(sample, [2.5, 97.5])
        return float(low), float(high)
    return wilson(value, support.images)


def wilson(percent: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share, in percent."""
    share, z = percent / 100, 1.959963984540054
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the two terms are equal but for rounding.
    low = 0.0 if share == 0 else 100 * (middle - half)
    return low, 100.0 if share == 1 else 100 * (middle + half)
