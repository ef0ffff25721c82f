"""Run: every selected model on every selected task, from raw files to results on disk.

The same command again continues where it was stopped; with more tasks or models it extends; when
all is done it does nothing and says so. A finished result is never overwritten silently: one made
from another task version or other data is set aside under `superseded/`.
"""

import gc
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import Prepared, prepare
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.plan import Plan, make_plan, merged
from fsc_bench.embed.store import Store, StoreFull
from fsc_bench.errors import DataError, FscBenchError, RunError, UsageError
from fsc_bench.models import DualEncoder, load_model
from fsc_bench.results import Busy, Result, RunDirectory
from fsc_bench.run.claims import Claims
from fsc_bench.run.provenance import run_facts
from fsc_bench.score.evaluate import Embeddings, evaluate
from fsc_bench.system.distributed import Ranks, join, own_device
from fsc_bench.system.files import FULL
from fsc_bench.task import Task

LOT = 4096  # images and texts: smaller tasks are encoded together until they make as many


@dataclass(frozen=True)
class Options:
    """Everything `fsc-bench run` can be told besides models and tasks."""

    data: Path
    out: Path
    limit: int | None = None  # records a subset
    prompts: str | None = None
    allow_partial: bool = False
    precision: str = "fp32"
    batch_size: int = 0  # images at once; 0: found by trying
    device: str = "auto"
    compile: bool = False  # the image tower, on a GPU

    @property
    def rounding(self) -> str:
        """What beside its spec decides a model's bits; both together name it among commands."""
        return f"{self.precision}, compiled" if self.compile else self.precision

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
    ranks = join()
    reporter = reporter if reporter and ranks.first else Silent()
    try:
        gc.freeze()  # torch's objects stay: no collection need walk through all of them again
        return _run(models, tasks, options, reporter, ranks)
    except sqlite3.OperationalError as error:
        raise RunError(f"{options.data / 'digests.sqlite'}: cannot be used: {error}.") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise RunError(
            f"{error.filename or options.out}: {error.strerror or 'the disk is full'}. What is "
            "finished is safe; free some space, and the same command continues."
        ) from None
    finally:
        gc.unfreeze()


def _run(
    models: Sequence[str],
    tasks: Sequence[Task],
    options: Options,
    reporter: Reporter,
    ranks: Ranks,
) -> Summary:
    summary = Summary()
    images = Images(options.data)
    with ranks.first_goes_first():
        prepared = prepare_all(tasks, options, images, summary, reporter)
    if not prepared:
        return summary
    gc.freeze()  # so do the records, often a million
    cache = DigestCache(options.data / "digests.sqlite")
    job = Job(prepared, images, cache, options, summary, reporter, ranks)
    claims = Claims(options.out, options.rounding)
    # A model that another command holds is left for the end: it may be finished by then.
    waiting = list(models)
    for last_time in (False, True):
        busy = [spec for spec in waiting if not _run_claimed(spec, job, claims)]
        if last_time or len(busy) == len(models):
            break
        waiting = busy
    if len(busy) == len(models):
        raise Busy(
            f"{', '.join(busy)}: another run is writing here, in {options.out}. Wait for it, or "
            "use another -o folder."
        )
    for spec in busy:
        reporter.say(f"{spec}: left to the other run that works on it.")
    cache.close()
    ranks.wait()  # whoever goes on finds all results written
    return summary


@dataclass(frozen=True)
class Job:
    """What one `run` has at hand for all its models."""

    prepared: Sequence[Prepared]
    images: Images
    cache: DigestCache
    options: Options
    summary: Summary
    reporter: Reporter
    ranks: Ranks
    plans: dict[str, Plan] = field(default_factory=dict)


