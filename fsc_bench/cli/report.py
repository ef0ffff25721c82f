"""`fsc-bench leaderboard`: runs to tables."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import JsonOption
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    from fsc_bench.results import Run


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
    """Writes the tables of every suite that the runs have results of. Returns the files.

    Raises UsageError where there is nothing to make a table of.
    """
    from fsc_bench.cli.show import print_json
    from fsc_bench.report import leaderboard as board
    from fsc_bench.report.suites import strangers, suites
    from fsc_bench.results import read_runs
    from fsc_bench.task import catalogue

    left_out: list[str] = []
    every = read_runs([Path(folder) for folder in folders], left_out.append)
    for line in left_out:
        print(f"fsc-bench: left out: {line}", file=sys.stderr)
    tables = suites(every, catalogue().values())
    for line in strangers(every, tables):
        print(f"fsc-bench: {line}", file=sys.stderr)
    draws = {run.path: _draws(run) for run in every}
    files = []
    document = {}
    for suite, members in tables.items():
        names = {task.name for task in members}
        found = [run for run in every if names & set(run.results)]
        if not found:
            continue
        rows = board.measured_rows(found, members, draws)
        files += board.write(out, suite, rows, members, check)
        rows = [*rows, board.chance_row(members)]
        if relative_to:
            rows = board.relative(rows, relative_to)
        document[suite] = {
            row.model: {name: vars(cell) for name, cell in row.cells.items()}
            | ({"rank": row.rank, "tied": row.tied} if row.rank else {})
            for row in rows
        }
        if relative_to and not json:
            _print_differences(rows, members, relative_to)
    if not files:
        words = " ".join(str(folder) for folder in folders)
        raise UsageError(
            f"{words}: {len(every)} runs, none with a finished task of a suite: there is nothing "
            "to make a table of. `fsc-bench run` with the same -o continues them."
        )
    if json:
        print_json(document)
    return files


def _draws(run: "Run") -> dict[str, dict[str, Any]]:
    """The draws of a run's headlines, by task and metric, from its samples files. Where they cannot
    be had one line says so: averages then take the tasks as independent.
    """
    from fsc_bench.results import RunDirectory, read_draws

    directory, found = RunDirectory.at(run.path), {}
    for task in run.results:
        try:
            found[task] = read_draws(directory.samples_file(task))
        except UsageError as error:
            print(f"fsc-bench: {error}", file=sys.stderr)
    return found


def _print_differences(rows: list, members: list, base: str) -> None:
    """One line a model and column: a table as wide as the suite fits no terminal."""
    from fsc_bench.cli.show import print_table
    from fsc_bench.report import leaderboard as board

    names = [*board.AVERAGES, *board.columns(members)]
    table: list[list[str]] = []
    for row in rows:
        if row.model == base:
            continue
        for name in names:
            if name in row.cells:
                cell = row.cells[name]
                ends = "" if cell.low is None else f"[{cell.low:+.1f}, {cell.high:+.1f}]"
                table.append([row.model, name, f"{cell.value:+.1f}", ends])
        table.append([])
    print_table(["model", "", f"minus {base}", "95% interval"], table[:-1])
