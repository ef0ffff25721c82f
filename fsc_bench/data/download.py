"""Download: items to disk, from URLs and from the Hugging Face Hub; resumed, checked, atomic.

    x.zip.part             what has come so far; the next try goes on from there
    .x.zip.part.json       whose bytes these are (URL, ETag), so that two versions never mix
    x.zip                  whole: checked and synced before it gets this name
    .x.zip.done.json       written last: url, sha256, bytes, time, and the files it stands for

pooch 1.9.0 was looked at for the URLs: it starts over when interrupted, so HTTP is done here.
"""

import errno
import hashlib
import http.client
import io
import json
import os
import random
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fsc_bench import __version__
from fsc_bench.data.archives import (
    CHUNK,
    COMPRESSED,
    PLAIN,
    check_archive,
    decompress,
    is_archive,
    unpack,
)
from fsc_bench.data.items import Item
from fsc_bench.errors import DataError
from fsc_bench.system.files import sync_folder, write_json

Progress = Callable[[str, int, int | None], Any]  # (what, bytes so far, bytes in all if known)

TIMEOUT = 30.0  # seconds without a byte
RETRIES = 6  # in a row without a new byte
RETRIES_UNREACHABLE = 2  # where no connection comes about: mostly there is no network
PAUSE = 1.0  # seconds before the first retry; doubles each time
LONGEST_PAUSE = 60.0
SPARE = 100_000_000  # bytes that are left free on the disk
PASSING = (408, 425, 429, 500, 502, 503, 504)
WEB_PAGE = (b"<!doctype html", b"<html")


class Stopped(Exception):
    """Another download failed for good, or the user pressed Ctrl-C."""


class _Again(Exception):
    """Worth another try, after so many seconds if the server says so."""

    def __init__(self, why: str, after: float | None = None, unreachable: bool = False):
        super().__init__(why)
        self.after = after
        self.retries = RETRIES_UNREACHABLE if unreachable else RETRIES
        self.unreachable = unreachable


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
    return marker["url"] == item.address


def read_marker(item: Item) -> dict[str, Any] | None:
    """The marker as it lies there, or None for none or a damaged one."""
    try:
        marker = json.loads(item.hidden("done.json").read_text())
        _ = [(str(name), int(size), str(sha)) for name, (size, sha) in marker["files"].items()]
        empty = {"url": "", "sha256": "", "bytes": 0, "note": "", "differs": "", "unchecked": False}
        return {**empty, **marker}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _finish(
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


# ---------------------------------------------------------------- one item


def fetch(item: Item, session: Session) -> dict[str, Any]:
    """Brings one item onto disk, unless it is there. Returns its marker.

    Raises DataError, one line, for what the user can mend; a good `.part` stays for the next time.
    """
    try:
        item.folder.mkdir(parents=True, exist_ok=True)
        with _locked(item, session):
            marker = finished(item)
            if marker is None:
                _check_revision(item)
                try:
                    marker = _fetch_url(item, session) if item.url else _fetch_hub(item, session)
                finally:
                    session.release(item.part)
            return marker
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{item.owner}: the disk of {item.folder} is full. Make room; the same command "
                "goes on."
            ) from None
        where = error.filename or item.folder
        raise DataError(f"{item.owner}: {where}: {error.strerror or error}.") from None


@contextmanager
def _locked(item: Item, session: Session) -> Iterator[None]:
    """Only one process fetches an item; the others wait and then find it finished."""
    lock = FileLock(item.hidden("lock"))
    while True:
        session.check()
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            continue
    try:
        yield
    finally:
        lock.release()


def _fetch_url(item: Item, session: Session) -> dict[str, Any]:
    if not item.unpack and item.path.exists() and read_marker(item) is None:
        return _adopt(item)
    resumed = item.part.exists()
    size, sha = _receive(item, session)
    if item.sha256 and sha != item.sha256 and resumed:
        # What lay there may have been of another version: once more from the start.
        _discard(item)
        size, sha = _receive(item, session)
    if item.sha256 and sha != item.sha256:
        _discard(item)
        raise DataError(
            f"{item.owner}: {item.url} has sha256 {sha}, not the pinned {item.sha256}: it was "
            "damaged or replaced. It was not kept."
        )
    note = _doubt(item, size)
    names = _put_in_place(item, session)
    return _finish(item, names, (sha, size), note)


