"""The commands of training, and the model families that load what training made."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from safetensors.torch import load_file

from fsc_bench.cli import negatives
from fsc_bench.cli.main import OneLineErrors
from fsc_bench.cli.train import _draw_curve, _score, add_commands, tasks_for
from fsc_bench.data.images import write_link
from fsc_bench.errors import DataError, UsageError
from fsc_bench.models import fsc_clip, load_model, wise
from fsc_bench.results import Cell
from fsc_bench.task import select, selections
from fsc_bench.train.negatives import load_generator

app = typer.Typer(cls=OneLineErrors)
add_commands(app)
negatives.add_commands(app)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return end.value.code


@pytest.fixture(scope="module")
def demo_data(drawn, tmp_path_factory) -> Path:
    """A data folder with the demo world drawn, and nothing else."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(drawn, folder / "demo")
    return folder


FEW_STEPS = [
    "train", "demo-clip", "--data", "world:finetune?pairs=64", "--set", "batch_size=8",
    "--set", "max_steps=3", "--set", "device=cpu", "--set", "learning_rate=1e-4",
]  # fmt: skip


def scores(out: Path) -> dict[str, dict]:
    """{model's folder without its hash: {task: headline}} of a folder of results."""
    return {
        folder.name.rpartition("-")[0]: {
            file.stem: json.loads(file.read_text())["metrics"]["headline"]
            for file in (folder / "tasks").glob("*.json")
        }
        for folder in out.iterdir()
        if (folder / "tasks").is_dir()
    }


def test_recipes_lists_them_with_what_was_published(capsys):
    assert command("recipes", "--json") == 0
    listed = {recipe["name"]: recipe for recipe in json.loads(capsys.readouterr().out)}

    assert listed["laioncoco-lora-ViT-B-32"]["expected"]["zs"] == 55.9
    assert listed["cc3m-ViT-B-32"]["settings"]["global_hn_weight"] == 1.0
    assert "README" in listed["cc3m-ViT-B-32"]["notes"][0]
    assert listed["cc3m-ViT-B-32"]["differences"][0]["ours"] == "rules"
    assert listed["clip"]["differences"] == []


