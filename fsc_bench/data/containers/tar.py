"""Tar archives, indexed once, then read in place.

What archives.py refuses (links) and junk are no members.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fsc_bench.data.archives import DAMAGE, open_tar, tar_refusal
from fsc_bench.data.border import reason
from fsc_bench.data.names import is_junk, plain_path
from fsc_bench.system.budget import check
from fsc_bench.system.regular import open_regular

SUFFIXES = (".tar",)
BLOCK = 512


@dataclass(frozen=True)
class Index:
    """Where the members of a tar lie, from its headers alone.

    A name that occurs twice means the last one, as when unpacking; `repeated` is the first such.
    refused: members that archives.py does not trust, each with the reason. flaw: empty for an
    archive that has its end mark and nothing behind it, else what is odd: such a one reads, but
    nothing proves that it is whole.
    """

    offsets: dict[str, tuple[int, int]]  # name -> (offset, size in bytes), in the file's order
    repeated: str = ""
    refused: tuple[str, ...] = ()
    flaw: str = ""


def read_index(path: Path) -> Index:
    """The index of an uncompressed tar. Raises ValueError for one that is damaged, else OSError."""
    offsets: dict[str, tuple[int, int]] = {}
    repeated, refused = "", []
    try:
        with open_regular(path) as file, open_tar(file) as archive:
            for count, info in enumerate(archive, 1):
                check("members", count, f"has {count:,} members or more")
                if why := tar_refusal(info):
                    refused.append(f"{info.name!r} {why}")
                elif info.isreg() and not is_junk(name := plain_path(info.name)):
                    repeated = repeated or (name if name in offsets else "")
                    offsets[name] = (info.offset_data, info.size)
                archive.members = []  # tarfile keeps them all, and large tars have a million
            return Index(offsets, repeated, tuple(refused), _flaw_of_end(file, archive.offset))
    except DAMAGE as error:
        raise ValueError(reason(error)) from None


def _flaw_of_end(file: BinaryIO, end: int) -> str:
    """A whole tar ends with blocks of zeros: one that was cut between two members has none."""
    file.seek(end)
    mark = file.read(BLOCK)
    if len(mark) < BLOCK or any(mark):
        return "ends without the mark of a whole archive"
    while rest := file.read(1 << 20):
        if any(rest):
            return "holds more behind its end mark, such as a second archive"
    return ""


class Container:
    """An uncompressed tar."""

    def __init__(self, path: Path):
        self.offsets = read_index(path).offsets
        self.file = os.open(path, os.O_RDONLY)

    def names(self) -> Collection[str]:
        return self.offsets.keys()

    def read(self, member: str) -> bytes:
        offset, size = self.offsets[member]
        check("bytes", size, f"has {size:,} bytes")
        data = os.pread(self.file, size, offset)  # pread: no shared position between threads
        if len(data) != size:
            raise ValueError("the archive is cut short")
        return data

    def __del__(self):
        if hasattr(self, "file"):
            os.close(self.file)
