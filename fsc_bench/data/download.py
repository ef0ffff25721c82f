"""Download: items to disk, from URLs and from the Hugging Face Hub; resumed, checked, atomic.

    x.zip.part             what has come so far; the next try goes on from there
    .x.zip.part.json       whose bytes these are (URL, ETag), so that two versions never mix
    x.zip                  whole: checked and synced before it gets this name
    .x.zip.done.json       written last: url, sha256, bytes, time, and the files it stands for

pooch 1.9.0 was looked at for the URLs: it starts over when interrupted, so HTTP is done here.
"""

import errno
import http.client
import json
import os
import random
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
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
from fsc_bench.data.border import reason
from fsc_bench.data.connection import Unusable, Watch, number, open_url, tag
from fsc_bench.data.hub import fetch_hub
from fsc_bench.data.items import Item
from fsc_bench.data.lock import check_lock
from fsc_bench.data.session import Session, finish, finished, read_marker, readable, sha256_of
from fsc_bench.errors import DataError, RunError
from fsc_bench.system.budget import budget, raising
from fsc_bench.system.files import sync_folder, write_json
from fsc_bench.system.regular import WEB_PAGE

TIMEOUT = 30.0  # seconds without a byte
RETRIES = 6  # in a row without a new byte
RETRIES_SLOW = 1  # of a server that brings less than the budget's speed
RETRIES_UNREACHABLE = 2  # where no connection comes about: mostly there is no network
PAUSE = 1.0  # seconds before the first retry; doubles each time
LONGEST_PAUSE = 60.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
ROOM = 1 << 28  # bytes; of a file without a length the disk is looked at as often
LARGER, SLACK = 1.5, 1_000_000  # times and bytes: task files say about how large a file is


class NotThere(DataError):
    """The server has no such file."""


class _Again(Exception):
    """Worth another try, after so many seconds if the server says so."""

    def __init__(
        self,
        why: str,
        after: float | None = None,
        unreachable: bool = False,
        slow: bool = False,
    ):
        super().__init__(why)
        self.after = after
        self.retries = RETRIES_UNREACHABLE if unreachable else RETRIES_SLOW if slow else RETRIES
        self.unreachable, self.slow = unreachable, slow


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
                try:
                    marker = _fetch_url(item, session) if item.url else fetch_hub(item, session)
                    check_lock(item, marker)
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
    except RunError as error:  # a marker that could not be written
        raise DataError(f"{item.owner}: {error} The same command goes on.") from None


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
    notes = (_doubt(item, size), _replaced(item, sha))
    note = "; ".join(filter(None, notes))
    names = _put_in_place(item, session)
    return finish(item, names, (sha, size), note)


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
    return finish(item, [item.path.name], None, found=True, unchecked=unchecked)


def _doubt(item: Item, size: int) -> str:
    """What looks odd but may be right: an unpinned file of another size than announced."""
    if item.sha256 or not item.bytes or abs(size - item.bytes) <= 0.05 * item.bytes:
        return ""
    return f"{item.served} has {size:,} bytes; about {item.bytes:,} were expected"


def _replaced(item: Item, sha: str) -> str:
    """What to say where an unpinned address serves something else than it did before."""
    before = read_marker(item)
    if item.sha256 or before is None or before["url"] != item.url:
        return ""
    if before["unchecked"] or before["sha256"] == sha:
        return ""
    return (
        f"{item.url} has changed: sha256 {sha}, and {before['sha256']} when it was fetched before; "
        "`--locked` holds to one"
    )


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
    most, failures, slow = -1, 0, 0
    deadline = time.monotonic() + budget().seconds
    while True:
        try:
            _attempt(item, session, deadline)
            break
        except Unusable as error:
            raise DataError(f"{item.owner}: {item.url} {error}.") from None
        except _Again as error:
            kept = item.part.stat().st_size if item.part.exists() else 0
            if kept > most:
                most, failures = kept, 0
            failures, slow = failures + 1, slow + error.slow
            late = time.monotonic() > deadline
            if late or slow > RETRIES_SLOW or failures > error.retries:
                if error.unreachable:
                    session.unreachable[urllib.parse.urlsplit(item.url).netloc] = str(error)
                have = f" {readable(kept)} are kept; the same command goes on." if kept else ""
                raise DataError(f"{item.owner}: {item.url}: {error}.{have}") from None
            pause = PAUSE * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
            session.wait(min(LONGEST_PAUSE, max(pause, error.after or 0.0)))
    return item.part.stat().st_size, sha256_of(item.part, session.check)


