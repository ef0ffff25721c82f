"""Compiled resizing: Pillow's bytes or none of it, and nothing else about a run may change."""

import importlib.util
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from fsc_bench.data.images import cropped
from fsc_bench.data.jpeg import decoder, open_rgb
from fsc_bench.models.shortcuts import pixels as _pixels
from fsc_bench.models.shortcuts import resize as _resize

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None,
    reason="numba is not installed: pip install 'fsc-bench[fast]'",
)


def transform(size=224, mode="shortest", interpolation="bicubic"):
    return open_clip.image_transform(
        size, is_train=False, resize_mode=mode, interpolation=interpolation
    )


def compiled(preprocess):
    pixels = _pixels.split(preprocess, "cpu")
    pixels.compile()
    return pixels


def picture(rng, width, height):
    """Noise, black and white alone (which overshoots 0 and 255), or a smooth photograph."""
    kind = rng.integers(3)
    if kind == 0:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    if kind == 1:
        return Image.fromarray(rng.integers(0, 2, (height, width, 3), np.uint8) * 255)
    small = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    return Image.fromarray(small).resize((width, height))


@needs_numba
@pytest.mark.parametrize(
    ("size", "mode", "interpolation"),
    [
        (224, "shortest", "bicubic"),
        (224, "shortest", "bilinear"),
        (224, "squash", "bicubic"),
        (37, "shortest", "bicubic"),
        ((32, 48), "squash", "bilinear"),
    ],
)
def test_its_bytes_are_pillows_on_random_shapes(size, mode, interpolation):
    preprocess = transform(size, mode, interpolation)
    pixels, plain = compiled(preprocess), _pixels.split(preprocess, "cpu")
    assert pixels.takes_arrays
    rng = np.random.default_rng(0)
    for number in range(60):
        longest = (60, 300, 1100)[number % 3]
        width, height = (int(n) for n in rng.integers(1, longest, 2))
        image = picture(rng, width, height)
        ours = pixels.load(image)

        assert np.array_equal(ours, plain.load(image)), (width, height)
        assert torch.equal(pixels.finish(ours[None])[0], preprocess(image)), (width, height)


@needs_numba
def test_its_bytes_are_pillows_at_the_edges():
    """Equal sizes, one pixel off, half-pixel offsets, both sides of "twice as tall"."""
    preprocess = transform()
    pixels, plain = compiled(preprocess), _pixels.split(preprocess, "cpu")
    rng = np.random.default_rng(0)
    for shorter in (223, 224, 225, 447, 448, 449):
        for longer in (0, 1, 2, 223, 224, 225, 448, 449, 900):
            for size in ((shorter, shorter + longer), (shorter + longer, shorter)):
                image = picture(rng, *size)

                assert np.array_equal(pixels.load(image), plain.load(image)), size


@needs_numba
@pytest.mark.parametrize("size", [16, 37, 224, 336, 448])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_the_other_order_of_the_passes_is_never_taken_for_pillows(size, mode):
    head = transforms.Compose(transform(size, mode).transforms[:-2])
    resize = _resize.build(head.transforms)
    resize.tall_first = not resize.tall_first

    assert not _resize._is_exact(resize, head)


@needs_numba
def test_every_weight_is_pillows():
    """A row of a single lit pixel shows its weights; sizes 1 to 700 show all of them."""
    resize = compiled(transform(16)).resize
    for size in range(17, 700, 3):
        image = Image.fromarray(np.eye(size, dtype=np.uint8)[:, :, None].repeat(3, 2) * 255)
        own = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))

        assert np.array_equal(resize(_resize.rgbx(image)), own), size


