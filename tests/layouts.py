"""Layouts: what people have on disk for each task, made small; and who else reads the same files.

A layout is a function that lays a few pictures of known classes into a folder and returns what a
user would link (the folder, where it returns nothing). `theirs` reads the same files as torchvision
or `datasets` do: pairs of a picture and what they call its class.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tars import write_tar

from fsc_bench.data.archives import check_link
from fsc_bench.data.evidence import pixel_digest
from fsc_bench.data.images import Images, write_link
from fsc_bench.data.link import in_hub_cache
from fsc_bench.data.pixels import decode
from fsc_bench.data.prepare import prepare
from fsc_bench.errors import FscBenchError
from fsc_bench.evidence import Evidence
from fsc_bench.task import Task, catalogue

FSC = {task.name: task for task in catalogue().values() if task.suite == "fsc"}
SINGLE = [
    name for name, task in FSC.items() if task.group == "classification" and name != "voc2007"
]
SIZES = {
    "mnist": (28, "L"), "cifar10": (32, "RGB"), "cifar100": (32, "RGB"), "fer2013": (48, "L"),
    "patchcamelyon": (96, "RGB"),
}  # fmt: skip
VALIDATION = ("food101", "imagenet1k", "hateful_memes")  # their mirrors call the split so


@dataclass(frozen=True)
class Shown:
    """A picture and its class: the place in the task's list, what the raw data call it."""

    place: int
    word: str
    picture: Image.Image

    @property
    def png(self) -> bytes:
        return encoded(self.picture)


@dataclass(frozen=True)
class Labelled:
    """A picture and all its classes, by place."""

    places: tuple[int, ...]
    picture: Image.Image

    @property
    def png(self) -> bytes:
        return encoded(self.picture)


@dataclass(frozen=True)
class Captioned:
    """A picture, what its file is called, and its captions."""

    name: str
    captions: list[str]
    picture: Image.Image

    @property
    def png(self) -> bytes:
        return encoded(self.picture)


@dataclass(frozen=True)
class Layout:
    task: str
    name: str
    make: Callable[[Path, list[Any]], Path | dict[str, Path] | None]
    theirs: Callable[[Path], Iterable[tuple[Any, Any]]] | None = None
    refused: str = ""  # words of the line that refuses it, where it cannot be read or must be asked

    def __str__(self) -> str:
        return f"{self.task}: {self.name}"


LAYOUTS: list[Layout] = []


def layout(tasks: str | list[str], name: str, **more):
    """Registers the decorated maker as a layout of one task or of several."""

    def register(make):
        for task in [tasks] if isinstance(tasks, str) else tasks:
            LAYOUTS.append(Layout(task, name, make, **more))
        return make

    return register


# ---------------------------------------------------------------- pictures


def encoded(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def noise(name: str, count: int) -> list[Image.Image]:
    """Pictures of a size that is the task's, each another."""
    side, mode = SIZES.get(name, (20, "RGB"))
    rng = np.random.default_rng(sorted(FSC).index(name))
    shape = (side, side) if mode == "L" else (side, side, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, np.uint8)) for _ in range(count)]


CAPTIONS = {
    "coco_karpathy": "COCO_val2014_{:012d}.jpg",
    "flickr30k": "{:010d}.jpg",
    "coco_counterfactuals": "{}_1_img_{}",
}


@cache
def shown(name: str) -> list[Any]:
    """The pictures of a task's miniature, with what is known of each."""
    pictures = noise(name, 7)
    if name == "voc2007":
        sets = [(0,), (19,), (3, 7), (14,), (1, 14, 19), (5,), (8, 14)]
        return [Labelled(*pair) for pair in zip(sets, pictures, strict=True)]
    if name in CAPTIONS:
        names = [
            CAPTIONS[name].format(n // 2 if "{}" in CAPTIONS[name] else n, n % 2) for n in range(8)
        ]
        texts = [[f"Picture {n}, said first.", f'a "{n}", said; again'] for n in range(7)]
        return [Captioned(*row) for row in zip(names, texts, pictures, strict=False)]
    return _of_one_class(name, pictures)


def _of_one_class(name: str, pictures: list[Image.Image]) -> list[Shown]:
    """Of the first class, the last, and others; one class has two."""
    task, count = FSC[name], len(FSC[name].classes)
    words = task.class_ids or task.classes
    places = (count - 1, 0, count // 2, count // 3, 0, min(2, count - 1), min(1, count - 1))
    return [Shown(place, words[place], one) for place, one in zip(places, pictures, strict=True)]


def digest(picture: Image.Image | np.ndarray) -> str:
    return pixel_digest(_image(picture).convert("RGB"))


def _image(picture: Any) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))


