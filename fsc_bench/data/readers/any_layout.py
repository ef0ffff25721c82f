"""Whatever layout labelled images lie in: asks each reader that can tell, and lets that one read.

A reader takes part by having `detect(raw) -> bool` and `LAYOUT`, what it reads in words; a new
format is one more file. `GENERAL` says that any data set may come so; any other is told as a layout
to try only for tasks that name it in their options. `begins_with(raw)` may name the files that it
begins with: one of those inside an archive is a hint to unpack it. A reader that says `LAST` reads
only what no other knows: many formats keep their images in class folders too. Where nothing is
recognised, `hint(raw) -> str` may say what is nearly a reader's layout. Options: a table (or a list
of tables, tried in turn) for each reader that needs to be told something, under its name.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from types import ModuleType
from typing import NoReturn

from fsc_bench.data import readers
from fsc_bench.data.containers import container_module
from fsc_bench.data.evidence import labels_fit
from fsc_bench.data.listing import COMPRESSED_TARS, describe, entries, files_below, inside, unread
from fsc_bench.data.raw import Raw
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.records import Record
from fsc_bench.task import Task, is_shipped


def _layouts() -> dict[str, ModuleType]:
    """Every reader that can tell whether a folder is its own."""
    found = {}
    for module in pkgutil.iter_modules(readers.__path__):
        if module.name != "any_layout":
            loaded = importlib.import_module(f"{readers.__name__}.{module.name}")
            if hasattr(loaded, "detect"):
                found[module.name] = loaded
    return found


OPTIONS = {name: {} for name in _layouts()}
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test/cat/0.png test/dog/1.png   or tars, Parquet, CSV ... : what it is, is found out
title    = "Mine"
suite    = "mine"
group    = "classification"
kind     = "classification"
version  = 1
headline = ["accuracy"]
chance   = 50.0
[subsets]
test = 2
[classes]
names = ["cat", "dog"]
[prompts.plain]
templates = ["a photo of a {}."]
[data]
reader = "any_layout"
"""


def read(task: Task, raw: Raw) -> Iterator[Record]:
    if not raw.folder.exists():
        raw.find("raw data")
    matching = {}
    for name, reader in _layouts().items():
        for options in _settings(task, name, reader):
            view = _view(task, raw, name, options)
            if name not in matching and reader.detect(view):
                matching[name] = view
    if len(matching) > 1:
        matching = _without_last(matching)
    if not matching:
        _nothing(task, raw)
    if len(matching) > 1:  # a folder with several data sets in it: the labels may tell which
        matching = _fitting(task, matching) or matching
    if len(matching) > 1:
        kinds = " and ".join(_layouts()[name].LAYOUT for name in matching)
        raw.fail(raw.folder, None, f"holds {kinds}; link the one to be read.")
    ((name, view),) = matching.items()
    yield from _layouts()[name].read(view.task, view)


def _without_last(matching: dict[str, Raw]) -> dict[str, Raw]:
    """Without the readers of what no other knows. But a list gives way where its pictures lie in
    class folders: Kaggle's ImageNet, sorted, still has its list.
    """
    last = {name for name in matching if getattr(_layouts()[name], "LAST", False)}
    others = {name: view for name, view in matching.items() if name not in last}
    for name in last if len(others) == 1 else ():
        (other,) = others.items()
        if _lies_sorted(*other, name, matching[name]):
            return {name: matching[name]}
    return others


def _lies_sorted(name: str, view: Raw, last: str, sorted_view: Raw) -> bool:
    """Whether a list's first picture is not where the list says, but in a class folder."""
    with suppress(DataError):
        first = next(iter(_layouts()[name].read(view.task, view)), None)
        if first is None or view.has(first.images[0].path.partition("::")[0]):
            return False
        rows = _layouts()[last].read(sorted_view.task, sorted_view)
        wanted = PurePosixPath(first.images[0].path).name
        return any(PurePosixPath(row.images[0].path).name == wanted for row in rows)
    return False


