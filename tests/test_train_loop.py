"""The loop: one process or two, whole or in parts, killed or not: the same weights."""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
import tiny_families
import tiny_open_clip
import torch
from PIL import Image
from safetensors.torch import load_file

from fsc_bench.errors import DataError, FscBenchError, RunError, UsageError
from fsc_bench.models import load_model
from fsc_bench.models.run import spec_of
from fsc_bench.system.stopping import Left, asked, listen
from fsc_bench.train.batches import text_blocks
from fsc_bench.train.checkpoint import (
    read_checkpoint,
    read_json,
    save_checkpoint,
    write_tensors,
)
from fsc_bench.train.config import Recipe, TrainConfig, read_recipe
from fsc_bench.train.loop import train
from fsc_bench.train.losses import fsc_clip_loss
from fsc_bench.train.schedule import decay_groups, hold_logit_scale, learning_rate
from fsc_bench.train.step import Worker
from fsc_bench.train.towers import Towers

ROOT = Path(__file__).parent.parent
MODEL = f"py:{Path(tiny_open_clip.__file__)}:load"
WORDS = [
    "red",
    "green",
    "blue",
    "dog",
    "cat",
    "man",
    "bike",
    "table",
    "near",
    "over",
    "small",
    "old",
]
# 64 pairs in batches of 16: 5 epochs are 20 steps.
FSC = {
    "model": MODEL, "negatives": "data", "global_hn_weight": 0.5, "local_hn_weight": 0.2,
    "focal_gamma": 2.0, "label_smoothing": 0.02, "batch_size": 16, "epochs": 5,
    "learning_rate": 2e-5, "warmup_steps": 5, "checkpoint_every": 10, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("coco")
    rng = np.random.default_rng(0)
    rows = ["title\tfilepath\tneg_caption"]
    for number in range(64):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        (folder / "val2014").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "val2014" / f"{number}.jpg")
        words = [str(word) for word in rng.choice(WORDS, rng.integers(3, 9))]
        count = int(rng.integers(0, 4))
        negatives = [" ".join(rng.permutation(words)) for _ in range(count)]
        rows.append(f"{' '.join(words)} {number}\tcoco/val2014/{number}.jpg\t{negatives!r}")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return f"coco-tsv:{folder / 'train.tsv'}"


@pytest.fixture(scope="module")
def captioned(data, tmp_path_factory) -> str:
    """The same rows, two an image, half of them with a paraphrase in a column of its own."""
    source = Path(data.partition(":")[2])
    header, *rows = source.read_text().splitlines()
    lines = [f"{header}\tpositive"]
    for number, row in enumerate(rows):
        title, _, negatives = row.split("\t")
        image = source.parent / f"val2014/{number // 2}.jpg"
        folder = tmp_path_factory.getbasetemp() / "captioned/val2014"
        folder.mkdir(exist_ok=True, parents=True)
        (folder / image.name).write_bytes(image.read_bytes())
        words = " ".join(sorted(title.split())) if number % 2 else ""
        lines.append(f"{title}\tval2014/{image.name}\t{negatives}\t{words}")
    table = folder.parent / "train.tsv"
    table.write_text("\n".join(lines) + "\n")
    return f"coco-tsv:{table}"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(data: str, **settings) -> Recipe:
    return Recipe("test", "", TrainConfig().changed({**FSC, "data": data, **settings}))


