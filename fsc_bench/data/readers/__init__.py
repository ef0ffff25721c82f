"""Readers: one file a raw format, and the file's name is the word that a task's `reader` says.

A reader is a module with

    def read(task: Task, raw: Raw) -> Iterator[Record]

and, where a reader has settings, `OPTIONS`, a dict from option to default value. It yields records
in the raw file's order, keeps texts as they are, and reports damage through `raw.fail(file, record,
why)`. It never opens an image: it says where one is.
"""

import ast
import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.escape import shortened


def names() -> list[str]:
    """The readers, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def docstring(name: str) -> str:
    """What a reader's module says of itself, found without importing it."""
    spec = find_spec(f"{__name__}.{name}")
    source = spec.loader.get_source(spec.name) if spec and spec.loader else ""
    return ast.get_docstring(ast.parse(source or "")) or ""


def load_reader(name: str, where: str) -> ModuleType:
    """The reader module called `name`. Raises UsageError with the near miss."""
    known = names()
    if name not in known:
        hint = near_miss(name, known) or f" There are: {', '.join(known)}."
        raise UsageError(
            f"{where}: no reader called {shortened(name)}.{hint} `fsc-bench readers` says what "
            "each reads."
        )
    return importlib.import_module(f"{__name__}.{name}")
