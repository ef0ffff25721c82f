"""The library: a model object in, numbers and a table out, and the model as it was."""

import random
import re
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import tiny_open_clip
import torch

import fsc_bench
from fsc_bench.errors import FscBenchError, UsageError
from fsc_bench.models.open_clip import OpenClip

TASK = "demo_colours"


@pytest.fixture(autouse=True)
def _data(drawn, monkeypatch):
    monkeypatch.setenv("FSC_BENCH_DATA", str(drawn.parent))


@pytest.fixture
def bare():
    torch.manual_seed(3)
    model = tiny_open_clip.build()
    model.visual.ln_pre.eval()  # a frozen part, as users have
    return model


@pytest.fixture
def ways():
    """What a bare open_clip model is given beside it."""
    preprocess = open_clip.image_transform(32, is_train=False, mean=(0.5,) * 3, std=(0.25,) * 3)
    return {"preprocess": preprocess, "tokenizer": tiny_open_clip.Tokenizer(), "limit": 4}


def test_the_package_names_its_calls_and_imports_no_torch_for_them():
    code = (
        "import sys, fsc_bench\n"
        "assert fsc_bench.__all__ == ['compare', 'load_model', 'score', 'tasks']\n"
        "assert set(fsc_bench.__all__) <= set(dir(fsc_bench))\n"
        "assert 'torch' not in sys.modules\n"
        "import fsc_bench.score.statistics\n"
        "assert all(callable(getattr(fsc_bench, name)) for name in fsc_bench.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_example_of_the_docstring_runs(capsys):
    example = "\n".join(re.findall(r"^    (.+)$", fsc_bench.__doc__, re.MULTILINE))
    space = {}

    exec(example, space)

    assert len(example.splitlines()) == 10
    assert sorted(space["names"]) == ["demo_colours", "demo_flickr30k", "demo_winoground"]
    table = space["after"].table.set_index(["task", "metric"])
    assert table.loc[(TASK, "accuracy"), "chance"] == 10.0
    row = space["change"].table.set_index("metric").loc["accuracy"]
    # Only one of the two has them right: what is fixed, less what is broken, of 200 pictures.
    assert row["n"] == 200 and row["fixed"] < row["broken"]
    assert row["difference"] == pytest.approx(100 * (row["fixed"] - row["broken"]) / 200)


def test_an_open_clip_model_scores_as_its_adapter_does(bare, ways):
    adapter = tiny_open_clip.load("cpu", "fp32")

    one = fsc_bench.score(bare, TASK, **ways)
    other = fsc_bench.score(adapter, TASK, limit=4)

    assert isinstance(adapter, OpenClip)
    assert one.table.equals(other.table) and one.results[TASK].n == 4


def test_a_wrapped_model_is_looked_through(bare, ways):
    plain = fsc_bench.score(bare, TASK, **ways)

    wrapped = torch.nn.DataParallel(torch.compile(bare))

    assert fsc_bench.score(wrapped, TASK, **ways).table.equals(plain.table)


def _state(model):
    return (
        [part.training for part in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        {p.device for p in model.parameters()},
    )


@pytest.mark.parametrize("fails", [False, True], ids=["scored", "after an error"])
def test_mode_gradients_and_random_numbers_are_put_back(bare, ways, fails):
    bare.train()
    bare.visual.ln_pre.eval()
    bare.logit_scale.requires_grad_(False)
    bare.text_projection.grad = torch.full_like(bare.text_projection, 0.25)

    def tokenizer(texts):
        random.random(), np.random.rand(), torch.rand(3)
        assert not any(part.training for part in bare.modules())
        if fails:
            raise UsageError("no such word")
        return ways["tokenizer"](texts)

    tokenizer.context_length = ways["tokenizer"].context_length
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = _state(bare)
        if fails:
            with pytest.raises(UsageError, match="no such word"):
                fsc_bench.score(bare, TASK, **{**ways, "tokenizer": tokenizer})
        else:
            rounded = fsc_bench.score(bare, TASK, **{**ways, "tokenizer": tokenizer})
        after = _state(bare)

    if not fails:  # the loop's autocast rounded none of its vectors
        assert rounded.run.facts["fingerprint"] and rounded.table.equals(
            fsc_bench.score(bare, TASK, **{**ways, "tokenizer": tokenizer}).table
        )
    for one, other in zip(before, after, strict=True):
        if isinstance(one, list) and any(isinstance(part, torch.Tensor) for part in one):
            assert [g is None for g in one] == [g is None for g in other]
            assert all(g is None or torch.equal(g, h) for g, h in zip(one, other, strict=True))
        else:
            assert one == other


def test_nothing_is_left_on_the_disk_unless_a_folder_is_named(bare, ways, tmp_path, drawn):
    scores = fsc_bench.score(bare, TASK, **ways)
    folder = scores.run.path
    prints = {path.name for path in (drawn / "embeddings").glob("*")}

    assert folder.is_dir() and scores.run.facts["fingerprint"][:32] not in prints
    del scores
    assert not folder.exists()
    kept = fsc_bench.score(bare, TASK, out=tmp_path, **ways)
    assert kept.run.path.parent == tmp_path and (tmp_path / "embeddings").is_dir()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda b, w: fsc_bench.score(b, "demo_colour", **w), "demo_colour'.*demo_colours"),
        (lambda b, w: fsc_bench.score(b, "quick", **w), "no task called 'quick'"),
        (lambda b, w: fsc_bench.score(b, [], **w), "empty list"),
        (lambda b, w: fsc_bench.score(b, 7, **w), "7.* is a int"),
        (lambda b, w: fsc_bench.score(b, [TASK, "mnist"], **w), "two commands, or calls"),
        (lambda b, w: fsc_bench.score(b, TASK), "preprocess is missing"),
        (lambda b, w: fsc_bench.score(b, TASK, preprocess=w["preprocess"], tokenizer="words"),
         "tokenizer is a str"),
        (lambda b, w: fsc_bench.score(torch.nn.Linear(2, 2), TASK), "a Linear without identity"),
        (lambda b, w: fsc_bench.score("demo:pretraind", TASK), "pretrained"),
        (lambda b, w: fsc_bench.compare("nowhere", "nowhere"), "nowhere"),
        (lambda b, w: fsc_bench.compare(3, 4), "a int; give Scores"),
    ],
)  # fmt: skip
def test_a_wrong_use_is_one_line(bare, ways, call, said):
    with pytest.raises(FscBenchError, match=said) as raised:
        call(bare, ways)

    assert "\n" not in str(raised.value)


def test_selections_are_facts_and_every_task_of_theirs_is_known():
    names = [task.name for task in fsc_bench.tasks("fast")]

    assert len(names) == 7 and "eurosat" in names
    assert len(fsc_bench.tasks(["demo-fast", TASK])) == 3