def run(data: str, out: Path, resume=False, **settings) -> tuple[dict, list[str]]:
    """(weights, lines said)."""
    lines: list[str] = []
    train(recipe(data, **settings), out, resume=resume, say=lines.append)
    return load_file(out / "model.safetensors"), lines


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def furthest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run of 20 steps, one process, nothing special."""
    out = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    run(data, out)
    return out


# --- what is computed ---------------------------------------------------------------------------


def test_towers_give_open_clips_features_and_the_reference_dense_tokens():
    model = tiny_open_clip.load("cpu", "fp32").model
    towers = Towers(model, tokens=True)
    tokenizer = tiny_open_clip.Tokenizer()
    ids = tokenizer(["a dog", "a dog and a cat on a sofa", "x"])
    images = torch.randn(2, 3, 32, 32)
    towers.probe(tokenizer)
    assert towers.trims
    with torch.no_grad():
        (block,) = text_blocks(ids, [0, 1, 1], [0, 0, 1], 1)
        encoded = towers(images, [block.ids], [block.end])
        order = torch.argsort(ids.argmax(1), stable=True)
        texts = model.encode_text(ids, normalize=True)[order]
        model.visual.output_tokens = True
        _, patches = model.visual(images)
        model.visual.output_tokens = False

        assert torch.allclose(encoded.text_features[0], texts, atol=1e-6)
        pictures = model.encode_image(images, normalize=True)
        assert torch.allclose(encoded.image_features, pictures, atol=1e-6)
        assert torch.allclose(encoded.image_tokens, patches @ model.visual.proj, atol=1e-6)
        end = encoded.text_tokens[0][torch.arange(3), block.end]
        unit = torch.nn.functional.normalize(end, dim=-1)
        assert torch.allclose(unit, texts, atol=1e-6)


def test_texts_are_cut_only_where_a_token_sees_none_after_it():
    model = tiny_open_clip.load("cpu", "fp32").model
    model.attn_mask.zero_()
    reads_on = Towers(model, tokens=True)
    reads_on.probe(tiny_open_clip.Tokenizer())

    assert not reads_on.trims


def test_the_loops_losses_are_those_of_the_public_entry(data, tmp_path, monkeypatch):
    seen = {}
    original = Worker.gradients

    def keep(self, batch, *args):
        answer = original(self, batch, *args)
        seen.setdefault("first", (self, batch, answer[0]))
        return answer

    monkeypatch.setattr(Worker, "gradients", keep)
    # Nothing may move before the losses are looked at again.
    run(data, tmp_path / "run", max_steps=1, learning_rate=1e-30, weight_decay=0.0)
    worker, (part,), terms = seen["first"]
    towers, (rows, kinds) = worker.encode, part.negative_mask.shape
    with torch.no_grad():
        images = worker.pixels.normalise(part.images)
        encoded = towers(images, [b.ids for b in part.texts], [b.end for b in part.texts])
    size = tiny_open_clip.CONTEXT
    features = torch.zeros(rows, 1 + kinds, 24)
    tokens, mask = torch.zeros(rows, 1 + kinds, size, 24), torch.zeros(rows, 1 + kinds, size)
    blocks = zip(part.texts, encoded.text_features, encoded.text_tokens, strict=True)
    for block, feature, token in blocks:
        place = (block.image_index, block.text_index)
        features[place] = feature
        tokens[(*place, slice(0, token.shape[1]))] = token
        mask[(*place, slice(0, token.shape[1]))] = block.token_mask.float()
    expected = fsc_clip_loss(
        encoded.image_features, features[:, 0], encoded.logit_scale,
        negative_features=features[:, 1:], negative_mask=part.negative_mask,
        image_tokens=encoded.image_tokens, text_tokens=tokens[:, 0],
        text_token_mask=mask[:, 0], negative_tokens=tokens[:, 1:],
        negative_token_mask=mask[:, 1:], focal_gamma=2.0, label_smoothing=0.02,
    )  # fmt: skip

    assert 0 < int(part.negative_mask.sum()) < part.negative_mask.numel()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-5), name


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 2.5e-4),  # a quarter of the warm-up's four steps
        (3, 1e-3),  # the warm-up's last
        (4, 1e-3),  # the first after: the cosine starts at its top
        (7, 5e-4),  # half of the six steps that are left
        (9, 6.6987298e-5),  # the last: 0.5e-3 * (1 + cos(5/6 pi)); 0 would be one step later
    ],
)
def test_learning_rate_rises_over_the_warm_up_and_falls_on_a_cosine_to_zero(step, rate):
    config = TrainConfig(learning_rate=1e-3, warmup_steps=4)

    assert learning_rate(config, step, 10) == pytest.approx(rate, rel=1e-6)


def test_each_step_has_the_schedules_rate_and_without_a_warm_up_the_first_is_whole(data, tmp_path):
    run(data, tmp_path / "run", max_steps=4, warmup_steps=1, learning_rate=1e-3, log_every=1)
    rates = [line["learning_rate"] for line in metrics(tmp_path / "run")]

    assert rates == pytest.approx([1e-3, 1e-3, 7.5e-4, 2.5e-4])
    assert learning_rate(TrainConfig(learning_rate=1e-3, warmup_steps=0), 0, 10) == 1e-3


@pytest.mark.parametrize(
    ("before", "after"),
    [(-0.7, 0.0), (0.0, 0.0), (4.6, 4.6), (4.6051, 4.6051), (4.61, 4.6051702), (5.3, 4.6051702)],
)
def test_the_logit_scale_stays_within_1_and_100_where_it_trains_and_has_no_bias(before, after):
    model = torch.nn.Module()
    model.logit_scale = torch.nn.Parameter(torch.tensor(before))
    hold_logit_scale(model)
    assert model.logit_scale.item() == pytest.approx(after, abs=1e-6)

    model.logit_scale.data.fill_(5.3)
    model.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))  # SigLIP's has no bounds
    hold_logit_scale(model)
    assert model.logit_scale.item() == pytest.approx(5.3)


DECAYING = {
    "positional_embedding", "text_projection", "token_embedding.weight", "visual.conv1.weight",
    "visual.positional_embedding", "visual.proj",
} | {
    f"{tower}transformer.resblocks.{block}.{part}"
    for tower in ("", "visual.")
    for block in (0, 1)
    for part in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight",
                 "mlp.c_proj.weight")
}  # fmt: skip


def test_all_matrices_and_no_norm_bias_or_scale_decay():
    named = dict(tiny_open_clip.build().named_parameters())
    none, some = decay_groups(named, 0.1)
    names = {id(value): name for name, value in named.items()}

    assert (none["weight_decay"], some["weight_decay"]) == (0.0, 0.1)
    assert {names[id(value)] for value in some["params"]} == DECAYING
    assert {names[id(value)] for value in none["params"]} == named.keys() - DECAYING
    # By their names, whatever their shape: the reference does so too.
    odd = {name: torch.nn.Parameter(torch.ones(2, 2)) for name in ("bn1.w", "ln_post", "fc.bias")}
    assert [group["weight_decay"] for group in decay_groups(odd, 0.1)] == [0.0]


def test_key_biases_of_which_softmax_takes_no_notice_stay_where_they_were(whole):
    before = tiny_open_clip.load("cpu", "fp32").model.state_dict()
    after = load_file(whole / "model.safetensors")
    names = [name for name in before if name.endswith("in_proj_bias")]

    assert len(names) == 4  # two blocks a tower
    for name in names:
        moved = (after[name] - before[name]).view(3, -1).abs().amax(1)
        assert moved[1] == 0 and moved[0] > 1e-6 and moved[2] > 1e-6


def test_training_lowers_the_loss(data, tmp_path):
    run(data, tmp_path / "run", learning_rate=3e-3, epochs=8, log_every=1)
    losses = [line["loss"] for line in metrics(tmp_path / "run")]

    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5
    assert losses[0] == pytest.approx(
        sum(
            weight * metrics(tmp_path / "run")[0][name]
            for name, weight in read_recipe("fsc-clip").config.weights.items()
        )
    )


# --- the same weights, however it is computed ---------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"accumulate": 4},
        {"length_buckets": 1},
        {"length_buckets": 4, "workers": 2},
        {"activation_checkpointing": True},
        {"accumulate": 2, "activation_checkpointing": True},
    ],
    ids=str,
)
def test_twenty_steps_in_parts_buckets_or_checkpointed_give_the_same_weights(
    data, whole, tmp_path, how
):
    weights, _ = run(data, tmp_path / "run", **how)

    assert furthest(weights, load_file(whole / "model.safetensors")) < 1e-6
    for ours, theirs in zip(metrics(tmp_path / "run"), metrics(whole), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("preset", ["clip", "negclip", "ce-clip", "degla", "local-hn"])
def test_parts_give_the_same_for_every_objective(data, tmp_path, preset):
    negatives = "none" if preset == "clip" else "data"
    settings = read_recipe(preset).config.settings()
    settings |= {
        "model": MODEL, "negatives": negatives, "batch_size": 16, "epochs": 2,
        "learning_rate": 2e-5, "warmup_steps": 2, "device": "cpu", "log_every": 1,
    }  # fmt: skip
    settings.pop("data")
    weights = [run(data, tmp_path / str(n), **{**settings, "accumulate": n})[0] for n in (1, 4)]
    pair = zip(metrics(tmp_path / "1"), metrics(tmp_path / "4"), strict=True)

    assert furthest(*weights) < 1e-6
    assert all(a["loss"] == pytest.approx(b["loss"], rel=1e-5) for a, b in pair)


@pytest.mark.parametrize("positives", ["data", "captions"])
def test_parts_give_the_same_with_paraphrases(data, captioned, tmp_path, positives):
    settings = {"positives": positives, "positive_text_weight": 0.5, "epochs": 2, "log_every": 1}
    whole, _ = run(captioned, tmp_path / "1", **settings)
    parts, _ = run(captioned, tmp_path / "4", accumulate=4, **settings)
    without, _ = run(captioned, tmp_path / "0", **{**settings, "positive_text_weight": 0.0})

    assert furthest(whole, parts) < 1e-6 < furthest(whole, without)
    for a, b in zip(metrics(tmp_path / "1"), metrics(tmp_path / "4"), strict=True):
        assert a["positive_text"] > 0
        assert a["positive_text"] == pytest.approx(b["positive_text"], rel=1e-5)
    # At step 1 the other losses do not know of the paraphrases; the local one least of all.
    first, bare = metrics(tmp_path / "1")[0], metrics(tmp_path / "0")[0]
    for name in ("contrastive", "global_hn", "local_hn"):
        assert first[name] == pytest.approx(bare[name], rel=1e-6)
    with pytest.raises(UsageError, match="no column 'captions' for the positive"):
        run(captioned, tmp_path / "x", **{**settings, "positives": "data",
            "positive_key": "captions"})  # fmt: skip


LAUNCHED = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_train_loop
test_train_loop.train_all(0, {out!r}, {runs!r})
"""


