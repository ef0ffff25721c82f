"""`fsc-bench run`: scores models on tasks."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fsc_bench.cli.options import (
    BatchSizeOption,
    BudgetOption,
    CompileOption,
    DataOption,
    DemoOption,
    DeviceOption,
    DryRunOption,
    ExactOption,
    ExcludeOption,
    JsonOption,
    LimitOption,
    LockedOption,
    ModelsOption,
    PartialOption,
    PrecisionOption,
    PromptsOption,
    QuietOption,
    RunsOption,
    TasksOption,
    WatchOption,
    split_words,
)
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    from fsc_bench.run.job import Options, Summary
    from fsc_bench.task import Task

NAMED = 4  # run folders; more of them are counted


@dataclass(frozen=True)
class Shown:
    """How results are shown. apart: the suite of the tasks, where it stands apart, else empty;
    quiet: nothing but results.
    """

    apart: str
    json: bool
    quiet: bool


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(run)


def run(
    models: ModelsOption = None,
    tasks: TasksOption = None,
    exclude: ExcludeOption = None,
    demo: DemoOption = False,
    out: RunsOption = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    data: DataOption = None,
    precision: PrecisionOption = "fp32",
    batch_size: BatchSizeOption = None,
    device: DeviceOption = "auto",
    compile: CompileOption = False,
    exact: ExactOption = None,
    prompts: PromptsOption = None,
    quiet: QuietOption = False,
    allow_partial: PartialOption = False,
    locked: LockedOption = None,
    budget: BudgetOption = None,
    watch: WatchOption = None,
    json: JsonOption = False,
) -> None:
    """Scores models on tasks. The same command again continues; done work is not done twice.

    On SIGUSR1 it finishes the task in hand, writes it and exits with 75: a batch job can requeue.
    """
    from fsc_bench.cli.model_lists import expanded
    from fsc_bench.demo import SUITE
    from fsc_bench.suite import place_of
    from fsc_bench.task import data_folder, default_suite, select

    models = expanded(models or [])
    suite = SUITE if demo else default_suite()
    chosen = select(split_words(tasks) or [suite], split_words(exclude))
    if not chosen:
        raise UsageError(f"--exclude {' '.join(exclude)} leaves no task.")
    if not (models or dry_run or demo):
        raise UsageError(
            "no model. Name one with -m, such as -m open_clip:ViT-B-32-quickgelu/openai, or try "
            "--demo. `fsc-bench models` lists the families."
        )
    from fsc_bench.data.lock import read_lock
    from fsc_bench.run.job import Options

    place = place_of(chosen) or (SUITE if demo else "")
    options = Options(
        data=data_folder(data) / place,
        out=out or Path("runs") / place,
        limit=limit,
        prompts=prompts,
        allow_partial=allow_partial,
        precision=precision,
        batch_size=batch_size or 0,
        device=device,
        compile=compile,
        exact=exact,
        lock=read_lock(locked) if locked else None,
    )
    shown = Shown(place, json, quiet)
    if watch is not None:
        _watch(watch, models, chosen, options, shown, dry_run)
    raise typer.Exit(_carry_out(models, chosen, options, dry_run, shown))


def _watch(
    folder: Path,
    models: list[str],
    tasks: list["Task"],
    options: "Options",
    shown: Shown,
    dry_run: bool,
) -> None:
    """Scores a folder's checkpoints as they appear; only a signal ends it."""
    from fsc_bench.cli import watching
    from fsc_bench.cli.show import tell
    from fsc_bench.errors import FscBenchError
    from fsc_bench.system.stopping import LEFT

    if dry_run or shown.json:
        raise UsageError("--watch goes with neither --dry-run nor --json: it never ends by itself.")
    of = watching.named(models, folder)

    def score(model: str) -> int:
        try:
            code = _carry_out([model], tasks, options, False, shown)
        except FscBenchError as error:
            tell(str(error))
            return error.exit_code
        if code == LEFT:  # which was told
            raise typer.Exit(code)
        return code

    watching.watch(folder, of, score, tell)


