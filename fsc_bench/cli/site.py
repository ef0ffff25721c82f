"""`fsc-bench leaderboard --html`: run folders to one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsc_bench.errors import FscBenchError

if TYPE_CHECKING:
    from fsc_bench.report.leaderboard import Row
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.results import Run

MARGIN = 0.5  # as `compare` has it


def write_site(path: Path, folders: Sequence[Path], only: Sequence[str] = ()) -> Path:
    """Writes the page of every suite that the runs have results of. only: as `leaderboard -t` names
    suites. Returns the file.
    """
    from fsc_bench.cli.report import tables_of
    from fsc_bench.report.leaderboard import published_rows
    from fsc_bench.report.ranking import measured_rows
    from fsc_bench.report.site import Board, site
    from fsc_bench.results import draws_of, read_runs
    from fsc_bench.suite import suite_of
    from fsc_bench.system.files import write_text

    def told_before(line: str) -> None:
        """What cannot be read was told when the tables were made of the same folders."""

    every = read_runs(list(folders), told_before)
    draws = {run.path: draws_of(run.path, run.results, told_before) for run in every}
    boards = []
    for suite, tasks in tables_of(every, only).items():
        names = {task.name for task in tasks}
        runs = {run.path: run for run in every if names & set(run.results)}
        if not runs:
            continue
        rows = measured_rows(list(runs.values()), tasks, draws)
        quoted = published_rows(tasks, complain=told_before) if suite_of(suite).published else []
        found = comparisons(rows, tasks, runs)
        boards.append(Board(suite, tasks, rows, quoted, runs, found))
    write_text(path, site(boards))
    return path


def comparisons(
    rows: Sequence["Row"], tasks: Sequence["TaskFacts"], runs: Mapping[Path, "Run"]
) -> dict[Path, Mapping[str, Any]]:
    """Every model against its base, where both were run, by the model's run folder. A pair that
    cannot be compared has a line on standard error.
    """
    from fsc_bench.cli.compare import document
    from fsc_bench.cli.show import tell
    from fsc_bench.report.site import FLIPS

    folders = {row.model: row.path for row in rows}
    pairs = [(row, folders[row.base]) for row in rows if row.base in folders]
    found = {}
    for row, folder in pairs:
        if row.path == folder or row.path is None:
            continue
        from fsc_bench.score.compare import compare  # which imports torch

        only = [task.name for task in tasks]
        try:
            compared = compare(runs[folder], runs[row.path], FLIPS, only, table=tasks[0].table)
        except FscBenchError as error:
            tell(f"fsc-bench: {row.model} is not compared with its base {row.base}: {error}")
            continue
        found[row.path] = document(compared, MARGIN)
    return found