def train_all(rank: int, folder: str, runs: list) -> None:
    """What each of the processes does that a test starts."""
    tiny_families.register(Path(folder) / "families" / str(rank))
    for name, settings in runs:
        place = Path(folder) / name
        recipe = Recipe("test", "", TrainConfig().changed(settings))
        try:
            train(recipe, place, resume=(place / "config.json").is_file())
        except FscBenchError as error:
            print("refused", name, error)


def launch(tmp_path: Path, runs: list) -> subprocess.Popen:
    """One process, to be killed."""
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED.format(tests=str(ROOT / "tests"), runs=runs, out=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def launch_two(tmp_path: Path, runs: list) -> str:
    """What two processes of one training said."""
    processes.together(train_all, str(tmp_path), runs, said=tmp_path / "said")
    return "".join(path.read_text() for path in sorted(tmp_path.glob("said.*")))


def test_two_processes_give_the_weights_of_one(data, captioned, whole, tmp_path):
    rank = {**FSC, "data": data, "negative_columns": True, "intra_modal_weight": 0.3,
            "rank_weight": 0.2, "ema_decay": 0.9, "distillation_weight": 0.01,
            "text_grounded_weight": 0.1}  # fmt: skip
    runs = [
        ("plain", {**FSC, "data": data}),
        ("parts", {**FSC, "data": data, "accumulate": 2}),
        ("all", rank),
        ("column", {**FSC, "data": captioned, "positives": "data", "positive_text_weight": 1.0}),
    ]
    # Batch normalisation over both; a decoder that no loss reaches; SigLIP's bias. Adam makes a
    # whole step of a gradient that is rounding alone, of which a ResNet has some: not with epsilon.
    families = {
        "resnet": {"ema_decay": 0.9, "global_hn_weight": 0.0, "focal_gamma": 0.0,
                   "label_smoothing": 0.0, "epsilon": 1e-4},
        "coca": {"tune": "lora", "learning_rate": 1e-4},
        "sigmoid": {"accumulate": 2},
        "mobile": {},
    }  # fmt: skip
    few = {**FSC, "data": data, "local_hn_weight": 0.0, "max_steps": 2, "log_every": 1}
    kinds = [
        (name, {**few, "model": f"open_clip:tiny-{name}/random", **settings})
        for name, settings in families.items()
    ]
    said = launch_two(tmp_path, [*runs, *kinds])
    assert said.count("refused") == said.count("refused mobile") == 2
    assert "BatchNormAct2d each process would take the statistics of its own share" in said
    assert "over the batch of all 2 processes" in said
    tiny_families.register(tmp_path / "families")
    one = {"plain": whole, "parts": whole, "all": tmp_path / "one", "column": tmp_path / "single"}
    run(**rank, out=tmp_path / "one")
    run(**runs[-1][1], out=tmp_path / "single")

    for name, settings in kinds[:-1]:
        one[name] = tmp_path / f"{name} alone"
        run(**settings, out=one[name])
    average = load_file(tmp_path / "resnet/ema.safetensors")
    assert furthest(average, load_file(one["resnet"] / "ema.safetensors")) < 1e-6
    for name, alone in one.items():
        weights = [load_file(out / "model.safetensors") for out in (tmp_path / name, alone)]
        for found in weights:  # open_clip leaves a CoCa decoder's projection as the memory was
            found.pop("text_decoder.text_projection", None)
        assert furthest(*weights) < 1e-6, name
        for ours, single in zip(metrics(tmp_path / name), metrics(alone), strict=True):
            assert ours["loss"] == pytest.approx(single["loss"], abs=1e-5), name


@pytest.mark.skipif(not shutil.which("gcc"), reason="torch.compile needs a C++ compiler here")
def test_compiled_and_sharded_over_two_processes_it_gives_the_weights_of_one(data, tmp_path):
    few = {**FSC, "data": data, "max_steps": 3, "log_every": 1}
    launch_two(tmp_path, [("compiled", {**few, "compile": True, "parallel": "fsdp"})])
    weights, _ = run(**few, out=tmp_path / "plain")

    assert furthest(weights, load_file(tmp_path / "compiled/model.safetensors")) < 1e-6
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("plain", "compiled")]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], abs=1e-5)


