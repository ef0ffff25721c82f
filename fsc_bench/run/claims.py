"""Claims: how independent `fsc-bench run` commands on one output folder divide the models among
them.

    <out>/.claims/<model>-<hash>.lock   held by the process that works on the model
                                .json   the identity under which it was finished

A lock goes with its process, however that ends. Taking one needs no look at the model: of a
thousand checkpoints a job loads those that it scores, and passes over what others hold or have just
finished.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsc_bench.results import slug, write_json


class Claims:
    """The models of one output folder, as one command sees them. precision is part of a model."""

    def __init__(self, out: Path, precision: str):
        self.folder = out / ".claims"
        self.precision = precision
        self.began = time.time()

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
            yield True
        finally:
            lock.release()

    def finish(self, spec: str, fingerprint: str) -> None:
        """Tells commands that run now. Later ones look at the model again: it may change."""
        write_json(self._file(spec, "json"), {"model": spec, "fingerprint": fingerprint})

    def finished_meanwhile(self, spec: str) -> str | None:
        """The fingerprint under which another command finished this model since ours began."""
        path = self._file(spec, "json")
        try:
            if path.stat().st_mtime < self.began:
                return None
            return json.loads(path.read_text())["fingerprint"]
        except (OSError, ValueError, KeyError):
            return None
