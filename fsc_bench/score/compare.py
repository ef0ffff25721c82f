"""Compare: is B better than A? Two runs over the same samples, from what they left on disk.

It needs no model and no torch. What can be compared is compared; what cannot be is named with the
reason. The arithmetic is contrast.py's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fsc_bench.errors import UsageError
from fsc_bench.results import Result, Run
from fsc_bench.score.clusters import Sources, source_images
from fsc_bench.score.contrast import (
    FLIPS,
    OF_SUBSETS,
    Contrast,
    Paired,
    average,
    contrast,
    holm,
    paired,
    unpaired,
)
from fsc_bench.score.evaluate import KINDS
from fsc_bench.score.scoring import Told
from fsc_bench.score.statistics import ROOT, draws, leaves_below, points
from fsc_bench.score.stored import Stored, open_stored
from fsc_bench.suite import Suite, suite_of
from fsc_bench.task import catalogue


@dataclass(frozen=True)
class Line:
    """One line of a comparison: what was compared, over how much, and the difference.

    name: an average, a task, or a subset of a task; task: of which. fixed, broken: samples that
    only b, and only a, has right (None for averages). of: for an average, (tasks that it is of,
    tasks it should be of).
    """

    name: str
    metric: str
    found: Contrast
    n: int
    images: int
    fixed: int | None = None
    broken: int | None = None
    of: tuple[int, int] | None = None
    task: str = ""


@dataclass(frozen=True)
class Flip:
    """A sample that one of the two has right. margins: how far each one's right answer is ahead.
    moved: how much they differ, in medians of the task (cosines and ranks have different scales).
    """

    task: str
    subset: str
    id: str
    fixed: bool
    margin_a: float
    margin_b: float
    moved: float
    images: tuple[str, ...]
    texts: tuple[str, ...]
    answer: str = ""  # of classification: the right class, and what each took it for
    taken_a: str = ""
    taken_b: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that two runs say of each other. left_out: why a task is not in it, by task. paired:
    whether the samples of both are known; of a published row only the totals are.
    """

    a: str
    b: str
    averages: Sequence[Line]
    tasks: Sequence[Line]
    subsets: Mapping[str, Sequence[Line]]
    flips: Sequence[Flip]
    left_out: Mapping[str, str]
    notes: Sequence[str] = field(default_factory=tuple)
    same_run: bool = False
    paired: bool = True

    @property
    def headline(self) -> Sequence[Line]:
        """The lines that the verdict is of: the averages, or the only task."""
        return self.averages or self.tasks

    def verdict(self, margin: float) -> str:
        """One word. TRADE-OFF where one average is BETTER and another WORSE."""
        if self.same_run:
            return "SAME"
        words = {line.found.verdict(margin) for line in self.headline}
        if {"BETTER", "WORSE"} <= words:
            return "TRADE-OFF"
        return next(word for word in ("BETTER", "WORSE", "UNDECIDED", "SAME") if word in words)


def compare(
    a: Run,
    b: Run,
    flips: int = 0,
    only: Iterable[str] | None = None,
    progress: Callable[[str, int, int], Any] = lambda what, done, total: None,
    table: Suite | None = None,
) -> Comparison:
    """Compares two runs over the tasks that both finished. flips: how many flipped samples are
    wanted. only: names of tasks to look at. Raises UsageError where nothing can be compared.
    """
    left_out: dict[str, str] = {}
    notes: list[str] = []
    pairs = dict(_pairs(a, b, only, left_out, notes))
    if not pairs:
        reasons = "; ".join(f"{task}: {why}" for task, why in left_out.items())
        raise UsageError(
            f"{a.path} and {b.path}: there is nothing to compare. {reasons or 'No task in common.'}"
        )
    sources = source_images({task: pair.a.marks for task, pair in pairs.items()})
    found: dict[str, Mapping[str, Mapping[str, Paired]]] = {}
    lines: dict[str, dict[str, Line]] = {}
    subsets: dict[str, list[Line]] = {}
    flipped: list[Flip] = []

    for number, task in enumerate(pairs):
        progress("compared", number, len(pairs))
        try:
            one = _compared(pairs[task], sources[task], flips)
        except UsageError as error:
            left_out[task] = str(error)
            continue
        found[task], lines[task], subsets[task], of_task = one
        flipped += of_task
    if not lines:
        raise UsageError("; ".join(left_out.values()))
    tasks = holm({name: line.found for name, line in _flat(lines).items()})
    averages = _averages(found, pairs, table)
    corrected = holm({line.name: line.found for line in averages})
    order = sorted(flipped, key=lambda flip: -flip.moved)
    return Comparison(
        a.name,
        b.name,
        [replace(line, found=corrected[line.name]) for line in averages],
        [replace(line, found=tasks[name]) for name, line in _flat(lines).items()],
        subsets,
        order[:flips],
        left_out,
        notes,
        same_run=_same_run(a, b),
    )


