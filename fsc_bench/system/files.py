"""Files: the one place that writes a file whole or not at all, and that locks a shared table.

A file is written beside its place under a name of its own, synced, and renamed: a reader sees the
old content or the new one. What a killed process left half written is removed by the next writer.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fsc_bench.errors import RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MINUTE = 60  # seconds that a writer has to lock the file that it has just made
CLOCK_STEP = 0.03  # seconds; Linux notes a file's times in steps of up to 10 ms
DAY = 86400  # seconds after which another machine's half-written file counts as abandoned


def write_atomically(path: Path, write: Callable[[Path], Any], advice: str = "") -> None:
    """Calls `write(temporary)`, syncs the file and renames it to `path`.

    Raises RunError, one line with `path` and the reason, where that is impossible; nothing half
    written is left, and what was there before is untouched. `advice` ends that line.
    """
    with complaints(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.name)
        partial = path.with_name(f".{path.name}.{_writer()}-{secrets.token_hex(4)}.part")
        try:
            # Held as long as we write: another process sees that the file is not abandoned.
            with open(partial, "xb") as held:
                with contextlib.suppress(OSError):
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write(partial)
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, advice: str = "") -> None:
    """Writes UTF-8 text as `write_atomically` does."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"), advice)


def write_json(path: Path, content: Any, advice: str = "") -> None:
    """Writes strict JSON (no NaN) as `write_atomically` does."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, advice)


def stamp(path: Path | str) -> str:
    """What is equal for a file or folder as long as nobody has changed it: size, times and inode.

    The time of change cannot be set, so that copies which keep size and modification time
    (`rsync -t`, tar) get another stamp. Right after a change it waits: a second change within the
    same step of the file system's clock would not show. Empty, which proves nothing, for what goes
    on changing. Raises OSError where nothing is there.
    """
    for _ in range(4):
        stat = os.stat(path)
        if abs(time.time() - stat.st_ctime) > CLOCK_STEP:
            return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        time.sleep(CLOCK_STEP)
    return ""


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, seconds: float = 60.0) -> Iterator[None]:
    """Holds a table that is read, changed and written: one process at a time between the two.

    Raises RunError, one line, where the lock cannot be had within `seconds`.
    """
    from filelock import FileLock, Timeout

    with complaints(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise RunError(f"{path}: another process has held it for {seconds:.0f} s.") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def complaints(path: Path, advice: str = "") -> Iterator[None]:
    """Turns what the system says against writing `path` into one line, RunError."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno in FULL else error.strerror or str(error)
        end = advice or "What was there before is untouched."
        raise RunError(f"{path}: cannot be written: {reason}. {end}") from None


class Witness:
    """A binary file that remembers why it could not be written.

    Libraries write through it that say something else: torch's writer of archives answers a full
    disk with "unexpected pos 18112 vs 18032".
    """

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def system_error(error: Exception) -> OSError | None:
    """The system's own error in the words of a Rust library, `I/O error: ... (os error 28)`."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _writer() -> str:
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', socket.gethostname())[:40]}-{os.getpid()}"


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Removes what killed processes left half written in `folder`, of one file or of any.

    Their writers are gone, or hold them no longer: a writer locks its file as long as it writes.
    """
    own = _writer().rpartition("-")[0]
    wanted = re.escape(name) if name else ".+"
    pattern = re.compile(rf"\.{wanted}\.(\w*)-(\d+)-[0-9a-f]{{8}}\.part")
    for found in os.listdir(folder):
        match = pattern.fullmatch(found)
        if match is None:
            continue
        left = folder / found
        with contextlib.suppress(OSError):
            # A number may be another process's by now: what is alive counts for a minute only.
            alive = _alive(int(match[2])) if match[1] == own else None
            spared = DAY if alive is None else MINUTE if alive else 0
            if time.time() - left.stat().st_mtime < spared:
                continue
            with open(left, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
