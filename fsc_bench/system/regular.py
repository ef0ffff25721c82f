"""Regular files: only these are read. A pipe would be waited for, and a device has no end."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from fsc_bench.system.budget import check

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Irregular(ValueError):
    """A pipe, a device or a folder stands where a file should; the text says which."""


def closed(folder: Path | str) -> str:
    """Why a folder that is there cannot be read, as the end of a sentence; empty where it can."""
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        return "cannot be read: permission denied"
    return ""


def check_regular(path: Path | str) -> None:
    """Raises Irregular for what is no file: a pipe would be waited for, a device has no end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise Irregular(f"is {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file")


def open_regular(path: Path | str) -> BinaryIO:
    """A regular file, open for reading. Raises OSError and Irregular; never waits for a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise Irregular(f"is {KINDS.get(stat.S_IFMT(mode), 'no file')}, not a file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: Path | str) -> bytes:
    """The content of a regular file. Raises OSError, Irregular and OverBudget."""
    with open_regular(path) as file:
        check("bytes", size := os.fstat(file.fileno()).st_size, f"has {size:,} bytes")
        return file.read()
