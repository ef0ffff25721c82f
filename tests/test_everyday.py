"""Everyday use: what is said early, in one line, about names, options and the demo's folders."""

import shutil
from pathlib import Path

import pytest

import fsc_bench
from fsc_bench.cli.main import app
from fsc_bench.errors import UsageError
from fsc_bench.models import check_named, examples
from fsc_bench.system.remote import refuse_remote
from fsc_bench.task import data_folder


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


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["run", "--demo", "-o", "s3://bucket/runs"], "s3://bucket/runs"),
        (["run", "-t", "mnist", "-m", "control:chance", "--data=gs://bucket/data"], "gs://bucket/data"),
        (["data", "link", "mnist", "s3a://bucket/mnist"], "s3a://bucket/mnist"),
        (["train", "fsc-clip", "-s", "data=karpathy:az://box/coco"], "az://box/coco"),
        (["run", "-t", "mnist", "-m", "open_clip:RN50@GS://b/x.pt"], "GS://b/x.pt"),
        (["leaderboard", "s3:/bucket/runs"], "s3://bucket/runs"),
        (["status", "-o", "hdfs://node/runs"], "hdfs://node/runs"),
        (["train", "fsc-clip", "-o", "abfss://box@account/run"], "abfss://box@account/run"),
        (["cache", "ls", "--data", "oss://b/c"], "oss://b/c"),
    ],
)  # fmt: skip
def test_a_folder_on_an_object_store_is_refused_with_what_to_do(
    tmp_path, monkeypatch, capsys, words, address
):
    """A folder called `s3:` was made, and the results lay in it."""
    monkeypatch.chdir(tmp_path)
    code, out, err = ran(capsys, *words)

    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"fsc-bench: {address}: not a folder of this machine." in err
    assert "mount it" in err and not list(tmp_path.iterdir())


def test_object_stores_are_refused_in_the_environment_and_by_the_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSC_BENCH_DATA", "s3://bucket/data")
    with pytest.raises(UsageError, match=r"^s3://bucket/data: not a folder"):
        data_folder()
    with pytest.raises(UsageError, match=r"^gs://bucket/data: not a folder"):
        data_folder(Path("gs://bucket/data"))
    with pytest.raises(UsageError, match=r"^s3://bucket/x: not a folder"):
        fsc_bench.score("control:chance", tasks=["demo_digits"], out="s3://bucket/x")
    for word in ("hf:/models/clip", "hf:./clip", "clip_benchmark:x@https://h/wds_{dataset}", "a:b"):
        refuse_remote(word)  # none of these is one
