"""Claims: how independent `fsc-bench run` commands on one output folder divide the models among
them.

    <out>/.claims/<model>-<hash>/N.held         who works on the model, or did (system/lease.py)
                                /finished.json  the identity under which it was finished, and the
                                                commands that had begun when it was taken
                                /failed.json    what went wrong with it, if anything did
                 /running/<nonce>               kept by each command as long as it runs

A model whose holder is gone is taken over, whichever machine that was on. Taking one needs no look
at the model: of a thousand checkpoints a job loads those that it scores, and passes over what
others hold or have just finished. No clock decides anything, for clocks differ between machines and
are set back: a command trusts a finished model only if that was taken, and so read from disk, after
the command had begun.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

from fsc_bench.errors import FscBenchError
from fsc_bench.results import slug, write_json
from fsc_bench.system.lease import SILENT, Beating, Lease, Seen, Standing, pause

CLAIMS = ".claims"


class Claim(Enum):
    """Whose a model is, for one command."""

    OURS = auto()
    THEIRS = auto()  # another command works on it
    FINISHED = auto()  # another command finished it since ours began


class Claims:
    """The models of one output folder, as one command sees them. precision is part of a model."""

    def __init__(self, out: Path, precision: str):
        self.folder = out / CLAIMS
        self.precision = precision
        self.nonce = secrets.token_hex(8)  # of this start of a command
        self.running: dict[str, list[str]] = {}  # model -> commands that had begun when we took it
        self.leases: dict[str, Lease] = {}

    @contextmanager
    def begun(self) -> Iterator["Claims"]:
        """Lets other commands know of this one until the block ends."""
        folder = self.folder / "running"
        folder.mkdir(parents=True, exist_ok=True)
        began, there = time.monotonic(), {}
        for other in folder.iterdir():
            if (seen := Seen.read(other)) and seen.ended:
                other.unlink(missing_ok=True)
            there[other] = seen
        mine = Beating(folder / self.nonce, {})
        try:
            yield self
        finally:
            mine.stop()
            mine.path.unlink(missing_ok=True)
            for other, seen in there.items():  # commands of other machines that were killed
                if not seen or time.monotonic() - began < SILENT * seen.every:
                    continue
                if Seen.read(other) == seen:
                    other.unlink(missing_ok=True)

    def place(self, spec: str) -> Path:
        """The folder of one model's claim."""
        digest = hashlib.sha256(f"{spec} {self.precision}".encode()).hexdigest()[:8]
        return self.folder / f"{slug(spec)}-{digest}"

    def lease(self, spec: str) -> Lease:
        """This command's own view of who works on a model."""
        return self.leases.setdefault(spec, Lease(self.place(spec)))

    @contextmanager
    def take(self, spec: str) -> Iterator[bool]:
        """Whether the model is ours; it is until the block ends. Never waits."""
        with self.lease(spec).held(model=spec, precision=self.precision) as taken:
            if taken:
                running = self.folder / "running"
                self.running[spec] = sorted(
                    file.name for file in (running.iterdir() if running.is_dir() else ())
                )
            yield taken

    def note(self, spec: str, **facts: Any) -> None:
        """Lets `fsc-bench status` know what is done with a model that is ours."""
        if mine := self.lease(spec).mine:
            mine.note(**facts)

    def to_be_had(self, specs: Sequence[str]) -> list[str]:
        """Those of the models, held by others before, that may be taken now: given back, or their
        holders are gone. Waits only as long as it is unknown whether a holder lives; empty when all
        are known to.
        """
        while True:
            found = {spec: self.lease(spec).standing() for spec in specs}
            free = [one for one in specs if found[one] in (Standing.FREE, Standing.GONE)]
            unknown = [one for one in specs if found[one] is Standing.UNKNOWN]
            if free or not unknown:
                return free
            time.sleep(min(pause(self.lease(spec).newest()) for spec in unknown))

    def finish(self, spec: str, fingerprint: str) -> None:
        """Tells commands that run now. Later ones look at the model again: it may change."""
        facts = {"model": spec, "fingerprint": fingerprint, "running": self.running.get(spec, [])}
        write_json(self.place(spec) / "finished.json", facts)

    def fail(self, spec: str, failures: Iterable[tuple[str, FscBenchError]]) -> None:
        """Remembers what went wrong with a model that is ours, task by task; nothing clears it."""
        rows = [
            {"task": task, "error": str(error), "code": error.exit_code} for task, error in failures
        ]
        file = self.place(spec) / "failed.json"
        if rows:
            write_json(file, {"model": spec, "precision": self.precision, "failures": rows})
        else:
            file.unlink(missing_ok=True)

    def finished_meanwhile(self, spec: str) -> str | None:
        """The fingerprint under which another command took and finished this model since ours
        began.
        """
        try:
            facts = json.loads((self.place(spec) / "finished.json").read_text(encoding="utf-8"))
            return facts["fingerprint"] if self.nonce in facts["running"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