def class_of(task: Task, word: Any) -> str:
    """The task's class that torchvision or `datasets` call `word`, by a rule of the tests' own."""
    if isinstance(word, (int, np.integer)):
        return task.classes[int(word)]
    plain = [re.sub(r"[\W_]", "", text.casefold()) for text in (*task.classes, *task.class_ids)]
    return task.classes[plain.index(re.sub(r"[\W_]", "", str(word).casefold())) % len(task.classes)]


# ---------------------------------------------------------------- linked and read


@dataclass(frozen=True)
class Outcome:
    """What a layout became: `{picture: class}`, or the line that refuses it."""

    classes: dict[str, str]
    records: int
    line: str


def try_layout(one: Layout, folder: Path) -> Outcome:
    """Makes a layout below `folder`, links it and prepares its records; opens every picture."""
    task = FSC[one.task]
    place = folder / "linked"
    place.mkdir(parents=True)
    linked = one.make(place, shown(one.task)) or place
    small = replace(task, subsets={"test": len(shown(one.task))}, evidence=Evidence(), counts={})
    return outcome(small, linked, folder / "data")


def outcome(task: Task, linked: Path | dict[str, Path], data: Path) -> Outcome:
    """As `fsc-bench data link` and a run: the links are made, the records are prepared."""
    try:
        for name, place in (linked if isinstance(linked, dict) else {task.name: linked}).items():
            place = in_hub_cache(name, task.data.sources, place)
            if place.is_file():
                check_link(place)
            write_link(data, name, place)
        prepared = prepare(task, data)
        images = Images(data)
        found = {}
        for row in prepared.records:
            picture = decode(images.content(task.name, row.images[0]), "a picture")
            names = sorted(task.classes[label] for label in row.labels if label >= 0)
            found[digest(picture)] = " and ".join(row.texts or names)
        return Outcome(found, len(prepared.records), "")
    except FscBenchError as error:
        return Outcome({}, 0, str(error))


def expected(name: str) -> dict[str, str]:
    return {digest(one.picture): _said(FSC[name], one) for one in shown(name)}


def _said(task: Task, one: Any) -> str:
    if task.name == "coco_counterfactuals":
        return one.captions[0]
    if isinstance(one, Captioned):
        return " and ".join(one.captions)
    places = one.places if isinstance(one, Labelled) else (one.place,)
    return " and ".join(sorted(task.classes[place] for place in places))


def read_by_others(one: Layout, folder: Path) -> dict[str, str]:
    """`{picture: class}` as torchvision or `datasets` read what `try_layout` made."""
    task = FSC[one.task]
    found = {}
    for picture, said in one.theirs(folder / "linked"):
        words = said if isinstance(said, list) else [said]
        words = words if task.kind == "retrieval" else sorted(class_of(task, one) for one in words)
        found[digest(_image(picture))] = " and ".join(words)
    return found


# ---------------------------------------------------------------- files


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def file_name(word: str) -> str:
    """A class's name as a folder: no `/` in it."""
    return word.replace("/", "-")


def in_folders(pictures: list[Shown], call: Callable[[Shown], str]) -> dict[str, bytes]:
    """`{folder/number.png: content}`"""
    return {
        f"{file_name(call(one))}/{number:04d}.png": one.png for number, one in enumerate(pictures)
    }


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        write(folder / name, content)


