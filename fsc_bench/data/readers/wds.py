"""WebDataset tars as clip_benchmark writes them: any number of shards, read in place.

`test/0.tar, 1.tar ...` with samples `s0000000.jpg` + `s0000000.cls` (a number or a class's name) or
`.npy` (a 0/1 vector for several labels), and beside them `classnames.txt` and `nshards.txt`
(LAION-AI/CLIP_benchmark, webdataset_eval). A sample's key is the member's name up to the first dot
of its last part, as in WebDataset itself; `s0.image.png` and `s0.label.cls` are fields of `s0`.

Options: `split`, one word or several to try; `first`, the number of the first class, where numbers
alone do not say it; `first_of_each_class`, how many samples of each class to keep, where a mirror
appended another split to each class. A retrieval task has a `.txt` in the place of the label, a
caption a line. A `classes.txt` says what labels mean (class_lists.py).
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsc_bench.data.border import read_array, reason
from fsc_bench.data.class_lists import ClassLists
from fsc_bench.data.containers.tar import Container
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import (
    COMPRESSED_TARS,
    IMAGE_SUFFIXES,
    files_below,
    inside,
    member,
    natural,
    of_split,
)
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test", "first": UNSAID, "first_of_each_class": []}
SEVERAL = ("split",)
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test/0.tar   with the members   s0.jpg s0.cls s1.jpg s1.cls
#                  where s0.cls holds 0 and s1.cls holds 1, the places of [classes] names
#     classnames.txt   cat and dog, a line each
title    = "Mine"
suite    = "mine"
group    = "classification"
kind     = "classification"
version  = 1
headline = ["accuracy"]
chance   = 50.0
[subsets]
test = 2
[classes]
names = ["cat", "dog"]
[prompts.plain]
templates = ["a photo of a {}."]
[data]
reader = "wds"
[data.options]
split = "test"
"""
LABELS = (".cls", ".npy", ".label")
CAPTIONS = (".txt",)  # of retrieval, in the place of labels
GENERAL = True
LAYOUT = "WebDataset tars (test/0.tar with s0.jpg and s0.cls)"


@dataclass(frozen=True)
class Sample:
    """One image of a shard, and the content of its label."""

    shard: Path
    key: str
    image: str  # the member's name
    label: str  # the ending of the label's member
    content: bytes


def detect(raw: Raw) -> bool:
    """Whether a tar holds a label beside its first image."""
    for shard in files_below(raw.folder, (".tar",))[:1]:
        try:
            names = Container(shard).names()
        except (OSError, ValueError):
            return True  # a damaged tar: the reader says so
        return any(name.endswith(LABELS) for name in names)
    return False


def hint(raw: Raw) -> str:
    """What is nearly this layout here, for a complaint; empty where nothing is."""
    packed = [inside(raw, path) for path in files_below(raw.folder, COMPRESSED_TARS)]
    if packed and re.match(r"\d+\.", packed[0].rpartition("/")[2]):  # a shard
        return _gunzip(packed[0])
    if packed:
        return (
            f"{packed[0]} is a compressed tar, which cannot be read in place. `tar -xf "
            f"{packed[0]}` unpacks it; then link the folder that comes of it."
        )
    for shard in files_below(raw.folder, (".tar",))[:1]:
        try:
            return f"{inside(raw, shard)} {_members(list(Container(shard).names()))}"
        except (OSError, ValueError):
            return ""
    return ""


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    (subset,) = task.leaves
    if task.kind == "retrieval":
        yield from _captioned(raw, subset, options["split"])
        return
    labels = Labels(raw)
    shards = _shards(raw, options["split"])
    samples = [sample for shard in shards for sample in _samples(raw, shard)]
    if not samples:
        # An empty shard is a count that does not hold; members without samples are another layout.
        _check_layout(raw, shards)
    lists = ClassLists(labels, shards[0].parent)
    answers = Answers(labels, lists, text=False, first=options["first"], line_0=True)
    keys = [
        None
        if sample.label == ".npy"
        else answers.add(_text(raw, sample), sample.shard, sample.key)
        for sample in samples
    ]
    classes = answers.classes()
    places = range(len(labels.names))
    if None in keys and lists.order is not None:
        places = lists.order
    keep = dict(enumerate(options["first_of_each_class"]))
    number = 0
    for sample, key in zip(samples, keys, strict=True):
        found = _vector(raw, sample, places) if key is None else (classes[key],)
        if keep and found and keep.get(found[0], 0) <= 0:
            continue
        if keep and found:
            keep[found[0]] -= 1
        yield Record(
            id=f"{number:06d}",
            subset=subset,
            images=(ImageRef(OWN, member(raw, sample.shard, sample.image)),),
            labels=found,
            cluster=f"{number:06d}",
        )
        number += 1


def _captioned(raw: Raw, subset: str, split: str | list[str]) -> Iterator[Record]:
    """Images with their captions, a line each of the sample's `.txt`."""
    shards = _shards(raw, split)
    samples = (sample for shard in shards for sample in _samples(raw, shard, CAPTIONS))
    for number, sample in enumerate(samples):
        texts = tuple(_text(raw, sample).splitlines())
        if not texts:
            raw.fail(sample.shard, sample.key, "has no caption.")
        yield Record(
            id=f"{number:06d}",
            subset=subset,
            images=(ImageRef(OWN, member(raw, sample.shard, sample.image)),),
            texts=texts,
            cluster=f"{number:06d}",
        )


