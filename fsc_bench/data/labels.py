"""Labels: from what raw files call a class (folder, synset, name, number) to its place in the task.

Names decide. Numbers are places in the class list that lies with the data (class_lists.py), or else
in the task's own order. One number alone does not say from where its data set counts; all of them
together often do. Where two readings remain, the data are refused with both.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fsc_bench.data.raw import Raw
from fsc_bench.errors import near_miss

UNSAID = -1  # the option `first` of a task file that does not say where numbers begin
NUMERAL = re.compile(r"[+-]?[0-9]{1,9}")
CLASSES = "classes.txt"  # the list by which a user says what the data call each class
ENOUGH = 10  # names in place, from which on a list of other spellings is known to be in our order


class Labels:
    """The classes of one task, found by id or name.

    Equal words are looked for first, then those that differ by case, then by punctuation and
    blanks: `C`, `C++` and `C#` are three classes, `Sea_Lake` is `sea lake`.
    """

    def __init__(self, raw: Raw):
        self.raw = raw
        self.names = raw.task.classes
        self.ids = raw.task.class_ids
        self.places: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(3)]
        for words in (self.ids, self.names):
            for place, word in enumerate(words):
                for table, form in zip(self.places, _forms(word), strict=True):
                    if form and place not in table[form]:
                        table[form].append(place)

    def places_of(self, word: str) -> list[int]:
        """The classes called `word`: one, none, or several that it does not tell apart."""
        for table, form in zip(self.places, _forms(word), strict=True):
            if form and form in table:
                return table[form]
        return []

    def find(self, word: str) -> int | None:
        """The one class called `word`, by id or name; None for no class or for several."""
        places = self.places_of(word)
        return places[0] if len(places) == 1 else None

    def unknown(self, word: str, path: Path | str, record: Any) -> NoReturn:
        """Refuses a word that is no class, with the near miss and what a classes.txt could say."""
        if len(self.places_of(word)) > 1:
            self.raw.fail(
                path, record, f"{word!r} names two classes; the class's id tells them apart."
            )
        hint = near_miss(word, [*self.ids, *self.names])
        self.raw.fail(
            path,
            record,
            f"no class is called {word!r:.80}.{hint} {self.advice(word)}",
        )

    def advice(self, example: str, place: int = 0) -> str:
        """How a classes.txt says what the data call a class."""
        folder = self.raw.folder if self.raw.folder.is_dir() else self.raw.folder.parent
        return (
            f"A {CLASSES} in {folder} settles it: a line for each, such as "
            f"`{example:.60} = {self.names[place]:.60}`."
        )

    # ------------------------------------------------------------ lists of names

    def order(self, names: Sequence[str], path: Path | str, lists: Any = None) -> list[int]:
        """The class of each line of a list of class names that came with the data.

        Label orders differ between mirrors (ELEVATER's own in five data sets), so names decide. A
        list of numbers, as folders sorted as text leave it ("0", "1", "10"), is read by number.
        Raises DataError, with the near miss, for a list that is not understood.
        """
        if not names:
            self.raw.fail(path, None, "lists no class.")
        found = self._understood(names, path)
        if found is not None:
            return found
        if all(_is_numeral(name.strip()) for name in names):
            answers = Answers(self, lists, text=True)
            keys = [answers.add(name, path, name) for name in names]
            classes = answers.classes()
            if len(set(classes.values())) == len(keys):
                return [classes[key] for key in keys]
            self.raw.fail(path, None, "lists a class twice.")
        known = [self._among(name, place) for place, name in enumerate(names)]
        strange = next(
            (name for name, place in zip(names, known, strict=True) if place is None), None
        )
        if strange is None:
            self.raw.fail(path, None, "lists a class twice.")
        self.unknown(strange, path, None)

    def understood(self, names: Sequence[str], path: Path | str) -> bool:
        """Whether `order` would not refuse the list."""
        return bool(names) and self._understood(names, path) is not None

    def _understood(self, names: Sequence[str], path: Path | str) -> list[int] | None:
        found = [self._among(name, place) for place, name in enumerate(names)]
        known = [place for place in found if place is not None]
        if len(known) == len(names) and len(set(known)) == len(names):
            return known
        return self._in_our_order(names, path)

    def _in_our_order(self, names: Sequence[str], path: Path | str) -> list[int] | None:
        """Our order, where a list of other spellings shows that it has it; None otherwise.

        ImageNet's own list calls the robin "robin, American robin, Turdus migratorius", and a
        seventh of its classes otherwise than we do. A list shows our order by being as long and by
        having most classes in our places, none elsewhere, and no strange word that fits another
        class better. One strange word alone is the one class that is left.
        """
        if len(names) != len(self.names):
            return None
        claims = [self._claims(name) for name in names]
        there = {place for place, claimed in enumerate(claims) if place in claimed}
        if any(claimed - there for place, claimed in enumerate(claims) if place not in there):
            return None
        strange = [place for place in range(len(names)) if place not in there]
        if len(strange) > 1:
            if len(there) < max(ENOUGH, len(names) / 2):
                return None
            if any(self._fits_another(names[place], place, strange) for place in strange):
                return None
        shown = ", ".join(f"{names[place]!r:.60}" for place in strange[:3])
        self.raw.notes["class names"] = (
            f"{path} spells {len(strange)} of {len(names)} classes otherwise ({shown}); they are "
            "taken in the task's order, as all others are"
        )
        return list(range(len(names)))

    def _claims(self, name: str) -> set[int]:
        """The classes that a name, or one of several synonyms, calls."""
        return {place for part in (name, *name.split(",")) for place in self.places_of(part)}

    def _fits_another(self, name: str, place: int, candidates: Iterable[int]) -> bool:
        words = _words(name)
        own = len(words & _words(self.names[place]))
        return any(len(words & _words(self.names[other])) > own for other in candidates)

    def _among(self, name: str, number: int) -> int | None:
        # "missile" is ImageNet's 657 and 744: at either place it is that class.
        return number if number in self.places_of(name) else self.find(name)


class Answers:
    """What a whole data set calls its classes, collected first and then read together.

    text: whether the values are words by nature, such as folders: a folder called exactly like a
    class is that class, be it `3`. A number in a column may be a place or a name.
    first: the number of the first class, where a format or a task file says it.
    line_0: whether the format says that the first line of its class list is number 0.
    """

    def __init__(
        self,
        labels: Labels,
        lists: Any = None,
        *,
        text: bool,
        first: int = UNSAID,
        line_0: bool = False,
    ):
        self.labels = labels
        self.raw = labels.raw
        self.lists = lists  # class_lists.ClassLists, or None where none can lie with the data
        self.text = text
        self.first = first
        self.line_0 = line_0
        self.seen: dict[str | int, tuple[Path | str, Any]] = {}  # value -> where it stood first

    def add(self, value: Any, path: Path | str, record: Any) -> str | int:
        """Notes a label of the raw data. Returns the key under which `classes` has its class."""
        key = self._key(value)
        if key is None:
            self.raw.fail(path, record, f"{value!r:.60} is no label.")
        self.seen.setdefault(key, (path, record))
        return key

    def _key(self, value: Any) -> str | int | None:
        if isinstance(value, bool):
            if all(self.labels.find(word) is not None for word in ("true", "false")):
                return str(value).lower()
            return int(value) if len(self.labels.names) == 2 else None
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value.strip()) or None
        return value if isinstance(value, int) else None

    def classes(self) -> dict[str | int, int]:
        """The class of every value that was noted.

        Raises DataError for a word that is no class, a number out of range, and numbers that can be
        read in two ways.
        """
        if not self.seen:
            return {}
        if self.lists and self.lists.keyed:
            return {key: self._by_key(key) for key in self.seen}
        if any(not _is_numeral(key) for key in self.seen):
            return {key: self._by_name(key) for key in self.seen}
        named = self._all_named()
        if named and self.text and self.first == UNSAID:
            return named
        return self._by_number(named)

    def _by_key(self, key: str | int) -> int:
        place = self.lists.of(key)
        if place is None and not _is_numeral(key):
            place = self.labels.find(key)
        if place is None:
            self.raw.fail(*self.seen[key], f"{self.lists.path} has no line for {key!r:.60}.")
        return place

    def _by_name(self, key: str | int) -> int:
        place = self.labels.find(str(key))
        if place is None:
            self.labels.unknown(str(key), *self.seen[key])
        return place

    def _all_named(self) -> dict[str | int, int]:
        """The classes that are called by these numerals, where all are; empty otherwise."""
        found = {key: self.labels.find(str(key)) for key in self.seen}
        return {} if None in found.values() else found

    def _by_number(self, named: Mapping[str | int, int]) -> dict[str | int, int]:
        listed = self.lists.order if self.lists else None
        order = range(len(self.labels.names)) if listed is None else listed
        sure = self.line_0 and listed is not None and not self.lists.own
        firsts = [self.first] if self.first != UNSAID else [0] if sure else [0, 1]
        counted = self._counted(order, firsts)
        unlikely: dict[str | int, int] = {}
        if self.first == UNSAID and 1 in counted and self._contradicts(counted[1]):
            unlikely = counted.pop(1)
        readings = {f"counted from {first}": found for first, found in counted.items()}
        if named and self.first == UNSAID:
            readings["the class's name"] = dict(named)
        if len({tuple(found[key] for key in self.seen) for found in readings.values()}) > 1:
            self._two_ways(readings)
        if unlikely and not readings:
            self._two_ways({"counted from 1": unlikely, "its name": self._called(unlikely)})
        if not readings:
            self._out_of_range(len(order), listed is not None)
        found = next(iter(readings.values()))
        if self.text and listed is None and self.first == UNSAID and not named:
            self._check_numbering(found)
        return found

    def _counted(
        self, order: Sequence[int], firsts: Sequence[int]
    ) -> dict[int, dict[str | int, int]]:
        """The class of each value, for every first number that all values allow."""
        numbers = {key: int(key) for key in self.seen}
        return {
            first: {key: order[number - first] for key, number in numbers.items()}
            for first in firsts
            if all(first <= number < first + len(order) for number in numbers.values())
        }

    def _called(self, found: Mapping[str | int, int]) -> dict[str | int, int]:
        """`found`, but with the classes that are called by a numeral where there are such."""
        named = {key: self.labels.find(str(key)) for key in found}
        return {key: found[key] if place is None else place for key, place in named.items()}

    def _contradicts(self, found: Mapping[str | int, int]) -> bool:
        """Whether a reading gives a numeral to another class than the one that is called so."""
        return self._called(found) != dict(found)

    def _check_numbering(self, found: Mapping[str | int, int]) -> None:
        """Refuses bare numbers where a data set is published in two orders."""
        other = self.raw.task.classes_also_numbered
        if other:
            key = next(iter(self.seen))
            path, _ = self.seen[key]
            self.raw.fail(
                path,
                None,
                f"{str(key)!r} can be {self.labels.names[found[key]]!r} (the published order) or "
                f"another class ({other}), and no class list lies with the data. "
                f"{self.labels.advice(str(key), found[key])}",
            )

    def _two_ways(self, readings: Mapping[str, Mapping[str | int, int]]) -> NoReturn:
        options = list(readings.values())
        key = next(key for key in self.seen if len({found[key] for found in options}) > 1)
        ways: dict[int, list[str]] = defaultdict(list)
        for words, found in readings.items():
            ways[found[key]].append(words)
        said = " or ".join(
            f"{self.labels.names[place]!r:.80} ({', '.join(words)})"
            for place, words in ways.items()
        )
        low, high = min(map(int, self.seen)), max(map(int, self.seen))
        span = f"the labels lie in {low}..{high}, so" if low < high else "the only label is"
        path, _ = self.seen[key]
        self.raw.fail(
            path,
            None,
            f"{span} {str(key)!r} can be {said}. The option `first` of the reader "
            f"{self.raw.task.data.reader!r} says where numbers begin. "
            f"{self.labels.advice(str(key), options[-1][key])}",
        )

    def _out_of_range(self, count: int, listed: bool) -> NoReturn:
        first = max(self.first, 0)
        numbers = {key: int(key) for key in self.seen}
        strange = [key for key, n in numbers.items() if not first <= n < first + count]
        key = max(strange or numbers, key=lambda key: abs(numbers[key]))
        whose = f"{self.lists.path} has" if listed else "the task has"
        span = f"{first}..{first + count - 1}"
        self.raw.fail(
            *self.seen[key],
            f"label {key} is out of range; {whose} {count} classes ({span}). "
            f"{self.labels.advice(str(key))}",
        )


def _is_numeral(key: str | int) -> bool:
    return isinstance(key, int) or NUMERAL.fullmatch(key) is not None


def _forms(word: str) -> tuple[str, str, str]:
    """A word as it is, without case, and without punctuation and blanks; accents in one form."""
    exact = unicodedata.normalize("NFC", word.strip())
    folded = re.sub(r"[\s_]+", " ", exact.casefold())
    return exact, folded, re.sub(r"[\W_]+", "", folded)


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", unicodedata.normalize("NFC", name).casefold()))
