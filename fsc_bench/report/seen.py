"""Seen: which benchmarks show pictures that fine-tuned models may have been trained on.

`images.toml` of a folder of leaderboards says which subsets show pictures of COCO or Visual Genome;
the share follows from the promised counts. What a row's training data names is read off its words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.facts import Facts, read_toml
from fsc_bench.task import Task

NAMES = {"coco": "COCO", "vg": "VG", "visualgenome": "VG"}  # words of training data


class SeenTable(Facts, frozen=True):
    """One benchmark of images.toml: patterns of the names of its subsets."""

    coco: tuple[str, ...] = ()
    vg: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """Percent of a benchmark's samples that show pictures of COCO or VG, and of unknown ones."""

    coco: float
    vg: float
    unknown: float

    @property
    def share(self) -> float:
        return self.coco + self.vg

    @property
    def built_on(self) -> bool:
        """Whether any of it may have been seen in training on COCO or VG."""
        return self.share + self.unknown > 0


def read_seen(path: Path, tasks: Iterable[Task]) -> dict[str, Seen]:
    """By task, for every task; empty where there is no such file. Raises UsageError, one line, for
    a benchmark or a subset that is none, and for a subset that two patterns claim.
    """
    if not path.exists():
        return {}
    by_name = {task.name: task for task in tasks}
    tables = read_toml(path, dict[str, SeenTable])
    for name in tables:
        if name not in by_name:
            raise UsageError(f"{path}: no task called {name!r}.{near_miss(name, by_name)}")
    return {
        name: _seen(path, task, tables.get(name, SeenTable())) for name, task in by_name.items()
    }


def _seen(path: Path, task: Task, table: SeenTable) -> Seen:
    claimed: dict[str, str] = {}
    for source, patterns in msgspec.structs.asdict(table).items():
        for pattern in patterns:
            found = [leaf for leaf in task.leaves if fnmatchcase(leaf, pattern)]
            if not found:
                raise UsageError(
                    f"{path}: {task.name}: no subset is called {pattern!r}."
                    f"{near_miss(pattern, task.leaves)}"
                )
            for leaf in found:
                if claimed.setdefault(leaf, source) != source:
                    raise UsageError(
                        f"{path}: {task.name}: {leaf!r} is of {claimed[leaf]} and of {source}."
                    )
    counts = dict.fromkeys(("coco", "vg", "unknown"), 0)
    for leaf, source in claimed.items():
        counts[source] += task.leaves[leaf]
    return Seen(**{source: 100 * count / task.n for source, count in counts.items()})


def named(train_data: str) -> list[str]:
    """Which of COCO and VG the words on training data name: whole words, so that `laioncoco-100k`
    (other pictures, captioned like COCO's) names none.
    """
    words = re.findall(r"[a-z0-9]+", train_data.lower().replace("visual genome", "visualgenome"))
    return list(dict.fromkeys(NAMES[word] for word in words if word in NAMES))


def mean_of_others(
    values: Mapping[str, float], columns: Sequence[str], built_on: Iterable[str]
) -> float | None:
    """The plain mean of the columns that are not built on COCO or VG; None with a hole in them."""
    left_out = set(built_on)
    others = [name for name in columns if name not in left_out]
    if not others or any(name not in values for name in others):
        return None
    return sum(values[name] for name in others) / len(others)
