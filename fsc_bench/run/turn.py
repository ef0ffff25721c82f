"""Turn: one model on all tasks. What stands is kept, the rest is encoded and scored.

The vectors lie in the store as soon as they are made, and a task's result on disk as soon as it is
scored: whatever stops a turn, the next one begins there. Asked to leave (SIGUSR1), it finishes the
task in hand.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.pairs import PairEncoder
from fsc_bench.embed.plan import Plan, make_plan, merged
from fsc_bench.embed.store import Store, StoreFull
from fsc_bench.errors import DataError, FscBenchError, UsageError
from fsc_bench.model import DualEncoder, PairScorer
from fsc_bench.results import Result, RunDirectory, Samples, plain, task_facts
from fsc_bench.run import pairs
from fsc_bench.run.job import Job, together, without
from fsc_bench.run.proof import difference, parts, sealed
from fsc_bench.run.provenance import run_facts
from fsc_bench.score.evaluate import evaluate

LOT = 4096  # images and texts: smaller tasks are encoded together until they make as many


def take_turn(
    spec: str, model: DualEncoder | PairScorer, directory: RunDirectory, job: Job
) -> None:
    """Scores a model that is ours on all tasks of the job, and writes into `directory`."""
    identity = model.identity.fingerprint
    there = [standing(directory, item, identity, job, model) for item in job.prepared]
    there = job.ranks.gather(there)[0]
    results = job.summary.results[spec] = {}
    todo: dict[str, str] = {}  # task -> why its result does not stand; empty: there is none
    for item, found in zip(job.prepared, there, strict=True):
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
    for place, (item, spent) in enumerate(_encoded(items, encoder, job), start=1):
        name, begun = item.task.name, time.monotonic() - spent  # a clock may be set back meanwhile
        job.note(spec, task=name)
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
        else:
            if scored is not None:  # process 0 writes
                _write(scored, directory, todo[name], job)
                seconds[name] = round(time.monotonic() - begun, 3)
                lock = job.options.lock
                facts = run_facts(spec, encoder.model, started, seconds, directory, lock)
                directory.write_run(facts)
                job.summary.results[spec][name] = scored[0]
                job.summary.written.append(spec)
                job.reporter.say(f"{spec}  {name}  {_brief(scored[0])}  ({seconds[name]:.1f} s)")
        if place < len(items) and job.leaves():
            return


def _write(scored: tuple[Result, Samples], directory: RunDirectory, why: str, job: Job) -> None:
    """Writes a result. why: the reason for which an older one does not stand, which is kept."""
    name = scored[0].task
    if why:
        _tell(f"{name}: {why}; scored anew, the old result is in superseded/.", job)
    directory.check_held()
    directory.set_aside(name, job.options.variant)
    directory.write_result(*scored, job.options.variant)


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
            begun = time.monotonic()
            lot.append(waiting.pop(0))
            with suppress(FscBenchError):
                plan = plan_of(lot[-1], job)
                if plan.size < LOT and (not plan.unreadable or job.options.allow_partial):
                    small.append(plan)
                # A large task ends the lot, but is encoded alone: the small ones are told first.
                full = plan.size >= LOT or sum(one.size for one in small) >= LOT
            seconds.append(time.monotonic() - begun)
        begun = time.monotonic()
        if len(small) > 1:
            with suppress(FscBenchError):
                name = f"{lot[0].task.name} and {len(small) - 1} more"
                _encode_together(merged(small), encoder, name, job)
        each = (time.monotonic() - begun) / len(lot)
        yield from ((item, spent + each) for item, spent in zip(lot, seconds, strict=True))


def plan_of(item: Prepared, job: Job) -> Plan:
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
    plan = plan_of(item, job)
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


def standing(
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