class _Found(NamedTuple):
    """What came out of one task."""

    pairs: Mapping[str, Mapping[str, Paired]]
    headline: dict[str, Line]
    subsets: list[Line]
    flips: list[Flip]


def _compared(pair: "Pair", sources: Sources, flips: int) -> _Found:
    """Raises UsageError where the samples cannot be what the results are of."""
    told = pair.told(sources)
    found = pair.contrasts(told, sources.keys)
    headline, below = _lines(pair, told, found)
    flipped = _flips(pair, told, flips) if flips else []
    pair.forget()
    return _Found(found, headline, below, flipped)


def _same_run(a: Run, b: Run) -> bool:
    """Whether two folders hold the same results of the same model."""
    same = [a.results[task] == b.results.get(task) for task in a.results]
    return a.path.resolve() == b.path.resolve() or (bool(same) and all(same))


# ---------------------------------------------------------------- what can be compared


@dataclass(frozen=True)
class Pair:
    """The same samples of two runs, in one order."""

    a: Stored
    b: Stored

    def forget(self) -> None:
        """Gives the memory of both files back."""
        for stored in (self.a, self.b):
            stored.columns.forget()

    def told(self, sources: Sources) -> tuple[Told, Told]:
        wanted = self.a.result.headline
        return self.a.told(sources, wanted), self.b.told(sources, wanted)

    def contrasts(self, told: tuple[Told, Told], keys: np.ndarray) -> dict[str, dict[str, Paired]]:
        """metric -> node -> both values."""
        of_a, of_b = (
            stored.measures(one) for stored, one in zip((self.a, self.b), told, strict=True)
        )
        tree, within = self.a.tree, self.a.within
        both = [metric for metric in of_a if metric in of_b]
        if not both:
            raise UsageError("; ".join({**self.a.result.lacks, **self.b.result.lacks}.values()))
        return {metric: paired(of_a[metric], of_b[metric], tree, within, keys) for metric in both}


def _pairs(
    a: Run, b: Run, only: Iterable[str] | None, left_out: dict[str, str], notes: list[str]
) -> Iterable[tuple[str, Pair]]:
    wanted = None if only is None else set(only)
    for task in dict.fromkeys([*a.results, *b.results]):
        if wanted is not None and task not in wanted:
            continue
        lacking = [run.path for run in (a, b) if task not in run.results]
        if lacking:
            left_out[task] = f"{lacking[0]} has no result of it"
            continue
        try:
            pair, note = _pair(a, b, task)
        except UsageError as error:
            left_out[task] = str(error)
            continue
        notes += [f"{task}: {note}"] * bool(note)
        yield task, pair


def _pair(a: Run, b: Run, task: str) -> tuple[Pair, str]:
    """The samples of a task that both runs have, and what must be said of them.

    Raises UsageError where the two were not asked the same.
    """
    one, other = a.results[task], b.results[task]
    if why := _differs(one, other):
        raise UsageError(why)
    stored_a, stored_b = open_stored(a, task), open_stored(b, task)
    lacks = [f"no {metric}: {why}" for metric, why in {**one.lacks, **other.lacks}.items()]
    note = "; ".join(dict.fromkeys([*one.flags, *other.flags, *lacks]))
    if stored_a.ids != stored_b.ids:
        place = {name: row for row, name in enumerate(stored_b.ids)}
        both = [(row, place[name]) for row, name in enumerate(stored_a.ids) if name in place]
        if not both:
            raise UsageError("the two have no sample in common")
        rows_a, rows_b = zip(*both, strict=True)
        stored_a, stored_b = stored_a.narrowed(rows_a), stored_b.narrowed(rows_b)
        note = f"over the {len(both):,} samples that both have, of {one.n:,} and {other.n:,}"
    asked = {"image_digests": "pictures", "texts": "texts", "subset": "subsets"}
    asked |= {"labels": "labels"} if one.kind == "classification" else {}
    for name, what in asked.items():
        columns = (stored.columns.arrow(name) for stored in (stored_a, stored_b))
        differing = _differing(*columns)
        if differing:
            raise UsageError(
                f"of other data: {differing:,} of {len(stored_a.ids):,} samples have other {what}"
            )
    return Pair(stored_a, stored_b), note


