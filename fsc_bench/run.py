"""Run: every selected model on every selected task, from raw files to results on disk.

The same command again continues where it was stopped; with more tasks or models it extends; when all
is done it does nothing and says so. A finished result is never overwritten silently: one made from
another task version or other data is set aside under `superseded/`.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from fsc_bench import __version__
from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import Prepared, prepare
from fsc_bench.encode import encode
from fsc_bench.errors import DataError, FscBenchError, RunError
from fsc_bench.evaluate import Embeddings, evaluate
from fsc_bench.models import DualEncoder, load_model
from fsc_bench.plan import Plan, make_plan
from fsc_bench.results import Result, RunDirectory
from fsc_bench.store import Store
from fsc_bench.task import Task

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "transformers",
    "numpy",
    "pillow",
    "datasets",
)


@dataclass(frozen=True)
class Options:
    """Everything `fsc-bench run` can be told besides models and tasks."""

    data: Path
    out: Path
    limit: int | None = None  # records a subset
    prompts: str | None = None
    allow_partial: bool = False
    precision: str = "fp32"
    batch_size: int = 32
    device: str = "auto"

    @property
    def variant(self) -> str:
        """What a result's file name carries when it is not the standard one."""
        parts = [f".limit-{self.limit}" if self.limit else ""]
        parts += [f".prompts-{self.prompts}" if self.prompts else ""]
        return "".join(parts)


class Reporter(Protocol):
    """Who is told what goes on: the command line shows it, tests ignore it."""

    def say(self, line: str) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...


class Silent:
    """A reporter for library use."""

    def say(self, line: str) -> None:
        pass

    def progress(self, what: str, done: int, total: int) -> None:
        pass


@dataclass
class Summary:
    """What a run did: results by model and task, and what failed with the error to show."""

    folders: dict[str, Path] = field(default_factory=dict)
    results: dict[str, dict[str, Result]] = field(default_factory=dict)
    failures: list[tuple[str, str, FscBenchError]] = field(default_factory=list)
    skipped: int = 0

    @property
    def exit_code(self) -> int:
        return max((error.exit_code for _, _, error in self.failures), default=0)


def run(
    models: Sequence[str], tasks: Sequence[Task], options: Options, reporter: Reporter | None = None
) -> Summary:
    """Scores every model on every task. One task's failure does not stop the others."""
    reporter = reporter or Silent()
    summary = Summary()
    prepared = _prepare(tasks, options, summary, reporter)
    if not prepared:
        return summary
    images = Images(options.data)
    cache = DigestCache(options.data / "digests.sqlite")
    plans: dict[str, Plan] = {}
    for spec in models:
        # Models are loaded one at a time: one is in memory, however many are scored.
        model = load_model(spec, options.device, options.precision)
        for note in getattr(model, "notes", ()):
            reporter.say(note)
        directory = RunDirectory(options.out, spec, model.identity.fingerprint)
        summary.folders[spec] = directory.path
        summary.results[spec] = {}
        with directory.locked():
            _run_model(
                spec, model, prepared, directory, images, cache, plans, options, summary, reporter
            )
    cache.close()
    return summary


def _prepare(
    tasks: Sequence[Task], options: Options, summary: Summary, reporter: Reporter
) -> list[Prepared]:
    found = []
    for task in tasks:
        try:
            partial = options.allow_partial or task.data.decays
            item = prepare(task, options.data, partial=partial)
        except FscBenchError as error:
            summary.failures.append(("", task.name, error))
            reporter.say(f"fsc-bench: {error}")
            continue
        found.append(_limited(item, options.limit) if options.limit else item)
    return found