def forget_the_end(out: Path) -> Path:
    """The run as it was when killed after step 10."""
    (out / "checkpoints/step-00000020.pt").unlink()
    (out / "model.safetensors").unlink()
    facts = json.loads((out / "config.json").read_text())
    del facts["finished"]
    (out / "config.json").write_text(json.dumps(facts))
    return out


def test_two_sharded_processes_give_the_weights_of_one(data, captioned, whole, tmp_path):
    few = {**FSC, "data": data, "parallel": "fsdp", "max_steps": 8}
    everything = {
        "ema_decay": 0.9, "distillation_weight": 0.01, "text_grounded_weight": 0.1,
        "rank_weight": 0.2, "negative_columns": True, "data": captioned, "positives": "captions",
        "positive_text_weight": 0.5, "dev_share": 0.3, "patience": 2, "checkpoint_every": 4,
        "batch_size": 8,
    }  # fmt: skip
    runs = {
        "sharded": {**few, "max_steps": 0},
        "resumed": {**few, "max_steps": 0},
        "parts": {**few, "accumulate": 2, "activation_checkpointing": True},
        "lora": {**few, "tune": "lora", "learning_rate": 1e-4},
        # With so large an epsilon a step is in proportion to the gradient, the scale's above all.
        "scale": {**few, "contrastive_weight": 0.0, "epsilon": 1.0, "learning_rate": 0.05},
        "everything": {**few, **everything},
    }
    alone, one = tmp_path / "alone", {}
    for name, settings in runs.items():
        one[name] = whole if name == "resumed" else alone / name
        if name != "resumed":
            run(**settings, out=alone / name)
    # Begun by one process, to be continued by two, and the other way round.
    shutil.copytree(alone / "sharded", tmp_path / "resumed")
    forget_the_end(tmp_path / "resumed")
    said = launch_two(tmp_path, list(runs.items()))

    assert said.count("over 2 processes, sharded") == len(runs)
    assert f"Resuming {tmp_path / 'resumed'} from step 10" in said
    assert furthest(load_file(one["sharded"] / "model.safetensors"),
                    load_file(whole / "model.safetensors")) == 0.0  # fmt: skip
    files = [path.relative_to(tmp_path) for path in tmp_path.glob("*/*.safetensors")]
    assert len(files) == 8  # six models, the factors, the moving average
    for file in files:
        theirs = load_file(one[file.parts[0]] / file.name)
        assert furthest(load_file(tmp_path / file), theirs) < 1e-6, file
    for name in runs:
        for ours, single in zip(metrics(tmp_path / name), metrics(one[name]), strict=True):
            assert ours.keys() == single.keys()
            for key in ("loss", "dev_loss"):
                assert ours.get(key) == pytest.approx(single.get(key), abs=1e-5), name
    run(**runs["sharded"], out=forget_the_end(tmp_path / "sharded"), resume=True)
    weights = load_file(tmp_path / "sharded/model.safetensors")
    assert furthest(weights, load_file(whole / "model.safetensors")) < 1e-6


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(data, whole, tmp_path):
    out = tmp_path / "killed"
    process = launch(tmp_path, [("killed", {**FSC, "data": data})])
    until = time.monotonic() + 120
    while not list(out.glob("checkpoints/step-*.pt")) and time.monotonic() < until:
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    weights, lines = run(data, out, resume=True)

    assert any(line.startswith("Resuming") and "from step" in line for line in lines)
    assert furthest(weights, load_file(whole / "model.safetensors")) == 0.0
    without = [{k: v for k, v in line.items() if k not in ("images_per_second", "memory_mb")}
               for line in metrics(out) + metrics(whole)]  # fmt: skip
    assert without[: len(without) // 2] == without[len(without) // 2 :]
    _, again = run(data, out, resume=True)
    assert "Nothing to do" in again[-1]


def ask_to_leave() -> None:
    """SIGUSR1 comes before the first step."""
    listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    while not asked():
        time.sleep(0.001)


def leave(rank: int, folder: str, settings: dict) -> None:
    """What each of two processes does of which one is asked to leave."""
    if rank:
        ask_to_leave()
    try:
        train(Recipe("test", "", TrainConfig().changed(settings)), Path(folder) / "two")
    except Left as left:
        print(left)


def test_asked_to_leave_a_run_is_written_and_goes_on_to_the_same_weights(data, tmp_path):
    """Of one process bit for bit; the dev split is looked at as often as without."""
    few = {"dev_share": 0.2, "patience": 1, "checkpoint_every": 2, "batch_size": 10, "epochs": 1,
           "log_every": 1, "workers": 0}  # fmt: skip
    straight, _ = run(data, tmp_path / "straight", **few)
    recipe = tmp_path / "mine.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**FSC, "data": data, **few}.items()]
    recipe.write_text("\n".join(['title = "test"', 'source = ""', "[settings]", *lines]))
    said = tmp_path / "said.txt"
    words = ["train", str(recipe), "-o", str(tmp_path / "one")]
    process = processes.start(processes.command, words, said, {}, ask_to_leave)
    process.join()
    settings = {**FSC, "data": data, **few}
    processes.together(leave, str(tmp_path), settings, said=tmp_path / "two.said")

    assert process.exitcode == 75, said.read_text()
    left = "left after step 1 of 5, as SIGUSR1 asked. The same command with --resume continues."
    assert said.read_text().splitlines()[-1] == f"fsc-bench: {left}"
    assert [(tmp_path / f"two.{rank}").read_text().count(left) for rank in (0, 1)] == [1, 1]
    for name, most in (("one", 0.0), ("two", 1e-6)):
        out = tmp_path / name
        assert [file.name for file in out.glob("checkpoints/*.pt")] == ["step-00000001.pt"]
        assert "finished" not in read_json(out / "config.json")
        weights, lines = run(data, out, resume=True, **few)
        assert f"Resuming {out} from step 1" in lines
        assert furthest(weights, straight) <= most
        losses = [
            [line.get("dev_loss") for line in metrics(at)] for at in (out, tmp_path / "straight")
        ]
        assert losses[0] == pytest.approx(losses[1], abs=most)


@pytest.mark.parametrize(
    "settings",
    [
        {"tune": "lora", "learning_rate": 1e-3},
        {"ema_decay": 0.9, "distillation_weight": 0.01},
        {"negative_columns": True, "rank_weight": 0.2},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_resumed_equals_uninterrupted(data, tmp_path, settings, monkeypatch):
    straight, _ = run(data, tmp_path / "straight", **settings)

    def stop_late(self, batch, step, *args, _original=Worker.gradients):
        if step == 13:
            raise KeyboardInterrupt
        return _original(self, batch, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "gradients", stop_late)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "stopped", **settings)
    resumed, lines = run(data, tmp_path / "stopped", resume=True, **settings)

    assert "from step 10" in " ".join(lines)
    assert furthest(straight, resumed) == 0.0


def test_another_recipe_does_not_resume_a_run(data, whole, tmp_path):
    with pytest.raises(UsageError, match="holds a run already: --resume"):
        run(data, whole)
    with pytest.raises(UsageError, match=r"started with focal_gamma = 2\.0, not 1\.0"):
        run(data, whole, resume=True, focal_gamma=1.0)
    with pytest.raises(UsageError, match="started with parallel = 'ddp', not 'fsdp'"):
        run(data, whole, resume=True, parallel="fsdp")


def test_a_run_of_an_older_version_resumes_with_what_it_did_not_know_switched_off(
    data, whole, tmp_path
):
    shutil.copytree(whole, tmp_path / "old")
    facts = json.loads((tmp_path / "old/config.json").read_text())
    for name in ("parallel", "positives", "positive_key", "positive_text_weight"):
        del facts["settings"][name]
    (tmp_path / "old/config.json").write_text(json.dumps(facts))
    _, lines = run(data, tmp_path / "old", resume=True)

    assert "Nothing to do" in lines[-1]
    with pytest.raises(UsageError, match="started with parallel = 'ddp', not 'fsdp'"):
        run(data, tmp_path / "old", resume=True, parallel="fsdp")


# --- what is left behind ------------------------------------------------------------------------


def test_a_run_directory_is_a_model(data, whole):
    adapter = load_model(spec_of(whole))
    facts = json.loads((whole / "config.json").read_text())

    texts = adapter.encode_texts(["a red dog", "a blue cat"])
    assert texts.shape == (2, 24) and torch.allclose(texts.norm(dim=-1), torch.ones(2))
    assert adapter.identity.weights != load_model(MODEL).identity.weights
    assert adapter.identity.weights == load_model(spec_of(whole), precision="bf16").identity.weights
    assert facts["settings"]["focal_gamma"] == 2.0 and facts["steps"] == 20
    assert facts["base"]["architecture"] == "tiny" and facts["data"]["pairs"] == 64
    assert {"torch", "open_clip_torch"} <= facts["versions"].keys() and "finished" in facts


def test_lora_is_saved_merged_with_its_factors_beside(data, tmp_path):
    out = tmp_path / "lora"
    weights, _ = run(data, out, tune="lora", learning_rate=1e-3)
    base = tiny_open_clip.load("cpu", "fp32").model.state_dict()
    factors = load_file(out / "lora.safetensors")

    assert weights.keys() == base.keys()
    moved = {name for name in base if not torch.equal(weights[name], base[name])}
    assert "visual.conv1.weight" in moved and "logit_scale" not in moved
    assert not any("ln" in name or "embedding" in name for name in moved)
    assert factors and all("lora" in name for name in factors)
    a, b = (factors[f"visual.transformer.resblocks.0.mlp.c_fc.lora_{x}"] for x in "AB")
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    assert torch.allclose(weights[name], base[name] + b @ a / 4, atol=1e-6)
    load_model(spec_of(out))


def test_the_moving_average_is_saved_beside_and_can_be_scored(data, tmp_path):
    out = tmp_path / "ema"
    weights, _ = run(data, out, ema_decay=0.9, learning_rate=1e-3)
    average = load_file(out / "ema.safetensors")
    base = tiny_open_clip.load("cpu", "fp32").model.state_dict()

    assert furthest(average, base) > 0 and furthest(average, weights) > 0
    assert load_model(f"{spec_of(out)}&weights=ema").identity != load_model(spec_of(out)).identity


def test_weights_halfway_between_two_models(data, whole):
    half = load_model(f"wise:{MODEL}+{spec_of(whole)}?alpha=0.5").model.state_dict()
    base = tiny_open_clip.load("cpu", "fp32").model.state_dict()
    tuned = load_file(whole / "model.safetensors")

    for name in tuned:
        assert torch.allclose(half[name], (base[name] + tuned[name]) / 2, atol=1e-7)
    ends = [load_model(f"wise:{MODEL}+{spec_of(whole)}?alpha={alpha}").identity for alpha in (0, 1)]
    assert [end.weights for end in ends] == [
        load_model(spec).identity.weights for spec in (MODEL, spec_of(whole))
    ]
    with pytest.raises(UsageError, match="alpha must be within 0 and 1"):
        load_model(f"wise:{MODEL}+{spec_of(whole)}?alpha=2")


def test_it_stops_early_by_the_dev_split_and_keeps_the_best_weights(data, tmp_path):
    out = tmp_path / "early"
    _, lines = run(
        data, out, dev_share=0.3, patience=1, learning_rate=0.5, batch_size=8, epochs=40,
        checkpoint_every=5, warmup_steps=0,
    )  # fmt: skip
    dev = [line for line in metrics(out) if "dev_loss" in line]
    best = min(dev, key=lambda line: line["dev_loss"])

    assert any("Stopped early" in line for line in lines)
    assert json.loads((out / "config.json").read_text())["trained_steps"] == best["step"]


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(data, tmp_path, monkeypatch):
    def poison(self, batch, step, *args, _original=Worker.gradients):
        terms, *rest = _original(self, batch, step, *args)
        if step == 14:
            terms["local_hn"] = terms["local_hn"] * float("nan")
        return terms, *rest

    monkeypatch.setattr(Worker, "gradients", poison)
    with pytest.raises(RunError, match=r"became nan at step 15.*step-00000010\.pt"):
        run(data, tmp_path / "run")
    monkeypatch.undo()
    weights, _ = run(data, tmp_path / "run", resume=True)

    assert all(bool(value.isfinite().all()) for value in weights.values())


@contextlib.contextmanager
def room_for(size: int):
    """No file may grow beyond `size` bytes: the kernel itself says no, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL_DISK = (
    r"{file}: cannot be written: the disk is full\. What was there before is untouched; make room "
    r"and go on with --resume\.$"
)


@pytest.mark.parametrize(
    ("size", "settings", "file"),
    [
        (2_000, {}, "config.json"),
        (5_000, {"log_every": 1, "max_steps": 20, "checkpoint_every": 20}, "metrics.jsonl"),
        (20_000, {}, "checkpoints/step-00000005.pt"),
        (400_000, {}, "checkpoints/step-00000005.pt"),
        (860_000, {}, "checkpoints/step-00000005.pt"),
        # LoRA's checkpoints are smaller than the merged model.
        (150_000, {"tune": "lora", "lora_rank": 1}, "model.safetensors"),
        (30_000, {"tune": "lora", "lora_rank": 1, "checkpoint_every": 20}, "checkpoints/step-.*"),
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_to_the_same_weights(
    data, tmp_path, size, settings, file
):
    out = tmp_path / "run"
    settings = {"max_steps": 10, "checkpoint_every": 5, **settings}
    with room_for(size), pytest.raises(RunError) as caught:
        run(data, out, **settings)
    written = [path.name for path in out.rglob("*")]
    weights, _ = run(data, out, resume=True, **settings)
    undisturbed, _ = run(data, tmp_path / "undisturbed", **settings)

    assert re.match(FULL_DISK.format(file=f"{re.escape(str(out))}/{file}"), str(caught.value))
    assert not [name for name in written if name.endswith(".part")]
    assert furthest(weights, undisturbed) == 0.0


@pytest.mark.parametrize("share", range(5, 100, 10))
def test_a_checkpoint_that_is_cut_anywhere_leaves_the_one_before(tmp_path, share):
    state = {f"weight {number}": torch.full((500,), number / 7) for number in range(12)}
    first, weights = save_checkpoint(tmp_path, 1, state, keep=2), tmp_path / "model.safetensors"
    write_tensors(weights, state, {})
    before = first.read_bytes(), weights.read_bytes()
    saves = (
        lambda: save_checkpoint(tmp_path, 2, state, keep=2),
        lambda: write_tensors(weights, state, {}),
    )
    for content, save in zip(before, saves, strict=True):
        with room_for(len(content) * share // 100), pytest.raises(RunError, match="disk is full"):
            save()

    assert (first.read_bytes(), weights.read_bytes()) == before
    left = {path.name for path in tmp_path.rglob("*.*")}
    assert left == {"step-00000001.pt", "model.safetensors"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:900], "not a readable checkpoint: cut short"),
        (lambda raw: raw.replace(np.float32(3 / 7).tobytes(), b"\0\0\0\0", 1), "was saved"),
        (lambda raw: raw, "no checkpoint of a training run"),  # it lacks the optimiser
    ],
)
def test_a_checkpoint_that_is_not_what_was_saved_is_one_line_with_the_way_on(
    tmp_path, change, words
):
    path = save_checkpoint(tmp_path, 1, {"trainable": torch.full((500,), 3 / 7)}, keep=2)
    path.write_bytes(change(path.read_bytes()))

    with pytest.raises(UsageError, match=words) as caught:
        read_checkpoint(path, ["trainable", "optimizer"])
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("Delete it to go on from the one before.")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"settings": []}', "[" * 100_000, '{"a": 1, "a": 2}']
)
def test_a_config_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)

    with pytest.raises(UsageError, match=r"config\.json: ") as caught:
        read_json(tmp_path / "config.json")
    assert str(caught.value).isprintable()


KILLED_WHILE_SAVING = """
import os, sys
from pathlib import Path
from fsc_bench.system.files import write_atomically
def half(partial):
    partial.write_bytes(b"half of it")
    os.kill(os.getpid(), 9)
write_atomically(Path(sys.argv[1]) / "checkpoints/step-00000007.pt", half)
"""


def test_what_a_kill_left_of_a_checkpoint_goes_with_the_next_of_another_step(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path], env=environment)
    folder = tmp_path / "checkpoints"
    (half,) = folder.iterdir()
    assert done.returncode == -9 and half.name.startswith(".step-00000007.pt.")
    # The same machine's process 1 lives: its file is spared for a minute, and while it is held.
    writer = half.name.rpartition("-")[0].rpartition("-")[0]
    fresh, old, held = (folder / f"{writer}-1-0000000{n}.part" for n in (1, 2, 3))
    for path in (fresh, old, held):
        path.write_bytes(b"half of it")
    for path in (old, held):
        os.utime(path, (time.time() - 90,) * 2)
    with open(held, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        save_checkpoint(tmp_path, 8, {"weight": torch.ones(3)}, 2)
        left = {path.name for path in folder.iterdir()}

    assert left == {"step-00000008.pt", fresh.name, held.name}


def test_damaged_images_are_counted_and_too_many_stop_the_run(tmp_path, data):
    source = Path(data.partition(":")[2])
    copy = tmp_path / "coco"
    (copy / "val2014").mkdir(parents=True)
    (copy / "train.tsv").write_text(source.read_text())
    for image in (source.parent / "val2014").iterdir():
        (copy / "val2014" / image.name).write_bytes(image.read_bytes())
    (copy / "val2014/7.jpg").write_bytes(b"not an image")
    (copy / "val2014/9.jpg").unlink()
    damaged = f"coco-tsv:{copy / 'train.tsv'}"
    _, lines = run(damaged, tmp_path / "few", epochs=1, bad_share=0.1)

    skipped = [line for line in lines if line.startswith("skipped: row 8 (val2014/7.jpg): not a")]
    assert len(skipped) == 1
    assert metrics(tmp_path / "few")[-1]["unusable_pairs"] == 2
    with pytest.raises(DataError, match=r"more than bad_share = 0\.01 of 64"):
        run(damaged, tmp_path / "many", epochs=1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 65}, "batch_size = 65 is larger than the data: 64 pairs"),
        ({"caption_key": "titel"}, "Did you mean 'title'"),
        ({"negative_key": "neg_captoin"}, "Did you mean 'neg_caption'"),
        ({"accumulate": 3}, "does not divide"),
        ({"data": "coco-tsv:nowhere.tsv"}, "no such file"),
        ({"negatives": "rules", "negative_kinds": ["swop"]}, "Did you mean 'swap'"),
        ({"model": "control:chance"}, "cannot be trained"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(data, tmp_path, settings, says):
    with pytest.raises((UsageError, DataError)) as caught:
        run(**{"data": data, "out": tmp_path / "run", **settings})

    assert says in str(caught.value)
    assert not (tmp_path / "run").exists()
