"""The probe: readings worked out by hand, a training that takes no notice of it, pictures."""

import json
import re
from dataclasses import replace
from math import exp
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from test_train_loop import FSC, MODEL, furthest, metrics, recipe, run

from fsc_bench.cli import semantics as cli
from fsc_bench.cli.curves import curves
from fsc_bench.cli.main import OneLineErrors
from fsc_bench.demo.finetune import World
from fsc_bench.errors import FscBenchError, UsageError
from fsc_bench.models.run import spec_of
from fsc_bench.report.pictures import OF_PROBE, mechanism, svg
from fsc_bench.study.similarity import by_seed, measure, probe_pairs, table
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.loop import train
from fsc_bench.train.mechanism import Embedded, Probe, probe_data, readings
from fsc_bench.train.sources import keys_of, open_pairs

app = typer.Typer(cls=OneLineErrors)
cli.add_commands(app)
app.command("other")(lambda: None)  # a lone command would be the program itself

# 48 pairs of 24 images in batches of 16, looked at every second step, saved every fourth.
SMALL = {"max_steps": 6, "epochs": 3, "log_every": 1, "checkpoint_every": 4, "learning_rate": 1e-3,
         "warmup_steps": 1}  # fmt: skip
PROBED = {**SMALL, "probe_every": 2, "probe_pairs": 12}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_pairs(folder: Path, images: int, seed: int) -> str:
    """A table of pairs, two of each image, with up to two hard negatives."""
    rng = np.random.default_rng(seed)
    words = ["red", "green", "dog", "cat", "man", "bike", "near", "small", "old"]
    (folder / "val2014").mkdir(parents=True, exist_ok=True)
    rows = ["title\tfilepath\tneg_caption"]
    for number in range(2 * images):
        name = f"val2014/{seed}-{number // 2}.png"
        if number % 2 == 0:
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        said = [str(word) for word in rng.choice(words, 5, replace=False)]
        negatives = [" ".join(rng.permutation(said)) for _ in range(number % 3)]
        rows.append(f"{' '.join(said)} {number}\tcoco/{name}\t{negatives!r}")
    table = folder / f"pairs-{seed}.tsv"
    table.write_text("\n".join(rows) + "\n")
    return f"coco-tsv:{table}"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[str, str]:
    """(what is trained on, what is held out)."""
    folder = tmp_path_factory.mktemp("pairs")
    return write_pairs(folder, 24, 1), write_pairs(folder, 10, 2)


@pytest.fixture(scope="module")
def probed(data, tmp_path_factory) -> Path:
    """A run of global hard negatives alone, with a probe of other data."""
    out = tmp_path_factory.mktemp("runs") / "probed"
    torch.set_num_threads(1)
    run(data[0], out, **PROBED, probe_data=data[1], local_hn_weight=0.0)
    return out


def probe_rows(out: Path) -> list[dict]:
    return [row for row in metrics(out) if "probe_cos_random" in row]


# ---------------------------------------------------------------- readings


def test_readings_are_what_the_cosines_say():
    """Three pairs: the first with two hard negatives, the second with one, the third with none but
    with a paraphrase. The first two have one caption, as far as `apart` knows.
    """
    texts = torch.tensor(
        [[[1, 0], [0.8, 0.6], [-1, 0]], [[0.6, 0.8], [1, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]]]
    )
    now = Embedded(
        images=torch.tensor([[0.6, 0.8], [1, 0], [0, 1.0]]),
        texts=texts,
        present=torch.tensor([[True, True], [True, False], [False, False]]),
        paraphrases=torch.tensor([[0, 0], [0, 0], [0.6, 0.8]]),
        paraphrased=torch.tensor([False, False, True]),
        scale=10.0,
        local=torch.tensor([[1, -2, 3.0], [2, 1, -torch.inf], [4, -torch.inf, -torch.inf]]),
    )
    turned = torch.tensor([[1, 0], [1, 0], [0.6, 0.8]])
    base = replace(now, images=turned, texts=texts.flip(-1))
    apart = torch.tensor([[False, False, True], [False, False, True], [True, True, False]])

    found = readings(now, base, Probe((), apart, ("swap", "shuffle"), ""), focal_gamma=2.0)

    nothing = float("nan")
    p = [1 / (1 + exp(3.6) + exp(-12)), 1 / (1 + exp(4))]
    local = [1 / (1 + exp(-3) + exp(2)), 1 / (1 + exp(-1))]
    expected = {
        "cos_negative": [(0.8 - 1) / 2, 0.6, nothing],
        "cos_negative_swap": [0.8, 0.6, nothing],
        "cos_negative_shuffle": [-1, nothing, nothing],
        "cos_paraphrase": [nothing, nothing, 0.8],
        "cos_random": [0, 0.8, 0.4],
        "image_caption": [0.6, 0.6, 1],
        "image_negative": [(0.96 - 0.6) / 2, 1, nothing],
        "image_random": [0.8, 0, 0.4],
        "base_image": [0.6, 1, 0.8],
        "base_caption": [0, 0.96, 0],
        "base_negative": [(0.96 + 0) / 2, 0, nothing],
        "global_p0": [*p, nothing],
        "global_focal": [(1 - p[0]) ** 2, (1 - p[1]) ** 2, nothing],
        "global_confused": [50, 100, nothing],
        "local_p0": [*local, nothing],
        "local_focal": [(1 - local[0]) ** 2, (1 - local[1]) ** 2, nothing],
        "local_confused": [50, 0, nothing],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].numpy() == pytest.approx(values, abs=1e-6, nan_ok=True), name


