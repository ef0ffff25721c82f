"""`fsc-bench rescore` and `verify`: numbers computed again, without a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsc_bench.cli.compare import find_run
from fsc_bench.cli.options import JsonOption, split_words
from fsc_bench.errors import GateError, UsageError, near_miss

if TYPE_CHECKING:
    from fsc_bench.report.verify import Beside

SUGARCREPE = "sugarcrepe", "open_clip:ViT-B-32-quickgelu/openai"  # of which outcomes are published


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(rescore)
    app.command()(verify)


def rescore(
    run: Annotated[str, typer.Argument(help="A run folder, or a model with a run.")],
    ties: Annotated[
        str, typer.Option(help="headline; strict: any tie is a miss; lenient: a tie is a hit.")
    ] = "headline",
    average: Annotated[
        list[str] | None,
        typer.Option("--average", help="NAME=task,task:metric: another average; repeat for more."),
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("-t", "--tasks", help="Only these, with all subsets.")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are looked for.")] = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Other ties, other metrics (GroupMatch), other averages: from a run's stored scores."""
    from fsc_bench.cli.show import print_json, print_table, say, tell
    from fsc_bench.score.rescore import TIES
    from fsc_bench.score.rescore import rescore as rescore_run

    if ties not in TIES:
        raise UsageError(
            f"--ties {ties!r}: choose one of {', '.join(TIES)}.{near_miss(ties, TIES)}"
        )
    wanted = dict(read_average(text) for text in average or [])
    found_run = find_run(run, runs)
    only = split_words(tasks) or None
    found = rescore_run(found_run, ties, wanted, only)
    if json:
        cells = {
            task: {node: {m: c.facts() for m, c in part.items()} for node, part in nodes.items()}
            for task, nodes in found.cells.items()
        }
        averages = {name: cell.facts() for name, cell in found.averages.items()}
        print_json({"model": found_run.name, "ties": ties, "tasks": cells, "averages": averages,
                    "left_out": dict(found.left_out)})  # fmt: skip
        return
    rows: list[list[str]] = []
    for task, nodes in found.cells.items():
        for node, metrics in nodes.items():
            if node != "headline" and only is None:
                continue
            for metric, cell in metrics.items():
                stated = found_run.results[task].metrics.get(node, {}).get(metric)
                was = "-" if stated is None else str(stated)
                chance = "-" if cell.chance is None else f"{cell.chance:.1f}"
                rows.append([task, node, metric, was, str(cell), cell.interval, chance])
    rows += [
        ["", name, "average", "", str(c), c.interval, ""] for name, c in found.averages.items()
    ]
    header = ["task", "subset", "metric", "as scored", ties, "95% interval", "chance"]
    print_table(header, rows, found_run.name)
    for task, why in found.left_out.items():
        tell(f"left out: {task}: {why}")
    if not found.cells:
        say("Nothing could be scored again.")


def read_average(text: str) -> tuple[str, list[tuple[str, str]]]:
    """`NAME=task,task:metric` -> (name, (task, metric or "") of each). Raises UsageError."""
    name, equals, parts = text.partition("=")
    members = [part.partition(":")[::2] for part in parts.split(",") if part]
    if not name or not equals or not members:
        raise UsageError(f"--average {text!r}: write NAME=task,task or NAME=task:metric,task.")
    return name, [(task, metric) for task, metric in members]


def verify(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders to set beside published rows.")
    ] = None,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(help="Published outcomes of SugarCrepe's questions, as BiVLC has them (CSV)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Replays published averages from published parts, and sets runs beside published rows."""
    from fsc_bench.cli.show import print_json, print_table, say, tell
    from fsc_bench.report import verify as replay
    from fsc_bench.results import read_runs
    from fsc_bench.task import catalogue, default_suite

    tasks = [task for task in catalogue().values() if task.suite == default_suite()]
    checks = {
        "headlines from the subsets that task files quote": replay.replay_references(tasks),
        "averages of published tables": replay.replay_tables(tasks),
    }
    for path in outcomes or []:
        name, model = SUGARCREPE
        checks[f"outcomes in {path}"] = replay.replay_outcomes(path, catalogue()[name], model)
    beside = replay.beside_published(read_runs(runs, tell) if runs else [], tasks)
    failed = [check for found in checks.values() for check in found if not check.holds]
    if json:
        replayed = {
            name: [{**vars(check), "holds": check.holds} for check in found]
            for name, found in checks.items()
        }
        shown = [{**vars(line), "inside": line.inside} for line in beside]
        print_json({"checks": replayed, "runs": shown})
    else:
        for name, found in checks.items():
            held = sum(check.holds for check in found)
            widest = max((abs(c.stated - c.replayed) for c in found), default=0.0)
            say(f"{name}: {held} of {len(found)} hold; the largest difference is {widest:.4f}")
        for check in failed:
            say(f"  {check.what}: stated {check.stated:.4f}, replayed {check.replayed:.4f}")
        if beside:
            print()
            print_table(
                ["model", "task", "subset", "metric", "here", "95% interval", "published", ""],
                [_line(line) for line in beside],
            )
        elif runs:
            tell("No run is of a model whose numbers a task file quotes.")
    if failed:
        raise GateError(f"{len(failed)} published numbers are not replayed.")


def _line(line: "Beside") -> list[str]:
    ends = f"[{line.low:.1f}, {line.high:.1f}]"
    word = "inside" if line.inside else "OUTSIDE"
    return [line.model, line.task, line.node, line.metric, f"{line.value:.1f}", ends,
            f"{line.published:.1f}", word]  # fmt: skip
