"""Prints for each of the 35, and for the pictures that they share, the layouts that are tried, what
is read of them, and how much.

python tests/layouts_table.py [WORD]     only lines with WORD in them
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import layouts_own  # noqa: F401  registers its layouts
import layouts_several  # noqa: F401
from layouts import FSC, LAYOUTS, encoded, expected, noise, read_by_others, try_layout
from rich.console import Console
from rich.table import Table
from test_layouts import (
    COMPOSITIONALITY,
    PLACES,
    lay_in_the_hubs_cache,
    lay_pictures,
    records_of,
)

from fsc_bench.data.link import in_hub_cache, look
from fsc_bench.data.sources import sources
from fsc_bench.demo.build import build
from fsc_bench.task import catalogue


def row(one) -> list[str]:
    """Task, layout, what became of it, records, and whether another library reads the same."""
    with tempfile.TemporaryDirectory() as folder:
        found = try_layout(one, Path(folder))
        right = found.classes == expected(one.task)
        what = "read" if right else "WRONG" if found.records else "refused"
        if what == "refused" and one.refused and one.refused in found.line:
            what = f"refused: ... {one.refused} ..."
        elif what == "refused":
            what = f"REFUSED: {found.line.replace(folder, '')}"
        same = "-"
        if one.theirs and right:
            same = "equal" if read_by_others(one, Path(folder)) == found.classes else "DIFFERS"
    return [one.task, one.name, what, str(found.records or "-"), same]


def published_rows(word: str) -> Iterator[list[str]]:
    """Each of the 11, drawn small in the form in which it is published, and as the Hub keeps it."""
    names = [name for name in COMPOSITIONALITY if word in name]
    with tempfile.TemporaryDirectory() as folder:
        if names:
            build(Path(folder) / "demo")
        for name in names:
            task = catalogue()[f"demo_{name}"]
            plain = Path(folder) / "demo" / "raw" / task.name
            cache = Path(folder) / name
            lay_in_the_hubs_cache(plain, cache / f"datasets--org--{name}")
            whole = records_of(task, plain)
            cached = records_of(task, in_hub_cache(task.name, (), cache))
            yield [name, "its files as published", "read", str(len(whole)), "-"]
            what = "read" if cached == whole else "WRONG"
            marked = "the Hub's cache, with byte-order marks and a Mac's leavings"
            yield [name, marked, what, str(len(cached)), "-"]


def picture_rows(word: str) -> Iterator[list[str]]:
    """Each source of pictures that tasks share, in every usual place: how many are found."""
    content = encoded(noise("dtd", 1)[0])
    known = [one for one in sources().values() if one.evidence.known and one.name != "coco/2017"]
    for source in known:
        for kind in PLACES:
            if word not in f"{source.name}: {kind}":
                continue
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "linked"
                place.mkdir()
                files = dict.fromkeys(source.evidence.known, content)
                said = look(None, source, lay_pictures(kind, place, source, files), Path(folder))
                count = said.split()[0]
                what = "read" if count == str(len(files)) else f"WRONG: {said}"
                yield [source.name, kind, what, count, "-"]


def main(word: str = "") -> None:
    table = Table("task", "layout", "outcome", "records", "torchvision, datasets")
    rows = [*published_rows(word)]
    for one in sorted(LAYOUTS, key=lambda one: list(FSC).index(one.task)):
        if word in str(one):
            rows.append(row(one))
    for found in [*rows, *picture_rows(word)]:
        table.add_row(*found)
    Console(width=150).print(table)


if __name__ == "__main__":
    main(*sys.argv[1:2])
