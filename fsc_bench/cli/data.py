"""The `data` commands: what is on disk, fetching it, saying where it already is. No torch."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import DataOption, JsonOption
from fsc_bench.errors import DataError, FscBenchError

data_app = typer.Typer(help="Raw data: what is there, where to get it, where you have it.")

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAMES]", help="Tasks, groups, suites, image sources. [default: fsc]"),
]


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.add_typer(data_app, name="data")


@data_app.command("status")
def data_status(
    words: Words = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """What is there, linked, partial, missing or gated, its size, and what to do next."""
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.data.get import status
    from fsc_bench.data.session import readable
    from fsc_bench.data.sources import choose
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    rows = status(tasks, data_folder(data), images=images)
    if json:
        print_json([vars(row) for row in rows])
        return
    print_table(
        ["name", "what", "state", "next", "on disk", "to fetch"],
        [
            [
                row.name,
                row.kind,
                row.state,
                row.next,
                "" if row.bytes is None else readable(row.bytes),
                "" if row.download is None else readable(row.download),
            ]
            for row in rows
        ],
        f"Data in {data_folder(data)}",
    )


@data_app.command("get")
def data_get(
    words: Words = None,
    data: DataOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing, only say.")] = False,
) -> None:
    """Fetches what is missing: resumed, checked, pinned. Gated sources say what to do."""
    from fsc_bench.cli.show import Terminal
    from fsc_bench.data.get import get
    from fsc_bench.data.sources import choose
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    terminal = Terminal()
    try:
        outcomes = get(
            tasks,
            data_folder(data),
            progress=lambda what, done, total: terminal.progress(what, done, total or done),
            offline=offline,
            images=images,
        )
    finally:
        terminal.close()
    for outcome in outcomes:
        if outcome.message:
            print(outcome.message, file=sys.stderr)
        if outcome.ok:
            print(f"{outcome.name}: {outcome.state}, {outcome.path}")
    raise typer.Exit(0 if all(outcome.ok for outcome in outcomes) else DataError.exit_code)


@data_app.command("verify")
def data_verify(words: Words = None, data: DataOption = None) -> None:
    """Reads again what is on disk and holds it against its pins and records."""
    from fsc_bench.data.get import verify
    from fsc_bench.data.sources import choose
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    problems = verify(tasks, data_folder(data), images=images)
    for problem in problems:
        print(f"fsc-bench: {problem}", file=sys.stderr)
    if not problems:
        print("No problem found.")
    raise typer.Exit(DataError.exit_code if problems else 0)


@data_app.command("link")
def data_link(name: str, path: Path, data: DataOption = None) -> None:
    """Says where something already is: NAME is an image source (coco/val2017) or a task (mnist)."""
    from fsc_bench.data.archives import check_link
    from fsc_bench.data.images import write_link
    from fsc_bench.data.sources import check_name
    from fsc_bench.task import data_folder

    name = check_name(name)
    if path.expanduser().is_file():
        check_link(path.expanduser())
    write_link(data_folder(data), name, path)
    print(f"{name} -> {path.expanduser().resolve()}", file=sys.stderr)


@data_app.command("prepare")
def data_prepare(
    words: Words = None,
    data: DataOption = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial")] = False,
) -> None:
    """Reads and checks raw files now instead of at the first run."""
    from fsc_bench.data.prepare import prepare
    from fsc_bench.task import data_folder, select

    code = 0
    for task in select(_names(words)):
        try:
            done = prepare(task, data_folder(data), partial=allow_partial or task.data.decays)
        except FscBenchError as error:
            print(f"fsc-bench: {error}", file=sys.stderr)
            code = max(code, error.exit_code)
            continue
        print(f"{task.name}: {len(done.records):,} records  {done.partial}".rstrip())
    raise typer.Exit(code)


def _names(words: list[str] | None) -> list[str]:
    """`a b,c` as [a, b, c]; the paper's suite when nothing is said."""
    return [part for value in words or ["fsc"] for part in value.split(",") if part]
