"""The way of a fine-tuned model with a real architecture of open_clip, command by command.

Trained from Parquet, from TSV with LoRA, from tars; resumed, averaged, interpolated, scored, put in
a table. What each model should score is worked out from the files it left, with open_clip alone.
"""

import contextlib
import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from conftest import TASK
from draw_images import draw
from PIL import Image
from safetensors.torch import load_file

from fsc_bench.cli.main import app
from fsc_bench.data.images import write_link
from fsc_bench.models import load_model

BASE = "open_clip:ViT-S-32-alt/random"
WORDS = ("red", "green", "blue", "dog", "cat", "man", "bike", "table", "near", "over", "old")
RECORDS = {"replace_obj": 12, "replace_att": 8, "swap_obj": 6}
FEW = {"batch_size": 4, "max_steps": 2, "warmup_steps": 0, "learning_rate": 1e-3, "device": "cpu"}


def command(*arguments: object) -> str:
    """What `fsc-bench ARGUMENTS` printed to either stream."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as end,
    ):
        app([str(argument) for argument in arguments])
    assert end.value.code == 0, said.getvalue()
    return said.getvalue()


def train(recipe: str, model: str, data: str, out: Path, *more: str, **settings: object) -> str:
    changes = [f"{name}={value}" for name, value in {**FEW, **settings}.items()]
    given = [word for change in changes for word in ("--set", change)]
    return command("train", recipe, "--model", model, "--data", data, "-o", out, *given, *more)


def shuffled(random: np.random.Generator, words: int = 5) -> str:
    return " ".join(random.permutation(WORDS)[:words])


def lay_out_pairs(root: Path, random: np.random.Generator) -> None:
    """Nine pairs with a hard negative each, as TSV, as Parquet and as a tar."""
    rows = []
    with tarfile.open(root / "00000.tar", "w") as tar:
        for number in range(9):
            file = root / f"coco/val2014/{number}.jpg"
            draw(file)
            caption, negative = shuffled(random), shuffled(random)
            rows.append((caption, f"coco/val2014/{number}.jpg", [negative], file.read_bytes()))
            for suffix, content in (("jpg", rows[-1][3]), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    lines = [f"{caption}\t{path}\t{negatives!r}" for caption, path, negatives, _ in rows]
    (root / "coco/pairs.tsv").write_text("\n".join(["title\tfilepath\tneg_caption", *lines]) + "\n")
    columns = {"caption": [row[0] for row in rows], "image": [{"bytes": row[3]} for row in rows]}
    pd.DataFrame(columns).to_parquet(root / "pairs.parquet")


def lay_out_benchmark(root: Path, random: np.random.Generator) -> dict[str, list[dict]]:
    """A benchmark of 26 records over five images in SugarCrepe's format: its rows by subset."""
    rows = {
        subset: [
            {"filename": f"{number % 5:012d}.jpg", "caption": shuffled(random),
             "negative_caption": shuffled(random)}
            for number in range(count)
        ]
        for subset, count in RECORDS.items()
    }  # fmt: skip
    (root / "raw").mkdir()
    for subset, records in rows.items():
        content = json.dumps({str(number): row for number, row in enumerate(records)})
        (root / f"raw/{subset}.json").write_text(content)
    for number in range(5):
        draw(root / f"val2017/{number:012d}.jpg")
    first, second, third = RECORDS.values()
    (root / "tiny.toml").write_text(TASK.format(first=first, second=second, third=third))
    write_link(root / "data", "tiny", root / "raw")
    write_link(root / "data", "coco/val2017", root / "val2017")
    return rows


def forget_the_last_step(out: Path, to: Path) -> None:
    """A finished run of two steps as it was when it was killed after the first."""
    shutil.copytree(out, to)
    (to / "checkpoints/step-00000002.pt").unlink()
    (to / "model.safetensors").unlink()
    facts = json.loads((to / "config.json").read_text())
    del facts["finished"]
    (to / "config.json").write_text(json.dumps(facts))