def test_beside_published_numbers_stands_what_differs(capsys):
    assert command("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("laioncoco-ViT-B-32 ")]
    assert row.split()[-8:] == [
        "53.5", "55.3", "58.2", "55.5", "negatives,", "missing,", "epochs,", "logits",
    ]  # fmt: skip
    assert command("recipes", "laioncoco-ViT-B-32") == 0
    said = capsys.readouterr().out
    assert (
        "published: comp 53.5, zs 55.3, i2t 58.2, t2i 55.5\n"
        "differs: negatives: rules (published: the reference code's: spaCy, WordNet and a "
        "scene-graph parser)\n"
        "differs: missing: mask (published: zero)\n"
    ) in said
    assert "data: hf download ytaek-oh/laioncoco-subset-100k" in said


TRAIN = [
    "train", "clip", "--data", "world:finetune?pairs=64", "--set", "model=demo:pretrained",
    "--set", "device=cpu", "--set", "batch_size=8", "--set", "workers=0",
]  # fmt: skip
DRY_RUN = [*TRAIN, "--dry-run"]


def with_settings(base: list[str], *settings: str) -> list[str]:
    return [*base, *(word for setting in settings for word in ("--set", setting))]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recipes", "fsc-clop"], "Did you mean 'fsc-clip'?"),
        (["train", "fsc-clip", "--set", "epoch=3"], "Did you mean 'epochs'?"),
        (["train", "fsc-clip", "--set", "epochs"], "KEY=VALUE"),
        (["train", "fsc-clip", "--set", "lora_rank=0"], "a rank is at least 1"),
        (["train", "fsc-clip"], "give --data KIND:PATH"),
        (["train", "fsc-clip", "--data", "webdatset:x"], "it is no KIND:PATH"),
        (["train", "fsc-clip", "--data", "."], "names no data below a folder"),
        (["train", "coco-ViT-B-32", "--data", "."], "coco/train_neg_clip.tsv: there is no such"),
        (["wise-ft", "demo:pretrained", "demo:pretrained", "--alphas", "0,half"], "0,0.5,1"),
        (["wise-ft", "demo", "demo:pretrained"], "write wise:FAMILY:A+FAMILY:B"),
        (["wise-ft", "dmeo:clip", "demo:clip"], "Did you mean 'demo'?"),
        (["wise-ft", "demo:clip", "demo:clip", "--alphas", "0,2"], "alpha must be within 0 and 1"),
        (["wise-ft", "demo:clip", "demo:clip", "-t", "fst"], "Did you mean 'fast'?"),
        (["train", "demo-clip", "--eval", "fsat"], "Did you mean 'fast'?"),
        (["train", "demo-clip", "--eval", "sugarcreep"], "Did you mean 'sugarcrepe'?"),
        (["train", "demo-clip", "--set", "parallel=fdsp"], "Did you mean 'fsdp'?"),
        (["train", "demo-clip", "--set", "positives=cpations"], "Did you mean 'captions'?"),
        (["train", "demo-clip", "--set", "positive_text_weight=1"], "needs paraphrases: set posi"),
        (["negatives", "show", "nowhere:x"], "Kinds:"),
        (["negatives", "show", "nowhere.parquet"], "there is no file"),
        (["wise-ft", "demo:clip", "demo:clip", "-t", "fast", "-t", "fst"], "Did you mean 'fast'?"),
        (["train", "demo-clip", "--eval", "fast", "--eval", "fsat"], "Did you mean 'fast'?"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = command(*arguments)
    line = capsys.readouterr().err

    assert code in (2, 3) and line.count("\n") == 1 and says in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model=open_clip:ViT-S-32-alt@nowhere.pt"], "there is no such file"),
        (["model=opn_clip:ViT-S-32-alt/random"], "Did you mean 'open_clip'?"),
        (["accumulate=3"], "does not divide into 1 processes of 3 parts"),
        (["batch_size=65"], "batch_size = 65 is larger than the data: 64 pairs"),
        (["data=parquet:nowhere"], "nowhere: there is no such file or folder"),
        (["data=webdatset:nowhere"], "Did you mean 'webdataset'?"),
        (["negatives=file:nowhere.parquet"], "there is no file 'nowhere.parquet'"),
        (["negatives=spacy:no_such_model"], "pip install 'fsc-bench[spacy]'"),
        (["negatives=rules:x"], "'rules' takes nothing after its name"),
        (["negatives=rules", 'negative_kinds=["swop"]'], "Did you mean 'swap'?"),
        (["epsilon=nan"], "epsilon = nan: it must be above 0"),
        (["positives=captions", "positive_text_weight=1"], "no image has a second caption"),
    ],
    ids=str,
)
def test_training_and_a_dry_run_refuse_the_same_before_the_first_step(
    settings, says, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if not settings[0].startswith("negatives="):
        settings = ["negatives=rules", *settings]
    for arguments in (DRY_RUN, TRAIN):
        code = command(*with_settings(arguments, "global_hn_weight=0.5", *settings))
        assert code in (2, 3)
        assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_there_is_refused_or_compared_by_a_dry_run_too(tmp_path, capsys):
    out = ["-o", str(tmp_path)]
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert command(*DRY_RUN, *out, "--resume") == 2
    assert "config.json is no training run's" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(
        '{"skeleton": "x", "settings": {"model": "demo:pretrained"}}'
    )
    assert command(*DRY_RUN, *out) == 2
    assert "holds a run already: --resume continues it" in capsys.readouterr().err
    assert command(*DRY_RUN, *out, "--resume") == 2
    assert "was started with batch_size = 256, not 8" in capsys.readouterr().err.splitlines()[-1]
    assert command(*DRY_RUN, "-o", str(tmp_path / "inside")) == 2
    assert f"lies inside the run {tmp_path}" in capsys.readouterr().err


def test_negatives_are_built_shown_and_trained_with(tmp_path, capsys):
    captions = tmp_path / "captions.txt"
    captions.write_text("a red dog next to a blue cat\n\na man rides a brown horse\n")
    assert command("negatives", "build", str(captions), "-o", str(tmp_path / "n.parquet")) == 0
    assert "2 captions" in capsys.readouterr().err
    assert command("negatives", "show", str(captions), "--json", "-n", "2") == 0
    shown = json.loads(capsys.readouterr().out)

    assert next(row["caption"] for row in shown) == "a red dog next to a blue cat"
    assert shown[0]["negatives"]["swap"] and shown[0]["negatives"]["replace"]
    # What was built is shown as the table it is, of the two captions the first.
    assert command("negatives", "show", str(tmp_path / "n.parquet"), "-n", "1") == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "a red dog next to a blue cat"
    held = load_generator(f"file:{tmp_path / 'n.parquet'}").rows[first]
    assert sorted(row[12:] for row in rows) == sorted(text for of in held.values() for text in of)
    assert [row[2:12].strip() for row in rows if row[2] != " "] == ["swap", "replace", "shuffle"]


def test_a_table_of_negatives_is_shown_and_one_without_says_how_its_captions_are_read(
    tmp_path, capsys
):
    table = tmp_path / "x.tsv"
    table.write_text(
        "title\tfilepath\tneg_caption\n\"a dog\t1.jpg\t['a cat', 'a fox']\na cow\t2.jpg\t[]\n"
    )
    assert command("negatives", "show", str(table), "--json") == 0
    dog, cow = json.loads(capsys.readouterr().out)
    assert dog["caption"] == '"a dog'
    assert sorted(dog["negatives"]["neg_caption"]) == ["a cat", "a fox"]
    assert cow == {"caption": "a cow", "negatives": {"neg_caption": []}}
    table.write_text("title\tfilepath\na dog\t1.jpg\n")
    assert command("negatives", "show", str(table)) == 2
    assert f"Its captions alone are coco-tsv:{table}." in capsys.readouterr().err
    binary = tmp_path / "x.bin"
    binary.write_bytes(b"\x00\xff\x81")
    assert command("negatives", "show", str(binary)) == 3
    assert "not a text file with a caption a line" in capsys.readouterr().err


def test_a_run_is_trained_and_its_settings_shown_first(tmp_path, capsys):
    world = "world:finetune?pairs=64"
    arguments = [
        "train", "demo-fsc-clip", "--data", world, "-o", str(tmp_path / "run"),
        "--set", "batch_size=8", "--set", "max_steps=2", "--set", "device=cpu",
    ]  # fmt: skip
    assert command(*arguments, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "64 pairs, 2 steps" in said and "* local_hn_weight = 0.2" in said
    assert "Of 64 captions tried have a hard negative: " in said
    assert not (tmp_path / "run").exists()
    assert command(*arguments) == 0
    assert "step 2/2" in capsys.readouterr().err

    assert load_model(f"run:{tmp_path / 'run'}").identity.architecture.startswith("open_clip")


def test_a_run_ends_with_what_was_published_and_all_that_differs(tmp_path, capsys):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'extends = "demo-clip"\n[settings]\nbatch_size = 8\nmax_steps = 1\n'
        "[expected]\ncomp = 31.5\n"
        '[reference]\nmax_steps = 40\ndata = "world:finetune"\nepoch_rounding = "up"\n'
    )
    world = ["--data", "world:finetune?pairs=52", "--set", "device=cpu"]
    out = tmp_path / "run"
    assert command("train", str(recipe), *world, "-o", str(out)) == 0
    differs = [
        "data: world:finetune?pairs=52 (published: world:finetune)",
        "max_steps: 1 (published: 40)",
        "epochs: 6 steps each, rounded down (published: 7, rounded up)",
    ]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-5:-1] == ["published: comp 31.5", *(f"differs: {one}" for one in differs)]
    assert json.loads((out / "config.json").read_text())["differences"] == differs


