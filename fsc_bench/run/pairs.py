"""Pairs: what a run does otherwise for a model that scores pairs of images and texts.

Every pair of a task is scored once, whatever else wants it; retrieval needs the vectors of the
first stage before it is known which pairs those are. What decides a number beside the model stands
in the result: `settings` has `scorer`, and of retrieval `first_stage` and `depth`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.pairs import PairEncoder, PairScores
from fsc_bench.embed.plan import SINGLE, Plan
from fsc_bench.embed.store import Store
from fsc_bench.errors import UsageError
from fsc_bench.model import DualEncoder, PairScorer, depth_of, is_pair_scorer
from fsc_bench.run.job import Job, together, without
from fsc_bench.score.evaluate import Embeddings, wanted_pairs
from fsc_bench.task import Task


@contextmanager
def at_work(model: DualEncoder | PairScorer, store: Store, job: Job) -> Iterator[Encoder]:
    """The model with its store, ready to encode, or to score pairs; its first stage with it."""
    options = job.options
    share = (job.ranks.rank, job.ranks.count)
    further = (options.batch_size, job.reporter.say, share, options.exact)
    if not is_pair_scorer(model):
        yield Encoder(model, job.images, store, *further)
        return
    with ExitStack() as held:
        encoder = PairEncoder(model, job.images, store, *further)
        if (first := first_stage(model)) is not None:
            folder = options.data / "embeddings" / first.identity.fingerprint[:32]
            own = held.enter_context(closing(Store(folder, vars(first.identity))))
            encoder.first = Encoder(first, job.images, own, *further)
        yield encoder


def first_stage(model: PairScorer) -> DualEncoder | None:
    """The dual encoder whose best answers a pair scorer ranks anew, if it has one."""
    return getattr(model, "first", None)


def told(model: DualEncoder | PairScorer, task: Task) -> dict[str, Any]:
    """What a result's settings say of a model that scores pairs; nothing of other models."""
    if not is_pair_scorer(model):
        return {}
    first = first_stage(model)
    if task.kind != "retrieval" or first is None:
        return {"scorer": "pairs"}
    name = f"{first.identity.architecture} {first.identity.fingerprint[:8]}"
    return {"scorer": "pairs", "first_stage": name, "depth": depth_of(model)}


def deciding(model: DualEncoder | PairScorer | None, task: Task) -> dict[str, Any]:
    """What else decides a number, by name, for the proof: the first stage, all of its identity, and
    the depth; the rule by which classes are named. Nothing where no model is given.
    """
    if model is None or not is_pair_scorer(model):
        return {}
    if task.kind == "classification":
        return {"one prompt a class": SINGLE}
    first = first_stage(model)
    if task.kind != "retrieval" or first is None:
        return {}
    return {"first stage": first.identity.fingerprint, "depth of re-ranking": depth_of(model)}


def check_first(encoder: PairEncoder, task: Task, spec: str) -> None:
    """Raises UsageError where retrieval has no first stage."""
    if task.kind == "retrieval" and encoder.first is None:
        mark = "&" if "?" in spec else "?"
        raise UsageError(
            f"{spec}: retrieval needs a first stage, a dual encoder whose best "
            f"{depth_of(encoder.model)} answers are ranked anew: write "
            f"'{spec}{mark}first=FAMILY:NAME', or score other tasks."
        )


def score_together(
    item: Prepared,
    plan: Plan,
    encoder: PairEncoder,
    job: Job,
    encode: Callable[[Plan, Encoder], dict[bytes, str]],
) -> dict[bytes, str]:
    """All processes score the pairs of a task. Returns image key -> why it is unreadable.

    encode: encodes with all processes. Without the records of unreadable images other pairs may be
    wanted: then once more.
    """
    name, failures = item.task.name, {}
    if item.task.kind == "retrieval":
        failures = encode(plan, encoder.first)
    while True:
        broken = dict(plan.unreadable)
        broken |= {place: failures[key] for place, key in plan.image_key.items() if key in failures}
        readable = without(item, broken) if broken else item
        if not readable.records or (failures and not job.options.allow_partial):
            return failures
        found = _score(readable, plan, encoder, name, job)
        if not found:
            return failures
        failures = failures | found


def _score(
    item: Prepared, plan: Plan, encoder: PairEncoder, name: str, job: Job
) -> dict[bytes, str]:
    def progress(what: str, done: int, total: int) -> None:
        job.reporter.progress(f"{name}: {what}", done, total)

    def work() -> dict[bytes, str]:
        return encoder.score(plan, name, wanted(item, plan, encoder, job), progress)

    found = job.ranks.gather(together(job.ranks, work))
    return {key: line for part in found for key, line in part.items()}


def wanted(item: Prepared, plan: Plan, encoder: PairEncoder, job: Job) -> Iterator:
    """The pairs that a task needs."""
    return wanted_pairs(
        item, embeddings_of(plan, encoder), encoder.scores_of(plan), job.options.prompts
    )


def embeddings_of(plan: Plan, encoder: Encoder) -> Embeddings:
    """The vectors that scoring is given: a pair scorer's are its first stage's."""
    first = getattr(encoder, "first", None)
    return Embeddings(plan, (first or encoder).store)


def scores_of(plan: Plan, encoder: Encoder) -> PairScores | None:
    """The scores of pairs, of a model that gives them."""
    return encoder.scores_of(plan) if isinstance(encoder, PairEncoder) else None
