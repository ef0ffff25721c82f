"""CSV files with a picture a row, a number a cell: Kaggle's mnist_test.csv.

The label stands first or in the column `label`; every other cell is a pixel of a square picture,
row by row. A header is not needed. Option: `first`, the number of the first class, where numbers
alone do not say it.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.border import reason
from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.containers.csv import Container
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import files_below, member, of_split
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.system.budget import OverBudget
from fsc_bench.task import Task

OPTIONS = {"first": UNSAID}
LAYOUT = "a CSV file of labels and pixels (mnist_test.csv)"
SMALLEST = 64  # pixels, below which a row of numbers may be anything
HEAD = 1 << 20  # bytes, in which the first row ends


def detect(raw: Raw) -> bool:
    return bool(_tables(raw))


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    found = _tables(raw)
    chosen = of_split(raw, found, "test") or [raw.find("test.csv")]
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen[:4])
        raw.fail(raw.folder, None, f"holds {names}; link the one to be read.")
    (path,), known = chosen, Labels(raw)
    raw.note(path)
    column, header = found[path]
    first = {**OPTIONS, **task.data.options}["first"]
    answers = Answers(known, ClassLists(known, path.parent), text=False, first=first)
    try:
        container = Container(path)
        places = range(header, len(container.lines))
        places = [place for place in places if container.lines[place].strip()]
        rows = [(place, container.cells(place)) for place in places]
    except (OSError, ValueError, OverBudget) as error:
        raw.fail(path, None, f"cannot be read: {reason(error)}.")
    keys, width = [], 0
    for place, cells in rows:
        width = width or len(cells)
        if len(cells) != width:
            raw.fail(path, f"line {place + 1}", f"has {len(cells)} cells, not {width}.")
        keys.append(answers.add(cells[column], path, f"line {place + 1}"))
    classes = answers.classes()
    span = "0" if column else "1"
    span += f"-{width - 2 if column else width - 1}"
    for (place, _), key in zip(rows, keys, strict=True):
        name = f"{place - header:06d}"
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, member(raw, path, f"{span}/{place}")),),
            labels=(classes[key],),
            cluster=name,
        )


def _tables(raw: Raw) -> dict[Path, tuple[int, int]]:
    """`{file: (the label's column, lines of header)}` of the CSV files that hold pixels."""
    found = {}
    for path in files_below(raw.folder, (".csv",)):
        try:
            with path.open("rb") as file:
                line = file.readline(HEAD)
        except OSError:
            continue
        cells = [cell.strip().strip('"') for cell in line.decode("utf-8-sig", "replace").split(",")]
        side = math.isqrt(len(cells) - 1)
        if side * side != len(cells) - 1 or len(cells) <= SMALLEST:
            continue
        if all(cell.isdecimal() for cell in cells):
            found[path] = (0, 0)
        elif cells[0].casefold() == "label" or cells[-1].casefold() == "label":
            found[path] = (0 if cells[0].casefold() == "label" else len(cells) - 1, 1)
    return found