def test_what_no_pair_has_is_left_out():
    one = torch.tensor([[1.0, 0]])
    now = Embedded(one, one[:, None], torch.zeros(1, 0, dtype=torch.bool), one,
                   torch.tensor([False]), 10.0, None)  # fmt: skip

    found = readings(now, None, Probe((), torch.tensor([[False]]), (), ""), 2.0)

    assert {name: value.tolist() for name, value in found.items()} == {"image_caption": [1.0]}


# ---------------------------------------------------------------- during training


def test_a_run_with_a_probe_is_the_run_without_bit_by_bit(data, probed, tmp_path):
    without, _ = run(data[0], tmp_path / "without", **SMALL, local_hn_weight=0.0)
    with_probe = torch.load(probed / "checkpoints" / "step-00000006.pt", weights_only=False)

    assert furthest(without, {k: with_probe["trainable"][k] for k in without}) == 0
    numbers = ("step", "loss", "contrastive", "global_hn", "learning_rate", "negative_accuracy")
    own = [row for row in metrics(probed) if "loss" in row]
    for row, plain in zip(own, metrics(tmp_path / "without"), strict=True):
        assert {name: row[name] for name in numbers} == {name: plain[name] for name in numbers}
    assert [row["step"] for row in probe_rows(probed)] == [0, 2, 4, 6]


def test_a_probe_tells_of_drift_and_of_local_scores_that_no_loss_asked_for(probed, data):
    first, *_, last = probe_rows(probed)

    # 10 images of two captions each: one pair of each image, whose other caption is a paraphrase.
    assert "10 pairs of coco-tsv:" in json.loads((probed / "config.json").read_text())["probe"]
    assert first["probe_base_image"] == pytest.approx(1, abs=1e-6)
    assert last["probe_base_image"] < 0.9999 and last["probe_base_caption"] < 0.9999
    assert {f"probe_{name}" for name in ("cos_paraphrase", "local_p0", "local_confused")} <= set(
        last
    )
    assert 0 < first["probe_global_focal"] < 1 and first["probe_cos_random"] < 1


def test_a_killed_and_resumed_run_has_the_same_rows(data, probed, tmp_path):
    class Killed(BaseException):
        pass

    def until_the_fifth(line: str) -> None:
        if line.startswith("step 5/"):
            raise Killed

    out = tmp_path / "killed"
    again = recipe(data[0], **PROBED, probe_data=data[1], local_hn_weight=0.0)
    with pytest.raises(Killed):
        train(again, out, say=until_the_fifth)
    assert [row["step"] for row in probe_rows(out)] == [0, 2, 4]
    train(again, out, resume=True, say=lambda line: None)

    assert probe_rows(out) == probe_rows(probed)


def test_looking_moves_no_random_stream_and_no_mode(data, tmp_path):
    from fsc_bench.train.build import build
    from fsc_bench.train.prepare import prepare

    asked = recipe(data[0], **PROBED, dev_share=0.3)
    built = build(prepare(asked, tmp_path / "run", say=lambda line: None))
    built.model.visual.eval()
    modes = [part.training for part in built.model.modules()]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    built.mechanism.begin()
    one, other = built.mechanism.measure(), built.mechanism.measure()

    assert one == other
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert [part.training for part in built.model.modules()] == modes
    assert "of the dev split" in built.facts["probe"] and not (tmp_path / "run").exists()


