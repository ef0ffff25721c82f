"""Run: every selected model on every selected task, from raw files to results on disk.

The same command again continues where it was stopped; with more tasks or models it extends; when
all is done it does nothing and says so. A result is used again only while all that decided it is
proved to be the same (proof.py); otherwise the task is scored anew, the reason is said, and the old
result is set aside under `superseded/`. A model or a task that fails stops no other.
"""

import os
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import Prepared, prepare
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.pairs import PairEncoder
from fsc_bench.embed.plan import Plan, check_prompts, make_plan, merged
from fsc_bench.embed.store import Store, StoreFull
from fsc_bench.errors import DataError, FscBenchError, RunError, UsageError, near_miss
from fsc_bench.model import DualEncoder, PairScorer, extras_of
from fsc_bench.models import PRECISIONS, check_named, load_model, pick_device
from fsc_bench.results import Busy, Result, RunDirectory, Samples, plain, task_facts
from fsc_bench.run import pairs
from fsc_bench.run.claims import Claim, Claims
from fsc_bench.run.job import Job, Options, Reporter, Silent, Summary, together, without
from fsc_bench.run.proof import difference, parts, sealed
from fsc_bench.run.provenance import run_facts
from fsc_bench.score.evaluate import evaluate
from fsc_bench.system.distributed import Ranks, join, own_device
from fsc_bench.system.files import FULL
from fsc_bench.system.settings import working
from fsc_bench.task import Task

