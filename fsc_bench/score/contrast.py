"""Contrast: the difference of two models over the same samples, with all that says how sure it is.

Pure arithmetic; compare.py finds the samples. Everything is percent points, the second model less
the first. The interval is the paired bootstrap's, whose draws are those of every other interval;
p is that of a sign-flip permutation of whole source images, which is exact McNemar where all
differences weigh alike. Specification: the contract that README's "Is B better than A?" states.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from scipy.special import bdtr, ndtr

from fsc_bench.score.statistics import (
    SEED,
    Means,
    Measure,
    Support,
    Tree,
    draws,
    node_support,
    points,
    scalar_leaves,
    tree_mean,
    wilson,
)

MARGIN = 0.5  # percent points, within which two models are the same
LEVEL = 0.05
FLIPS = 9_999  # permutations; p is at least 1 / 10,000
OF_SUBSETS = 1_999  # the same for subsets, which no correction is made over
EXACT = 13  # images that differ, up to which all permutations are looked at
DETECTABLE = 1.959964 + 0.841621  # standard errors that are found with 80% power at the 5% level


@dataclass(frozen=True)
class Paired:
    """Two models' values of one number over the same samples.

    a, b: percent. drawn: float [replicates], their difference in each. influence: float [images],
    what each source image adds to the difference; None for a metric that is no mean. images: the
    keys of those images, uint64. support: what the number rests on.
    """

    a: float
    b: float
    drawn: np.ndarray
    influence: np.ndarray | None
    images: np.ndarray
    support: Support


@dataclass(frozen=True)
class Contrast:
    """A difference: b - a, its 95% interval, and p (None where nothing can be drawn).

    test: how p came about. holm: p after Holm's correction over the numbers it is shown with.
    detectable: the smallest true difference that is found in 80% of such comparisons.
    """

    a: float
    b: float
    low: float
    high: float
    p: float | None
    test: str
    detectable: float | None
    holm: float | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a

    def verdict(self, margin: float = MARGIN) -> str:
        """SAME inside the margin; BETTER or WORSE where the interval and p both say so; otherwise
        UNDECIDED, which is not "equal".
        """
        if -margin <= self.low and self.high <= margin:
            return "SAME"
        p = self.p if self.holm is None else self.holm
        if p is not None and p < LEVEL and (self.low > 0 or self.high < 0):
            return "BETTER" if self.low > 0 else "WORSE"
        return "UNDECIDED"


def paired(a: Measure, b: Measure, tree: Tree, within: str, keys: np.ndarray) -> dict[str, Paired]:
    """Two models' measures of the same samples, by node of the tree and "headline"."""
    drawn = draws({"a": a, "b": b}, tree, within, keys)
    at_a, at_b = points(a, tree, within), points(b, tree, within)
    supports = node_support(tree, within, a)
    of_a, of_b = influences(a, tree, within), influences(b, tree, within)
    empty = np.empty(0)
    return {
        node: Paired(
            at_a[node],
            at_b[node],
            drawn["b"].get(node, empty) - drawn["a"].get(node, empty),
            None if of_a is None or of_b is None else of_b[node] - of_a[node],
            keys,
            supports[node],
        )
        for node in at_a
    }


def influences(measure: Measure, tree: Tree, within: str) -> dict[str, np.ndarray] | None:
    """What each cluster adds to every node's value, float [clusters], in percent; they sum to it.
    None for a measure that is no mean.
    """
    if not isinstance(measure, Means):
        return None
    _, counts = scalar_leaves(measure.leaves())
    by_leaf = measure.contributions()
    weights = tree_mean(tree, dict(zip(by_leaf, np.eye(len(by_leaf)), strict=True)), counts, within)
    each = np.stack(list(by_leaf.values()))
    return {node: weight @ each for node, weight in weights.items()}


def average(parts: Sequence[Paired]) -> Paired:
    """The plain mean of several numbers; images that several ask about are one."""
    n = len(parts)
    drawn = np.empty(0)
    if any(len(part.drawn) for part in parts):
        # A number of a single image has no draws: it adds no spread.
        each = (part.drawn if len(part.drawn) else part.b - part.a for part in parts)
        drawn = reduce(np.add, each) / n
    images, influence = np.empty(0, np.uint64), None
    if all(part.influence is not None for part in parts):
        images, place = np.unique(
            np.concatenate([part.images for part in parts]), return_inverse=True
        )
        every = np.concatenate([part.influence for part in parts])
        influence = np.bincount(place, every / n, len(images))
    return Paired(
        sum(part.a for part in parts) / n,
        sum(part.b for part in parts) / n,
        drawn,
        influence,
        images,
        Support(min(part.support.images for part in parts) * n, False),
    )


