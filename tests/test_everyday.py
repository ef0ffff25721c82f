"""Everyday use: what is said early, in one line, about names, options and the demo's folders."""

import shutil

import pytest

from fsc_bench.cli.main import app
from fsc_bench.errors import UsageError
from fsc_bench.models import check_named, examples


def ran(capsys, *arguments) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in this process."""
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    found = capsys.readouterr()
    return end.value.code or 0, found.out, found.err


@pytest.mark.parametrize(
    ("option", "given"), [(["--batch-size", "-1"], "'-1'"), (["--limit=0"], "'0'")]
)
def test_an_option_out_of_range_comes_with_the_value(capsys, option, given):
    code, _, err = ran(capsys, "run", "--demo", *option)

    assert code == 2
    assert f"(given: {given})" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "device 'gpu' cannot be used. Did you mean 'cuda'? Here are: auto, cpu"),
        ("cdua", "Did you mean 'cuda'?"),
        ("\x1b[2J", r"device '\x1b[2J' cannot be used."),
    ],
)
def test_a_device_that_is_none_comes_with_the_near_miss(capsys, device, words):
    code, _, err = ran(capsys, "run", "-t", "mnist", "-m", "control:chance", "--device", device)

    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_misspelt_model_is_told_before_data_are_looked_for(tmp_path, capsys, dry):
    spec = "open_clip:ViT-B-32/opnai"
    code, _, err = ran(capsys, "run", "-t", "mnist", "-m", spec, "--data", tmp_path, *dry)

    assert code
    first = err.splitlines()[0]
    assert "ViT-B-32 has no tag 'opnai'. Did you mean 'openai'?" in first
    assert dry or "no raw data" not in err


def test_tasks_of_the_demo_are_scored_as_with_demo_and_never_beside_others(tmp_path, capsys, drawn):
    shutil.copytree(drawn, tmp_path / "data" / "demo")
    where = ("--data", tmp_path / "data", "-o", tmp_path / "runs", "--device", "cpu")

    code, out, err = ran(
        capsys, "run", "-t", "demo_textures", "-m", "control:chance", "--quiet", *where
    )
    assert (code, err) == (0, "")
    assert "demo_textures" in out
    code, out, _ = ran(capsys, "cache", "info", "--data", tmp_path / "data")
    assert code == 0 and len(out.splitlines()) > 3  # a header, a store, all

    code, _, err = ran(capsys, "run", "-t", "demo_textures,mnist", "-m", "control:chance", *where)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "demo_textures is a task of the suite 'demo', mnist is none" in err


def test_models_lists_names_that_can_be_pasted(capsys):
    code, out, _ = ran(capsys, "models")
    names = [name for family in examples().values() for name in family]

    assert code == 0 and len(names) > 10
    assert all(name in out for name in names)
    for name in ("control:chance", "demo:pretrained", "open_clip:ViT-B-32/random?seed=0"):
        assert name in names
        check_named(name)
    for name in names:  # of the others nothing is at hand but their form is right
        try:
            check_named(name)
        except UsageError as error:
            assert "there is no" in str(error) or "no training run" in str(error)
