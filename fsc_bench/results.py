"""Results: what a run leaves on disk, written so that nothing finished is ever half there or lost.

    runs/<model>-<identity>/
        run.json                  who: model identity, packages, machine, command, times
        tasks/<task>.json         what: counts, metrics, flags, facts of the task, and `parts`: the
                                  digests of all that decided the number (run/proof.py)
        samples/<task>.parquet    every sample: scores, right or wrong, tie, digests of its images
        superseded/               results that were replaced by newer ones

Percentages are 0-100 and unrounded. JSON and Parquet: other software reads it without ours. The key
"facts" of `tasks/<task>.json` holds what tables need of the task, so that a table of any suite can
be made from the run folders alone:

    {"title": "Tiny", "suite": "mine", "group": "compositionality", "kind": "matching",
     "version": 1, "headline": ["text"], "chance": {"text": 50.0}, "within": "samples",
     "subsets": {"replace": {"replace_obj": 12, "replace_att": 8}, "swap_obj": 6}, "n": 26,
     "decays": false, "shipped": false, "paper": "", "license": "", "reference": {},
     "blind": {"source": "...", "ruler": {"swap_obj": 18.4}, "bigram": {"swap_obj": 65.3},
               "free": {}}}

`n` is the promised number of records, `shipped` whether the task file is one of this package's,
`blind` what scorers that see no picture get, in percent (left out where a task file says nothing).
Results that older versions wrote have no facts.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fsc_bench.errors import UsageError
from fsc_bench.system.facts import Facts, read_json, typed
from fsc_bench.system.files import write_atomically, write_text
from fsc_bench.task import Task, is_shipped

SCHEMA_VERSION = 1


class Busy(UsageError):
    """Another run holds this run directory."""


@dataclass(frozen=True)
class Cell:
    """A number in percent, from scoring to the page.

    low, high: its 95% interval; n: how many samples it is of; chance: what guessing scores. strict:
    the same number where any tie is a miss; None where the two do not differ. note marks a number
    that is not of every promised sample; `counts` says whether it may still enter an average, which
    is then marked too (SVO-Probes, whose pictures die one by one).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: float | None = None
    strict: float | None = None
    note: str = ""
    counts: bool = True

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        marks = ("*" if self.note else "") + ("" if self.strict is None else "†")
        return f"{self.value:z.1f}{marks}"  # z: never -0.0

    @property
    def interval(self) -> str:
        return "" if self.low is None else f"[{self.low:.1f}, {self.high:.1f}]"

    def facts(self) -> dict[str, Any]:
        """As it stands in a result file."""
        facts = {"value": self.value, "ci": [self.low, self.high], "n": self.n}
        facts["chance"] = self.chance
        return facts if self.strict is None else {**facts, "strict": self.strict}


@dataclass(frozen=True)
class Result:
    """One task, one model.

    metrics: node of the subset tree or "headline" -> metric -> Cell;
    and `strict` where the number by which any tie is a miss is another one.
    n: samples; expected: what the task promises; ties: samples whose right answer ties with a
    different one; nan: samples with a similarity that is no number; flags: everything a reader of
    the number must know.
    audits: what makes samples easy or unfair, counted: `free` (all options are right), `easier`
    (fewer different options than promised), `repeated_texts` and `repeated_images` (in a gallery),
    `equal_classes`, `truncated_texts`, `equal_after_tokenizing`, `missing_images`.
    official: the headline as the official scorer counts ties, where the task file says that it
    differs.
    """

    task: str
    version: int
    kind: str
    fingerprint: str
    n: int
    expected: int
    metrics: Mapping[str, Mapping[str, Cell]]
    headline: tuple[str, ...]
    ties: int
    nan: int
    audits: Mapping[str, Any] = field(default_factory=dict)
    official: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)  # `fingerprint` is the hash of these
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the task: `task_facts`

    @property
    def complete(self) -> bool:
        """Whether the number may stand in an average: every promised sample was scored."""
        return not self.flags

    @property
    def lacks_data(self) -> bool:
        """Whether a flag speaks of data, which may come; the one of NaN speaks of the model."""
        return len(self.flags) > bool(self.nan)


