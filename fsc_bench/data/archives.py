"""Archives: what one from elsewhere may hold, and how one is unpacked where a raw format needs it.

Images are read inside their archive (containers/) and most archives are never unpacked. Either way
one that was made to do harm is refused, in one line that names the member.
"""

import gzip
import os
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fsc_bench.data.names import zip_name
from fsc_bench.errors import DataError

PLAIN = (".zip", ".tar")  # read in place
COMPRESSED = (".tar.gz", ".tgz")  # have no places: made a .tar before use
MEMBERS = 5_000_000  # no benchmark holds a tenth of it
RATIO = 200  # a picture hardly shrinks, text shrinks by ten; a bomb by a thousand and more
HARMLESS = 256 << 20  # an archive that unpacks to this much is no bomb, whatever its ratio
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
CHUNK = 1 << 20

# What zipfile and tarfile raise for damaged files: more than their own errors.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, gzip.BadGzipFile)
DAMAGE += (EOFError, ValueError, RuntimeError, NotImplementedError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `refusal` says why it is not wanted; empty for files and folders."""

    name: str
    size: int
    packed: int
    is_file: bool
    refusal: str


def is_archive(name: str) -> bool:
    return name.endswith((*PLAIN, *COMPRESSED))


def unsafe_name(name: str) -> str:
    """Why a member's name cannot be trusted; empty for a relative path that stays in its folder."""
    if not name or any(ord(letter) < 32 for letter in name):
        return "has an empty name or control characters in it"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "is an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "leads out of its folder"
    return ""


def zip_refusal(info: zipfile.ZipInfo) -> str:
    """Why this member of a zip is refused; empty where it is not."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"is {_kind(kind)}"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in ZIP_METHODS:
        return f"is packed by method {info.compress_type}, which is not read here"
    # `filename` ends at the first NUL; `orig_filename` is what the archive says.
    return unsafe_name(info.orig_filename)


def tar_refusal(info: tarfile.TarInfo) -> str:
    """The same for a tar."""
    kinds = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
    kinds |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
    if info.type in kinds:
        return f"is {kinds[info.type]}"
    if info.issparse():
        return "is a sparse file"
    if not (info.isreg() or info.isdir()):
        return f"is of the unknown type {info.type!r}"
    return unsafe_name(info.name)


def _kind(mode: int) -> str:
    names = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(mode, "a device")


def members(path: Path, name: str = "") -> Iterator[Member]:
    """Every entry of a zip or tar. Raises DataError for a damaged one.

    name: what the file will be called, where it still has another name.
    """
    kind = "zip" if (name or path.name).casefold().endswith(".zip") else "tar"
    try:
        yield from _zip_members(path) if kind == "zip" else _tar_members(path)
    except DAMAGE as error:
        raise DataError(f"{path}: not a readable {kind} archive: {str(error)[:200]}") from None


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            sizes = info.file_size, info.compress_size
            yield Member(info.orig_filename, *sizes, not info.is_dir(), zip_refusal(info))


def _tar_members(path: Path) -> Iterator[Member]:
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            yield Member(info.name, info.size, info.size, not info.isdir(), tar_refusal(info))
            archive.members = []  # tarfile keeps them all, and large tars have a million
        # tarfile takes the first broken header for the end: whatever follows would be lost unseen.
        file.seek(archive.offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise ValueError(f"broken header at byte {archive.offset}")


def check_archive(path: Path, name: str = "") -> None:
    """Refuses a hostile or damaged zip or tar: DataError, one line that names the member.

    Hostile are an absolute path, `..`, a link, a device, a pipe, a bomb, too many members, and
    names that occur twice or differ by case alone.
    """
    allowed = max(HARMLESS, RATIO * path.stat().st_size)
    seen: dict[str, str] = {}
    total = packed = 0
    for count, member in enumerate(members(path, name), 1):
        why = member.refusal
        total, packed = total + member.size, packed + member.packed
        if not why and count > MEMBERS:
            why = f"is one of more than {MEMBERS:,} members"
        if not why and total > allowed:
            why = f"would unpack to more than {allowed:,} bytes"
        if not why and packed > path.stat().st_size:
            why = "overlaps another member"
        if not why and member.is_file:
            plain = PurePosixPath(member.name.replace("\\", "/")).as_posix()
            key = unicodedata.normalize("NFC", plain).casefold()
            if key in seen:
                twice = seen[key] == plain
                why = "is there twice" if twice else f"differs from {seen[key]!r} by case alone"
            seen[key] = plain
        if why:
            raise DataError(f"{path}: refused: its member {member.name!r:.200} {why}.")


def check_link(path: Path) -> None:
    """The same for what a user links: a folder, or one file that can be read in place."""
    if path.name.casefold().endswith(COMPRESSED):
        raise DataError(
            f"{path}: a compressed tar cannot be read in place. `gunzip -k {path.name}`, then link "
            "the .tar."
        )
    if path.is_file() and path.name.casefold().endswith(PLAIN):
        check_archive(path)


def decompress(packed: Path, tar: Path) -> None:
    """Writes a .tar.gz as a .tar. Raises DataError for a damaged one and for a bomb."""
    allowed = max(HARMLESS, RATIO * packed.stat().st_size)
    written = 0
    with gzip.open(packed) as source, tar.open("wb") as target:
        while True:
            try:
                chunk = source.read(CHUNK)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(f"{packed}: not a readable gzip file: {error}") from None
            if not chunk:
                break
            written += len(chunk)
            if written > allowed:
                raise DataError(f"{packed}: refused: unpacks to more than {allowed:,} bytes.")
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())


def unpack(
    path: Path, folder: Path, name: str = "", step: Callable[[], None] = lambda: None
) -> list[Path]:
    """Unpacks a zip or tar below `folder`, and nowhere else. Returns the files, relative to it.

    Raises DataError, before anything is written, where the archive is hostile. `step` is called
    before each member; it may raise to stop.
    """
    check_archive(path, name)
    root = folder.resolve()
    written = []
    try:
        for member, source in _contents(path, name or path.name):
            step()
            target = folder / member
            target.parent.mkdir(parents=True, exist_ok=True)
            # A link in the user's own folder may lead elsewhere, whatever the member is called.
            if not target.parent.resolve().is_relative_to(root):
                raise DataError(f"{path}: refused: {member!r:.200} leads out of {folder}.")
            partial = target.with_name(f".{target.name}.part")
            with source, partial.open("wb") as out:
                shutil.copyfileobj(source, out, CHUNK)
            os.replace(partial, target)
            written.append(Path(PurePosixPath(member)))
    except DAMAGE as error:
        raise DataError(f"{path}: damaged: {str(error)[:200]}") from None
    return written


def _contents(path: Path, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    if name.casefold().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield zip_name(info), archive.open(info)
    else:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isreg():
                    yield info.name, archive.extractfile(info)