def image_table(pictures: list[Shown], label: str, names: list[str] | None) -> pa.Table:
    """As `datasets` writes it: image structs, and the names of a ClassLabel in the metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": one.png, "path": f"{n}.png"} for n, one in enumerate(pictures)]
    order = {word: number for number, word in enumerate(names or [])}
    labels = [order.get(one.word, one.place) for one in pictures]
    table = pa.table({"image": pa.array(cells, kind), label: labels})
    if not names:
        return table
    features = {
        "image": {"_type": "Image"},
        label: {"names": list(names), "_type": "ClassLabel"},
    }
    return table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def mirror_names(name: str) -> list[str]:
    """The classes as a mirror lists them: in another order than ours."""
    task = FSC[name]
    return list(reversed(task.class_ids or task.classes))


def write_hub_files(folder: Path, name: str, pictures: list[Shown], label="label", names=True):
    """A data set's files as its repository on the Hub has them."""
    split = "validation" if name in VALIDATION else "test"
    table = image_table(pictures, label, mirror_names(name) if names else None)
    (folder / "data").mkdir(parents=True)
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 1), folder / "data" / "train-00000-of-00001.parquet")
    write(folder / "README.md", "---\nlicense: mit\n---\n")
    write(folder / ".gitattributes", "*.parquet filter=lfs\n")


def task_of(pictures: list[Shown]) -> str:
    return next(name for name in SINGLE if shown(name) is pictures)


# ---------------------------------------------------------------- layouts that any of them has


@layout(SINGLE, "CLIP_benchmark's tars")
def wds(folder, pictures):
    task = FSC[task_of(pictures)]
    for shard in (0, 1):
        members = {}
        for number, one in list(enumerate(pictures))[shard::2]:
            members[f"s{number:07d}.webp"] = encoded(one.picture, "WEBP")
            members[f"s{number:07d}.cls"] = str(one.place).encode()
        write_tar(folder / "test" / f"{shard}.tar", members)
    write_tar(folder / "train" / "0.tar", {"s0.webp": b"", "s0.cls": b"0"})
    write(folder / "test" / "nshards.txt", "2")
    write(folder / "train" / "nshards.txt", "1")
    write(folder / "classnames.txt", "\n".join(task.classes))
    write(folder / "zeroshot_classification_templates.txt", "a photo of {c}.")


@layout(SINGLE, "Parquet of the Hub")
def hub_parquet(folder, pictures):
    write_hub_files(folder, task_of(pictures), pictures)


@layout(SINGLE, "the Hub's cache, its repository's folder")
def hub_repository(folder, pictures):
    return hub_cache(folder, pictures) / f"datasets--mirror--{task_of(pictures)}"


@layout(SINGLE, "the Hub's cache, its root")
def hub_cache(folder, pictures):
    """blobs, refs and a snapshot of links, as huggingface_hub leaves them."""
    name = task_of(pictures)
    repository = folder / f"datasets--mirror--{name}"
    snapshot = repository / "snapshots" / ("a1" * 20)
    write_hub_files(snapshot, name, pictures)
    for path in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    write(repository / "refs" / "main", "a1" * 20)
    write(folder / "models--org--clip" / "refs" / "main", "b2" * 20)
    write(folder / ".locks" / f"datasets--mirror--{name}" / "x.lock", b"")
    write(folder / "version.txt", "1")
    return folder


def write_arrow(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)


def _saved(folder):
    import datasets

    found = datasets.load_from_disk(str(folder))
    if isinstance(found, datasets.DatasetDict):
        found = found["validation" if "validation" in found else "test"]
    names = found.features["label"].names
    return [(row["image"], names[row["label"]]) for row in found]


@layout(SINGLE, "save_to_disk, after a map", theirs=_saved)
def saved(folder, pictures):
    name = task_of(pictures)
    split = "validation" if name in VALIDATION else "test"
    table = image_table(pictures, "label", mirror_names(name))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    write(folder / "dataset_dict.json", json.dumps({"splits": ["train", split]}))
    for part, rows in (("train", table.slice(0, 2)), (split, table)):
        write_arrow(folder / part / "data-00000-of-00001.arrow", rows)
        write_arrow(folder / part / "cache-27b98f7e1176dc5f.arrow", rows)
        state = {
            "_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "x",
            "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
            "_output_all_columns": False, "_split": part,
        }  # fmt: skip
        write(folder / part / "state.json", json.dumps(state))
        write(folder / part / "dataset_info.json", json.dumps({"features": features}))


