"""The budget: what one file may take, said where it is exceeded, raised by an option."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data.images import Images, decode
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import ImageRef
from fsc_bench.system.budget import Budget, budget, parse, within

ROOT = Path(__file__).parent.parent


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 90, 200)).save(file, "PNG")
    return file.getvalue()


def test_a_budget_is_read_as_people_write_numbers():
    found = parse("pixels=300M, bytes=1.5G,members=7k,seconds=90")

    assert found == Budget(pixels=300_000_000, bytes=1_500_000_000, members=7000, seconds=90)
    assert found.growth == 200  # what is not said stays


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pixel=3", "budget 'pixel=3': write KEY=NUMBER, such as pixels=300M. Did you mean 'pixe"),
        ("pixels", "budget 'pixels': write KEY=NUMBER"),
        ("pixels=3x", "budget 'pixels=3x': write a number, such as 300M, 8G or 3600."),
        ("pixels=-3", "budget 'pixels=-3': write a number"),
        (f"pixels={'9' * 5000}", "write a number"),
    ],
)
def test_a_budget_that_is_none_is_one_line(text, line):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert line in str(caught.value) and len(str(caught.value)) < 250


def test_a_picture_over_the_budget_is_refused_and_the_line_says_what_allows_it():
    content = picture(40, 50)

    with within(["pixels=1999"]), pytest.raises(DataError) as caught:
        decode(content, "x.png")
    assert str(caught.value) == (
        "x.png: not a readable image: it says that it has 40 x 50 pixels, 2,000; at most 1,999 are "
        "allowed (`--budget pixels=2k` allows it)"
    )
    with within(["pixels=1999"]), within(["pixels=101k"]):
        assert decode(content, "x.png").size == (40, 50)
    assert budget() == Budget()  # put back


def test_a_thin_picture_counts_as_it_is_once_resized():
    # 1 x 3,000 pixels with a short side of 224: 224 x 672,000 = 150,528,000.
    with pytest.raises(DataError, match="150,528,000 once resized; at most 100,000,000"):
        decode(picture(1, 3000), "x.png")
    assert decode(picture(1, 1900), "x.png").size == (1, 1900)  # 95,334,400


def test_a_box_is_held_to_the_same_budget(tmp_path):
    folder = tmp_path / "images" / "coco" / "val2017"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(picture(40, 50))
    images = Images(tmp_path)

    with pytest.raises(DataError, match=r"its box .* has 30,000 x 30,000 pixels, 900,000,000; at"):
        images.open("own", ImageRef("coco/val2017", "x.png", (0, 0, 30_000, 30_000)))
    assert images.open("own", ImageRef("coco/val2017", "x.png", (30, 0, 70, 9))).size == (40, 9)


def test_a_record_reads_registered_sources_alone(tmp_path):
    (tmp_path / "secret").write_bytes(picture(4, 4))
    for source in (str(tmp_path), "..", "coco/../.."):
        with pytest.raises(DataError, match=r"names the image source .*, which there is not"):
            Images(tmp_path / "data").content("own", ImageRef(source, "secret"))


def test_a_link_that_leads_out_is_followed_unless_the_budget_says_no_and_its_folder_is_not_linked(
    tmp_path,
):
    inside, outside = tmp_path / "data/images/coco/val2017", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (outside / "x.png").write_bytes(picture(6, 7))
    (inside / "x.png").symlink_to(outside / "x.png")
    (inside / "y.png").symlink_to("z.png")  # stays inside
    (inside / "z.png").write_bytes(picture(8, 9))
    ref = ImageRef("coco/val2017", "x.png")

    assert Images(tmp_path / "data").open("own", ref).size == (6, 7)
    with within(["outside=0"]):
        with pytest.raises(DataError, match=f"leads out of its folder, to {outside}/x.png"):
            Images(tmp_path / "data").open("own", ref)
        linked = Images(tmp_path / "data")
        linked.links = {"mine": str(outside)}
        assert linked.open("own", ref).size == (6, 7)
    y = ImageRef("coco/val2017", "y.png")
    assert Images(tmp_path / "data").open("own", y).size == (8, 9)


def test_the_hubs_cache_is_made_of_links_and_is_read(tmp_path):
    repository = tmp_path / "datasets--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "123").write_bytes(picture(5, 6))
    (snapshot / "x.png").symlink_to("../../blobs/123")
    images = Images(tmp_path)
    images.links = {"coco/val2017": str(repository)}

    assert images.open("own", ImageRef("coco/val2017", "x.png")).size == (5, 6)


def test_an_array_that_promises_more_than_it_holds_is_refused_before_memory_is_set_aside(tmp_path):
    folder = tmp_path / "images" / "coco" / "val2017"
    folder.mkdir(parents=True)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (60_000, 60_000, 3)}
    )
    (folder / "x.npy").write_bytes(file.getvalue())

    with pytest.raises(DataError, match=r"promises uint8 \(60000, 60000, 3\), 10,800,000,000 byt"):
        Images(tmp_path).content("own", ImageRef("coco/val2017", "x.npy::rgb"))


def test_the_option_is_of_every_command_that_reads_foreign_files():
    for words in (["run"], ["train"], *(["data", word] for word in ("get", "link", "prepare"))):
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).output
        assert "--budget" in shown and "pixels=100M" in shown, words


STOPPED = """
import sys, time
from fsc_bench.cli import data
from fsc_bench.cli.main import app

@app.command("wait")
def wait():
    print("waiting", flush=True)
    time.sleep(60)

sys.argv = ["fsc-bench", "wait"]
app()
"""


def started(**environment: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_command_that_is_stopped_says_so_in_one_line(signal, code):
    import signal as signals

    process = started()
    process.send_signal(getattr(signals, signal))
    _, said = process.communicate(timeout=20)

    assert process.returncode == code
    assert said.strip() == "fsc-bench: stopped. The same command continues."


LAUNCHER = """
import os, subprocess, sys
environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "1"}
command = [sys.executable, "-c", sys.argv[1]]
worker = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
assert worker.stdout.readline() == b"waiting\\n"
print(worker.pid, flush=True)
worker.wait()
"""


def test_a_worker_whose_launcher_was_killed_ends_by_itself():
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, STOPPED],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    worker = int(launcher.stdout.readline())
    launcher.kill()
    launcher.communicate()
    begun = time.monotonic()
    while time.monotonic() - begun < 30 and alive(worker):
        time.sleep(0.1)

    assert not alive(worker)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
