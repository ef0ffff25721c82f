"""Claims: how independent `fsc-bench run` commands on one output folder divide the models among
them.

    <out>/.claims/<model>-<hash>.lock   held by the process that works on the model
                                .json   the identity under which it was finished, and the commands
                                        that had begun when it was taken
                  <nonce>.running       held by each command as long as it runs

A lock goes with its process, however that ends. Taking one needs no look at the model: of a
thousand checkpoints a job loads those that it scores, and passes over what others hold or have just
finished. What counts as "just" no clock decides, for clocks differ between machines: a command
trusts a finished model only if that was taken, and so read from disk, after the command had begun.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path

from fsc_bench.results import slug, write_json


class Claim(Enum):
    """Whose a model is, for one command."""

    OURS = auto()
    THEIRS = auto()  # another command works on it
    FINISHED = auto()  # another command finished it since ours began


class Claims:
    """The models of one output folder, as one command sees them. precision is part of a model."""

    def __init__(self, out: Path, precision: str):
        self.folder = out / ".claims"
        self.precision = precision
        self.nonce = secrets.token_hex(8)  # of this start of a command
        self.running: dict[str, list[str]] = {}  # model -> commands that had begun when we took it

    @contextmanager
    def begun(self) -> Iterator["Claims"]:
        """Lets other commands know of this one until the block ends."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        mine = FileLock(self.folder / f"{self.nonce}.running")
        mine.acquire()
        for left in self.folder.glob("*.running"):  # by commands that were killed
            lock = FileLock(left)
            with suppress(Timeout, OSError), lock.acquire(timeout=0):
                if left.stem != self.nonce:
                    left.unlink(missing_ok=True)
        try:
            yield self
        finally:
            with suppress(OSError):
                Path(mine.lock_file).unlink(missing_ok=True)
            mine.release()

    def _file(self, spec: str, ending: str) -> Path:
        digest = hashlib.sha256(f"{spec} {self.precision}".encode()).hexdigest()[:8]
        return self.folder / f"{slug(spec)}-{digest}.{ending}"

    @contextmanager
    def take(self, spec: str) -> Iterator[bool]:
        """Whether the model is ours; it is until the block ends. Never waits."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._file(spec, "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            self.running[spec] = sorted(file.stem for file in self.folder.glob("*.running"))
            yield True
        finally:
            lock.release()

    def finish(self, spec: str, fingerprint: str) -> None:
        """Tells commands that run now. Later ones look at the model again: it may change."""
        facts = {"model": spec, "fingerprint": fingerprint, "running": self.running.get(spec, [])}
        write_json(self._file(spec, "json"), facts)

    def finished_meanwhile(self, spec: str) -> str | None:
        """The fingerprint under which another command took and finished this model since ours
        began.
        """
        try:
            facts = json.loads(self._file(spec, "json").read_text(encoding="utf-8"))
            return facts["fingerprint"] if self.nonce in facts["running"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
