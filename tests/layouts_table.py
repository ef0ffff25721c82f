"""Prints for each of the 35 the layouts that are tried, what is read of them, and the pictures.

python tests/layouts_table.py [WORD]     only lines with WORD in them
"""

import sys
import tempfile
from pathlib import Path

import layouts_own  # noqa: F401  registers its layouts
import layouts_several  # noqa: F401
from layouts import FSC, LAYOUTS, expected, read_by_others, try_layout
from rich.console import Console
from rich.table import Table


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


def main(word: str = "") -> None:
    table = Table("task", "layout", "outcome", "records", "torchvision, datasets")
    for one in sorted(LAYOUTS, key=lambda one: list(FSC).index(one.task)):
        if word in str(one):
            table.add_row(*row(one))
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(*sys.argv[1:2])
