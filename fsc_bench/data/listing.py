"""Listing: what a raw folder holds, without junk; which of it is the wanted split.

Searches are bounded: no folder of many folders is descended into, so that a linked ImageNet is not
walked file by file.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fsc_bench.data.names import Names, is_junk, normal, plain_path

if TYPE_CHECKING:
    from fsc_bench.data.raw import Raw

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".ppm", ".pgm", ".bmp")
IMAGE_SUFFIXES += (".gif", ".tif", ".tiff")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
UNPACKED_BY = {**dict.fromkeys(COMPRESSED_TARS, "tar -xf"), ".rar": "unrar x", ".7z": "7z x"}
UNFINISHED = (".part", ".crdownload", ".download", ".partial", ".aria2", ".incomplete")
LONGEST_CHAIN = 9  # of folders that hold nothing but the next
CLASS_FOLDERS = 50  # a folder with more subfolders holds classes; no archives are sought there
# How folders and files say a split; each form means the word in front.
SPLITS = {
    "train": ("train", "trains", "training", "trained", "trainset", "trainingset"),
    "trainval": ("trainval", "trainvalid", "trainvalset"),
    "val": ("val", "vals", "valid", "valset", "validset", "validate", "validated", "validating"),
    "dev": ("dev", "devel", "development", "devset"),
    "test": ("test", "tests", "testing", "tested", "testset", "testingset"),
}
SPLITS["val"] += ("validation", "validations", "validationset")
SPLIT_OF = {form: split for split, forms in SPLITS.items() for form in forms}


def natural(path: Path | str) -> list[Any]:
    """Sort key under which 2.tar comes before 10.tar."""
    pieces = re.split(r"(\d+)", str(path))
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def entries(folder: Path, hidden: bool = False) -> Iterator[os.DirEntry]:
    """What a folder holds, in name order, without junk and, unless asked for, hidden files.

    Nothing where it cannot be read, and no link that leads round in a circle.
    """
    try:
        with os.scandir(folder) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if is_junk(entry.name) or (entry.name.startswith(".") and not hidden):
            continue
        if not _leads_round(entry):
            yield entry


def _leads_round(entry: os.DirEntry) -> bool:
    """Whether it is a link to itself or to a folder that it lies in: all would be found twice."""
    if not entry.is_symlink():
        return False
    try:
        folder = entry.is_dir()
    except OSError:  # of a link to itself not even the kind can be told
        return True
    here, target = os.path.realpath(os.path.dirname(entry.path)), os.path.realpath(entry.path)
    return folder and f"{here}{os.sep}".startswith(target.rstrip(os.sep) + os.sep)


def files_below(folder: Path, suffixes: tuple[str, ...], depth: int = 3) -> list[Path]:
    """Files with such endings, in any case, up to `depth` folders down, in natural order.

    Hidden files and junk are left out, and so is what is not of a folder of `save_to_disk`.
    """
    endings = tuple(suffix.casefold() for suffix in suffixes)
    if folder.is_file():
        return [folder] if folder.name.casefold().endswith(endings) else []
    found = [
        Path(entry.path)
        for place in folders_below(folder, depth)
        for entry in entries(place)
        if entry.name.casefold().endswith(endings) and not entry.is_dir()
    ]
    return sorted(found, key=natural)


def folders_below(folder: Path, depth: int, widest: int = CLASS_FOLDERS) -> Iterator[Path]:
    """`folder` and those below it, `depth` levels in all, outer ones first.

    A folder that holds nothing but one folder costs no level: copies are wrapped in many. Below a
    folder of more than `widest` none is sought.
    """
    level = [folder] if folder.is_dir() else []
    for _ in range(depth):
        below: list[Path] = []
        for place in level:
            for _ in range(LONGEST_CHAIN):
                yield place
                found = list(entries(place))
                if len(found) != 1 or not found[0].is_dir():
                    break
                place = Path(found[0].path)
            inner = [Path(entry.path) for entry in found if entry.is_dir()]
            below += inner if len(inner) <= widest else []
        level = below


def saved_files(raw: "Raw", files: Iterable[Path]) -> list[Path]:
    """Without the Arrow files that a folder of `Dataset.save_to_disk` does not call its own.

    Its state.json names them. Raises DataError where one of those is not there.
    """
    files = list(files)
    kept = files
    for folder in dict.fromkeys(path.parent for path in files if path.suffix == ".arrow"):
        state = folder / "state.json"
        if not state.is_file() or not state.is_relative_to(raw.folder):
            continue
        try:
            content = json.loads(state.read_text(encoding="utf-8"))
            own = {row["filename"] for row in content["_data_files"]}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            raw.fail(state, None, "does not say which files are its data set's.")
        raw.note(state)
        if content.get("_indices_data_files"):
            raw.fail(state, None, "says that only some rows count; save the data set anew.")
        for name in sorted(own, key=str):
            if folder / str(name) not in files:
                raw.fail(state, None, f"names {name!r:.80}, which is not there.")
        kept = [path for path in kept if path.parent != folder or path.name in own]
    return kept


def snapshots(folder: Path) -> list[Path]:
    """The revisions in a folder of the Hub's cache (`datasets--org--name/snapshots/REV`)."""
    if not os.path.isdir(folder / "snapshots"):  # never raises, as Path.is_dir does
        return []
    if {entry.name for entry in entries(folder)} - {"snapshots", "blobs", "refs"}:
        return []
    return [Path(entry.path) for entry in entries(folder / "snapshots") if entry.is_dir()]


