"""Pair cost: how many pairs a model needs, which it has, and how long the rest takes."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from fsc_bench.data.images import Images
from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.encode import wait_for
from fsc_bench.embed.pairs import PairEncoder
from fsc_bench.embed.plan import Plan
from fsc_bench.embed.store import Store
from fsc_bench.model import PairScorer, depth_of
from fsc_bench.run.job import Options
from fsc_bench.score.evaluate import Embeddings, wanted_pairs

TRIAL = 16  # images and pairs of the trial


@dataclass(frozen=True)
class PairCost:
    """Pairs that are wanted, those of them in the store, and seconds for the rest."""

    pairs: int
    cached: int
    seconds: float


def pair_costs(
    items: Sequence[Prepared], plans: Mapping[str, Plan], model: PairScorer, options: Options
) -> dict[str, PairCost]:
    """By task, and of all together ("all", where what tasks share counts once)."""
    store = Store(options.data / "embeddings" / model.identity.fingerprint[:32])
    encoder = PairEncoder(model, Images(options.data), store, options.batch_size)
    one_image, one_pair = _trial(encoder)
    found, together, loose, images = {}, np.empty((0, 4), "<u8"), 0, set()
    for item in items:
        plan, name = plans[item.task.name], item.task.name
        images |= set(plan.image_place)
        if item.task.kind == "retrieval":
            n, known = at_most(plan, depth_of(model)), 0
            loose += n
        else:
            keys = np.empty((0, 4), "<u8")
            if not plan.unreadable:
                keys = _keys(item, plan, encoder, options)
            together = np.unique(np.concatenate([together, keys]), axis=0)
            n, known = len(keys), int(store.present("pair", keys).sum())
        share = 0 if n == 0 else 1 - known / n
        seconds = one_image * len(plan.image_place) * share + one_pair * (n - known)
        found[name] = PairCost(n, known, seconds)
    known = int(store.present("pair", together).sum())
    n = len(together) + loose
    share = 0 if n == 0 else 1 - known / n
    seconds = one_image * len(images) * share + one_pair * (n - known)
    return {**found, "all": PairCost(n, known, seconds)}


def at_most(plan: Plan, depth: int) -> int:
    """Pairs of retrieval: every image with its best texts, every text with its best images."""
    images, texts = len(plan.image_place), len(plan.text_key)
    return min(images * texts, images * min(depth, texts) + texts * min(depth, images))


def _keys(item: Prepared, plan: Plan, encoder: PairEncoder, options: Options) -> np.ndarray:
    """uint64 [pairs, 4], each once."""
    scores, vectors = encoder.scores_of(plan), Embeddings(plan, encoder.store)
    blocks = [
        scores.keys(item.task.name, wanted)
        for wanted in wanted_pairs(item, vectors, scores, options.prompts)
    ]
    return np.unique(np.concatenate(blocks), axis=0) if blocks else np.empty((0, 4), "<u8")


def _trial(encoder: PairEncoder) -> tuple[float, float]:
    """Seconds that an image and a pair take, from made-up ones; nothing where the model refuses
    them, as a model of known items alone does.
    """
    image, prepare = encoder.one_image()
    times = (0.0, 0.0)
    with suppress(KeyError):
        pixels = [prepare(image)] * TRIAL
        texts = [f"{number} dogs on the green grass of a park" for number in range(TRIAL)]
        for _ in range(2):  # the first time warms up
            begun = time.perf_counter()
            read = encoder.images_at_once(pixels, TRIAL)
            wait_for(read)
            middle = time.perf_counter()
            wait_for(encoder.model.score_pairs(read, texts))
            times = (middle - begun) / TRIAL, (time.perf_counter() - middle) / TRIAL
    return times