class Walk:
    """The folder of all commands, what they printed by name, and the benchmark's rows."""

    def __init__(self, root: Path):
        random = np.random.default_rng(5)
        self.root, self.said = root, {}
        lay_out_pairs(root, random)
        self.rows = lay_out_benchmark(root, random)
        self.task = root / "tiny.toml"
        self.full = f"run:{root / 'full'}"
        self.quarter = f"wise:{BASE}+{self.full}?alpha=0.25"
        self.train()
        self.score()

    def train(self) -> None:
        root, said, lora = self.root, self.said, {"tune": "lora", "checkpoint_every": 1}
        parquet, tars = f"parquet:{root / 'pairs.parquet'}", f"webdataset:{root / '00000.tar'}"
        tsv = f"coco-tsv:{root / 'coco/pairs.tsv'}"
        said["full"] = train("fsc-clip", BASE, parquet, root / "full", ema_decay=0.5)
        said["lora"] = train("fsc-clip-lora", BASE, tsv, root / "lora", negatives="data", **lora)
        forget_the_last_step(root / "lora", root / "killed")
        said["killed"] = train(
            "fsc-clip-lora", BASE, tsv, root / "killed", "--resume", negatives="data", **lora
        )
        lora["learning_rate"] = 3e-2
        said["tars"] = train(
            "clip", self.full, tars, root / "tars", "--eval", str(self.task), **lora
        )

    def score(self) -> None:
        root, said = self.root, self.said
        models = [self.full, f"{self.full}?weights=ema", self.quarter, f"run:{root / 'killed'}"]
        named = [word for model in models for word in ("-m", model)]
        scoring = ["-t", self.task, "--batch-size", 5]
        said["run"] = command("run", *named, *scoring, "-o", root / "runs", "--device", "cpu")
        curve = ["wise-ft", BASE, self.full, "--alphas", "0.25,1"]
        said["wise-ft"] = command(*curve, *scoring, "-o", root / "curve")
        said["leaderboard"] = command("leaderboard", root / "runs", "-o", root / "tables")

    def results(self, runs: str) -> dict[str, Path]:
        """The folder of each model's results below `runs`, by the model's name."""
        folders = [path.parent for path in (self.root / runs).glob("*/run.json")]
        names = [json.loads((path / "run.json").read_text())["model"] for path in folders]
        return dict(zip(names, folders, strict=True))


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Walk:
    threads = torch.get_num_threads()
    root = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSC_BENCH_DATA", str(root / "data"))
        patch.chdir(root)
        yield Walk(root)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected(walk):
    """A function from weights to the percentages that they score, by open_clip and numpy alone."""
    model, _, transform = open_clip.create_model_and_transforms("ViT-S-32-alt")
    tokenizer = open_clip.get_tokenizer("ViT-S-32-alt")
    pixels = torch.stack(
        [transform(Image.open(path)) for path in sorted((walk.root / "val2017").iterdir())]
    )

    @torch.no_grad()
    def score(weights: dict[str, torch.Tensor]) -> dict[str, float]:
        model.load_state_dict(weights)
        images = model.eval().encode_image(pixels, normalize=True)
        hits = {}
        for subset, rows in walk.rows.items():
            own = images[[int(row["filename"][:12]) for row in rows]]
            right, wrong = (
                (own * model.encode_text(tokenizer([row[key] for row in rows]), normalize=True))
                .sum(1) for key in ("caption", "negative_caption")
            )  # fmt: skip
            assert float((right - wrong).abs().min()) > 1e-6  # no number hangs on a rounding
            hits[subset] = (right > wrong).double() * 100
        # Samples count alike within a group of subsets; the headline is the mean of the groups.
        hits["replace"] = torch.cat([hits["replace_obj"], hits["replace_att"]])
        means = {name: float(found.mean()) for name, found in hits.items()}
        return {**means, "headline": (means["replace"] + means["swap_obj"]) / 2}

    return score


def found(folder: Path) -> dict[str, float]:
    """The percentages in a folder of results, of every subset and of the whole."""
    facts = json.loads((folder / "tasks/tiny.json").read_text())
    assert facts["flags"] == [] and facts["n"] == 26
    return {name: node["text"]["value"] for name, node in facts["metrics"].items()}


def test_each_model_that_training_left_scores_what_open_clip_makes_of_its_file(walk, expected):
    base = load_model(BASE).model.state_dict()
    full = load_file(walk.root / "full/model.safetensors")
    weights = {
        walk.full: full,
        f"{walk.full}?weights=ema": load_file(walk.root / "full/ema.safetensors"),
        walk.quarter: {name: torch.lerp(base[name], full[name], 0.25) for name in full},
        f"run:{walk.root / 'killed'}": load_file(walk.root / "killed/model.safetensors"),
    }
    results = walk.results("runs")
    assert results.keys() == weights.keys()
    scores = {name: expected(state) for name, state in weights.items()}
    for name, score in scores.items():
        assert found(results[name]) == pytest.approx(score), name
        assert f"text {score['headline']:.1f} [" in walk.said["run"]

    assert len({tuple(score.values()) for score in scores.values()}) > 2
    assert all(0 < score["headline"] < 100 for score in scores.values())


def test_a_run_of_a_run_is_trained_and_scored_beside_it(walk, expected):
    facts = json.loads((walk.root / "tars/config.json").read_text())
    results = walk.results("tars-scores")
    trained = f"run:{walk.root / 'tars'}"

    assert facts["skeleton"].startswith(BASE) and facts["settings"]["model"] == walk.full
    assert results.keys() == {walk.full, trained}
    assert found(results[walk.full]) == found(walk.results("runs")[walk.full])
    score = found(results[trained])
    assert score == pytest.approx(expected(load_file(walk.root / "tars/model.safetensors")))
    (row,) = [line.split() for line in walk.said["tars"].splitlines() if line.startswith("tiny ")]
    assert row[4] == f"{score['headline']:.1f}" and row[-1] == "50.0"


def test_the_same_pairs_in_parquet_and_in_tsv_begin_with_the_same_contrast(walk):
    first = {
        name: json.loads((walk.root / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("full", "lora")
    }

    assert first["full"]["contrastive"] == pytest.approx(first["lora"]["contrastive"], rel=1e-5)
    # The hard negatives are not the same: rules, and a column.
    assert first["full"]["global_hn"] != pytest.approx(first["lora"]["global_hn"], rel=1e-2)


def test_a_killed_run_of_lora_ends_as_the_undisturbed_one(walk):
    assert f"Resuming {walk.root / 'killed'} from step 1" in walk.said["killed"]
    for file in ("model.safetensors", "lora.safetensors"):
        resumed, undisturbed = (load_file(walk.root / name / file) for name in ("killed", "lora"))
        assert resumed.keys() == undisturbed.keys()
        assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed), file


def test_the_curve_between_two_models_is_that_of_their_own_runs(walk):
    curve, runs = walk.results("curve"), walk.results("runs")
    end = walk.quarter.replace("alpha=0.25", "alpha=1")

    assert curve.keys() == {walk.quarter, end}
    assert found(curve[walk.quarter]) == found(runs[walk.quarter])
    assert found(curve[end]) == found(runs[walk.full])


def test_the_leaderboard_holds_every_model_with_the_numbers_of_its_files(walk):
    with open(walk.root / "tables/mine.csv", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    results = walk.results("runs")

    assert rows.keys() == {*results, "chance"}
    for name, folder in results.items():
        assert float(rows[name]["tiny"]) == pytest.approx(found(folder)["headline"], abs=5e-5)
