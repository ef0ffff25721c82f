"""Archives: what one from elsewhere may hold, and how one is unpacked where a raw format needs it.

Images are read inside their archive (containers/) and most archives are never unpacked. Either way
one that was made to do harm is refused, in one line that names the member.
"""

import gzip
import lzma
import mmap
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from fsc_bench.data.border import CHUNK, HARMLESS, reason
from fsc_bench.data.listing import unread
from fsc_bench.data.names import zip_name
from fsc_bench.errors import DataError
from fsc_bench.system.budget import budget, check, raising
from fsc_bench.system.regular import HEAD, open_regular, stand_in

PLAIN = (".zip", ".tar")  # read in place
COMPRESSED = (".tar.gz", ".tgz")  # have no places: made a .tar before use
# Of the others zipfile unpacks a member at once, however much that is; no benchmark comes so.
ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENTRY = 46  # bytes of a member in a zip's directory, without its name
LENGTHS = struct.Struct("<3H")  # of its name, extra field and comment
EXTENSION = 1 << 20  # bytes of a tar's header beyond its block: long names, and no more than that

# What zipfile and tarfile raise for damaged files: more than their own errors.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, gzip.BadGzipFile)
DAMAGE += (EOFError, ValueError, RuntimeError, NotImplementedError, OverflowError, MemoryError)
DAMAGE += (lzma.LZMAError, LookupError, TypeError, AttributeError, AssertionError)


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
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "leads out of its folder"
    if max(len(part.encode("utf-8", "surrogatepass")) for part in parts) > 255 or len(name) > 1000:
        return "has too long a name for a file"
    return ""


def zip_refusal(info: zipfile.ZipInfo) -> str:
    """Why this member of a zip is refused; empty where it is not."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"is {_kind(kind)}"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in ZIP_METHODS:
        name = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))
        return f"is packed by the method {name}, which is not read; pack it by deflate"
    # `filename` ends at the first NUL; `orig_filename` is what the archive says.
    return unsafe_name(info.orig_filename)


def is_folder(info: zipfile.ZipInfo) -> bool:
    """As `info.is_dir()`, also for a member without a name."""
    return info.filename.endswith("/")


def tar_refusal(info: tarfile.TarInfo) -> str:
    """The same for a tar."""
    kinds = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
    kinds |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
    if info.type in kinds:
        return f"is {kinds[info.type]}"
    if info.size < 0:
        return "has a size below zero"
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
        raise DataError(f"{path}: not a readable {kind} archive: {reason(error)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from None


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip whose directory is within the budget: zipfile reads all of it, a kilobyte a member.

    Raises OSError, or one of DAMAGE.
    """
    with open_regular(path) as file:
        end = zipfile._EndRecData(file)  # zipfile's own: both must find the same directory
        if end is None:
            file.seek(0)
            raise zipfile.BadZipFile(_not_zip(file.read(HEAD)))
        size, at = end[zipfile._ECD_SIZE], end[zipfile._ECD_LOCATION]
        check("bytes", size, f"its directory says that it has {size:,} bytes")
        count = end[zipfile._ECD_ENTRIES_TOTAL]
        check("members", count, f"says that it has {count:,} members")
        if size // ENTRY > budget().members:
            _count_entries(file, at - size, size)
    return zipfile.ZipFile(path)


def _not_zip(head: bytes) -> str:
    """Why a file that begins so is no zip, though it is called one."""
    if head.startswith(b"PK"):
        return "cut short: what it holds is listed at its end, and that is not there; copy it again"
    return stand_in(head) or "File is not a zip file"


