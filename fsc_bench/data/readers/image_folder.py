"""Folders of images, one folder a class: `val/n01440764/x.JPEG`, `test/AD/x.jpg`, `Forest/x.jpg`.

Folders are called by class id, name or number; one that is called exactly like a class is that
class, be it `train` or `3`. Numbers follow a class list beside or above them (`label.txt`, as in
OFA-Sys/chinese-clip-eval, or `classnames.txt`), else the task's order; where it is open whether
they count from 0 or 1, they are refused. The folders may lie inside a zip or tar, which is read in
place.

Options: `split`, one word or several to try, where there are folders for several splits; `first`,
the number of the first class; `only`, how the pictures are called that count, where any is called
so (`PrivateTest_*`). A `classes.txt` beside or above the folders says what their names
mean, one line each: `1 = red` (class_lists.py).
"""

import fnmatch
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsc_bench.data.class_lists import ClassLists, is_list
from fsc_bench.data.containers import container_module
from fsc_bench.data.labels import UNSAID, Answers, Labels
from fsc_bench.data.listing import (
    IMAGE_SUFFIXES,
    entries,
    files_below,
    folders_below,
    inside,
    member,
    natural,
    of_split,
    split_words,
)
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import wds
from fsc_bench.errors import near_miss
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test", "first": UNSAID, "only": ""}
SEVERAL = ("split",)
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test/cat/0.png test/cat/1.png   the name of a class, or one of [classes] ids
#     test/dog/2.png
title    = "Mine"
suite    = "mine"
group    = "classification"
kind     = "classification"
version  = 1
headline = ["accuracy"]
chance   = 50.0
[subsets]
test = 3
[classes]
names = ["cat", "dog"]
[prompts.plain]
templates = ["a photo of a {}."]
[data]
reader = "image_folder"
[data.options]
split = "test"
"""
LAST = True  # DTD, Food101 and others have class folders and a list of the test images
GENERAL = True
LAYOUT = "a folder of pictures for each class"
DEPTH = 4
WIDEST = 250  # below a folder of more folders no class folders are sought
ARCHIVES = (".zip", ".tar")


@dataclass(frozen=True)
class Root:
    """A place whose folders hold pictures: on disk, or inside an archive.

    below: pictures that lie deeper in a class folder than its own, which nobody would score.
    """

    path: Path
    prefix: str  # of records' paths to the folders
    pictures: dict[str, list[str]]  # folder -> its pictures
    below: dict[str, str] = field(default_factory=dict)  # folder -> one deeper picture
    archive: Path | None = None
    lists: dict[str, str] = field(default_factory=dict)  # class lists inside the archive


def detect(raw: Raw) -> bool:
    """Whether folders are called like the task's classes, on disk or in an archive."""
    return bool(_class_roots(raw, Labels(raw)))


def hint(raw: Raw) -> str:
    """Which folders of pictures are here, and the class that is spelt most alike."""
    labels = Labels(raw)
    for place, folders in _folders(raw):
        shown = [name for name in sorted(folders, key=natural)[:20] if _first_picture(place / name)]
        if shown:
            return _not_classes(labels, inside(raw, place) if place != raw.folder else "", shown)
    for root in _in_archives(raw):
        place = root.prefix or root.archive.name
        return _not_classes(labels, place.rstrip("/"), sorted(root.pictures, key=natural))
    return ""


def _not_classes(labels: Labels, place: str, folders: list[str]) -> str:
    strange = [name for name in folders if not labels.places_of(name)] or folders
    shown = ", ".join(repr(name[:60]) for name in folders[:4])
    miss = near_miss(strange[0], [*labels.ids, *labels.names])
    return (
        f"pictures lie in the folders {shown}{f' of {place}' if place else ''}, and no class is "
        f"called {strange[0]!r:.60}.{miss} {labels.advice(strange[0])}"
    )


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    labels = Labels(raw)
    roots = {root.path: root for root in _class_roots(raw, labels)}
    if not roots:
        if not raw.folder.exists():
            raw.find("class folders")
        why = hint(raw) or "no folder of pictures is there."
        raw.fail(raw.folder, None, f"has no folders called like the task's classes: {why}")
    root = roots[_one(raw, of_split(raw, roots, options["split"]))]
    root = _only(root, options["only"])
    if root.archive is not None:
        raw.note(root.archive)
    lists = ClassLists(labels, _beside(root), root.lists)
    answers = Answers(labels, lists, text=True, first=options["first"])
    keys = {
        folder: answers.add(folder, root.path / folder, None)
        for folder in sorted(root.pictures, key=natural)
        if _counts(labels, lists, root, folder)
    }
    classes = answers.classes()
    yield from _records(task, raw, root, {folder: classes[key] for folder, key in keys.items()})


def _only(root: Root, pattern: str) -> Root:
    """The root with the pictures alone that are called so; as it is where none is."""
    chosen = {folder: fnmatch.filter(names, pattern) for folder, names in root.pictures.items()}
    return replace(root, pictures=chosen) if any(chosen.values()) else root


def _records(task: Task, raw: Raw, root: Root, classes: dict[str, int]) -> Iterator[Record]:
    (subset,) = task.leaves
    of_class: dict[int, str] = {}
    for folder, label in classes.items():
        if label in of_class:
            raw.fail(
                root.path / folder, None, f"is the same class as the folder {of_class[label]!r}."
            )
        if folder in root.below:
            deep = root.below[folder]
            raw.fail(root.path / folder, None, f"holds pictures deeper too, such as {deep!r:.200}.")
        of_class[label] = folder
    for label in sorted(of_class):
        folder = of_class[label]
        for name in sorted(root.pictures[folder], key=natural):
            yield Record(
                id=f"{folder}/{name}",
                subset=subset,
                images=(ImageRef(OWN, f"{root.prefix}{folder}/{name}"),),
                labels=(label,),
                cluster=f"{folder}/{name}",
            )


