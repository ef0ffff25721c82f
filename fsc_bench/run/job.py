"""Job: what one `run` is told, has at hand, and gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.lock import Lock
from fsc_bench.data.prepare import Prepared
from fsc_bench.embed.plan import Plan
from fsc_bench.errors import FscBenchError
from fsc_bench.results import Result, slug
from fsc_bench.system.distributed import Ranks
from fsc_bench.system.stopping import LEFT, asked


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
    exact: bool | None = None  # equal bits whatever is encoded beside; None: on a CPU only

    lock: Lock | None = None  # data that are not what it names are refused
    embeddings: Path | None = None  # where they are kept; None: with the data

    @property
    def store(self) -> Path:
        return self.embeddings or self.data / "embeddings"

    @property
    def rounding(self) -> str:
        """What beside its spec decides a model's bits; both together name it among commands."""
        return f"{self.precision}, compiled" if self.compile else self.precision

    @property
    def variant(self) -> str:
        """What a result's file name carries when it is not the standard one."""
        limit = f".limit-{self.limit}" if self.limit else ""
        return limit + (f".prompts-{slug(self.prompts)}" if self.prompts else "")


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
    written: list[str] = field(default_factory=list)  # models with a new result
    left: bool = False  # SIGUSR1 came: the same command continues

    @property
    def exit_code(self) -> int:
        if self.left:
            return LEFT
        return max((error.exit_code for _, _, error in self.failures), default=0)


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
    note: Callable[..., None] = lambda spec, **facts: None  # what is in hand, for who looks
    plans: dict[str, Plan] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # lines that are the same for every model

    def leaves(self) -> bool:
        """Whether to end here, as SIGUSR1 asked one of the processes; all are here."""
        self.summary.left = any(self.ranks.gather(asked()))
        return self.summary.left


def together(ranks: Ranks, work: Callable[[], Any]) -> Any:
    """What `work` gives in this process. What it raises in one process it raises in all, so that
    none waits for another; only a user's mistakes are passed on so.
    """
    value, error = None, None
    try:
        value = work()
    except FscBenchError as caught:
        error = caught
    for other in ranks.gather(error):
        if other is not None:
            raise other
    return value


def without(item: Prepared, broken: Mapping) -> Prepared:
    """The records whose images can all be read, and a flag that says how many cannot."""
    refs = {place[1] for place in broken}
    kept = [row for row in item.records if not refs & set(row.images)]
    flag = f"{len(refs):,} images unreadable, {len(item.records) - len(kept):,} records out"
    partial = f"{item.partial}; {flag}" if item.partial else flag
    return replace(item, records=kept, partial=partial)