# --- training, then scoring ---------------------------------------------------------------------


def test_eval_ends_in_a_table_of_the_first_model_and_the_trained_one(
    tmp_path, capsys, demo_data, monkeypatch
):
    monkeypatch.setenv("FSC_BENCH_DATA", str(demo_data))
    out = tmp_path / "run"
    wanted = "demo_colours,demo_digits,demo_winoground"
    assert command(*FEW_STEPS, "-o", str(out), "--eval", wanted) == 0
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split() == ["task", "metric", "pretrained", f"run:{out}", "chance", "blind"]
    end = next(place for place, line in enumerate(lines) if line.startswith("headroom"))
    rows = [line.split() for line in lines[1:end] if line]
    assert [row[0] for row in rows] == ["demo_winoground", "demo_colours", "demo_digits"]
    found = scores(tmp_path / "run-scores")
    assert len(found) == 2 and all(len(tasks) == 3 for tasks in found.values())
    for row in rows:
        for model, shown in (("demo-pretrained", row[2]), ("run-", row[4])):
            name = next(name for name in found if name.startswith(model))
            assert float(shown) == pytest.approx(found[name][row[0]][row[1]]["value"], abs=0.05)


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--resume"]], ids=str)
def test_a_task_without_data_is_told_before_the_first_step(
    more, tmp_path, capsys, demo_data, monkeypatch
):
    monkeypatch.setenv("FSC_BENCH_DATA", str(demo_data))
    out = ["-o", str(tmp_path / "run")]
    assert command(*FEW_STEPS, *out, *more, "--eval", "sugarcrepe,cifar10") == 3
    said = capsys.readouterr().err.splitlines()

    assert [line.split(": ")[1] for line in said] == ["sugarcrepe", "cifar10", "--eval"]
    assert "`fsc-bench data get sugarcrepe`" in said[0]
    assert said[2] == (
        "fsc-bench: --eval: no step was trained, as sugarcrepe, cifar10 cannot be scored, for the "
        "reasons above. Leave out what you do not need, or fetch it with `fsc-bench data get "
        "sugarcrepe cifar10`."
    )
    assert not list(tmp_path.iterdir())


