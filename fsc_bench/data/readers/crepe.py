"""CREPE's productivity files: a caption of n atoms and five hard negatives (RAIVNLab/CREPE, data/).

`prod_hard_negatives/<type>/prod_vg_hard_negs_<type>_all.csv`, or the same with `complexity_<n>`
for `all`. `hard_negs` is a Python list or set literal, parsed and never run; `x,y,width,height` is
the part of the Visual Genome picture that the caption describes. The picture is named by number.
Options:
    files   "all" (n = 4..14, the published denominators) or "n4-12" (one file a complexity)
    crop    whether the box is cut out before preprocessing, as crepe_compo_eval_open_clip.py does
    images  the image source; its pictures are VG_100K/<id>.jpg or VG_100K_2/<id>.jpg
"""

import ast
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"files": "all", "crop": True, "images": "vg"}
COMPLEXITIES = {"all": ("all",), "n4-12": tuple(f"complexity_{n}" for n in range(4, 13))}
COLUMNS = ("image_id", "caption", "n", "hard_negs", "x", "y", "width", "height")
NEGATIVES = 5  # every row of the release has five: hit@1 over 6 candidates
LARGEST = 100_000  # pixels; no picture is wider


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    if options["files"] not in COMPLEXITIES:
        raw.fail(task.path, None, f"files = {options['files']!r}; choose one of all, n4-12.")
    for kind in task.leaves:
        for part in COMPLEXITIES[options["files"]]:
            yield from _file(raw, kind, part, options)


def _file(raw: Raw, kind: str, part: str, options: dict) -> Iterator[Record]:
    name = f"prod_vg_hard_negs_{kind}_{part}.csv"
    folder = (
        "prod_hard_negatives/"  # once, or twice where an archive was unpacked into its own name
    )
    names = (f"{folder}{kind}/{name}", f"{folder}{folder}{kind}/{name}", f"{kind}/{name}", name)
    if part == "all" and not any(map(raw.has, names)):
        split = [n.replace("_all.csv", "_complexity_4.csv") for n in names]
        if any(map(raw.has, split)):
            raw.fail(
                raw.folder, None,
                f"there is no {name}, only the files of one complexity each: they hold fewer "
                "captions (n = 4..12). The task file says how to score those.",
            )  # fmt: skip
    path = raw.find(*names)
    for number, row in raw.csv(*names, required=COLUMNS):
        place = f"row {number}"
        image = _number(raw, path, place, row, "image_id")
        yield Record(
            id=f"{kind}/{part}/{number}",
            subset=kind,
            images=(
                ImageRef(
                    options["images"],
                    f"VG_100K/{image}.jpg",
                    _box(raw, path, place, row) if options["crop"] else None,
                ),
            ),
            texts=(
                raw.field(path, place, row, "caption"),
                *_negatives(raw, path, place, row["hard_negs"]),
            ),
            cluster=str(image),
        )


def _number(raw: Raw, path: Path, place: str, row: dict[str, str], column: str) -> int:
    """A whole number, which the file may write as `12` or `12.0`."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value) or not 0 <= value < 2**31:
        raw.fail(path, place, f"{column!r} is {row[column]!r:.60}, not a whole number.")
    return int(value)


def _box(raw: Raw, path: Path, place: str, row: dict[str, str]) -> tuple[int, int, int, int]:
    x, y, width, height = (
        _number(raw, path, place, row, column) for column in ("x", "y", "width", "height")
    )
    if not width or not height or max(x, y, width, height) > LARGEST:
        raw.fail(path, place, f"the box x={x} y={y} width={width} height={height} cannot be.")
    return x, y, x + width, y + height


def _negatives(raw: Raw, path: Path, place: str, cell: str) -> list[str]:
    """The five negatives. A set has no order of its own: it is sorted, so records never change."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd backslash in a caption warns; it moves nothing
            found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list | set | tuple):
        raw.fail(path, place, f"'hard_negs' is {cell!r:.60}, not a list or set of texts.")
    for text in found:
        if not isinstance(text, str) or not text.strip():
            raw.fail(path, place, f"'hard_negs' holds {text!r:.60}, not a text.")
        if any("\ud800" <= sign <= "\udfff" or sign == "\0" for sign in text):
            raw.fail(path, place, f"'hard_negs' holds {text!r:.60}, which no caption is.")
    if len(found) != NEGATIVES:
        raw.fail(path, place, f"'hard_negs' holds {len(found)} texts, not {NEGATIVES}.")
    return sorted(found) if isinstance(found, set) else list(found)
