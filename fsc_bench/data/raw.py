"""Raw: a task's own raw folder as readers see it: it finds and parses, and words complaints.

Every file that is read is remembered with its size, times and inode, so that prepared records know
when they are stale.
"""

import codecs
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fsc_bench.data.archives import DAMAGE, open_zip
from fsc_bench.data.border import Inside, read_packed, reason, says_way_out
from fsc_bench.data.delimited import BadTable, Table
from fsc_bench.data.listing import describe, entries, find_path, snapshots, unread
from fsc_bench.data.names import Names, is_junk, zip_name
from fsc_bench.errors import DataError
from fsc_bench.records import ImageRef
from fsc_bench.system.budget import OverBudget, check
from fsc_bench.system.files import stamp
from fsc_bench.system.regular import Irregular, check_regular, closed, stands_in
from fsc_bench.task import Task

VALUES = 20  # of a JSON file for each member that an archive may have
ABSENT = "absent"  # stands for a file's size and time


class Raw:
    """The raw files of one task, at `folder` (its download, or what the user linked).

    exists: whether an image is on disk, for benchmarks whose official code picks by it. Annotations
    alone can be read without: then every image counts as there.
    """

    def __init__(
        self, task: Task, folder: Path, exists: Callable[[ImageRef], bool] = lambda image: True
    ):
        self.task = task
        self.exists = exists
        self.inputs: dict[str, str] = {}  # file -> its stamp (system/files.py), or ABSENT
        self.skipped: list[ImageRef] = []  # missing images that the reader passed over
        self.notes: dict[str, str] = {}  # how records were made, where the files do not say it
        self.listings: dict[str, Names] = {}
        if why := closed(folder):
            self.fail(folder, None, f"{why}.")
        kept = snapshots(folder)
        if len(kept) > 1:
            names = ", ".join(path.name for path in kept)
            self.fail(folder, None, f"holds several snapshots; link one of snapshots/: {names}.")
        self.folder = kept[0] if kept else folder
        self.inside = Inside([self.folder])

    def find(self, *names: str) -> Path:
        """The first of `names` that exists (also as .gz, also in another form of the name).

        Raises DataError when none does.
        """
        for name in names:
            path = self._existing(name)
            if path is not None:
                self.note(path)
                return path
        if not self.folder.exists():
            raise DataError(
                f"{self.task.name}: no raw data at {self.folder}. `fsc-bench data get "
                f"{self.task.name}`, or `fsc-bench data link {shlex.quote(self.task.word)} PATH`."
            )
        if not self.folder.is_dir():
            raise DataError(
                f"{self.task.name}: {self.folder} is one file, and {' or '.join(names)} is looked "
                "for; link the folder that holds it."
            )
        holds = f", which holds {describe(self.folder)}"
        raise DataError(
            f"{self.task.name}: {' or '.join(names)} is not in {self.folder}{holds}. "
            f"{unread(self.folder)}`fsc-bench data link {shlex.quote(self.task.word)} PATH` points "
            "at another folder."
        )

    def has(self, name: str) -> bool:
        """Whether `name` exists (also as .gz)."""
        return self._existing(name) is not None

    def _existing(self, name: str) -> Path | None:
        for path in (self.folder / name, self.folder / f"{name}.gz"):
            if path.exists():
                return path
        if "*" in name:
            return None
        found = find_path(str(self.folder), [name, f"{name}.gz"], self.listing)
        return Path(found) if found else None

    def listing(self, folder: str) -> Names:
        """The names in a folder, without junk and hidden files; read once."""
        if folder not in self.listings:
            self.listings[folder] = Names([entry.name for entry in entries(Path(folder))])
        return self.listings[folder]

    def note(self, path: Path) -> None:
        """Remembers a file as an input of the records.

        Raises DataError for a pipe or a device, and for a link that leads out of the raw folder.
        """
        if not path.exists() or path.is_dir():
            return
        try:
            check_regular(path)
        except Irregular as error:
            self.fail(path, None, f"{error}.")
        if why := stands_in(path):
            self.fail(path, None, f"is {why}.")
        if target := self.inside.way_out(str(path)):
            self.fail(path, None, f"{says_way_out(target)}.")
        self.inputs[str(path)] = stamp(path)

    def note_absent(self, path: Path) -> None:
        """Remembers that a file which would count is not there: once it is, records are stale."""
        self.inputs.setdefault(str(path), ABSENT)

    def where(self) -> str:
        """What the records were read from: the one file, or the folder of several."""
        read = [path for path, stamp in self.inputs.items() if stamp != ABSENT]
        return read[0] if len(read) == 1 else str(self.folder)

    def bytes_of(self, path: Path) -> bytes:
        """Content of a file that was found in another way, unpacked when it is gzip; an input."""
        self.note(path)
        return self._bytes_of(path)

    def _bytes_of(self, path: Path) -> bytes:
        try:
            return read_packed(path)
        except Irregular as error:
            self.fail(path, None, f"{error}.")
        except (OSError, ValueError, MemoryError) as error:
            self.fail(path, None, f"cannot be read: {reason(error)}.")

    def bytes(self, *names: str) -> bytes:
        """Content of the first file found, unpacked when it is gzip."""
        return self._bytes_of(self.find(*names))

    def text(self, *names: str) -> str:
        """The same as text (UTF-8, with or without a byte-order mark)."""
        return self.text_of(self.find(*names))

    def text_of(self, path: Path) -> str:
        """The text of a file that was found in another way; it counts as an input too."""
        self.note(path)
        content = self._bytes_of(path)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.fail(path, None, "is UTF-16 text; save it as UTF-8.")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self.fail(path, None, f"is not UTF-8 text (byte {error.start}).")

    def json(self, *names: str) -> Any:
        """The same, parsed as JSON."""
        return self.parse(self.find(*names), None, self.text(*names))

    def parse(self, path: Path | str, record: Any, text: str) -> Any:
        """JSON text as values. Raises DataError, also for half characters: no file holds them.

        An object that names a key twice is refused: of two values one would be lost unseen.
        """
        try:
            values = text.count(",") + text.count("[") + text.count("{")
            check(
                "members",
                values // VALUES,
                f"holds {values:,} values, as {values // VALUES:,} members",
            )
            value = json.loads(text, object_pairs_hook=_once)
            if "\\ud" in text or "\\uD" in text:
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.fail(path, record, "holds half a character (a lone surrogate).")
        except _NamedTwice as error:
            self.fail(path, record, f"names {error} twice in one object.")
        except OverBudget as error:
            self.fail(path, record, f"{error}.")
        except RecursionError:
            self.fail(path, record, "is not read: lists within lists without end.")
        except ValueError as error:
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
        """(row number from 1, columns by name), by delimited.py's rules. Raises DataError."""
        path = self.find(*names)
        try:
            table = Table(self.text(*names), delimiter)
            for column in required:
                if column not in table.columns:
                    has = ", ".join(table.columns)
                    self.fail(path, None, f"has no column {column!r} (has {has}).")
            for number, cells in table:
                yield number, dict(zip(table.columns, cells, strict=True))
        except BadTable as error:
            self.fail(path, error.row and f"row {error.row}", f"{error.why}.")

    def zip_names(self, name: str) -> list[str]:
        """Member names of a zip file, as its container calls them."""
        path = self.find(name)
        try:
            with open_zip(path) as archive:
                names = [zip_name(info) for info in archive.infolist()]
                return [name for name in names if not is_junk(name)]
        except (OSError, *DAMAGE) as error:
            self.fail(path, None, f"is not a readable zip: {reason(error)}.")

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
        raise DataError(" ".join(f"{self.task.name}: {place}: {why}".split())[:1400])


class _NamedTwice(ValueError):
    """A key that a JSON object names twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NamedTwice(repr(named_twice([key for key, _ in pairs])))
    return found


def named_twice(names: Iterable[str]) -> str:
    """The first name that occurs twice, if any; blank ones do not count."""
    return next((name for name, count in Counter(names).items() if count > 1 and name.strip()), "")
