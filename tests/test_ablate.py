"""Ablations: which points a grid has, what is trained and by whom, and what the claims come to."""

import csv
import json
import multiprocessing
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from processes import PRELOADED
from safetensors.torch import load_file
from test_pictures import marks

from fsc_bench.cli import ablate as command_line
from fsc_bench.cli.main import OneLineErrors
from fsc_bench.results import Cell, Result, RunDirectory, Samples, read_runs, task_facts
from fsc_bench.run.claims import Claims
from fsc_bench.run.job import Options
from fsc_bench.study import ablate, figures, page, points, verdicts
from fsc_bench.study.points import Sweep, points_of
from fsc_bench.task import select
from fsc_bench.train.config import read_recipe

app = typer.Typer(cls=OneLineErrors)
command_line.add_commands(app)
app.callback()(lambda: None)  # so that the command keeps its name

FSC = read_recipe("fsc-clip")


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(["ablate", *arguments])
    return end.value.code


# ---------------------------------------------------------------- points


def settings(found, *names) -> dict:
    """By point the named settings; None for the first model."""
    return {
        one.name: one.config and tuple(getattr(one.config, name) for name in names) for one in found
    }


def test_a_grid_is_the_product_of_its_values_over_the_recipe():
    found = points_of(FSC, [], ["focal_gamma=1,2.5", "alignment=minmax,softmax"])

    assert settings(found, "focal_gamma", "alignment", "local_hn_weight") == {
        "base": None,
        "focal_gamma=1 alignment=minmax": (1.0, "minmax", 0.2),
        "focal_gamma=1 alignment=softmax": (1.0, "softmax", 0.2),
        "focal_gamma=2.5 alignment=minmax": (2.5, "minmax", 0.2),
        "focal_gamma=2.5 alignment=softmax": (2.5, "softmax", 0.2),
    }


@pytest.mark.parametrize(("recipe", "local"), [("fsc-clip", 0.2), ("laioncoco-ViT-B-16", 0.5),
                                               ("siglip-fsc", 0.2)])  # fmt: skip
def test_table_2_is_the_papers(recipe, local):
    names = ("global_hn_weight", "local_hn_weight", "focal_gamma", "label_smoothing")
    found = points_of(read_recipe(recipe), ["table2"], [])

    assert settings(found, *names) == {
        "base": None,
        "global": (0.5, 0, 0, 0),
        "local": (0, local, 0, 0),
        "both": (0.5, local, 0, 0),
        "both-focal": (0.5, local, 2, 0),
        "both-smoothing": (0.5, local, 0, 0.02),
        "full": (0.5, local, 2, 0.02),
        "global-calibrated": (0.5, 0, 2, 0.02),
        "local-calibrated": (0, local, 2, 0.02),
    }
    others = {one.config.contrast for one in found if one.config}
    assert others == {"sigmoid" if recipe == "siglip-fsc" else "model"}


def test_table_3_changes_one_setting_at_a_time_and_names_the_recipe_once():
    found = points_of(FSC, ["table3"], [])

    # 4 + 4 + 4 + 3 values, of which 4 are the recipe's own; the first model; the recipe.
    assert len(found) == 15 - 4 + 2
    changed = [
        [key for key, value in one.config.settings().items() if value != FSC.config.settings()[key]]
        for one in found
        if one.config
    ]
    assert sorted(map(len, changed)) == [0] + [1] * 11


