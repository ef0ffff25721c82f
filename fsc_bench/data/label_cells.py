"""Label cells: a column of labels, noted row by row and understood as a whole.

One cell alone does not say what it is: a vector of 0 and 1 or a list of numbers, numbers from 0 or
from 1, an order of the file's own. labels.py says what an answer means; this says what a cell is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fsc_bench.data.class_lists import ClassLists, order_of_names
from fsc_bench.data.labels import Answers, Labels
from fsc_bench.data.raw import Raw


class Table(Protocol):
    """What must be known of a cell's file."""

    path: Path
    label: str  # the column's name
    class_names: Mapping[str, list[str]]  # of the columns whose numbers the file explains
    untyped: bool  # everything is text, as in CSV


class LabelCells:
    """The label cells of all files, noted one by one and understood together."""

    def __init__(self, raw: Raw, first: int):
        self.raw, self.first = raw, first
        self.labels = Labels(raw)
        self.orders: dict[Path, Sequence[int] | None] = {}  # of files that bring class names
        self.cells: list[tuple[Table, Any, list[Any]]] = []  # (file, record, values)

    def add(self, table: Table, record: Any, cell: Any) -> None:
        """Notes the next record's cell."""
        if table.path not in self.orders:
            names = table.class_names.get(table.label)
            lists = ClassLists(self.labels, table.path.parent)
            order = order_of_names(self.labels, names, table.path, lists) if names else None
            self.orders[table.path] = order
        self.cells.append((table, record, cell if isinstance(cell, list) else [cell]))

    def classes(self) -> Iterator[tuple[int, ...]]:
        """The classes of each record, in the order in which the cells were noted."""
        lists = ClassLists(self.labels, self.cells[0][0].path.parent) if self.cells else None
        if self._are_vectors():
            listed = lists.order
            for table, _, values in self.cells:
                order = self.orders[table.path] or listed or range(len(values))
                yield tuple(order[place] for place, bit in enumerate(values) if bit)
            return
        answers = {
            text: Answers(self.labels, lists, text=text, first=self.first) for text in (False, True)
        }
        noted = [
            [self._note(answers, table, record, value) for value in values]
            for table, record, values in self.cells
        ]
        classes = {text: found.classes() for text, found in answers.items()}
        for keys in noted:
            found = [key if text is None else classes[text][key] for text, key in keys]
            yield tuple(dict.fromkeys(found))

    def _note(
        self, answers: Mapping[bool, Answers], table: Table, record: Any, value: Any
    ) -> tuple[bool | None, Any]:
        """(which answers, key) of a value; (None, class) where the file's class names say it."""
        order = self.orders[table.path]
        if order is not None and isinstance(value, int):
            if not 0 <= value < len(order):
                line = f"label {value} is out of range (0..{len(order) - 1})."
                self.raw.fail(table.path, record, line)
            return None, order[value]
        # In CSV everything is text; a string elsewhere is meant as a word.
        text = isinstance(value, str) and not table.untyped
        return text, answers[text].add(value, table.path, record)

    def _are_vectors(self) -> bool:
        """Whether the column holds vectors of 0 and 1, a place for each class, and no numbers.

        Read as numbers, [0, 1, 0] would name a class twice. Raises DataError where a column can be
        either, and for vectors with another number of places than classes.
        """
        lengths = {len(values) for _, _, values in self.cells}
        if len(lengths) != 1 or not all(
            _is_bit(value) for _, _, values in self.cells for value in values
        ):
            return False
        (length,), count = lengths, len(self.labels.names)
        twice = any(len(set(values)) < length for _, _, values in self.cells)
        several = {"map11", "map11_devkit"} & set(self.raw.task.headline)
        if length == count and (twice or not several):
            return True
        table, record, values = self.cells[0]
        why = f"{values!r:.80} looks like a vector of 0 and 1, but the task has {count} classes."
        if length == count:
            why = f"{values!r:.80} can be a vector of 0 and 1 or the numbers of both classes."
        if twice or length == count:
            self.raw.fail(table.path, record, why)
        return False


def _is_bit(value: Any) -> bool:
    return isinstance(value, int | float) and value in (0, 1)