def task_facts(task: Task) -> dict[str, Any]:
    """What a table needs to know of a task, as it stands in every result."""
    return {
        "title": task.title,
        "suite": task.suite,
        "group": task.group,
        "kind": task.kind,
        "version": task.version,
        "headline": list(task.headline),
        "chance": dict(task.chance),
        "within": task.within,
        "subsets": plain(task.subsets),
        "n": task.n,
        "decays": task.data.decays,
        "shipped": is_shipped(task),
        "paper": task.paper,
        "license": task.license,
        "reference": plain(task.reference),
        **({"blind": plain(asdict(task.blind))} if task.blind.source else {}),
    }


@dataclass(frozen=True)
class Samples:
    """The samples file: columns, one value a sample, and what sums them up (per-class recall)."""

    columns: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)


def slug(spec: str) -> str:
    """A model's name as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", spec).strip("-.")[:80]


class RunDirectory:
    """`<out>/<model>-<identity8>`: one model's results."""

    def __init__(self, out: Path, spec: str, fingerprint: str):
        self.path = out / f"{slug(spec)}-{fingerprint[:8]}"

    def task_file(self, task: str, variant: str = "") -> Path:
        return self.path / "tasks" / f"{task}{variant}.json"

    def samples_file(self, task: str, variant: str = "") -> Path:
        return self.path / "samples" / f"{task}{variant}.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's lock. Raises UsageError when another has it or nothing can be written."""
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(
                f"{self.path}: another run is writing here. Wait for it, or use another -o folder."
            ) from None
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()

    def write_run(self, facts: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", {"schema": SCHEMA_VERSION, **facts})

    def write_result(self, result: Result, samples: Samples, variant: str = "") -> None:
        """Samples first, then the result: a task is finished when its JSON exists."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.samples_file(result.task, variant)
        table = pa.table(dict(samples.columns))
        if samples.summary:
            table = table.replace_schema_metadata({"fsc_bench": json.dumps(plain(samples.summary))})
        write_atomically(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
        self.write_facts(result, variant)

    def set_aside(self, task: str, variant: str = "") -> None:
        """Keeps a result that is about to be replaced, under a name that no other has."""
        old = self.task_file(task, variant)
        if not old.exists():
            return
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(old.stat().st_mtime))
        ending = f"{when}-{secrets.token_hex(4)}"
        folder = self.path / "superseded"
        folder.mkdir(exist_ok=True)
        for file in (old, self.samples_file(task, variant)):
            if file.exists():
                os.replace(file, folder / f"{file.stem}-{ending}{file.suffix}")

    def write_facts(self, result: Result, variant: str = "") -> None:
        """Writes a result again whose numbers stand and whose task has another description."""
        write_json(self.task_file(result.task, variant), {"schema": SCHEMA_VERSION, **vars(result)})

    def finished(self, task: str, variant: str = "") -> Result | None:
        """A task's result, if it is there."""
        path = self.task_file(task, variant)
        return read_result(path) if path.exists() else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes strict JSON atomically; numbers of numpy become plain ones, NaN becomes null."""
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """JSON's own types; NaN and infinity become null, which strict JSON can say."""
    if isinstance(value, Cell):
        value = value.facts()
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


# ---------------------------------------------------------------- reading what a run left

# A mean of exact hundreds may come out a rounding beyond them.
Percent = Annotated[float, msgspec.Meta(ge=-1e-6, le=100 + 1e-6)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class StoredCell(Facts):
    """One number of a result file. Results may be a stranger's: types and bounds are checked."""

    value: Percent | None
    ci: Annotated[list[Percent | None], msgspec.Meta(min_length=2, max_length=2)]
    n: Count
    chance: Percent | None
    strict: Percent | UnsetType | None = UNSET

    def cell(self) -> Cell:
        strict = None if self.strict is UNSET else self.strict
        return Cell(self.value, *self.ci, self.n, self.chance, strict)


class StoredBlind(Facts):
    """What a task file says of scorers that see no picture (blind.py)."""

    source: str = ""
    ruler: dict[Name, Percent] = msgspec.field(default_factory=dict)
    bigram: dict[Name, Percent] = msgspec.field(default_factory=dict)
    free: dict[Name, Count] = msgspec.field(default_factory=dict)


class StoredFacts(msgspec.Struct):
    """What tables read of the facts of a task; the others are kept as they are."""

    suite: Name
    group: Literal["compositionality", "classification", "retrieval"]
    headline: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    chance: dict[str, Percent]
    decays: bool = False
    blind: StoredBlind = StoredBlind()


class StoredResult(Facts):
    """A `tasks/<task>.json` as it stands."""

    schema: int
    task: Name
    version: int
    kind: Literal["matching", "classification", "retrieval"]
    fingerprint: str
    n: Count
    expected: Count
    metrics: dict[str, dict[str, StoredCell]]
    headline: tuple[Name, ...]
    ties: Count
    nan: Count
    audits: dict[str, Any] = msgspec.field(default_factory=dict)
    official: dict[str, Any] = msgspec.field(default_factory=dict)
    flags: tuple[str, ...] = ()
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    parts: dict[str, str] = msgspec.field(default_factory=dict)
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class StoredRun(msgspec.Struct):
    """What tables read of a `run.json`."""

    model: Name


def read_result(path: Path) -> Result:
    """Reads a `tasks/<task>.json`. Raises UsageError, one line, when it is not one."""
    raw = read_json(path, dict[str, Any])
    if (schema := raw.get("schema")) != SCHEMA_VERSION:
        raise UsageError(f"{path}: schema {schema!r:.20}; this version reads {SCHEMA_VERSION}.")
    stored = typed(raw, StoredResult, str(path))
    facts = typed(stored.facts, StoredFacts, f"{path}: facts")
    if lacking := set(facts.headline) - set(facts.chance):
        raise UsageError(f"{path}: facts: 'chance' lacks {min(lacking)!r}, which 'headline' names.")
    fields = {name: getattr(stored, name) for name in stored.__struct_fields__ if name != "schema"}
    metrics = {
        node: {metric: cell.cell() for metric, cell in cells.items()}
        for node, cells in stored.metrics.items()
    }
    return Result(**{**fields, "metrics": metrics})


@dataclass(frozen=True)
class Run:
    """A run directory as the leaderboard reads it."""

    path: Path
    facts: Mapping[str, Any]
    results: Mapping[str, Result]

    @property
    def name(self) -> str:
        return self.facts.get("model", self.path.name)


def read_runs(folders: list[Path], complain: Callable[[str], Any] | None = None) -> list[Run]:
    """Every run in or below the folders, by path. Raises UsageError where a folder holds none.

    complain: told, in one line, of each file that is no result; the rest is read. Without it such a
    file raises UsageError.
    """
    runs = []
    for folder in folders:
        found = sorted({path.parent for path in folder.rglob("run.json")})
        if not found:
            raise UsageError(f"{folder}: no runs there. `fsc-bench run -o {folder}` makes some.")
        for path in found:
            try:
                facts = read_json(path / "run.json", dict)
                typed(facts, StoredRun, str(path / "run.json"))
            except UsageError as error:
                _told(error, complain)
                continue
            results = {}
            for file in sorted((path / "tasks").glob("*.json")):
                if file.stem.count("."):
                    continue  # of a part of the task, or of other prompts
                try:
                    result = read_result(file)
                except UsageError as error:
                    _told(error, complain)
                    continue
                results[result.task] = result
            runs.append(Run(path, facts, results))
    return runs


def _told(error: UsageError, complain: Callable[[str], Any] | None) -> None:
    if complain is None:
        raise error
    complain(str(error))
