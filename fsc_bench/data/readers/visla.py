"""VISLA's tables: one image, two right sentences and a wrong one (Sri-Harsha/visla_benchmark).

Tab-separated, one file a subset, each with its own column names (below). Both right sentences must
beat the wrong one. Spatial_VISLA.tsv has a second wrong one, "completely irrelevant", that the
three-way scores leave out, and rows for which nobody wrote a wrong one: those are passed over, and
counted. Options: `generic` and `spatial`, the image source of each subset.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"generic": "coco/val2017", "spatial": "coco/2017"}
FILES = {"generic": "Generic_VISLA.tsv", "spatial": "Spatial_VISLA.tsv"}
COLUMNS = {  # the image, both right sentences, the wrong one
    "generic": ("filename", "caption", "second positive", "negative_caption"),
    "spatial": ("image", "sent1", "sent2", "Best reference (Semantically close)"),
}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    sources = {**OPTIONS, **task.data.options}
    for subset in task.leaves:
        if subset not in FILES:
            raw.fail(raw.folder, None, f"has no subset {subset!r}; VISLA has {', '.join(FILES)}.")
        image, *texts = COLUMNS[subset]
        names = (FILES[subset], f"data/{FILES[subset]}")
        path, without = raw.find(*names), 0
        for number, row in raw.csv(*names, required=COLUMNS[subset], delimiter="\t"):
            place = f"row {number}"
            if _nobody_wrote_a_foil(row, texts[-1]):
                without += 1
                continue
            filename = raw.field(path, place, row, image)
            yield Record(
                id=f"{subset}/{number - 1}",
                subset=subset,
                images=(ImageRef(sources[subset], filename),),
                texts=tuple(raw.field(path, place, row, name) for name in texts),
                cluster=filename,
                right_texts=2,
            )
        if without:
            _note(raw, path, without)


def _nobody_wrote_a_foil(row: dict[str, str], foil: str) -> bool:
    """Whether a row ends before its wrong sentences: all cells from the first of them on are empty.

    A single empty cell among others is damage, which is refused.
    """
    cells = list(row.items())
    begin = [name for name, _ in cells].index(foil)
    rest = [value for _, value in cells[begin:]]
    return len(rest) > 1 and not any(value.strip() for value in rest)


def _note(raw: Raw, path: Path, without: int) -> None:
    raw.notes["without a foil"] = (
        f"{path.name}: {without:,} rows have no wrong sentence and are passed over"
    )
