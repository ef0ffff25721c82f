"""What the 35 task files promise, held against the real annotation files and published numbers.

A promise that neither can confirm is named in the task file's `unchecked`: data that break it are
scored and flagged, since it may be the promise that is wrong.
"""

import csv
import gzip
import json
import zipfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fsc_bench.data.evidence import examine
from fsc_bench.data.images import Images
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader, vl_checklist
from fsc_bench.data.word_order import pre_caption
from fsc_bench.records import Record, broken_promises
from fsc_bench.task import Task, catalogue

TASKS = {name: task for name, task in catalogue().items() if task.suite == "fsc"}
# Tasks of which whole annotation files may be there, below a folder of their own name.
WHOLE = ("sugarcrepe", "coco_karpathy", "flickr30k", "coco_counterfactuals", "imagecode")
# Names or labels of single pictures that lists outside the annotation files confirm.
LISTED = {
    "imagenet1k": "tensorflow/models, imagenet_2012_validation_synset_labels.txt",
    "food101": "meta/test.txt of the published archive",
    "hateful_memes": "dev_seen.jsonl of the published archive",
}


def records(task: Task, folder: Path) -> list[Record]:
    return list(load_reader(task.data.reader, task.name).read(task, Raw(task, folder)))


@cache
def published(real: Path) -> dict[tuple[str, str], list[float]]:
    """Percentages by (benchmark, subset) of some 200 models, at full precision."""
    found = defaultdict(list)
    path = real / "published" / "vl_compo_individual_long.csv.gz"
    for row in csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines()):
        found[row["benchmark"], row["metric"].split("/")[0]].append(float(row["value"]))
    return found


def is_denominator(n: int, percentages: list[float]) -> bool:
    """Whether n records explain the percentages, but for a few models that were run on a part."""
    hits = [percent / 100 * n for percent in percentages]
    whole = sum(abs(hit - round(hit)) < 1e-6 for hit in hits)
    return bool(hits) and whole >= 0.9 * len(hits)


@cache
def n_test(real: Path) -> dict[str, int]:
    """The classification tasks' published numbers of test pictures, by (spelled alike) name."""
    raw = json.loads((real / "elevater" / "classnames_templates.json").read_text())
    return {_bare(name): row["n_test"] for name, row in raw.items()}


def _bare(name: str) -> str:
    name = {"flower102": "flowers102", "oxford-iiit-pets": "pets", "oxford_pets": "pets"}.get(
        name, name
    )
    for ending in ("-2013b", "-clip"):
        name = name.removesuffix(ending)
    return name.replace("-", "").replace("_", "").removesuffix("classification").rstrip("s")


def parts(name: str, real: Path, folder: Path) -> tuple[Task, Path]:
    """The part of a task that files at hand have, and where they lie."""
    task = TASKS[name]
    if name == "imagecode":  # whose records need a picture each
        source = real / "imagecode" / "valid_data.json"
        (folder / source.name).write_bytes(source.read_bytes())
        with zipfile.ZipFile(folder / "image-sets.zip", "w") as archive:
            for film in json.loads(source.read_text()):
                for number in range(10):
                    archive.writestr(f"image-sets/{film}/img{number}.jpg", b"")
        return task, folder
    if name == "valse":
        present = [piece for piece in task.leaves if (real / name / f"{piece}.json").exists()]
        return replace(task, subsets={p: task.leaves[p] for p in present}, counts={}), real / name
    if name == "crepe":  # captions of 4 to 12 atoms: all but the 971 longest
        data = replace(task.data, options={**task.data.options, "files": "n4-12"})
        return replace(task, subsets={"atom": 17_698 - 971}, data=data), real / name
    return task, real / name


@pytest.mark.parametrize("name", [*WHOLE, "valse", "crepe"])
def test_real_annotations_keep_every_promise(name, real_data, tmp_path):
    """Counts, names and known records, held against the data as preparing does."""
    task, folder = parts(name, real_data, tmp_path)
    found = records(task, folder)
    assert list(broken_promises(task, found)) == []
    assert examine(task, found, Images(tmp_path)) == []
    assert task.evidence.known or task.evidence.names