def test_a_probe_is_of_the_dev_split_or_says_that_it_is_trained_on(data):
    config = TrainConfig().changed({**FSC, **PROBED, "data": data[0]})
    pairs = open_pairs(data[0], keys_of(config))
    every, held = np.arange(40), np.arange(40, 48)

    dev = probe_data(config, pairs, every, held)
    none = probe_data(config, pairs, every, np.arange(0))

    assert len(dev.indices) == 4 and set(dev.indices) <= {40, 42, 44, 46}
    assert len(none.indices) == 12 and set(none.indices) <= set(every)
    assert "of the dev split" in dev.where and "that are trained on" in none.where
    assert dev.negatives.version == "data"
    plain = replace(config, negatives="none", global_hn_weight=0.0, local_hn_weight=0.0,
                    focal_gamma=0.0, label_smoothing=0.0)  # fmt: skip
    assert probe_data(plain, pairs, every, held).negatives.version.startswith("rules")
    other = probe_data(replace(config, seed=5), pairs, every, held)
    assert other.indices.tolist() == dev.indices.tolist()  # runs of two seeds are comparable
    assert probe_data(replace(config, probe_every=0), pairs, every, held) is None
    with pytest.raises(UsageError, match="there are 1 pairs of the dev split: a probe needs two"):
        probe_data(config, pairs, every, held[:2])


