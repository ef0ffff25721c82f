"""`py:FILE.py:ATTRIBUTE`: what usually goes wrong in an adapter is one line that names the file and
the method before anything is encoded, and an adapter is known by what it gives.
"""

import sys
import textwrap

import numpy as np
import pytest

from fsc_bench.errors import UsageError
from fsc_bench.models import load_model

BODY = """
import numpy as np

def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

class Model:
    def preprocess(self, image):
        return np.asarray(image.resize((2, 2)), np.float32)
    def encode_images(self, images):
        return unit(images.reshape(len(images), -1) + 1)
    def encode_texts(self, texts):
        return unit([[len(text)] * 6 + [1.0] * 6 for text in texts])
"""
CONSTANT = """
model = Model()
model.encode_texts = lambda texts: unit([[FACTOR] + [1] * 11 for _ in texts])
"""


def adapter(folder, extra="", attribute="model", name="mine.py", body=BODY):
    (folder / name).write_text(body + textwrap.dedent(extra))
    return f"py:{folder / name}:{attribute}"


def refusal(spec) -> str:
    with pytest.raises(UsageError) as caught:
        load_model(spec, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


MADE = {
    "an object": ("model = Model()", "model"),
    "a class": ("", "Model"),
    "a function": ("def model():\n    return Model()", "model"),
    "of device and precision": (
        "def model(device, precision):\n    assert (device, precision) == ('cpu', 'fp32')\n"
        "    return Model()", "model"),
    "of the device by name": (
        "class Other(Model):\n    def __init__(self, *, device):\n        self.device = device",
        "Other"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_an_object_a_class_and_a_function_give_the_model(tmp_path, kind):
    extra, attribute = MADE[kind]
    model = load_model(adapter(tmp_path, extra, attribute), "cpu")

    # Two numbers 3 and 1, six times each: 3 / sqrt(6 * 9 + 6) = 3 / 7.746.
    assert model.encode_texts(["cat"])[0, 0] == pytest.approx(3 / 60**0.5)


def test_a_class_that_wants_more_is_one_line(tmp_path):
    extra = "class Other(Model):\n    def __init__(self, checkpoint):\n        pass"

    assert "Other takes checkpoint; it is called with nothing, or" in refusal(
        adapter(tmp_path, extra, "Other")
    )


def test_a_module_beside_the_file_is_found_and_each_adapter_has_its_own(tmp_path):
    for folder, factor in (("a", 1), ("b", 7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shared_helper.py").write_text(f"FACTOR = {factor}\n")
        adapter(tmp_path / folder, "from shared_helper import FACTOR\n" + CONSTANT)
    first, second = (load_model(f"py:{tmp_path / f}/mine.py:model", "cpu") for f in "ab")

    # 1 / sqrt(12), and 7 / sqrt(49 + 11).
    assert first.encode_texts(["x"])[0, 0] == pytest.approx(1 / 12**0.5)
    assert second.encode_texts(["x"])[0, 0] == pytest.approx(7 / 60**0.5)


def test_a_dataclass_under_future_annotations_works(tmp_path):
    extra = """
    from dataclasses import dataclass, field
    @dataclass
    class Mine(Model):
        names: list[str] = field(default_factory=list)
    model = Mine()
    """
    body = "from __future__ import annotations\n" + BODY

    assert load_model(adapter(tmp_path, extra, body=body), "cpu").encode_texts(["x"]).shape == (
        1,
        12,
    )


FAULTS = {
    "not unit": (
        "encode_texts = lambda self, texts: np.full((len(texts), 12), 2.0)",
        "model: encode_texts gives vectors of length 6.928, not unit length"),  # sqrt(12 * 4)
    "other width": (
        "encode_texts = lambda self, texts: unit(np.ones((len(texts), 5)))",
        "encode_images gives vectors of 12 numbers, encode_texts of 5; both must be of one space"),
    "one row for all": (
        "encode_texts = lambda self, texts: unit(np.ones((1, 12)))",
        "encode_texts gives shape (1, 12) for 2 items; it must be (2, width)"),
    "three axes": (
        "encode_images = lambda self, images: np.ones((len(images), 3, 4), np.float32)",
        "encode_images gives shape (2, 3, 4) for 2 items"),
    "whole numbers": (
        "encode_images = lambda self, images: np.ones((len(images), 12), np.int64)",
        "encode_images gives numbers of type int64; they must be float32"),
    "a list": (
        "encode_texts = lambda self, texts: [[1.0]] * len(texts)",
        "encode_texts gives a list; it must give a tensor or an array of unit vectors"),
    "a processor's dictionary": (
        "preprocess = lambda self, image: {'pixel_values': np.ones((3, 2, 2))}",
        "preprocess gives a dict with 'pixel_values'; it must give one tensor"),
    "the picture": (
        "preprocess = lambda self, image: image",
        "preprocess gives a Image; it must give a tensor or an array of one picture"),
    "pictures of any size": (
        "preprocess = lambda self, image: np.asarray(image, np.float32)",
        "preprocess gives (240, 320, 3) and (224, 224, 3) for pictures of two sizes"),
    "an exception": (
        "def encode_texts(self, texts):\n        raise ValueError('two\\nlines')",
        "line 18: encode_texts: ValueError: two lines"),
    "a missing method": ("encode_texts = None", "gives a Other without encode_texts()"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_one_line_with_file_and_method_before_anything_is_encoded(tmp_path, kind):
    code, words = FAULTS[kind]
    line = refusal(adapter(tmp_path, f"\nclass Other(Model):\n    {code}\nmodel = Other()"))

    assert line.startswith(str(tmp_path / "mine.py"))
    assert words in line


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("model = = 1", "line 16: import: SyntaxError: invalid syntax"),
        ("import absent_module", "line 16: import: ModuleNotFoundError: No module named 'absent"),
        ("raise SystemExit(3)", "line 16: import: SystemExit: 3"),
        ("modle = Model()", "has no 'model'. Did you mean 'modle'?"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, extra, words):
    assert words in refusal(adapter(tmp_path, f"\n{extra}"))


def test_nan_of_the_trial_is_said_and_an_exception_later_names_its_line(tmp_path):
    extra = """
    class Other(Model):
        def encode_texts(self, texts):
            if "boom" in texts:
                raise RuntimeError("no such text")
            return unit(np.full((len(texts), 12), np.nan))
    model = Other()
    """
    model = load_model(adapter(tmp_path, extra), "cpu")

    assert any("encode_texts gives NaN for a made-up item" in note for note in model.extras.notes)
    with pytest.raises(UsageError, match=r"mine\.py, line 19: encode_texts: RuntimeError: no such"):
        model.encode_texts(["boom"])


# ---------------------------------------------------------------- knowing it again

READS = """
from pathlib import Path
FACTOR = float((Path(__file__).parent / "weights.txt").read_text())
"""


def test_an_adapter_is_known_by_its_outputs_too_and_says_that_it_has_no_identity(tmp_path):
    found = []
    for weights in ("2", "2", "3"):
        (tmp_path / "weights.txt").write_text(weights)
        found.append(load_model(adapter(tmp_path, READS + CONSTANT), "cpu"))
    first, again, other = (model.identity.fingerprint for model in found)

    assert first == again != other
    assert (
        "has no identity of its own: it is known by its file and what it makes of 2 made-up pic"
        in (found[0].extras.notes[-1])
    )


def test_an_identity_of_its_own_is_what_it_is_known_by(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "dont_write_bytecode", False
    )  # the second file is as long as the first
    plain = load_model(adapter(tmp_path, "model = Model()\nmodel.identity = 'epoch 5'"), "cpu")
    next_one = load_model(adapter(tmp_path, "model = Model()\nmodel.identity = 'epoch 6'"), "cpu")

    assert plain.identity.weights == "identity epoch 5"
    assert plain.identity.fingerprint != next_one.identity.fingerprint
    assert plain.extras.notes == ()
    assert "identity is a int; it must be a text" in refusal(
        adapter(tmp_path, "model = Model()\nmodel.identity = 5")
    )


def test_an_adapter_that_knows_only_its_own_items_is_left_alone_and_known_by_its_file(tmp_path):
    table = (
        "model = Model()\nmodel.encode_texts = lambda t: unit([{'cat': [1] * 12}[x] for x in t])"
    )
    model = load_model(adapter(tmp_path, table), "cpu")

    assert np.allclose(model.encode_texts(["cat"]), 12**-0.5)
    assert "known by its file alone" in model.extras.notes[-1]
