"""Planning: everything once, what is cached, what the rest will cost; cache commands; many
commands.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from typer.testing import CliRunner

from fsc_bench.data.images import DigestCache, Images
from fsc_bench.data.prepare import prepare
from fsc_bench.embed import plan as planning
from fsc_bench.embed.plan import make_plan, text_digest, text_digests
from fsc_bench.run.claims import Claims
from fsc_bench.run.dry_run import dry_run
from fsc_bench.run.suite import Options, Silent, run
from fsc_bench.task import read_task


def options(tiny, **changes) -> Options:
    return Options(data=tiny["data"], out=tiny["out"], **changes)


def test_a_plan_holds_each_image_and_text_once(tiny):
    item = prepare(read_task(tiny["task"]), tiny["data"])
    images, cache = Images(tiny["data"]), DigestCache(tiny["data"] / "digests.sqlite")
    plan = make_plan(item, images, cache)

    assert (plan.image_uses, len(plan.image_place)) == (26, 5)
    assert (plan.text_uses, len(plan.text_key)) == (52, 52)
    (tiny["images"] / "copy.jpg").write_bytes((tiny["images"] / f"{0:012d}.jpg").read_bytes())
    assert images.digest("tiny", next(iter(plan.image_key))[1]) in plan.image_place


@pytest.mark.parametrize(("seconds", "alone"), [(100.0, True), (0.0, False)])
def test_only_slow_files_are_handed_to_threads(monkeypatch, seconds, alone):
    monkeypatch.setattr(planning, "QUICK", seconds)
    with ThreadPoolExecutor(4) as pool:
        work = planning._in_threads_if_slow(lambda i: (i, threading.get_ident()), range(1200), pool)
        items, threads = zip(*work, strict=True)

    assert items == tuple(range(1200))
    assert (set(threads) == {threading.get_ident()}) == alone


def test_texts_with_half_a_surrogate_pair_have_keys_too():
    texts = ["plain", "half \ud83d", "über"]

    assert text_digests(texts) == {text: text_digest(text) for text in texts}
    assert len(set(text_digests(texts).values())) == 3


def test_a_dry_run_says_what_is_cached_and_what_the_rest_costs(tiny):
    task = read_task(tiny["task"])
    before, code = dry_run([task], options(tiny), Silent(), ["control:chance"])
    run(["control:chance"], [task], options(tiny))
    after, _ = dry_run([task], options(tiny), Silent(), ["control:chance"])

    assert code == 0
    assert [row.task for row in before] == ["tiny", "all"]
    assert (before[0].cached_images, before[0].cached_texts) == (0, 0)
    assert before[0].seconds > 0
    assert before[0].saving > 1  # 26 samples name 5 images
    assert (after[0].cached_images, after[0].cached_texts) == (5, 52)
    assert after[1].seconds == 0
    assert not list(tiny["out"].glob("*/tasks/*.limit*"))


def test_the_command_line_shows_cached_time_saving_and_bytes_to_fetch(tiny):
    from fsc_bench.cli.main import app

    where = ["--data", str(tiny["data"]), "-o", str(tiny["out"]), "--dry-run"]
    plain = CliRunner().invoke(app, ["run", "-t", str(tiny["task"]), *where])
    costed = CliRunner().invoke(
        app, ["run", "-m", "control:chance", "-t", str(tiny["task"]), *where]
    )
    missing = CliRunner().invoke(app, ["run", "-t", "sugarcrepe", *where])

    assert (plain.exit_code, costed.exit_code, missing.exit_code) == (0, 0, 3)
    assert "saving" not in plain.stdout
    assert costed.stdout.split("\n")[0].split()[6:] == [
        "cached",
        "time",
        "saving",
        "to",
        "fetch",
        "problem",
    ]
    (row,) = [line.split() for line in costed.stdout.splitlines() if line.startswith("tiny")]
    assert row[:7] == ["tiny", "26", "26", "5", "52", "52", "0"]
    assert float(row[9].rstrip("x")) > 1
    assert "1.7 MB" in missing.stdout  # its annotations; the pictures of COCO are linked


def test_a_dry_run_without_a_model_only_counts(tiny):
    rows, _ = dry_run([read_task(tiny["task"])], options(tiny), Silent())

    assert rows[0].images == 5
    assert rows[0].seconds is None
    assert not (tiny["data"] / "embeddings").exists()


def test_a_disk_that_cannot_remember_hashes_stops_nothing(tiny, monkeypatch):
    import sqlite3

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(DigestCache, "put", full)

    assert run(["control:chance"], [read_task(tiny["task"])], options(tiny)).exit_code == 0


# ---------------------------------------------------------------- many commands


def test_a_claim_goes_to_one_and_is_free_again_afterwards(tmp_path):
    one, other = Claims(tmp_path, "fp32"), Claims(tmp_path, "fp32")
    with one.take("family:a") as mine:
        assert mine
        with other.take("family:a") as theirs, other.take("family:b") as free:
            assert (theirs, free) == (False, True)
    with other.take("family:a") as mine:
        assert mine


def test_what_was_finished_compiled_is_not_taken_for_the_model_as_it_is(tiny):
    plain, compiled, writer = (
        Claims(tiny["out"], options(tiny, compile=compile).rounding)
        for compile in (False, True, True)
    )
    with plain.begun(), compiled.begun():
        with writer.take("family:a"):
            writer.finish("family:a", "f" * 64)

        assert compiled.finished_meanwhile("family:a") == "f" * 64
        assert plain.finished_meanwhile("family:a") is None


def test_only_a_model_taken_after_a_command_began_is_trusted_whatever_the_clocks_say(tmp_path):
    """It may have been read from disk before its weights were replaced."""
    early, ours, late = (Claims(tmp_path, "fp32") for _ in range(3))
    with early.take("family:a"), ours.begun():
        early.finish("family:a", "old")
        (claim,) = (tmp_path / ".claims").glob("*/finished.json")
        os.utime(claim, (4e9, 4e9))  # a file server whose clock is decades ahead
        assert ours.finished_meanwhile("family:a") is None
    with ours.begun():
        with late.take("family:a"):
            late.finish("family:a", "new")
        os.utime(claim, (1e9, 1e9))
        assert ours.finished_meanwhile("family:a") == "new"
    assert not list((tmp_path / ".claims" / "running").iterdir())


def test_commands_that_run_at_once_divide_the_models(tiny):
    """Each model is scored once; who comes later takes over what others finished meanwhile."""
    models = [f"control:chance?seed={seed}" for seed in range(6)]
    task = read_task(tiny["task"])
    run(models[:1], [task], options(tiny))  # prepares the records once, for both
    summaries = [None, None]

    def go(place):
        summaries[place] = run(models, [task], options(tiny))

    threads = [threading.Thread(target=go, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    made = [sum(map(len, done.results.values())) - done.skipped for done in summaries]
    assert len(list(tiny["out"].glob("*/tasks/tiny.json"))) == 6
    assert sum(made) == 5
    alone = run(models, [task], Options(data=tiny["data"], out=tiny["out"] / "alone"))
    for model in models:
        assert alone.results[model] == run(models, [task], options(tiny)).results[model]


@pytest.mark.parametrize("processes", [2])
def test_several_processes_are_one_run(tiny, processes):
    """torchrun: the work is divided, process 0 writes, and the results are those of one process."""
    task = read_task(tiny["task"])
    where = ["-t", str(tiny["task"]), "-o", str(tiny["out"]), "--data", str(tiny["data"])]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "fsc_bench", "run", "-m", "control:chance", *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("95% interval") == 1
    assert "Nothing to do" not in done.stderr
    one = run(["control:chance"], [task], Options(tiny["data"], tiny["out"] / "one"))
    (together,) = tiny["out"].glob("control-chance-*/tasks/tiny.json")
    (alone,) = (tiny["out"] / "one").glob("control-chance-*/tasks/tiny.json")

    assert json.loads(together.read_text()) == json.loads(alone.read_text())
    assert one.skipped == 0
    rows = sum(file.stat().st_size for file in tiny["data"].rglob("*.idx")) // 40
    assert rows == 5 + 52  # nothing twice, nothing added to make shares even
    assert len(list(tiny["data"].rglob("*.vec"))) == 2 * processes

    # A model that fails in one of the processes fails in all, and the other model is told once.
    (tiny["out"].parent / "half.py").write_text(
        "import os\nfrom fsc_bench.errors import UsageError\nif os.environ['RANK'] == '1':\n"
        "    raise UsageError('half.py: no weights on this machine')\n"
        "from fsc_bench.models.control import Chance\nmodel = Chance(9)\n"
    )
    half = f"py:{tiny['out'].parent / 'half.py'}:model"
    again = subprocess.run([*command, "-m", half], capture_output=True, text=True, timeout=300)
    assert again.stdout == done.stdout
    assert again.stderr.count("fsc-bench: half.py: no weights on this machine") == 1
    assert again.returncode != 0
    assert "Written" not in again.stderr


# ---------------------------------------------------------------- fsc-bench cache


def test_the_cache_commands(tiny):
    import typer

    from fsc_bench.cli.cache import add_commands

    app = typer.Typer()
    add_commands(app)

    def call(*words):
        return CliRunner().invoke(app, ["cache", *words, "--data", str(tiny["data"])])

    assert json.loads(call("info", "--json").stdout) == []
    run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    (facts,) = json.loads(call("info", "--json").stdout)
    assert (facts["images"], facts["texts"], facts["damage"]) == (5, 52, [])
    assert "random directions" in call("info").stdout
    assert call("verify").exit_code == 0
    (vec,) = tiny["data"].rglob("text-*.vec")
    rows = np.memmap(vec, np.float32, "r+")
    rows[5] += 1
    rows.flush()
    broken = call("verify")
    assert broken.exit_code == 4
    assert "damaged" in broken.output
    assert call("prune").exit_code == 0
    assert call("verify").exit_code == 0
    assert json.loads(call("info", "--json").stdout)[0]["texts"] == 0
    assert call("prune", "nothing-like-it").exit_code != 0
    assert call("prune", facts["folder"].rpartition("/")[2][:8]).exit_code == 0
    assert json.loads(call("info", "--json").stdout) == []
