"""Containers: files that hold many images. One file a format; nothing is ever unpacked to disk.

A container module has `SUFFIXES` (of names, in any case), or `NAMES` where only files called so are
meant, and a class `Container(path)` with

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
def _modules() -> tuple[dict[str, ModuleType], dict[str, ModuleType], tuple[str, ...]]:
    """(module by ending, module by whole name, all endings)"""
    endings: dict[str, ModuleType] = {}
    names: dict[str, ModuleType] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        endings.update(dict.fromkeys(getattr(loaded, "SUFFIXES", ()), loaded))
        names.update(dict.fromkeys(getattr(loaded, "NAMES", ()), loaded))
    return endings, names, tuple(endings)


def container_module(path: Path | str) -> ModuleType | None:
    """The module that reads files named like `path` (`x.zip`, `x-ubyte.gz`), if any."""
    endings, names, all_endings = _modules()
    name = os.path.basename(path).casefold()
    if not name.endswith(all_endings):  # most files, asked about one by one
        return names.get(name)
    return next(module for suffix, module in endings.items() if name.endswith(suffix))