def test_what_two_presets_share_is_one_point_and_trained_once(tmp_path):
    found = points_of(FSC, ["remove-lhn", "global-vs-local", "methods"], [])

    assert [one.name for one in found] == [
        "base", "full", "global-calibrated", "both", "global", "local", "local-calibrated", "clip",
        "negclip", "lora", "wise-0.3", "wise-0.5", "wise-0.7",
    ]  # fmt: skip
    lora = next(one for one in found if one.name == "lora").config
    assert (lora.tune, lora.learning_rate) == ("lora", pytest.approx(5e-5))
    trials = Sweep(FSC, found, (4, 5), tmp_path).trials
    # The three mixtures are made with the full point: 9 trainings at each of two seeds.
    assert [trial.seed for trial in trials] == [4] * 9 + [5] * 9
    assert len({trial.folder for trial in trials}) == 18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fsc-clip"], "an ablation of no point: name --preset (global-vs-local, methods"),
        ([], "ablate what? Name a recipe"),
        (["fsc-clp", "--preset", "table2"], "no recipe called 'fsc-clp'. Did you mean 'fsc-clip'?"),
        (["fsc-clip", "--preset", "tabel2"], "--preset 'tabel2': there is global-vs-local"),
        (["fsc-clip", "--preset", "tabel2"], "Did you mean 'table2'?"),
        (["fsc-clip", "--preset", "table2,table2"], "--preset table2 is given twice."),
        (["fsc-clip", "--grid", "focal_gama=1"], "no setting called 'focal_gama'. Did you mean "
                                                 "'focal_gamma'?"),
        (["fsc-clip", "--grid", "focal_gamma="], "a grid with no point"),
        (["fsc-clip", "--grid", "focal_gamma"], "write --grid KEY=A,B,C."),
        (["fsc-clip", "--grid", "focal_gamma=1,1.0"], "the value 1 stands twice."),
        (["fsc-clip", "--grid", "focal_gamma=1", "--grid", "focal_gamma=2"],
         "--grid focal_gamma is given twice"),
        (["fsc-clip", "--grid", "focal_gamma=1,-2"], "focal_gamma = -2.0: it must be 0 (off)"),
        (["fsc-clip", "--grid", "alignment=minmax,sofmax"], "Did you mean 'softmax'?"),
        (["fsc-clip", "--grid", "seed=1,2"], "--seeds 1,2,3 repeats every point"),
        (["fsc-clip", "--grid", "epochs=1,2", "--set", "epochs=3"], "one of the two"),
        (["fsc-clip", "--preset", "table2", "--seeds", "1,1"], "--seeds 1,1: 1 stands twice."),
        (["fsc-clip", "--preset", "table2", "--seeds", "1,x"], "write whole numbers and commas"),
        (["fsc-clip", "--preset", "table2", "--seeds", "-1"], "seed = -1: it must be 0 or more"),
        (["global-hn", "--preset", "table2"], "--preset table2 does not suit global-hn: 'local' "
                                              "is no point of a recipe with local_hn_weight = 0."),
        (["fsc-clip-lora", "--preset", "methods"], "with tune = lora"),
        (["fsc-clip", "--grid", "global_hn_weight=0", "--grid", "local_hn_weight=0,1"],
         "--grid global_hn_weight=0 local_hn_weight=0: focal_gamma and label_smoothing calibrate"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_trained(arguments, words, tmp_path, capsys):
    assert command(*arguments, "-o", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err

    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tasks_without_data_are_told_before_hours_of_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FSC_BENCH_DATA", str(tmp_path / "data"))
    out = tmp_path / "out"
    given = ["--model", "open_clip:ViT-B-32/random", "--preset", "table2"]
    given += ["-t", "sugarcrepe,cola", "-o", str(out)]
    assert command("fsc-clip", *given) == 3
    said = capsys.readouterr().err

    assert "sugarcrepe: no raw data at" in said and "cola: no raw data at" in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("fsc-bench: --tasks: no step was trained, as sugarcrepe, cola cannot")
    assert not any(out.rglob("*.safetensors")) and not any(out.rglob("config.json"))


# ---------------------------------------------------------------- verdicts

TASKS = ("demo_whatsup", "demo_shapes", "demo_flickr30k")  # one of Comp, ZS, and I2T and T2I
SEEDS = (1, 2, 3)


def scored(folder: Path, model: str, values: dict[str, float], wave: float):
    """A run's folder with stated numbers. wave: half of the draws lie so much above the number, and
    half so much below it.
    """
    directory = RunDirectory(folder, model, model)
    directory.path.mkdir(parents=True)
    directory.write_run({"model": model})
    numbers = {"demo_whatsup": {"text": values["Comp"]}, "demo_shapes": {"accuracy": values["ZS"]},
               "demo_flickr30k": {"i2t_r1": values["I2T"], "t2i_r1": 50.0}}  # fmt: skip
    for task in select(list(numbers)):
        found = numbers[task.name]
        cells = {metric: Cell(value, value - 1, value + 1, 400) for metric, value in found.items()}
        result = Result(
            task=task.name, version=task.version, kind=task.kind, fingerprint=model, n=400,
            expected=task.n, metrics={"headline": cells}, headline=task.headline, ties=0, nan=0,
            facts=task_facts(task),
        )  # fmt: skip
        signs = np.tile([1.0, -1.0], 500)
        draws = {metric: value + wave * signs for metric, value in found.items()}
        directory.write_result(result, Samples({"id": ["0"]}, draws=draws))
    return read_runs([directory.path])[0]


def sweep_of(folder: Path, names=("base", "global"), seeds=SEEDS) -> Sweep:
    found = [points.point(name, FSC.config) for name in names]
    return Sweep(FSC, tuple(found), seeds, folder)


@pytest.fixture
def measured(tmp_path):
    """A function from the first model's scores to the figures of it and of three seeds of the
    global loss: Comp 53, 54 and 55; ZS 59, 60 and 61; I2T 75, 76 and 77.
    """

    def measure(comp: float, zs: float, i2t: float, seeds=SEEDS):
        values = {"Comp": comp, "ZS": zs, "I2T": i2t}
        runs = {("base", None): scored(tmp_path / "runs", "base", values, wave=1.0)}
        for step, seed in enumerate(seeds):
            values = {"Comp": 53.0 + step, "ZS": 59.0 + step, "I2T": 75.0 + step}
            runs["global", seed] = scored(tmp_path / "runs", f"g{seed}", values, wave=0.0)
        complaints = []
        found = figures.figures(runs, select(list(TASKS)), complaints.append)
        assert not complaints
        return found

    return measure


def test_items_and_seeds_make_one_interval_and_are_stated_apart(measured):
    found = measured(50, 64, 80)
    points = found.columns["Comp"]
    over = figures.spread([(1, points["global"]), (-1, points["base"])])

    # Seeds: +3, +4, +5, so 4 with deviation 1. Items: draws at 4 - 1 and 4 + 1, so error 1. Both:
    # the square root of 1 + 1/3, with (4/3)^2 / ((1/3)^2 / 2) = 32 degrees of freedom: t = 2.0369.
    assert over.each == {1: 3, 2: 4, 3: 5}
    assert (over.value, over.between) == (4, 1)
    assert (over.item_low, over.item_high) == (3, 5)
    half = 2.0369 * (4 / 3) ** 0.5
    assert (over.low, over.high) == pytest.approx((4 - half, 4 + half), abs=1e-3)
    # 0.8530 more of t finds it in four of five cases.
    assert over.detectable == pytest.approx((2.0369 + 0.8530) * (4 / 3) ** 0.5, abs=1e-3)
    assert found.averages["Comp"] == (1, 11)


@pytest.mark.parametrize(
    ("base", "verdict", "conditions"),
    [
        ((50, 64, 80), "holds", ["holds", "holds", "holds"]),  # +4, -4, -4, each ±2.35
        ((50, 61, 80), "undecided", ["holds", "undecided", "holds"]),  # ZS -1 ±2.35
        ((50, 64, 70), "fails", ["holds", "holds", "fails"]),  # I2T +6 ±2.35
        ((53, 61, 70), "fails", ["undecided", "undecided", "fails"]),
    ],
)
def test_c1_is_as_strong_as_its_weakest_condition(measured, tmp_path, base, verdict, conditions):
    (c1,) = verdicts.judge(
        sweep_of(tmp_path), measured(*base), {"C1": verdicts.read_claims()["C1"]}
    )

    assert [one.verdict for one in c1.conditions] == conditions
    assert c1.verdict == verdict


def test_one_seed_decides_nothing_and_says_what_items_alone_do(measured, tmp_path):
    found = measured(50, 64, 80, seeds=(7,))
    judged = verdicts.judge(sweep_of(tmp_path, seeds=(7,)), found, verdicts.read_claims())

    assert judged[0].verdict == "undecided"
    comp = judged[0].conditions[0].found
    assert (comp.value, comp.item_low, comp.item_high) == (3, 2, 4)
    assert (comp.between, comp.detectable) == (None, None)


@pytest.mark.parametrize(
    ("sign", "margin", "low", "high", "verdict"),
    [
        (">", 0, 0.1, 2, "holds"), (">", 0, -0.1, 2, "undecided"), (">", 0, -2, -0.1, "fails"),
        ("<", 0, -2, -0.1, "holds"), ("<", 0, 0.1, 2, "fails"),
        (">=", 1, -0.9, 0.3, "holds"), (">=", 1, -1.1, 0.3, "undecided"),
        (">=", 1, -3, -1.1, "fails"), ("<=", 1, 0.2, 0.9, "holds"), ("<=", 1, 1.1, 3, "fails"),
        ("=", 2, -1.9, 1.9, "holds"), ("=", 2, 2.1, 3, "fails"), ("=", 2, 1, 3, "undecided"),
    ],
)  # fmt: skip
def test_a_condition_is_decided_by_its_whole_interval(sign, margin, low, high, verdict):
    condition = verdicts.Condition("ZS", {"full": 1, "both": -1}, sign, margin)

    assert condition.verdict(SimpleNamespace(low=low, high=high)) == verdict


def test_a_claim_with_several_ways_holds_by_one_of_them():
    def parts(*found):
        of = {"full": 1.0}
        return [verdicts.Measured(verdicts.Condition("ZS", of, ">", way=way), verdict)
                for way, verdict in found]  # fmt: skip

    def judged(*found):
        return verdicts._judged("C15", None, parts(*found)).verdict

    assert judged(("a", "fails"), ("a", "holds"), ("b", "holds"), ("b", "holds")) == "holds"
    assert judged(("a", "fails"), ("b", "undecided"), ("b", "holds")) == "undecided"
    assert judged(("a", "fails"), ("b", "holds"), ("b", "fails")) == "fails"


def test_a_claim_says_what_it_lacks(measured, tmp_path):
    sweep = sweep_of(tmp_path)
    judged = {one.name: one for one in
              verdicts.judge(sweep, measured(50, 64, 80), verdicts.read_claims())}  # fmt: skip

    assert judged["C3"].verdict == "not tried"
    assert judged["C3"].needs == "the point local (--preset global-vs-local)"
    assert judged["C10"].needs == (
        "the points focal_gamma=5, focal_gamma=0 (--preset scr-sensitivity)"
    )
    plain = replace(sweep, recipe=read_recipe("global-hn"))
    judged = verdicts.judge(plain, figures.Figures({}, {}), verdicts.read_claims())
    # Without the local loss "local" would be plain fine-tuning, of which C3 says nothing.
    assert judged[2].needs == "a recipe that can have local, which global-hn cannot"


def test_every_claims_points_are_known_and_its_metrics_are_averages():
    claims = verdicts.read_claims()

    assert list(claims) == [f"C{number}" for number in range(1, 16)]
    for claim in claims.values():
        for condition in claim.conditions:
            assert condition.metric in ("Comp", "ZS", "I2T", "T2I")
            keys = [points.point(name, FSC.config).key for name in condition.of]
            assert len(set(keys)) == len(keys)
            # Above or below, the paper's own difference is on the claim's side, margins included.
            low, high = condition.bounds
            assert condition.paper is None or low <= condition.paper <= high


def test_the_page_holds_numbers_verdicts_and_the_command(measured, tmp_path):
    sweep, found = sweep_of(tmp_path), measured(50, 64, 80)
    judged = verdicts.judge(sweep, found, verdicts.read_claims())
    made = page.Made(["ablate", "fsc-clip", "--set", "a b=1"], FSC.config.settings(),
                     {"torch": "9.9"}, ["demo_whatsup"], "a miniature",
                     missing=["both, seed 3"], failed=[("local, seed 1", "no data")])  # fmt: skip
    files = page.write(sweep, found, judged, made)

    assert {file.name for file in files} == {
        "ablation.md", "ablation.csv", "numbers.csv", "claims.csv", "ablation.svg",
    }  # fmt: skip
    text = (tmp_path / "ablation.md").read_text()
    assert "| base | the first model, untrained | 50.0 [49.0, 51.0] |" in text
    assert "| 54.0 [54.0, 54.0] ±1.0 |" not in text  # all draws alike say nothing of certainty
    assert (
        "global - base > 0 | +4.00 [+1.65, +6.35] | [+3.00, +5.00] | 1.00 | 3.34 | +7.9 | holds"
        in text
    )
    assert "- **C3** not tried" in text and "This is a miniature." in text
    assert "$ fsc-bench ablate fsc-clip --set 'a b=1'" in text and "torch 9.9" in text
    assert "local, seed 1 failed: no data" in text and "both, seed 3" in text
    rows = list(csv.DictReader((tmp_path / "numbers.csv").read_text().splitlines()))
    assert {(row["seed"], row["value"]) for row in rows
            if (row["point"], row["column"]) == ("global", "ZS")} == {
        ("1", "59"), ("2", "60"), ("3", "61")}  # fmt: skip
    svg = (tmp_path / "ablation.svg").read_text()
    places = {
        (mark["name"], mark["x"], mark["y"]) for mark in marks(svg, "point") if "name" in mark
    }
    assert {("0 base", "64", "50"), ("1 global", "60", "54"), ("1 global", "76", "54")} <= places


# ---------------------------------------------------------------- training and scoring

MODEL = """
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
import tiny_open_clip

def load(device, precision):
    adapter = tiny_open_clip.load(device, precision)

    def look(module, inputs):
        # Killed in the third step of the training of a folder that a file names.
        plan = Path(__file__).with_name("kill")
        if module.training and plan.exists():
            if list(Path(plan.read_text()).rglob("step-00000002.pt")):
                os.kill(os.getpid(), signal.SIGKILL)

    adapter.model.visual.conv1.register_forward_pre_hook(look)
    return adapter
"""


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def progress(self, what, done, total):
        pass

    def trained(self) -> list[str]:
        return [line.removesuffix(": training") for line in self.lines if line.endswith("training")]


@pytest.fixture(scope="module")
def world(tmp_path_factory, drawn) -> Path:
    """A folder with a model that can be killed, and the data that it is scored on."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "mortal.py").write_text(MODEL.format(tests=str(Path(__file__).parent)))
    shutil.copytree(drawn, folder / "data")
    return folder


def short(world: Path, out: Path, grid="focal_gamma=0,2", seeds=(1,)) -> Sweep:
    """Trainings of four steps."""
    recipe = read_recipe("demo-fsc-clip")
    config = recipe.config.changed(
        {"model": f"py:{world / 'mortal.py'}:load", "data": "world:finetune?pairs=50",
         "batch_size": 8, "max_steps": 4, "checkpoint_every": 1, "warmup_steps": 1,
         "learning_rate": 1e-3, "device": "cpu"}
    )  # fmt: skip
    recipe = replace(recipe, config=config)
    return Sweep(recipe, points_of(recipe, [], [grid]), seeds, out)


def work(sweep: Sweep, world: Path, reporter=None) -> ablate.Outcome:
    options = Options(data=world / "data", out=sweep.out / "runs", embeddings=sweep.out / "store")
    return ablate.carry_out(sweep, select(["demo_shapes"]), options, reporter or Heard())


def numbers(sweep: Sweep) -> list[dict]:
    found = figures.figures(ablate.runs(sweep, pytest.fail), select(["demo_shapes"]), pytest.fail)
    return page.number_rows(found)


def work_in_a_process(world: Path, out: Path) -> None:
    import torch

    torch.set_num_threads(1)
    work(short(world, out), world)


def killed(world: Path, out: Path) -> int:
    """The exit code of a process that works on a sweep and is killed."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    process = multiprocessing.get_context("forkserver").Process(
        target=work_in_a_process, args=(world, out)
    )
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Sweep:
    """An uninterrupted sweep of two points."""
    sweep = short(world, tmp_path_factory.mktemp("whole"))
    assert work(sweep, world).failures == []
    return sweep


def weights(sweep: Sweep) -> list[dict]:
    return [load_file(trial.folder / "model.safetensors") for trial in sweep.trials]


def test_killed_in_the_middle_and_continued_gives_the_same_numbers(world, whole, tmp_path):
    sweep = short(world, tmp_path / "out")
    (world / "kill").write_text(str(sweep.out))
    try:
        assert killed(world, sweep.out) == -signal.SIGKILL
    finally:
        (world / "kill").unlink()
    first, second = sweep.trials
    assert (ablate.begun(first), ablate.begun(second)) == ("begun", "")
    heard = Heard()
    outcome = work(sweep, world, heard)

    assert (outcome.failures, outcome.elsewhere) == ([], [])
    assert any(line.startswith("  Resuming") for line in heard.lines)
    for ours, theirs in zip(weights(sweep), weights(whole), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert numbers(sweep) == numbers(whole) and len(numbers(sweep)) == 2 * 3  # ZS and its task
    # The same command once more has nothing to do.
    again = Heard()
    assert work(sweep, world, again).failures == []
    assert again.lines == []


def test_what_another_job_is_at_is_left_to_it(world, tmp_path):
    sweep = short(world, tmp_path / "out")
    first, second = sweep.trials
    other = Claims(sweep.out / "points", "training")
    heard = Heard()
    with other.begun(), other.take(str(first.folder.relative_to(sweep.out))) as taken:
        assert taken
        outcome = work(sweep, world, heard)

    assert heard.trained() == ["focal_gamma=2, seed 1"]
    assert outcome.elsewhere == ["focal_gamma=0, seed 1"]
    assert (ablate.begun(first), ablate.begun(second)) == ("", "done")
    assert set(ablate.runs(sweep, pytest.fail)) == {("base", None), ("focal_gamma=2", 1)}
    heard = Heard()
    assert work(sweep, world, heard).elsewhere == []
    assert heard.trained() == ["focal_gamma=0, seed 1"]


def test_a_point_that_fails_stops_no_other(world, whole):
    sweep = short(world, whole.out, grid="negatives=file:none.parquet,data")
    heard = Heard()
    outcome = work(sweep, world, heard)

    # The other point is the recipe's own, which the sweep of the fixture has trained already.
    ((name, error),) = outcome.failures
    assert name == "negatives=file:none.parquet, seed 1" and "none.parquet" in str(error)
    assert outcome.exit_code == error.exit_code
    assert any(line.startswith(f"fsc-bench: {name}: ") for line in heard.lines)
    assert heard.trained() == [name]
    assert ("negatives=data", 1) in ablate.runs(sweep, pytest.fail)


def test_a_training_of_other_contents_is_not_taken_for_this_one(world, whole):
    facts = whole.trials[0].folder / "config.json"
    before = facts.read_text()
    changed = json.loads(before)
    changed["base"]["weights"] = "0" * 64
    facts.write_text(json.dumps(changed))
    try:
        outcome = work(whole, world)
    finally:
        facts.write_text(before)

    ((name, error),) = outcome.failures
    assert name == "focal_gamma=0, seed 1"
    assert "was started from other contents of the model" in str(error)
    assert ("focal_gamma=0", 1) not in ablate.runs(whole, pytest.fail, outcome.broken)
