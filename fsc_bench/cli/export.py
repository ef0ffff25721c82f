"""`fsc-bench export` and `import`: runs in the formats of others, and theirs as rows."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.errors import UsageError, near_miss


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command("export")(export_run)
    app.command("import")(import_rows)


def export_run(
    run: Annotated[str, typer.Argument(help="A run folder, or a model with a run.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--format", help="card, eee, bibtex, latex, clip_benchmark. [default: all]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Where files go. [default: RUN/export]")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are looked for.")] = Path("runs"),
) -> None:
    """Writes a run as model card, Every Eval Ever JSON, BibTeX, LaTeX and CLIP_benchmark's CSV."""
    from fsc_bench.cli.compare import find_run
    from fsc_bench.cli.options import split_words
    from fsc_bench.report.export import FORMATS
    from fsc_bench.system.files import write_text

    wanted = split_words(formats) or list(FORMATS)
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(
                f"--format {name!r}: choose of {', '.join(FORMATS)}.{near_miss(name, FORMATS)}"
            )
    found = find_run(run, runs)
    folder = out or found.path / "export"
    texts = {folder / file: make(found) for file, make in (FORMATS[name] for name in wanted)}
    for path, text in texts.items():
        write_text(path, text)
        print(path)


def import_rows(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CLIP_benchmark's .json or .csv, or a .csv as in leaderboards/published."
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The CSV to write, in a folder's published/.")
    ],
) -> None:
    """Makes rows of CLIP_benchmark's results and of published tables: quoted, never measured."""
    from fsc_bench.report.imported import import_files
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.system.files import write_text
    from fsc_bench.task import catalogue, default_suite

    if out.suffix != ".csv":
        raise UsageError(f"-o {out}: tables are read from .csv files.")
    tasks = [TaskFacts.of(task) for task in catalogue().values() if task.suite == default_suite()]
    write_text(out, import_files(files, tasks))
    print(f"{out}: quoted rows; `fsc-bench leaderboard --folder` shows them.", file=sys.stderr)