def _run_claimed(spec: str, job: Job, claims: Claims) -> bool:
    """Scores one model, unless another command is at it: then False."""
    first = job.ranks.first
    with claims.take(spec) if first else nullcontext(True) as mine:
        fingerprint = claims.finished_meanwhile(spec) if first and mine else None
        if fingerprint and _found_finished(spec, fingerprint, job):
            mine = None
        mine = job.ranks.gather(mine)[0]
        if mine is None:
            return True
        if not mine:
            return False
        # Models are loaded one at a time: one is in memory, however many are scored.
        options = job.options
        model = loaded(spec, options)
        for note in getattr(model, "notes", ()):
            job.reporter.say(note)
        fingerprint = model.identity.fingerprint
        directory = RunDirectory(options.out, spec, fingerprint)
        with ExitStack() as held:
            try:
                if first:
                    held.enter_context(directory.locked())
                free = True
            except Busy:
                free = False
            if not job.ranks.gather(free)[0]:
                return False
            job.summary.folders[spec] = directory.path
            job.summary.results[spec] = {}
            failed = len(job.summary.failures)
            _run_model(spec, model, directory, job)
            if first and len(job.summary.failures) == failed:
                claims.finish(spec, fingerprint)
    return True


def loaded(spec: str, options: Options) -> DualEncoder:
    model = load_model(spec, own_device(options.device), options.precision)
    if options.compile:
        if not str(getattr(model, "device", "cpu")).startswith("cuda"):
            raise UsageError(
                "--compile is for CUDA; compiling costs a CPU more than it saves. Leave it out."
            )
        if not hasattr(model, "compile"):
            raise UsageError(f"--compile: the family of model {spec!r} cannot. Leave it out.")
        model.compile()
    return model


def _found_finished(spec: str, fingerprint: str, job: Job) -> bool:
    """Takes over what another command finished since this one began."""
    directory = RunDirectory(job.options.out, spec, fingerprint)
    found = {item.task.name: finished_result(directory, item, job.options) for item in job.prepared}
    if None in found.values():
        return False
    job.summary.folders[spec] = directory.path
    job.summary.results[spec] = found
    job.summary.skipped += len(found)
    return True


def prepare_all(
    tasks: Sequence[Task],
    options: Options,
    images: Images,
    summary: Summary,
    reporter: Reporter,
) -> list[Prepared]:
    found = []
    for task in tasks:
        try:
            partial = options.allow_partial or task.data.decays
            item = prepare(task, options.data, partial=partial, images=images)
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


def _run_model(spec: str, model: DualEncoder, directory: RunDirectory, job: Job) -> None:
    started = time.time()
    options, summary, reporter, ranks = job.options, job.summary, job.reporter, job.ranks
    done = [finished_result(directory, item, options) for item in job.prepared]
    done = ranks.gather(done)[0]
    todo = [item for item, result in zip(job.prepared, done, strict=True) if result is None]
    for item, result in zip(job.prepared, done, strict=True):
        if result is not None:
            summary.results[spec][item.task.name] = result
            summary.skipped += 1
    if not todo:
        return
    store = Store(
        options.data / "embeddings" / model.identity.fingerprint[:32], vars(model.identity)
    )
    said = store.damage
    for line in said:
        reporter.say(line)
    encoder = Encoder(
        model, job.images, store, options.batch_size, reporter.say, (ranks.rank, ranks.count)
    )
    seconds: dict[str, float] = {}
    try:
        for item, spent in _encoded(todo, encoder, job):
            begun = time.time() - spent
            name = item.task.name
            try:
                scored = _score(item, encoder, job)
            except StoreFull:
                raise  # the next task would fail alike
            except FscBenchError as error:
                summary.failures.append((spec, name, error))
                reporter.say(f"fsc-bench: {error}")
                continue
            if scored is None:
                continue  # process 0 writes
            _set_aside(directory, name, options.variant)
            directory.write_result(*scored, options.variant)
            summary.results[spec][name] = scored[0]
            seconds[name] = round(time.time() - begun, 3)
            reporter.say(f"{spec}  {name}  {_brief(scored[0])}  ({seconds[name]:.1f} s)")
    finally:
        for line in store.damage:  # found while its vectors were read
            if line not in said:
                reporter.say(line)
        store.close()
    if ranks.first:
        directory.write_run(run_facts(spec, model, options.device, started, seconds, directory))


