"""PASCAL VOC's devkit, several labels an image: {ImageSets/Main,Annotations,JPEGImages} of VOC2007.

`ImageSets/Main/<class>_test.txt` says 1 (shown), 0 (only "difficult" instances) or -1; without
those files the same is read from `Annotations/*.xml` for the images of `test.txt`. Options:
`split`; and `difficult`: "negative" (ELEVATER marks only flag 1 positive), "positive"
(clip_benchmark), "ignore" (the devkit: the image does not count for that class; its label is then
~class, below zero).
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from fsc_bench.data.listing import folders_below
from fsc_bench.data.raw import Raw
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test", "difficult": "negative"}
LAYOUT = "PASCAL VOC's devkit (VOCdevkit/VOC2007/ImageSets/Main)"
DIFFICULT = ("negative", "ignore", "positive")
FLAGS = {"1": 1, "0": 0, "-1": -1}


def detect(raw: Raw) -> bool:
    return _root(raw) is not None


def begins_with(raw: Raw) -> list[str]:
    """The list of the split's images."""
    return ["ImageSets/Main/{split}.txt".format(**{**OPTIONS, **raw.task.data.options})]


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    if options["difficult"] not in DIFFICULT:
        hint = near_miss(str(options["difficult"]), DIFFICULT)
        raise UsageError(f"{task.path}: difficult = {options['difficult']!r} is not known.{hint}")
    (subset,) = task.leaves
    root = _root(raw)
    if root is None:
        raw.find(f"VOCdevkit/VOC2007/ImageSets/Main/{options['split']}.txt")
        raw.fail(raw.folder, None, "has no folder ImageSets/Main.")
    base = root.relative_to(raw.folder).as_posix()
    base = "" if base == "." else f"{base}/"
    split = options["split"]
    first = f"{base}ImageSets/Main/{task.classes[0]}_{split}.txt"
    flags = (
        _from_lists(raw, task, base, split) if raw.has(first) else _from_xml(raw, task, base, split)
    )
    for name, row in flags.items():
        labels = []
        for place, flag in enumerate(row):
            if flag == 1 or (flag == 0 and options["difficult"] == "positive"):
                labels.append(place)
            elif flag == 0 and options["difficult"] == "ignore":
                labels.append(~place)
        yield Record(
            id=name,
            subset=subset,
            images=(ImageRef(OWN, f"{base}JPEGImages/{name}.jpg"),),
            labels=tuple(labels),
            cluster=name,
        )


def _root(raw: Raw) -> Path | None:
    """The folder that holds ImageSets/Main, at most two folders below the raw folder."""
    places = folders_below(raw.folder, 3, 100)
    return next((place for place in places if (place / "ImageSets" / "Main").is_dir()), None)


def _from_lists(raw: Raw, task: Task, base: str, split: str) -> dict[str, list[int]]:
    flags: dict[str, list[int]] = {}
    for place, word in enumerate(task.classes):
        file = f"{base}ImageSets/Main/{word}_{split}.txt"
        path = raw.find(file)
        seen = set()
        for number, line in enumerate(raw.text(file).splitlines(), 1):
            if not line.strip():
                continue
            cells = line.split()
            if len(cells) != 2 or cells[1] not in FLAGS:
                raw.fail(
                    path, f"line {number}", f"{line.strip()!r:.40} is not an image and 1, 0 or -1."
                )
            name = _safe(raw, path, number, cells[0])
            if name in seen or (place and name not in flags):
                raw.fail(
                    path,
                    f"line {number}",
                    f"the image {name!r} is listed in no other class's file.",
                )
            seen.add(name)
            flags.setdefault(name, []).append(FLAGS[cells[1]])
        if len(seen) != len(flags):
            raw.fail(path, None, f"lists {len(seen)} images, another class's file {len(flags)}.")
    return flags


def _from_xml(raw: Raw, task: Task, base: str, split: str) -> dict[str, list[int]]:
    file = f"{base}ImageSets/Main/{split}.txt"
    flags = {}
    for number, line in enumerate(raw.text(file).splitlines(), 1):
        if line.strip():
            name = _safe(raw, raw.find(file), number, line.split()[0])
            if name in flags:
                raw.fail(raw.find(file), f"line {number}", f"the image {name!r} is listed twice.")
            flags[name] = _objects(raw, task, f"{base}Annotations/{name}.xml")
    return flags


def _objects(raw: Raw, task: Task, file: str) -> list[int]:
    path = raw.find(file)
    flags = [-1] * len(task.classes)
    try:
        tree = ElementTree.fromstring(raw.bytes(file))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raw.fail(path, None, f"is not XML: {error}")
    for thing in tree.iter("object"):
        word = (thing.findtext("name") or "").strip()
        if word not in task.classes:
            hint = near_miss(word, task.classes)
            raw.fail(path, None, f"no class is called {word!r:.40}.{hint}")
        place = task.classes.index(word)
        flags[place] = max(
            flags[place], 0 if (thing.findtext("difficult") or "").strip() == "1" else 1
        )
    return flags


def _safe(raw: Raw, path: Path, number: int, name: str) -> str:
    if "/" in name or name.startswith(".") or not name.isprintable() or len(name) > 200:
        raw.fail(path, f"line {number}", f"{name!r:.40} is no image name.")
    return name
