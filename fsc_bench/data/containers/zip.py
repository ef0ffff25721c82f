"""Zip archives, read member by member.

What archives.py refuses (links, `..`) and junk are no members.
"""

import threading
import zipfile
from collections.abc import Collection
from pathlib import Path

from fsc_bench.data.archives import DAMAGE, zip_refusal
from fsc_bench.data.names import is_junk, zip_name

SUFFIXES = (".zip",)
LARGEST = 1 << 30  # bytes of one member; no image comes near it, a bomb does


class Container:
    """A zip file, kept open. A name that occurs twice means the last one, as when unpacking."""

    def __init__(self, path: Path):
        try:
            self.archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise ValueError(str(error)) from None
        self.members = {
            zip_name(info): info
            for info in self.archive.infolist()
            if not info.is_dir() and not zip_refusal(info) and not is_junk(zip_name(info))
        }
        self.lock = threading.Lock()

    def names(self) -> Collection[str]:
        return self.members.keys()

    def read(self, member: str) -> bytes:
        info = self.members[member]
        if info.file_size > LARGEST:
            raise ValueError(f"{member} says that it unpacks to {info.file_size:,} bytes")
        try:
            with self.lock:
                return self.archive.read(info)
        except DAMAGE as error:
            raise ValueError(str(error)) from None
