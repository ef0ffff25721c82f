"""Run: every selected model on every selected task, from raw files to results on disk.

The same command again continues where it was stopped; with more tasks or models it extends; when
all is done it does nothing and says so. A result is used again only while all that decided it is
proved to be the same (proof.py); otherwise the task is scored anew, the reason is said, and the old
result is set aside under `superseded/`. A model or a task that fails stops no other.
"""

import os
import sqlite3
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.lock import check_held
from fsc_bench.data.prepare import Prepared, prepare
from fsc_bench.embed.plan import check_prompts
from fsc_bench.embed.store import StoreFull
from fsc_bench.errors import FscBenchError, RunError, UsageError, near_miss
from fsc_bench.model import DualEncoder, PairScorer, extras_of
from fsc_bench.models import PRECISIONS, check_named, load_model, pick_device
from fsc_bench.results import Busy, Result, RunDirectory
from fsc_bench.run.claims import Claim, Claims
from fsc_bench.run.job import Job, Options, Reporter, Silent, Summary, together
from fsc_bench.run.orders import write_order
from fsc_bench.run.turn import plan_of, standing, take_turn
from fsc_bench.system.distributed import Ranks, join, own_device
from fsc_bench.system.files import FULL
from fsc_bench.system.settings import working
from fsc_bench.task import Task


def run(
    models: Sequence[str], tasks: Sequence[Task], options: Options, reporter: Reporter | None = None
) -> Summary:
    """Scores every model on every task. One task's or model's failure does not stop the others.

    Raises UsageError for options that suit no model or task, before anything is read.
    """
    check_options(tasks, options)
    ranks = join()
    reporter = reporter if reporter and ranks.first else Silent()
    try:
        with working() as keep:
            return _run(models, tasks, options, reporter, ranks, keep)
    except sqlite3.OperationalError as error:
        raise RunError(f"{options.data / 'digests.sqlite'}: cannot be used: {error}.") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise RunError(
            f"{error.filename or options.out}: {error.strerror or 'the disk is full'}. What is "
            "finished is safe; free some space, and the same command continues."
        ) from None


def run_loaded(
    spec: str, model: DualEncoder, tasks: Sequence[Task], options: Options, reporter: Reporter
) -> Summary:
    """Scores a model that is in memory, in this process alone, whatever others torchrun started."""
    check_options(tasks, options)
    summary, images = Summary(), Images(options.data)
    with working() as keep:
        prepared = prepare_all(tasks, options, images, summary, reporter)
        if summary.failures:
            return summary
        keep()
        with closing(DigestCache(options.data / "digests.sqlite")) as cache:
            job = Job(prepared, images, cache, options, summary, reporter, Ranks())
            directory = RunDirectory(options.out, spec, model.identity.fingerprint)
            summary.folders[spec] = directory.path
            with directory.locked():
                take_turn(spec, model, directory, job)
    return summary


def check_options(tasks: Sequence[Task], options: Options) -> None:
    """Raises UsageError, before data are prepared, for what would stop every model."""
    check_prompts(options.prompts, tasks)
    if options.precision not in PRECISIONS:
        raise UsageError(
            f"precision {options.precision!r}: choose one of {', '.join(PRECISIONS)}."
            f"{near_miss(options.precision, PRECISIONS)}"
        )
    if options.device != "auto" or options.compile:
        device = pick_device(own_device(options.device))
        if options.compile and not device.startswith("cuda"):
            raise UsageError(
                "--compile is for CUDA; compiling costs a CPU more than it saves. Leave it out."
            )


def _run(
    models: Sequence[str],
    tasks: Sequence[Task],
    options: Options,
    reporter: Reporter,
    ranks: Ranks,
    keep: Callable[[], None],
) -> Summary:
    summary = Summary()
    specs = well_formed(models, summary, reporter)
    images, prepared = Images(options.data), []
    with ranks.first_goes_first() if specs else nullcontext():
        prepared = prepare_all(tasks if specs else [], options, images, summary, reporter)
    if ranks.first:
        told = options.rounding, options.variant
        write_order(models, tasks, options.out, told, summary.failures)
    if not prepared:
        return summary
    keep()  # the records stay, often a million
    with closing(DigestCache(options.data / "digests.sqlite")) as cache:
        claims = Claims(options.out, options.rounding)
        job = Job(prepared, images, cache, options, summary, reporter, ranks, claims.note)
        for item in prepared:
            with suppress(FscBenchError):  # told when the task is scored
                plan_of(item, job)
        with claims.begun() if ranks.first else nullcontext():
            _run_models(specs, job, claims)
    ranks.wait()  # whoever goes on finds all results written
    return summary


def well_formed(models: Sequence[str], summary: Summary, reporter: Reporter) -> list[str]:
    """The models whose names hold, each once; a misspelt one is told before data are prepared."""
    specs = []
    for spec in dict.fromkeys(models):
        try:
            check_named(spec)
        except FscBenchError as error:
            summary.failures.append((spec, "", error))
            reporter.say(f"fsc-bench: {error}")
        else:
            specs.append(spec)
    return specs


