"""Folders of images, one folder a class: `val/n01440764/x.JPEG`, `test/AD/x.jpg`, `Forest/x.jpg`.

Folders are called by class id, name or number. Numbers follow a `label.txt` or `classnames.txt`
above them where there is one (ELEVATER's own order in OFA-Sys/chinese-clip-eval), else the task's
order. The folders may lie inside a zip or tar, which is read in place. Options: `split`, one word
or several to try, where there are folders for several splits.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from fsc_bench.data.containers import container_module
from fsc_bench.data.labels import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    Labels,
    entries,
    files_below,
    member,
    natural,
    of_split,
)
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import wds
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"split": "test"}
LAST = True  # DTD, Food101 and others have class folders and a list of the test images
DEPTH = 4
LISTS = ("label.txt", "classnames.txt")
ARCHIVES = (".zip", ".tar")


def detect(raw: Raw) -> bool:
    """Whether folders are called like the task's classes, on disk or in an archive."""
    labels = Labels(raw)
    if any(_names_classes(labels, folders) for _, folders in _tree(raw.folder)):
        return True
    return any(_archive_roots(labels, names) for names in _archives(raw).values())


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    labels = Labels(raw)
    roots = [root for root, folders in _tree(raw.folder) if _names_classes(labels, folders)]
    if roots:
        root = _one(raw, of_split(raw, roots, options["split"]))
        yield from _read_folders(task, raw, labels, root)
        return
    inside = {
        archive / root: (archive, root, names)
        for archive, names in _archives(raw).items()
        for root in _archive_roots(labels, names)
    }
    if not inside:
        raw.find(*(word for word in [options["split"]] if isinstance(word, str)))
        raw.fail(raw.folder, None, "has no folders that are called like the task's classes.")
    chosen = inside[_one(raw, of_split(raw, inside, options["split"]))]
    yield from _read_archive(task, raw, labels, *chosen)


def _read_folders(task: Task, raw: Raw, labels: Labels, root: Path) -> Iterator[Record]:
    files: dict[str, list[str]] = {}
    for folder in entries(root):
        if folder.is_dir():
            names = [entry.name for entry in entries(Path(folder.path)) if entry.is_file()]
            files[folder.name] = names
    lists = {path: None for path in _list_places(root) if path.is_relative_to(raw.folder)}
    texts = {path: raw.text(str(path.relative_to(raw.folder))) for path in lists if path.is_file()}
    base = root.relative_to(raw.folder).as_posix()
    prefix = "" if base == "." else f"{base}/"
    yield from _records(task, raw, labels, root, files, texts, prefix)


def _read_archive(
    task: Task, raw: Raw, labels: Labels, archive: Path, root: str, names: list[str]
) -> Iterator[Record]:
    raw.note(archive)
    prefix = f"{root}/" if root else ""
    files: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, slash, file = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and slash and "/" not in file:
            files[folder].append(file)
    texts = {}
    for path in _list_places(PurePosixPath(root)):
        if str(path) in names:
            texts[archive / path] = _member_text(raw, archive, str(path))
    place = archive / root
    yield from _records(task, raw, labels, place, files, texts, member(raw, archive, prefix))


def _records(
    task: Task,
    raw: Raw,
    labels: Labels,
    root: Path,
    files: Mapping[str, list[str]],
    lists: Mapping[Path, str],
    prefix: str,
) -> Iterator[Record]:
    (subset,) = task.leaves
    order = None
    if all(folder.isdigit() for folder in files) and not all(
        labels.find(f) is not None for f in files
    ):
        for path, text in lists.items():
            order = labels.order([line.strip() for line in text.splitlines() if line.strip()], path)
            break
    of_class: dict[int, str] = {}
    for folder in sorted(files, key=natural):
        label = labels.read(folder, root / folder, None)
        if order is not None:
            if label >= len(order):
                raw.fail(
                    root / folder, None, f"is beyond the {len(order)} lines of the class list."
                )
            label = order[label]
        if label in of_class:
            raw.fail(root / folder, None, f"is the same class as the folder {of_class[label]!r}.")
        of_class[label] = folder
    for label in sorted(of_class):
        folder = of_class[label]
        for name in sorted(files[folder], key=natural):
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield Record(
                    id=f"{folder}/{name}",
                    subset=subset,
                    images=(ImageRef(OWN, f"{prefix}{folder}/{name}"),),
                    labels=(label,),
                    cluster=f"{folder}/{name}",
                )


def _tree(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, its subfolders' names), outer ones first; not below a folder of many folders."""
    places = [folder] if folder.is_dir() else []
    for _ in range(DEPTH):
        below: list[Path] = []
        for place in places:
            subfolders = [entry.name for entry in entries(place) if entry.is_dir()]
            yield place, subfolders
            below += [place / name for name in subfolders if len(subfolders) <= 250]
        places = below


def _names_classes(labels: Labels, folders: list[str]) -> bool:
    """Whether most of these folders are classes; an odd one among them is then a complaint."""
    folders = [name for name in folders if name.lower() not in SPLIT_WORDS]
    known = sum(_may_be_class(labels, name) for name in folders)
    return known >= 2 and 2 * known >= len(folders)


def _may_be_class(labels: Labels, name: str) -> bool:
    return labels.find(name) is not None or (name.isdigit() and int(name) < len(labels.names))


def _archives(raw: Raw) -> dict[Path, list[str]]:
    """Member names of zips and tars in the raw folder; WebDataset's tars are another reader's."""
    found: dict[Path, list[str]] = {}
    paths = files_below(raw.folder, ARCHIVES)
    while paths:
        path = paths.pop(0)
        try:
            names = list(container_module(path).Container(path).names())
        except (OSError, ValueError) as error:
            raw.fail(path, None, f"damaged: {error}")
        if path.suffix == ".tar" and any(name.endswith(wds.LABELS) for name in names):
            paths = [other for other in paths if other.suffix != ".tar"]
        else:
            found[path] = names
    return found


def _archive_roots(labels: Labels, names: list[str]) -> list[str]:
    below: dict[str, set[str]] = defaultdict(set)
    for name in names:
        folder, _, _ = name.rpartition("/")
        parent, _, last = folder.rpartition("/")
        if last:
            below[parent].add(last)
    return [root for root, folders in below.items() if _names_classes(labels, sorted(folders))]


def _list_places(root: Path | PurePosixPath) -> list:
    return [place / name for place in (root, root.parent) for name in LISTS]


def _member_text(raw: Raw, archive: Path, name: str) -> str:
    try:
        return container_module(archive).Container(archive).read(name).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raw.fail(archive, name, f"cannot be read: {error}")


def _one(raw: Raw, roots: list[Path]) -> Path:
    if len(roots) > 1:
        names = ", ".join(str(root.relative_to(raw.folder)) for root in roots[:4])
        raw.fail(raw.folder, None, f"has class folders in {names}; link the one to be read.")
    return roots[0]
