"""A line for each of the 35 tasks: what identifies its data | what another task's data meets.

    python tests/evidence_record.py [TASK ...]

For each task another one's raw data are made (a whole WebDataset of numbered labels, the form that
says least; or a small copy in the other benchmark's own form), linked and prepared as its own.
"""

import io
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fsc_bench.data.link import link
from fsc_bench.data.prepare import prepare
from fsc_bench.demo import raw as demo
from fsc_bench.errors import FscBenchError
from fsc_bench.evidence import describe
from fsc_bench.task import Task, catalogue

TASKS = {name: task for name, task in catalogue().items() if task.suite == "fsc"}
LARGEST = 13_000  # records of a WebDataset that is drawn
# Two benchmarks of one reader or one form: the file of one, called like the other's.
ALIKE = {
    "coco_karpathy": ("flickr30k", "flickr30k_test.json", "coco_karpathy_test.json"),
    "flickr30k": ("coco_karpathy", "coco_karpathy_test.json", "flickr30k_test.json"),
    "eqben": ("winoground", "", ""),
    "winoground": ("eqben", "", ""),
}


def other_of(task: Task) -> Task:
    """Of the tasks that could be taken for it, the one most like it: in classes, then records."""
    alike = [one for one in TASKS.values() if one.group == task.group and one.name != task.name]
    if task.group == "classification":
        alike = [one for one in alike if one.n <= LARGEST and "map11" not in one.headline]
        distance = {one.name: abs(len(one.classes) - len(task.classes)) for one in alike}
        return min(alike, key=lambda one: (distance[one.name], abs(one.n - task.n)))
    if task.name in ALIKE:
        return TASKS[ALIKE[task.name][0]]
    # The one before it, wherever the order of the catalogue begins; ARO's copy needs a tagger.
    names = [one for one in TASKS if TASKS[one].group == task.group and one != "aro"]
    return TASKS[names[names.index(task.name) - 1 if task.name in names else 0]]


def picture(size: tuple[int, int], colour: bool) -> bytes:
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).save(content, "png")
    return content.getvalue()


def write_wds(task: Task, folder: Path) -> None:
    """As many numbered labels of each class as the task has, and one picture of its size."""
    evidence = task.evidence
    size = tuple(side[0] if side else 64 for side in (evidence.width, evidence.height))
    content = picture(size, evidence.colour is not False)
    labels = [label for label, count in enumerate(evidence.least) for _ in range(count)]
    labels += [place % len(task.classes) for place in range(task.n - len(labels))]
    (folder / "test").mkdir(parents=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as archive:
        for place, label in enumerate(labels):
            for ending, body in (("png", content), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"s{place:06d}.{ending}")
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))


def write_raw(task: Task, other: Task, folder: Path) -> None:
    if other.group == "classification":
        write_wds(other, folder)
        return
    demo.write(other.name, folder, folder.parent / "images", n=8)
    _, theirs, ours = ALIKE.get(task.name, ("", "", ""))
    if theirs:
        os.rename(folder / theirs, folder / ours)


def outcome(task: Task, folder: Path, data: Path) -> str:
    """What `data link` says, and `data prepare` where that remembers the place."""
    try:
        met = f"linked: {link(task.name, folder, data).partition(': ')[2]}"
    except FscBenchError as error:
        return f"refused: {_short(error, folder)}"
    try:
        prepare(task, data)
    except FscBenchError as error:
        return f"{_short(met, folder)} || prepare refuses: {_short(error, folder)}"
    return f"{met} || PREPARED"


def _short(line: object, folder: Path) -> str:
    words = str(line).replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    words = re.sub(r" `[^`]*` (points|scores|goes)[^.]*\.", "", words)
    return re.sub(r"\S+( or \S+)+ is not in", "no file of it is in", words)


def main() -> None:
    for task in [TASKS[name] for name in sys.argv[1:] or TASKS]:
        work = Path(tempfile.mkdtemp())
        try:
            other = other_of(task)
            write_raw(task, other, work / "theirs")
            met = outcome(task, work / "theirs", work / "data")
        finally:
            shutil.rmtree(work)
        facts = "; ".join(line for line in describe(task.evidence) if "unchecked" not in line)
        facts = facts or "the names of its files and its counts"
        print(f"{task.name} | {facts} | {other.name}: {met}", flush=True)


if __name__ == "__main__":
    main()
