"""Statistics: the averaging tree, and the cluster bootstrap carried through it. Imports no torch.

The headline of a benchmark is the plain mean over the entries of its `[subsets]`; an entry that is
itself a table is averaged first, by `within`: "subsets" averages its entries equally, "samples"
pools their samples. This reproduces every published headline from published subset scores.

Intervals resample source images (clusters), not samples: SugarCrepe asks 7,511 questions about
1,560 images, and the questions about one image rise and fall together. How often an image is drawn
follows from the image alone (`cluster_weights`), so that one bootstrap holds for all tasks and all
runs: an image that is drawn twice counts twice wherever it occurs, and the difference of two
models sees the same draws whichever command computes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import exp, factorial, sqrt
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from scipy import sparse

REPLICATES = 2000
SEED = 20241007  # any constant: the same results give the same interval
ROOT = "headline"
AT_ONCE = 4_000_000  # draws of clusters, in replicates that are held together
WORDS = 32_768  # random words that are made at once, in the processor's cache
PER_WORD = 4  # draws that a word of 64 bits is enough for
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
# Of 16 random bits, from which value on a Poisson variable of mean 1 is at least 1, 2, ..., 8.
POISSON_CUTS = tuple(
    np.uint16(round(65536 * sum(exp(-1) / factorial(k) for k in range(n)))) for n in range(1, 9)
)
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


def leaves_below(tree: Tree) -> dict[str, list[str]]:
    """The leaves below every node, and under "headline" all of them, in order."""
    found: dict[str, list[str]] = {ROOT: []}
    for name, node in tree.items():
        below = leaves_below(node) if isinstance(node, Mapping) else {ROOT: [name]}
        own = below.pop(ROOT)
        found |= {name: own, **below}
        found[ROOT] += own
    return found


def _total(value: Values, count: Values) -> Values:
    """value x count; nothing where a replicate drew no sample, whose value is NaN."""
    return np.where(np.asarray(count) > 0, value * count, 0.0)


def cluster_weights(keys: np.ndarray, replicates: int = REPLICATES) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each replicate: float64 [part, clusters], in parts. Each
    cluster's column lies in one piece, as `Means` needs it.

    keys: uint64 [clusters], by which a cluster is known in every task and run. A cluster is drawn
    as often as a Poisson variable of mean 1 says, in each replicate independently: the Poisson
    bootstrap (Hanley and MacGibbon 2006; Chamandy et al. 2012), whose draws of one cluster do not
    depend on which others there are.
    """
    columns = max(1, min(-(-replicates // PER_WORD), AT_ONCE // (PER_WORD * len(keys))))
    for begin in range(0, replicates, PER_WORD * columns):
        steps = np.arange(begin // PER_WORD, begin // PER_WORD + columns, dtype=np.uint64)
        weights = np.empty((len(keys), min(PER_WORD * columns, replicates - begin)))
        rows = max(1, WORDS // columns)
        for row in range(0, len(keys), rows):
            block = weights[row : row + rows]
            block[:] = _poisson(_words(keys[row : row + rows], steps))[:, : block.shape[1]]
        yield weights.T


def _words(keys: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Random bits, uint64 [keys, steps]: the steps of SplitMix64 from each key on (Steele, Lea and
    Flood 2014).
    """
    with np.errstate(over="ignore"):
        word = (keys + np.uint64(SEED))[:, None] + (steps + np.uint64(1)) * GOLDEN
        for shift, factor in MIX:
            word = (word ^ (word >> shift)) * factor
        return word ^ (word >> np.uint64(31))


def _poisson(words: np.ndarray) -> np.ndarray:
    """uint8 [n, 4 words]: four Poisson draws of each word's four times 16 bits."""
    bits = words.view(np.uint16)
    drawn = np.zeros(bits.shape, np.uint8)
    for cut in POISSON_CUTS:
        drawn += bits >= cut
    return drawn


class Cells(NamedTuple):
    """names: (subset, stratum) of each cell; of: int [n], the cell of each sample."""

    names: list[tuple[str, str]]
    of: np.ndarray

    def kept(self, rows: np.ndarray) -> "Cells":
        """Of some samples, with the cells that they have."""
        present, of = np.unique(self.of[rows], return_inverse=True)
        return Cells([self.names[cell] for cell in present], of)


def cells(subsets: Sequence[str], strata: Sequence[str]) -> Cells:
    """The cells of samples, in the order of their first appearance."""
    import pyarrow as pa

    (of, names), (stratum_of, stratum_names) = (
        (part.indices.to_numpy().astype(np.int64), part.dictionary.to_pylist())
        for part in (pa.array(list(x), pa.string()).dictionary_encode() for x in (subsets, strata))
    )
    both = of * max(len(stratum_names), 1) + stratum_of
    numbers, first, place = np.unique(both, return_index=True, return_inverse=True)
    order = np.argsort(first)
    found = [(names[of[row]], stratum_names[stratum_of[row]]) for row in first[order]]
    return Cells(found, np.argsort(order)[place.ravel()] if len(numbers) else place)


class Means:
    """Means of one outcome over cells, ready to be resampled.

    hits: [n] numbers; clusters: int [n], below cluster_count. A subset with strata is the plain
    mean over them.
    """

    def __init__(self, hits: np.ndarray, cells: Cells, clusters: np.ndarray, cluster_count: int):
        self.cells, cell = cells
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

    def contributions(self) -> dict[str, np.ndarray]:
        """What each cluster adds to each subset's value, float [clusters]; they sum to it."""
        totals = np.asarray(self.counts.sum(axis=1)).ravel()
        found: dict[str, np.ndarray] = {}
        for subset in dict.fromkeys(subset for subset, _ in self.cells):
            places = [place for place, cell in enumerate(self.cells) if cell[0] == subset]
            shares = 100 / (totals[places] * len(places))
            found[subset] = np.asarray(shares @ self.sums[places]).ravel()
        return found

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
    keys: np.ndarray,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, Estimate]]:
    """{node: {metric: estimate}} for every node of the tree and "headline". All metrics see the
    same draws. keys: uint64 [clusters], as for `cluster_weights`.
    """
    drawn = draws(measures, tree, within, keys, replicates)
    return estimates(measures, tree, within, drawn)


def estimates(
    measures: Mapping[str, Measure],
    tree: Tree,
    within: str,
    drawn: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, Estimate]]:
    """The same of draws that were made already, as `draws` gives them."""
    result: dict[str, dict[str, Estimate]] = {}
    for name, measure in measures.items():
        supports = node_support(tree, within, measure)
        for node, value in points(measure, tree, within).items():
            low, high = interval(value, drawn[name].get(node, np.empty(0)), supports[node])
            result.setdefault(node, {})[name] = Estimate(value, low, high)
    return result


def points(measure: Measure, tree: Tree, within: str) -> dict[str, float]:
    """The measure's value for every node, and "headline", in percent."""
    return tree_mean(tree, *scalar_leaves(measure.leaves()), within)


def draws(
    measures: Mapping[str, Measure],
    tree: Tree,
    within: str,
    keys: np.ndarray,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, np.ndarray]]:
    """{name of the measure: {node: percent [replicates]}}; nothing for a single cluster, which says
    nothing of how clusters differ. NaN where a replicate drew no sample of a node.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in measures}
    if len(keys) > 1:
        for weights in cluster_weights(keys, replicates):
            for name, measure in measures.items():
                values, totals = measure.leaves(weights)
                for node, sample in tree_mean(tree, values, totals, within).items():
                    found[name].setdefault(node, []).append(np.asarray(sample))
    return {
        name: {node: np.concatenate(parts) for node, parts in nodes.items()}
        for name, nodes in found.items()
    }


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
        # Few draws of a metric that is no mean may all miss it on one side.
        return min(float(low), value), max(float(high), value)
    return wilson(value, support.images)


def wilson(percent: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share, in percent."""
    share, z = percent / 100, 1.959963984540054
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the two terms are equal but for rounding.
    low = 0.0 if share == 0 else 100 * (middle - half)
    return low, 100.0 if share == 1 else 100 * (middle + half)
