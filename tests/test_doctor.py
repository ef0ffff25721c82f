"""Doctor: a good model keeps the protocol, and each planted fault is found by its name."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_open_clip
import torch
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.errors import UsageError
from fsc_bench.model import Identity
from fsc_bench.run.examination import examine, in_half


def broken(side=lambda rows: rows, precision="fp32"):
    """The tiny model with something done to the vectors of its pictures."""
    model = tiny_open_clip.load("cpu", "fp32")
    model.identity = replace(model.identity, precision=precision)
    encode = model.encode_images
    model.encode_images = lambda images: side(encode(images))
    return [one.name for one in examine(model).checks if not one.holds]


def test_a_good_model_keeps_everything():
    assert broken() == []


@pytest.mark.parametrize(
    ("side", "names"),
    [
        (lambda rows: rows * 1.01, ["images: unit length"]),
        (lambda rows: rows.half(), ["images: float32"]),
        (lambda rows: torch.where(rows == rows.max(), torch.nan, rows), ["images: numbers"]),
        (lambda rows: torch.roll(rows, int(torch.randint(1, 9, ())), 1) if len(rows) > 1 else rows,
         ["images: repeats", "images: any batch size"]),
        (lambda rows: torch.nn.functional.normalize(rows - 0.1 * rows.mean(0), dim=1),
         ["images: any batch size"]),
        (lambda rows: rows[:, None], ["images: shape"]),
        (lambda rows: torch.cat([rows, 0 * rows], 1), ["one space"]),
        (lambda rows: 1 / 0, ["images: encoded"]),
    ],
    ids=["longer", "half", "NaN", "random", "of its batch", "shape", "two widths", "raises"],
)  # fmt: skip
def test_a_planted_fault_is_found_by_its_name(side, names):
    torch.manual_seed(1)

    assert broken(side) == names


def test_the_exit_code_says_whether_the_protocol_holds_and_without_a_model_what_is_here(tmp_path):
    good = CliRunner().invoke(app, ["doctor", "-m", "demo:pretrained", "--json"])
    here = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path / "none")])

    assert good.exit_code == 0 and json.loads(good.stdout)["context_length"] == 32
    assert json.loads(here.stdout)["tasks prepared"] == []


def test_half_precision_is_tried_and_what_it_does_is_told():
    whole = tiny_open_clip.load("cpu", "fp32")

    def load(precision):
        if precision == "fp16":
            raise UsageError("no fp16 here.")
        model = tiny_open_clip.load("cpu", "fp32")
        encode = model.encode_texts

        def overflows(texts):
            rows = encode(texts)
            rows[3], rows[4] = torch.inf, -rows[4]
            return rows

        model.encode_texts = overflows
        return model

    assert in_half(whole, load) == {
        "in bf16": "1 of 10 vectors with NaN or infinity, 1 - cosine at most 2.0e+00",
        "in fp16": "not offered: no fp16 here",
    }


class Pairs:
    """Scores a pair by its text's length and its picture's mean; `wrong` plants a fault."""

    device = "cpu"
    identity = Identity("w", "a", "", "p", "t", 77, "fp32")

    def __init__(self, wrong=lambda scores: scores):
        self.wrong = wrong

    def preprocess(self, image):
        return np.float32([np.asarray(image.resize((2, 2))).mean() / 255])

    def score_pairs(self, images, texts):
        return self.wrong(images[:, 0] + np.float32([len(text) for text in texts]))


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (lambda scores: scores, []),
        (lambda scores: scores[:, None], ["pairs: shape"]),
        (lambda scores: scores / 0, ["pairs: numbers"]),
        (lambda scores: scores - scores.mean(), ["pairs: any batch size"]),
        (lambda scores: 1 / 0, ["pairs: scored"]),
    ],
)
def test_a_pair_scorer_is_examined_by_its_scores(wrong, names):
    with np.errstate(all="ignore"):
        checks = examine(Pairs(wrong)).checks

    assert [one.name for one in checks if not one.holds] == names
