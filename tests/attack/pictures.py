"""Pictures that lie or are damaged: each is read or refused by one line, within the budget.

    python tests/attack/pictures.py [--count 11000] [--seed 0] [--lines]

Generated: small pictures of every format that benchmarks use, cut, flipped, spliced, and with sizes
in their headers overwritten. A cut picture that is read must have its own pixels. Besides, by hand:
claims of huge sizes, boxes, thin strips, endless scans, array headers, pickles, pipes and devices.
"""

import gzip
import io
import os
import pickle
import random
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from attack.tally import Tally, Wrong, counted, finish  # noqa: E402

from fsc_bench.data.images import Images, decode  # noqa: E402
from fsc_bench.records import ImageRef  # noqa: E402

ODD = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
FORMS = [
    ("JPEG", "RGB", {"quality": 80}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("GIF", "P", {}),
    ("WEBP", "RGB", {"quality": 70}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("JPEG2000", "RGB", {}),
    ("TGA", "RGB", {"compression": "tga_rle"}),
]
MEMORY = 2000  # MB: a picture may take 16 bytes a pixel, and a hundred million are allowed


def drawn(form: str, mode: str, settings: dict) -> bytes:
    noise = np.random.default_rng(7)
    image = Image.fromarray(noise.integers(0, 256, (20, 23, 3), np.uint8))
    if mode == "I;16":
        image = Image.fromarray(noise.integers(0, 65536, (20, 23), np.uint16))
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def mutated(content: bytes, luck: random.Random) -> tuple[str, bytes]:
    """(kind of damage, content)"""
    data = bytearray(content)
    kind = luck.choice(["flip", "flip", "cut", "word", "word", "splice", "zeros", "repeat"])
    if kind == "flip":
        for _ in range(luck.choice([1, 1, 2, 8, 40])):
            data[luck.randrange(len(data))] = luck.randrange(256)
    elif kind == "cut":
        del data[luck.randrange(1, len(data)) :]
    elif kind == "word":  # sizes and offsets stand near the beginning
        place = luck.randrange(min(len(data) - 4, luck.choice([40, 300])))
        width, order = luck.choice(["H", "I"]), luck.choice("<>")
        value = luck.choice(ODD) & (0xFFFF if width == "H" else 0xFFFFFFFF)
        struct.pack_into(order + width, data, place, value)
    elif kind == "splice":
        begin, end = sorted(luck.randrange(len(data)) for _ in range(2))
        at = luck.randrange(len(data))
        data[at:at] = data[begin:end]
    elif kind == "zeros":
        begin = luck.randrange(len(data))
        end = min(len(data), begin + luck.randrange(1, 64))
        data[begin:end] = bytes(end - begin)
    else:
        begin = luck.randrange(len(data))
        data[begin:begin] = data[begin : begin + luck.randrange(1, 32)] * luck.randrange(1, 200)
    return kind, bytes(data)


def read_mutant(kind: str, content: bytes, pixels: np.ndarray) -> None:
    image = decode(content, "a/b.jpg")
    if image.mode != "RGB":
        raise Wrong(f"mode {image.mode}")
    if kind == "cut" and not np.array_equal(np.asarray(image), pixels):
        raise Wrong("a picture that was cut is read with other pixels")


def attack_generated(tally: Tally, count: int, seed: int) -> None:
    luck = random.Random(seed)
    whole = [drawn(*form) for form in FORMS]
    pixels = [np.asarray(decode(content, "whole")) for content in whole]
    for number in range(count):
        place = number % len(FORMS)
        kind, content = mutated(whole[place], luck)
        name = f"{FORMS[place][0]} {FORMS[place][1]} {kind} {number}"
        tally.attempt(name, partial(read_mutant, kind, content, pixels[place]))


# ---------------------------------------------------------------- by hand


def with_size(content: bytes, width: int, height: int) -> bytes:
    """A JPEG that claims another size, and nothing else."""
    data = bytearray(content)
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (at := data.find(marker)) >= 0:
            struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def scans(content: bytes, count: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = with_size(content, side, side)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def deep_pickle(depth: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * depth + b"K\x01s."


def tuple_key(depth: int) -> bytes:
    """A dictionary whose key is nested so deep that hashing it ends the interpreter."""
    return b"\x80\x02})" + b"\x85" * depth + b"K\x01s."


class Evil:
    def __reduce__(self):
        return (os.system, (f"touch {os.environ['ATTACK_CANARY']}",))


def npy(shape: str, kind: str = "|u1", rest: bytes = b"") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + rest


def by_hand(folder: Path) -> Iterator[tuple[str, str, bytes | Callable | None, tuple | None]]:
    """(name, path of the record, content of the file, box)"""
    small = drawn("JPEG", "RGB", {})
    progressive = drawn("JPEG", "RGB", {"progressive": True})
    for width, height in [(13_000, 13_000), (12_000, 12_000), (65_500, 65_500), (9_000, 9_000)]:
        for name, content in [("jpeg", small), ("progressive", progressive)]:
            yield f"{name} {width}x{height}", "x.jpg", with_size(content, width, height), None
    rows = zlib.compress(bytes(13_001 * 13_000), 9)
    yield "png 13,000 x 13,000, all there", "x.png", png(13_000, 13_000, rows), None
    yield "png of 1 x 65,000", "x.png", png(1, 65_000, zlib.compress(bytes(2 * 65_000))), None
    yield "png of 65,000 x 1", "x.png", png(65_000, 1, zlib.compress(bytes(65_001))), None
    yield "png 100,000 x 100,000", "x.png", png(100_000, 100_000, rows[:500]), None
    yield "2,000 scans", "x.jpg", scans(progressive, 2000, 6000), None
    for form in ("BMP", "WEBP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000"):
        data = bytearray(drawn(form, "P" if form == "GIF" else "RGB", {}))
        places = [at for at in range(len(data) - 4) if data[at] == 23 and data[at + 1] == 0]
        for at in places[:2]:
            data[at : at + 2] = b"\xff\x3f"
        yield f"{form} that claims 16,383", "x.jpg", bytes(data), None
    yield "ppm 60,000 x 60,000", "x.ppm", b"P6\n60000 60000\n255\nabc", None
    yield "ppm of 5,000 digits", "x.ppm", b"P6\n" + b"9" * 5000 + b" 1\n255\n", None
    yield "box 30,000 x 30,000", "x.jpg", small, (0, 0, 30_000, 30_000)
    yield "box far away", "x.jpg", small, (-(2**31), -(2**31), 2**31 - 1, 2**31 - 1)
    yield "box 1 x 2,000,000", "x.jpg", small, (0, 0, 1, 2_000_000)
    yield "eps", "x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", None
    for name, content in {
        "header of 60,000 x 60,000 x 3": npy("(60000, 60000, 3)"),
        "header of 0 x 0": npy("(0, 0, 3)"),
        "header of 2**62": npy(f"({2**62}, {2**62}, 3)"),
        "negative": npy("(-5, 4, 3)"),
        "objects": npy("(1,)", "|O", pickle.dumps(Evil())),
        "thin": npy("(1, 60000, 3)", rest=bytes(180_000)),
        "nested header": npy("(" * 3000 + ")" * 3000),
        "cut": npy("(4, 4, 3)", rest=bytes(40)),
    }.items():
        yield f"npy {name}", "x.npy::rgb", content, None
    yield "pickle, 2,000,000 deep", "test_batch::0", deep_pickle(2_000_000), None
    yield "pickle, deep key", "test_batch::0", tuple_key(2_000_000), None
    yield "pickle that runs", "test_batch::0", pickle.dumps(Evil()), None
    yield "pickle, far memo", "test_batch::0", b"\x80\x02K\x01r\xf0\xff\xff\xff.", None
    yield "pickle, 9 GB of zeros", "test_batch::0", ARRAY_OF_ZEROS, None
    for name, content in {
        "idx of 60,000 x 60,000": struct.pack(">4I", 0x803, 1, 60_000, 60_000),
        "idx of nothing": struct.pack(">4I", 0x803, 1, 0, 0),
        "idx, thin": struct.pack(">4I", 0x803, 1, 1, 60_000) + bytes(60_000),
    }.items():
        yield name, "x-ubyte::0", content, None
    bomb = gzip.compress(bytes(1_000_000_000), 9)
    yield "idx.gz, 1 GB", "x-ubyte.gz::0", bomb, None
    yield "csv.gz, 1 GB", "x.csv.gz::pixels/0", bomb, None
    yield "csv of 300 million lines", "x.csv::pixels/0", b"\n" * 300_000_000, None
    yield "csv.gz, damaged", "x.csv.gz::pixels/0", bomb[:40] + b"\xff" * 40, None
    yield "pipe", "x.jpg", os.mkfifo, None
    yield "pipe called a zip", "x.zip::a.jpg", os.mkfifo, None
    yield "pipe called an array", "x.npy::rgb", os.mkfifo, None
    yield "device", "x.jpg", partial(os.symlink, "/dev/zero"), None
    yield "folder", "x.jpg", os.mkdir, None
    yield "empty", "x.jpg", b"", None


ARRAY_OF_ZEROS = (
    b"\x80\x02cnumpy._core.numeric\n_frombuffer\n(\x8a\x05\x00\xe4\x0bT\x02cnumpy\ndtype\n"
    b"K\x01\x85RK\x01\x85U\x01Ct R."
).replace(b"t R", b"tR")


def attack_by_hand(tally: Tally, folder: Path) -> None:
    """Each file in a data folder of its own, linked as COCO's pictures, read as scoring would."""
    canary = folder / "canary"
    os.environ["ATTACK_CANARY"] = str(canary)
    (folder / "secret.png").write_bytes(drawn("PNG", "RGB", {}))
    for number, (name, path, content, box) in enumerate(by_hand(folder)):
        root = folder / f"data{number}" / "images" / "coco" / "val2017"
        root.mkdir(parents=True)
        place = root / path.partition("::")[0]
        content(place) if callable(content) else place.write_bytes(content)
        ref = ImageRef("coco/val2017", path, box)
        images = Images(folder / f"data{number}")
        tally.isolated(name, partial(picture, images, ref, name))
        if canary.exists():
            tally.fault(name, "ran code")
            canary.unlink()
        if tally.peak[1] == name and tally.peak[0] > MEMORY:
            tally.fault(name, f"took {tally.peak[0]:,} MB")
        if not place.is_dir() and not callable(content):
            place.unlink()
    for source in ("/etc", "..", "/dev", str(folder), "coco/../../..", "coco/val2018"):
        ref = ImageRef(source, "secret.png" if source == str(folder) else "passwd")
        tally.isolated(f"source {source}", partial(outside, Images(folder / "data0"), ref))


def picture(images: Images, ref: ImageRef, name: str) -> None:
    """What scoring does with a reference: read, digest, decode, and the shortest side to 224."""
    images.digest("own", ref)
    image = images.open("own", ref)
    short = min(image.size)
    resized = [int(224 * side / short) for side in image.size]
    if resized[0] * resized[1] > 150_000_000:
        raise Wrong(f"resizing makes it {resized[0]:,} x {resized[1]:,}")


def outside(images: Images, ref: ImageRef) -> None:
    images.content("own", ref)
    raise Wrong("read a file of a source that nobody registered")


def attack(count: int, seed: int = 0, large: bool = True) -> Tally:
    """large: also the inputs that take memory or time."""
    tally = Tally("pictures")
    attack_generated(tally, count, seed)
    if large:
        with tempfile.TemporaryDirectory() as folder:
            attack_by_hand(tally, Path(folder))
    return tally


if __name__ == "__main__":
    chosen = counted(11_000)
    finish(attack(chosen.count, chosen.seed), chosen)
