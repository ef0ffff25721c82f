"""Odd and damaged images: decoded as CLIP's own transforms would, or one line names the file."""

import contextlib
import io
import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from fsc_bench.data.images import Images, decode, write_link
from fsc_bench.errors import DataError
from fsc_bench.records import OWN, ImageRef

RED, BLUE = (200, 30, 40), (20, 60, 220)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def halves(mode="RGB", size=(8, 4)):
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def pixel(content, place=(0, 0)):
    image = decode(content, "task: x.png")
    assert image.mode == "RGB"
    return image.getpixel(place)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK", "YCbCr", "RGB"])
def test_every_mode_is_converted_as_the_reference_does(mode):
    image = halves(mode)
    content = encoded(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    with Image.open(io.BytesIO(content)) as same:
        expected = same.convert("RGB")  # open_clip's and OpenAI's own transforms do exactly this
    assert decode(content, "x").tobytes() == expected.tobytes()


def test_transparency_is_dropped_not_blended():
    image = Image.new("RGBA", (4, 4), (*RED, 0))
    assert pixel(encoded(image)) == RED


def test_a_palette_with_transparency_is_read_quietly():
    image = halves("P")
    content = encoded(image, transparency=0)
    with Image.open(io.BytesIO(content)) as same:
        assert same.mode == "P"
    assert decode(content, "x").size == (8, 4)


def test_sixteen_bit_gray_is_scaled_not_clipped_to_white():
    ramp = (np.arange(16, dtype=np.uint16).reshape(4, 4)) * 4369  # 0, 0x1111 ... 0xffff
    image = Image.fromarray(ramp)
    with Image.open(io.BytesIO(encoded(image))) as same:
        clipped = np.asarray(same.convert("RGB"))[:, :, 0]
    assert (clipped.ravel()[1:] == 255).all(), "Pillow clips: were this to change, ours can go"
    for form in ("PNG", "TIFF"):
        shown = np.asarray(decode(encoded(image, form), "x"))[:, :, 0]
        assert shown.ravel().tolist() == [place * 17 for place in range(16)]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(kind):
    content = encoded(Image.fromarray(np.ones((4, 4), kind)), "TIFF")
    with pytest.raises(DataError, match=r"^task: a\.tif: 32-bit pixels have no agreed range"):
        decode(content, "task: a.tif")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animated_image_the_first_frame_counts(form):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **lossless)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2
    assert pixel(content) == RED


def test_exif_orientation_is_not_applied_as_in_open_clip():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    content = encoded(halves(size=(16, 8)), "JPEG", exif=exif, quality=95)
    image = decode(content, "x")
    assert image.size == (16, 8)
    assert image.getpixel((1, 4))[0] > 150 > image.getpixel((14, 4))[0]


def test_a_single_channel_array_becomes_gray():
    assert pixel(np.full((28, 28), 7, np.uint8)) == (7, 7, 7)
    assert pixel(np.full((2, 2, 3), RED, np.uint8)) == RED


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "pictures"
    raw.mkdir()
    whole = encoded(Image.effect_noise((64, 64), 90), "JPEG")
    (raw / "whole.jpg").write_bytes(whole)
    (raw / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "empty.jpg").write_bytes(b"")
    (raw / "page.jpg").write_bytes(b"<!DOCTYPE html><title>Not found</title>")
    (raw / "pointer.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 1\n")
    (raw / "cut.png").write_bytes(encoded(halves(size=(64, 64)))[:60])
    (raw / "directory.jpg").mkdir()
    write_link(tmp_path / "data", "mine", raw)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cut.jpg", "not a readable image: image file is truncated"),
        ("cut.png", "not a readable image"),
        ("empty.jpg", "the image file is empty."),
        ("page.jpg", "not a readable image: a web page, not the file"),
        ("pointer.jpg", "not a readable image: a Git LFS pointer"),
        ("directory.jpg", "is a folder, not a file"),
        ("gone.jpg", "is missing. `fsc-bench data "),
    ],
)
def test_a_damaged_image_is_one_line_that_names_the_file(folder, name, why):
    with pytest.raises(DataError) as caught:
        Images(folder).open("mine", ImageRef(OWN, name))
    message = str(caught.value)
    assert message.startswith("mine: ") and name in message and why in message
    assert "\n" not in message


def test_a_whole_image_is_cropped_to_its_box(folder):
    images = Images(folder)
    assert images.open("mine", ImageRef(OWN, "whole.jpg")).size == (64, 64)
    assert images.open("mine", ImageRef(OWN, "whole.jpg", (4, 8, 20, 18))).size == (16, 10)


def test_damage_of_any_kind_is_refused_or_read_never_a_traceback():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 16, 3), dtype=np.uint8))
    outcomes = {"read": 0, "refused": 0}
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        whole = np.frombuffer(encoded(noise, form), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            places = rng.integers(0, len(whole) if rng.random() < 0.5 else 40, 4)
            damaged[np.minimum(places, len(whole) - 1)] = rng.integers(0, 256, 4)
            content = damaged.tobytes()
            if rng.random() < 0.3:
                content = content[: int(rng.integers(1, len(whole)))]
            try:
                decode(content, "x")
                outcomes["read"] += 1
            except DataError as error:
                assert "\n" not in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 4 4
%%EndComments
0.8 setgray 0 0 4 4 rectfill showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["x.eps", "x.png", "x.jpg"])
def test_an_eps_file_under_any_name_is_refused_and_ghostscript_never_started(
    tmp_path, monkeypatch, name
):
    marker = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {marker}\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once a process
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / name).write_bytes(EPS)
    write_link(tmp_path / "data", "mine", tmp_path / "pictures")

    with pytest.raises(DataError, match=r"cannot identify image file: it begins with b'%!PS-Adobe"):
        Images(tmp_path / "data").open("mine", ImageRef(OWN, name))
    assert not marker.exists()

    with contextlib.suppress(OSError), Image.open(io.BytesIO(EPS)) as opened:
        opened.load()
    assert marker.exists()  # what Pillow does where nobody says which formats are meant


def test_of_a_stereo_photograph_the_first_picture_counts():
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    content = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
    assert pixel(content)[0] > 190 > 60 > pixel(content)[2]


def test_a_reason_of_pillows_is_told_whole():
    cut = encoded(Image.effect_noise((64, 64), 90), "JPEG")[:2000]
    with pytest.raises(DataError, match=r"image file is truncated \(\d+ bytes not processed\)$"):
        decode(cut, "x")
