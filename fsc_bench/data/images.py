"""Images: from a reference in a record to pixels, and to the content hash that makes it unique.

Where an image lies is decided here and nowhere else: a source is a folder, a zip or a tar that the
user linked (links.json in the data folder), or what `fsc-bench data get` fetched below `images/`.
Nothing is copied or unpacked.
"""

import hashlib
import io
import json
import os
import sqlite3
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.data.containers import container_module
from fsc_bench.data.sources import sources, wrappers
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import OWN, ImageRef, unusable_path
from fsc_bench.system.files import locked, write_text

# Visual Genome's pictures lie in two folders. CREPE and ARO name them by number alone, so that
# their readers cannot know which: a picture that is not in one is looked for in the other.
VG_FOLDERS = {"VG_100K": "VG_100K_2", "VG_100K_2": "VG_100K"}
OPEN_CONTAINERS = 64  # a .npy file is a container of one image: only so many are kept


def read_links(data: Path) -> dict[str, str]:
    """What the user linked: an image source or a task's raw folder -> path."""
    try:
        return json.loads((data / "links.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{data / 'links.json'}: cannot be read: {error}") from None


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
    return Path(links.get(task_name) or fetched)


class Images:
    """All the images that records may name, below one data folder and its links."""

    def __init__(self, data: Path):
        self.data = data
        self.containers: OrderedDict[str, Any] = OrderedDict()
        self.archives: dict[Path, list[Path]] = {}
        self.folders: dict[str, set[str]] = {}
        self.roots: dict[tuple[str, str], tuple[Path, bool, tuple[str, ...]]] = {}
        self.located: dict[tuple[str, str, str], tuple[str, str | None]] = {}
        self.lock = threading.Lock()

    @cached_property
    def links(self) -> dict[str, str]:
        return read_links(self.data)

    def root(self, task_name: str, source: str) -> Path:
        """The folder or archive of a source; it may not exist."""
        if source == OWN:
            return raw_folder(self.data, task_name, self.links)
        if source in self.links:
            return Path(self.links[source])
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
        outer, _, member = ref.path.partition("::")
        if why := unusable_path(ref.path):
            raise DataError(f"{task_name}: the image path {ref.path!r:.120} {why}.")
        root, is_archive, wraps = self._root(task_name, ref.source)
        outer = os.path.normpath(outer)
        first, slash, rest = outer.partition("/")
        other = VG_FOLDERS.get(first) if ref.source == "vg" and slash else None
        inside = [outer] if other is None else [outer, f"{other}/{rest}"]
        names = [f"{wrap}{part}" for wrap in wraps for part in inside]
        if is_archive:
            found = self._member(root, names)
            return str(root), found or outer, found is not None
        for name in names:
            path = os.path.join(root, name)
            if self._file_exists(path):
                return path, member or None, True
        if not member:
            for archive in self._archives(root):
                if found := self._member(archive, names):
                    return str(archive), found, True
        return os.path.join(root, names[0]), member or None, False

    def _root(self, task_name: str, source: str) -> tuple[Path, bool, tuple[str, ...]]:
        """(folder or archive, whether it is an archive, folders that copies are wrapped in)."""
        key = (task_name if source == OWN else "", source)
        if key not in self.roots:
            root = self.root(task_name, source)
            wraps = ("",) if source == OWN else tuple(wrappers(source))
            if not root.exists():
                return root, False, wraps
            self.roots[key] = (root, root.is_file(), wraps)
        return self.roots[key]

    def _member(self, archive: Path, names: list[str]) -> str | None:
        """The first of `names` that an archive holds."""
        if not self._cheap(archive):
            return None
        members = self._container(archive).names()
        return next((name for name in names if name in members), None)

    def _archives(self, folder: Path) -> list[Path]:
        """Zips and tars directly in a folder: a source may come in several, kept as they are."""
        if folder not in self.archives:
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            self.archives[folder] = [path for path in found if self._cheap(path)]
        return self.archives[folder]

    def exists(self, task_name: str, ref: ImageRef) -> bool:
        """Whether the image is there (its bytes may still be damaged)."""
        path, member = self.locate(task_name, ref)
        if member is None or not self._file_exists(path):
            return self._file_exists(path)
        return member in self._container(path).names() if self._cheap(path) else True

    def _cheap(self, path: Path | str) -> bool:
        # Names of numbered members are generated, not looked up: their count is checked on reading.
        return os.path.splitext(path)[1] in (".zip", ".tar")

    def _file_exists(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self.folders:
            try:
                self.folders[folder] = set(os.listdir(folder))
            except OSError:
                self.folders[folder] = set()
        return name in self.folders[folder]

    def _container(self, path: Path | str) -> Any:
        path = str(path)
        with self.lock:
            if path not in self.containers:
                module = container_module(path)
                if module is None:
                    raise DataError(f"{path}: not a kind of archive that can be read in place.")
                try:
                    self.containers[path] = module.Container(Path(path))
                except FileNotFoundError:
                    raise DataError(f"{path}: there is no such file.") from None
                except (OSError, ValueError) as error:
                    raise DataError(f"{path}: damaged: {error}") from None
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
            if container_module(path) is not None:
                raise DataError(f"{path}: an archive, not an image.")
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise DataError(self._absent(task_name, ref, path)) from None
        except KeyError:
            raise DataError(f"{task_name}: {path} has no {member!r}.") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{task_name}: {path}: cannot be read: {error}") from None

    def _absent(self, task_name: str, ref: ImageRef, path: str) -> str:
        name = task_name if ref.source == OWN else ref.source
        return (
            f"{task_name}: the image {path} is missing. `fsc-bench data get {name}` "
            f"fetches what can be had, `fsc-bench data link {name} PATH` says where you have it."
        )

    def open(self, task_name: str, ref: ImageRef) -> Image.Image:
        """The image in RGB, cropped to its box. Raises DataError that names the file."""
        image = decode(self.content(task_name, ref), f"{task_name}: {self._name(task_name, ref)}")
        return image.crop(ref.box) if ref.box else image

    def _name(self, task_name: str, ref: ImageRef) -> str:
        path, member = self.locate(task_name, ref)
        return path if member is None else f"{path}::{member}"

    def digest(self, task_name: str, ref: ImageRef) -> bytes:
        """32 bytes that are equal exactly where content and crop are."""
        return image_digest(self.content(task_name, ref), ref.box)


def decode(content: bytes | np.ndarray, where: str) -> Image.Image:
    """RGB pixels as CLIP's own transforms see them: `PIL.Image.convert("RGB")`, first frame.

    EXIF orientation is not applied: open_clip and clip_benchmark do not, and they agree with the
    published columns to single images (ELEVATER's own toolkit did turn images). Transparency is
    dropped, not blended, for the same reason. Only 16-bit gray differs: Pillow clips it to white,
    which no benchmark means, so it is scaled to 8 bits; 32-bit pixels have no agreed range and are
    refused.

    Raises DataError for what is no image or is cut short.
    """
    if isinstance(content, np.ndarray):
        return Image.fromarray(content).convert("RGB")
    if not content:
        raise DataError(f"{where}: the image file is empty.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd EXIF data and of transparent palettes; neither moves a pixel.
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(content)) as image:
                if image.mode.startswith("I;16"):
                    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
                if image.mode in ("I", "F"):
                    raise DataError(
                        f"{where}: 32-bit pixels have no agreed range; save the image with 8 bits."
                    )
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image: {str(error)[:120]}") from None


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
