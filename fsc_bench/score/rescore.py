"""Rescore: other rules of ties, other metrics and other averages, from the scores that a run left.

It needs no model. Matching is counted again from its scores; of classification and retrieval the
samples hold what the headline rule made of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.results import Cell, Run
from fsc_bench.score.clusters import source_images
from fsc_bench.score.evaluate import KINDS
from fsc_bench.score.kinds import matching
from fsc_bench.score.scoring import Told
from fsc_bench.score.statistics import ROOT, Measure, draws, estimates
from fsc_bench.score.stored import Stored, open_stored

TIES = ("headline", "strict", "lenient")


@dataclass(frozen=True)
class Rescored:
    """cells: by task, node and metric. draws: of the headlines, by task and metric. averages: those
    that were asked for. left_out: why a task is not in it, by task.
    """

    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    averages: Mapping[str, Cell]
    left_out: Mapping[str, str]


def rescore(
    run: Run,
    ties: str = "headline",
    averages: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    only: Sequence[str] | None = None,
) -> Rescored:
    """Scores a run anew. ties: "headline"; "strict": any tie is a miss, also with a copy of the
    right answer; "lenient": a tie is a hit. averages: name -> (task, metric or "" for the first of
    its headline). Raises UsageError where an average names what the run has not.
    """
    stored: dict[str, Stored] = {}
    left_out: dict[str, str] = {}
    for task in run.results if only is None else only:
        try:
            if task not in run.results:
                raise UsageError(f"no result of it.{near_miss(task, run.results)}")
            stored[task] = _fitting(open_stored(run, task), ties)
        except UsageError as error:
            left_out[task] = str(error)
    sources = source_images({task: one.marks for task, one in stored.items()})
    cells, drawn = {}, {}
    for task, one in stored.items():
        measures = _measures(one.told(sources[task]), one.result.kind, ties)
        found = draws(measures, one.tree, one.within, sources[task].keys)
        drawn[task] = {metric: found[metric].get(ROOT) for metric in measures}
        cells[task] = {
            node: {
                metric: replace(
                    one.result.metrics.get(node, {}).get(metric, Cell(None)),
                    **dict(zip(("value", "low", "high"), estimate, strict=True)),
                    strict=None,
                )
                for metric, estimate in of_node.items()
            }
            for node, of_node in estimates(measures, one.tree, one.within, found).items()
        }
        one.columns.forget()
    means = {
        name: _average(name, members, run, cells, drawn)
        for name, members in (averages or {}).items()
    }
    return Rescored(cells, means, left_out)


def _fitting(stored: Stored, ties: str) -> Stored:
    """Raises UsageError where a rule of ties asks for what the samples do not hold."""
    if ties != "headline" and stored.result.kind != "matching":
        raise UsageError(
            f"its samples hold what the headline rule made of ties; the result has {ties!r} for "
            "the headline alone"
            if ties == "strict"
            else "its samples hold what the headline rule made of ties"
        )
    return stored


def _measures(told: Told, kind: str, ties: str) -> dict[str, Measure]:
    if kind != "matching":
        return KINDS[kind].measures(told)
    counted = matching.recounted(told)
    table = {"headline": counted.hits, "strict": counted.strict, "lenient": counted.lenient}[ties]
    wanted = [m for m in table if m != "accuracy" or "accuracy" in told.headline]
    return {metric: told.grouping.means(table[metric], counted.asked[metric]) for metric in wanted}


def _average(
    name: str,
    members: Sequence[tuple[str, str]],
    run: Run,
    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]],
    drawn: Mapping[str, Mapping[str, np.ndarray | None]],
) -> Cell:
    values, parts = [], []
    for task, metric in members:
        if task not in cells:
            raise UsageError(f"average {name!r}: {task!r} is not scored.{near_miss(task, cells)}")
        metric = metric or run.results[task].headline[0]
        headline = cells[task].get(ROOT, {})
        if metric not in headline:
            hint = near_miss(metric, headline)
            raise UsageError(f"average {name!r}: {task} has no {metric!r}.{hint}")
        values.append(headline[metric].value)
        parts.append(drawn[task].get(metric))
    mean = sum(values) / len(values)
    if any(part is None for part in parts):
        return Cell(mean)
    low, high = np.nanpercentile(sum(parts) / len(parts), [2.5, 97.5])
    return Cell(mean, float(low), float(high))
