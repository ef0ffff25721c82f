"""Tar archives, indexed once, then read in place.

What archives.py refuses (links) and junk are no members.
"""

import os
import tarfile
from collections.abc import Collection
from pathlib import Path

from fsc_bench.data.archives import DAMAGE, tar_refusal
from fsc_bench.data.names import is_junk, plain_path

SUFFIXES = (".tar",)


class Container:
    """An uncompressed tar. A name that occurs twice means the last one, as when unpacking."""

    def __init__(self, path: Path):
        self.offsets: dict[str, tuple[int, int]] = {}
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    name = plain_path(info.name)
                    if info.isreg() and not tar_refusal(info) and not is_junk(name):
                        self.offsets[name] = (info.offset_data, info.size)
                    archive.members = []  # tarfile keeps them all, and large tars have a million
        except DAMAGE as error:
            raise ValueError(str(error)) from None
        self.file = os.open(path, os.O_RDONLY)

    def names(self) -> Collection[str]:
        return self.offsets.keys()

    def read(self, member: str) -> bytes:
        offset, size = self.offsets[member]
        data = os.pread(self.file, size, offset)  # pread: no shared position between threads
        if len(data) != size:
            raise ValueError("the archive is cut short")
        return data

    def __del__(self):
        if hasattr(self, "file"):
            os.close(self.file)
