"""Lease: who works on something, among processes that share nothing but a folder.

    <folder>/<number>.held    one JSON object; the highest number counts

It needs no file locks, which many shared folders lack, and believes no clock but its own:

- Taking is the exclusive creation of the next number, so that of many who try one wins. A number
  is used once; the newest two files are never removed, so that nobody begins again at 1.
- Whoever holds it rewrites its file every few seconds with a counter that is one higher (a beat).
- A holder on this machine is gone when its process is; one on another machine when no beat came
  for SILENT times the interval that its file states, by the watcher's own monotonic clock. Times in
  the file are for people.
- A holder that stood still, and was given up meanwhile, finds a higher number: `lost`.

$FSC_BENCH_HEARTBEAT is the interval in seconds, 10 where it is not set.
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any

from fsc_bench.errors import UsageError

VARIABLE, INTERVAL = "FSC_BENCH_HEARTBEAT", 10.0  # seconds
SHORTEST, LONGEST = 0.02, 3600.0  # seconds that an interval may have
SILENT = 6  # intervals without a beat after which a holder is given up
LOOKS = 4  # an interval, at what is watched
ROOM = 512  # bytes by which a holder's facts may grow


class Standing(Enum):
    """What is known of whoever holds a lease."""

    FREE = auto()  # it was given back, or never held
    GONE = auto()  # its process ended, or is silent
    ALIVE = auto()
    UNKNOWN = auto()  # on another machine, and not watched for long enough


def interval() -> float:
    """Seconds between two beats. Raises UsageError for what is no such number."""
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text or INTERVAL)
    except ValueError:
        seconds = -1.0
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(
            f"${VARIABLE} = {text!r}: write seconds from {SHORTEST} to {LONGEST:g}, such as 10."
        )
    return seconds


class Beating:
    """A file of our own that goes on changing as long as this process lives."""

    def __init__(self, path: Path, facts: dict[str, Any]):
        """Creates the file. Raises FileExistsError where it is there already."""
        self.path, self.every = path, interval()
        self.facts = {**_self(), "every": self.every, "state": "held", **facts, "beat": 0}
        self.size = len(json.dumps(self.facts)) + ROOM
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        try:
            self._write()
        except OSError:  # a full disk
            os.close(self.file)
            path.unlink(missing_ok=True)
            raise
        self.thread = threading.Thread(target=self._beat, daemon=True)
        self.thread.start()

    def note(self, **facts: Any) -> None:
        """Writes more facts, for whoever looks; a failure is no reason to stop working."""
        with self.lock, suppress(OSError):
            self.facts |= facts
            self._write()

    def stop(self) -> None:
        """No more beats; the file stays."""
        self.stopped.set()
        self.thread.join()
        os.close(self.file)

    def _beat(self) -> None:
        while not self.stopped.wait(self.every):
            self.note(beat=self.facts["beat"] + 1, beat_at=_now())

    def _write(self) -> None:
        """In place, by the open file: what others put where it was is never overwritten."""
        text = json.dumps(self.facts).ljust(self.size - 1) + "\n"
        os.pwrite(self.file, text.encode(), 0)
        os.fsync(self.file)


@dataclass(frozen=True)
class Seen:
    """A file of a Beating as it was read. content: all of it; facts: empty for a torn one."""

    content: bytes
    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Seen | None":
        """None where nothing is there."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError:
            content = b""  # it is there, and says nothing
        try:
            facts = json.loads(content)
        except ValueError:
            facts = {}
        return cls(content, facts if isinstance(facts, dict) else {})

    @property
    def ended(self) -> bool:
        """Whether it was of a process of this machine that is no more."""
        process, started = self.facts.get("process"), self.facts.get("process_started")
        if not self.here or not isinstance(process, int) or process < 1:
            return False
        now = _started(process)
        return now is None or bool(started and now and started != now)

    @property
    def holder(self) -> str:
        """What tells one process from every other; a torn file's is nobody's."""
        words = [self.facts.get(key) for key in ("machine", "process", "process_started")]
        return " ".join(map(str, words)) if self.facts else secrets.token_hex(8)

    @property
    def here(self) -> bool:
        """Whether it is of a process that this machine can see."""
        return self.facts.get("machine") == machine()

    @property
    def every(self) -> float:
        """Seconds between two beats, as its writer says."""
        seconds = self.facts.get("every")
        known = isinstance(seconds, int | float) and SHORTEST <= seconds <= LONGEST
        return float(seconds) if known else INTERVAL


