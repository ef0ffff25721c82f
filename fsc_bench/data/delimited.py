"""Delimited tables (CSV, TSV): one set of rules for scoring and for training. No columns are known.

Cells in double quotes may hold the delimiter, line breaks and doubled quotes, as spreadsheets and
pandas write them and open_clip reads them. A caption may also begin with a quote that nobody
closes: read by that rule alone it swallows the rows below, up to the next quote. So where the rule
and the lines do not agree, the number of cells decides, and where both would do, it is an error.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path


class BadTable(ValueError):
    """A table that cannot be read for certain. `row` counts from 1, the header not included."""

    def __init__(self, why: str, row: int | None = None):
        super().__init__(why)
        self.why, self.row = why, row

    def __str__(self) -> str:
        return self.why if self.row is None else f"row {self.row}: {self.why}"


class Table:
    """The columns of a table and, when iterated, (row number from 1, cells) of each row.

    Rows are as wide as the header, blank lines are none. `lone_quotes` counts, while iterating, the
    rows whose quotes were taken as letters. Raises BadTable, also while iterating.
    """

    def __init__(self, text: str, delimiter: str | None = ","):
        """`delimiter` None: a tab where the header has one, else a comma."""
        self.lines = list(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        header = next((n for n, line in enumerate(self.lines) if line.strip("\r\n")), None)
        self.columns: list[str] = []
        self.start = 0
        self.lone_quotes = 0
        if header is None:
            return
        if delimiter is None:
            delimiter = "\t" if "\t" in self.lines[header] else ","
        self.delimiter = delimiter
        parsed = self._quoted(header)
        if parsed is None:
            raise BadTable("the header has a quote that is not closed")
        self.columns, used = parsed
        self.start = header + used
        for name in self.columns:
            # Two columns without a name are harmless: nobody can ask for them.
            if name and self.columns.count(name) > 1:
                raise BadTable(f"the header names the column {name!r} twice")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        self.lone_quotes = 0
        at, number = self.start, 0
        while at < len(self.lines):
            line = self.lines[at].strip("\r\n")
            if not line:
                at += 1
                continue
            number += 1
            if '"' in line:
                cells, used = self._with_quotes(at, number)
            else:
                cells, used = line.split(self.delimiter), 1
            if len(cells) != len(self.columns):
                raise BadTable(_ragged(len(cells), len(self.columns), at), number)
            yield number, cells
            at += used

    def _with_quotes(self, at: int, number: int) -> tuple[list[str], int]:
        """The cells of the row that begins at a line, and how many lines it takes."""
        wide = len(self.columns)
        quoted = self._quoted(at)
        fits = quoted is not None and len(quoted[0]) == wide
        if fits and quoted[1] == 1:
            return quoted
        letters = self.lines[at].strip("\r\n").split(self.delimiter)
        if len(letters) != wide:
            if quoted is None:
                raise BadTable(f"line {at + 1} has a quote that is not closed", number)
            return quoted
        if fits:
            below = [line.strip("\r\n") for line in self.lines[at : at + quoted[1]]]
            rows = all(len(line.split(self.delimiter)) == wide for line in below if line)
            if not rows:
                return quoted
            if self.delimiter != "\t":  # commas are in many texts, tabs in none
                raise BadTable(
                    f"a cell in quotes would hold the lines {at + 1} to {at + quoted[1]}, of which "
                    "each could be a row: write a quote that is a letter twice, inside two quotes",
                    number,
                )
        self.lone_quotes += 1
        return letters, 1

    def _quoted(self, at: int) -> tuple[list[str], int] | None:
        """(cells, lines) by the rule for quotes; None where that breaks."""
        lines = iter(self.lines[place] for place in range(at, len(self.lines)))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        try:
            return next(reader), reader.line_num
        except csv.Error:
            return None


def _ragged(found: int, wanted: int, at: int) -> str:
    return f"line {at + 1} has {found} cells, the header {wanted}"


def read_columns(path: Path, delimiter: str | None = None) -> tuple[Table, Sequence[Sequence[str]]]:
    """A whole table by columns, in the header's order. Raises BadTable and OSError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = Table(file.read(), delimiter)
    except UnicodeDecodeError as error:
        raise BadTable(f"is not UTF-8 text (byte {error.start})") from None
    columns: list[list[str]] = [[] for _ in table.columns]
    for _, cells in table:
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return table, columns
