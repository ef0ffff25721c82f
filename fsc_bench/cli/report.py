"""`fsc-bench leaderboard`: runs to tables."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsc_bench.cli.options import JsonOption, split_words
from fsc_bench.errors import RunError, UsageError

if TYPE_CHECKING:
    from fsc_bench.report.leaderboard import Row
    from fsc_bench.report.suites import TaskFacts
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
    blindness: Annotated[
        bool,
        typer.Option("--blindness", help="Also print what each model scores without its pictures."),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            help="Write the pages of this folder instead, from its published/ and measured/.",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 4 if the tables are stale.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 where a file had to be left out.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page: one file, with every model's own page.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("-t", "--tasks", help="Only this suite: its name, or its TOML file."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turns runs into CSV and Markdown tables, one pair a suite."""
    folders = runs or [Path("runs")]
    left_out: list[str] = []
    if html:
        from fsc_bench.report.site import check_needs

        check_needs()
    if folder is not None:
        if runs or relative_to or blindness or json:
            raise UsageError(
                f"--folder {folder}: its pages are of its own measured/ and published/; run "
                "folders, --relative-to, --blindness and --json go without it."
            )
        files = write_pages(folder, check, left_out)
    else:
        files = write_leaderboards(
            folders, out, check, relative_to, json, left_out, blindness, split_words(tasks)
        )
    if html and not check:
        from fsc_bench.cli.site import write_site

        files.append(write_site(html, folders, split_words(tasks)))
    if not json:
        verb = "Up to date" if check else "Written"
        print(f"{verb}: {', '.join(str(file) for file in files)}", file=sys.stderr)
    if left_out and strict:
        raise RunError(f"{len(left_out):,} files were left out; without --strict that is allowed.")
    if left_out:
        print(f"fsc-bench: {len(left_out):,} left out; see above.", file=sys.stderr)


def write_pages(folder: Path, check: bool = False, left_out: list[str] | None = None) -> list[Path]:
    """Writes the pages of a folder of leaderboards (report/folder.py). Returns the files. left_out:
    as for `write_leaderboards`. Raises UsageError where the folder has no published/.
    """
    from fsc_bench.report.folder import write_folder
    from fsc_bench.report.seen import read_seen
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.results import RunDirectory, draws_of, read_runs
    from fsc_bench.task import catalogue, default_suite

    gathered = [] if left_out is None else left_out

    def told(line: str) -> None:
        gathered.append(line)
        print(f"fsc-bench: left out: {line}", file=sys.stderr)

    if not (folder / "published").is_dir():
        raise UsageError(f"{folder}: has no folder published/: it is no folder of leaderboards.")
    measured = folder / "measured"
    runs = read_runs([measured], told) if measured.is_dir() and any(measured.iterdir()) else []
    suites: dict[str, list[TaskFacts]] = {}
    for task in catalogue().values():
        suites.setdefault(task.suite, []).append(TaskFacts.of(task))
    draws = {}
    for run in runs:  # what is kept here may be without its samples: then without draws too
        kept = [
            task for task in run.results if RunDirectory.at(run.path).samples_file(task).exists()
        ]
        draws[run.path] = draws_of(run.path, kept, told)
    fsc = [task for task in catalogue().values() if task.suite == default_suite()]
    seen = read_seen(folder / "images.toml", fsc)
    return write_folder(folder, runs, suites, draws, check, told, seen)


