"""Evidence: what tells a task's data, or an image source, from another's, as facts from its file.

Facts alone: data/evidence.py holds records and pictures against a task's, data/link.py file names
against a source's. tasks/README.md explains every key.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.facts import Facts

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


class Pictures(Facts, frozen=True):
    """What all pictures of a task have in common; a list is [smallest, largest]."""

    width: int | list[int] | None = None
    height: int | list[int] | None = None
    colour: bool | None = None


class ClassCounts(Facts, frozen=True):
    """Bounds of the records of each class: one number for all, or a list in class order."""

    least: int | list[int] | None = None
    most: int | list[int] | None = None


class KnownRecord(Facts, frozen=True):
    """One of `known`."""

    pixels: str = ""
    file: str = ""
    text: str = ""
    subset: str = ""
    name: str | None = msgspec.field(name="class", default=None)


class EvidenceTable(Facts, frozen=True):
    """[data.evidence] of a task file."""

    classes: int | list[int] | ClassCounts | None = None
    pictures: Pictures = Pictures()
    names: str = ""
    known: tuple[KnownRecord, ...] = ()
    unchecked: tuple[str, ...] = ()


class SourceEvidenceTable(Facts, frozen=True):
    """[evidence] of an image source."""

    files: int = 0
    names: str = ""
    known: tuple[str, ...] = ()


def read_evidence(
    place: str,
    table: EvidenceTable,
    classes: Sequence[Sequence[str]],
    subsets: Collection[str],
) -> Evidence:
    """The facts of a task file's `[data.evidence]`. Raises UsageError that begins with `place`.

    classes: ids and names in class order; a known record may say either, where that is unique.
    """
    count = len(classes[-1])
    if table.classes is not None and not count:
        raise UsageError(f"{place} 'classes' belongs to kind = 'classification'.")
    least, most = _class_counts(place, table.classes, count)
    for name in table.unchecked:
        if name not in (*PROMISES, *subsets):
            hint = near_miss(name, (*PROMISES, *subsets))
            raise UsageError(f"{place} unchecked names {name!r}, which is no promise.{hint}")
    return Evidence(
        least=least,
        most=most,
        width=_range(place, "width", table.pictures.width),
        height=_range(place, "height", table.pictures.height),
        colour=table.pictures.colour,
        names=_pattern(place, table.names),
        known=tuple(_known(place, row, classes, subsets) for row in table.known),
        unchecked=tuple(table.unchecked),
    )


def read_source_evidence(place: str, table: SourceEvidenceTable) -> SourceEvidence:
    """The facts of an image source's `[evidence]`. Raises UsageError that begins with `place`."""
    pattern = _pattern(place, table.names)
    for name in table.known:
        if pattern and not re.fullmatch(pattern, name):
            raise UsageError(f"{place} known has {name!r}, which 'names' does not match.")
    return SourceEvidence(table.files, pattern, tuple(table.known))


def _class_counts(
    place: str, value: int | list[int] | ClassCounts | None, count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(fewest, most) records of each class."""
    if not isinstance(value, ClassCounts):
        value = ClassCounts(value, value)
    bounds = []
    for numbers in (value.least, value.most):
        if numbers is None:
            bounds.append(())
            continue
        numbers = [numbers] * count if isinstance(numbers, int) else numbers
        if len(numbers) != count:
            raise UsageError(f"{place} classes lists {len(numbers)} numbers for {count} classes.")
        for number in numbers:
            if number < 0:
                raise UsageError(f"{place} classes has {number!r}, which is no count of records.")
        bounds.append(tuple(numbers))
    return bounds[0], bounds[1]


def _range(place: str, key: str, value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    ends = [value, value] if isinstance(value, int) else value
    if len(ends) != 2 or not 0 < ends[0] <= ends[1]:
        raise UsageError(f"{place} pictures {key} = {value!r} is no size or [smallest, largest].")
    return ends[0], ends[1]


def _pattern(place: str, pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{place} names = {pattern!r} is no pattern: {error}.") from None
    return pattern


def _known(
    place: str, row: KnownRecord, classes: Sequence[Sequence[str]], subsets: Collection[str]
) -> Known:
    words = {"pixels": row.pixels, "file": row.file, "text": row.text}
    if not any(words.values()):
        raise UsageError(f"{place} known needs one of 'pixels', 'file' and 'text'.")
    if not re.fullmatch(r"([0-9a-f]{16,64})?", row.pixels):
        raise UsageError(f"{place} known pixels = {row.pixels!r} is not 16 to 64 digits 0-9a-f.")
    if row.subset and row.subset not in subsets:
        hint = near_miss(row.subset, subsets)
        raise UsageError(f"{place} known subset = {row.subset!r} is not in [subsets].{hint}")
    label = None
    if classes[-1]:
        name = row.name or ""
        found = {words.index(name) for words in classes if list(words).count(name) == 1}
        if len(found) != 1:
            hint = near_miss(name, {word for words in classes for word in words})
            raise UsageError(f"{place} known class = {name!r} is not one class.{hint}")
        (label,) = found
    elif row.name is not None:
        raise UsageError(f"{place} known 'class' belongs to kind = 'classification'.")
    return Known(**words, subset=row.subset, label=label)


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
