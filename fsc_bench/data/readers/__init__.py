"""Readers: one file a raw format, and the file's name is the word that a task's `reader` says.

A reader is a module with

    def read(task: Task, raw: Raw) -> Iterator[Record]

and, where a reader has settings, `OPTIONS`, a dict from option to default value. It yields records
in the raw file's order, keeps texts as they are, and reports damage through `raw.fail(file, record,
why)`. It never opens an image: it says where one is.
"""

import importlib
import pkgutil
from types import ModuleType

from fsc_bench.errors import UsageError, near_miss


def load_reader(name: str, where: str) -> ModuleType:
    """The reader module called `name`. Raises UsageError with the near miss."""
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        hint = near_miss(name, known) or f" There are: {', '.join(known)}."
        raise UsageError(f"{where}: no reader called {name!r}.{hint}")
    return importlib.import_module(f"{__name__}.{name}")