@needs_numba
def test_threads_do_not_disturb_each_other():
    pixels = compiled(transform())
    rng = np.random.default_rng(0)
    images = [picture(rng, *rng.integers(200, 500, 2)) for _ in range(40)]
    alone = [pixels.load(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(pixels.load, images * 3))

    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


@needs_numba
def test_one_wrong_byte_and_pillow_does_it_all(monkeypatch):
    across, down = _resize._compiled()

    def wrong(image, out, *more):
        down(image, out, *more)
        out[-1, -4] ^= 1

    monkeypatch.setattr(_resize, "_compiled", lambda: (across, wrong))
    preprocess = transform()
    pixels = compiled(preprocess)
    image = picture(np.random.default_rng(0), 300, 280)

    assert not pixels.takes_arrays
    assert torch.equal(pixels.finish(np.stack([pixels.load(image)]))[0], preprocess(image))


@needs_numba
def test_a_size_with_a_doubtful_weight_goes_to_pillow(monkeypatch):
    assert _resize.weights(2094, 224, 224, "bicubic") is None
    preprocess = transform()
    pixels, plain = compiled(preprocess), _pixels.split(preprocess, "cpu")
    image = picture(np.random.default_rng(0), 2094, 2094)

    assert pixels.resize(_resize.rgbx(image)) is None
    assert np.array_equal(pixels.load(image), plain.load(image))
    assert np.array_equal(pixels.load(_resize.rgbx(image)), plain.load(image))


def test_without_numba_nothing_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(_resize, "_compiled", _resize._compiled.__wrapped__)
    preprocess = transform()
    pixels = compiled(preprocess)
    image = picture(np.random.default_rng(0), 300, 280)

    assert not pixels.takes_arrays
    assert torch.equal(pixels.finish(np.stack([pixels.load(image)]))[0], preprocess(image))


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [transforms.CenterCrop(40)],
        [transforms.Resize(40)],
        [transforms.Resize(40), transforms.CenterCrop(48)],
        [transforms.Resize(40, max_size=90), transforms.CenterCrop(40)],
        [transforms.Resize(40, transforms.InterpolationMode.NEAREST), transforms.CenterCrop(40)],
        [transforms.Resize(40), transforms.CenterCrop(40), transforms.RandomHorizontalFlip()],
        [transforms.Resize(40), transforms.RandomHorizontalFlip(), transforms.CenterCrop(40)],
        transform(40, "longest").transforms[:-2],
    ],
)
def test_other_steps_are_not_taken_for_these(steps):
    assert _resize.build(steps) is None


def test_it_is_compiled_only_when_there_is_much_to_do(monkeypatch):
    built = []
    monkeypatch.setattr(_resize, "build", lambda steps: built.append(steps))
    monkeypatch.setattr(_pixels, "WORTH_COMPILING", 200_000)
    pixels = _pixels.split(transform(), "cpu")
    before = pixels.seen
    small, large = Image.new("RGB", (48, 48)), Image.new("RGB", (300, 400))
    for _ in range(20):
        pixels.load(small)
    time.sleep(0.05)
    assert not built
    assert pixels.seen - before == 20 * 48 * 48
    for _ in range(3):
        pixels.load(large)
    deadline = time.time() + 5
    while not built and time.time() < deadline:
        time.sleep(0.01)

    assert built == [pixels.head.transforms]


@needs_numba
def test_arrays_of_the_faster_decoder_and_their_crops_are_the_same_pixels():
    if decoder() is None:
        pytest.skip("simplejpeg is not installed: pip install 'fsc-bench[fast]'")
    preprocess = transform()
    pixels, plain = compiled(preprocess), _pixels.split(preprocess, "cpu")
    file = io.BytesIO()
    picture(np.random.default_rng(2), 500, 333).save(file, "JPEG")
    array, image = open_rgb(file.getvalue(), "", True), open_rgb(file.getvalue())
    assert isinstance(array, np.ndarray)
    assert array.shape == (333, 500, 4)
    # The last two reach beyond the picture, which PIL fills with black.
    for box in (None, (0, 0, 500, 333), (3, 5, 250, 330), (499, 332, 500, 333),
                (-4, 5, 90, 100), (400, 300, 600, 340)):  # fmt: skip
        ours = pixels.load(cropped(array, box))

        assert np.array_equal(ours, plain.load(cropped(image, box))), box