def _fitting(task: Task, matching: dict[str, Raw]) -> dict[str, Raw]:
    """Of the layouts, those whose labels can be the task's."""
    fits = {}
    for name, view in matching.items():
        with suppress(DataError):
            rows = list(_layouts()[name].read(view.task, view))
            if len(rows) == task.n and labels_fit(task, [row.labels[0] for row in rows]):
                fits[name] = view
    return fits


def _nothing(task: Task, raw: Raw) -> NoReturn:
    """Refuses a folder that no reader knows: what is there, what is nearest, what could be."""
    if any(entry.name.startswith("datasets--") for entry in entries(raw.folder)):
        raw.fail(
            raw.folder, None, f"is the Hub's cache, with {describe(raw.folder)}; link one of these."
        )
    hints = list(_once_unpacked(task, raw)) or [
        reader.hint(_view(task, raw, name, _settings(task, name, reader)[0]))
        for name, reader in _layouts().items()
        if hasattr(reader, "hint")
    ]
    hints.append(unread(raw.folder, but=COMPRESSED_TARS).strip())  # of those the tars' reader tells
    nearest = " ".join(filter(None, hints))
    layouts = "; ".join(_expected(task, raw))
    holds = f"holds {describe(raw.folder)}" if raw.folder.is_dir() else "is a file of no known kind"
    nearest = f"Nearest: {nearest} " if nearest else ""
    raw.fail(
        raw.folder,
        None,
        f"nothing here looks like a layout that can be read: it {holds}. {nearest}"
        f"Expected is one of: {layouts}.",
    )


def _expected(task: Task, raw: Raw) -> Iterator[str]:
    """The layouts that this task's data may have: those that anything comes in, and its own.

    Of one's own task, all of them.
    """
    for name, reader in _layouts().items():
        general = getattr(reader, "GENERAL", False) or not is_shipped(task)
        if not general and name not in task.data.options:
            continue
        names = [
            file
            for options in _settings(task, name, reader)
            for file in getattr(reader, "begins_with", lambda raw: [])(
                _view(task, raw, name, options)
            )
        ]
        shown = f" ({', '.join(names)})" if names and "(" not in reader.LAYOUT else ""
        yield f"{reader.LAYOUT}{shown}"


def _once_unpacked(task: Task, raw: Raw) -> Iterator[str]:
    """What could be read if an archive were unpacked: lists in archives are not looked into."""
    begin = {
        name.casefold()
        for module, reader in _layouts().items()
        if hasattr(reader, "begins_with")
        for options in _settings(task, module, reader)
        for name in reader.begins_with(_view(task, raw, module, options))
    }
    for archive in files_below(raw.folder, (".zip", ".tar")):
        with suppress(OSError, ValueError):
            names = container_module(archive).Container(archive).names()
            for name in names:
                path = f"/{name}".casefold()
                if any(path.endswith(f"/{one}") for one in begin):
                    place = archive.name if archive == raw.folder else inside(raw, archive)
                    tool = "unzip" if archive.suffix.casefold() == ".zip" else "tar -xf"
                    yield (
                        f"{place} holds {name!r:.100}, which is read once it is unpacked "
                        f"(`{tool} {place}`); then link the folder that comes of it."
                    )
                    break


def _settings(task: Task, name: str, reader: ModuleType) -> list[dict]:
    tables = task.data.options.get(name, {})
    tables = tables if isinstance(tables, list) else [tables]
    known = getattr(reader, "OPTIONS", {})
    for table in tables:
        for key in table:
            if key not in known:
                hint = near_miss(key, known)
                raise UsageError(f"{task.path}: the reader {name!r} has no option {key!r}.{hint}")
    return tables


def _view(task: Task, raw: Raw, name: str, options: dict) -> Raw:
    """The same raw folder for one reader with its own options; it notes its inputs for all."""
    data = replace(task.data, reader=name, options=options)
    view = Raw(replace(task, data=data), raw.folder, raw.exists)
    view.inputs, view.notes, view.skipped = raw.inputs, raw.notes, raw.skipped
    view.listings = raw.listings
    return view