def _carry_out(
    models: list[str],
    tasks: list["Task"],
    options: "Options",
    dry_run: bool,
    shown: Shown,
) -> int:
    """Scores, or with `dry_run` only counts, and shows it. Returns the exit code."""
    from fsc_bench.cli.show import Terminal
    from fsc_bench.run import suite as runner
    from fsc_bench.run.dry_run import dry_run as plan_run
    from fsc_bench.system.distributed import is_first

    runner.check_options(tasks, options)
    terminal = Terminal(shown.quiet)
    try:
        if any(task.drawn for task in tasks):
            from fsc_bench.demo.build import build, demo_models

            build(options.data, terminal.say, suites={task.suite for task in tasks})
            models = models or demo_models()
        if dry_run:
            rows, code = plan_run(tasks, options, terminal, models)
            terminal.close()
            _show_plan(rows, shown.json)
            return code
        runner.check_writable(options.out)
        summary = runner.run(models, tasks, options, terminal)
    finally:
        terminal.close()
    if is_first():  # of several processes one speaks and writes
        _show_results(summary, tasks, options, shown)
    return summary.exit_code


def _show_results(
    summary: "Summary", tasks: list["Task"], options: "Options", shown: Shown
) -> None:
    """The table or the JSON document, and one line on what was written."""
    from fsc_bench.cli.scores import results_table
    from fsc_bench.cli.show import print_json, tell
    from fsc_bench.results import draws_of

    results = {model: found for model, found in summary.results.items() if found}
    if shown.json:
        print_json(_document(summary))
    elif results:
        draws = {
            model: draws_of(summary.folders[model], found, tell, options.variant)
            for model, found in results.items()
        }
        results_table(results, tasks, _title(shown.apart), draws)
    written = [str(path) for path in _written(summary)]
    if len(written) > NAMED:
        written = [f"{len(written)} run folders in {options.out}"]
    if shown.apart and results:
        from fsc_bench.cli.report import write_leaderboards

        written += [
            str(file) for file in write_leaderboards([options.out], options.out / "leaderboards")
        ]
    fresh = sum(len(found) for found in results.values()) - summary.skipped
    if summary.left:
        tell("fsc-bench: left, as SIGUSR1 asked. The same command continues.")
    if shown.quiet:
        return
    if not (fresh or summary.failures or summary.left):
        print("Nothing to do: every result was there already.", file=sys.stderr)
    if written:
        print(f"Written: {', '.join(written)}", file=sys.stderr)
    if results:
        tell(f"Next: {_next([str(summary.folders[model]) for model in results], options.out)}")


def _title(suite: str) -> str:
    """What stands above the numbers of a suite that stands apart: why."""
    from fsc_bench.suite import suite_of

    return f"fsc_bench {suite}: {suite_of(suite).apart}" if suite else ""


def _next(folders: list[str], out: Path) -> str:
    """What to do with the results: compare two models, or make a table of all."""
    compare = f"fsc-bench compare {folders[0]} {folders[1]}, " if len(folders) > 1 else ""
    return f"{compare}fsc-bench leaderboard {out}"


def _written(summary: "Summary") -> list[Path]:
    """The run folders that this command wrote to."""
    return list(dict.fromkeys(summary.folders[model] for model in summary.written))


def _document(summary: "Summary") -> dict:
    return {
        "runs": {model: str(path) for model, path in summary.folders.items()},
        "results": {
            model: {name: vars(result) for name, result in results.items()}
            for model, results in summary.results.items()
        },
        "failures": [
            {"model": model, "task": task, "error": str(error), "code": error.exit_code}
            for model, task, error in summary.failures
        ],
    }


def _show_plan(rows: list, json: bool) -> None:
    """What a run would encode and fetch; with models, what they have already and the time."""
    from fsc_bench.cli.show import print_json, print_table, readable_time
    from fsc_bench.data.session import readable

    if json:
        print_json([vars(row) for row in rows])
        return
    costed = rows[-1].seconds is not None
    header = ["task", "samples", "images", "unique", "texts", "unique"]
    paired = rows[-1].pairs is not None
    header += ["pairs", "scored"] if paired else []
    header += ["cached", "time", "saving"] if costed else []
    header += ["to fetch", "problem"]
    table = []
    for row in rows:
        if row.task == "all":
            table.append([])
        counts = (row.samples, row.image_uses, row.images, row.text_uses, row.texts)
        cells = [row.task, *(f"{count:,}" for count in counts)]
        if paired:
            cells += [f"{row.pairs or 0:,}", f"{row.cached_pairs or 0:,}"]
        if costed:
            cells += [
                f"{(row.cached_images or 0) + (row.cached_texts or 0):,}",
                readable_time(row.seconds or 0.0),
                f"{row.saving:.1f}x" if row.saving else "",
            ]
        fetch = "?" if row.fetch is None else readable(row.fetch) if row.fetch else ""
        table.append([*cells, fetch, row.problem])
    print_table(header, table)
