"""Figures: what an ablation's runs scored, and the differences between its points. Pure arithmetic
over results; nothing is trained, scored or written.

Two things make a number unsure, and both are stated: which pictures the tests are of (items: the
bootstrap of source images whose draws every result holds, the same for every model), and which seed
a training had (seeds: the standard deviation between trainings that differ in it alone).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np
from scipy.special import ndtri, stdtrit

from fsc_bench.errors import UsageError
from fsc_bench.results import Run, draws_of
from fsc_bench.score.compare import members
from fsc_bench.score.statistics import wilson
from fsc_bench.suite import suite_of
from fsc_bench.task import Task

Z = 1.959963984540054  # of a 95% interval
POWER = 0.8  # with which a detectable difference is found, at the 5% level


@dataclass(frozen=True)
class Score:
    """One number of one model: percent, its bootstrap draws [replicates] in percent (empty where it
    has none), and how many samples it is of.
    """

    value: float
    drawn: np.ndarray
    n: int


Seeds = Mapping[int | None, Score]  # by seed; None is the first model, which has none


@dataclass(frozen=True)
class Figures:
    """All scores: column -> point -> seed -> score. averages: of how many tasks of how many."""

    columns: Mapping[str, Mapping[str, Seeds]]
    averages: Mapping[str, tuple[int, int]]
    flags: Sequence[str] = ()


def figures(
    runs: Mapping[tuple[str, int | None], Run],
    tasks: Sequence[Task],
    complain: Callable[[str], object],
) -> Figures:
    """The averages and tasks of every run. An average is of all its tasks here, or is not there."""
    averages = {name: parts for name, parts in _averages(tasks)}
    columns: dict[str, dict[str, dict[int | None, Score]]] = {}
    flags: dict[str, None] = {}
    for (point, seed), run in runs.items():
        found = scores(run, tasks, complain)
        for name, (parts, _) in averages.items():
            if all(part in found for part in parts):
                found[name] = average([found[part] for part in parts])
        for column, score in found.items():
            columns.setdefault(column, {}).setdefault(point, {})[seed] = score
        for task, result in run.results.items():
            flags |= {f"{task}: {flag}": None for flag in result.flags}
    ordered = {name: columns[name] for name in [*averages, *columns] if name in columns}
    counts = {name: (len(parts), of) for name, (parts, of) in averages.items()}
    return Figures(ordered, counts, list(flags))


def scores(run: Run, tasks: Sequence[Task], complain: Callable[[str], object]) -> dict[str, Score]:
    """A run's headline numbers by column: the task, and its metric where it has several."""
    wanted = [task for task in tasks if task.name in run.results]
    drawn = draws_of(run.path, [task.name for task in wanted], complain)
    found = {}
    for task in wanted:
        result = run.results[task.name]
        for metric in result.headline:
            cell = result.metrics.get("headline", {}).get(metric)
            if cell is not None and cell.value is not None:
                replicates = drawn.get(task.name, {}).get(metric, np.empty(0))
                found[column(task, metric)] = Score(cell.value, replicates, cell.n or result.n)
    return found


def column(task: Task, metric: str) -> str:
    return task.name if len(task.headline) == 1 else f"{task.name} {metric}"


def _averages(tasks: Sequence[Task]) -> Iterable[tuple[str, tuple[list[str], int]]]:
    """(name, (columns that it is the mean of, how many it should be of))."""
    suites = list(dict.fromkeys(task.suite for task in tasks))
    for name in suites:
        suite = suite_of(name)
        for title, average_of in suite.averages.items():
            parts = [
                column(task, metric)
                for task in tasks
                if task.suite == name
                and (metric := average_of.metric_of(task.name, task.group, task.headline))
            ]
            if parts:
                shown = title if len(suites) == 1 else f"{title} ({name})"
                yield shown, (parts, max(len(parts), members(suite, title)))


def average(parts: Sequence[Score]) -> Score:
    """The plain mean of several numbers, and of their draws: an image is drawn alike in all."""
    whole = combined([(1, part) for part in parts], min(part.n for part in parts))
    return Score(whole.value / len(parts), whole.drawn / len(parts), whole.n)