def _differs(a: Result, b: Result) -> str:
    """Why two results are not of one task; empty where they are."""
    if a.version != b.version:
        return f"of versions {a.version} and {b.version} of the task"
    for name in ("kind", "headline"):
        if getattr(a, name) != getattr(b, name):
            return f"of two tasks of that name: the {name} differs"
    for name in ("suite", "within", "subsets"):
        if a.facts.get(name) != b.facts.get(name):
            return f"of two tasks of that name: the {name} differs"
    if a.settings.get("prompts") != b.settings.get("prompts"):
        return f"with the prompts {a.settings.get('prompts')!r} and {b.settings.get('prompts')!r}"
    return ""


def _differing(a: pa.Array, b: pa.Array) -> int:
    """In how many samples two columns differ."""
    if a.equals(b):
        return 0
    return sum(x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True))


# ---------------------------------------------------------------- what comes out


def _flat(lines: Mapping[str, Mapping[str, Line]]) -> dict[str, Line]:
    return {
        task if len(of_task) == 1 else f"{task} {metric}": replace(
            line, name=task if len(of_task) == 1 else f"{task} {metric}"
        )
        for task, of_task in lines.items()
        for metric, line in of_task.items()
    }


def _lines(
    pair: Pair, told: tuple[Told, Told], found: Mapping[str, Mapping[str, Paired]]
) -> tuple[dict[str, Line], list[Line]]:
    """(the headline by metric, the nodes below it)."""
    kind = KINDS[pair.a.result.kind]
    clusters, subsets = told[0].grouping.clusters, told[0].grouping.subsets
    names, of = np.unique(subsets.astype(str), return_inverse=True)
    inside = {
        node: np.isin(names, leaves)[of] for node, leaves in leaves_below(pair.a.tree).items()
    }
    whole, below = {}, []
    for metric, nodes in found.items():
        hits_a, hits_b = (kind.hits(one, metric) for one in told)
        for node, both in nodes.items():
            rows = inside[node]
            line = Line(
                node,
                metric,
                contrast(both, FLIPS if node == ROOT else OF_SUBSETS),
                pair.a.count(node, metric, int(rows.sum())),
                len(np.unique(clusters[rows])),
                int((hits_b & ~hits_a & rows).sum()),
                int((hits_a & ~hits_b & rows).sum()),
                task=pair.a.result.task,
            )
            if node == ROOT:
                whole[metric] = line
            elif len(nodes) > 2:  # the only subset is the whole
                below.append(line)
    return whole, below


def _averages(
    found: Mapping[str, Mapping[str, Mapping[str, Paired]]],
    pairs: Mapping[str, Pair],
    table: Suite | None = None,
) -> list[Line]:
    """The averages of every suite, over the tasks that were compared. table: the one suite whose
    averages are asked for, whatever suites the tasks call theirs.
    """
    results = {task: pairs[task].a.result for task in found}
    suites = list(dict.fromkeys(result.facts["suite"] for result in results.values()))
    suites = [table.name] if table else suites
    lines = []
    for suite in suites:
        for name, average_of in (table or suite_of(suite)).averages.items():
            metrics = {
                task: average_of.metric_of(task, result.facts["group"], result.headline)
                for task, result in results.items()
                if table or result.facts["suite"] == suite
            }
            chosen = [task for task, metric in metrics.items() if metric]
            parts = [found[task].get(metrics[task], {}).get(ROOT) for task in chosen]
            if not parts or None in parts:
                continue
            whole = average(parts)
            n = sum(len(pairs[task].a.ids) for task in chosen)
            images = len(np.unique(np.concatenate([part.images for part in parts])))
            of = (len(parts), max(len(parts), members(table or suite_of(suite), name)))
            title = name if len(suites) == 1 else f"{name} ({suite})"
            lines.append(Line(title, "average", contrast(whole), n, images, of=of))
    return lines


def members(suite: Suite, name: str) -> int:
    """How many tasks of a suite an average is of; 0 for one of which no file is known."""
    average_of = suite.averages[name]
    return sum(
        average_of.metric_of(task.name, task.group, task.headline) is not None
        for task in suite.tasks or catalogue().values()
        if suite.tasks or task.suite == suite.name
    )


