"""Dry run: what a run would encode and fetch, how long that takes, and what is cached already."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fsc_bench.data.get import bytes_to_fetch
from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.cost import calibrate
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.plan import Plan, make_plan
from fsc_bench.embed.store import Store
from fsc_bench.errors import FscBenchError
from fsc_bench.model import DualEncoder, PairScorer, is_pair_scorer
from fsc_bench.run.job import Options, Reporter, Silent, Summary
from fsc_bench.run.pair_cost import pair_costs
from fsc_bench.run.suite import loaded, prepare_all, well_formed
from fsc_bench.system.settings import working
from fsc_bench.task import Task


@dataclass(frozen=True)
class PlanRow:
    """One line of `--dry-run`. What follows `fetch` is known when models were named: sums over
    them.
    """

    task: str
    samples: int
    image_uses: int
    images: int
    text_uses: int
    texts: int
    problem: str = ""
    fetch: int | None = 0  # bytes to download first; None where nobody knows
    cached_images: int | None = None
    cached_texts: int | None = None
    seconds: float | None = None  # to encode what is missing, from a short trial on this machine
    saving: float | None = None  # encoding every sample's own images and texts takes so many times
    pairs: int | None = None  # images with texts to score, by models that do; of retrieval at most
    cached_pairs: int | None = None


def dry_run(
    tasks: Sequence[Task], options: Options, reporter: Reporter, models: Sequence[str] = ()
) -> tuple[list[PlanRow], int]:
    """What a run would encode: a row a task and one for all together. Returns (rows, exit code).

    Encodes nothing of the tasks; with models, two seconds of made-up images and texts each.
    """
    summary = Summary()
    models = well_formed(models, summary, reporter)
    cache = DigestCache(options.data / "digests.sqlite")
    images = Images(options.data)
    rows: list[PlanRow] = []
    needs: list[tuple[set[bytes], set[bytes]]] = []
    plans: dict[str, Plan] = {}
    items = prepare_all(tasks, options, images, summary, Silent())
    prepared = {item.task.name: item for item in items}
    errors = {name: str(error) for spec, name, error in summary.failures if not spec}
    fetches, together = bytes_to_fetch(tasks, options.data)
    for task in tasks:
        fetch = fetches[task.name]
        if task.name in errors:
            rows.append(PlanRow(task.name, task.n, 0, 0, 0, 0, errors[task.name], fetch))
            needs.append((set(), set()))
            continue
        item = prepared[task.name]
        plan = plans[task.name] = make_plan(
            item,
            images,
            cache,
            options.prompts,
            lambda done, total, name=task.name: reporter.progress(f"{name}: hash", done, total),
        )
        rows.append(
            PlanRow(
                task.name,
                sum(row.scored for row in item.records),
                plan.image_uses,
                len(plan.image_place),
                plan.text_uses,
                len(plan.text_key),
                min(plan.unreadable.values(), default=""),
                fetch,
            )
        )
        needs.append((set(plan.image_place), set(plan.text_key.values())))
    cache.close()
    everything = tuple(set().union(*(need[kind] for need in needs)) for kind in (0, 1))
    known = [row for row in rows if row.task not in errors]
    total = [sum(getattr(row, name) for row in known) for name in ("image_uses", "text_uses")]
    samples = sum(row.samples for row in known)
    unique = [len(keys) for keys in everything]
    rows.append(PlanRow("all", samples, total[0], unique[0], total[1], unique[1], "", together))
    needs.append(everything)
    for spec in models:
        try:
            with working():  # what the run's cost is under
                rows = _costed(rows, needs, (items, plans), loaded(spec, options), options)
        except FscBenchError as error:
            summary.failures.append((spec, "", error))
            reporter.say(f"fsc-bench: {error}")
    return rows, summary.exit_code


def _costed(
    rows: list[PlanRow],
    needs: list[tuple],
    planned: tuple[Sequence[Prepared], dict[str, Plan]],
    model: DualEncoder | PairScorer,
    options: Options,
) -> list[PlanRow]:
    """The rows with what one model has already and what the rest will cost added."""
    if is_pair_scorer(model):
        return with_pairs(rows, *planned, model, options)
    return _with_cost(rows, needs, model, options)


def _with_cost(
    rows: list[PlanRow], needs: list[tuple], model: DualEncoder, options: Options
) -> list[PlanRow]:
    """The rows with what one model has in its store and what the rest will cost added."""
    folder = options.data / "embeddings" / model.identity.fingerprint[:32]
    store = Store(folder)
    encoder = Encoder(model, Images(options.data), store, options.batch_size, exact=options.exact)
    cost = calibrate(encoder)
    # Decoding overlaps the encoder, unless both are the same cores.
    on_cpu = encoder.device == "cpu"
    one_image = cost["image"] + cost["decode"] if on_cpu else max(cost["image"], cost["decode"])
    one_text = cost["text"]
    found = []
    for row, (images, texts) in zip(rows, needs, strict=True):
        cached = [
            int(store.present(kind, list(keys)).sum())
            for kind, keys in (("image", images), ("text", texts))
        ]
        seconds = one_image * (len(images) - cached[0]) + one_text * (len(texts) - cached[1])
        unique = one_image * len(images) + one_text * len(texts)
        each = one_image * row.image_uses + one_text * row.text_uses
        found.append(
            replace(
                row,
                cached_images=(row.cached_images or 0) + cached[0],
                cached_texts=(row.cached_texts or 0) + cached[1],
                seconds=(row.seconds or 0.0) + seconds,
                saving=each / unique if unique else None,
            )
        )
    return found


def with_pairs(
    rows: list[PlanRow],
    items: Sequence[Prepared],
    plans: dict[str, Plan],
    model: PairScorer,
    options: Options,
) -> list[PlanRow]:
    """The rows with the pairs that a model has to score, those that it has, and their time. Of
    retrieval every query counts its best K: some pairs are wanted both ways, so it may be less.
    """
    costs = pair_costs(items, plans, model, options)
    found = []
    for row in rows:
        if row.task not in costs:
            found.append(row)
            continue
        cost = costs[row.task]
        found.append(
            replace(
                row,
                pairs=(row.pairs or 0) + cost.pairs,
                cached_pairs=(row.cached_pairs or 0) + cost.cached,
                cached_images=row.cached_images or 0,
                cached_texts=row.cached_texts or 0,
                seconds=(row.seconds or 0.0) + cost.seconds,
            )
        )
    return found
