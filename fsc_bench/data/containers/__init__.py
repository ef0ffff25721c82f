"""Containers: files that hold many images. One file a format; nothing is ever unpacked to disk.

A container module has `SUFFIXES` and a class `Container(path)` with

    names() -> Collection[str]                  members, in the file's order
    read(member) -> bytes | numpy.ndarray       encoded bytes, or decoded pixels [height, width(,
    3)]

`read` may be called from many threads at once. It raises KeyError for a member that is not there,
and OSError or ValueError for a damaged file.
"""

import importlib
import os
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def _modules() -> dict[str, ModuleType]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        found.update(dict.fromkeys(loaded.SUFFIXES, loaded))
    return found


def container_module(path: Path | str) -> ModuleType | None:
    """The module that reads files named like `path` (`x.zip`, `x-ubyte.gz`), if any."""
    name = os.path.basename(path)
    if not name.endswith(tuple(_modules())):  # most files, asked about one by one
        return None
    return next(module for suffix, module in _modules().items() if name.endswith(suffix))