def _adopt(item: Item) -> dict[str, Any]:
    """A file without a marker: the user's, or the last step of a download was cut off."""
    unchecked = item.served.endswith(COMPRESSED)  # a pin is of what was served, before unpacking
    if item.sha256 and not unchecked:
        sha = sha256_of(item.path)
        if sha != item.sha256:
            raise DataError(
                f"{item.owner}: {item.path} has sha256 {sha}, not the pinned {item.sha256}. Move "
                "it away to download the right one."
            )
    if is_archive(item.path.name):
        check_archive(item.path)
    return _finish(item, [item.path.name], None, found=True, unchecked=unchecked)


def _doubt(item: Item, size: int) -> str:
    """What looks odd but may be right: an unpinned file of another size than announced."""
    if item.sha256 or not item.bytes or abs(size - item.bytes) <= 0.05 * item.bytes:
        return ""
    return f"{item.served} has {size:,} bytes; about {item.bytes:,} were expected"


def _put_in_place(item: Item, session: Session) -> list[str]:
    """From a whole `.part` to the files that are used: names below the item's folder."""
    with item.part.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith(WEB_PAGE) and not item.served.endswith((".html", ".htm")):
        _discard(item)
        raise DataError(
            f"{item.owner}: {item.url} sent a web page instead of {item.served}: a dead link, a "
            "login or a used-up quota."
        )
    whole, name = item.part, item.served
    try:
        if name.endswith(COMPRESSED):
            session.claim(item, item.part, 2 * whole.stat().st_size)
            whole = item.folder / f"{name}.tar.part"
            name = f"{name}.tar"
            decompress(item.part, whole)
        if name.endswith(PLAIN):
            check_archive(whole, name)
    except DataError as error:
        _discard(item)
        whole.unlink(missing_ok=True)
        raise DataError(f"{item.owner}: {item.url}: {error} It was not kept.") from None
    if item.unpack:
        names = [str(path) for path in unpack(whole, item.folder, name, session.check)]
        whole.unlink()
    else:
        os.replace(whole, item.path)
        names = [item.path.name]
    item.part.unlink(missing_ok=True)
    sync_folder(item.folder)
    return names


def _discard(item: Item) -> None:
    item.part.unlink(missing_ok=True)
    item.hidden("part.json").unlink(missing_ok=True)


# ---------------------------------------------------------------- HTTP


def _receive(item: Item, session: Session) -> tuple[int, str]:
    """Gets a URL into `item.part`, over as many connections as it takes. Returns size, sha256."""
    most, failures = -1, 0
    while True:
        try:
            _attempt(item, session)
            break
        except _Again as error:
            kept = item.part.stat().st_size if item.part.exists() else 0
            if kept > most:
                most, failures = kept, 0
            failures += 1
            if failures > error.retries:
                if error.unreachable:
                    session.unreachable[urllib.parse.urlsplit(item.url).netloc] = str(error)
                have = f" {readable(kept)} are kept; the same command goes on." if kept else ""
                raise DataError(f"{item.owner}: {item.url}: {error}.{have}") from None
            pause = PAUSE * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
            session.wait(min(LONGEST_PAUSE, max(pause, error.after or 0.0)))
    return item.part.stat().st_size, sha256_of(item.part, session.check)


def _attempt(item: Item, session: Session) -> None:
    """One connection. Returns when `item.part` is whole; raises _Again when that is worth a try."""
    session.check()
    if why := session.unreachable.get(urllib.parse.urlsplit(item.url).netloc):
        raise DataError(f"{item.owner}: {item.url}: {why}.")
    kept, known = _what_is_kept(item)
    if kept and kept == known.get("total"):
        return
    validator = _validator(known)
    if kept and not validator and not item.sha256:
        kept = 0  # nothing would show that the rest belongs to another version
    headers = {"User-Agent": f"fsc-bench/{__version__}", "Accept-Encoding": "identity"}
    if kept:
        headers["Range"] = f"bytes={kept}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(item.url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        with error:
            _refused(item, kept, known, error)
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{item.owner}: {item.url}: {error.reason}.") from None
        raise _Again(f"cannot be reached ({error.reason})", unreachable=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"cannot be reached ({str(error) or type(error).__name__})") from None
    with response:
        _take(item, session, response, kept, known)


