"""Orders: what commands were told to score into an output folder; `fsc-bench status` reads them.

    <out>/.claims/asked/<hash>.json     one for each set of models, tasks and options

The same command again, or in an array of jobs, writes the same file. What went wrong before any
model was read stands in it: a name that is none, a task whose data are missing.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fsc_bench.errors import FscBenchError, UsageError
from fsc_bench.run.claims import CLAIMS
from fsc_bench.system.facts import Facts, read_json
from fsc_bench.system.files import write_json
from fsc_bench.task import Task


class Failure(Facts, frozen=True):
    """What failed. An empty model: every one; an empty task: every one."""

    error: str
    code: int
    task: str = ""
    model: str = ""


class Order(Facts, frozen=True):
    """What one command was told. tasks: name -> version of the task file."""

    models: tuple[str, ...]
    tasks: dict[str, int]
    precision: str
    variant: str
    failures: tuple[Failure, ...] = ()


class Failed(Facts, frozen=True):
    """What went wrong with one model when it was scored last."""

    model: str
    precision: str
    failures: tuple[Failure, ...]


def write_order(
    models: Sequence[str],
    tasks: Iterable[Task],
    out: Path,
    told: tuple[str, str],
    failures: Iterable[tuple[str, str, FscBenchError]],
) -> None:
    """Remembers what a command begins with. told: precision and variant (run/job.py)."""
    what = {
        "models": list(dict.fromkeys(models)),
        "tasks": {task.name: task.version for task in tasks},
        "precision": told[0],
        "variant": told[1],
    }
    name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    rows = [
        {"model": model, "task": task, "error": str(error), "code": error.exit_code}
        for model, task, error in failures
    ]
    write_json(out / CLAIMS / "asked" / f"{name}.json", {**what, "failures": rows})


def read_orders(out: Path) -> list[Order]:
    """Every order of a folder; what is no order, or just goes, is passed over."""
    return _read(sorted((out / CLAIMS / "asked").glob("*.json")), Order)


def read_failed(out: Path) -> list[Failed]:
    """What went wrong with models, each as it was scored last."""
    return _read(sorted((out / CLAIMS).glob("*/failed.json")), Failed)


def _read(files: Iterable[Path], kind: type) -> list:
    found = []
    for file in files:
        try:
            found.append(read_json(file, kind))
        except UsageError:
            continue
    return found