def _run_models(specs: Sequence[str], job: Job, claims: Claims) -> None:
    """Scores the models in turn. One that another command holds is left for the end: it may be
    finished by then, or its command gone.
    """
    busy = _run_each(specs, job, claims)
    theirs: set[str] = set()  # taken and lost again, or their folder is another model's too
    while busy and not job.summary.left:
        wanted = [spec for spec in busy if spec not in theirs]
        free = job.ranks.gather(claims.to_be_had(wanted) if job.ranks.first else None)[0]
        if not free:
            break
        still = _run_each(free, job, claims)
        theirs |= set(still)
        busy = [spec for spec in busy if spec not in free or spec in still]
    if job.summary.left:
        return
    if len(busy) == len(specs):
        raise Busy(
            f"{', '.join(busy)}: another run is writing here, in {job.options.out}. Wait for it, "
            "or use another -o folder."
        )
    for spec in busy:
        job.reporter.say(f"{spec}: left to the other run that works on it.")


def _run_each(specs: Sequence[str], job: Job, claims: Claims) -> list[str]:
    """Those of the models that another command holds, after the others were scored."""
    busy = []
    for spec in specs:
        if job.leaves():
            break
        if not _run_claimed(spec, job, claims):
            busy.append(spec)
    return busy


def _run_claimed(spec: str, job: Job, claims: Claims) -> bool:
    """Scores one model, unless another command is at it: then False."""
    first, failures = job.ranks.first, job.summary.failures
    with claims.take(spec) if first else nullcontext(True) as taken:
        claim = _claim(spec, taken, job, claims) if first else None
        claim = job.ranks.gather(claim)[0]  # as process 0 has it
        if claim is not Claim.OURS:
            return claim is Claim.FINISHED
        before = len(failures)
        try:
            fingerprint = _run_told(spec, job, claims)
        except Busy:
            return False
        if first:
            claims.fail(spec, [(task, error) for _, task, error in failures[before:]])
            if fingerprint and len(failures) == before and not job.summary.left:
                claims.finish(spec, fingerprint)
    return True


def _run_told(spec: str, job: Job, claims: Claims) -> str:
    """Scores a model that is ours and gives its fingerprint. What goes wrong with it is told and
    noted, and the fingerprint empty; the others go on. Raises Busy where its folder is another's.
    """
    try:
        return _load_and_run(spec, job, claims)
    except (StoreFull, Busy):
        raise  # of the first the next model would die alike
    except FscBenchError as error:
        failure, told = error, f"fsc-bench: {error}"
    except (OSError, sqlite3.OperationalError, MemoryError):
        raise
    except Exception as error:
        if job.ranks.count > 1:
            raise  # the other processes wait for this one: they cannot go on without it
        told = "".join(traceback.format_exception(error)).rstrip()
        failure = RunError(f"{spec}: {type(error).__name__}: {error}")
        failure.__cause__ = error
    job.summary.failures.append((spec, "", failure))
    for line in told.splitlines():
        job.reporter.say(line)
    return ""


def _load_and_run(spec: str, job: Job, claims: Claims) -> str:
    first, ranks = job.ranks.first, job.ranks
    # Models are loaded one at a time: one is in memory, however many are scored.
    model = together(ranks, lambda: loaded(spec, job.options))
    for note in extras_of(model).notes:
        job.reporter.say(note)
    fingerprint = model.identity.fingerprint
    directory = RunDirectory(job.options.out, spec, fingerprint)
    with ExitStack() as held:
        together(ranks, lambda: first and held.enter_context(directory.locked()))
        claims.note(spec, fingerprint=fingerprint)
        job.summary.folders[spec] = directory.path
        take_turn(spec, model, directory, job)
    return fingerprint


def _claim(spec: str, taken: bool, job: Job, claims: Claims) -> Claim:
    """Whose the model is, now that it was claimed or was not to be had."""
    if not taken:
        return Claim.THEIRS
    fingerprint = claims.finished_meanwhile(spec)
    if fingerprint and _found_finished(spec, fingerprint, job):
        return Claim.FINISHED
    return Claim.OURS


def loaded(spec: str, options: Options) -> DualEncoder | PairScorer:
    model = load_model(spec, own_device(options.device), options.precision)
    if options.compile:
        compile_towers = extras_of(model).compile
        if compile_towers is None:
            raise UsageError(f"--compile: the family of model {spec!r} cannot. Leave it out.")
        compile_towers()
    return model


def _found_finished(spec: str, fingerprint: str, job: Job) -> bool:
    """Takes over what another command finished since this one began."""
    directory = RunDirectory(job.options.out, spec, fingerprint)
    found = {item.task.name: standing(directory, item, fingerprint, job) for item in job.prepared}
    if not all(isinstance(result, Result) for result in found.values()):
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
            if options.lock:
                check_held(task, options.data, options.lock)
            partial = options.allow_partial or task.data.decays
            item = prepare(task, options.data, partial=partial, images=images, say=reporter.say)
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


def check_writable(out: Path) -> None:
    """Says at once, not after an hour, that results cannot be written. Raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}.") from None
    if not os.access(out, os.W_OK):
        raise RunError(f"{out}: cannot be written: permission denied.")