def contrast(pair: Paired, flips: int = FLIPS) -> Contrast:
    """The difference of a pair, with its interval and p. flips: permutations that p is of."""
    drawn = pair.drawn[~np.isnan(pair.drawn)]
    difference = pair.b - pair.a
    if np.isnan(difference):
        nothing = float("nan")
        return Contrast(pair.a, pair.b, nothing, nothing, None, "", None)
    if len(drawn) and drawn.max() > drawn.min():
        low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
        detectable = DETECTABLE * float(drawn.std())
    else:
        # No image makes a difference of its own: as many as there are can be wrong about that.
        unseen = wilson(0, pair.support.images)[1]
        low, high = max(difference - unseen, -100.0), min(difference + unseen, 100.0)
        detectable = None
    p, test = _p(pair, drawn, flips)
    return Contrast(pair.a, pair.b, low, high, p, test, detectable)


def _p(pair: Paired, drawn: np.ndarray, flips: int) -> tuple[float | None, str]:
    if pair.influence is not None:
        return sign_flip(pair.influence, flips)
    spread = float(drawn.std()) if len(drawn) else 0.0
    if not spread:
        return (1.0, "bootstrap") if pair.a == pair.b else (None, "")
    return float(2 * ndtr(-abs(pair.b - pair.a) / spread)), "bootstrap"


def sign_flip(influence: np.ndarray, flips: int = FLIPS) -> tuple[float, str]:
    """(p, how): two-sided, of the sum of `influence` when the sign of each is a coin's.

    influence: float [images]. Where all that are not 0 are equally large this is exact McNemar (a
    binomial); with few all signs are tried; otherwise so many random ones, of which the observed is
    one.
    """
    values = influence[np.abs(influence) > 1e-12]
    if not len(values):
        return 1.0, "no image differs"
    size = np.abs(values)
    if np.allclose(size, size[0], rtol=1e-9, atol=0):
        fewer = min(int((values > 0).sum()), int((values < 0).sum()))
        return min(1.0, 2 * float(bdtr(fewer, len(values), 0.5))), "exact McNemar"
    observed = abs(values.sum()) * (1 - 1e-9)  # equal sums differ by rounding
    if len(values) <= EXACT:
        signs = 1 - 2 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
        return float((np.abs(signs @ values) >= observed).mean()), "all sign flips"
    reached = int((np.abs(_flipped_sums(values, flips)) >= observed).sum())
    return (reached + 1) / (flips + 1), f"{flips:,} sign flips"


def _flipped_sums(values: np.ndarray, flips: int) -> np.ndarray:
    """float [flips]: the sum of values [n] with random signs. Eight values at a time: a random byte
    picks one of the 256 sums that they can have.
    """
    padded = np.zeros(-(-len(values) // 8) * 8)
    padded[: len(values)] = values
    signs = 1 - 2 * (np.arange(256)[:, None] >> np.arange(8) & 1)
    sums = padded.reshape(-1, 8) @ signs.T  # [n / 8, 256]
    rng = np.random.default_rng(SEED)
    found = np.zeros(flips)
    for of_eight in sums:
        found += of_eight[rng.integers(0, 256, flips, np.uint8)]
    return found


def holm(contrasts: Mapping[str, Contrast]) -> dict[str, Contrast]:
    """The same with Holm's step-down correction over all that have a p (Holm 1979)."""
    known = sorted((c.p, name) for name, c in contrasts.items() if c.p is not None)
    corrected, highest = {}, 0.0
    for place, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * p))
        corrected[name] = highest
    return {name: replace(c, holm=corrected.get(name)) for name, c in contrasts.items()}


def unpaired(a: tuple[float, float], b: float) -> Contrast:
    """The difference of a value with a standard error, (percent, percent points), and a number of
    which nothing else is known: its error is taken to be as large, scaled by the square root of
    p (1 - p).
    """
    value, spread = a
    scale = value * (100 - value)
    other = spread * np.sqrt(b * (100 - b) / scale) if scale > 0 else spread
    both = float(np.hypot(spread, other))
    difference = b - value
    low, high = difference - 1.959964 * both, difference + 1.959964 * both
    if not both:
        return Contrast(value, b, low, high, None, "", None)
    p = float(2 * ndtr(-abs(difference) / both))
    return Contrast(value, b, low, high, p, "unpaired, from totals", DETECTABLE * both)
