"""The `data` commands: what is on disk, fetching it, saying where it already is. No torch."""

from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import BudgetOption, DataOption, JsonOption, LockedOption
from fsc_bench.cli.show import say, tell
from fsc_bench.errors import DataError, FscBenchError

data_app = typer.Typer(help="Raw data: what is there, where to get it, where you have it.")

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAMES]", help="Tasks, groups, suites, pictures; else the default suite."
    ),
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
    from fsc_bench.data.get import USABLE, status
    from fsc_bench.data.offers import about
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
                "" if row.state in USABLE else about(row.download_known, row.download is None),
            ]
            for row in rows
        ],
        f"Data in {data_folder(data)}",
    )
    usable = [row.kind for row in rows if row.state in USABLE]
    kinds = [("task", "tasks"), ("images", "image sources")]
    counts = [(usable.count(kind), sum(row.kind == kind for row in rows), n) for kind, n in kinds]
    said = " and ".join(f"{there} of {all_} {n}" for there, all_, n in counts if all_)
    more = ""
    if len(usable) < len(rows):
        more = " `fsc-bench data get --dry-run` says what would come, and what needs a person."
    say(f"\nThere: {said}.{more}")


@data_app.command("get")
def data_get(
    words: Words = None,
    data: DataOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing, only say.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would come, how much and from where.")
    ] = False,
    locked: LockedOption = None,
    budget: BudgetOption = None,
) -> None:
    """Fetches what is missing: resumed, checked, pinned. Gated sources say what to do."""
    from fsc_bench.cli.show import Terminal
    from fsc_bench.data.get import get
    from fsc_bench.data.lock import read_lock
    from fsc_bench.data.sources import choose
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    if dry_run:
        _show_coming(tasks, images, data_folder(data))
        return
    lock = read_lock(locked) if locked else None
    terminal = Terminal()
    try:
        outcomes = get(
            tasks,
            data_folder(data),
            progress=lambda what, done, total: terminal.progress(what, done, total or done),
            offline=offline,
            images=images,
            lock=lock,
        )
    finally:
        terminal.close()
    for outcome in outcomes:
        if outcome.message:
            tell(outcome.message)
        if outcome.ok:
            say(f"{outcome.name}: {outcome.state}, {outcome.path}")
    raise typer.Exit(0 if all(outcome.ok for outcome in outcomes) else DataError.exit_code)


def _show_coming(tasks: list, images: list[str], folder: Path) -> None:
    """One screen: what is not there yet, then a line for each that needs a person."""
    from fsc_bench.cli.show import print_table
    from fsc_bench.data.offers import about, coming

    rows = coming(tasks, folder, images)
    if not rows:
        say(f"Nothing would come: all that was named is in {folder}.")
        return
    print_table(
        ["name", "what", "state", "about", "from"],
        [
            [row.name, row.kind, row.state, about(row.known, row.bytes is None), row.what]
            for row in rows
        ],
        f"Would come into {folder}",
    )
    unknown = sum(row.bytes is None for row in rows)
    more = f"; of {unknown} the size is not or only partly known" if unknown else ""
    total = about(sum(row.known for row in rows), unknown > 0)
    say(f"\nIn all {total}{more}. Nothing was fetched.")
    for state, what in (("gated", "need an account"), ("manual", "need a person")):
        names = dict.fromkeys(row.name for row in rows if row.todo and row.state == state)
        if names:
            say(f"{len(names)} {what}: {', '.join(names)}. `fsc-bench data sources NAME` says how.")


