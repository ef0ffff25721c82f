"""The command line: parse, call one function, print. A user's mistake is one line and an exit code.

Heavy modules are imported inside the commands that need them: `tasks`, `leaderboard` and `--help`
start without torch.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fsc_bench import __version__, cli_cache, cli_data, cli_training
from fsc_bench.errors import FscBenchError, UsageError


class OneLineErrors(TyperGroup):
    """Prints a user's mistake as one line on stderr; our own faults keep their traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        try:
            code = super().main(*args, standalone_mode=False, **kwargs)
        except FscBenchError as error:
            _complain(str(error))
            sys.exit(error.exit_code)
        except (typer.Abort, KeyboardInterrupt):
            _complain("stopped. The same command continues.")
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(141)
        except Exception as error:
            # typer's usage errors share no public base class; this is what they have in common.
            if not hasattr(error, "format_message"):
                raise
            _complain(error.format_message())
            sys.exit(2)
        sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    print(f"fsc-bench: {' '.join(message.split())}", file=sys.stderr)


app = typer.Typer(
    cls=OneLineErrors,
    help="The honest evaluation of CLIP-style vision-language models.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder; default $FSC_BENCH_DATA or ~/.cache/fsc_bench."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"fsc-bench {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def run(
    models: Annotated[
        list[str] | None, typer.Option("-m", "--model", help="FAMILY:CHECKPOINT; repeat for more.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "-t", "--tasks", help="Names, groups, suites, globs or TOML files. [default: fsc]"
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("-x", "--exclude", help="Tasks to leave out.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="The embedded miniature suite and its models.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where runs go. [default: runs]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only N records a subset; the result is flagged.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be encoded.")
    ] = False,
    data: DataOption = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once. [default: found by trying]")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile the image tower (CUDA; moves bits).")
    ] = False,
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompt set where they differ: elevater, openai, clip_benchmark."),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Score incomplete data; the result is flagged.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Scores models on tasks. The same command again continues; done work is not done twice."""
    from fsc_bench.distributed import is_first
    from fsc_bench.show import Terminal, print_json, results_table
    from fsc_bench.task import data_folder, select

    folder = data_folder(data)
    if demo:
        from fsc_bench.demo.build import build, demo_models

        folder = folder / "demo"
        chosen = select(_words(tasks) or ["demo"], _words(exclude))
        models = models or demo_models()
        out = out or Path("runs/demo")
    else:
        chosen = select(_words(tasks) or ["fsc"], _words(exclude))
        out = out or Path("runs")
    if not chosen:
        raise UsageError(f"--exclude {' '.join(exclude)} leaves no task.")
    if not models and not dry_run:
        raise UsageError(
            "no model. Name one with -m, such as -m open_clip:ViT-B-32-quickgelu/openai, or try "
            "--demo. `fsc-bench models` lists the families."
        )
    from fsc_bench import run as runner

    options = runner.Options(
        data=folder,
        out=out,
        limit=limit,
        prompts=prompts,
        allow_partial=allow_partial,
        precision=precision,
        batch_size=batch_size or 0,
        device=device,
        compile=compile,
    )
    terminal = Terminal()
    try:
        if demo:
            build(folder, terminal.say)
        if dry_run:
            rows, code = runner.dry_run(chosen, options, terminal, models or [])
            terminal.close()
            _show_plan(rows, json)
            raise typer.Exit(code)
        runner.check_writable(out)
        summary = runner.run(models, chosen, options, terminal)
    finally:
        terminal.close()
    if not is_first():  # of several processes one speaks and writes
        raise typer.Exit(summary.exit_code)
    if json:
        print_json(
            {
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
        )
    else:
        title = (
            "fsc_bench demo: a miniature world, not comparable with real benchmarks" if demo else ""
        )
        if summary.results:
            results_table(summary.results, chosen, title)
        fresh = sum(len(results) for results in summary.results.values()) - summary.skipped
        if not fresh and not summary.failures:
            print("Nothing to do: every result was there already.", file=sys.stderr)
    if demo and summary.results:
        files = _write_leaderboards([out], out / "leaderboards")
        print(f"Written: {', '.join(str(file) for file in files)}", file=sys.stderr)
    raise typer.Exit(summary.exit_code)


def _show_plan(rows: list, json: bool) -> None:
    """What a run would encode and fetch; with models, what they have already and the time."""
    from fsc_bench.data.download import readable
    from fsc_bench.show import print_json, print_table, readable_time

    if json:
        print_json([vars(row) for row in rows])
        return
    costed = rows[-1].seconds is not None
    header = ["task", "samples", "images", "unique", "texts", "unique"]
    header += ["cached", "time", "saving"] if costed else []
    header += ["to fetch", "problem"]
    table = []
    for row in rows:
        if row.task == "all":
            table.append([])
        counts = (row.samples, row.image_uses, row.images, row.text_uses, row.texts)
        cells = [row.task, *(f"{count:,}" for count in counts)]
        if costed:
            cells += [
                f"{row.cached_images + row.cached_texts:,}",
                readable_time(row.seconds),
                f"{row.saving:.1f}x" if row.saving else "",
            ]
        fetch = "?" if row.fetch is None else readable(row.fetch) if row.fetch else ""
        table.append([*cells, fetch, row.problem])
    print_table(header, table)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="One task: everything about it.")] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """The catalogue: each benchmark's size, metric, chance level, access and licence."""
    from fsc_bench.show import print_json, print_table
    from fsc_bench.task import catalogue, select

    if name:
        chosen = select([name])
        if len(chosen) == 1:
            _show_task(chosen[0], json)
            return
    else:
        chosen = list(catalogue().values())
    if json:
        print_json([_task_facts(task) for task in chosen])
        return
    rows: list[list[str]] = []
    for task in chosen:
        if rows and rows[-1][1] != f"{task.suite}/{task.group}":
            rows.append([])
        rows.append(
            [
                task.name,
                f"{task.suite}/{task.group}",
                f"{task.n:,}",
                ", ".join(task.headline),
                ", ".join(f"{value:.3g}" for value in task.chance.values()),
                task.data.access,
                task.license or "not stated",
            ]
        )
    header = ["task", "suite/group", "n", "headline", "chance", "access", "licence"]
    print_table(header, rows)