def find_path(root: str, names: Sequence[str], listing: Callable[[str], Names]) -> str | None:
    """The file or folder below `root` that one of `names` means, the first that is there.

    Names in another form are taken only where none is there as it is. listing: what a folder holds.
    """
    for name in names:
        path = os.path.join(root, name)
        folder, last = os.path.split(path)
        if last in listing(folder):
            return path
    others = (_in_another_form(root, normal(name), listing) for name in names)
    return next(filter(None, others), None)


def _in_another_form(root: str, name: str, listing: Callable[[str], Names]) -> str | None:
    folder, parts = root, name.split("/")
    for place, part in enumerate(parts):
        here = listing(folder)
        whole = here.find("/".join(parts[place:]))  # also a file that is called `folder\x.png`
        if whole is not None:
            return os.path.join(folder, whole)
        found = here.find(part)
        if found is None:
            return None
        folder = os.path.join(folder, found)
    return None


def own_path(raw: "Raw", picture: str, path: Path, record: Any) -> str:
    """The path below the raw folder that an absolute path of a picture means; empty for others.

    Raises DataError where it leads elsewhere.
    """
    plain = plain_path(picture)
    if not re.match(r"/|[A-Za-z]:/", plain):
        return ""
    for folder in (os.path.abspath(raw.folder), os.path.realpath(raw.folder)):
        for whole in (os.path.normpath(plain), os.path.realpath(plain)):
            if whole.startswith(f"{folder}{os.sep}"):
                return whole[len(folder) + 1 :]
    raw.fail(
        path,
        record,
        f"the picture's path {picture!r:.200} is absolute and leads out of {raw.folder}; write it "
        "relative to the folder that is linked.",
    )


def describe(folder: Path, most: int = 6) -> str:
    """What a folder holds, in words for a complaint: `'a/', 'b.csv' and 12 more`.

    Of a folder that holds only another, also what that one holds: `'a/' with 'b.csv'`.
    """
    wraps = ""
    for _ in range(LONGEST_CHAIN):
        found = list(entries(folder))
        if len(found) != 1 or not found[0].is_dir():
            break
        wraps += f"{found[0].name[:60]}/"
        folder = Path(found[0].path)
    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in found]
    shown = ", ".join(repr(name[:60]) for name in sorted(names, key=natural)[:most])
    shown += f" and {len(names) - most} more" if len(names) > most else ""
    return f"{wraps!r} with {shown or 'nothing'}" if wraps else shown or "nothing"


def unread(folder: Path, but: tuple[str, ...] = ()) -> str:
    """The first file below that is packed or did not come whole, with what to do, as a sentence.

    Such a file is never read, so it may be why nothing is found. Empty where there is none. but:
    endings that are passed over.
    """
    for path in files_below(folder, (*UNPACKED_BY, *UNFINISHED)):
        if path.name.casefold().endswith(but):
            continue
        name, lower = inside_of(folder, path), path.name.casefold()
        if lower.endswith(UNFINISHED):
            return f"{name} is a download that did not end: fetch it again. "
        tool = next(tool for ending, tool in UNPACKED_BY.items() if lower.endswith(ending))
        return (
            f"{name} is a packed archive, which cannot be read in place. `{tool} {name}` unpacks "
            "it; then link the folder that comes of it. "
        )
    return ""


# ---------------------------------------------------------------- splits


def split_words(name: str) -> set[str]:
    """The splits that one name says: `Final_Test`, `TestImages` and `testing` say test."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.split(r"[^a-z]+", apart.lower())
    return {SPLIT_OF[word] for word in words if word in SPLIT_OF}


def of_split(raw: "Raw", files: Iterable[Path], split: str | Sequence[str]) -> list[Path]:
    """The files whose path says the split (the first of several words that any path says).

    The innermost folder that says a split counts. Where no path says any, all files are it. Raises
    DataError where only others are there.
    """
    files = list(files)
    wanted = [split] if isinstance(split, str) else list(split)
    said = {path: _said(raw, path) for path in files}
    for word in wanted:
        chosen = [path for path in files if _split(word) in said[path]]
        if chosen:
            return chosen
    silent = [path for path in files if not said[path] & SPLITS.keys()]
    if files and not silent:
        there = sorted(set().union(*said.values()) & SPLITS.keys())
        raw.fail(
            raw.folder,
            None,
            f"holds {', '.join(there)}, not the split {' or '.join(wanted)} (such as "
            f"{inside(raw, files[0])}). A task of your own may say `split = {there[0]!r}` in its "
            "[data.options].",
        )
    return silent


def _split(word: str) -> str:
    return SPLIT_OF.get(word.lower(), word.lower())


def _said(raw: "Raw", path: Path) -> set[str]:
    if path == raw.folder and path.is_dir():  # `train_or_bus` is a name; `Training` says a split
        return {SPLIT_OF[path.name.lower()]} if path.name.lower() in SPLIT_OF else set()
    for part in reversed(PurePath(inside(raw, path)).parts):
        words = split_words(part)
        if words:
            return words
    # A split of another name, such as `fold`, may stand anywhere.
    return set(re.split(r"[^a-z]+", inside(raw, path).lower()))


def inside(raw: "Raw", path: Path) -> str:
    """A path as it is called below the raw folder; the file's own name where it is all there is."""
    return inside_of(raw.folder, path)


def inside_of(folder: Path, path: Path) -> str:
    """The same below any folder."""
    return path.name if path == folder else path.relative_to(folder).as_posix()


def prefix(raw: "Raw", folder: Path) -> str:
    """What stands before the names of a folder's files, below the raw folder: "" or `a/b/`."""
    return "" if folder == raw.folder else f"{folder.relative_to(raw.folder).as_posix()}/"


def member(raw: "Raw", container: Path, name: str) -> str:
    """The path by which records name a container's member; it may be all of the raw data."""
    return name if container == raw.folder else f"{inside(raw, container)}::{name}"
