"""Result files: the types of `tasks/<task>.json` and `run.json`, and the checks that the types
alone do not make. Results may be a stranger's: results.py takes from them what passes here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fsc_bench.errors import UsageError
from fsc_bench.system.escape import shortened
from fsc_bench.system.facts import Facts, check_name, typed
from fsc_bench.task import walk

# A mean of exact hundreds may come out a rounding beyond them.
ROUNDING = 1e-6
Percent = Annotated[float, msgspec.Meta(ge=-ROUNDING, le=100 + ROUNDING)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class StoredCell(Facts):
    """One number of a result file. Results may be a stranger's: types and bounds are checked."""

    value: Percent | None
    ci: Annotated[list[Percent | None], msgspec.Meta(min_length=2, max_length=2)]
    n: Count
    chance: Percent | None
    strict: Percent | UnsetType | None = UNSET

    def check(self, where: str) -> None:
        """Raises UsageError where the interval is half there or does not hold the value."""
        low, high = self.ci
        if (low is None) != (high is None) or (self.value is None and low is not None):
            raise UsageError(
                f"{where}: 'ci' = {self.ci} with the value {self.value}: half is gone."
            )
        if low is not None and not low - ROUNDING <= self.value <= high + ROUNDING:
            raise UsageError(
                f"{where}: the value {self.value} is not within 'ci', {low} to {high}."
            )


class StoredBlind(Facts):
    """What a task file says of scorers that see no picture (blind.py)."""

    source: str = ""
    ruler: dict[Name, Percent] = msgspec.field(default_factory=dict)
    bigram: dict[Name, Percent] = msgspec.field(default_factory=dict)
    free: dict[Name, Count] = msgspec.field(default_factory=dict)


class StoredFacts(msgspec.Struct):
    """What tables read of the facts of a task; the others are kept as they are."""

    suite: Name
    group: Literal["compositionality", "classification", "retrieval"]
    headline: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    chance: dict[str, Percent]
    decays: bool = False
    blind: StoredBlind = StoredBlind()
    title: str = ""
    kind: str | UnsetType = UNSET
    version: Count | UnsetType = UNSET
    within: Literal["subsets", "samples"] | UnsetType = UNSET
    subsets: dict[str, Any] = msgspec.field(default_factory=dict)
    n: Count = 0
    shipped: bool = False
    paper: str = ""
    license: str = ""
    reference: dict[str, Any] = msgspec.field(default_factory=dict)


class StoredResult(Facts):
    """A `tasks/<task>.json` as it stands."""

    schema: int
    task: Name
    version: Count
    kind: Literal["matching", "classification", "retrieval"]
    fingerprint: str
    n: Count
    expected: Count
    metrics: dict[Name, dict[Name, StoredCell]]
    headline: tuple[Name, ...]
    ties: Count
    nan: Count
    audits: dict[str, Any] = msgspec.field(default_factory=dict)
    official: dict[str, Any] = msgspec.field(default_factory=dict)
    blindness: dict[Name, dict[Name, Percent | None]] = msgspec.field(default_factory=dict)
    flags: tuple[str, ...] = ()
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    parts: dict[str, str] = msgspec.field(default_factory=dict)
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class StoredRun(msgspec.Struct):
    """What is read of a `run.json`; the rest is kept as it is."""

    model: Name
    fingerprint: str = ""
    identity: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    seconds: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = msgspec.field(default_factory=dict)


def check_facts(path: Path, stored: StoredResult, facts: StoredFacts) -> None:
    """Raises UsageError where parts of a result contradict each other."""
    if lacking := set(facts.headline) - set(facts.chance):
        raise UsageError(
            f"{path}: facts: 'chance' lacks {shortened(min(lacking))}, which 'headline' names."
        )
    same = {"headline": stored.headline, "version": stored.version, "kind": stored.kind}
    for name, value in same.items():
        found = getattr(facts, name)
        if found is not UNSET and found != value:
            raise UsageError(
                f"{path}: facts: {name!r} is {shortened(found)}, the result's own "
                f"{shortened(value)}."
            )
    for name in ("ties", "nan"):
        # Of retrieval both ways of a sample can tie, in several captions.
        if stored.kind != "retrieval" and getattr(stored, name) > stored.n:
            raise UsageError(
                f"{path}: {name!r} = {getattr(stored, name):,} of {stored.n:,} samples."
            )
    _check_tree(path, facts.subsets)
    where = f"{path}: official: metrics"
    for name in typed(stored.official.get("metrics", {}), dict[Name, Percent | None], where):
        check_name(name, where)
    own = path.stem.partition(".")[0]
    if own != stored.task:
        raise UsageError(f"{path}: of the task {shortened(stored.task)}, as its name does not say.")


def _check_tree(path: Path, tree: Mapping[str, Any]) -> None:
    """Raises UsageError where the facts' subsets are no tree of counts with a name for each."""
    seen: set[str] = set()
    for name, node in walk(tree):
        check_name(name, f"{path}: facts: the name of a subset")
        if name in seen:
            raise UsageError(f"{path}: facts: 'subsets' names {shortened(name)} twice.")
        seen.add(name)
        count = isinstance(node, int) and not isinstance(node, bool) and 0 < node <= 2**53
        if not count and not (isinstance(node, dict) and node):
            raise UsageError(
                f"{path}: facts: 'subsets' has {shortened(name)} = {shortened(node)}, no count."
            )


def check_names(path: Path, stored: StoredResult, facts: StoredFacts) -> None:
    """Raises UsageError for a name that is no printable line: names stand in tables."""
    for name in (stored.task, facts.suite, *stored.headline, *facts.chance):
        check_name(name, f"{path}: a name")
    for node, cells in stored.metrics.items():
        check_name(node, f"{path}: the name of a subset")
        for metric in cells:
            check_name(metric, f"{path}: the name of a metric")
