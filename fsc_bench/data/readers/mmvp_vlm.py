"""MMVP-VLM's table: two statements in two lines, and a picture of each (Hub, MMVP/MMVP_VLM).

`Questions.csv` has `Question ID, Type, Statement`; two lines, of an odd number and the next one,
are a pair, and the picture of a line is `MLLM_VLM Images/<Type>/<Question ID>.jpg`. A statement is
true of its own picture. A record has two images and two texts; its subset is its type, in small
letters with _ for a blank (camera_perspective). Option: `template`, what a statement is put into;
the authors' scorer (tsb0601/MMVP, scripts/evaluate_vlm.py) asks "a photo of {}".
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.errors import UsageError
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"template": "a photo of {}"}

TABLE = "Questions.csv"
PICTURES = "MLLM_VLM Images"
COLUMNS = ("Question ID", "Type", "Statement")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    template = task.data.options.get("template", OPTIONS["template"])
    if template.count("{}") != 1:
        raise UsageError(f"{task.path}: template = {template!r} needs exactly one {{}}.")
    path = raw.find(TABLE)
    lines = list(raw.csv(TABLE, required=COLUMNS))
    if len(lines) % 2:
        raw.fail(path, None, f"has {len(lines)} lines; two make a pair.")
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        numbers = [_number(raw, path, *line) for line in (first, second)]
        place = f"row {first[0]}"
        if numbers[0] % 2 == 0 or numbers[1] != numbers[0] + 1:
            raw.fail(path, place, f"{numbers[0]} and {numbers[1]} are no pair, such as 1 and 2.")
        types = [raw.field(path, f"row {n}", row, "Type") for n, row in (first, second)]
        subset = types[0].strip().casefold().replace(" ", "_")
        if types[0] != types[1] or subset not in task.leaves:
            raw.fail(path, place, f"types {types[0]!r:.60} and {types[1]!r:.60} are not one type "
                     f"of {', '.join(task.leaves)}.")  # fmt: skip
        folder = f"{PICTURES}/{types[0].strip()}"
        said = [raw.field(path, f"row {n}", row, "Statement") for n, row in (first, second)]
        yield Record(
            id=str(numbers[0]),
            subset=subset,
            images=tuple(ImageRef(OWN, f"{folder}/{number}.jpg") for number in numbers),
            texts=tuple(template.replace("{}", one.strip()) for one in said),
            cluster=str(numbers[0]),
        )


def _number(raw: Raw, path: Path, line: int, row: dict[str, str]) -> int:
    cell = raw.field(path, f"row {line}", row, "Question ID").strip()
    if not cell.isascii() or not cell.isdigit() or len(cell) > 9:
        raw.fail(path, f"row {line}", f"'Question ID' is {cell!r:.60}, no number.")
    return int(cell)
