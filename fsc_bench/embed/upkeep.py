"""Upkeep: describing, verifying and tidying embedding stores, also while runs write to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsc_bench.embed.store import KINDS, PART, Index, Store, Writer, full, has_writer
from fsc_bench.errors import UsageError
from fsc_bench.system.facts import read_json


@dataclass(frozen=True)
class StoreFacts:
    """What `fsc-bench cache info` shows of one identity's store."""

    folder: Path
    model: str
    images: int
    texts: int
    segments: int
    bytes: int
    used: float  # time of the last write
    damage: list[str]


def stores(root: Path) -> Iterator[Path]:
    """The store folders below `<data>/embeddings`."""
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir())


def describe(folder: Path) -> StoreFacts:
    store = Store(folder)
    try:
        facts = read_json(folder / "identity.json", dict[str, str | int])
        model = f"{facts.get('architecture', '?')} {str(facts.get('weights', ''))[:12]}"
        model += f" {facts.get('precision', '')}"
    except UsageError:
        model = "?"
    files = [path.stat() for path in folder.iterdir() if path.suffix in (".vec", ".idx")]
    counts = {kind: len(np.unique(store.index(kind).keys, axis=0)) for kind in KINDS}
    return StoreFacts(
        folder=folder,
        model=model.strip(),
        images=counts["image"],
        texts=counts["text"],
        segments=len(store.segments),
        bytes=sum(stat.st_size for stat in files),
        used=max((stat.st_mtime for stat in files), default=folder.stat().st_mtime),
        damage=store.damage,
    )


def verify(folder: Path) -> tuple[int, list[str]]:
    """Compares every row with its checksum. Returns (rows that are right, lines about the rest)."""
    store = Store(folder)
    good = 0
    for segment in store.segments.values():
        if segment.damaged:
            continue
        if segment.compare(np.arange(len(segment.records))):
            good += len(segment.records)
    return good, store.damage


def prune(folder: Path) -> tuple[int, list[str]]:
    """Rewrites a store as one segment a kind, without damaged segments, torn ends and doubles.

    Returns (bytes freed, lines about what was left). Segments of a running writer are left alone,
    and other processes may read and write meanwhile. Killed halfway, nothing is lost: the new
    segment is complete and on disk before an old one goes.
    """
    store = Store(folder)
    before = _bytes_of(folder)
    left, old = [], []
    for path, segment in store.segments.items():
        if has_writer(path):
            left.append(f"{path}: a run is writing it; left as it is.")
        else:
            segment.damaged = (
                segment.damaged or not segment.compare(np.arange(len(segment.records)))
            )  # fmt: skip
            old.append(segment)
    for kind in KINDS:
        mine = [segment for segment in old if segment.kind == kind]
        whole = [segment for segment in mine if not segment.damaged]
        if len(mine) == 1 and not any(segment.torn or segment.damaged for segment in mine):
            old.remove(mine[0])
            continue
        for dimension in sorted({segment.dimension for segment in whole}):
            index = Index([segment for segment in whole if segment.dimension == dimension])
            _, first = np.unique(index.keys, axis=0, return_index=True)
            if not len(first):
                continue
            writer = Writer(folder, kind, dimension)
            try:
                for begin in range(0, len(first), PART):
                    part = first[begin : begin + PART]
                    writer.append(index.keys[part], index.vectors(part))
                writer.sync()
            except OSError as error:
                raise full(folder, error, 0) from None
            finally:
                writer.close()
    for segment in old:
        segment.path.unlink(missing_ok=True)
        segment.path.with_suffix(".idx").unlink(missing_ok=True)
    for index in folder.glob("*.idx"):  # a writer that was killed between its two files
        if not index.with_suffix(".vec").exists() and not has_writer(index.with_suffix(".vec")):
            index.unlink(missing_ok=True)
    return before - _bytes_of(folder), left


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def in_use(folder: Path) -> bool:
    """Whether a living process writes any segment of a store."""
    return any(has_writer(path) for path in folder.glob("*.vec"))
