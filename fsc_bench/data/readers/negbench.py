"""NegBench's questions: a picture and four sentences, of which one is right (m1k2zoo/negbench).

One CSV for each set of pictures, with `image_path, caption_0, ..., caption_3, correct_answer,
correct_answer_template`: the number of the right sentence, and whether it names what is there
("positive"), what is not ("negative"), or both ("hybrid"). A path's folders are the authors' own:
its last part names the picture. A record's subset is `<set>_<template>`.

Option: `sets`, a table from the name of a set to its `file` below the raw folder (a glob will do)
and the image `source` of its pictures.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fsc_bench.data.raw import Raw
from fsc_bench.data.readers.records import files_of
from fsc_bench.errors import UsageError
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"sets": {}}

COLUMNS = ("image_path", "correct_answer", "correct_answer_template")
CAPTION = re.compile(r"caption_\d+")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    if raw.folder.is_file():
        raw.fail(raw.folder, None, "is one file; link the folder that holds those of all sets.")
    for name, one in _sets(task).items():
        for path in files_of(raw, one["file"], (".csv", ".csv.gz")):
            yield from _read_set(task, raw, path, name, one["source"])


def _sets(task: Task) -> Mapping[str, Any]:
    sets = task.data.options.get("sets", {})
    right = isinstance(sets, Mapping) and all(
        isinstance(one, Mapping) and one.keys() == {"file", "source"} for one in sets.values()
    )
    if not sets or not right:
        raise UsageError(
            f"{task.path}: [data.options] sets = {sets!r:.200}; each needs 'file' and 'source', "
            'such as sets = { coco = { file = "a.csv", source = "coco/val2017" } }.'
        )
    return sets


def _read_set(task: Task, raw: Raw, path: Path, name: str, source: str) -> Iterator[Record]:
    for number, row in raw.csv(str(path.relative_to(raw.folder)), required=COLUMNS):
        place = f"row {number}"
        captions = sorted(filter(CAPTION.fullmatch, row), key=lambda key: int(key[8:]))
        texts = [raw.field(path, place, row, key) for key in captions]
        answer = row["correct_answer"].strip()
        if answer not in map(str, range(len(texts))) or len(texts) < 2:
            raw.fail(path, place, f"'correct_answer' is {answer!r:.60}, not the number of one of "
                     f"{len(texts)} captions, from 0.")  # fmt: skip
        right = texts.pop(int(answer))
        subset = f"{name}_{raw.field(path, place, row, 'correct_answer_template').strip()}"
        if subset not in task.leaves:
            raw.fail(path, place, f"{subset!r:.80} is none of {', '.join(task.leaves)}.")
        picture = PurePosixPath(raw.field(path, place, row, "image_path").replace("\\", "/")).name
        yield Record(
            id=f"{name}/{number:06d}",
            subset=subset,
            images=(ImageRef(source, picture),),
            texts=(right, *texts),
            cluster=f"{source}:{picture}",
        )
