"""Class lists: text files beside the data that say which class each of its numbers or words is.

Data sets bring them as `classnames.txt` (clip_benchmark) or `label.txt` (ELEVATER): one name a
line, line 1 being number 0. A user's own `classes.txt` wins over them. It holds the same, or lines
such as `1 = red` and `tumor = lymph node containing metastatic tumor tissue`: what the data call a
class, and what the task calls it.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from fsc_bench.data.labels import CLASSES, NUMERAL, Labels

NAMED = ("classnames.txt", "class_names.txt")
# Such files may hold something else too, such as one label for each picture.
PERHAPS = ("label.txt", "labels.txt")


class ClassLists:
    """The lists for data in one folder: there, or in a folder around it.

    They are looked for up to one folder above the raw folder, and inside an archive first.
    """

    def __init__(self, labels: Labels, folder: Path, inner: Mapping[str, str] | None = None):
        """inner: the lists inside an archive, path -> content, which are nearer than all others."""
        self.labels = labels
        self.raw = labels.raw
        self.inner = inner or {}
        found = [*self.inner, *self._on_disk(folder)]
        self.own = next((path for path in found if _name(path) == CLASSES), "")
        self.others = [path for path in found if _name(path) != CLASSES]
        self.path = ""  # of the list that `order` or `keyed` was read from

    @cached_property
    def keyed(self) -> dict[str, int]:
        """`{what the data call it: class}` of a classes.txt that says both; empty otherwise."""
        if not self.own:
            return {}
        lines = self._lines(self.own)
        pairs = [pair for pair in _pairs(self.labels, lines) if pair]
        if not self._ours(self.own) and all(self.labels.find(word) is None for _, word in pairs):
            return {}
        self.path = self.own
        return _keyed(self.labels, self.own, lines)

    @cached_property
    def order(self) -> tuple[int, ...] | None:
        """The class of each number, from 0; None where no list is about this task's classes.

        Raises DataError for a list that is not understood, and for two that differ.
        """
        if self.own and (order := self._read(self.own)) is not None:
            self.path = self.own
            return order
        read = [(path, self._read(path)) for path in self.others]
        orders = {path: order for path, order in read if order is not None}
        if not orders:
            return None
        self.path, *more = orders
        for path in more:
            if orders[path] != orders[self.path]:
                self.raw.fail(
                    path,
                    None,
                    f"lists the classes in another order than {self.path}. "
                    f"{self.labels.advice('0')}",
                )
        return orders[self.path]

    def of(self, key: str | int) -> int | None:
        """The class that lines with keys give to what the data call `key`."""
        return self.keyed.get(_key(str(key)))

    def _lines(self, path: str) -> list[str]:
        text = self.inner[path] if path in self.inner else self.raw.text_of(Path(path))
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _read(self, path: str) -> tuple[int, ...] | None:
        lines = self._lines(path)
        return tuple(self.labels.order(lines, path)) if self._concerns(path, lines) else None

    def _concerns(self, path: str, lines: list[str]) -> bool:
        """Whether a list is about this task's classes at all.

        What is called a class list and lies within the raw folder is, and is refused where it is
        not understood. Any other is where it names classes and is no longer than they are many.
        """
        if _name(path) not in PERHAPS and self._ours(path):
            return True
        known = any(self.labels.places_of(line) for line in lines)
        return known and len(lines) <= len(self.labels.names)

    def _ours(self, path: str) -> bool:
        """Whether a file lies within the raw folder; above it, other data may lie too."""
        return path in self.inner or Path(path).is_relative_to(self.raw.folder)

    def _on_disk(self, folder: Path) -> Iterator[str]:
        """Every file that is called like a list, the nearest first."""
        for place in self._places(folder):
            for name in (CLASSES, *NAMED, *PERHAPS):
                found = self.raw.listing(str(place)).find(name)
                path = place / (found or name)
                if path.is_file():
                    yield str(path)
                elif name == CLASSES:
                    self.raw.note_absent(path)

    def _places(self, folder: Path) -> list[Path]:
        raw = self.raw.folder
        top = raw if raw.is_dir() else raw.parent
        if not folder.is_relative_to(top):
            return [top]
        around = [place for place in (folder, *folder.parents) if place.is_relative_to(top)]
        return [*around, top.parent] if raw.is_dir() else around


def is_list(path: str) -> bool:
    """Whether a file is called like a class list."""
    return _name(path) in (CLASSES, *NAMED, *PERHAPS)


def _name(path: str) -> str:
    return PurePosixPath(path).name.casefold()


# ---------------------------------------------------------------- lines with keys


def _keyed(labels: Labels, path: str, lines: list[str]) -> dict[str, int]:
    """`{what the data call it: class}` where lines say both; empty for lines in label order."""
    if all(labels.find(line) is not None for line in lines):
        return {}
    pairs = _pairs(labels, lines)
    if not any(pairs):
        return {}
    found: dict[str, int] = {}
    for line, pair in zip(lines, pairs, strict=True):
        if pair is None:
            labels.raw.fail(path, None, f"the line {line!r:.80} is not `WHAT DATA SAY = CLASS`.")
        key, word = pair
        place = labels.find(word)
        if place is None:
            labels.unknown(word, path, None)
        if found.setdefault(_key(key), place) != place:
            labels.raw.fail(path, None, f"gives {key!r:.60} to two classes.")
    return found


def _pairs(labels: Labels, lines: list[str]) -> list[tuple[str, str] | None]:
    return [_pair(labels, line) for line in lines]


def _pair(labels: Labels, line: str) -> tuple[str, str] | None:
    """(key, class) of `key = class` or `key<TAB>class`; for numbers also `1 class`, `1: class`."""
    pieces = [match.span() for match in re.finditer(r"\s*=\s*|\t+", line)]
    splits = [(line[:begin], line[end:]) for begin, end in pieces if begin and end < len(line)]
    if match := re.fullmatch(r"(\d{1,9})\s*[\s:,;.)]\s*(\S.*)", line):
        splits.append((match[1], match[2]))
    known = [(key, word) for key, word in splits if labels.find(word) is not None]
    return (known or splits or [None])[0]


def _key(word: str) -> str:
    word = unicodedata.normalize("NFC", word.strip())
    return str(int(word)) if NUMERAL.fullmatch(word) else word.casefold()


def order_of_names(
    labels: Labels, names: Sequence[str], path: Path, lists: ClassLists
) -> Sequence[int]:
    """The class of each number of a column that brings its own class names (`ClassLabel`).

    Names decide; a classes.txt says what names in other words mean, or stands in their place.
    Raises DataError for names that are not understood.
    """
    numerals = all(NUMERAL.fullmatch(name.strip()) for name in names)
    if lists.keyed:
        return _by_key(labels, names, path, lists, numerals)
    if labels.understood(names, path):
        return labels.order(names, path)
    if lists.own and lists.order is not None and not numerals:
        if len(lists.order) != len(names):
            labels.raw.fail(path, None, f"has {len(names)} classes, not as {lists.path}.")
        return lists.order
    found = labels.order(names, path, lists)
    if lists.own and lists.order is not None and tuple(found) != lists.order:
        labels.raw.fail(
            path,
            None,
            f"numbers its classes {', '.join(names[:4])} ..., and {lists.path} does not say "
            f"whether its lines go by those or by place. {labels.advice(names[-1], found[-1])}",
        )
    return found


def _by_key(
    labels: Labels, names: Sequence[str], path: Path, lists: ClassLists, numerals: bool
) -> list[int]:
    found = [lists.of(name) for name in names]
    if not numerals:
        found = [labels.find(name) if place is None else place
                 for name, place in zip(names, found, strict=True)]  # fmt: skip
        numbered = [lists.of(number) for number in range(len(names))]
        found = numbered if None not in numbered else found
    for name, place in zip(names, found, strict=True):
        if place is None:
            labels.raw.fail(path, None, f"{lists.path} has no line for the class {name!r:.60}.")
    return found