def _shards(raw: Raw, split: str | list[str]) -> list[Path]:
    """The tars of the split, all of them readable in place. Raises DataError otherwise."""
    packed = files_below(raw.folder, COMPRESSED_TARS)
    plain = files_below(raw.folder, (".tar",))
    shards = of_split(raw, [*plain, *packed], split)
    for shard in shards:
        if shard in packed and _unpacked(shard) not in plain:
            raw.fail(shard, None, _gunzip(shard.name))
    shards = [shard for shard in shards if shard not in packed]
    if not shards:
        raw.find("test/0.tar")
    for shard in shards:
        raw.note(shard)
    _check_shard_count(raw, shards)
    return shards


def _unpacked(shard: Path) -> Path:
    ending = next(end for end in COMPRESSED_TARS if shard.name.casefold().endswith(end))
    return shard.with_name(f"{shard.name[: -len(ending)]}.tar")


def _gunzip(name: str) -> str:
    tool = {".xz": "unxz", ".bz2": "bunzip2", ".zst": "unzstd"}
    tool = tool.get(os.path.splitext(name)[1].lower(), "gunzip")
    return f"{name} is a compressed tar, which cannot be read in place. `{tool} -k {name}` first."


def _samples(raw: Raw, shard: Path, endings: tuple[str, ...] = LABELS) -> Iterator[Sample]:
    """Each sample, in the tar's order. endings: of what stands beside the image."""
    try:
        container = Container(shard)
    except (OSError, ValueError) as error:
        raw.fail(shard, None, f"damaged: {error}")
    for key, parts in _keys(container.names()).items():
        images = _one_kind(parts, IMAGE_SUFFIXES)
        answers = _one_kind(parts, endings)
        if not images and not answers:
            continue  # notes beside the samples
        if len(images) != 1 or not answers:
            why = "has no image" if not images else "needs one image and its label"
            raw.fail(shard, key, f"{why}. {_members(list(parts.values()))}")
        label = next((ending for ending in endings if ending in answers), None)
        if label is None and len(answers) > 1:
            raw.fail(shard, key, f"has several labels. {_members(list(parts.values()))}")
        name = answers[label] if label else next(iter(answers.values()))
        try:
            content = container.read(name)
        except (OSError, ValueError) as error:
            raw.fail(shard, key, f"damaged: {error}")
        (image,) = images.values()
        yield Sample(shard, key, image, os.path.splitext(name)[1].lower(), content)


def _keys(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """`{key: {ending: member}}`; a key ends before the first dot of a member's last part."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        folder, slash, base = name.rpartition("/")
        stem, dot, ending = base.partition(".")
        found.setdefault(f"{folder}{slash}{stem}", {})[dot + ending.lower()] = name
    return found


def _one_kind(parts: dict[str, str], endings: tuple[str, ...]) -> dict[str, str]:
    """The parts of one kind: `.png`, or where none is called so, fields such as `.image.png`."""
    plain = {ending: name for ending, name in parts.items() if ending in endings}
    fields = {ending: name for ending, name in parts.items() if ending.endswith(endings)}
    return plain or fields


def _members(names: list[str]) -> str:
    shown = ", ".join(repr(name[-60:]) for name in names[:3])
    return (
        f"It holds {shown or 'nothing'}; a sample is one image and its label under one key (the "
        "name up to its first dot), such as 's0.jpg' and 's0.cls'."
    )


def _check_layout(raw: Raw, shards: list[Path]) -> None:
    for shard in shards:
        names = list(Container(shard).names())
        if names:
            raw.fail(shard, None, f"has no sample. {_members(names)}")


def _text(raw: Raw, sample: Sample) -> str:
    try:
        return sample.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raw.fail(sample.shard, sample.key, "the label is no text.")


def _vector(raw: Raw, sample: Sample, order: Sequence[int]) -> tuple[int, ...]:
    """The classes that a 0/1 vector shows; places are those of the class list."""
    shard, key = sample.shard, sample.key
    try:
        vector = read_array(sample.content)
        shown = [int(place) for place in np.flatnonzero(vector)]
        odd = bool(np.any((vector != 0) & (vector != 1)))
    except (ValueError, TypeError) as error:
        raw.fail(shard, key, f"the label vector cannot be read: {reason(error)}.")
    if vector.shape != (len(order),):
        raw.fail(shard, key, f"the label vector has shape {vector.shape}, not ({len(order)},).")
    if odd:
        raw.fail(shard, key, "the label vector holds other numbers than 0 and 1.")
    return tuple(sorted(order[place] for place in shown))


def _check_shard_count(raw: Raw, shards: list[Path]) -> None:
    path = shards[0].parent / "nshards.txt"
    if not path.is_file() or not path.is_relative_to(raw.folder):
        return
    promised = raw.text(str(path.relative_to(raw.folder))).strip()
    if promised != str(len(shards)):
        names = ", ".join(sorted((shard.name for shard in shards), key=natural)[:8])
        raw.fail(
            path, None, f"promises {promised!r:.20} shards, there are {len(shards)} ({names})."
        )
