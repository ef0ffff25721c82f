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

A samples file has one row a sample and these columns (list columns are lists of one row):

    id, subset, cluster, stratum   of the record; cluster: the source image as the reader names it
    source                         16 digits of the picture's content; empty where there are several
    images, image_digests          "source:path[box]" of each picture, and 16 digits of its content
    texts                          its captions; empty for classification
    tie                            a right answer ties with a different one
  matching
    scores                         [images x texts], row by row; image i belongs with text i:
                                   cosines, or what a model that scores pairs gives (any scale)
    correct_text, _image, _group, _groupmatch, _accuracy    hits, where the record asks that
    right_texts, text_scores       where several are right: how many; the cosines of each text with
                                   those behind it, of models that give vectors
    correct_caption, _drop, _tot   the first right text alone; lost by the others; text to text
    free, easier                   every option is right; fewer different options than promised
  classification
    labels, label_names, prediction, prediction_name        of the classes, in the task's order
    score_label, score_best_other  the right class's score, and the best different one's
    scores                         all of them, of two classes or where an image has several labels
    pair_scores                    instead, where pairs are scored and images have several labels
    correct, correct_top5          hits
  retrieval
    i2t_rank, t2i_rank             of the best caption; of the image, for each of its captions
    correct                        i2t_rank is 1

Its metadata holds the headline's value in each bootstrap replicate: "draws of METRIC", base64 of
little-endian float32.
"""

import json
import os
import re
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from msgspec import UNSET

from fsc_bench.errors import UsageError, reason
from fsc_bench.result_file import (
    StoredCell,
    StoredFacts,
    StoredResult,
    StoredRun,
    check_facts,
    check_names,
)
from fsc_bench.system.escape import for_terminal, shortened
from fsc_bench.system.facts import check_name, read_json, typed
from fsc_bench.system.files import write_atomically, write_text
from fsc_bench.system.lease import Lease
from fsc_bench.task import Task, is_shipped

SCHEMA_VERSION = 1
DRAWS = "draws of "  # what a key of a samples file's metadata begins with
LISTS_OF_STRINGS = ("images", "image_digests", "texts", "label_names")  # of a samples file


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
    `equal_classes`, `truncated_texts`, `equal_after_tokenizing`, `missing_images`, `tot_ties`; and
    `lacks`: why a metric of the headline has no number, by metric.
    official: "headline", as the official scorer counts ties, where the task file says that it
    differs; or "metrics", those of another program, in percent by name; "source" says whose.
    blindness: {"mean_image", "shuffled_images": {metric: percent}}, the headline with every picture
    replaced by the mean of all, and by another one: what the model's texts alone decide.
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
    blindness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)  # `fingerprint` is the hash of these
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the task: `task_facts`

    @property
    def complete(self) -> bool:
        """Whether the number may stand in an average: every promised sample was scored."""
        return not self.flags

    @property
    def lacks(self) -> Mapping[str, str]:
        """Why a metric has no number, by metric: a model that cannot have it is told so."""
        found = self.audits.get("lacks", {})
        items = found.items() if isinstance(found, Mapping) else ()
        return {str(metric): str(why) for metric, why in items}

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
    """The samples file: columns, one value a sample, and what sums them up (per-class recall).

    draws: by headline metric, its value in each replicate of the bootstrap, percent [replicates].
    The draws of an image are the same in every task and run: averages and differences follow.
    """

    columns: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)
    draws: Mapping[str, Any] = field(default_factory=dict)


def slug(spec: str) -> str:
    """A model's name as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", spec).strip("-.")[:80]


class RunDirectory:
    """`<out>/<model>-<identity8>`: one model's results."""

    lease: Lease | None = None  # while we hold it

    def __init__(self, out: Path, spec: str, fingerprint: str):
        self.path = out / f"{slug(spec)}-{fingerprint[:8]}"

    @classmethod
    def at(cls, path: Path) -> "RunDirectory":
        """A run's folder that is there."""
        found = cls.__new__(cls)
        found.path = path
        return found

    def task_file(self, task: str, variant: str = "") -> Path:
        return self.path / "tasks" / f"{task}{variant}.json"

    def samples_file(self, task: str, variant: str = "") -> Path:
        return self.path / "samples" / f"{task}{variant}.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's folder. Raises Busy when another process has it, UsageError where nothing
        can be written.
        """
        lease = Lease(self.path / ".held")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "Permission denied")
            taken = lease.take_patiently()
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}.") from None
        if not taken:
            raise Busy(
                f"{self.path}: another run is writing here. Wait for it, or use another -o folder."
            )
        self.lease = lease
        try:
            yield
        finally:
            self.lease = None
            lease.give_back()

    def check_held(self) -> None:
        """Raises Busy where this process stood still for so long that another took its place."""
        if self.lease and self.lease.lost():
            raise Busy(f"{self.path}: this run stood still, and another one took its place.")

    def write_run(self, facts: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", {"schema": SCHEMA_VERSION, **facts})

    def write_result(self, result: Result, samples: Samples, variant: str = "") -> None:
        """Samples first, then the result: a task is finished when its JSON exists."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.samples_file(result.task, variant)
        strings = pa.list_(pa.string())  # where every list is empty nothing else says of what
        table = pa.table(
            {
                name: pa.array(values, strings) if name in LISTS_OF_STRINGS else values
                for name, values in samples.columns.items()
            }
        )
        facts = {"fsc_bench": json.dumps(plain(samples.summary))} if samples.summary else {}
        for metric, drawn in samples.draws.items():
            facts[f"{DRAWS}{metric}"] = b64encode(drawn.astype("<f4").tobytes())
        table = table.replace_schema_metadata(facts)
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


