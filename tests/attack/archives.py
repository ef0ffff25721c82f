"""Archives made to do harm: each is read or refused by one line, and nothing leaves its folder.

    python tests/attack/archives.py [--lines]

Every archive is checked as a download is, unpacked, linked, and read in place.
"""

import bz2
import gzip
import io
import lzma
import os
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from attack.tally import Tally, Wrong, counted, finish  # noqa: E402

from fsc_bench.data.archives import check_archive, decompress, unpack  # noqa: E402
from fsc_bench.data.containers import container_module  # noqa: E402
from fsc_bench.data.images import Images, write_link  # noqa: E402
from fsc_bench.errors import DataError  # noqa: E402
from fsc_bench.records import ImageRef  # noqa: E402

MEMORY = 1500  # MB that no archive here may take
MEGABYTE = bytes(1 << 20)


def zipped(*members: tuple, method: int = zipfile.ZIP_DEFLATED, **facts: int) -> bytes:
    """A zip of good members and, last, the one that `members` and `facts` describe."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("val/1.jpg", b"one")
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = method
            info.create_system = 3
            for key, value in facts.items():
                setattr(info, key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there twice
                archive.writestr(info, content)
    return file.getvalue()


def patched(content: bytes, signature: bytes, at: int, form: str, *values: int) -> bytes:
    """The last structure of a zip that begins so, with a field overwritten."""
    data = bytearray(content)
    struct.pack_into(form, data, data.rindex(signature) + at, *values)
    return bytes(data)


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@cache
def bomb_zip(method: int) -> bytes:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", method) as archive,
        archive.open("bomb.jpg", "w", force_zip64=True) as member,
    ):
        for _ in range(1200):
            member.write(MEGABYTE)
    return file.getvalue()


def many_zip(path: Path, count: int) -> None:
    """A zip whose directory has so many members, all of the same few bytes."""
    entry = struct.pack("<4s4B4HL2L5H2L", CENTRAL, 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1,
                        0, 0, 0, 0, 0, 0) + b"x"  # fmt: skip
    size = len(entry) * count
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, size, 1)
    end = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with path.open("wb") as file:
        for _ in range(count // 100_000):
            file.write(entry * 100_000)
        file.write(zip64 + locator + end)


def overlapping() -> bytes:
    data = zipped(("0", bytes(200_000)))
    central, end = data.index(CENTRAL), data.index(END)
    entry = data[data.rindex(CENTRAL) : end]
    entries = b"".join(entry[:46] + bytes([97 + n]) + entry[47:] for n in range(20))
    tail = struct.pack("<4s4H2LH", END, 0, 0, 20, 20, len(entries), central, 0)
    return data[:central] + entries + tail


def tarred(*infos: tuple, end: bool = True) -> bytes:
    """A tar of a good member and of (name, type, link or content) members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, more in [("val/1.jpg", tarfile.REGTYPE, b"one"), *infos]:
            info = tarfile.TarInfo(name)
            info.type = kind
            content = more if isinstance(more, bytes) else b""
            info.size, info.linkname = len(content), "" if content else str(more or "")
            archive.addfile(info, io.BytesIO(content))
    data = file.getvalue()
    return data if end else data.rstrip(b"\0")


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    """One raw header block with a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124 : 124 + len(size)] = size
    block[136:148], block[148:156] = b"00000000000\0", b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(text: bytes) -> bytes:
    """A PAX header with this text, and a member after it."""
    padded = text + bytes(-len(text) % 512)
    size = b"%011o\0" % len(text)
    return header(b"pax", size, b"x") + padded + header(b"a.jpg", b"%011o\0" % 0, b"0")


def claims(kind: bytes, path: Path) -> None:
    """A tar whose first header says that 8 GB of name follow; the file has them, as a hole."""
    with path.open("wb") as file:
        file.write(header(b"long", b"77777777777\0", kind))
        file.truncate(512 + 8 * 1024**3 + 4096)


def later(make: Callable[[], bytes]) -> Callable:
    """What takes seconds to make is made when its turn has come, or not at all."""
    return lambda path: path.write_bytes(make())


def small_bomb(method: int) -> bytes:
    return patched(bomb_zip(method), CENTRAL, 24, "<L", 1)


def zips() -> Iterator[tuple[str, bytes | Callable]]:
    plain = zipped(("val/2.jpg", b"two"))
    for name in ("/etc/x", "C:/x", "\\\\host\\x", "a/../../x", "a\\..\\..\\x", "x\0y", "a\nb", "",
                 "x" * 60_000, "/".join("ab" * 500), "..", "./../x", "val/1.jpg", "VAL/1.JPG",
                 "val/1.jpg/x"):  # fmt: skip
        yield f"zip name {name[:20]!r}", zipped((name, b"x"))
    for what, mode in [("link", 0o120777), ("pipe", 0o010644), ("device", 0o020644)]:
        yield f"zip {what}", zipped(("x", b"/etc/passwd"), external_attr=mode << 16)
    yield "zip encrypted", patched(plain, CENTRAL, 8, "<H", 1)
    yield "zip method 99", patched(plain, CENTRAL, 10, "<H", 99)
    yield "zip overlapping", overlapping()
    yield "zip bomb", later(lambda: bomb_zip(zipfile.ZIP_DEFLATED))
    yield "zip bomb, bzip2", later(lambda: bomb_zip(zipfile.ZIP_BZIP2))
    yield "zip that says 4 GB", patched(plain, CENTRAL, 24, "<L", 0xFFFFFFF0)
    for name, method in [("", zipfile.ZIP_DEFLATED), (", bzip2", zipfile.ZIP_BZIP2)]:
        small = partial(small_bomb, method)
        yield f"zip that says 1 byte{name}", later(small)
    yield "zip lzma, 4 GB dictionary", lzma_zip()
    yield "zip of 10 million", partial(many_zip, count=10_000_000)
    yield "zip directory beyond its file", patched(plain, END, 12, "<L", 0x7FFFFFFF)
    yield "zip directory elsewhere", patched(plain, END, 16, "<L", 0x7FFFFFFF)
    yield "zip of 65,535 by its end", patched(plain, END, 8, "<HH", 0xFFFF, 0xFFFF)
    yield "zip crc", patched(plain, CENTRAL, 16, "<L", 1)
    yield "zip local name differs", patched(plain, LOCAL, 30, "<B", 120)
    yield "zip extra field", zipped(("x", b"x"), extra=b"\x01\x00\xff\xff")
    yield "zip cut", plain[:-30]
    yield "zip of nothing", zipped()[:0] + END + bytes(18)
    inner = later(lambda: zipped(("inner.zip", bomb_zip(zipfile.ZIP_DEFLATED))))
    yield "zip in a zip", inner
    yield "empty file", b""


def lzma_zip() -> bytes:
    data = bytearray(zipped(("x.jpg", b"x" * 1000), method=zipfile.ZIP_LZMA))
    at = data.rindex(LOCAL) + 30 + len("x.jpg")
    struct.pack_into("<L", data, at + 5, 0xFFFFFFFF)
    return bytes(data)


def tars(outside: Path) -> Iterator[tuple[str, bytes | Callable]]:
    for name in ("/etc/x", "../x", "a/../../x", "a\nb", "x" * 300, "val/1.jpg", "VAL/1.JPG",
                 "val/1.jpg/x"):  # fmt: skip
        yield f"tar name {name[:20]!r}", tarred((name, tarfile.REGTYPE, b"x"))
    for what, kind in [("link", tarfile.SYMTYPE), ("hard link", tarfile.LNKTYPE)]:
        through = ("way/x", tarfile.REGTYPE, b"x")
        yield f"tar {what}", tarred(("way", kind, outside), through)
    for what, kind in [("device", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE), ("type Z", b"Z"),
                       ("sparse", tarfile.GNUTYPE_SPARSE)]:  # fmt: skip
        yield f"tar {what}", tarred(("x", kind, None))
    yield "tar long name of 8 GB", partial(claims, b"L")
    yield "tar pax of 8 GB", partial(claims, b"x")
    yield "tar size of 5,000 digits", pax(b"5019 size=" + b"9" * 5008 + b"\n")
    yield "tar size below zero", header(b"a.jpg", b"\xff" * 12, b"0") + bytes(1024)
    yield "tar size of 8 EB", header(b"a.jpg", b"\x80" + b"\x7f" * 11, b"0") + bytes(1024)
    yield "tar pax damaged", pax(b"-5 x=y\n99999999999 path=/etc/x\n")
    yield "tar pax sparse", pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
    yield "tar of 3,000 long names", header(b"l", b"%011o\0" % 1, b"L") * 3000 + bytes(1024)
    yield "tar cut in a member", tarred(("x", tarfile.REGTYPE, b"x" * 9000))[:3000]
    yield "tar cut in a header", tarred(("x", tarfile.REGTYPE, b"x" * 9000))[:1300]
    yield "tar checksum", tarred(("x", tarfile.REGTYPE, b"x")).replace(b"x\0\0", b"y\0\0", 1)
    yield "tar of noise", bytes(range(256)) * 40


def packed(outside: Path) -> Iterator[tuple[str, bytes | Callable]]:
    evil = tarred(("../x", tarfile.REGTYPE, b"x"))
    yield "tar.gz parent", gzip.compress(evil)
    yield "tar.gz bomb", later(lambda: gzip.compress(MEGABYTE * 1000))
    yield "tar.gz cut", gzip.compress(evil)[:-20]
    yield "tar.gz that is bzip2", bz2.compress(evil)
    yield "tar.gz that is xz", lzma.compress(evil)
    yield "tar.gz of noise", b"\x1f\x8b\x08\0" + bytes(200)


def snapshot(folder: Path) -> set[str]:
    """Every path below a folder; what others remove meanwhile is passed over."""
    found = os.walk(folder)
    return {os.path.join(place, name) for place, dirs, files in found for name in (*dirs, *files)}


def treat(path: Path, folder: Path, evil: bool) -> None:
    """What the product does with an archive, each step on its own; the last complaint is raised."""
    complaint = None
    tar = path.with_name("unpacked.tar")
    steps: list[Callable[[], object]] = [
        lambda: check_archive(path),
        lambda: unpack(path, folder / "into"),
        lambda: link(path, folder),
        lambda: in_place(path),
        lambda: scored(path, folder),
    ]
    if path.name.endswith(".gz"):
        steps = [lambda: decompress(path, tar), lambda: unpack(tar, folder / "into")]
    for place, step in enumerate(steps):
        try:
            step()
        except DataError as error:
            complaint = error
        else:
            if evil and place < 2 and path.suffix != ".gz":
                raise Wrong(f"step {place} takes it")
    if complaint:
        raise complaint


def link(path: Path, folder: Path) -> None:
    from fsc_bench.data.archives import check_link

    check_link(path)
    write_link(folder / "links", "coco/val2017", path)


def in_place(path: Path) -> None:
    """Members are read as containers promise: KeyError, OSError or ValueError for damage."""
    try:
        container = container_module(path).Container(path)
        for name in list(container.names())[:5]:
            container.read(name)
    except (OSError, ValueError) as error:
        raise DataError(" ".join(str(error).split())) from None


def scored(path: Path, folder: Path) -> None:
    images = Images(folder / "data")
    images.links = {"coco/val2017": str(path)}
    for name in ("bomb.jpg", "1.jpg", "x.jpg"):
        ref = ImageRef("coco/val2017", name)
        if images.exists("own", ref):
            images.open("own", ref)


# What may be taken as it is: odd, and harmless.
HARMLESS = {"zip local name differs", "zip extra field", "zip of 65,535 by its end", "zip crc"}
HARMLESS |= {"zip of nothing", "zip in a zip", "zip that says 1 byte", "tar sparse", "empty file"}
HARMLESS |= {"zip lzma, 4 GB dictionary", "tar cut in a header", "tar pax damaged"}
HARMLESS |= {
    "tar size of 5,000 digits",
    "tar pax sparse",
    "zip directory elsewhere",
    "tar checksum",
}


def attack(large: bool = True, every: int = 1) -> Tally:
    """large: also archives that take seconds to make. every: only each third, say."""
    tally = Tally("archives")
    with tempfile.TemporaryDirectory() as scratch:
        outside = Path(scratch) / "outside"
        outside.mkdir()
        kinds = {"zip": zips(), "tar": tars(outside), "tar.gz": packed(outside)}
        for ending, made in kinds.items():
            for number, (name, content) in enumerate(made):
                if number % every or (callable(content) and not large):
                    continue
                folder = Path(scratch) / f"{ending}{number}"
                folder.mkdir()
                path = folder / f"a.{ending}"
                content(path=path) if callable(content) else path.write_bytes(content)
                before = snapshot(outside)
                evil = name not in HARMLESS
                tally.isolated(name, partial(treat, path, folder, evil))
                path.unlink()
                if snapshot(outside) != before:
                    tally.fault(name, "wrote outside of its folder")
                if tally.peak[1] == name and tally.peak[0] > MEMORY:
                    tally.fault(name, f"took {tally.peak[0]:,} MB")
        written = {Path(one).name for one in snapshot(Path(scratch).parent) if "/etc/" in one}
        if written or os.path.exists("/etc/x"):
            tally.fault("all", "wrote below /etc")
    return tally


if __name__ == "__main__":
    chosen = counted(44)
    finish(attack(), chosen)
