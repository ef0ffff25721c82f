"""Session: what the downloads of one command share, and the markers of what is whole on disk."""

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsc_bench.data.archives import CHUNK
from fsc_bench.data.items import Item
from fsc_bench.errors import DataError
from fsc_bench.system.files import write_json

Progress = Callable[[str, int, int | None], Any]  # (what, bytes so far, bytes in all if known)

SPARE = 100_000_000  # bytes that are left free on the disk


class Stopped(Exception):
    """Another download failed for good, or the user pressed Ctrl-C."""


class Session:
    """What the downloads of one command share: progress, the space they have claimed, the stop."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.claims: dict[Path, int] = {}  # bytes still to come
        self.told: dict[str, float] = {}
        self.unreachable: dict[str, str] = {}  # server -> why; nobody tries it again

    def check(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def claim(self, item: Item, place: Path, size: int) -> None:
        """Sets space aside. Raises DataError where the disk has not got it."""
        with self.lock:
            others = sum(size for path, size in self.claims.items() if path != place)
            check_space(item.owner, place.parent, size + others)
            self.claims[place] = size

    def tell(self, item: Item, name: str, place: Path, done: int, total: int | None) -> None:
        """Reports progress, at most ten times a second a file, from one thread at a time."""
        key = f"{item.owner}/{name}"
        with self.lock:
            if place in self.claims and total is not None:
                self.claims[place] = max(0, total - done)
            now = time.monotonic()
            if done == total or now - self.told.get(key, 0.0) > 0.1:
                self.told[key] = now
                self.progress(key, done, total)

    def release(self, place: Path) -> None:
        with self.lock:
            self.claims.pop(place, None)


def check_space(what: str, folder: Path, size: int) -> None:
    """Raises DataError, one line, where `size` bytes would fill the disk."""
    folder = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise DataError(
            f"{what}: {readable(size)} more are needed in {folder}, and {readable(free)} are free "
            f"there. Make room, or choose another disk with --data."
        )


def readable(size: int) -> str:
    """815585330 as 815.6 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


# ---------------------------------------------------------------- the finished-marker


def finished(item: Item) -> dict[str, Any] | None:
    """The marker of an item that is whole on disk: the same version, every file of its size."""
    marker = read_marker(item)
    if marker is None:
        return None
    if not same_version(item, marker):
        return None
    for name, (size, _) in marker["files"].items():
        try:
            if (item.folder / name).stat().st_size != size:
                return None
        except OSError:
            return None
    return marker


def same_version(item: Item, marker: dict[str, Any]) -> bool:
    """Whether a marker is of the version that the item names: by its pin, else by its address."""
    if item.sha256 and not marker["unchecked"]:
        return marker["sha256"] == item.sha256
    if item.hf:
        return _same_commit(item, marker["url"])
    return marker["url"] == item.address


def _same_commit(item: Item, address: str) -> bool:
    """Whether a marker's address is of this repository, these files and this commit. Where the item
    names no commit, the one that came first stays; older versions wrote the beginning of one.
    """
    head, _, rest = address.partition("@")
    commit, _, files = rest.partition("/")
    same = head == f"hf://datasets/{item.hf}" and files == ",".join(item.files)
    whole = len(commit) == 40
    return same and (whole if not item.revision else item.revision.startswith(commit or "-"))


def known_commit(item: Item) -> str:
    """The commit that was taken when an item without one was first fetched; empty before that."""
    try:
        known = json.loads(item.hidden("commit.json").read_text())
        commit = str(known["commit"]) if known["hf"] == item.hf else ""
    except (OSError, ValueError, TypeError, KeyError):
        commit = (read_marker(item) or {}).get("commit", "")
    return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else ""


def remember_commit(item: Item) -> None:
    """Writes down which commit an item is fetched at, before its first file comes."""
    write_json(item.hidden("commit.json"), {"hf": item.hf, "commit": item.revision})


def read_marker(item: Item) -> dict[str, Any] | None:
    """The marker as it lies there, or None for none or a damaged one."""
    try:
        marker = json.loads(item.hidden("done.json").read_text())
        _ = [(str(name), int(size), str(sha)) for name, (size, sha) in marker["files"].items()]
        empty = {"url": "", "sha256": "", "bytes": 0, "note": "", "differs": "", "unchecked": False}
        return {**empty, "commit": "", "resolved": False, **marker}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def finish(
    item: Item, names: list[str], served: tuple[str, int] | None, note: str = "", **more: Any
) -> dict[str, Any]:
    """Writes the marker of files below the item's folder. `served`: what came, sha256 and size."""
    files = {}
    for name in names:
        path = item.folder / name
        files[name] = (path.stat().st_size, sha256_of(path))
    if served is None:
        one = next(iter(files.values())) if len(files) == 1 else None
        served = (one[1], one[0]) if one else ("", sum(size for size, _ in files.values()))
    marker = {
        "url": item.address,
        "sha256": served[0],
        "bytes": served[1],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "note": note,
        "differs": item.differs,
        "commit": item.revision,
        "resolved": item.resolved,
        "unchecked": False,
        **more,
    }
    write_json(item.hidden("done.json"), marker)
    item.hidden("part.json").unlink(missing_ok=True)
    return marker


def sha256_of(path: Path, step: Callable[[], None] = lambda: None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            step()
            digest.update(chunk)
    return digest.hexdigest()
