"""`fsc-bench status -o DIR`: what is done, who works on what, what failed, what is left."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fsc_bench.cli.options import JsonOption, RunsOption

if TYPE_CHECKING:
    from fsc_bench.run.status import Pair, Status, Worker


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(status)


def status(out: RunsOption = None, json: JsonOption = False) -> None:
    """How far the runs in a folder are: done, running where, failed, left. Changes nothing."""
    from fsc_bench.cli.show import print_json
    from fsc_bench.run.status import status as look

    found = look(out or Path("runs"))
    if json:
        print_json(found.document())
        return
    _show(found)


def _show(found: "Status") -> None:
    """A line a model, a line for each failure and each stale result, and the sum."""
    from fsc_bench.cli.show import print_table, readable_time, say

    workers = {(one.model, one.precision): one for one in found.workers}
    models: dict[tuple[str, str, str], list[Pair]] = {}
    for pair in found.pairs:
        models.setdefault((pair.model, pair.precision, pair.variant), []).append(pair)
    rows = []
    for (model, precision, variant), pairs in models.items():
        count = {state: sum(pair.state == state for pair in pairs) for state in found.counts}
        spent = sum(pair.seconds or 0.0 for pair in pairs)
        name = " ".join(filter(None, [model, "" if precision == "fp32" else precision, variant]))
        where = _where(workers[model, precision]) if (model, precision) in workers else ""
        rows.append([name, *count.values(), readable_time(spent) if spent else "", where])
    rows += [[], ["all", *found.counts.values(), readable_time(found.spent), ""]]
    print_table(["model", *found.counts, "time", "where"], rows, f"Runs in {found.folder}")
    say("\n".join(["", *_reasons(found.pairs), _rest(found)]))


def _reasons(pairs: list["Pair"]) -> list[str]:
    """What failed or is stale, each reason once: `failed: MODEL, 35 tasks: no such file.`"""
    alike: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.why:
            alike.setdefault((pair.state, pair.why), []).append(pair)
    lines = []
    for (state, why), same in alike.items():
        models = list(dict.fromkeys(pair.model for pair in same))
        tasks = list(dict.fromkeys(pair.task + pair.variant for pair in same))
        model = models[0] if len(models) == 1 else f"{len(models)} models"
        task = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
        lines.append(f"{state}: {model}, {task}: {why}")
    return lines


def _where(worker: "Worker") -> str:
    """`node7 process 4711, winoground, since 2026-11-27T12:03:04Z, last beat 12:09:10`."""
    task = worker.task or "the model is being loaded"
    if worker.state == "gone":
        return f"{worker.host} process {worker.process} is gone; the next command takes over"
    beat = worker.beat_at[11:19] or "none"
    clock = "" if worker.state == "alive" else " by its clock"
    return (
        f"{worker.host} process {worker.process}, {task}, since {worker.since}, "
        f"last beat {beat}{clock}"
    )


def _rest(found: "Status") -> str:
    from fsc_bench.cli.show import readable_time

    open_ = sum(found.counts[state] for state in ("running", "stale", "left"))
    if not open_:
        return "Nothing is left." if not found.counts["failed"] else "Only what failed is left."
    busy = sum(worker.state != "gone" for worker in found.workers)
    at_work = f"{busy} command{'s work' if busy != 1 else ' works'} on it"
    if found.rest is None:
        return f"{open_} left; {at_work}; nothing is known of the time."
    return f"{open_} left, about {readable_time(found.rest)}; {at_work}."
