"""Archives: hostile and damaged ones are refused in one line, and nothing leaves its folder."""

import gzip
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from tars import write_tar

from fsc_bench.data import archives
from fsc_bench.data.archives import check_archive, check_link, decompress, unpack
from fsc_bench.data.containers.tar import Container as TarContainer
from fsc_bench.data.containers.zip import Container as ZipContainer
from fsc_bench.data.images import Images, write_link
from fsc_bench.errors import DataError
from fsc_bench.records import ImageRef
from fsc_bench.system.budget import within

GOOD = {"val/1.jpg": b"one", "val/2.jpg": b"two"}


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def zip_with(path: Path, name: str, mode: int = 0, content: bytes = b"x") -> Path:
    """A zip with two good members and a bad one."""
    zipped(path, GOOD)
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.create_system = 3
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content)
    return path


def tar_with(path: Path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Path:
    write_tar(path, GOOD)
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    with tarfile.open(path, "a") as archive:
        archive.addfile(info)
    return path


def encrypted(path: Path) -> Path:
    data = bytearray(zipped(path, GOOD).read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    path.write_bytes(data)
    return path


def overlapping(path: Path) -> Path:
    """Many names for the same bytes, as in Fifield's "a better zip bomb"."""
    kernel = bytes(200_000)
    zipped(path, {"0": kernel})
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[central:end]
    name_at = 46
    entries = b"".join(
        entry[:name_at] + bytes([ord("a") + number]) + entry[name_at + 1 :] for number in range(20)
    )
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(entries), central, 0)
    path.write_bytes(data[:central] + entries + tail)
    return path


HOSTILE = {
    "zip absolute": (lambda p: zip_with(p / "a.zip", "/etc/cron.d/x"), "absolute path"),
    "zip windows drive": (lambda p: zip_with(p / "a.zip", "C:/x"), "absolute path"),
    "zip network path": (lambda p: zip_with(p / "a.zip", "\\\\host\\x"), "absolute path"),
    "zip parent": (lambda p: zip_with(p / "a.zip", "val/../../x"), "leads out of its folder"),
    "zip backslash parent": (lambda p: zip_with(p / "a.zip", "val\\..\\..\\x"), "leads out"),
    "zip symlink": (lambda p: zip_with(p / "a.zip", "link", 0o120777), "is a symbolic link"),
    "zip device": (lambda p: zip_with(p / "a.zip", "null", 0o020666), "is a device"),
    "zip pipe": (lambda p: zip_with(p / "a.zip", "pipe", 0o010666), "is a pipe"),
    "zip socket": (lambda p: zip_with(p / "a.zip", "socket", 0o140666), "is a socket"),
    "zip newline": (lambda p: zip_with(p / "a.zip", "a\nfsc-bench: all is well"), "control char"),
    "zip case": (lambda p: zip_with(p / "a.zip", "VAL/1.JPG"), "by case alone"),
    "zip twice": (lambda p: zip_with(p / "a.zip", "val//./1.jpg"), "is there twice"),
    "zip encrypted": (lambda p: encrypted(p / "a.zip"), "is encrypted"),
    "zip overlap": (lambda p: overlapping(p / "a.zip"), "overlaps another member"),
    "tar absolute": (lambda p: tar_with(p / "a.tar", "/etc/passwd"), "absolute path"),
    "tar parent": (lambda p: tar_with(p / "a.tar", "../x"), "leads out of its folder"),
    "tar symlink": (
        lambda p: tar_with(p / "a.tar", "val/3", tarfile.SYMTYPE, "/etc/passwd"),
        "is a symbolic link",
    ),
    "tar hard link": (
        lambda p: tar_with(p / "a.tar", "val/3", tarfile.LNKTYPE, "val/1.jpg"),
        "is a hard link",
    ),
    "tar device": (lambda p: tar_with(p / "a.tar", "sda", tarfile.BLKTYPE), "is a device"),
    "tar character device": (lambda p: tar_with(p / "a.tar", "tty", tarfile.CHRTYPE), "a device"),
    "tar pipe": (lambda p: tar_with(p / "a.tar", "pipe", tarfile.FIFOTYPE), "is a pipe"),
    "tar sparse": (lambda p: tar_with(p / "a.tar", "big", tarfile.GNUTYPE_SPARSE), "is a sparse"),
    "tar unknown": (lambda p: tar_with(p / "a.tar", "odd", b"Z"), "of the unknown type"),
    "tar case": (lambda p: tar_with(p / "a.tar", "val/1.JPG"), "by case alone"),
    "tar twice": (lambda p: tar_with(p / "a.tar", "./val/1.jpg"), "is there twice"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_that_names_the_member(kind, tmp_path):
    make, why = HOSTILE[kind]
    path = make(tmp_path)
    folder = tmp_path / "inside"

    for act in (check_archive, check_link, lambda archive: unpack(archive, folder)):
        with pytest.raises(DataError, match=why) as caught:
            act(path)
        assert "\n" not in str(caught.value)
        assert "its member '" in str(caught.value)
    assert not folder.exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "HARMLESS", 1 << 20)
    path = zipped(tmp_path / "a.zip", {"1.jpg": b"x", "bomb": bytes(8 << 20)})

    with pytest.raises(DataError, match="its member 'bomb' would unpack to more than"):
        check_archive(path)

    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(bytes(8 << 20)))
    with pytest.raises(DataError, match="unpacks to more than"):
        decompress(packed, tmp_path / "a.tar")


def test_too_many_members_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", {str(number): b"" for number in range(11)})

    with (
        within(["members=10"]),
        pytest.raises(DataError, match="says that it has 11 members; at most"),
    ):
        check_archive(path)
    tar = tar_with(tmp_path / "a.tar", "third")
    with within(["members=2"]), pytest.raises(DataError, match="'third' is one of more than 2 "):
        check_archive(tar)


def test_good_archives_pass_and_unpack(tmp_path):
    for path in (zipped(tmp_path / "a.zip", GOOD), write_tar(tmp_path / "a.tar", GOOD)):
        folder = tmp_path / path.suffix
        check_link(path)

        assert unpack(path, folder) == [Path("val/1.jpg"), Path("val/2.jpg")]
        assert (folder / "val/2.jpg").read_bytes() == b"two"
        assert sorted(found.name for found in folder.rglob("*")) == ["1.jpg", "2.jpg", "val"]


def test_a_link_in_the_users_own_folder_does_not_lead_out(tmp_path):
    path = write_tar(tmp_path / "a.tar", GOOD)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "val").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataError, match=r"'val/1.jpg' leads out of"):
        unpack(path, tmp_path / "inside")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("make", [zipped, write_tar])
