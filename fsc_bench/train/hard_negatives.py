"""Where a batch's hard negatives come from: the data itself, or a generator of train/negatives."""

from collections.abc import Sequence

import numpy as np

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.train.batches import HardNegatives
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.negatives import NegativeGenerator, load_generator
from fsc_bench.train.sources import Pair


def hard_negatives(config: TrainConfig) -> HardNegatives | None:
    """What `config.negatives` names; None for none. Raises FscBenchError where it is not there."""
    if config.negatives == "none" or not config.needs_negatives:
        return None
    if config.negatives == "data":
        return FromData(config.negative_kinds)
    return FromGenerator(load_generator(config.negatives), config.negative_kinds)


class FromData:
    """The data's own: in order where it has one for each kind, else a random choice of them."""

    version = "data"

    def __init__(self, kinds: Sequence[str]):
        self.kinds = tuple(kinds)

    def draw(
        self, pairs: Sequence[Pair], rngs: Sequence[np.random.Generator]
    ) -> list[list[str | None]]:
        rows = []
        for pair, rng in zip(pairs, rngs, strict=True):
            found = [text if text != pair.caption else "" for text in pair.negatives]
            if len(found) != len(self.kinds):
                found = [found[place] for place in rng.permutation(len(found))[: len(self.kinds)]]
            found += [""] * (len(self.kinds) - len(found))
            rows.append([text or None for text in found])
        return rows


class FromGenerator:
    """One of a generator's for each of the kinds that are wanted, new in every epoch."""

    def __init__(self, generator: NegativeGenerator, kinds: Sequence[str]):
        for kind in kinds:
            if kind not in generator.kinds:
                raise UsageError(
                    f"negative_kinds: {generator.name} makes no kind {kind!r}, only "
                    f"{', '.join(generator.kinds)}.{near_miss(kind, generator.kinds)}"
                )
        self.generator, self.kinds = generator, tuple(kinds)
        self.version = f"{generator.name} {generator.version}"

    def draw(
        self, pairs: Sequence[Pair], rngs: Sequence[np.random.Generator]
    ) -> list[list[str | None]]:
        rows = []
        for pair, rng in zip(pairs, rngs, strict=True):
            made = self.generator.generate(pair.caption, rng, count=1)
            rows.append([next(iter(made[kind]), None) for kind in self.kinds])
        return rows