LOT = 4096  # images and texts: smaller tasks are encoded together until they make as many


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
                _run_model(spec, model, directory, job)
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
    if not specs:
        return summary
    images = Images(options.data)
    with ranks.first_goes_first():
        prepared = prepare_all(tasks, options, images, summary, reporter)
    if not prepared:
        return summary
    keep()  # the records stay, often a million
    with closing(DigestCache(options.data / "digests.sqlite")) as cache:
        job = Job(prepared, images, cache, options, summary, reporter, ranks)
        for item in prepared:
            with suppress(FscBenchError):  # told when the task is scored
                _plan(item, job)
        claims = Claims(options.out, options.rounding)
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
    finished by then.
    """
    waiting = specs
    for last_time in (False, True):
        busy = [spec for spec in waiting if not _run_claimed(spec, job, claims)]
        if last_time or len(busy) == len(specs):
            break
        waiting = busy
    if len(busy) == len(specs):
        raise Busy(
            f"{', '.join(busy)}: another run is writing here, in {job.options.out}. Wait for it, "
            "or use another -o folder."
        )
    for spec in busy:
        job.reporter.say(f"{spec}: left to the other run that works on it.")


def _run_claimed(spec: str, job: Job, claims: Claims) -> bool:
    """Scores one model, unless another command is at it: then False. What goes wrong with it is
    told and noted; the others go on.
    """
    try:
        return _take_and_run(spec, job, claims)
    except StoreFull:
        raise  # the next model would fail alike
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
    return True


def _take_and_run(spec: str, job: Job, claims: Claims) -> bool:
    first, ranks = job.ranks.first, job.ranks
    with claims.take(spec) if first else nullcontext(True) as taken:
        claim = _claim(spec, taken, job, claims) if first else None
        claim = ranks.gather(claim)[0]  # as process 0 has it
        if claim is not Claim.OURS:
            return claim is Claim.FINISHED
        # Models are loaded one at a time: one is in memory, however many are scored.
        model = together(ranks, lambda: loaded(spec, job.options))
        for note in extras_of(model).notes:
            job.reporter.say(note)
        fingerprint = model.identity.fingerprint
        directory = RunDirectory(job.options.out, spec, fingerprint)
        with ExitStack() as held:
            try:
                together(ranks, lambda: first and held.enter_context(directory.locked()))
            except Busy:
                return False
            job.summary.folders[spec] = directory.path
            failed = len(job.summary.failures)
            _run_model(spec, model, directory, job)
            if first and len(job.summary.failures) == failed:
                claims.finish(spec, fingerprint)
    return True


def _claim(spec: str, taken: bool, job: Job, claims: Claims) -> Claim:
    """Whose the model is, now that its lock was taken or was not to be had."""
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
    found = {item.task.name: _standing(directory, item, fingerprint, job) for item in job.prepared}
    if not all(isinstance(result, Result) for result in found.values()):
        return False
    job.summary.folders[spec] = directory.path
    job.summary.results[spec] = found
    job.summary.skipped += len(found)
    return True


def _standing(
    directory: RunDirectory,
    item: Prepared,
    identity: str,
    job: Job,
    model: DualEncoder | PairScorer | None = None,
) -> Result | str:
    """The result on disk, if all that decides its number is still the same; otherwise why not,
    as the end of a sentence (empty: there is none). identity: the model's fingerprint. model: where
    it is loaded; the results of one that scores pairs stand only then.
    """
    name, options = item.task.name, job.options
    try:
        result = directory.finished(name, options.variant)
    except UsageError:
        return "its file cannot be read"
    plan = job.plans.get(name)
    if result is None or plan is None:
        return ""
    found = parts(item, plan, identity, options.prompts, pairs.deciding(model, item.task))
    samples = directory.samples_file(name, options.variant)
    if why := difference(result, found, item, plan, samples):
        return why
    if result.settings.get("unreadable_images") and not options.allow_partial:
        return "unreadable pictures are accepted with --allow-partial only"
    return result


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


def _run_model(
    spec: str, model: DualEncoder | PairScorer, directory: RunDirectory, job: Job
) -> None:
    identity = model.identity.fingerprint
    standing = [_standing(directory, item, identity, job, model) for item in job.prepared]
    standing = job.ranks.gather(standing)[0]
    results = job.summary.results[spec] = {}
    todo: dict[str, str] = {}  # task -> why its result does not stand; empty: there is none
    for item, found in zip(job.prepared, standing, strict=True):
        if isinstance(found, Result):
            results[item.task.name] = _described(found, item, directory, job)
            job.summary.skipped += 1
        else:
            todo[item.task.name] = found
    if not todo:
        return
    folder = job.options.store / identity[:32]
    with closing(Store(folder, vars(model.identity))) as store:
        said = set(store.damage)
        for line in store.damage:
            job.reporter.say(line)
        try:
            with pairs.at_work(model, store, job) as encoder:
                _score_all(spec, encoder, directory, todo, job)
        finally:
            for line in store.damage:  # found while its vectors were read
                if line not in said:
                    job.reporter.say(line)


def _score_all(
    spec: str, encoder: Encoder, directory: RunDirectory, todo: Mapping[str, str], job: Job
) -> None:
    """Scores the tasks named in `todo` (task -> why its old result does not stand) and writes."""
    started, seconds = time.time(), {}
    failed: set[str] = set()
    items = [item for item in job.prepared if item.task.name in todo]
    for item, spent in _encoded(items, encoder, job):
        begun = time.time() - spent
        name = item.task.name
        try:
            scored = _score(spec, item, encoder, job)
        except StoreFull:
            raise  # the next task would fail alike
        except FscBenchError as error:
            whose = "" if isinstance(error, DataError) else f"{spec}, {name}: "
            job.summary.failures.append((spec, name, error))
            if isinstance(error, UsageError) and str(error) in failed:
                job.reporter.say(f"{spec}: stopped; it fails alike with every task.")
                return
            job.reporter.say(f"fsc-bench: {whose}{error}")
            failed.add(str(error))
            continue
        if scored is None:
            continue  # process 0 writes
        if todo[name]:
            _tell(f"{name}: {todo[name]}; scored anew, the old result is in superseded/.", job)
        directory.set_aside(name, job.options.variant)
        directory.write_result(*scored, job.options.variant)
        seconds[name] = round(time.time() - begun, 3)
        directory.write_run(run_facts(spec, encoder.model, started, seconds, directory))
        job.summary.results[spec][name] = scored[0]
        job.summary.written.append(spec)
        job.reporter.say(f"{spec}  {name}  {_brief(scored[0])}  ({seconds[name]:.1f} s)")


def _described(found: Result, item: Prepared, directory: RunDirectory, job: Job) -> Result:
    """A result that stands, with its task's title, references and so on as they are now."""
    facts = plain(task_facts(item.task))
    if found.facts == facts:
        return found
    found = replace(found, facts=facts)
    if job.ranks.first:
        directory.write_facts(found, job.options.variant)
    return found


