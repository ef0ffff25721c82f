"""Zip archives, read member by member."""

import threading
import zipfile
from collections.abc import Collection
from pathlib import Path

SUFFIXES = (".zip",)


class Container:
    """A zip file, kept open. Encrypted members raise RuntimeError, turned into ValueError."""

    def __init__(self, path: Path):
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(str(error)) from None
        self.members = {
            info.filename: info for info in self.archive.infolist() if not info.is_dir()
        }
        self.lock = threading.Lock()

    def names(self) -> Collection[str]:
        return self.members.keys()

    def read(self, member: str) -> bytes:
        info = self.members[member]
        try:
            with self.lock:
                return self.archive.read(info)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise ValueError(str(error)) from None