def write_leaderboards(
    folders: list[Path],
    out: Path,
    check: bool = False,
    relative_to: str | None = None,
    json: bool = False,
    left_out: list[str] | None = None,
    blindness: bool = False,
    only: Sequence[str] = (),
) -> list[Path]:
    """Writes the tables of every suite that the runs have results of. Returns the files. left_out:
    gathers what could not be read, in one line each, which are also told.

    Raises UsageError where there is nothing to make a table of.
    """
    from fsc_bench.cli.show import print_json
    from fsc_bench.report.leaderboard import blind_row, chance_row
    from fsc_bench.report.ranking import measured_rows, relative
    from fsc_bench.report.suites import strangers
    from fsc_bench.report.tables import write
    from fsc_bench.results import draws_of, read_runs

    gathered = [] if left_out is None else left_out

    def told(line: str) -> None:
        gathered.append(line)
        print(f"fsc-bench: left out: {line}", file=sys.stderr)

    every = read_runs([Path(folder) for folder in folders], told)
    tables = tables_of(every, only)
    for line in [] if only else strangers(every, tables):
        print(f"fsc-bench: {line}", file=sys.stderr)
    draws = {run.path: draws_of(run.path, run.results, told) for run in every}
    files = []
    document = {}
    for suite, members in tables.items():
        names = {task.name for task in members}
        found = [run for run in every if names & set(run.results)]
        if not found:
            continue
        rows = measured_rows(found, members, draws)
        files += write(out, suite, rows, members, check, told)
        files += [] if check else _drawn(out, suite, rows, members)
        rows = [*rows, chance_row(members), blind_row(members)]
        if relative_to:
            rows = relative(rows, relative_to)
        document[suite] = {
            row.model: {name: vars(cell) for name, cell in row.cells.items()}
            | ({"rank": row.rank, "tied": row.tied} if row.rank else {})
            for row in rows
        }
        if relative_to and not json:
            _print_differences(rows, members, relative_to)
        if blindness and not json:
            _print_blindness(found, members)
    if not files:
        words = " ".join(str(folder) for folder in folders)
        raise UsageError(
            f"{words}: {len(every)} runs, none with a finished task of a suite: there is nothing "
            "to make a table of. `fsc-bench run` with the same -o continues them."
        )
    if json:
        print_json(document)
    return files


def tables_of(runs: Sequence["Run"], only: Sequence[str] = ()) -> dict[str, list["TaskFacts"]]:
    """The tasks of each table by suite: of every suite that the runs have results of, or of those
    asked for, by name or file. Raises UsageError with the near miss.
    """
    from fsc_bench.errors import near_miss
    from fsc_bench.report.suites import TaskFacts, suites
    from fsc_bench.suite import read_suite, suite_called
    from fsc_bench.task import catalogue, is_suite

    tables = suites(runs, catalogue().values())
    if not only:
        return tables
    found = {}
    for word in map(suite_called, only):
        if word.endswith(".toml"):
            if Path(word).is_file() and not is_suite(Path(word)):
                raise UsageError(
                    f"-t {word}: no suite's file (it has no 'tasks'); a table is of a suite: name "
                    f"a file with `tasks = [...]`, or one of {', '.join(tables)}."
                )
            suite = read_suite(Path(word))
            found[suite.name] = [TaskFacts.of(task, suite) for task in suite.tasks]
        elif word in tables:
            found[word] = tables[word]
        else:
            hint = near_miss(word, tables)
            raise UsageError(
                f"no run has a result of a suite {word!r}.{hint} There are: {', '.join(tables)}; "
                "one of your own is named by its .toml file."
            )
    return found


def _drawn(out: Path, suite: str, rows: list["Row"], members: list["TaskFacts"]) -> list[Path]:
    """The pictures of a suite; a line where the extra that draws is not installed."""
    from fsc_bench.cli.show import tell
    from fsc_bench.report.leaderboard import blind_row, chance_row, present
    from fsc_bench.report.pictures import write_tradeoffs

    shown = [*rows, chance_row(members), blind_row(members)]
    try:
        return write_tradeoffs(out, suite, shown, present(members))
    except UsageError as error:
        tell(f"No picture is drawn: {error}")
        return []


def _print_blindness(runs: list["Run"], members: list["TaskFacts"]) -> None:
    """What each model scores with the mean of all pictures, and with pictures shuffled."""
    from fsc_bench.cli.show import print_table

    rows: list[list[str]] = []
    for run in runs:
        for task in members:
            result = run.results.get(task.name)
            if result is None or not result.blindness:
                continue
            for metric in task.headline:
                cell = result.metrics.get("headline", {}).get(metric)
                shown = [
                    found.get(metric)
                    for found in map(result.blindness.get, ("mean_image", "shuffled_images"))
                    if found is not None
                ]
                values = ["-" if value is None else f"{value:.1f}" for value in shown]
                rows.append([run.name, task.name, metric, str(cell or "-"), *values,
                             f"{task.chance[metric]:.1f}"])  # fmt: skip
    header = ["model", "task", "metric", "score", "mean image", "shuffled", "chance"]
    print_table(header, rows, "What a model scores without its pictures")


def _print_differences(rows: list, members: list, base: str) -> None:
    """One line a model and column: a table as wide as the suite fits no terminal."""
    from fsc_bench.cli.show import print_table
    from fsc_bench.report import leaderboard as board

    names = [*board.present(members), *board.columns(members)]
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