class Watcher:
    """How long files have not changed under our eyes, by our own monotonic clock.

    Time in which nobody looked does not count: a process that was stopped together with the one it
    watches gives that one a chance to beat.
    """

    def __init__(self):
        self.last: dict[Path, tuple[bytes, float, float]] = {}  # content, last look, quiet seconds
        self.given_up: set[str] = set()  # processes: who is silent in one file is so in all

    def standing(self, path: Path) -> Standing:
        """What is known now of the process that holds `path`."""
        seen = Seen.read(path)
        if seen is None or seen.facts.get("state") == "free":
            return Standing.FREE
        if seen.ended:
            return Standing.GONE
        if seen.here:
            return Standing.ALIVE
        now = time.monotonic()
        content, looked, quiet = self.last.get(path, (seen.content, now, 0.0))
        if content != seen.content:
            self.last[path] = seen.content, now, 0.0
            self.given_up.discard(seen.holder)
            return Standing.ALIVE
        quiet += min(now - looked, seen.every)
        self.last[path] = content, now, quiet
        if quiet >= SILENT * seen.every:
            self.given_up.add(seen.holder)
        return Standing.GONE if seen.holder in self.given_up else Standing.UNKNOWN


WATCHER = Watcher()  # of this process


class Lease:
    """One thing that at most one process works on; see the top of this file."""

    def __init__(self, folder: Path, watcher: Watcher | None = None):
        self.folder = folder
        self.watcher = watcher or WATCHER
        self.mine: Beating | None = None
        self.number = 0

    def newest(self) -> Path | None:
        """The file that counts; None where nobody ever held it."""
        number = max(self._numbers(), default=0)
        return self._file(number) if number else None

    def standing(self) -> Standing:
        newest = self.newest()
        return self.watcher.standing(newest) if newest else Standing.FREE

    def take(self, **facts: Any) -> bool:
        """Whether it is ours from now on; never waits. facts: for people who look.

        Raises OSError where the folder cannot be written.
        """
        newest = max(self._numbers(), default=0)
        if newest and self.watcher.standing(self._file(newest)) not in (
            Standing.FREE,
            Standing.GONE,
        ):
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        number = newest + 1
        try:
            mine = Beating(self._file(number), facts)
        except FileExistsError:
            return False
        self.mine, self.number = mine, number
        if self.lost():  # ours is an old number, which had been removed
            mine.stop()
            mine.path.unlink(missing_ok=True)
            self.mine = None
            return False
        for old in self._numbers():
            if old < number - 1:
                self._file(old).unlink(missing_ok=True)
        return True

    def take_patiently(self, **facts: Any) -> bool:
        """The same, but watches a silent holder until it is known whether it lives."""
        while not (taken := self.take(**facts)) and self.standing() is not Standing.ALIVE:
            time.sleep(pause(self.newest()))
        return taken

    def give_back(self) -> None:
        if self.mine is not None:
            self.mine.note(state="free")
            self.mine.stop()
            self.mine = None

    def lost(self) -> bool:
        """Whether somebody gave us up, since we stood still, and took it."""
        return max(self._numbers(), default=0) > self.number

    @contextmanager
    def held(self, patient: bool = False, **facts: Any) -> Iterator[bool]:
        """Whether it is ours; it is until the block ends."""
        taken = self.take_patiently(**facts) if patient else self.take(**facts)
        try:
            yield taken
        finally:
            self.give_back()

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        found = (re.fullmatch(r"(\d{1,18})\.held", name) for name in names)
        return [int(match[1]) for match in found if match]

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.held"


def pause(watched: Path | None) -> float:
    """Seconds until it is worth to look again at what is watched."""
    seen = Seen.read(watched) if watched else None
    return (seen.every if seen else SHORTEST) / LOOKS


@cache
def machine() -> str:
    """What processes have in common that see each other by number: the machine since it was
    started, and the container.
    """
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{host} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Where there is no /proc (macOS) there are no containers either; elsewhere nobody can tell.
        return f"{host} {'' if os.uname().sysname == 'Darwin' else secrets.token_hex(8)}"


def _self() -> dict[str, Any]:
    return {
        "nonce": secrets.token_hex(8),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_started": _started(os.getpid()) or "",
        "machine": machine(),
        "since": _now(),
        "beat_at": _now(),
    }


def _now() -> str:
    """For people: this machine's clock, which may be wrong."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _started(process: int) -> str | None:
    """When a process of this machine began, in the kernel's own count: a number is used again.

    None where there is no such process; empty where nobody can tell when.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]