def _what_is_kept(item: Item) -> tuple[int, dict[str, Any]]:
    """(bytes of this URL's in the `.part`, what is known of them)."""
    try:
        known = json.loads(item.hidden("part.json").read_text())
        if known["url"] == item.url:
            return item.part.stat().st_size, known
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return 0, {}


def _validator(known: dict[str, Any]) -> str:
    """What If-Range may carry: a strong ETag, else the date of change."""
    etag = known.get("etag") or ""
    return etag if etag and not etag.startswith("W/") else known.get("modified") or ""


def _refused(item: Item, kept: int, known: dict[str, Any], error: urllib.error.HTTPError) -> None:
    """Returns only where the server says that there is nothing more to come."""
    if error.code == 416:
        if error.headers.get("Content-Range", "") == f"bytes */{kept}":
            return
        _discard(item)
        raise _Again("does not continue a download")
    if error.code in PASSING:
        after = _number(error.headers.get("Retry-After", ""))
        raise _Again(f"answers {error.code} {error.reason}", after)
    raise DataError(f"{item.owner}: {item.url} answers {error.code} {error.reason}.")


def _take(item: Item, session: Session, response: Any, kept: int, known: dict[str, Any]) -> None:
    """Appends what a response brings to the `.part`."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DataError(f"{item.owner}: {item.url} comes as {headers['Content-Encoding']}.")
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    if response.status == 206:
        start, _, total_text = (
            headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        )
        now = {"etag": etag, "modified": modified, "total": _number(total_text)}
        changed = any(
            known.get(key) and value and value != known[key] for key, value in now.items()
        )
        if not start.startswith(f"{kept}-") or changed:
            _discard(item)
            raise _Again("continues with something else")
        total = now["total"]
    else:  # the whole file: it has changed, or this server cannot continue
        kept = 0
        item.part.unlink(missing_ok=True)
        total = _number(headers.get("Content-Length", ""))
        known = {"url": item.url, "etag": etag, "modified": modified, "total": total}
        write_json(item.hidden("part.json"), known)
    expected = item.bytes or 0 if total is None else total
    session.claim(item, item.part, max(0, expected - kept))
    with item.part.open("ab") as file:
        for chunk in _chunks(response, None if total is None else total - kept):
            session.check()
            file.write(chunk)
            kept += len(chunk)
            session.tell(item, item.served, item.part, kept, total)
        file.flush()
        os.fsync(file.fileno())
    if total is None and item.bytes and not item.sha256 and kept < 0.95 * item.bytes:
        raise _Again(f"ends after {kept:,} bytes of about {item.bytes:,}")
    if total is not None and kept < total:
        raise _Again(f"breaks off after {kept:,} of {total:,} bytes")
    write_json(item.hidden("part.json"), {**known, "total": kept})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _chunks(response: Any, left: int | None) -> Iterator[bytes]:
    """The body as it arrives. It may end early; raises _Again where the connection breaks."""
    while left is None or left > 0:
        try:
            chunk = response.read1(CHUNK if left is None else min(CHUNK, left))
        except (OSError, http.client.HTTPException) as error:
            raise _Again(f"breaks off ({str(error) or type(error).__name__})") from None
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


# ---------------------------------------------------------------- the Hugging Face Hub


def _check_revision(item: Item) -> None:
    if item.hf and not item.revision:
        raise DataError(
            f"{item.owner}: {item.hf} is named without a revision, so that it may change any day; "
            'it is not fetched. Name the commit in the task file: revision = "...".'
        )


def _fetch_hub(item: Item, session: Session) -> dict[str, Any]:
    """Files of a dataset repository, by commit. The Hub's own client resumes and retries."""
    from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

    # The client raises its HTTP library's errors too, and has more of its own in later versions.
    trouble = [errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError]
    for name in ("RevisionResolutionError", "XetDownloadError"):
        trouble += [getattr(errors, name)] if hasattr(errors, name) else []
    try:
        revision = item.revision
        if re.fullmatch(r"[0-9a-f]{7,39}", revision):  # the Hub wants all 40 digits
            commits = HfApi().list_repo_commits(item.hf, repo_type="dataset")
            known = [commit.commit_id for commit in commits]
            matching = [commit for commit in known if commit.startswith(revision)]
            if len(matching) != 1:
                raise DataError(f"{item.owner}: {item.hf} has no commit {revision}.")
            (revision,) = matching
        where = {"repo_type": "dataset", "revision": revision, "local_dir": item.path}
        bar = partial(_progress_bar, item, session)
        names: list[str] = []
        for pattern in item.files:
            if "::" in pattern:
                names.append(_fetch_member(item, pattern, revision, session))
                continue
            plan = (
                snapshot_download(
                    item.hf, allow_patterns=[pattern], dry_run=True, tqdm_class=bar(""), **where
                )
                if any(letter in pattern for letter in "*?[")
                else [hf_hub_download(item.hf, pattern, dry_run=True, **where)]
            )
            if not plan:
                raise DataError(f"{item.owner}: {item.hf}@{revision} has no {pattern!r}.")
            for info in plan:
                # Without a connection the client would take a local file of whatever revision.
                if len(revision) == 40 and info.commit_hash != revision:
                    raise DataError(f"{item.owner}: the Hub cannot be reached for {item.hf}.")
            size = sum(info.file_size or 0 for info in plan if info.will_download)
            session.claim(item, item.part, size)
            for info in plan:
                session.check()
                hf_hub_download(item.hf, info.filename, tqdm_class=bar(info.filename), **where)
                names.append(info.filename)
    except errors.GatedRepoError:
        raise DataError(
            f"{item.owner}: {item.hf} is gated and your account may not read it yet."
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{item.owner}: {item.hf} is not on the Hub, or not for you: `hf auth login`."
        ) from None
    except tuple(trouble) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{item.owner}: {item.hf}: {reason}") from None
    for name in names:
        if name.endswith(PLAIN):
            try:
                check_archive(item.path / name)
            except DataError as error:
                (item.path / name).unlink()
                raise DataError(f"{item.owner}: {item.hf}: {error} It was not kept.") from None
    marker = _finish(item, list(dict.fromkeys(names)), None)
    if item.sha256 and marker["sha256"] != item.sha256:
        item.hidden("done.json").unlink()
        raise DataError(
            f"{item.owner}: {item.hf}: sha256 {marker['sha256']}, not the pinned {item.sha256}."
        )
    return marker


