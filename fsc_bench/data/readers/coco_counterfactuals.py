"""COCO-Counterfactuals: pairs of made pictures with captions that differ in one noun.

Intel/COCO-Counterfactuals: `data/examples.jsonl` with a line `{"id", "caption_0", "caption_1",
"image_0", "image_1"}`, and the pictures in `data/images.zip` (or an `images` folder). The paper's
test split is a CSV of its repository, `image_path,caption`:
`.../synthetic-images-for-original-captions/<id>.jpg` is the first of pair <id>,
`...-for-counterfactual-captions/<id>.jpg` the second.

A record is one picture and its caption; both twins of a pair share a cluster. Option: `split`, that
CSV, a text file of ids, or "" for all pairs.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test-coco-cfs.csv"}

FOLDERS = {
    "synthetic-images-for-original-captions": 0,
    "synthetic-images-for-counterfactual-captions": 1,
}
EXAMPLES = ("data/examples.jsonl", "examples.jsonl")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    (subset,) = task.leaves
    path = raw.find(*EXAMPLES)
    examples = _examples(raw, path)
    prefix = _prefix(raw, path, examples)
    for name, k in _split(raw, task.data.options.get("split", OPTIONS["split"]), examples):
        line, row = examples[name]
        stem = raw.field(path, line, row, f"image_{k}")
        yield Record(
            id=f"{name}_img_{k}",
            subset=subset,
            images=(ImageRef(OWN, f"{prefix}{stem}.jpg"),),
            texts=(raw.field(path, line, row, f"caption_{k}"),),
            cluster=name,
        )


def _examples(raw: Raw, path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    examples = {}
    for number, row in raw.json_lines(*EXAMPLES):
        line = f"line {number}"
        name = raw.field(path, line, row, "id")
        if name in examples:
            raw.fail(path, line, f"the id {name!r:.60} is used twice.")
        examples[name] = (line, row)
    if not examples:
        raw.fail(path, None, "holds no pairs.")
    return examples


def _prefix(raw: Raw, path: Path, examples: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """What stands before a picture's name: the zip, with or without a folder inside, or images/."""
    beside = path.parent.relative_to(raw.folder).as_posix()
    beside = "" if beside == "." else f"{beside}/"
    if not raw.has(f"{beside}images.zip"):
        return f"{beside}images/"
    line, row = next(iter(examples.values()))
    first = f"{raw.field(path, line, row, 'image_0')}.jpg"
    inside = "images/" if f"images/{first}" in raw.zip_names(f"{beside}images.zip") else ""
    return f"{beside}images.zip::{inside}"


def _split(
    raw: Raw, split: str, examples: dict[str, tuple[str, dict[str, Any]]]
) -> Iterator[tuple[str, int]]:
    """(pair, 0 or 1) of every picture of the split, in its order."""
    if not split:
        yield from ((name, k) for name in examples for k in (0, 1))
        return
    names = (split, f"data/{split}")
    path = raw.find(*names)
    if not split.endswith(".csv"):
        for name in raw.text(*names).split():
            if name not in examples:
                raw.fail(path, name, "is not in examples.jsonl.")
            yield from ((name, k) for k in (0, 1))
        return
    for number, row in raw.csv(*names, required=("image_path", "caption")):
        place = PurePosixPath(row["image_path"])
        name, k = place.stem, FOLDERS.get(place.parent.name)
        if k is None or name not in examples:
            raw.fail(path, f"row {number}", f"{str(place)!r:.120} is no picture of examples.jsonl.")
        if examples[name][1].get(f"caption_{k}") != row["caption"]:
            raw.fail(path, f"row {number}", "has another caption than examples.jsonl.")
        yield name, k