OWN_SUITE = 'title = "Mine"\ntasks = ["demo_colours", "demo_digits"]\n'
OWN_TASK = """
title = "Mine"
suite = "own"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
all = 2
[data]
reader = "records"
"""


@pytest.mark.parametrize(
    ("wanted", "code", "says"),
    [
        ("mine.toml,fsc_plsu", 2, "Did you mean 'fsc_plus'?"),
        ("demo,wrong.toml", 2, "'demo_colour' is no task of the suite"),
        ("demo,nowhere.toml", 2, "nowhere.toml"),
        ("mine.toml,winoground", 2, "a task of the suite 'demo', winoground is none"),
        ("own.toml", 3, "own cannot be scored"),
        ("fsc+", 3, "bivlc, cola, colorswap, half_truths, hard_positives, mmvp_vlm, negbench"),
    ],
    ids=str,
)
def test_of_several_suites_one_that_is_wrong_is_refused_before_the_first_step(
    wanted, code, says, tmp_path, capsys, demo_data, monkeypatch
):
    monkeypatch.setenv("FSC_BENCH_DATA", str(demo_data))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(OWN_SUITE)
    (tmp_path / "own.toml").write_text(OWN_TASK)
    (tmp_path / "wrong.toml").write_text(f'{OWN_SUITE}[averages]\nA = {{ of = ["demo_colour"] }}\n')
    assert command(*FEW_STEPS, "-o", "run", "--eval", wanted) == code
    last = capsys.readouterr().err.splitlines()[-1]

    assert says in last and last.startswith("fsc-bench: ")
    assert not (tmp_path / "run").exists()


def test_a_suite_of_ones_own_is_trained_for_and_scored(tmp_path, capsys, demo_data, monkeypatch):
    monkeypatch.setenv("FSC_BENCH_DATA", str(demo_data))
    (tmp_path / "mine.toml").write_text(OWN_SUITE)
    out = tmp_path / "run"
    assert command(*FEW_STEPS, "-o", str(out), "--eval", str(tmp_path / "mine.toml")) == 0

    assert all(set(tasks) == {"demo_colours", "demo_digits"}
               for tasks in scores(tmp_path / "run-scores").values())  # fmt: skip
    assert "finished" in json.loads((out / "config.json").read_text())