def _fetch_member(item: Item, pattern: str, revision: str, session: Session) -> str:
    """One member of a large zip on the Hub, read through byte ranges instead of as a whole."""
    from huggingface_hub import HfFileSystem

    outer, _, inner = pattern.partition("::")
    name = Path(inner).name
    address = f"datasets/{item.hf}@{revision}/{outer}"
    part = item.path / f"{name}.part"
    with HfFileSystem().open(address) as remote, zipfile.ZipFile(remote) as archive:
        matching = [i for i in archive.infolist() if f"/{i.filename}".endswith(f"/{inner}")]
        if len(matching) != 1:
            raise DataError(f"{item.owner}: {item.hf}: {outer} has no member {inner!r}.")
        (info,) = matching
        session.claim(item, item.part, info.file_size)
        with archive.open(info) as source, part.open("wb") as target:
            done = 0
            while chunk := source.read(CHUNK):
                session.check()
                target.write(chunk)
                done += len(chunk)
                session.tell(item, name, item.part, done, info.file_size)
            target.flush()
            os.fsync(target.fileno())
    os.replace(part, item.path / name)
    return name


def _progress_bar(item: Item, session: Session, name: str) -> type:
    """A progress bar class for the Hub's client that draws nothing and tells the session."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **settings: Any):
            settings.pop("name", None)
            super().__init__(*arguments, **{**settings, "file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> bool:
            if name and self.unit == "B":
                session.tell(item, name, item.part, int(self.n), self.total)
            session.check()
            return True

    return Bar