@data_app.command("sources")
def data_sources(words: Words = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Where each task's data come from: version, size, licence, and what differs. --json has every
    file's whole address and version.
    """
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.data.offers import lines, offers
    from fsc_bench.data.sources import choose, sources
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    rows = offers(tasks, data_folder(data), images or ([] if words else list(sources())))
    if json:
        print_json(
            [
                {**vars(row), "bytes": row.bytes, "places": list(map(vars, row.places))}
                for row in rows
            ]
        )
        return
    table = []
    for row in rows:
        for line in lines(row):
            place = line.places[0]
            where = "instead: " * place.instead + line.where
            how = "pinned" if place.pinned else "resolved"
            version = [how, line.version, line.about]
            table.append(
                [row.name, row.kind, row.access, where, *version, row.license, place.differs]
            )
        if not row.places:
            where = ", ".join(row.needs) if row.needs else "by hand"
            table.append([row.name, row.kind, row.access, where, "", "", "", row.license, ""])
    header = ["name", "what", "access", "from", "version", "", "about", "licence", "differs"]
    print_table(header, table)
    for row in rows if words else []:
        if row.todo:
            say(f"\n{row.name} ({row.access}):\n{row.todo}")


@data_app.command("lock")
def data_lock(
    file: Annotated[Path, typer.Argument(help="What to write: TOML, or JSON where it ends so.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]", help="Tasks, image sources. [default: all there is]"),
    ] = None,
    data: DataOption = None,
) -> None:
    """Writes the version of all that was fetched, for `data get --locked FILE` elsewhere."""
    from fsc_bench.data.lock import write_lock
    from fsc_bench.data.sources import choose, sources
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words or ["all"]))
    written, outside = write_lock(file, tasks, data_folder(data), images or sources())
    owners = {source.owner for source in written.sources}
    say(
        f"Written: {file}: {len(written.sources)} sources of {len(owners)} tasks and image sources."
    )
    if outside:
        tell(f"Not in it, since a lock holds what `data get` fetched: {', '.join(outside)}.")


@data_app.command("verify")
def data_verify(words: Words = None, data: DataOption = None, budget: BudgetOption = None) -> None:
    """Reads again what is on disk and holds it against its pins, its records and its evidence."""
    from fsc_bench.data.get import status, verify
    from fsc_bench.data.link import recheck
    from fsc_bench.data.prepare import prepared_path
    from fsc_bench.data.sources import choose
    from fsc_bench.task import data_folder

    tasks, images = choose(_names(words))
    folder = data_folder(data)
    rows = status(tasks, folder, images=images)
    prepared = {task.name for task in tasks if prepared_path(task, folder).exists()}
    # Of what is linked the size is not known; what was never fetched has none.
    there = [row for row in rows if row.state != "missing" and (row.bytes is None or row.bytes)]
    names = list(dict.fromkeys([*(row.name for row in there), *sorted(prepared)]))
    if not names:
        tell(
            f"fsc-bench: nothing to verify: none of the {len(rows)} named is in {folder}. "
            "`fsc-bench data get NAME` fetches it, `fsc-bench data link NAME PATH` finds yours."
        )
        raise typer.Exit(DataError.exit_code)
    problems = verify(tasks, folder, images=images)
    shared = [row.name for row in there if row.kind == "images"]
    problems += recheck(tasks, shared, folder)
    for problem in problems:
        tell(f"fsc-bench: {problem}")
    if not problems:
        absent = len({row.name for row in rows} - set(names))
        rest = f"; not there: {absent}" if absent else ""
        say(f"No problem found. Verified: {', '.join(names)}{rest}.")
    raise typer.Exit(DataError.exit_code if problems else 0)


@data_app.command("link")
def data_link(name: str, path: Path, data: DataOption = None, budget: BudgetOption = None) -> None:
    """Says where something already is: NAME is an image source (coco/val2017), a task (mnist) or
    the TOML file of one of your own.
    """
    from fsc_bench.data.link import link
    from fsc_bench.task import data_folder

    tell(link(name, path, data_folder(data)))


@data_app.command("prepare")
def data_prepare(
    words: Words = None,
    data: DataOption = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial")] = False,
    locked: LockedOption = None,
    budget: BudgetOption = None,
) -> None:
    """Reads and checks raw files now instead of at the first run."""
    from fsc_bench.data.lock import check_held, read_lock
    from fsc_bench.data.prepare import prepare
    from fsc_bench.task import data_folder, select

    code = 0
    lock = read_lock(locked) if locked else None
    for task in select(_names(words)):
        try:
            if lock:
                check_held(task, data_folder(data), lock)
            done = prepare(task, data_folder(data), partial=allow_partial or task.data.decays)
        except FscBenchError as error:
            tell(f"fsc-bench: {error}")
            code = max(code, error.exit_code)
            continue
        say(f"{task.name}: {len(done.records):,} records  {done.partial}".rstrip())
    raise typer.Exit(code)


def _names(words: list[str] | None) -> list[str]:
    """`a b,c` as [a, b, c]; the paper's suite when nothing is said."""
    from fsc_bench.task import default_suite

    return [part for value in words or [default_suite()] for part in value.split(",") if part]