def test_what_only_scoring_finds_leaves_the_trained_model_and_says_how_to_go_on(
    tmp_path, capsys, monkeypatch
):
    """A file that is there but no picture: it is opened when it is encoded, not before."""
    monkeypatch.setenv("FSC_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(OWN_TASK)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/0.png").write_text("no picture")
    picture = [{"source": ".", "path": "0.png"}]
    rows = [
        {"id": str(n), "images": picture, "texts": [f"a {n}", "b"], "subset": "all"} for n in (0, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "raw/items.parquet")
    write_link(tmp_path / "data", "own", tmp_path / "raw")

    assert command(*FEW_STEPS, "-o", "run", "--eval", "own.toml") == 3
    said = capsys.readouterr()
    assert said.out == "" and "raw/0.png: not a readable image" in said.err
    assert said.err.splitlines()[-1] == (
        "No task could be scored, for the reasons above; run:run is trained. When that is mended: "
        "`fsc-bench run -m demo:pretrained -m run:run -t own.toml`."
    )
    assert load_model("run:run").identity


def test_fast_is_a_short_list_or_the_demo_suite_for_what_came_of_the_demo(tmp_path):
    (tmp_path / "config.json").write_text('{"skeleton": "demo:pretrained"}')
    demo = [task.name for task in select(["demo"])]

    real = [task.name for task in tasks_for("open_clip:ViT-B-32/random", ["fast"])]
    fast = selections()["fast"].tasks
    assert sorted(real) == sorted(fast) and len(fast) == 7
    assert {task.group for task in select(["fast"])} == {
        "compositionality", "classification", "retrieval",
    }  # fmt: skip
    assert [task.name for task in tasks_for("demo:pretrained", ["fast"])] == demo
    assert [task.name for task in tasks_for(f"run:{tmp_path}?weights=ema", ["fast"])] == demo
    assert sorted(t.name for t in tasks_for("run:nowhere", ["fast", "svo_probes"])) == sorted(
        [*fast, "svo_probes"]
    )


def test_torchrun_on_the_command_line_gives_one_run_and_the_weights_of_one_process(
    tmp_path, demo_data
):
    two, one, log = tmp_path / "two", tmp_path / "one", tmp_path / "log"
    root = Path(__file__).parent.parent
    environment = {
        **os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1",
        "FSC_BENCH_DATA": str(demo_data),
    }  # fmt: skip
    torchrun = [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--redirects", "3", "--log-dir", str(log),
    ]  # fmt: skip
    work = ["-m", "fsc_bench", *FEW_STEPS, "-o", str(two), "--eval", "demo_colours"]
    done = subprocess.run(
        [sys.executable, *torchrun, *work],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert command(*FEW_STEPS, "-o", str(one)) == 0

    facts = json.loads((two / "config.json").read_text())
    assert facts["processes"] == 2 and "finished" in facts
    assert json.loads((one / "config.json").read_text())["processes"] == 1
    lines = (two / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3]
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    said = {
        (path.parent.name, path.name): path.read_text() for path in log.rglob("std*.log")
    }  # fmt: skip
    assert "over 2 processes" in said["0", "stderr.log"]
    assert said["0", "stdout.log"].count("demo_colours") == 1
    assert said["1", "stdout.log"] == said["1", "stderr.log"] == ""
    ours, theirs = (load_file(out / "model.safetensors") for out in (two, one))
    start = load_model("demo:pretrained").model.state_dict()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-5
    assert max(float((start[name] - theirs[name]).abs().max()) for name in theirs) > 1e-5


def test_tensorboard_holds_the_logged_scalars(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    code = (
        "import json, sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "board = EventAccumulator(sys.argv[1]).Reload()\n"
        "names = board.Tags()['scalars']\n"
        "print(json.dumps({n: [[e.step, e.value] for e in board.Scalars(n)] for n in names}))\n"
    )
    out = tmp_path / "run"
    assert command(*FEW_STEPS, "-o", str(out), "--set", "tensorboard=true") == 0
    # In a process of its own: its imports warn, and warnings are errors here.
    done = subprocess.run(
        [sys.executable, "-c", code, str(out / "tensorboard")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    board = json.loads(done.stdout)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

    assert {"loss", "contrastive", "learning_rate", "logit_scale"} <= board.keys()
    for name in ("loss", "contrastive", "learning_rate", "logit_scale"):
        assert [step for step, _ in board[name]] == [1, 3]
        for (_, value), line in zip(board[name], lines, strict=True):
            assert value == pytest.approx(line[name], rel=1e-6)


def test_tensorboard_that_is_not_installed_is_one_line_before_anything_is_written(
    tmp_path, capsys, monkeypatch
):
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as Python marks what is not there
    out = tmp_path / "run"
    assert command(*FEW_STEPS, "-o", str(out), "--set", "tensorboard=true") == 2

    line = capsys.readouterr().err
    assert line == "fsc-bench: tensorboard = true: `pip install tensorboard` first.\n"
    assert not out.exists()


# --- between two models -------------------------------------------------------------------------


def shown(svg: str) -> list[tuple[float, float, str]]:
    """The points of a picture: (x, y, where they are drawn), in the order of drawing."""
    found = []
    for mark in ElementTree.fromstring(svg).iter():
        label = mark.get("aria-label", "")
        if mark.get("aria-roledescription") == "point":
            numbers = dict(part.split(": ") for part in label.split("; "))
            found.append((float(numbers["x"]), float(numbers["y"]), mark.get("transform")))
    return found


def test_a_wise_ft_curve_ends_at_the_scores_of_both_models(
    tmp_path, capsys, demo_data, monkeypatch
):
    monkeypatch.setenv("FSC_BENCH_DATA", str(demo_data))
    models, tasks = ["demo:pretrained", "demo:fsc-clip"], ["demo_colours", "demo_sugarcrepe"]
    wanted = ["-t", tasks[0], "-t", tasks[1]]  # repeated, as `run` has it
    out = tmp_path / "curve"
    assert command("wise-ft", *models, "--alphas", "0,0.5,1", *wanted, "-o", str(out)) == 0
    said = capsys.readouterr()
    _score(models, select(tasks), tmp_path / "ends", None)
    found, ends = scores(out), scores(tmp_path / "ends")
    path = [found[f"wise-demo-pretrained-demo-fsc-clip-alpha-{alpha}"] for alpha in (0, 0.5, 1)]

    assert path[0] == ends["demo-pretrained"] and path[2] == ends["demo-fsc-clip"]
    assert path[1] not in (path[0], path[2])
    colours = [scored["demo_colours"]["accuracy"]["value"] for scored in path]
    foils = [scored["demo_sugarcrepe"]["text"]["value"] for scored in path]
    picture = out / "demo-pretrained-to-demo-fsc-clip.svg"
    assert f"Written: {picture} (demo_sugarcrepe against demo_colours)." in said.err
    assert [(x, y) for x, y, _ in shown(picture.read_text())] == [
        (pytest.approx(x), pytest.approx(y)) for x, y in zip(colours, foils, strict=True)
    ]
    # One score has no curve, and says so.
    assert command("wise-ft", *models, "--alphas", "0,1", "-t", "demo_colours", "-o", str(out)) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("No curve is drawn: it takes two")


def test_the_curve_is_of_comp_against_zs_where_both_are_complete(tmp_path, capsys):
    def scored(task, value):
        headline = {metric: Cell(value, value, value) for metric in task.headline}
        return SimpleNamespace(metrics={"headline": headline}, complete=True, flags=())

    tasks = select(["demo"])
    results = {
        share: {task.name: scored(task, 40.0 + 10 * share) for task in tasks} for share in (0, 1)
    }
    _draw_curve(results, tasks, tmp_path, "a to b")
    assert "(Comp against ZS)" in capsys.readouterr().err
    places = shown((tmp_path / "a-to-b.svg").read_text())
    assert [(x, y) for x, y, _ in places] == [(40.0, 40.0), (50.0, 50.0)]
    del results[1]["demo_colours"]  # ZS has a hole at alpha 1: two tasks that both have, instead
    _draw_curve(results, tasks, tmp_path, "a to b")
    assert "(demo_aro against demo_crepe)" in capsys.readouterr().err


# --- light commands -----------------------------------------------------------------------------


def test_training_commands_import_no_torch_to_list_recipes(tmp_path):
    code = (
        "import sys, typer\n"
        "from fsc_bench.cli.train import add_commands\n"
        "app = typer.Typer()\nadd_commands(app)\n"
        "try:\n    app(['recipes'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


# --- families -----------------------------------------------------------------------------------


def test_the_twelve_released_checkpoints_know_their_activation():
    known = fsc_clip.released()

    assert len(known) == 12
    assert known["laioncoco-lora-ViT-L-14"].file == "laioncoco_fsc-clip-lora-ViT-L-14.pt"
    for name, entry in known.items():
        # DataComp's weights were trained with GELU, OpenAI's with QuickGELU.
        assert entry.architecture.endswith("-quickgelu") != name.startswith("dcxl")


def test_a_released_checkpoint_must_be_the_released_file(tmp_path):
    file = tmp_path / "mine.pt"
    file.write_bytes(b"something else")

    with pytest.raises(DataError, match=r"its sha256 is .* the released file's 808712c5"):
        load_model(f"fsc_clip:laioncoco-ViT-B-32@{file}")
    with pytest.raises(UsageError, match="Did you mean 'laioncoco-ViT-B-32'"):
        load_model("fsc_clip:laioncoco-ViT-B32")


def test_two_models_are_named_with_options_of_their_own():
    spec = "open_clip:ViT-B-32/random?seed=1+run:a+b?weights=ema?alpha=0.3"

    assert wise.read_spec(spec) == (
        "open_clip:ViT-B-32/random?seed=1", "run:a+b?weights=ema", 0.3,
    )  # fmt: skip
    for wrong in ("run:a", "run:a+run:b?alpha=x", "run:a+run:b?alpha=1.5"):
        with pytest.raises(UsageError):
            wise.read_spec(wrong)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="no training run"):
        load_model(f"run:{tmp_path}")
    (tmp_path / "config.json").write_text('{"skeleton": "demo:pretrained"}')
    with pytest.raises(UsageError, match=r"has no model\.safetensors"):
        load_model(f"run:{tmp_path}")