def _task_facts(task: Any) -> dict[str, Any]:
    return {
        "name": task.name,
        "title": task.title,
        "suite": task.suite,
        "group": task.group,
        "kind": task.kind,
        "version": task.version,
        "n": task.n,
        "subsets": task.subsets,
        "within": task.within,
        "headline": task.headline,
        "chance": task.chance,
        "paper": task.paper,
        "license": task.license,
        "access": task.data.access,
        "sources": task.data.sources,
        "instructions": task.data.instructions,
        "classes": len(task.classes),
        "prompts": {name: len(prompts.templates) for name, prompts in task.prompts.items()},
        "reference": task.reference,
    }


def _show_task(task: Any, json: bool) -> None:
    from fsc_bench.show import print_json, print_table
    from fsc_bench.task import walk

    facts = _task_facts(task)
    if json:
        print_json(facts)
        return
    for key in ("title", "paper", "license", "suite", "group", "kind", "version", "n", "access"):
        print(f"{key:<10}{facts[key]}")
    print(f"{'headline':<10}{', '.join(task.headline)}; chance {dict(task.chance)}")
    reference = next(iter(task.reference.items()), None)
    quoted = reference[1].get("subsets", {}) if reference else {}
    rows = []
    for name, node in walk(task.subsets):
        count = f"{node:,}" if isinstance(node, int) else f"mean over {task.within}"
        rows.append([name, count, str(quoted.get(name, ""))])
    print_table(["subset", "n", f"published, {reference[0]}" if reference else ""], rows)
    if reference:
        numbers = [f"{key} {reference[1][key]}" for key in task.headline if key in reference[1]]
        print(f"published {', '.join(numbers)} ({reference[1]['where']})")
    if task.prompts:
        default = next(iter(task.prompts))
        print(f"classes   {len(task.classes)}; prompts {default} (default)")
        for set_name, prompts in task.prompts.items():
            print(
                f"prompts.{set_name}: {len(prompts.templates)} templates: {prompts.templates[0]!r}"
            )
            for old, new in prompts.rename.items():
                print(f"  {old!r} is spelled {new!r}")
    for source in task.data.sources:
        print("source    " + "  ".join(f"{key}={value}" for key, value in source.items()))
    if task.data.instructions:
        print(task.data.instructions.strip())


@app.command()
def models(json: JsonOption = False) -> None:
    """Model families, and how a model of each is written."""
    from fsc_bench.models import describe
    from fsc_bench.show import print_json, print_table

    found = describe()
    if json:
        print_json([{"family": name, "what": what} for name, what in found.items()])
    else:
        print_table(["family", "what it loads"], [list(pair) for pair in found.items()])


@app.command()
def leaderboard(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders. [default: runs]")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where tables go.")] = Path(
        "leaderboards"
    ),
    relative_to: Annotated[
        str | None, typer.Option(help="Print differences to this model instead.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 4 if the tables are stale.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Turns runs into CSV and Markdown tables, one pair a suite."""
    folders = runs or [Path("runs")]
    files = _write_leaderboards(folders, out, check, relative_to, json)
    if not json:
        verb = "Up to date" if check else "Written"
        print(f"{verb}: {', '.join(str(file) for file in files)}", file=sys.stderr)


def _write_leaderboards(
    folders: list[Path],
    out: Path,
    check: bool = False,
    relative_to: str | None = None,
    json: bool = False,
) -> list[Path]:
    from fsc_bench import leaderboard as board
    from fsc_bench.results import read_runs
    from fsc_bench.show import print_json, print_table
    from fsc_bench.task import catalogue

    every = read_runs([Path(folder) for folder in folders])
    files = []
    document = {}
    for suite in sorted({task.suite for task in catalogue().values()}):
        members = [task for task in catalogue().values() if task.suite == suite]
        names = {task.name for task in members}
        found = [run for run in every if names & set(run.results)]
        if not found:
            continue
        files += board.write(out, suite, found, members, check)
        rows = [*board.order([board.measured_row(run, members) for run in found])]
        rows.append(board.chance_row(members))
        if relative_to:
            rows = board.relative(rows, relative_to)
        document[suite] = {
            row.model: {name: vars(cell) for name, cell in row.cells.items()} for row in rows
        }
        if relative_to and not json:
            header = [*board.AVERAGES, *board.columns(members)]
            table = [
                [
                    row.model,
                    *(f"{row.cells[n].value:+.1f}" if n in row.cells else "-" for n in header),
                ]
                for row in rows
            ]
            print_table(["minus " + relative_to, *header], table)
    if json:
        print_json(document)
    return files


def _words(values: list[str] | None) -> list[str]:
    """`-t a -t b,c` as [a, b, c]."""
    return [part for value in values or [] for part in value.split(",") if part]


cli_data.add_commands(app)
cli_training.add_commands(app)
cli_cache.add_commands(app)