def _limited(item: Prepared, limit: int) -> Prepared:
    """At most `limit` records a subset, evenly spaced, so that every class and source is met."""
    by_subset: dict[str, list] = {}
    for row in item.records:
        if row.scored:
            by_subset.setdefault(row.subset, []).append(row)
    kept = []
    for rows in by_subset.values():
        n = min(limit, len(rows))
        kept += [rows[place * len(rows) // n] for place in range(n)]
    flag = f"limited to {limit:,} records a subset"
    partial = f"{item.partial}; {flag}" if item.partial else flag
    return replace(item, records=kept, partial=partial)


def _run_model(
    spec: str,
    model: DualEncoder,
    prepared: Sequence[Prepared],
    directory: RunDirectory,
    images: Images,
    cache: DigestCache,
    plans: dict[str, Plan],
    options: Options,
    summary: Summary,
    reporter: Reporter,
) -> None:
    started = time.time()
    todo = []
    for item in prepared:
        done = finished_result(directory, item, options)
        if done is None:
            todo.append(item)
        else:
            summary.results[spec][item.task.name] = done
            summary.skipped += 1
    if not todo:
        return
    store = Store(options.data / "embeddings" / model.identity.fingerprint[:32])
    seconds: dict[str, float] = {}
    for item in todo:
        begun = time.time()
        name = item.task.name
        try:
            if name not in plans:
                plans[name] = make_plan(
                    item,
                    images,
                    cache,
                    options.prompts,
                    lambda done, total, name=name: reporter.progress(f"{name}: hash", done, total),
                )
            result, samples = _score(
                spec, item, plans[name], model, images, store, options, reporter
            )
        except FscBenchError as error:
            summary.failures.append((spec, name, error))
            reporter.say(f"fsc-bench: {error}")
            continue
        _set_aside(directory, name, options.variant)
        directory.write_result(result, samples, options.variant)
        summary.results[spec][name] = result
        seconds[name] = round(time.time() - begun, 3)
        reporter.say(f"{spec}  {name}  {_brief(result)}  ({seconds[name]:.1f} s)")
    store.close()
    directory.write_run(run_facts(spec, model, options, started, seconds, directory))


def _score(
    spec: str,
    item: Prepared,
    plan: Plan,
    model: DualEncoder,
    images: Images,
    store: Store,
    options: Options,
    reporter: Reporter,
) -> tuple[Result, Mapping[str, Any]]:
    name = item.task.name
    broken = dict(plan.unreadable)
    if not broken:
        failures = encode(
            plan,
            model,
            images,
            store,
            options.batch_size,
            lambda what, done, total: reporter.progress(f"{name}: {what}", done, total),
        )
        broken = {place: failures[key] for place, key in plan.image_key.items() if key in failures}
    if broken:
        line = min(broken.values())
        more = f" ({len(broken) - 1:,} more like it)" if len(broken) > 1 else ""
        if not (options.allow_partial or item.task.data.decays):
            raise DataError(f"{line}{more} `--allow-partial` goes on without them.")
        item = _without(item, broken)
        if not item.records:
            raise DataError(f"{line}{more}")
    settings = {"limit": options.limit, "batch_size": options.batch_size}
    return evaluate(item, Embeddings(plan, store), model, options.prompts, settings)


def _without(item: Prepared, broken: Mapping) -> Prepared:
    """The records whose images can all be read, and a flag that says how many cannot."""
    refs = {place[1] for place in broken}
    kept = [row for row in item.records if not refs & set(row.images)]
    flag = f"{len(refs):,} images unreadable, {len(item.records) - len(kept):,} records out"
    partial = f"{item.partial}; {flag}" if item.partial else flag
    return replace(item, records=kept, partial=partial)


def finished_result(directory: RunDirectory, item: Prepared, options: Options) -> Result | None:
    """The result on disk, if it was made from this task version and these records."""
    result = directory.finished(item.task.name, options.variant)
    if result is None or result.version != item.task.version:
        return None
    if result.fingerprint != item.fingerprint:
        return None
    # A partial result is made anew when the data has become whole.
    return result if result.complete or item.partial else None


def _set_aside(directory: RunDirectory, name: str, variant: str) -> None:
    """Keeps a result that is about to be replaced."""
    old = directory.task_file(name, variant)
    if old.exists():
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(old.stat().st_mtime))
        folder = directory.path / "superseded"
        folder.mkdir(exist_ok=True)
        for file in (old, directory.samples_file(name, variant)):
            if file.exists():
                os.replace(file, folder / f"{file.stem}-{stamp}{file.suffix}")


def _brief(result: Result) -> str:
    parts = []
    for metric in result.headline:
        cell = result.metrics.get("headline", {}).get(metric)
        if cell:
            parts.append(f"{metric} {cell['value']:.1f} [{cell['ci'][0]:.1f}, {cell['ci'][1]:.1f}]")
    return " ".join(parts)


def run_facts(
    spec: str,
    model: DualEncoder,
    options: Options,
    started: float,
    seconds: Mapping[str, float],
    directory: RunDirectory,
) -> dict[str, Any]:
    """Provenance: which model, which code, which machine, which command."""
    import json

    earlier: dict[str, float] = {}
    if (directory.path / "run.json").exists():
        earlier = json.loads((directory.path / "run.json").read_text()).get("seconds", {})
    return {
        "model": spec,
        "identity": vars(model.identity),
        "fingerprint": model.identity.fingerprint,
        "notes": list(getattr(model, "notes", ())),
        "fsc_bench": __version__,
        "git": git_commit(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": getattr(model, "device", options.device),
        "precision": options.precision,
        "argv": sys.argv[1:],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {**earlier, **seconds},
    }


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with "-dirty" for changes; None for a wheel."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@dataclass(frozen=True)
class PlanRow:
    """One line of `--dry-run`."""

    task: str
    samples: int
    image_uses: int
    images: int
    text_uses: int
    texts: int
    problem: str = ""


def dry_run(
    tasks: Sequence[Task], options: Options, reporter: Reporter
) -> tuple[list[PlanRow], int]:
    """What a run would encode: a row a task and one for all together. Returns (rows, exit code)."""
    summary = Summary()
    cache = DigestCache(options.data / "digests.sqlite")
    images = Images(options.data)
    rows: list[PlanRow] = []
    all_images: set[bytes] = set()
    all_texts: set[bytes] = set()
    uses = [0, 0, 0]
    prepared = {item.task.name: item for item in _prepare(tasks, options, summary, Silent())}
    errors = {name: str(error) for _, name, error in summary.failures}
    for task in tasks:
        if task.name in errors:
            rows.append(PlanRow(task.name, task.n, 0, 0, 0, 0, errors[task.name]))
            continue
        item = prepared[task.name]
        plan = make_plan(
            item,
            images,
            cache,
            options.prompts,
            lambda done, total, name=task.name: reporter.progress(f"{name}: hash", done, total),
        )
        samples = sum(row.scored for row in item.records)
        rows.append(
            PlanRow(
                task.name,
                samples,
                plan.image_uses,
                len(plan.image_place),
                plan.text_uses,
                len(plan.text_key),
                min(plan.unreadable.values(), default=""),
            )
        )
        all_images.update(plan.image_place)
        all_texts.update(plan.text_key.values())
        uses = [uses[0] + samples, uses[1] + plan.image_uses, uses[2] + plan.text_uses]
    rows.append(PlanRow("all", uses[0], uses[1], len(all_images), uses[2], len(all_texts)))
    cache.close()
    return rows, summary.exit_code


def check_writable(out: Path) -> None:
    """Says at once, not after an hour, that results cannot be written. Raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}.") from None
    if not os.access(out, os.W_OK):
        raise RunError(f"{out}: cannot be written: permission denied.")
