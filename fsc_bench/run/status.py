"""Status: how far the commands on an output folder are, from its files alone.

It reads what commands were told (orders.py), who holds which model (claims.py) and what is on disk,
while all of it may be changing, and writes nothing. A pair of a model and a task is, first match:

    done      its result is there, of the model's latest weights and the task's latest version
    running   a living command holds the model, and the task is in hand
    failed    it, its model, or its task for every model went wrong; `why` is the line
    stale     a result is there of other weights or another version of the task; `why` says which
    left      nothing is there yet

The model's latest weights are those under which it was held last. Results that no order names (of
another version of this program) are done.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from fsc_bench.errors import UsageError, reason
from fsc_bench.results import read_run_facts, slug
from fsc_bench.run.claims import CLAIMS
from fsc_bench.run.orders import Failed, Order, read_failed, read_orders
from fsc_bench.system.lease import Lease, Seen

State = Literal["done", "running", "failed", "stale", "left"]
Key = tuple[str, str]  # model, precision


@dataclass(frozen=True)
class Pair:
    """One task of one model. seconds: what its result cost; None where there is none."""

    model: str
    precision: str
    variant: str  # of options: ".limit-100"; empty for whole tasks
    task: str
    state: State
    seconds: float | None
    why: str


@dataclass(frozen=True)
class Worker:
    """A command that holds a model. Its times are of its own machine's clock.

    state: `alive` or `gone` on this machine; `elsewhere` on another one, where `beat` goes on
    growing, every `every` seconds, as long as it lives.
    """

    model: str
    precision: str
    task: str  # in hand; empty while the model is loaded
    host: str
    process: int
    since: str
    beat: int
    beat_at: str
    every: float
    state: Literal["alive", "gone", "elsewhere"]


@dataclass(frozen=True)
class Status:
    """How far an output folder is.

    spent: seconds of all results that are done. rest: about how many seconds the others take, with
    as many commands as work now; None where nothing is known of it.
    """

    folder: Path
    pairs: list[Pair]
    workers: list[Worker]
    spent: float
    rest: float | None

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(pair.state for pair in self.pairs)
        return {state: found[state] for state in ("done", "running", "failed", "stale", "left")}

    def document(self) -> dict[str, Any]:
        """As `--json` prints it; README.md describes it."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "counts": self.counts,
            "seconds": {"spent": self.spent, "rest": self.rest},
            "pairs": [vars(pair) for pair in self.pairs],
            "workers": [vars(worker) for worker in self.workers],
        }


@dataclass(frozen=True)
class _Run:
    """A run's folder. versions: of the task, by the name of the result's file; None: unreadable."""

    path: Path
    key: Key
    fingerprint: str
    started: str
    seconds: Mapping[str, float]
    versions: Mapping[str, int | None]


class _Version(msgspec.Struct):
    """What is read of a result's file here."""

    version: int


def status(out: Path) -> Status:
    """How far `out` is. Raises UsageError, one line, where there is nothing of ours."""
    try:
        claims = [path for path in (out / CLAIMS).glob("*") if path.is_dir()]
        runs = [run for file in sorted(out.rglob("run.json")) if (run := _run(file.parent))]
    except OSError as error:
        raise UsageError(f"{out}: cannot be read: {reason(error)}.") from None
    orders = read_orders(out)
    if not (runs or orders):
        what = "no runs there" if out.is_dir() else "no such folder"
        raise UsageError(f"{out}: {what}. `fsc-bench run -m MODEL -o {out}` makes some.")
    held = [found for path in claims if (found := _held(path))]
    workers = [worker for facts in held if (worker := _worker(facts))]
    latest = {_key(facts.facts): str(facts.facts.get("fingerprint", "")) for facts in held}
    judge = _Judge(runs, latest, workers, read_failed(out), orders)
    pairs = [judge.pair(*wanted) for wanted in _wanted(orders, runs)]
    spent = math.fsum(pair.seconds or 0.0 for pair in pairs if pair.state == "done")
    busy = sum(worker.state != "gone" for worker in workers)
    return Status(out, pairs, workers, spent, _rest(pairs, max(busy, 1)))


def _run(folder: Path) -> _Run | None:
    """None for what is no run, or just goes."""
    try:
        facts = read_run_facts(folder)
        files = sorted((folder / "tasks").glob("*.json"))
    except (UsageError, OSError):
        return None
    key = str(facts["model"]), str(facts.get("precision", "fp32"))
    return _Run(
        folder,
        key,
        str(facts.get("fingerprint", "")),
        str(facts.get("started", "")),
        facts.get("seconds", {}),
        {file.name.removesuffix(".json"): _version(file) for file in files},
    )


def _version(file: Path) -> int | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Version).version
    except (OSError, msgspec.DecodeError):
        return None


def _held(claim: Path) -> Seen | None:
    """The claim's newest file; None where the folder is none, or the file is torn."""
    newest = Lease(claim).newest()
    seen = Seen.read(newest) if newest else None
    return seen if seen and isinstance(seen.facts.get("model"), str) else None


def _key(facts: Mapping[str, Any]) -> Key:
    return str(facts.get("model", "")), str(facts.get("precision", ""))