def _attempt(item: Item, session: Session, deadline: float) -> None:
    """One connection. Returns when `item.part` is whole; raises _Again when that is worth a try."""
    with Watch(deadline, lambda: not session.stop.is_set()) as watch:
        try:
            _connect(item, session, watch)
        except _Again:
            session.check()
            if watch.why:
                raise _Again(watch.why, slow=True) from None
            raise


def _connect(item: Item, session: Session, watch: Watch) -> None:
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
        response = open_url(item.url, headers, TIMEOUT, watch)
    except urllib.error.HTTPError as error:
        with error:
            _refused(item, kept, known, error)
        return
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(f"{item.owner}: {item.url}: {error.reason}.") from None
        raise _Again(f"cannot be reached ({error.reason})", unreachable=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"cannot be reached ({reason(error)})") from None
    with response:
        _take(item, session, response, kept, known, watch)


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
    if error.code == 416 and kept:
        if error.headers.get("Content-Range", "") == f"bytes */{kept}":
            return
        _discard(item)
        raise _Again("does not continue a download")
    if error.code in PASSING:
        after = number(error.headers.get("Retry-After"))
        raise _Again(f"answers {error.code} {error.reason}", after)
    kind = NotThere if error.code in (404, 410) else DataError
    raise kind(f"{item.owner}: {item.url} answers {error.code} {error.reason:.200}.")


def _take(
    item: Item, session: Session, response: Any, kept: int, known: dict[str, Any], watch: Watch
) -> None:
    """Appends what a response brings to the `.part`."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        how = headers["Content-Encoding"]
        raise DataError(f"{item.owner}: {item.url} comes as {how!r:.100}, not as it is.")
    etag, modified = tag(headers.get("ETag")), tag(headers.get("Last-Modified"))
    if response.status == 206:
        start, _, total_text = (
            headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        )
        now = {"etag": etag, "modified": modified, "total": number(total_text)}
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
        total = number(headers.get("Content-Length"))
        known = {"url": item.url, "etag": etag, "modified": modified, "total": total}
        write_json(item.hidden("part.json"), known)
    _check_most(item, total or 0)
    expected = item.bytes or 0 if total is None else total
    session.claim(item, item.part, max(0, expected - kept))
    with item.part.open("ab") as file:
        for chunk in _chunks(response, None if total is None else total - kept):
            session.check()
            _check_most(item, kept + len(chunk))
            if total is None and kept // ROOM != (kept + len(chunk)) // ROOM:
                session.claim(item, item.part, ROOM)
            file.write(chunk)
            kept += len(chunk)
            watch.got += len(chunk)
            session.tell(item, item.served, item.part, kept, total)
        file.flush()
        os.fsync(file.fileno())
    if watch.why:
        raise _Again(watch.why, slow=True)
    if not kept:
        raise Unusable("sends an empty file")
    if total is None and item.bytes and not item.sha256 and kept < 0.95 * item.bytes:
        raise _Again(f"ends after {kept:,} bytes of about {item.bytes:,}")
    if total is not None and kept < total:
        raise _Again(f"breaks off after {kept:,} of {total:,} bytes")
    write_json(item.hidden("part.json"), {**known, "total": kept})


def _check_most(item: Item, size: int) -> None:
    """Raises DataError, and keeps nothing, where a server sends more than the file can have."""
    most = budget().download
    why = raising("download", size)
    if item.bytes:
        most, why = min(most, int(item.bytes * LARGER) + SLACK), f"about {item.bytes:,} are known"
    if size > most:
        _discard(item)
        raise DataError(
            f"{item.owner}: {item.url} sends {size:,} bytes or more, and at most {most:,} are "
            f"taken ({why}). It was not kept."
        )


def _chunks(response: Any, left: int | None) -> Iterator[bytes]:
    """The body as it arrives. It may end early; raises _Again where the connection breaks."""
    while left is None or left > 0:
        try:
            chunk = response.read1(CHUNK if left is None else min(CHUNK, left))
        except Exception as error:  # chunks of a nonsensical length raise what they like
            raise _Again(f"breaks off ({reason(error)})") from None
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


# ---------------------------------------------------------------- the Hugging Face Hub