def read_result(path: Path) -> Result:
    """Reads a `tasks/<task>.json`, which may be a stranger's.

    Raises UsageError, one line, when it is not one: a wrong type, a number out of range or without
    its interval, a name that is no printable line, facts that contradict the result.
    """
    raw = read_json(path, dict[str, Any])
    if (schema := raw.get("schema")) != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema {shortened(schema, 20)}; this version reads {SCHEMA_VERSION}."
        )
    stored = typed(raw, StoredResult, str(path))
    facts = typed(stored.facts, StoredFacts, f"{path}: facts")
    check_facts(path, stored, facts)
    check_names(path, stored, facts)
    metrics = {
        node: {
            metric: _cell(cell, f"{path}: metrics.{node}.{metric}")
            for metric, cell in cells.items()
        }
        for node, cells in stored.metrics.items()
    }
    fields = {name: getattr(stored, name) for name in stored.__struct_fields__ if name != "schema"}
    flags = tuple(for_terminal(flag) for flag in stored.flags)
    return Result(**{**fields, "metrics": metrics, "flags": flags})


def _cell(stored: StoredCell, where: str) -> Cell:
    """Raises UsageError where the interval is half there or does not hold the value."""
    stored.check(where)
    strict = None if stored.strict is UNSET else stored.strict
    return Cell(stored.value, *stored.ci, stored.n, stored.chance, strict)


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
    """Every run in or below the folders, each once, by path.

    complain: told, in one printable line, of each file that is no result; the rest is read. Without
    it such a file raises UsageError. Raises UsageError where a folder holds no run at all.
    """
    runs = []
    seen: set[Path] = set()
    for folder in folders:
        found = _run_folders(folder)
        if not found:
            raise UsageError(f"{folder}: no runs there. `fsc-bench run -o {folder}` makes some.")
        for path in found:
            real = path.resolve()
            if real not in seen and (run := _read_run(path, complain)):
                runs.append(run)
            seen.add(real)
    return runs


def draws_of(
    folder: Path, tasks: Iterable[str], complain: Callable[[str], Any], variant: str = ""
) -> dict[str, dict[str, Any]]:
    """The headlines' draws of a run's tasks, by task and metric (`read_draws`). complain: told in
    one line where they cannot be had.
    """
    directory, found = RunDirectory.at(folder), {}
    for task in tasks:
        try:
            found[task] = read_draws(directory.samples_file(task, variant))
        except UsageError as error:
            complain(str(error))
    return found


def read_draws(path: Path) -> dict[str, Any]:
    """The headline's draws that a samples file holds: metric -> float64 [replicates]; empty where
    there are none. Raises UsageError, one line, where they cannot be read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = {}
    try:
        for key, value in (pq.read_schema(path).metadata or {}).items():
            if key.startswith(DRAWS.encode()):
                drawn = np.frombuffer(b64decode(value, validate=True), "<f4").astype(float)
                if ((drawn < -1e-3) | (drawn > 100 + 1e-3)).any():
                    raise ValueError("percentages beyond 0 to 100")
                found[key.decode().removeprefix(DRAWS)] = drawn
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path}: its draws cannot be read ({reason}).") from None
    return found


def _run_folders(folder: Path) -> list[Path]:
    try:
        return sorted({path.parent for path in folder.rglob("run.json")})
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {reason(error)}.") from None


def _read_run(path: Path, complain: Callable[[str], Any] | None) -> Run | None:
    """A run directory; None where its `run.json` does not fit and was complained of."""
    try:
        facts = read_run_facts(path)
        files = sorted((path / "tasks").glob("*.json"))
    except OSError as error:
        _told(UsageError(f"{path}: cannot be read: {reason(error)}."), complain)
        return None
    except UsageError as error:
        _told(error, complain)
        return None
    results = {}
    for file in files:
        if file.stem.count("."):
            continue  # of a part of the task, or of other prompts
        try:
            result = read_result(file)
        except UsageError as error:
            _told(error, complain)
            continue
        results[result.task] = result
    return Run(path, facts, results)


def read_run_facts(folder: Path) -> dict[str, Any]:
    """A run's `run.json`, which may be a stranger's. Raises UsageError, one line."""
    path = folder / "run.json"
    facts = read_json(path, dict[str, Any])
    stored = typed(facts, StoredRun, str(path))
    check_name(stored.model, f"{path}: 'model'")
    return facts


def _told(error: UsageError, complain: Callable[[str], Any] | None) -> None:
    if complain is None:
        raise error
    complain(for_terminal(str(error)))
