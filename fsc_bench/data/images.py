"""Images: from a reference in a record to pixels, and to the content hash that makes it unique.

Where an image lies is decided here and nowhere else: a source is a folder, a zip or a tar that the
user linked (links.json in the data folder), or what `fsc-bench data get` fetched below `images/`.
Nothing is copied or unpacked.
"""

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.data.border import (
    Inside,
    reason,
    said_by_library,
    says_way_out,
)
from fsc_bench.data.containers import container_module
from fsc_bench.data.listing import entries, find_path, snapshots
from fsc_bench.data.names import Names
from fsc_bench.data.pixels import cropped, decode
from fsc_bench.data.sources import sources, wrappers
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.records import OWN, ImageRef, unusable_path
from fsc_bench.system.facts import read_json
from fsc_bench.system.files import locked, write_text
from fsc_bench.system.regular import Irregular, check_regular, closed, open_regular, read_file

# Visual Genome's pictures lie in two folders. CREPE and ARO name them by number alone, so that
# their readers cannot know which: a picture that is not in one is looked for in the other.
VG_FOLDERS = {"VG_100K": "VG_100K_2", "VG_100K_2": "VG_100K"}
OPEN_CONTAINERS = 64  # a .npy file is a container of one image: only so many are kept
# How PNG, JPEG, GIF, WebP, BMP, TIFF and PNM files begin.
PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|P[56]\s", re.DOTALL
)


def read_links(data: Path) -> dict[str, str]:
    """What the user linked: an image source or a task's raw folder -> path."""
    table = data / "links.json"
    return read_json(table, dict[str, str], DataError) if table.exists() else {}


def write_link(data: Path, name: str, path: Path) -> None:
    """Remembers that `name` lies at `path`. Raises UsageError where nothing is there."""
    path = path.expanduser().resolve()
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder or archive to link {name!r} to.")
    table = data / "links.json"
    with locked(table):  # two links at once: the second reads what the first wrote
        links = {**read_links(data), name: str(path)}
        write_text(table, json.dumps(links, indent=2, sort_keys=True) + "\n")


def raw_folder(data: Path, task_name: str, links: Mapping[str, str]) -> Path:
    """Where a task's own raw files are, or would be."""
    fetched = data / "raw" / task_name
    # `flickr30k` is a task and an image source: a link may be meant for the images alone.
    if task_name in sources() and fetched.is_dir():
        return fetched
    return settled(Path(links.get(task_name) or fetched))


def settled(folder: Path) -> Path:
    """The one snapshot in a folder of the Hub's cache; any other folder as it is."""
    kept = snapshots(folder)
    return kept[0] if len(kept) == 1 else folder