def _encoded(
    todo: Sequence[Prepared], encoder: Encoder, job: Job
) -> Iterator[tuple[Prepared, float]]:
    """The tasks in turn, each with the seconds that were spent on it so far.

    Small tasks are encoded several at once: each would end in batches that are not full. What goes
    wrong here goes wrong again, and is told, when the task it belongs to is scored.
    """
    waiting = list(todo)
    while waiting:
        lot, small, seconds, full = [], [], [], False
        while waiting and not full:
            begun = time.time()
            lot.append(waiting.pop(0))
            with suppress(FscBenchError):
                plan = _plan(lot[-1], job)
                if plan.size < LOT and (not plan.unreadable or job.options.allow_partial):
                    small.append(plan)
                # A large task ends the lot, but is encoded alone: the small ones are told first.
                full = plan.size >= LOT or sum(one.size for one in small) >= LOT
            seconds.append(time.time() - begun)
        begun = time.time()
        if len(small) > 1:
            with suppress(FscBenchError):
                name = f"{lot[0].task.name} and {len(small) - 1} more"
                _encode_together(merged(small), encoder, name, job)
        each = (time.time() - begun) / len(lot)
        yield from ((item, spent + each) for item, spent in zip(lot, seconds, strict=True))


def _plan(item: Prepared, job: Job) -> Plan:
    name = item.task.name
    if name not in job.plans:
        with job.ranks.first_goes_first():
            job.plans[name] = make_plan(
                item,
                job.images,
                job.cache,
                job.options.prompts,
                lambda done, total: job.reporter.progress(f"{name}: hash", done, total),
            )
    return job.plans[name]


def _score(item: Prepared, encoder: Encoder, job: Job) -> tuple[Result, Mapping[str, Any]] | None:
    """One task: plan, encode with all processes, and score in the first; None in the others."""
    name, options, ranks = item.task.name, job.options, job.ranks
    plan = _plan(item, job)
    broken = dict(plan.unreadable)
    if not broken or options.allow_partial:
        failures = _encode_together(plan, encoder, name, job)
        broken |= {place: failures[key] for place, key in plan.image_key.items() if key in failures}
    if broken:
        line = min(broken.values())
        more = f" ({len(broken) - 1:,} more like it)" if len(broken) > 1 else ""
        if not options.allow_partial:
            raise DataError(f"{line}{more} `--allow-partial` goes on without them.")
        item = _without(item, broken)
        if not item.records:
            raise DataError(f"{line}{more}")
    if not ranks.first:
        return None
    settings = {"limit": options.limit, "batch_size": encoder.batch}
    embeddings = Embeddings(plan, encoder.store)
    return evaluate(item, embeddings, encoder.model, options.prompts, settings)


def _encode_together(plan: Plan, encoder: Encoder, name: str, job: Job) -> dict[bytes, str]:
    """Every process encodes its share; all learn what was unreadable, or what stopped one."""
    error: FscBenchError | None = None
    failures: dict[bytes, str] = {}
    try:
        failures = encoder.encode(
            plan, lambda what, done, total: job.reporter.progress(f"{name}: {what}", done, total)
        )
    except FscBenchError as caught:
        error = caught
    everyone = job.ranks.gather((failures, error))
    for _, other in everyone:
        if other is not None:
            raise other
    return {key: line for found, _ in everyone for key, line in found.items()}


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
    return None if result.lacks_data and not item.partial else result


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


def check_writable(out: Path) -> None:
    """Says at once, not after an hour, that results cannot be written. Raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}.") from None
    if not os.access(out, os.W_OK):
        raise RunError(f"{out}: cannot be written: permission denied.")