def combined(terms: Sequence[tuple[float, Score]], n: int) -> Score:
    """A weighted sum of numbers and of their draws. A number without draws adds no spread."""
    value = sum(weight * score.value for weight, score in terms)
    size = max(len(score.drawn) for _, score in terms)
    drawn = np.zeros(size)
    for weight, score in terms:
        if len(score.drawn) not in (0, size):
            raise UsageError(
                f"numbers with {len(score.drawn):,} and {size:,} draws: results of two versions "
                "are not combined. Score them anew."
            )
        drawn = drawn + weight * (score.drawn if len(score.drawn) else score.value)
    return Score(value, drawn, n)


# ---------------------------------------------------------------- over seeds


@dataclass(frozen=True)
class Spread:
    """A number, or a sum of numbers, over seeds, in percent or percent points.

    item_low, item_high: the 95% interval over items, for these trainings. between: the standard
    deviation between seeds, None of one. low, high: the 95% interval over both (infinite of one
    seed, which says nothing of others). detectable: the smallest true value other than 0 that is
    found with 80% power.
    """

    value: float
    each: Mapping[int | None, float]
    item_low: float
    item_high: float
    between: float | None
    low: float
    high: float
    detectable: float | None

    @property
    def seeds(self) -> int:
        return len(self.each)


def spread(terms: Sequence[tuple[float, Seeds]]) -> Spread | None:
    """A weighted sum of points' scores over the seeds that all of them have, seed by seed; None
    where they share none.
    """
    trained = [set(seeds) for _, seeds in terms if None not in seeds]
    shared = sorted(set.intersection(*trained)) if trained else [None]
    if not shared:
        return None
    by_seed = {
        seed: combined(
            [(weight, seeds[None] if None in seeds else seeds[seed]) for weight, seeds in terms],
            min(score.n for _, seeds in terms for score in seeds.values()),
        )
        for seed in shared
    }
    each = {seed: score.value for seed, score in by_seed.items()}
    pooled = average(list(by_seed.values()))
    low, high, error = _items(pooled, max(1.0, sum(abs(weight) for weight, _ in terms) / 2))
    between = stdev(each.values()) if len(each) > 1 else None
    both = _both(pooled.value, error, between, len(each), trained=bool(trained))
    return Spread(pooled.value, each, low, high, between, *both)


def _items(pooled: Score, weights: float) -> tuple[float, float, float]:
    """(low, high, standard error) over items. Where every draw is alike resampling says "certain",
    which a finite test cannot be: then as much as so many samples leave unseen.
    """
    drawn = pooled.drawn[~np.isnan(pooled.drawn)]
    if len(drawn) and drawn.max() > drawn.min():
        low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
        return min(low, pooled.value), max(high, pooled.value), float(drawn.std())
    unseen = wilson(0, pooled.n)[1] * weights
    return pooled.value - unseen, pooled.value + unseen, unseen / Z


def _both(
    value: float, error: float, between: float | None, seeds: int, trained: bool
) -> tuple[float, float, float | None]:
    """(low, high, detectable) over items and seeds together: variances add, and Student's t has the
    degrees of freedom of Satterthwaite (1946), for only that of the seeds is estimated from few.
    """
    if not trained:
        degrees, whole = math.inf, error
    elif between is None:
        return -math.inf, math.inf, None
    else:
        of_seeds = between**2 / seeds
        whole = math.sqrt(error**2 + of_seeds)
        degrees = whole**4 / (of_seeds**2 / (seeds - 1)) if of_seeds else math.inf
    quantile, power = _student(0.975, degrees), _student(POWER, degrees)
    return value - quantile * whole, value + quantile * whole, (quantile + power) * whole


def _student(share: float, degrees: float) -> float:
    """A quantile of Student's t; of the normal one for infinitely many degrees of freedom."""
    return float(stdtrit(degrees, share) if math.isfinite(degrees) else ndtri(share))