def _worker(seen: Seen) -> Worker | None:
    """Who holds a model; None where it was given back."""
    facts = seen.facts
    if facts.get("state") != "held":
        return None
    numbers = [facts.get(name) for name in ("process", "beat")]
    process, beat = (number if isinstance(number, int) else 0 for number in numbers)
    words = {name: str(facts.get(name, "")) for name in ("host", "since", "beat_at")}
    state = "gone" if seen.ended else "alive" if seen.here else "elsewhere"
    return Worker(
        *_key(facts), str(facts.get("task", "")), process=process, beat=beat, every=seen.every,
        state=state, **words,
    )  # fmt: skip


def _wanted(orders: Iterable[Order], runs: Iterable[_Run]) -> list[tuple[Key, str, str, int]]:
    """(key, variant, task, version) of each pair: what was ordered, then what is there besides."""
    found: dict[tuple[Key, str, str], int] = {}
    for order in orders:
        for model in order.models:
            for task, version in order.tasks.items():
                place = (model, order.precision), order.variant, task
                found[place] = max(version, found.get(place, 0))
    known = {(key[0], key[1].partition(",")[0], task + variant) for key, variant, task in found}
    for run in runs:
        for name, version in run.versions.items():
            if (*run.key, name) not in known:
                task, dot, variant = name.partition(".")
                found.setdefault((run.key, dot + variant, task), version or 0)
    return [(*place, version) for place, version in found.items()]


class _Judge:
    """What is known of a folder, asked for one pair at a time."""

    def __init__(
        self,
        runs: Iterable[_Run],
        latest: Mapping[Key, str],
        workers: Iterable[Worker],
        failed: Iterable[Failed],
        orders: Iterable[Order],
    ):
        self.latest = latest
        self.runs: dict[Key, list[_Run]] = {}
        for run in sorted(runs, key=lambda run: run.started):
            self.runs.setdefault(run.key, []).append(run)
        self.in_hand = {(w.model, w.precision): w.task for w in workers if w.state != "gone"}
        self.failed: dict[Key, dict[str, str]] = {
            (one.model, one.precision): {row.task: row.error for row in one.failures}
            for one in failed
        }
        self.before = _before_any_model(orders)

    def pair(self, key: Key, variant: str, task: str, version: int) -> Pair:
        runs = self._runs(key)
        name = task + variant
        current = runs[-1] if runs else None
        seconds = current.seconds.get(task) if current else None
        state, why = self._state(key, runs, task, name, version)
        return Pair(*key, variant, task, state, seconds if state == "done" else None, why)

    def _runs(self, key: Key) -> list[_Run]:
        """The model's run folders; that of its latest weights is the last."""
        model, precision = key
        runs = self.runs.get((model, precision.partition(",")[0]), [])
        if not (fingerprint := self.latest.get(key)):
            return runs
        older = [run for run in runs if run.fingerprint != fingerprint]
        current = [run for run in runs if run.fingerprint == fingerprint]
        return [*older, *current] if current or not older else [*older, _none_yet(key, fingerprint)]

    def _state(
        self, key: Key, runs: list[_Run], task: str, name: str, version: int
    ) -> tuple[State, str]:
        there = runs[-1].versions.get(name, -1) if runs else -1
        if there == version:
            return "done", ""
        if self.in_hand.get(key) == task:
            return "running", ""
        failed = self.failed.get(key, {})
        for why in (failed.get(task), failed.get(""), self._before(key[0], task)):
            if why:
                return "failed", why
        if there is None:
            return "stale", f"{runs[-1].path / 'tasks' / name}.json cannot be read"
        if there >= 0:
            return "stale", f"a result of version {there} of the task; it has version {version}"
        for run in runs[:-1]:
            if name in run.versions:
                return "stale", f"a result of other weights, in {run.path.name}"
        return "left", ""

    def _before(self, model: str, task: str) -> str:
        """What went wrong before any model was read, with the model or with the task."""
        return self.before.get((model, ""), "") or self.before.get(("", task), "")


def _before_any_model(orders: Iterable[Order]) -> dict[tuple[str, str], str]:
    """(model, "") or ("", task) -> what is wrong with it; nothing where another command of the
    folder found it right.
    """
    wrong: dict[tuple[str, str], str] = {}
    right: set[tuple[str, str]] = set()
    for order in orders:
        here = {(row.model, row.task): row.error for row in order.failures}
        wrong |= here
        named = {("", task) for task in order.tasks} | {(model, "") for model in order.models}
        right |= named - here.keys()
    return {what: why for what, why in wrong.items() if what not in right}


def _none_yet(key: Key, fingerprint: str) -> _Run:
    """Stands for the run folder that a model's new weights do not have yet."""
    return _Run(Path(slug(key[0])), key, fingerprint, "", {}, {})


def _rest(pairs: Iterable[Pair], commands: int) -> float | None:
    """About how long the others take: a task as long as it took other models, on average."""
    pairs = list(pairs)
    costs: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.seconds is not None:
            costs.setdefault(pair.task + pair.variant, []).append(pair.seconds)
    every = [seconds for spent in costs.values() for seconds in spent]
    todo = [pair for pair in pairs if pair.state in ("running", "stale", "left")]
    if not todo:
        return 0.0
    if not every:
        return None
    means = [costs.get(pair.task + pair.variant, every) for pair in todo]
    return math.fsum(math.fsum(spent) / len(spent) for spent in means) / commands