def _flips(pair: Pair, told: tuple[Told, Told], most: int) -> list[Flip]:
    """The samples of a task that one of the two has right: by the first metric of its headline, the
    biggest movers first.
    """
    result = pair.a.result
    kind, lacks = KINDS[result.kind], {**pair.a.result.lacks, **pair.b.result.lacks}
    metric = next(metric for metric in result.headline if metric not in lacks)
    hits_a, hits_b = (kind.hits(one, metric) for one in told)
    margins_a, margins_b = (kind.margins(one, metric) for one in told)
    rows = np.flatnonzero(hits_a != hits_b)
    moved = np.abs(margins_b - margins_a)
    moved /= np.median(moved[rows]) if len(rows) else 1.0
    rows = rows[np.argsort(-moved[rows], kind="stable")][:most]
    return [
        Flip(
            result.task,
            told[0].grouping.subsets[row],
            pair.a.ids[row],
            bool(hits_b[row]),
            float(margins_a[row]),
            float(margins_b[row]),
            float(moved[row]),
            *(tuple(told[0].columns.arrow(name)[row].as_py()) for name in ("images", "texts")),
            *_classes(told, row),
        )
        for row in rows.tolist()
    ]


def _classes(told: tuple[Told, Told], row: int) -> tuple[str, ...]:
    if "prediction_name" not in told[0].columns:
        return ()
    answer = ", ".join(told[0].columns.arrow("label_names")[row].as_py())
    return answer, *(one.columns.arrow("prediction_name")[row].as_py() for one in told)


# ---------------------------------------------------------------- against a published row


def against_totals(
    a: Run, name: str, totals: Mapping[str, float], only: Iterable[str] | None = None
) -> Comparison:
    """Compares a run with numbers of which nothing else is known, by column ("sugarcrepe",
    "coco_karpathy i2t_r1", "Comp"). The published number's standard error is taken to be the run's,
    as far as the two differ in p (1 - p). Raises UsageError where no column is in the run.
    """
    left_out: dict[str, str] = {}
    stored = {}
    for task in a.results if only is None else [task for task in a.results if task in set(only)]:
        try:
            stored[task] = open_stored(a, task)
        except UsageError as error:
            left_out[task] = str(error)
    sources = source_images({task: one.marks for task, one in stored.items()})
    tasks, means = {}, {}
    for task, one in stored.items():
        measures = one.measures(one.told(sources[task], one.result.headline))
        drawn = draws(measures, one.tree, one.within, sources[task].keys)
        for metric in measures:
            column = task if len(one.result.headline) == 1 else f"{task} {metric}"
            value = points(measures[metric], one.tree, one.within)[ROOT]
            means[task, metric] = value, drawn[metric].get(ROOT, np.zeros(1))
            if column in totals:
                found = unpaired((value, float(np.nanstd(means[task, metric][1]))), totals[column])
                images = len(sources[task].keys)
                tasks[column] = Line(column, metric, found, one.result.n, images, task=task)
    names = dict.fromkeys(a.results[task].facts["suite"] for task in stored)
    averages = [
        line
        for suite in map(suite_of, names)
        if suite.published
        for average in suite.averages
        if (line := _total(suite, average, a, means, totals)) is not None
    ]
    if not tasks and not averages:
        raise UsageError(f"{a.path}: {name} has a number of none of its tasks.")
    corrected = holm({column: line.found for column, line in tasks.items()})
    headline = holm({line.name: line.found for line in averages})
    return Comparison(
        a.name,
        name,
        [replace(line, found=headline[line.name]) for line in averages],
        [replace(line, found=corrected[column]) for column, line in tasks.items()],
        {},
        [],
        left_out,
        ["Unpaired: of a published row only totals are known."],
        paired=False,
    )


def _total(
    suite: Suite,
    name: str,
    run: Run,
    means: Mapping[tuple[str, str], tuple[float, np.ndarray]],
    totals: Mapping[str, float],
) -> Line | None:
    """An average that both have, over all tasks of the suite; None otherwise."""
    of = {task: run.results[task] for task, _ in means}
    chosen = {
        task: suite.averages[name].metric_of(task, result.facts["group"], result.headline)
        for task, result in of.items()
        if result.facts["suite"] == suite.name
    }
    parts = [means[task, metric] for task, metric in chosen.items() if (task, metric) in means]
    if name not in totals or not parts or len(parts) != members(suite, name):
        return None
    value = sum(part[0] for part in parts) / len(parts)
    spread = float(np.nanstd(sum(part[1] for part in parts) / len(parts)))
    n = sum(run.results[task].n for task, metric in chosen.items() if metric)
    return Line(name, "average", unpaired((value, spread), totals[name]), n, 0, of=(1, 1))