def test_aros_captions_of_coco_and_flickr30k_are_the_promised_ones(real_data):
    """25,010 and 5,000 captions, the known ones among them."""
    found = {}
    for subset, name in (("COCO_Order", "coco_karpathy"), ("Flickr30k_Order", "flickr30k")):
        rows = json.loads(next((real_data / name).glob("*_test.json")).read_text())
        rows = rows if isinstance(rows, list) else rows["images"]
        key = "caption" if "caption" in rows[0] else "captions"
        found[subset] = [pre_caption(text) for row in rows for text in row[key]]
    for known in TASKS["aro"].evidence.known:
        assert known.text in found[known.subset]
    for subset, captions in found.items():
        assert len(captions) == TASKS["aro"].leaves[subset]


def test_known_records_of_vl_checklist_are_in_their_files(real_data):
    task = TASKS["vl_checklist"]
    raw = Raw(task, real_data / "vl_checklist")
    wanted = {one.subset: task.leaves[one.subset] for one in task.evidence.known}
    wanted = {subset: n for subset, n in wanted.items() if raw.has(annotations(subset))}
    part = replace(task, subsets=wanted)
    found = records(part, real_data / "vl_checklist")
    assert list(broken_promises(part, found)) == []
    assert wanted and examine(part, found, Images(real_data)) == []


def annotations(subset: str) -> str:
    return f"data/{vl_checklist.annotation_file(subset)}"


def confirmed(task: Task, real: Path) -> set[str]:
    """The promises of a task that something at hand says too; a wrong one fails here."""
    name, evidence = task.name, task.evidence
    if task.group == "classification":
        assert task.n == n_test(real)[_bare(name)]
        found = {"test"}
        if evidence.describes(task.n) and sum(evidence.least) == task.n:
            found.add("classes")
        if evidence.one_size:  # is what the data set is, as its authors define it
            found.add("pictures")
        if name in LISTED or name == "mnist":
            found |= {"known", "names"}
        if evidence.known and all("*" in one.file or "[0-9]" in one.file for one in evidence.known):
            for one in evidence.known:  # the file's name is the class's
                stem = one.file.partition("_[0-9]")[0].replace("_", " ").casefold()
                words = [task.classes[one.label], *task.class_ids[one.label : one.label + 1]]
                assert stem in [word.replace("_", " ").casefold() for word in words]
            found.add("known")
        return found
    if name in WHOLE:  # test_real_annotations_keep_every_promise
        return {*task.leaves, *task.counts, "known", "names", "pictures"}
    found = {
        subset
        for subset, n in task.leaves.items()
        if is_denominator(n, published(real).get((name, subset), []))
    }
    if name == "winoground":  # its one subset has no name of its own in the table
        assert is_denominator(task.n, published(real)[name, "group"])
        found.add("winoground")
    if name == "vl_checklist":  # files that were measured once and pinned
        pinned = (real / "pins.csv").read_text()
        found |= {subset for subset in task.leaves if f",{annotations(subset)}," in pinned}
    if name == "valse":  # two texts a record; the pictures: test_evidence.py, on complete VALSE
        assert task.counts["texts"] == 2 * task.n
        found |= {"images", "texts"}
    if name in ("aro", "crepe", "valse", "vl_checklist"):
        found.add("known")
    return found


@pytest.mark.parametrize("name", TASKS)
def test_what_nothing_at_hand_confirms_is_named_unchecked(name, real_data):
    task = TASKS[name]
    evidence = task.evidence
    promises = {*task.leaves, *task.counts, "known"}  # a task without a known record says so
    promises |= {"classes"} if evidence.least or evidence.most else set()
    promises |= {"pictures"} if evidence.width or evidence.height else set()
    promises |= {"names"} if evidence.names else set()
    if name == "kitti_distance":
        promises.add("classes")  # stated nowhere
    assert set(evidence.unchecked) == promises - confirmed(task, real_data)


def test_a_wrong_denominator_is_seen():
    """41.25 and 58.75 percent are whole numbers of 80 records, not of 81."""
    assert is_denominator(80, [41.25, 58.75])
    assert not is_denominator(81, [41.25, 58.75])
