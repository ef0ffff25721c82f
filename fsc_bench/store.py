"""Store: embeddings by content key, on disk, for one model identity. It knows no task and no file.

    <folder>/<kind>-<writer>.vec    rows of float32, one after another
    <folder>/<kind>-<writer>.idx    records of 32 bytes key, 4 bytes crc32 of the row

A vector is written before its index record, so what the index names is whole; a torn tail is ignored.
Each writer appends to files of its own, so any number of processes may write at once.
"""

import os
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

RECORD = np.dtype([("key", "V32"), ("crc", "<u4")])
KINDS = ("image", "text")


class Store:
    """The vectors of one model. `put` and `get` take keys of 32 bytes (plan.py)."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex[:16]
        self.rows: dict[str, dict[bytes, tuple[Path, int]]] = {kind: {} for kind in KINDS}
        self.maps: dict[Path, np.ndarray] = {}
        self.read: dict[Path, int] = {}
        self.writers: dict[str, tuple] = {}
        self.dimension: int | None = None
        self.torn = 0  # index records or rows that a killed writer left unfinished
        self.refresh()

    def refresh(self) -> None:
        """Sees what other processes have finished since."""
        for index in sorted(self.folder.glob("*.idx")):
            kind = index.name.split("-")[0]
            vectors = index.with_suffix(".vec")
            shape = index.name.split("-")[1]
            if kind not in KINDS or not vectors.exists() or not shape.isdigit():
                continue
            dimension = int(shape)
            self.dimension = self.dimension or dimension
            whole = vectors.stat().st_size // (4 * dimension)
            size = index.stat().st_size
            records = np.fromfile(index, RECORD, count=min(size // RECORD.itemsize, whole))
            self.torn += size // RECORD.itemsize - len(records)
            start = self.read.get(vectors, 0)
            for row in range(start, len(records)):
                self.rows[kind].setdefault(records["key"][row].tobytes(), (vectors, row))
            self.read[vectors] = len(records)
            if len(records) > start:
                self.maps[vectors] = np.memmap(
                    vectors, np.float32, "r", shape=(len(records), dimension)
                )

    def missing(self, kind: str, keys: Sequence[bytes]) -> list[bytes]:
        """Those of `keys` that have no vector yet, in order."""
        rows = self.rows[kind]
        return [key for key in keys if key not in rows]

    def put(self, kind: str, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Appends vectors [n, d]; they are safe from a killed process when this returns."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        if len(vectors) != len(keys):
            raise ValueError(f"{len(keys)} keys but {len(vectors)} vectors")
        if kind not in self.writers:
            stem = f"{kind}-{vectors.shape[1]}-{self.name}"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
            paths = [self.folder / f"{stem}.{ending}" for ending in ("vec", "idx")]
            self.writers[kind] = (paths[0], [os.open(path, flags, 0o644) for path in paths])
        path, (vector_file, index_file) = self.writers[kind]
        records = np.empty(len(keys), RECORD)
        records["key"] = [np.void(key) for key in keys]
        records["crc"] = [zlib.crc32(row.tobytes()) for row in vectors]
        _write(vector_file, vectors.tobytes())
        _write(index_file, records.tobytes())
        self.refresh()

    def get(self, kind: str, keys: Sequence[bytes]) -> np.ndarray:
        """Vectors [n, d] float32 of keys that are all there (KeyError otherwise)."""
        rows = self.rows[kind]
        places: dict[Path, tuple[list[int], list[int]]] = {}
        for position, key in enumerate(keys):
            path, row = rows[key]
            where = places.setdefault(path, ([], []))
            where[0].append(position)
            where[1].append(row)
        result = np.empty((len(keys), self.dimension or 0), np.float32)
        for path, (positions, numbers) in places.items():
            result[positions] = self.maps[path][numbers]
        return result

    def close(self) -> None:
        for _, files in self.writers.values():
            for file in files:
                os.close(file)
        self.writers.clear()


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
