"""Zip archives, read member by member.

What archives.py refuses (links, `..`) and junk are no members.
"""

import threading
from collections.abc import Collection
from pathlib import Path

from fsc_bench.data.archives import DAMAGE, is_folder, open_zip, zip_refusal
from fsc_bench.data.border import CHUNK, check_growth, reason
from fsc_bench.data.names import is_junk, zip_name

SUFFIXES = (".zip",)


class Container:
    """A zip file, kept open. A name that occurs twice means the last one, as when unpacking."""

    def __init__(self, path: Path):
        try:
            self.archive = open_zip(path)
            self.members = {
                zip_name(info): info
                for info in self.archive.infolist()
                if not is_folder(info) and not zip_refusal(info) and not is_junk(zip_name(info))
            }
        except DAMAGE as error:
            raise ValueError(reason(error)) from None
        self.lock = threading.Lock()

    def names(self) -> Collection[str]:
        return self.members.keys()

    def read(self, member: str) -> bytes:
        info = self.members[member]
        check_growth(info.file_size, info.compress_size)
        try:
            with self.lock, self.archive.open(info) as file:
                # In pieces: read whole, one that says that it is small unpacks to all that it is.
                return b"".join(iter(lambda: file.read(CHUNK), b""))
        except DAMAGE as error:
            raise ValueError(reason(error)) from None
