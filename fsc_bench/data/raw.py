"""Raw: a task's own raw folder as readers see it: it finds and parses, and words complaints.

Every file that is read is remembered with its size, times and inode, so that prepared records know
when they are stale.
"""

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fsc_bench.errors import DataError
from fsc_bench.records import ImageRef
from fsc_bench.system.files import stamp
from fsc_bench.task import Task


class Raw:
    """The raw files of one task, at `folder` (its download, or what the user linked).

    exists: whether an image is on disk, for benchmarks whose official code picks by it. Annotations
    alone can be read without: then every image counts as there.
    """

    def __init__(
        self, task: Task, folder: Path, exists: Callable[[ImageRef], bool] = lambda image: True
    ):
        self.task = task
        self.folder = folder
        self.exists = exists
        self.inputs: dict[str, str] = {}  # file -> its stamp (system/files.py)
        self.skipped: list[ImageRef] = []  # missing images that the reader passed over
        self.notes: dict[str, str] = {}  # how records were made, where the files do not say it

    def find(self, *names: str) -> Path:
        """The first of `names` that exists (also as .gz). Raises DataError when none does."""
        for name in names:
            for path in (self.folder / name, self.folder / f"{name}.gz"):
                if path.exists():
                    self.note(path)
                    return path
        if not self.folder.exists():
            raise DataError(
                f"{self.task.name}: no raw data at {self.folder}. `fsc-bench data get "
                f"{self.task.name}`, or `fsc-bench data link {self.task.name} PATH`."
            )
        raise DataError(
            f"{self.task.name}: {' or '.join(names)} is not in {self.folder}. "
            f"`fsc-bench data link {self.task.name} PATH` points at another folder."
        )

    def has(self, name: str) -> bool:
        """Whether `name` exists (also as .gz)."""
        return (self.folder / name).exists() or (self.folder / f"{name}.gz").exists()

    def note(self, path: Path) -> None:
        """Remembers a file as an input of the records."""
        if path.is_file():
            self.inputs[str(path)] = stamp(path)

    def where(self) -> str:
        """What the records were read from: the one file, or the folder of several."""
        return next(iter(self.inputs)) if len(self.inputs) == 1 else str(self.folder)

    def bytes(self, *names: str) -> bytes:
        """Content of the first file found, unpacked when it is gzip."""
        path = self.find(*names)
        try:
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            self.fail(path, None, f"cannot be read: {error}")

    def text(self, *names: str) -> str:
        """The same as text (UTF-8, with or without a byte-order mark)."""
        try:
            return self.bytes(*names).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.fail(self.find(*names), None, f"is not UTF-8 text (byte {error.start}).")

    def json(self, *names: str) -> Any:
        """The same, parsed as JSON."""
        return self.parse(self.find(*names), None, self.text(*names))

    def parse(self, path: Path | str, record: Any, text: str) -> Any:
        """JSON text as values. Raises DataError, also for half characters: no file holds them."""
        try:
            value = json.loads(text)
            if "\\ud" in text or "\\uD" in text:
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.fail(path, record, "holds half a character (a lone surrogate).")
        except (ValueError, RecursionError) as error:
            self.fail(path, record, f"is not JSON: {error}")
        return value

    def json_lines(self, *names: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """(line number from 1, object) of a JSON-lines file; blank lines are skipped."""
        for number, line in enumerate(self.text(*names).split("\n"), 1):
            if line.strip():
                row = self.parse(self.find(*names), f"line {number}", line)
                if not isinstance(row, dict):
                    self.fail(self.find(*names), f"line {number}", "is not a JSON object.")
                yield number, row

    def csv(
        self, *names: str, required: tuple[str, ...] = (), delimiter: str = ","
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """(row number from 1, columns by name). Raises DataError where a column is missing."""
        path = self.find(*names)
        reader = csv.DictReader(io.StringIO(self.text(*names), newline=""), delimiter=delimiter)
        try:
            header = reader.fieldnames or []
            for column in required:
                if column not in header:
                    self.fail(path, None, f"has no column {column!r} (has {', '.join(header)}).")
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    self.fail(path, f"row {number}", "has another number of cells than the header.")
                yield number, row
        except csv.Error as error:
            self.fail(path, None, f"is not CSV: {error}")

    def zip_names(self, name: str) -> list[str]:
        """Member names of a zip file."""
        path = self.find(name)
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            self.fail(path, None, f"is not a readable zip: {error}")

    def field(
        self, path: Path | str, record: Any, row: Any, key: str | int, kind: type | tuple = str
    ) -> Any:
        """`row[key]`, which must be of `kind` (a bool is no int). Raises DataError otherwise."""
        try:
            value = row[key]
        except (KeyError, IndexError, TypeError):
            self.fail(path, record, f"has no {key!r}.")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = " or ".join(one.__name__ for one in kinds)
            self.fail(path, record, f"{key!r} is {value!r:.60}, not {names}.")
        if isinstance(value, str) and not value.strip():
            self.fail(path, record, f"{key!r} is empty.")
        if isinstance(value, str) and "\0" in value:
            self.fail(path, record, f"{key!r} holds a zero byte.")
        return value

    def items(self, path: Path | str, value: Any) -> list[tuple[str, Any]]:
        """(key, value) of a JSON object or (index, value) of a list. Raises DataError otherwise."""
        if isinstance(value, Mapping):
            return list(value.items())
        if isinstance(value, list):
            return [(str(place), row) for place, row in enumerate(value)]
        self.fail(path, None, "holds neither a list nor an object.")

    def fail(self, path: Path | str, record: Any, why: str) -> NoReturn:
        """Raises the one line that names file and record."""
        place = f"{path}" if record is None else f"{path}: record {record!s:.100}"
        raise DataError(" ".join(f"{self.task.name}: {place}: {why}".split())[:1000])
