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
LFS = b"version https://git-lfs.github.com/spec/"
WEB_PAGE = (b"<!doctype html", b"<html")
HEAD = 64  # bytes that tell a stand-in from a file


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


def stand_in(head: bytes) -> str:
    """What came in a file's place, by its first bytes, in words; empty for others.

    A clone without Git LFS leaves pointers, and a server may answer with a page.
    """
    if head.startswith(LFS):
        return "a Git LFS pointer, not the file; `git lfs pull` in its repository fetches it"
    if head.lstrip().lower().startswith(WEB_PAGE):
        return "a web page, not the file: the download gave another answer; fetch it again"
    return ""


def stands_in(path: Path | str) -> str:
    """The same of a file on disk; empty where it cannot be opened."""
    try:
        with open_regular(path) as file:
            return stand_in(file.read(HEAD))
    except (OSError, Irregular):
        return ""


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
