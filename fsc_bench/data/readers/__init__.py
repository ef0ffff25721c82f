"""Readers: one file a raw format, and the file's name is the word that a task's `reader` says.

A reader is a module with

    def read(task: Task, raw: Raw) -> Iterator[Record]

and, where a reader has settings, `OPTIONS`, a dict from option to default value. It yields records
in the raw file's order, keeps texts as they are, and reports damage through `raw.fail(file, record,
why)`. It never opens an image: it says where one is. Other packages add readers with the
entry-point group `fsc_bench.readers`, each naming such a module.
"""

import ast
import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.escape import shortened
from fsc_bench.system.plugins import Plugin, usable


def names() -> list[str]:
    """The readers, by name: ours and those of other packages."""
    return sorted([*_ours(), *_added()])


def _ours() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _added() -> dict[str, Plugin]:
    return usable("fsc_bench.readers", _ours)


def docstring(name: str) -> str:
    """What a reader's module says of itself, found without importing it."""
    added = _added()
    module = added[name].point.module if name in added else f"{__name__}.{name}"
    try:
        spec = find_spec(module)
        source = spec.loader.get_source(spec.name) if spec and spec.loader else ""
        return ast.get_docstring(ast.parse(source or "")) or ""
    except (ImportError, SyntaxError, ValueError):  # of another package: told when it is used
        return ""


def load_reader(name: str, where: str) -> ModuleType:
    """The reader module called `name`. Raises UsageError with the near miss."""
    known = names()
    if name not in known:
        hint = near_miss(name, known) or f" There are: {', '.join(known)}."
        raise UsageError(
            f"{where}: no reader called {shortened(name)}.{hint} `fsc-bench readers` says what "
            "each reads."
        )
    plugin = _added().get(name)
    if plugin is None:
        return importlib.import_module(f"{__name__}.{name}")
    reader = plugin.load()
    if not callable(getattr(reader, "read", None)):
        raise UsageError(
            f"{plugin.who}: a {type(reader).__name__} without `read(task, raw)`; name a module "
            "that has it."
        )
    return reader