@layout(SINGLE, "the cache of `datasets`")
def datasets_cache(folder, pictures):
    """~/.cache/huggingface/datasets/ORG___NAME of load_dataset."""
    name = task_of(pictures)
    split = "validation" if name in VALIDATION else "test"
    table = image_table(pictures, "label", mirror_names(name))
    version = folder / "default" / "0.0.0" / ("c3" * 20)
    write_arrow(version / f"{name}-{split}.arrow", table)
    write_arrow(version / f"{name}-train.arrow", table.slice(0, 2))
    write(version / "dataset_info.json", "{}")
    write(folder / "default" / "0.0.0" / f"{'c3' * 20}_builder.lock", b"")


def _image_folder(split):
    def theirs(folder):
        from torchvision.datasets import ImageFolder

        found = ImageFolder(str(folder / split))
        return [(picture, found.classes[label]) for picture, label in found]

    return theirs


@layout(SINGLE, "folders by name, train beside", theirs=_image_folder("test"))
def folders(folder, pictures):
    write_all(folder / "test", in_folders(pictures, lambda one: one.word))
    write_all(folder / "train", in_folders(pictures[:2], lambda one: one.word))


@layout(SINGLE, "a Mac's zip of folders by name")
def mac_zip(folder, pictures):
    files = {f"set/{name}": data for name, data in in_folders(pictures, lambda o: o.word).items()}
    junk = {f"__MACOSX/{Path(name).parent}/._{Path(name).name}": b"\0\5\x16\7" for name in files}
    return write_zip(folder / "set.zip", {**files, **junk, "set/.DS_Store": b"Bud1"})


@layout([name for name in SINGLE if name != "imagenet1k"], "ELEVATER's zip, by its label file")
def elevater(folder, pictures):
    """Its order differs from ours in five data sets, here in all; MNIST's digits are in order."""
    task = FSC[task_of(pictures)]
    turn = -1 if task.name != "mnist" else 1
    words = list(task.classes)[::turn]
    width = 1 if len(words) <= 10 else 3
    files = in_folders(pictures, lambda one: f"{words.index(task.classes[one.place]):0{width}d}")
    members = {f"{task.name}/test/{name}": data for name, data in files.items()}
    members |= {f"{task.name}/train/{name}": data for name, data in list(files.items())[:2]}
    return write_zip(
        folder / f"{task.name}.zip",
        {f"{task.name}/label.txt": "\n".join(words).encode(), **members},
    )


TWO_ORDERS = [name for name in SINGLE if FSC[name].classes_also_numbered]
ONE_ORDER = [name for name in SINGLE if name not in TWO_ORDERS]


@layout(TWO_ORDERS, "folders by number, no list", refused="(ELEVATER)")
@layout(ONE_ORDER, "folders by number, no list")
def numbered(folder, pictures):
    write_all(folder / "test", in_folders(pictures, lambda one: str(one.place)))


@layout(SINGLE, "imagefolder with metadata.csv")
def metadata(folder, pictures):
    place = folder / ("validation" if task_of(pictures) in VALIDATION else "test")
    lines = ["file_name,label"]
    for number, one in enumerate(pictures):
        write(place / f"{number}.png", one.png)
        lines.append(f'{number}.png,"{one.word}"')
    write(place / "metadata.csv", "\n".join(lines))


def write_tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    tar = write_tar(path.with_name("whole.tar"), files)
    with tarfile.open(path, "w:gz") as packed, tarfile.open(tar) as whole:
        for info in whole:
            packed.addfile(info, whole.extractfile(info))
    tar.unlink()
    return path


@layout(["cifar10", "country211"], "a folder with a .tar.gz alone", refused="tar -xf")
def packed(folder, pictures):
    name = task_of(pictures)
    write_tar_gz(folder / f"{name}.tar.gz", in_folders(pictures, lambda one: one.word))
