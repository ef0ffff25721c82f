"""Evidence: what tells a task's data, or an image source, from another's, as facts from its file.

Facts alone: data/evidence.py holds records and pictures against a task's, data/link.py file names
against a source's. tasks/README.md explains every key.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.tables import check_keys

# What `unchecked` may name besides the task's subsets: facts of the table, and keys of [counts].
PROMISES = ("classes", "pictures", "names", "known", "images", "texts")


@dataclass(frozen=True)
class Known:
    """One record that the published data holds, by any of its picture's pixels or name, its text.

    label: the class it has there; None where the task has no classes.
    """

    pixels: str = ""  # the first digits of data/evidence.py's pixel_digest
    file: str = ""  # a picture's name without its ending; `*`, `?` and `[0-9]` as in a shell
    text: str = ""  # the right text of a record
    subset: str = ""
    label: int | None = None


@dataclass(frozen=True)
class Evidence:
    """The facts of `[data.evidence]`; what is empty or None is not stated."""

    least: tuple[int, ...] = ()  # records of each class
    most: tuple[int, ...] = ()
    width: tuple[int, int] | None = None  # smallest and largest of the pictures, in pixels
    height: tuple[int, int] | None = None
    colour: bool | None = None
    names: str = ""  # a pattern for the names of the task's own pictures
    known: tuple[Known, ...] = ()
    unchecked: tuple[str, ...] = ()  # promises that nobody could hold against the data

    @property
    def one_size(self) -> bool:
        """Whether all pictures have the same stated size."""
        sides = (self.width, self.height)
        return all(side is not None and side[0] == side[1] for side in sides)

    def describes(self, n: int) -> bool:
        """Whether the stated numbers of records a class can add up to `n`."""
        return sum(self.least) <= n and (not self.most or n <= sum(self.most))


@dataclass(frozen=True)
class SourceEvidence:
    """The facts of an image source's `[evidence]`."""

    files: int = 0  # pictures that the published source has; 0 where that is not stated
    names: str = ""  # a pattern for their names, with the folders that the source's root holds
    known: tuple[str, ...] = ()  # names of a few of them


_EVIDENCE = {
    "classes": (int, list, dict),
    "pictures": dict,
    "names": str,
    "known": list,
    "unchecked": list,
}
_PICTURES = {"width": (int, list), "height": (int, list), "colour": bool}
_KNOWN = dict.fromkeys(("pixels", "file", "text", "subset", "class"), str)
_SOURCE = {"files": int, "names": str, "known": list}


def read_evidence(
    place: str, table: Mapping[str, Any], classes: Sequence[Sequence[str]], subsets: Collection[str]
) -> Evidence:
    """Checks a task file's `[data.evidence]`. Raises UsageError that begins with `place`.

    classes: ids and names in class order; a known record may say either, where that is unique.
    """
    check_keys(place, table, _EVIDENCE)
    pictures = table.get("pictures", {})
    check_keys(f"{place} pictures", pictures, _PICTURES)
    count = len(classes[-1])
    if "classes" in table and not count:
        raise UsageError(f"{place} 'classes' belongs to kind = 'classification'.")
    least, most = _class_counts(place, table["classes"], count) if "classes" in table else ((), ())
    for name in table.get("unchecked", []):
        if name not in (*PROMISES, *subsets):
            hint = near_miss(str(name), (*PROMISES, *subsets))
            raise UsageError(f"{place} unchecked names {name!r}, which is no promise.{hint}")
    return Evidence(
        least=least,
        most=most,
        width=_range(place, pictures, "width"),
        height=_range(place, pictures, "height"),
        colour=pictures.get("colour"),
        names=_pattern(place, table.get("names", "")),
        known=tuple(_known(place, row, classes, subsets) for row in table.get("known", [])),
        unchecked=tuple(table.get("unchecked", ())),
    )


def read_source_evidence(place: str, table: Mapping[str, Any]) -> SourceEvidence:
    """Checks an image source's `[evidence]`. Raises UsageError that begins with `place`."""
    check_keys(place, table, _SOURCE)
    pattern = _pattern(place, table.get("names", ""))
    for name in table.get("known", []):
        if not isinstance(name, str) or (pattern and not re.fullmatch(pattern, name)):
            raise UsageError(f"{place} known has {name!r}, which 'names' does not match.")
    return SourceEvidence(table.get("files", 0), pattern, tuple(table.get("known", ())))


