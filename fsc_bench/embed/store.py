"""Store: embeddings by content key, on disk, for one model identity. It knows no task and no file.
Scores of pairs are kept like embeddings of one number (pairs.py).

    <folder>/identity.json                 whose vectors these are, for people; never read by us
    <folder>/<kind>-<d>-<writer>.vec       rows of d float32, one after another
    <folder>/<kind>-<d>-<writer>.idx       a record a row: 32 bytes key, 8 bytes checksum of the row

A row is written before its record, so what the index names is whole. Each writer appends to a
segment (.vec and .idx) of its own: any number of processes write at once without a lock. Nothing is
believed unread: a row is compared with its checksum before it is first used. A tail that a killed
or powered-off writer left unfinished is ignored; a segment with any other wrong row is damaged, and
none of it is used. Both are said (`Store.damage`), and `fsc-bench cache prune` removes them.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.errors import RunError
from fsc_bench.system.files import FULL, write_json

RECORD = np.dtype([("key", "V32"), ("checksum", "<u8")])
KINDS = ("image", "text", "pair")
TAIL = 64  # rows at the end of a segment whose checksums are compared when it is opened
PART = 4096  # rows compared at once: bounded memory for any number of keys
SYNC_SECONDS = 5.0  # at most this much work is lost when the power, not the process, goes


class StoreFull(RunError):
    """Nothing more can be written. What was written before is safe and readable."""


def checksums(rows: np.ndarray) -> np.ndarray:
    """uint64 [n] of rows [n, d]: each 32- or 64-bit word times an odd constant of its place,
    summed.

    Any single changed word is noticed for certain, anything else but for one chance in 2^64; it
    runs at 2 million rows of 512 a second, nine times as fast as crc32 row by row. A row of zeros,
    which a file system may leave behind, is never right.
    """
    rows = np.ascontiguousarray(rows, "<f4")
    words = rows.view("<u8" if rows.shape[1] % 2 == 0 else "<u4")
    with np.errstate(over="ignore"):
        place = np.arange(1, words.shape[1] + 1, dtype=np.uint64)
        odd = (place * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
        sums = np.einsum("ij,j->i", words, odd, dtype=np.uint64, casting="unsafe")
        return sums + np.uint64(0x5851F42D4C957F2D)


def as_keys(keys: Sequence[bytes] | np.ndarray) -> np.ndarray:
    """Keys of 32 bytes as uint64 [n, 4]."""
    if isinstance(keys, np.ndarray):
        return keys
    joined = b"".join(keys)
    assert len(joined) == 32 * len(keys), "a key is not 32 bytes"
    return np.frombuffer(joined, "<u8").reshape(-1, 4)


@dataclass
class Segment:
    """One writer's rows of one kind, as far as they are whole."""

    path: Path  # of the .vec file
    kind: str
    dimension: int
    records: np.ndarray = field(default_factory=lambda: np.empty(0, RECORD))
    rows: np.ndarray | None = None  # memory-mapped [n, d]
    compared: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    torn: bool = False  # what follows the last whole row is not used
    damaged: bool = False

    @property
    def keys(self) -> np.ndarray:
        return np.ascontiguousarray(self.records["key"]).view("<u8").reshape(-1, 4)

    def grow(self) -> bool:
        """Takes in what its writer has finished since. Says whether there was anything."""
        index = self.path.with_suffix(".idx")
        try:
            index_size, vector_size = index.stat().st_size, self.path.stat().st_size
        except FileNotFoundError:
            return False  # pruned by another process
        whole = vector_size // (4 * self.dimension)
        n, old = min(index_size // RECORD.itemsize, whole), len(self.records)
        self.torn = index_size != n * RECORD.itemsize or vector_size != n * 4 * self.dimension
        if n <= old:
            return False
        records = np.fromfile(index, RECORD, n - old, offset=old * RECORD.itemsize)
        rows = np.memmap(self.path, "<f4", "r", shape=(n, self.dimension))
        tail = max(old, n - TAIL)
        good = checksums(rows[tail:]) == records["checksum"][tail - old :]
        # A power cut may leave an end of zeros or rubbish; a wrong row before a right one is
        # damage.
        kept = tail + (int(np.flatnonzero(good)[-1]) + 1 if good.any() else 0)
        self.damaged = not good[: kept - tail].all() or kept == tail > old
        self.torn = self.torn or kept < n
        self.records = np.concatenate([self.records, records[: kept - old]])
        self.rows = rows[:kept]
        fresh = np.zeros(kept - old, bool)
        fresh[tail - old :] = True
        self.compared = np.concatenate([self.compared, fresh])
        return kept > old

    def compare(self, rows: np.ndarray) -> bool:
        """Whether these rows (numbers) are what was written; each is read once."""
        todo = np.unique(rows[~self.compared[rows]])
        starts = np.flatnonzero(np.r_[True, np.diff(todo // PART) > 0]) if len(todo) else []
        for part in np.split(todo, starts[1:]) if len(todo) else []:
            # Many rows of one stretch are read in one piece: a page fault each is five times
            # slower.
            if len(part) > PART // 16:
                begin = int(part[0]) // PART * PART
                part = np.arange(begin, min(begin + PART, len(self.records)))
                place = 4 * self.dimension * begin
                content = np.fromfile(self.path, "<f4", len(part) * self.dimension, offset=place)
                content = content.reshape(-1, self.dimension)
            else:
                content = self.rows[part]
            if not np.array_equal(checksums(content), self.records["checksum"][part]):
                self.damaged = True
                return False
            self.compared[part] = True
        return True


class Store:
    """The vectors of one model. Keys are 32 bytes each (plan.py): a list, or uint64 [n, 4]."""

    def __init__(self, folder: Path, identity: Mapping[str, Any] | None = None):
        self.folder = folder
        self.segments: dict[Path, Segment] = {}
        self.indexes: dict[str, Index] = {}
        self.writers: dict[str, Writer] = {}
        self.written = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if identity is not None and not (folder / "identity.json").exists():
                write_json(folder / "identity.json", dict(identity))
        except OSError as error:
            raise full(folder, error, 0) from None
        except RunError as error:
            raise StoreFull(str(error)) from None
        self.refresh()

    @property
    def damage(self) -> list[str]:
        """A line for each segment that is not used, or not to its end."""
        self.refresh()
        lines = []
        for path, segment in sorted(self.segments.items()):
            if segment.damaged:
                lines.append(
                    f"{path}: damaged; its vectors are made anew. `fsc-bench cache prune` removes "
                    "it."
                )
            elif segment.torn and not has_writer(path):
                lines.append(f"{path}: a stopped run left its end unfinished; the end is ignored.")
        return lines

    def refresh(self) -> None:
        """Sees what other processes have finished since."""
        for path in sorted(self.folder.glob("*.vec")):
            if path not in self.segments:
                kind, _, rest = path.stem.partition("-")
                dimension = rest.partition("-")[0]
                if kind not in KINDS or not dimension.isdigit() or int(dimension) == 0:
                    continue
                self.segments[path] = Segment(path, kind, int(dimension))
            segment = self.segments[path]
            if not segment.damaged and (segment.grow() or segment.damaged):
                self.indexes.pop(segment.kind, None)

    def index(self, kind: str) -> "Index":
        if kind not in self.indexes:
            usable = [s for s in self.segments.values() if s.kind == kind and not s.damaged]
            self.indexes[kind] = Index(usable)
        return self.indexes[kind]

    def _find(self, kind: str, keys: np.ndarray) -> tuple["Index", np.ndarray]:
        """(index, place of each key in it or -1), of rows that are what was written."""
        if kind in self.writers and self.writers[kind].unseen:
            self.writers[kind].unseen = False
            self.refresh()
        while True:
            index = self.index(kind)
            places = index.find(keys)
            found = places[places >= 0]
            compared = [
                index.segments[number].compare(index.rows[found[mine]])
                for number, mine in index.by_segment(found)
            ]
            if all(compared):
                return index, places
            self.indexes.pop(kind)  # without the segment that turned out to be damaged

    def present(self, kind: str, keys: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """bool [n]: which keys have a vector, as far as the index tells; reads no vector."""
        return self.index(kind).find(as_keys(keys)) >= 0

    def has(self, kind: str, keys: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """bool [n]: which keys have a vector that can be trusted."""
        return self._find(kind, as_keys(keys))[1] >= 0

    def missing(self, kind: str, keys: Sequence[bytes]) -> list[bytes]:
        """Those of `keys` that have no vector yet, in order."""
        return [keys[place] for place in np.flatnonzero(~self.has(kind, keys))]

    def put(self, kind: str, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Appends vectors [n, d]. When this returns they survive a killed process, and the power
        too once `sync` was called (it is, every few seconds). Raises StoreFull.
        """
        vectors = np.ascontiguousarray(vectors, "<f4")
        if len(vectors) != len(keys):
            raise ValueError(f"{len(keys)} keys but {len(vectors)} vectors")
        try:
            if kind not in self.writers:
                self.writers[kind] = Writer(self.folder, kind, vectors.shape[1])
            self.writers[kind].append(as_keys(keys), vectors)
        except OSError as error:
            self._abandon(kind)
            raise full(self.folder, error, self.written) from None
        self.written += len(keys)

    def get(self, kind: str, keys: Sequence[bytes] | np.ndarray) -> np.ndarray:
        """Vectors [n, d] float32 of keys that are all there (KeyError otherwise)."""
        keys = as_keys(keys)
        index, places = self._find(kind, keys)
        if (places < 0).any():
            self.refresh()  # another process may have written them
            index, places = self._find(kind, keys)
        if (places < 0).any():
            raise KeyError(f"{int((places < 0).sum())} of {len(keys)} {kind} vectors are not there")
        if not len(keys):
            return np.empty((0, 0), np.float32)
        return index.vectors(places)

    def sync(self) -> None:
        """Makes everything put so far survive a power cut. Raises StoreFull."""
        for kind, writer in list(self.writers.items()):
            try:
                writer.sync()
            except OSError as error:
                self._abandon(kind)
                raise full(self.folder, error, self.written) from None

    def close(self) -> None:
        try:
            self.sync()
        finally:
            for writer in self.writers.values():
                writer.close()
            self.writers.clear()

    def _abandon(self, kind: str) -> None:
        """Never appends after a torn end: the next `put` opens a new segment."""
        writer = self.writers.pop(kind, None)
        if writer is not None:
            writer.close()


class Index:
    """Where each key's row lies, over all segments of a kind. Sorted by the keys' first 8 bytes."""

    def __init__(self, segments: Sequence[Segment]):
        self.segments = list(segments)
        counts = [len(segment.records) for segment in self.segments]
        keys = [segment.keys for segment in self.segments]
        keys = np.concatenate(keys) if keys else np.empty((0, 4), "<u8")
        order = np.argsort(keys[:, 0], kind="stable")
        self.keys = keys[order]
        self.first = np.ascontiguousarray(self.keys[:, 0])
        owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        rows = [np.arange(count, dtype=np.int64) for count in counts]
        rows = np.concatenate(rows) if rows else np.empty(0, np.int64)
        self.owner, self.rows = owner[order], rows[order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int64 [n]: place of each key, -1 where it is not there."""
        if not len(self.keys) or not len(keys):
            return np.full(len(keys), -1, np.int64)
        # Sorted questions walk through memory in order: twice as fast for a million.
        order = np.argsort(keys[:, 0], kind="stable")
        places = np.empty(len(keys), np.int64)
        places[order] = np.searchsorted(self.first, keys[order, 0])
        places[places == len(self.keys)] = 0
        equal = (self.keys[places] == keys).all(axis=1)
        # Two keys that share 8 bytes are one chance in 10^7 for a million, but they are looked at.
        shared = ~equal & (self.first[places] == keys[:, 0])
        for number in np.flatnonzero(shared):
            place = places[number]
            while place < len(self.keys) and self.first[place] == keys[number, 0]:
                if (self.keys[place] == keys[number]).all():
                    places[number], equal[number] = place, True
                    break
                place += 1
        places[~equal] = -1
        return places

    def by_segment(self, places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(segment number, which of `places` lie in it) for each segment that holds any."""
        owners = self.owner[places]
        if not len(owners):
            return
        if (owners == owners[0]).all():
            yield int(owners[0]), np.arange(len(owners))
            return
        order = np.argsort(owners, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(owners[order]) > 0])
        for mine in np.split(order, starts[1:]):
            yield int(owners[mine[0]]), mine

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """float32 [n, d]."""
        result = np.empty((len(places), self.segments[0].dimension), np.float32)
        for number, mine in self.by_segment(places):
            result[mine] = self.segments[number].rows[self.rows[places[mine]]]
        return result


class Writer:
    """Appends to a segment of its own. The lock says "alive" to `prune`; nobody waits for it."""

    def __init__(self, folder: Path, kind: str, dimension: int):
        self.dimension = dimension
        self.unseen = False
        self.unsynced = False
        self.synced = time.monotonic()
        stem = f"{kind}-{dimension}-{uuid.uuid4().hex[:16]}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
        self.files: list[int] = []
        for ending in ("idx", "vec"):  # readers look for .vec: its index is there by then
            self.files.append(os.open(folder / f"{stem}.{ending}", flags, 0o644))
        for _ in range(50):  # `prune` holds a lock for microseconds while it looks
            try:
                fcntl.flock(self.files[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.002)
            except OSError:
                break  # a file system without locks: prune then leaves all segments alone

    def append(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        assert vectors.shape[1] == self.dimension, "one model gave vectors of two lengths"
        records = np.empty(len(keys), RECORD)
        records["key"] = np.ascontiguousarray(keys).view("V32").ravel()
        records["checksum"] = checksums(vectors)
        _write(self.files[1], vectors.tobytes())
        _write(self.files[0], records.tobytes())
        self.unseen = self.unsynced = True
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        if self.unsynced:
            for file in reversed(self.files):
                os.fdatasync(file)
        self.unsynced = False
        self.synced = time.monotonic()

    def close(self) -> None:
        for file in self.files:
            with suppress(OSError):
                os.close(file)
        self.files = []


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def full(folder: Path, error: OSError, written: int) -> StoreFull:
    safe = f" The {written:,} vectors before are safe." if written else ""
    hint = "free some space" if error.errno in FULL else "mend that"
    return StoreFull(
        f"{folder}: cannot be written: {error.strerror}.{safe} After you {hint}, the same command "
        "continues."
    )


def has_writer(vectors: Path) -> bool:
    """Whether a living process holds the segment open (or locks cannot be had here at all)."""
    try:
        file = os.open(vectors.with_suffix(".idx"), os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stat = os.fstat(file)
        return stat.st_size == 0 and time.time() - stat.st_mtime < 60  # opened, not yet locked?
    except OSError:
        return True
    finally:
        os.close(file)