def _counts(labels: Labels, lists: ClassLists, root: Root, folder: str) -> bool:
    """Whether a folder is to be a class: one with pictures is, any other where it is called so."""
    named = labels.find(folder) is not None or lists.of(folder) is not None
    return named or bool(root.pictures[folder])


def _beside(root: Root) -> Path:
    return root.path if root.archive is None else root.archive.parent


# ---------------------------------------------------------------- where class folders are


def _class_roots(raw: Raw, labels: Labels) -> list[Root]:
    """The places whose folders are the task's classes: those on disk, else those in archives."""
    found = []
    for place, folders in _folders(raw):
        lists = ClassLists(labels, place)
        if any(_may_be_class(labels, lists, name) for name in folders):
            root = _root(raw, labels, place, folders)
            if _holds_classes(labels, lists, root):
                found.append(root)
    if found:
        return found
    return [
        root
        for root in _in_archives(raw)
        if _holds_classes(labels, ClassLists(labels, _beside(root), root.lists), root)
    ]


def _holds_classes(labels: Labels, lists: ClassLists, root: Root) -> bool:
    """Whether most folders with pictures are classes; an odd one among them is then a complaint."""
    folders = [name for name, files in root.pictures.items() if files]
    known = [name for name in folders if _may_be_class(labels, lists, name)]
    splits = [name for name in folders if name not in known and split_words(name)]
    return bool(known) and 2 * len(known) >= len(folders) - len(splits)


def _may_be_class(labels: Labels, lists: ClassLists, name: str) -> bool:
    if labels.places_of(name) or lists.of(name) is not None:
        return True
    return name.isdecimal() and len(name) < 10 and int(name) <= len(labels.names)


def _folders(raw: Raw) -> Iterator[tuple[Path, list[str]]]:
    """(place, its folders), outer places first; not below a place of many folders."""
    for place in folders_below(raw.folder, DEPTH, WIDEST):
        folders = [entry.name for entry in entries(place, hidden=True) if entry.is_dir()]
        if folders:
            yield place, folders


def _root(raw: Raw, labels: Labels, place: Path, folders: list[str]) -> Root:
    pictures, below = {}, {}
    for name in folders:
        if name.startswith(".") and not labels.places_of(name):
            continue  # a class may be called `.NET`; what else is hidden holds none
        here = list(entries(place / name))
        pictures[name] = [e.name for e in here if _is_picture(e.name) and e.is_file()]
        for entry in here:
            if pictures[name] and not _is_picture(entry.name) and entry.is_dir():
                deep = _first_picture(Path(entry.path))
                if deep:
                    below[name] = f"{entry.name}/{deep}"
    return Root(place, "" if place == raw.folder else f"{inside(raw, place)}/", pictures, below)


def _first_picture(folder: Path) -> str:
    return next((entry.name for entry in entries(folder) if _is_picture(entry.name)), "")


def _in_archives(raw: Raw) -> Iterator[Root]:
    """The same inside zips and tars; WebDataset's tars are another reader's."""
    for archive, names in _archives(raw).items():
        pictures: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in filter(_is_picture, names):
            folder, _, file = name.rpartition("/")
            parent, _, last = folder.rpartition("/")
            if last:
                pictures[parent][last].append(file)
        for parent, folders in pictures.items():
            prefix = f"{parent}/" if parent else ""
            deeper = {
                last: f"{inner}/{next(iter(pictures[place][inner]))}"
                for last in folders
                if (place := f"{prefix}{last}") in pictures
                for inner in list(pictures[place])[:1]
            }
            around = {parent, *(str(place) for place in Path(parent).parents)} - {"."} | {""}
            lists = [name for name in names if is_list(name) and name.rpartition("/")[0] in around]
            lists.sort(key=lambda name: -name.count("/"))
            texts = {name: _member_text(raw, archive, name) for name in lists}
            path = archive / parent
            yield Root(path, member(raw, archive, prefix), dict(folders), deeper, archive, texts)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _archives(raw: Raw) -> dict[Path, list[str]]:
    """Member names of zips and tars in the raw folder."""
    found: dict[Path, list[str]] = {}
    paths = files_below(raw.folder, ARCHIVES)
    while paths:
        path = paths.pop(0)
        try:
            names = list(container_module(path).Container(path).names())
        except (OSError, ValueError) as error:
            raw.fail(path, None, f"damaged: {error}")
        tar = path.suffix.lower() == ".tar"
        if tar and any(name.endswith(wds.LABELS) for name in names):
            paths = [other for other in paths if other.suffix.lower() != ".tar"]
        else:
            found[path] = names
    return found


def _member_text(raw: Raw, archive: Path, name: str) -> str:
    try:
        return container_module(archive).Container(archive).read(name).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raw.fail(archive, name, f"cannot be read: {error}")


def _one(raw: Raw, roots: list[Path]) -> Path:
    if len(roots) > 1:
        names = ", ".join(inside(raw, root) for root in roots[:4])
        raw.fail(raw.folder, None, f"has class folders in {names}; link the one to be read.")
    return roots[0]