def test_damage_is_said_in_one_line(make, tmp_path):
    good = make(tmp_path / f"good.{make.__name__[:3]}", {f"{n}.jpg": b"x" * 999 for n in range(9)})
    path = tmp_path / f"a{good.suffix}"
    data = good.read_bytes()
    broken = {
        "empty": b"",
        "a web page": b"<!DOCTYPE html><title>Quota exceeded</title>" * 20,
        "cut short": data[: len(data) * 2 // 3],
        "zeros": bytes(10),
    }
    for what, content in broken.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not a readable (zip|tar) archive") as caught:
            check_archive(path)
        assert "\n" not in str(caught.value), what


def test_a_tar_that_breaks_off_in_the_middle_is_not_taken_for_a_short_one(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{n}.jpg": b"x" * 512 for n in range(4)})
    data = bytearray(path.read_bytes())
    data[2048:2060] = b"not a header"
    path.write_bytes(data)

    with pytest.raises(DataError, match="broken header at byte 2048"):
        check_archive(path)


def test_archives_with_random_damage_never_raise_anything_else(tmp_path):
    import random

    rng = random.Random(0)
    for make, container in ((zipped, ZipContainer), (write_tar, TarContainer)):
        path = tmp_path / f"a.{make.__name__[:3]}"
        good = make(path, {f"{n}.jpg": bytes(range(200)) for n in range(5)}).read_bytes()
        for _ in range(300):
            data = bytearray(good)
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
            try:
                check_archive(path)
                unpack(path, tmp_path / "out")
            except DataError as error:
                assert "\n" not in str(error)
            except OSError as error:
                # A name may have become one that this file system does not take.
                assert error.filename
            try:
                opened = container(path)
                for name in opened.names():
                    opened.read(name)
            except (ValueError, OSError):
                pass


def test_reading_in_place_ignores_hostile_members(tmp_path):
    bad = zip_with(tmp_path / "a.zip", "link", 0o120777, b"/etc/passwd")
    assert list(ZipContainer(bad).names()) == list(GOOD)

    bad = tar_with(tmp_path / "a.tar", "val/3", tarfile.SYMTYPE, "/etc/passwd")
    assert list(TarContainer(bad).names()) == list(GOOD)


def test_a_compressed_tar_cannot_be_linked(tmp_path):
    path = tmp_path / "images.tar.gz"
    path.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", GOOD).read_bytes()))

    with pytest.raises(DataError, match=r"gunzip -k images\.tar\.gz"):
        check_link(path)


def test_a_source_may_lie_in_several_archives_of_one_folder(tmp_path):
    folder = tmp_path / "data" / "images" / "vg"
    folder.mkdir(parents=True)
    zipped(folder / "images.zip", {"VG_100K/1.jpg": b"one"})
    zipped(folder / "images2.zip", {"VG_100K_2/2.jpg": b"two"})
    images = Images(tmp_path / "data")

    assert images.content("t", ImageRef("vg", "VG_100K/1.jpg")) == b"one"
    # CREPE and ARO name pictures by number alone: the reader cannot know the folder.
    assert images.content("t", ImageRef("vg", "VG_100K/2.jpg")) == b"two"
    assert not images.exists("t", ImageRef("vg", "VG_100K/3.jpg"))
    assert images.exists("t", ImageRef("vg", "VG_100K_2/2.jpg"))


@pytest.mark.parametrize(
    "path", ["coco", "coco/val2017", "val2017.zip", "flat.zip", "flat.tar", "zips"]
)
def test_a_users_copy_is_read_as_it_lies(path, tmp_path):
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "val2017" / "1.jpg").write_bytes(b"one")
    (tmp_path / "zips").mkdir()
    zipped(tmp_path / "val2017.zip", {"val2017/1.jpg": b"one"})
    zipped(tmp_path / "zips" / "val2017.zip", {"val2017/1.jpg": b"one"})
    zipped(tmp_path / "flat.zip", {"1.jpg": b"one"})
    write_tar(tmp_path / "flat.tar", {"./1.jpg": b"one"})
    write_link(tmp_path / "data", "coco/val2017", tmp_path / path)
    images = Images(tmp_path / "data")

    assert images.content("t", ImageRef("coco/val2017", "1.jpg")) == b"one"
    assert not images.exists("t", ImageRef("coco/val2017", "2.jpg"))