def _count_entries(file: BinaryIO, at: int, size: int) -> None:
    if at < 0:
        raise ValueError("its directory is larger than the file")
    most, count, end = budget().members, 0, at + size
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while at + ENTRY <= end:
            count += 1
            if count > most:
                check("members", size // ENTRY, f"has up to {size // ENTRY:,} members")
            at += ENTRY + sum(LENGTHS.unpack_from(content, at + 28))


def open_tar(file: BinaryIO) -> tarfile.TarFile:
    """A tar of which the headers are read, and nothing else. Raises one of DAMAGE."""
    if why := stand_in(file.read(HEAD)):
        raise tarfile.ReadError(why)
    file.seek(0)
    return tarfile.open(fileobj=_Headers(file), mode="r:")


class _Headers:
    """A file of which only a little is read at once: tarfile would read a long name of 8 GB."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > EXTENSION:
            raise ValueError(f"a header says that it has {size:,} bytes")
        return self.file.read(size)


def _zip_members(path: Path) -> Iterator[Member]:
    with open_zip(path) as archive:
        for info in archive.infolist():
            sizes = info.file_size, info.compress_size
            yield Member(info.orig_filename, *sizes, not is_folder(info), zip_refusal(info))


def _tar_members(path: Path) -> Iterator[Member]:
    with open_regular(path) as file, open_tar(file) as archive:
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
    allowed = max(HARMLESS, budget().growth * path.stat().st_size)
    seen: dict[str, str] = {}
    total = packed = 0
    for count, member in enumerate(members(path, name), 1):
        why = member.refusal
        total, packed = total + member.size, packed + member.packed
        if not why and count > budget().members:
            why = f"is one of more than {budget().members:,} ({raising('members', 2 * count)})"
        if not why and total > allowed:
            growth = raising("growth", 2 * budget().growth)
            why = f"would unpack to more than {allowed:,} bytes ({growth})"
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
    for folder in {key.rpartition("/")[0] for key in seen}:
        while folder and folder not in seen:
            folder = folder.rpartition("/")[0]
        if folder:
            raise DataError(
                f"{path}: refused: its member {seen[folder]!r:.200} is a file, and a folder that "
                "others lie in."
            )


def check_link(path: Path) -> None:
    """The same for what a user links: a folder, or one file that can be read in place."""
    if path.name.casefold().endswith(COMPRESSED):
        raise DataError(
            f"{path}: a compressed tar cannot be read in place. `gunzip -k {path.name}`, then link "
            "the .tar."
        )
    if sentence := unread(path):
        raise DataError(f"{path}: {sentence.strip()}")
    if path.is_file() and path.name.casefold().endswith(PLAIN):
        check_archive(path)


def decompress(packed: Path, tar: Path) -> None:
    """Writes a .tar.gz as a .tar. Raises DataError for a damaged one and for a bomb."""
    size, written = packed.stat().st_size, 0
    allowed = max(HARMLESS, budget().growth * size)
    with gzip.open(packed) as source, tar.open("wb") as target:
        while True:
            try:
                chunk = source.read(CHUNK)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DataError(f"{packed}: not a readable gzip file: {reason(error)}") from None
            if not chunk:
                break
            written += len(chunk)
            if written > allowed:
                growth = raising("growth", 2 * budget().growth)
                raise DataError(
                    f"{packed}: refused: unpacks to more than {allowed:,} bytes ({growth})."
                )
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
    for member, pieces in _contents(path, name or path.name):
        step()
        target = folder / member
        target.parent.mkdir(parents=True, exist_ok=True)
        # A link in the user's own folder may lead elsewhere, whatever the member is called.
        if not target.parent.resolve().is_relative_to(root):
            raise DataError(f"{path}: refused: {member!r:.200} leads out of {folder}.")
        unfinished = target.with_name(f".{target.name[:200]}.part")
        with unfinished.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        os.replace(unfinished, target)
        written.append(Path(PurePosixPath(member)))
    return written


def _contents(path: Path, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, content in pieces) of each file. Raises DataError for damage."""
    with _one_line(path):
        if name.casefold().endswith(".zip"):
            with open_zip(path) as archive:
                for info in archive.infolist():
                    if not is_folder(info):
                        yield zip_name(info), _pieces(path, partial(archive.open, info))
        else:
            with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    if info.isreg():
                        yield info.name, _pieces(path, partial(archive.extractfile, info))


def _pieces(path: Path, member: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    with _one_line(path), member() as source:
        while piece := source.read(CHUNK):
            yield piece


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, *DAMAGE) as error:
        raise DataError(f"{path}: damaged: {reason(error)}") from None
