"""Blind: what scorers that see no picture get of a benchmark, as facts from its task file.

Facts alone: score/blind.py computes them anew from records. tasks/README.md explains every key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from fsc_bench.errors import UsageError
from fsc_bench.system.facts import Facts, check_choice

HEADLINE = "headline"  # stands among the subsets for the whole


@dataclass(frozen=True)
class Blind:
    """Figures that stand beside every score and decide none.

    source: what they are of, and what they are not. ruler, bigram: percent of the task's first
    headline metric by subset, and under "headline" where every subset is known. free: how many
    records of a subset have right answers alone; a subset with figures that is not named has none.
    """

    source: str = ""
    ruler: Mapping[str, float] = field(default_factory=dict)
    bigram: Mapping[str, float] = field(default_factory=dict)
    free: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The better of the two headlines: the blind score of the benchmark, if it is known."""
        both = [rule[HEADLINE] for rule in (self.ruler, self.bigram) if HEADLINE in rule]
        return max(both, default=None)


class BlindTable(Facts, frozen=True):
    """[blind]"""

    source: str = ""
    ruler: dict[str, float] = msgspec.field(default_factory=dict)
    bigram: dict[str, float] = msgspec.field(default_factory=dict)
    free: dict[str, int] = msgspec.field(default_factory=dict)


def read_blind(place: str, table: BlindTable, counts: Mapping[str, int]) -> Blind:
    """The facts of a task file's `[blind]`; counts: the promised records of each subset.

    Raises UsageError that begins with `place`.
    """
    if table == BlindTable():
        return Blind()
    if not table.source:
        raise UsageError(f"{place} lacks 'source': say what the figures are of.")
    for rule, values in (("ruler", table.ruler), ("bigram", table.bigram)):
        for name, percent in values.items():
            check_choice(f"{place} {rule}", name, [*counts, HEADLINE])
            if not 0 <= percent <= 100:
                raise UsageError(f"{place} {rule} {name} = {percent!r}: not in 0..100.")
        lacking = [name for name in counts if name not in values]
        if HEADLINE in values and lacking:
            raise UsageError(f"{place} {rule} has a headline, but no figure of {lacking[0]!r}.")
    if differ := table.ruler.keys() ^ table.bigram.keys():
        raise UsageError(f"{place} only one of ruler and bigram names {min(differ)!r}.")
    for name, count in table.free.items():
        check_choice(f"{place} free", name, [key for key in counts if key in table.ruler])
        if not 0 <= count <= counts[name]:
            raise UsageError(
                f"{place} free {name} = {count!r}: not in 0..{counts[name]:,}, its records."
            )
    return Blind(table.source, table.ruler, table.bigram, table.free)