def _tell(line: str, job: Job) -> None:
    """Says a line that is the same for every model once."""
    if line not in job.told:
        job.told.add(line)
        job.reporter.say(line)


def _encoded(
    todo: Sequence[Prepared], encoder: Encoder, job: Job
) -> Iterator[tuple[Prepared, float]]:
    """The tasks in turn, each with the seconds that were spent on it so far.

    Small tasks are encoded several at once: each would end in batches that are not full. What goes
    wrong here goes wrong again, and is told, when the task it belongs to is scored. Pairs are told
    task by task.
    """
    if isinstance(encoder, PairEncoder):
        yield from ((item, 0.0) for item in todo)
        return
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


def _score(spec: str, item: Prepared, encoder: Encoder, job: Job) -> tuple[Result, Samples] | None:
    """One task: plan, encode with all processes, and score in the first; None in the others."""
    options, ranks = job.options, job.ranks
    plan = _plan(item, job)
    readable, broken = item, dict(plan.unreadable)
    if not broken or options.allow_partial:
        failures = _worked_out(spec, item, plan, encoder, job)
        broken |= {place: failures[key] for place, key in plan.image_key.items() if key in failures}
    if broken:
        line = min(broken.values())
        more = f" ({len(broken) - 1:,} more like it)" if len(broken) > 1 else ""
        if not options.allow_partial:
            raise DataError(f"{line}{more} `--allow-partial` goes on without them.")
        readable = without(item, broken)
        if not readable.records:
            raise DataError(f"{line}{more}")
    if not ranks.first:
        return None
    model = encoder.model
    settings = {"limit": options.limit, "batch_size": encoder.batch, **pairs.told(model, item.task)}
    settings |= {"unreadable_images": len(broken)} if broken else {}
    settings |= {} if encoder.exact else {"exact": False}
    embeddings, scores = pairs.embeddings_of(plan, encoder), pairs.scores_of(plan, encoder)
    scored = evaluate(readable, embeddings, model, options.prompts, settings, scores)
    further = pairs.deciding(model, item.task)
    found = parts(item, plan, model.identity.fingerprint, options.prompts, further)
    return sealed(*scored, readable, plan, found)


def _worked_out(
    spec: str, item: Prepared, plan: Plan, encoder: Encoder, job: Job
) -> dict[bytes, str]:
    """Every process encodes its share, or scores its share of the pairs; see `_encode_together`."""

    def encode(plan: Plan, encoder: Encoder) -> dict[bytes, str]:
        return _encode_together(plan, encoder, item.task.name, job)

    if not isinstance(encoder, PairEncoder):
        return encode(plan, encoder)
    pairs.check_first(encoder, item.task, spec)
    return pairs.score_together(item, plan, encoder, job, encode)


def _encode_together(plan: Plan, encoder: Encoder, name: str, job: Job) -> dict[bytes, str]:
    """Every process encodes its share; all learn what was unreadable, or what stopped one."""

    def progress(what: str, done: int, total: int) -> None:
        job.reporter.progress(f"{name}: {what}", done, total)

    failures = together(job.ranks, lambda: encoder.encode(plan, progress))
    return {key: line for found in job.ranks.gather(failures) for key, line in found.items()}


def _brief(result: Result) -> str:
    parts = []
    for metric in result.headline:
        cell = result.metrics.get("headline", {}).get(metric)
        if cell:
            parts.append(f"{metric} {cell.value:.1f} {cell.interval}")
    return " ".join(parts)


def check_writable(out: Path) -> None:
    """Says at once, not after an hour, that results cannot be written. Raises RunError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}.") from None
    if not os.access(out, os.W_OK):
        raise RunError(f"{out}: cannot be written: permission denied.")
