"""Whatever layout labelled images lie in: asks each reader that can tell, and lets that one read.

A reader takes part by having `detect(raw) -> bool`; a new format is one more file. One that says
`LAST` reads only what no other knows: many formats keep their images in class folders too. Options:
a table (or a list of tables, tried in turn) for each reader that needs to be told something, under
its name.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import ModuleType

from fsc_bench.data import readers
from fsc_bench.data.evidence import labels_fit
from fsc_bench.data.raw import Raw
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.records import Record
from fsc_bench.task import Task


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
        last = [name for name in matching if getattr(_layouts()[name], "LAST", False)]
        matching = {name: view for name, view in matching.items() if name not in last}
    if not matching:
        raw.fail(
            raw.folder,
            None,
            f"nothing here looks like a layout that can be read ({', '.join(_layouts())}).",
        )
    if len(matching) > 1:  # a folder with several data sets in it: the labels may tell which
        matching = _fitting(task, matching) or matching
    if len(matching) > 1:
        raw.fail(raw.folder, None, f"looks like {' and '.join(matching)}; link the one to be read.")
    ((name, view),) = matching.items()
    yield from _layouts()[name].read(view.task, view)


def _fitting(task: Task, matching: dict[str, Raw]) -> dict[str, Raw]:
    """Of the layouts, those whose labels can be the task's."""
    fits = {}
    for name, view in matching.items():
        with suppress(DataError):
            rows = list(_layouts()[name].read(view.task, view))
            if len(rows) == task.n and labels_fit(task, [row.labels[0] for row in rows]):
                fits[name] = view
    return fits


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
    view = Raw(replace(task, data=data), raw.folder)
    view.inputs = raw.inputs
    return view
