"""`fsc-bench leaderboard`: runs to tables."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import JsonOption


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(leaderboard)


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
    files = write_leaderboards(folders, out, check, relative_to, json)
    if not json:
        verb = "Up to date" if check else "Written"
        print(f"{verb}: {', '.join(str(file) for file in files)}", file=sys.stderr)


def write_leaderboards(
    folders: list[Path],
    out: Path,
    check: bool = False,
    relative_to: str | None = None,
    json: bool = False,
) -> list[Path]:
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.report import leaderboard as board
    from fsc_bench.results import read_runs
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
