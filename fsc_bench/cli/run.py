"""`fsc-bench run`: scores models on tasks."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import DataOption, JsonOption, split_words
from fsc_bench.errors import UsageError


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(run)


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
    from fsc_bench.cli.show import Terminal, print_json, results_table
    from fsc_bench.system.distributed import is_first
    from fsc_bench.task import data_folder, select

    folder = data_folder(data)
    if demo:
        from fsc_bench.demo.build import build, demo_models

        folder = folder / "demo"
        chosen = select(split_words(tasks) or ["demo"], split_words(exclude))
        models = models or demo_models()
        out = out or Path("runs/demo")
    else:
        chosen = select(split_words(tasks) or ["fsc"], split_words(exclude))
        out = out or Path("runs")
    if not chosen:
        raise UsageError(f"--exclude {' '.join(exclude)} leaves no task.")
    if not models and not dry_run:
        raise UsageError(
            "no model. Name one with -m, such as -m open_clip:ViT-B-32-quickgelu/openai, or try "
            "--demo. `fsc-bench models` lists the families."
        )
    from fsc_bench.run import suite as runner
    from fsc_bench.run.dry_run import dry_run as plan_run

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
            rows, code = plan_run(chosen, options, terminal, models or [])
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
        from fsc_bench.cli.report import write_leaderboards

        files = write_leaderboards([out], out / "leaderboards")
        print(f"Written: {', '.join(str(file) for file in files)}", file=sys.stderr)
    raise typer.Exit(summary.exit_code)


def _show_plan(rows: list, json: bool) -> None:
    """What a run would encode and fetch; with models, what they have already and the time."""
    from fsc_bench.cli.show import print_json, print_table, readable_time
    from fsc_bench.data.session import readable

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
