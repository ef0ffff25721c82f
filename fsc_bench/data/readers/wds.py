"""WebDataset tars as clip_benchmark writes them: any number of shards, read in place.

`test/0.tar, 1.tar ...` with samples `s0000000.jpg` + `s0000000.cls` (a number) or `.npy` (a 0/1
vector for several labels), and beside them `classnames.txt` and `nshards.txt`
(LAION-AI/CLIP_benchmark, webdataset_eval). Options: `split`, one word or several to try;
`first_of_each_class`, how many samples of each class to keep, where a mirror appended another split
to each class.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsc_bench.data.containers.tar import Container
from fsc_bench.data.labels import IMAGE_SUFFIXES, Labels, files_below, member, natural, of_split
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test", "first_of_each_class": []}
LABELS = (".cls", ".npy", ".label")


def detect(raw: Raw) -> bool:
    """Whether a tar holds a label beside its first image."""
    for shard in files_below(raw.folder, (".tar",))[:1]:
        try:
            names = Container(shard).names()
        except (OSError, ValueError):
            return True  # a damaged tar: the reader says so
        return any(name.endswith(LABELS) for name in names)
    return False


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    (subset,) = task.leaves
    labels = Labels(raw)
    shards = of_split(raw, files_below(raw.folder, (".tar",)), options["split"])
    if not shards:
        raw.find("test/0.tar")
    _check_shard_count(raw, shards)
    order = _class_order(raw, labels, shards[0])
    keep = dict(enumerate(options["first_of_each_class"]))
    number = 0
    for shard in shards:
        raw.note(shard)
        for key, image, content in _samples(raw, shard):
            found = _labels(raw, shard, key, content, labels, order)
            if keep and found and keep.get(found[0], 0) <= 0:
                continue
            if keep:
                keep[found[0]] -= 1
            yield Record(
                id=f"{number:06d}",
                subset=subset,
                images=(ImageRef(OWN, member(raw, shard, image)),),
                labels=found,
                cluster=f"{number:06d}",
            )
            number += 1


def _samples(raw: Raw, shard: Path) -> Iterator[tuple[str, str, tuple[str, bytes]]]:
    """(key, image member, (label's extension, its content)) of each sample, in the tar's order."""
    try:
        container = Container(shard)
    except (OSError, ValueError) as error:
        raw.fail(shard, None, f"damaged: {error}")
    samples: dict[str, dict[str, str]] = {}
    for name in container.names():
        folder, _, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[dot + extension.lower()] = (
            name
        )
    for key, parts in samples.items():
        images = [name for extension, name in parts.items() if extension in IMAGE_SUFFIXES]
        answers = [extension for extension in LABELS if extension in parts]
        if not images and not answers:
            continue  # notes beside the samples
        if len(images) != 1 or not answers:
            raw.fail(
                shard, key, "has no image." if not images else "needs one image and its label."
            )
        try:
            content = container.read(parts[answers[0]])
        except (OSError, ValueError) as error:
            raw.fail(shard, key, f"damaged: {error}")
        yield key, images[0], (answers[0], content)


def _labels(
    raw: Raw, shard: Path, key: str, answer: tuple[str, bytes], labels: Labels, order: list[int]
) -> tuple[int, ...]:
    extension, content = answer
    if extension != ".npy":
        try:
            return (order[labels.read(content.decode("ascii"), shard, key)],)
        except UnicodeDecodeError:
            raw.fail(shard, key, "the label is no text.")
        except IndexError:
            raw.fail(shard, key, f"the label {content!r:.20} is beyond classnames.txt.")
    try:
        vector = np.load(io.BytesIO(content), allow_pickle=False)
        shown = [int(place) for place in np.flatnonzero(vector)]
    except (ValueError, OSError, EOFError, TypeError, SyntaxError) as error:
        raw.fail(shard, key, f"the label vector cannot be read: {str(error)[:80]}")
    if vector.shape != (len(order),):
        raw.fail(shard, key, f"the label vector has shape {vector.shape}, not ({len(order)},).")
    return tuple(sorted(order[place] for place in shown))


def _class_order(raw: Raw, labels: Labels, shard: Path) -> list[int]:
    for folder in (shard.parent, shard.parent.parent):
        path = folder / "classnames.txt"
        if path.is_file() and path.is_relative_to(raw.folder):
            lines = raw.text(str(path.relative_to(raw.folder))).splitlines()
            return labels.order([line for line in lines if line.strip()], path)
    return list(range(len(labels.names)))


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