def test_the_demo_world_paraphrases_and_draws_everything_else_as_before():
    plain, with_them = World(50, 3, ("swap",)), World(50, 3, ("swap",), positives=True)

    found = [with_them[number] for number in range(20)]
    for number, pair in enumerate(found):
        same = plain[number]
        assert (pair.caption, pair.negatives) == (same.caption, same.negatives)
        assert not same.positives and pair.caption not in pair.positives
    assert sum(bool(pair.positives) for pair in found) >= 18
    assert sorted(found[0].positives[0].split()) != sorted(found[0].caption.split())[1:]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"probe_pairs": 1}, "probe_pairs = 1: a probe needs 2 pairs"),
        ({"probe_every": -1}, r"probe_every = -1: it must be 0 \(off\) or more"),
        ({"probe_evry": 3}, "Did you mean 'probe_every'"),
        ({"probe_every": 2, "probe_data": "coco-tsv:gone.tsv"}, "gone.tsv: there is no such file"),
        ({"probe_every": 2, "probe_data": "cocotsv:x"}, "Did you mean 'coco-tsv'"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_written(data, tmp_path, settings, says):
    with pytest.raises(FscBenchError, match=says):
        run(data[0], tmp_path / "run", **SMALL, **settings)

    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- finished models


def test_semantics_of_a_finished_run_are_the_last_look_of_its_training(data, probed):
    asked = probe_pairs(data[1], "data", "captions", 12, 0)
    name = spec_of(probed)
    found = measure([name], MODEL, asked, device="cpu")
    first, *_, last = probe_rows(probed)

    for model, row in ((MODEL, first), (name, last)):
        for reading, values in found[model].items():
            logged = row[f"probe_{reading}"]
            assert np.nanmean(values) == pytest.approx(logged, abs=2e-6), reading
    lines = {line.name: line for line in table(found)}
    one = lines["cos_negative"]
    mean, low, high = one.means[name]
    assert mean == pytest.approx(last["probe_cos_negative"], abs=2e-6) and low <= mean <= high
    change = last["probe_cos_negative"] - first["probe_cos_negative"]
    assert one.less_first[name].difference / 100 == pytest.approx(change, abs=4e-6)
    # Of rows 0, 2, ... 18 those whose number is a multiple of 3 have no hard negative: 0, 6, 12, 18
    # and their neighbours 3, 9, 15, where the other caption of the image was drawn.
    assert 2 <= one.pairs <= 8 and lines["cos_random"].pairs == 10


def test_semantics_writes_a_table_and_how_to_repeat_it(data, probed, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        app(["semantics", spec_of(probed), "--base", MODEL, "--data", data[1], "--negatives",
             "data", "--pairs", "8", "--device", "cpu", "-o", str(tmp_path)])  # fmt: skip

    assert end.value.code == 0
    table_shown = capsys.readouterr().out
    assert "caption with its hard negatives" in table_shown and "8 pairs of coco-tsv" in table_shown
    found = json.loads((tmp_path / "semantics.json").read_text())
    assert found["models"] == [MODEL, spec_of(probed)]
    assert len(found["pairs"][MODEL]["image_caption"]) == 8
    text = (tmp_path / "semantics.md").read_text()
    assert f"--base {MODEL} --data {data[1]} --negatives data" in text
    assert text.count("\n|") == 2 + len(found["lines"])
    # A name as long as a path stands below the table, not at the head of two columns.
    assert "| cosine of a | pairs | m0 | m1 | less m0 |" in text
    assert f"- m0 = {MODEL}\n- m1 = {spec_of(probed)}\n" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["control:chance", "--data", "DATA"],
            "'control:chance' cannot be probed: it offers no towers",
        ),
        (["open_clip:ViT-B-32/random"], "--data KIND:PATH: name image-text pairs"),
        (["demo:clip", "--base", "demo:clip"], "a model is named twice"),
        (["demo:clp"], "Did you mean 'clip'"),
        (["demo:clip", "--data", "DATA", "--positives", "dat"], "Did you mean 'data'"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, data, tmp_path, capsys):
    given = [data[1] if word == "DATA" else word for word in arguments]
    with pytest.raises(SystemExit) as end:
        app(["semantics", *given, "-o", str(tmp_path / "out")])

    error = capsys.readouterr().err.strip()
    assert end.value.code == 2 and re.search(says, error) and error.count("\n") == 0
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- pictures


def test_the_probe_is_drawn_beside_the_losses_and_seeds_are_one_line(probed, tmp_path, capsys):
    runs = []
    for name, seed, weight in (("a", 0, 0.5), ("b", 1, 0.5), ("c", 0, 0.0)):
        runs.append(tmp_path / name)
        runs[-1].mkdir()
        facts = json.loads((probed / "config.json").read_text())
        facts["settings"] |= {"seed": seed, "global_hn_weight": weight}
        (runs[-1] / "config.json").write_text(json.dumps(facts))
        text = (probed / "metrics.jsonl").read_text()
        (runs[-1] / "metrics.jsonl").write_text(text.replace('_p0": 0.', f'_p0": 0.{seed}'))

    assert by_seed(runs) == {"global_hn_weight 0.5": runs[:2], "global_hn_weight 0.0": runs[2:]}
    curves(runs, None, True, tmp_path / "out.svg")

    assert capsys.readouterr().out.rstrip().endswith("logit_scale, probe).")
    picture = ElementTree.fromstring((tmp_path / "out.svg").read_text())
    texts = {one.text for one in picture.iter() if one.text}
    assert {"cosine of a caption with", "swap", "a paraphrase", "its hard negatives",
            "by local score", "global_hn_weight 0.5", "loss", str(runs[2])} <= texts  # fmt: skip
    areas = [one for one in picture.iter() if one.get("aria-roledescription") == "area mark"]
    assert areas  # of the two seeds
    with pytest.raises(UsageError, match="no run looked at a probe"):
        (runs[0] / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n')
        curves(runs[:1], ["probe"], False, tmp_path / "out.svg")


def test_a_band_spans_the_seeds_at_the_steps_that_all_of_them_logged():
    one = [{"step": 0, "probe_base_image": 1.0}, {"step": 5, "probe_base_image": 0.9}]
    other = [{"step": 0, "probe_base_image": 0.8}, {"step": 9, "probe_base_image": 0.1}]
    third = [{"step": 0, "probe_base_image": 0.6}, {"step": 5, "probe_base_image": 0.5}]

    chart = mechanism({"two": [one, other], "lone": [third]}, "mine").to_dict()

    (panel,) = chart["concat"]  # nothing was logged of the other panels; data stand outside
    assert panel["title"] == list(OF_PROBE)[2]
    assert chart["data"]["values"] == [
        {"run": "two", "what": "images", "step": 0, "value": 0.9, "low": 0.8, "high": 1.0},
        {"run": "lone", "what": "images", "step": 0, "value": 0.6, "low": 0.6, "high": 0.6},
        {"run": "lone", "what": "images", "step": 5, "value": 0.5, "low": 0.5, "high": 0.5},
    ]  # fmt: skip
    assert "mine" in svg(mechanism({"two": [one, other], "lone": [third]}, "mine"))
