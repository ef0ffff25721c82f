"""Folders: what lies below a raw folder, remembered so that an added file is seen.

No file is read.

A folder's own stamp changes when an entry comes or goes, so one look at each folder is enough: a
million files cost as much as the folders that they lie in. Where a stamp differs, the names in the
folder decide.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from fsc_bench.data.names import is_junk
from fsc_bench.system.files import stamp

MOST = 50_000  # folders; of a larger tree the upper ones are watched
Listing = dict[str, list[str]]  # folder below the root -> [its stamp, digest of its names]


def remember(root: Path) -> Listing:
    """The listing of `root` and of all folders below; of a file, that of the folder it lies in."""
    listing: Listing = {}
    waiting = [""]
    seen: set[tuple[int, int]] = set()  # a link may lead to a folder above
    for below in waiting:
        folder = _base(root) / below
        try:
            stat = folder.stat()
            known = stamp(folder)
            names = _names(folder)
        except OSError:
            continue  # gone or not for us: readers meet the same
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        listing[below] = [known, _digest(names)]
        if root.is_dir() and len(waiting) < MOST:
            waiting += [os.path.join(below, name[:-1]) for name in names if name.endswith("/")]
    return listing


def unchanged(root: Path, listing: Listing) -> bool:
    """Whether the folders hold the same names as when they were remembered."""
    for below, (known, names) in listing.items():
        folder = _base(root) / below
        try:
            same = known and stamp(folder) == known
            if not same and _digest(_names(folder)) != names:
                return False
        except OSError:
            return False
    return bool(listing)


def _base(root: Path) -> Path:
    return root.parent if root.is_file() else root


def _names(folder: Path) -> list[str]:
    """Entries in name order, folders with a `/` behind; hidden ones and junk are no data."""
    found = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if not entry.name.startswith(".") and not is_junk(entry.name):
                with suppress(OSError):  # a link that leads to itself is neither file nor folder
                    found.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    return sorted(found)


def _digest(names: list[str]) -> str:
    content = "\0".join(names).encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()[:16]
