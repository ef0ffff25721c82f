"""Labels: from what raw files call a class (folder, synset, name, number) to its place in the task.

Also the two small searches that readers share: the files of a split, and files in natural order.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fsc_bench.data.raw import Raw
from fsc_bench.errors import near_miss

SPLIT_WORDS = ("train", "trainval", "val", "valid", "validation", "dev", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff")
CLASS_FOLDERS = (
    50  # a folder with more subfolders than this holds classes; no archives are sought there
)


class Labels:
    """The classes of one task, found by id or name; case, blanks and punctuation do not matter."""

    def __init__(self, raw: Raw):
        self.raw = raw
        self.names = raw.task.classes
        self.ids = raw.task.class_ids
        self.places: dict[str, list[int]] = {}
        for words in (self.ids, self.names):
            for place, word in enumerate(words):
                known = self.places.setdefault(_plain(word), [])
                if place not in known:
                    known.append(place)

    def find(self, word: str) -> int | None:
        """The one class called `word`, by id or name; None for no class or for several."""
        if word in self.ids:
            return self.ids.index(word)
        places = self.places.get(_plain(word), [])
        return places[0] if len(places) == 1 else None

    def read(self, value: Any, path: Path | str, record: Any, first: int = 0) -> int:
        """The class that a cell or folder says: a name, an id or a number counted from `first`.

        Raises DataError for a word that is no class and a number out of range.
        """
        if isinstance(value, str):
            place = self.find(value.strip())
            if place is not None:
                return place
            if not re.fullmatch(r"[+-]?\d{1,9}", value.strip()):
                self._unknown(value, path, record)
            value = int(value)
        if isinstance(value, bool) and len(self.names) == 2:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.raw.fail(path, record, f"{value!r:.60} is no label.")
        if not first <= value < first + len(self.names):
            self.raw.fail(
                path,
                record,
                f"label {value} is out of range; the task has {len(self.names)} classes "
                f"({first}..{first + len(self.names) - 1}).",
            )
        return value - first

    def _unknown(self, value: str, path: Path | str, record: Any) -> NoReturn:
        if len(self.places.get(_plain(value), [])) > 1:
            self.raw.fail(
                path, record, f"{value!r} names two classes; the class's id tells them apart."
            )
        hint = near_miss(value, [*self.ids, *self.names])
        self.raw.fail(path, record, f"no class is called {value!r:.80}.{hint}")

    def order(self, names: Sequence[str], path: Path | str) -> list[int]:
        """The class of each number, where the raw data bring a list of class names of their own.

        Label orders differ between mirrors (ELEVATER's own in nine data sets), so names decide. A
        list that spells classes in another language than ours must be as long and may not
        contradict.
        """
        if not names:
            self.raw.fail(path, None, "lists no class.")
        found = [self._among(name, place) for place, name in enumerate(names)]
        known = [place for place in found if place is not None]
        if len(known) == len(found) and len(set(found)) == len(found):
            return known
        agrees = all(place in (None, number) for number, place in enumerate(found))
        if len(names) == len(self.names) and agrees:
            return list(range(len(names)))
        strange = next(
            (name for name, place in zip(names, found, strict=True) if place is None), None
        )
        if strange is None:
            self.raw.fail(path, None, "lists a class twice.")
        self._unknown(strange, path, None)

    def _among(self, name: str, number: int) -> int | None:
        # "missile" is ImageNet's 657 and 744: at either place it is that class.
        places = self.places.get(_plain(name), [])
        return number if number in places else self.find(name)


def _plain(word: str) -> str:
    return re.sub(r"[\W_]+", "", word.casefold())


def natural(path: Path | str) -> list[Any]:
    """Sort key under which 2.tar comes before 10.tar."""
    pieces = re.split(r"(\d+)", str(path))
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]


def files_below(folder: Path, suffixes: tuple[str, ...], depth: int = 3) -> list[Path]:
    """Files with such endings up to `depth` folders down, in natural order; no hidden ones."""
    if folder.is_file():
        return [folder] if folder.name.endswith(suffixes) else []
    found: list[Path] = []
    folders = [folder]
    for _ in range(depth):
        below: list[Path] = []
        for place in folders:
            subfolders = []
            for entry in entries(place):
                if entry.is_dir():
                    subfolders.append(Path(entry.path))
                elif entry.name.endswith(suffixes):
                    found.append(Path(entry.path))
            below += subfolders if len(subfolders) <= CLASS_FOLDERS else []
        folders = below
    return sorted(found, key=natural)


def entries(folder: Path) -> Iterator[os.DirEntry]:
    """What a folder holds, in name order, without hidden files; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if not entry.name.startswith((".", "__MACOSX")):
            yield entry


def of_split(raw: Raw, files: Iterable[Path], split: str | Sequence[str]) -> list[Path]:
    """The files whose path says the split (the first of several words that any path says).

    Where no path says any split, all files are it. Raises DataError where only others are there.
    """
    files = list(files)
    wanted = [split] if isinstance(split, str) else list(split)
    words = {path: _split_words(raw, path) for path in files}
    for word in wanted:
        chosen = [path for path in files if word in words[path]]
        if chosen:
            return chosen
    silent = [path for path in files if not words[path] & set(SPLIT_WORDS)]
    if files and not silent:
        there = sorted(set().union(*words.values()) & set(SPLIT_WORDS))
        raw.fail(
            raw.folder, None, f"holds {', '.join(there)}, not the split {' or '.join(wanted)}."
        )
    return silent


def _split_words(raw: Raw, path: Path) -> set[str]:
    inside = path.relative_to(raw.folder) if path != raw.folder else Path(path.name)
    return set(re.split(r"[^a-z]+", inside.as_posix().lower()))


def member(raw: Raw, container: Path, name: str) -> str:
    """The path by which records name a container's member; it may be all of the raw data."""
    if container == raw.folder:
        return name
    return f"{container.relative_to(raw.folder).as_posix()}::{name}"