class Images:
    """All the images that records may name, below one data folder and its links."""

    def __init__(self, data: Path):
        self.data = data
        self.containers: OrderedDict[str, Any] = OrderedDict()
        self.archives: dict[Path, list[Path]] = {}
        self.folders: dict[str, Names] = {}
        self.members: dict[str, Names] = {}
        self.inner: dict[str, tuple[str, ...]] = {}
        self.roots: dict[tuple[str, str], tuple[Path, bool, tuple[str, ...]]] = {}
        self.located: dict[tuple[str, str, str], tuple[str, str | None]] = {}
        self.insides: dict[str, Inside] = {}
        self.lock = threading.Lock()

    @cached_property
    def links(self) -> dict[str, str]:
        return read_links(self.data)

    def root(self, task_name: str, source: str) -> Path:
        """The folder or archive of a source; it may not exist."""
        if source == OWN:
            return raw_folder(self.data, task_name, self.links)
        if source in self.links:
            return settled(Path(self.links[source]))
        folder = self.data / "images" / source
        for suffix in (".zip", ".tar"):
            archive = folder.with_name(folder.name + suffix)
            if archive.exists() and not folder.exists():
                return archive
        return folder

    def locate(self, task_name: str, ref: ImageRef) -> tuple[str, str | None]:
        """(file, member) of a reference: the member is None for an image file of its own.

        Remembered where something is there: a run asks four times for each of a million images.
        """
        key = (task_name if ref.source == OWN else "", ref.source, ref.path)
        found = self.located.get(key)
        if found is None:
            path, member, there = self._look(task_name, ref)
            found = (path, member)
            if there:
                self.located[key] = found
        return found

    def _look(self, task_name: str, ref: ImageRef) -> tuple[str, str | None, bool]:
        if why := unusable_path(ref.path):
            raise DataError(f"{task_name}: the image path {ref.path!r:.120} {why}.")
        outer, _, member = ref.path.partition("::")
        root, is_archive, wraps = self._root(task_name, ref.source)
        outer = os.path.normpath(outer)
        inside = [outer]
        first, slash, rest = outer.partition("/")
        if ref.source == "vg" and slash and first in VG_FOLDERS:
            inside.append(f"{VG_FOLDERS[first]}/{rest}")
        names = [f"{wrap}{name}" for wrap in wraps for name in inside]
        if is_archive:
            found = self._member(root, names)
            return str(root), found or outer, found is not None
        lower = [f"{wrap}{name}" for wrap in self._only(root) for name in inside]
        if path := find_path(str(root), [*names, *lower], self._listing):
            if member and self._cheap(path):
                member = self._member(path, [member]) or member
            self._check_inside(task_name, str(root), path)
            return path, member or None, True
        if not member and (found := self._in_archives(task_name, root, ref, names)):
            return *found, True
        return os.path.join(root, names[0]), member or None, False

    def _check_inside(self, task_name: str, root: str, path: str) -> None:
        if root not in self.insides:
            self.insides[root] = Inside([root, self.data, *self.links.values()])
        if target := self.insides[root].way_out(path):
            raise DataError(f"{task_name}: the image {path} {says_way_out(target)}.")

    def _in_archives(
        self, task_name: str, root: Path, ref: ImageRef, names: list[str]
    ) -> tuple[str, str] | None:
        """The archive directly in `root` that holds one of `names`, and what it calls it."""
        held = {str(path): self._member(path, names) for path in self._archives(root)}
        found = [(path, member) for path, member in held.items() if member]
        if len(found) > 1:
            both = " and in ".join(path for path, _ in found)
            raise DataError(f"{task_name}: the image {ref.path!r:.120} is in {both}; keep one.")
        return found[0] if found else None

    def _root(self, task_name: str, source: str) -> tuple[Path, bool, tuple[str, ...]]:
        """(folder or archive, whether it is an archive, folders that copies are wrapped in)."""
        key = (task_name if source == OWN else "", source)
        if key not in self.roots:
            self._check_registered(task_name, source)
            root = self.root(task_name, source)
            wraps = ("",) if source == OWN else tuple(wrappers(source))
            if not root.exists():
                return root, False, wraps
            if why := closed(root):
                raise DataError(f"{task_name}: the images' folder {root} {why}.")
            self.roots[key] = (root, root.is_file(), wraps)
        return self.roots[key]

    def _check_registered(self, task_name: str, source: str) -> None:
        """Raises DataError for a source that is neither ours nor linked: any folder could be it."""
        if source != OWN and source not in sources() and source not in self.links:
            hint = near_miss(source, [*sources(), *self.links])
            raise DataError(
                f"{task_name}: a record names the image source {source!r:.120}, which there is not."
                f"{hint} `fsc-bench data status` lists them; of your own, "
                "`fsc-bench data link ./SOURCE.toml PATH` says where they lie."
            )

    def _only(self, root: Path) -> tuple[str, ...]:
        """The one folder in `root`, with its `/`: pictures may lie one folder down."""
        key = str(root)
        if key not in self.inner:
            folders = [entry.name for entry in entries(root) if entry.is_dir()]
            self.inner[key] = (f"{folders[0]}/",) if len(folders) == 1 else ()
        return self.inner[key]

    def _member(self, archive: Path | str, names: list[str]) -> str | None:
        """The first of `names` that an archive holds, perhaps below the one folder that it has."""
        if not self._cheap(archive):
            return None
        members = self._members(archive)
        for name in names:
            if found := members.find(name) or (members.top and members.find(members.top + name)):
                return found
        return None

    def _members(self, archive: Path | str) -> Names:
        key = str(archive)
        if key not in self.members:
            self.members[key] = Names(self._container(key).names())
        return self.members[key]

    def _archives(self, folder: Path) -> list[Path]:
        """Zips and tars directly in a folder: a source may come in several, kept as they are."""
        if folder not in self.archives:
            found = [Path(entry.path) for entry in entries(folder) if entry.is_file()]
            self.archives[folder] = [
                path for path in found if self._cheap(path) and not is_picture(path)
            ]
        return self.archives[folder]

    def exists(self, task_name: str, ref: ImageRef) -> bool:
        """Whether the image is there (its bytes may still be damaged)."""
        path, member = self.locate(task_name, ref)
        if member is None or not self._file_exists(path):
            return self._file_exists(path)
        return member in self._members(path) if self._cheap(path) else True

    def near(self, task_name: str, ref: ImageRef) -> str:
        """` Did you mean 'x.JPG'?` for a missing image, or nothing."""
        path, member = self.locate(task_name, ref)
        if member is not None and self._file_exists(path):
            close = self._members(path).near(member) if self._cheap(path) else ""
            return f" Did you mean {close!r}?" if close else ""
        root, _, _ = self._root(task_name, ref.source)
        folder, name = os.path.split(path)
        below = [str(root / entry.name) for entry in entries(root) if entry.is_dir()]
        listings = {place: self._listing(place) for place in (folder, *below[:100])}
        listings |= {str(archive): self._members(archive) for archive in self._archives(root)}
        for place, names in listings.items():
            if close := names.near(name):
                return f" Did you mean {os.path.relpath(os.path.join(place, close), root)!r}?"
        return ""

    def _cheap(self, path: Path | str) -> bool:
        # Names of numbered members are generated, not looked up: their count is checked on reading.
        return os.path.splitext(path)[1].lower() in (".zip", ".tar")

    def _listing(self, folder: str) -> Names:
        if folder not in self.folders:
            try:
                self.folders[folder] = Names(os.listdir(folder))
            except OSError:
                self.folders[folder] = Names(())
        return self.folders[folder]

    def _file_exists(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self._listing(folder)

    def _container(self, path: Path | str) -> Any:
        path = str(path)
        with self.lock:
            if path not in self.containers:
                module = container_module(path)
                if module is None:
                    raise DataError(f"{path}: not a kind of archive that can be read in place.")
                self.containers[path] = opened(module, Path(path))
                while len(self.containers) > OPEN_CONTAINERS:
                    self.containers.popitem(last=False)
            self.containers.move_to_end(path)
            return self.containers[path]

    def content(self, task_name: str, ref: ImageRef) -> bytes | np.ndarray:
        """Encoded bytes, or pixels where the raw format stores those. Raises DataError."""
        path, member = self.locate(task_name, ref)
        try:
            if member is not None:
                return self._container(path).read(member)
            if container_module(path) is not None and not is_picture(path):
                raise DataError(f"{path}: an archive, not an image.")
            return read_file(path)
        except FileNotFoundError:
            raise DataError(self._absent(task_name, ref, path)) from None
        except KeyError:
            raise DataError(f"{task_name}: {path} has no {member!r}.") from None
        except Irregular as error:
            raise DataError(f"{task_name}: the image {path} {error}.") from None
        except (OSError, ValueError, MemoryError) as error:
            where = path if member is None else f"{path}::{member}"
            raise DataError(f"{task_name}: {where}: cannot be read: {reason(error)}") from None

    def _absent(self, task_name: str, ref: ImageRef, path: str) -> str:
        name = task_name if ref.source == OWN else ref.source
        return (
            f"{task_name}: the image {path} is missing.{self.near(task_name, ref)} "
            f"`fsc-bench data get {name}` "
            f"fetches what can be had, `fsc-bench data link {name} PATH` says where you have it."
        )

    def open(self, task_name: str, ref: ImageRef) -> Image.Image:
        """The image in RGB, cropped to its box. Raises DataError that names the file."""
        where = f"{task_name}: {self._name(task_name, ref)}"
        image = decode(self.content(task_name, ref), where)
        with said_by_library(where, "cannot be cropped"):
            return cropped(image, ref.box)

    def _name(self, task_name: str, ref: ImageRef) -> str:
        path, member = self.locate(task_name, ref)
        return path if member is None else f"{path}::{member}"

    def digest(self, task_name: str, ref: ImageRef) -> bytes:
        """32 bytes that are equal exactly where content and crop are."""
        return image_digest(self.content(task_name, ref), ref.box)


def opened(module: Any, path: Path) -> Any:
    """The container at `path`. Raises DataError, one line, for what is none or is damaged."""
    try:
        check_regular(path)
        return module.Container(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except Irregular as error:
        raise DataError(f"{path}: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None
    except (ValueError, MemoryError) as error:
        raise DataError(f"{path}: damaged: {reason(error)}") from None


def is_picture(path: Path | str) -> bool:
    """Whether a file begins as pictures do, whatever its name ends in."""
    try:
        with open_regular(path) as file:
            head = file.read(512)
            return PICTURE.match(head) is not None and head[257:262] != b"ustar"
    except (OSError, Irregular):
        return False


def image_digest(content: bytes | np.ndarray, box: tuple[int, ...] | None) -> bytes:
    """sha256 of the content (encoded bytes, or shape and pixels) and the crop."""
    digest = hashlib.sha256()
    if isinstance(content, np.ndarray):
        digest.update(f"pixels {content.shape} {content.dtype}".encode())
        digest.update(np.ascontiguousarray(content).data)
    else:
        digest.update(content)
    digest.update(f"box {box}".encode() if box else b"")
    return digest.digest()


class DigestCache:
    """Content hashes remembered by file, size, times and inode: planning again reads no image."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        self.database.execute(
            "create table if not exists contents (place blob primary key, stamp text, digest blob) "
            "without rowid"
        )
        self.database.execute("drop table if exists digests")  # it knew size and time alone

    def get(self, stamps: Mapping[bytes, str]) -> dict[bytes, bytes]:
        """Of the places (file, member and crop) whose stamp is the remembered one: the digest."""
        found: dict[bytes, bytes] = {}
        places = [place for place, stamp in stamps.items() if stamp]
        for start in range(0, len(places), 500):
            part = places[start : start + 500]
            marks = ",".join("?" * len(part))
            query = f"select place, stamp, digest from contents where place in ({marks})"
            for place, stamp, digest in self.database.execute(query, part):
                if stamps[place] == stamp:
                    found[place] = digest
        return found

    def put(self, digests: Mapping[bytes, bytes], stamps: Mapping[bytes, str]) -> None:
        """Remembers, in one transaction, what has a stamp."""
        rows = [(place, stamps[place], digest) for place, digest in digests.items()]
        with self.database:
            self.database.executemany(
                "insert or replace into contents values (?, ?, ?)", [row for row in rows if row[1]]
            )

    def close(self) -> None:
        self.database.close()