def _class_counts(place: str, value: Any, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(fewest, most) records of each class, from a number, a list or a table of the two."""
    if not isinstance(value, Mapping):
        value = {"least": value, "most": value}
    check_keys(f"{place} classes", value, {"least": (int, list), "most": (int, list)})
    bounds = []
    for key in ("least", "most"):
        numbers = value.get(key, [])
        numbers = [numbers] * count if isinstance(numbers, int) else numbers
        if key in value and len(numbers) != count:
            raise UsageError(f"{place} classes lists {len(numbers)} numbers for {count} classes.")
        for number in numbers:
            if type(number) is not int or number < 0:
                raise UsageError(f"{place} classes has {number!r}, which is no count of records.")
        bounds.append(tuple(numbers))
    return bounds[0], bounds[1]


def _range(place: str, pictures: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    if key not in pictures:
        return None
    value = pictures[key]
    ends = [value, value] if isinstance(value, int) else value
    if len(ends) != 2 or any(type(end) is not int for end in ends) or not 0 < ends[0] <= ends[1]:
        raise UsageError(f"{place} pictures {key} = {value!r} is no size or [smallest, largest].")
    return ends[0], ends[1]


def _pattern(place: str, pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{place} names = {pattern!r} is no pattern: {error}.") from None
    return pattern


def _known(
    place: str, row: Any, classes: Sequence[Sequence[str]], subsets: Collection[str]
) -> Known:
    if not isinstance(row, Mapping):
        raise UsageError(f"{place} known has {row!r}, which is no table.")
    check_keys(f"{place} known", row, _KNOWN)
    if not any(row.get(key) for key in ("pixels", "file", "text")):
        raise UsageError(f"{place} known needs one of 'pixels', 'file' and 'text' in {row!r}.")
    if not re.fullmatch(r"([0-9a-f]{16,64})?", row.get("pixels", "")):
        raise UsageError(f"{place} known pixels = {row['pixels']!r} is not 16 to 64 digits 0-9a-f.")
    if row.get("subset") and row["subset"] not in subsets:
        hint = near_miss(row["subset"], subsets)
        raise UsageError(f"{place} known subset = {row['subset']!r} is not in [subsets].{hint}")
    label = None
    if classes[-1]:
        word = row.get("class", "")
        found = {words.index(word) for words in classes if list(words).count(word) == 1}
        if len(found) != 1:
            hint = near_miss(word, {word for words in classes for word in words})
            raise UsageError(f"{place} known class = {word!r} is not one class.{hint}")
        (label,) = found
    elif "class" in row:
        raise UsageError(f"{place} known 'class' belongs to kind = 'classification'.")
    words = {key: row.get(key, "") for key in ("pixels", "file", "text", "subset")}
    return Known(**words, label=label)


def describe(evidence: Evidence) -> list[str]:
    """The facts in words, a line each."""
    lines = []
    if evidence.least or evidence.most:
        lines.append(f"records of each class: {_classes_in_words(evidence)}")
    if evidence.width or evidence.height:
        tone = {None: "", True: ", in colour", False: ", in gray"}[evidence.colour]
        lines.append(f"pictures of {sizes_in_words(evidence)} pixels{tone}")
    if evidence.names:
        lines.append(f"pictures called {evidence.names}")
    kinds = {"pixels": "pictures by their pixels", "file": "picture names", "text": "texts"}
    for key, what in kinds.items():
        if count := sum(bool(getattr(one, key)) for one in evidence.known):
            lines.append(f"{count} known {what}")
    if evidence.unchecked:
        lines.append(f"unchecked: {', '.join(evidence.unchecked)}")
    return lines


def _classes_in_words(evidence: Evidence) -> str:
    least, most = min(evidence.least, default=0), max(evidence.most, default=None)
    if least == most:
        return f"{least:,}"
    if most is None:
        return f"at least {least:,} (a number of its own for each)"
    each = " (a number of its own for each)" if evidence.least == evidence.most else ""
    return f"{least:,} to {most:,}{each}"


def sizes_in_words(evidence: Evidence) -> str:
    """Width and height of the pictures: `28 x 28` or `25-266 x 25-232`."""
    words = []
    for side in (evidence.width, evidence.height):
        one = side is not None and side[0] == side[1]
        words.append("any" if side is None else str(side[0]) if one else f"{side[0]}-{side[1]}")
    return " x ".join(words)
