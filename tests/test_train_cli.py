"""The commands of training, and the model families that load what training made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from fsc_bench.cli import OneLineErrors
from fsc_bench.cli_training import add_commands
from fsc_bench.errors import DataError, UsageError
from fsc_bench.models import fsc_clip, load_model, wise

app = typer.Typer(cls=OneLineErrors)
add_commands(app)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return end.value.code


def test_recipes_lists_them_with_what_was_published(capsys):
    assert command("recipes", "--json") == 0
    listed = {recipe["name"]: recipe for recipe in json.loads(capsys.readouterr().out)}

    assert listed["laioncoco-lora-ViT-B-32"]["expected"]["zs"] == 55.9
    assert listed["cc3m-ViT-B-32"]["settings"]["global_hn_weight"] == 1.0
    assert "README" in listed["cc3m-ViT-B-32"]["notes"][0]


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
        (["negatives", "show", "nowhere:x"], "Kinds:"),
        (["wise-ft", "demo:pretrained", "demo:pretrained", "--alphas", "0,half"], "0,0.5,1"),
        (["wise-ft", "demo", "demo:pretrained"], "write wise:FAMILY:A+FAMILY:B"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = command(*arguments)
    line = capsys.readouterr().err

    assert code in (2, 3) and line.count("\n") == 1 and says in line
    assert not list(tmp_path.iterdir())


def test_negatives_are_built_shown_and_trained_with(tmp_path, capsys):
    captions = tmp_path / "captions.txt"
    captions.write_text("a red dog next to a blue cat\n\na man rides a brown horse\n")
    assert command("negatives", "build", str(captions), "-o", str(tmp_path / "n.parquet")) == 0
    assert "2 captions" in capsys.readouterr().err
    assert command("negatives", "show", str(captions), "--json", "-n", "2") == 0
    shown = json.loads(capsys.readouterr().out)

    assert next(row["caption"] for row in shown) == "a red dog next to a blue cat"
    assert shown[0]["negatives"]["swap"] and shown[0]["negatives"]["replace"]


def test_a_run_is_trained_and_its_settings_shown_first(tmp_path, capsys):
    world = "world:finetune?pairs=64"
    arguments = [
        "train", "demo-fsc-clip", "--data", world, "-o", str(tmp_path / "run"),
        "--set", "batch_size=8", "--set", "max_steps=2", "--set", "device=cpu",
    ]  # fmt: skip
    assert command(*arguments, "--dry-run") == 0
    assert "64 pairs, about 2 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert command(*arguments) == 0
    assert "step 2/2" in capsys.readouterr().err

    assert load_model(f"run:{tmp_path / 'run'}").identity.architecture.startswith("open_clip")


def test_training_commands_import_no_torch_to_list_recipes(tmp_path):
    code = (
        "import sys, typer\n"
        "from fsc_bench.cli_training import add_commands\n"
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
