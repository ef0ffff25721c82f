"""Results that are still true: what decides a number is proved the same, or it is scored anew."""

import io
import json
import os
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fsc_bench.data.images import write_link
from fsc_bench.data.prepare import prepare
from fsc_bench.errors import DataError
from fsc_bench.run.job import Options, Silent
from fsc_bench.run.suite import run
from fsc_bench.task import read_task

CHANCE = "control:chance"
COLOURS = ("red", "green", "blue", "yellow")
TASK = """
title = "Colours"
suite = "own"
group = "classification"
kind = "classification"
version = 1
headline = ["accuracy"]
chance = 25.0
[subsets]
s = 8
[data]
reader = "READER"
[classes]
names = ["red", "green", "blue", "yellow"]
ids = ["red", "green", "blue", "yellow"]
[prompts.p]
templates = ["a {} square."]
"""


class Lines(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def colours(tmp_path):
    """(task file, raw folder, options) of eight pictures in class folders."""
    raw = tmp_path / "raw"
    for name in COLOURS:
        for number in range(2):
            (raw / name).mkdir(parents=True, exist_ok=True)
            (raw / name / f"{number}.png").write_bytes(picture(name, number))
    task = tmp_path / "colours.toml"
    task.write_text(TASK.replace("READER", "image_folder"))
    write_link(tmp_path / "data", "colours", raw)
    return task, raw, Options(data=tmp_path / "data", out=tmp_path / "runs")


def picture(colour: str, number: int) -> bytes:
    image = Image.new("RGB", (8, 8), colour)
    image.putpixel((number, 0), (1, 2, 3))
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def scored(task, options):
    """(result, whether it was reused, the lines that were said)."""
    watch = Lines()
    summary = run([CHANCE], [read_task(task)], options, watch)
    assert not summary.failures
    (result,) = summary.results[CHANCE].values()
    return result, summary.skipped == 1, "\n".join(watch.lines)


def test_replaced_pictures_are_scored_anew_even_with_equal_size_and_time(colours):
    task, raw, options = colours
    before, *_ = scored(task, options)
    for number, name in enumerate(COLOURS[:3]):  # three pictures show the next class's colour
        file = raw / name / "0.png"
        was = file.stat()
        content = picture(COLOURS[number + 1], 5)
        file.write_bytes(content + b"\0" * max(0, was.st_size - len(content)))
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))

    after, reused, said = scored(task, options)

    assert not reused
    assert "colours: 3 of 8 pictures have other content; scored anew" in said
    assert after.fingerprint != before.fingerprint
    (kept,) = options.out.glob("*/superseded/*.json")
    assert json.loads(kept.read_text())["fingerprint"] == before.fingerprint
    assert scored(task, options)[1]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"a {} square."', '"one {} square."', "the prompts changed"),
        ('names = ["red"', 'names = ["scarlet"', "the class names changed"),
        ('headline = ["accuracy"]', 'headline = ["mean_per_class"]', "the headline changed"),
        ("version = 1", "version = 2", "the task's version is 2, not 1"),
        ("[classes]", 'options = { split = "val" }\n[classes]', "the reading options changed"),
    ],
)
def test_whatever_decides_the_number_in_the_task_file_is_scored_anew(colours, old, new, line):
    task, _, options = colours
    before, *_ = scored(task, options)
    task.write_text(task.read_text().replace(old, new))

    after, reused, said = scored(task, options)

    assert not reused
    assert line in said
    assert after.parts != before.parts


def test_another_title_keeps_the_number_and_is_written(colours):
    task, _, options = colours
    before, *_ = scored(task, options)
    task.write_text(task.read_text().replace('"Colours"', '"Eight colours"'))

    after, reused, _ = scored(task, options)

    assert reused
    assert (after.metrics, after.fingerprint) == (before.metrics, before.fingerprint)
    (file,) = options.out.glob("*/tasks/colours.json")
    assert json.loads(file.read_text())["facts"]["title"] == "Eight colours"


def test_results_set_aside_within_one_second_are_all_kept(colours):
    task, _, options = colours
    for version in range(1, 5):
        task.write_text(
            task.read_text().replace(f"version = {version - 1}", f"version = {version}")
        )
        scored(task, options)

    kept = [json.loads(file.read_text()) for file in options.out.glob("*/superseded/*.json")]
    assert sorted(result["version"] for result in kept) == [1, 2, 3]
    assert len(list(options.out.glob("*/superseded/*.parquet"))) == 3


def test_a_result_that_cannot_be_read_is_set_aside(colours):
    task, _, options = colours
    whole, *_ = scored(task, options)
    (file,) = options.out.glob("*/tasks/colours.json")
    file.write_text('{"schema": 1, "half')

    again, reused, said = scored(task, options)

    assert not reused
    assert "its file cannot be read" in said
    assert again.metrics == whole.metrics


def write_parquet(folder, number):
    rows = [{"image": {"bytes": picture(name, number)}, "label": name} for name in COLOURS]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"test-{number:05}.parquet")


def write_tar(folder, number):
    (folder / "test").mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "test" / f"{number}.tar", "w") as tar:
        for label, name in enumerate(COLOURS):
            for ending, content in (("png", picture(name, number)), ("cls", b"%d" % label)):
                member = tarfile.TarInfo(f"{number}{label}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_folders(folder, number):
    for name in COLOURS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number}.png").write_bytes(picture(name, number))


@pytest.mark.parametrize(
    ("reader", "write"),
    [("image_folder", write_folders), ("columns", write_parquet), ("wds", write_tar)],
)
def test_data_that_were_completed_are_seen(tmp_path, reader, write):
    task = tmp_path / "colours.toml"
    task.write_text(TASK.replace("READER", reader))
    write(tmp_path / "raw", 0)
    write_link(tmp_path / "data", "colours", tmp_path / "raw")
    some = Options(data=tmp_path / "data", out=tmp_path / "runs", allow_partial=True)
    half, *_ = scored(task, some)
    write(tmp_path / "raw", 1)

    whole, _, said = scored(task, Options(data=some.data, out=some.out))

    assert (half.n, whole.n) == (4, 8)
    assert (len(half.flags), whole.flags) == (1, ())
    assert "there are 8 records instead of 4" in said
    assert scored(task, some)[1]  # and with --allow-partial nothing is left to do


def test_a_flipped_bit_never_reads_other_records(tiny):
    task = read_task(tiny["task"])
    records = prepare(task, tiny["data"]).records
    file = tiny["data"] / "prepared" / "tiny.parquet"
    whole = file.read_bytes()
    tiny["raw"].rename(tiny["raw"].with_name("away"))  # they cannot be made anew
    draw = random.Random(0)

    assert prepare(task, tiny["data"]).records == records
    for _ in range(60):
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"tiny\.parquet is damaged .* raw files .* are gone"):
            prepare(task, tiny["data"])


def test_damaged_records_are_made_anew_where_the_raw_files_are_there(tiny):
    task, lines = read_task(tiny["task"]), []
    records = prepare(task, tiny["data"]).records
    file = tiny["data"] / "prepared" / "tiny.parquet"
    file.write_bytes(file.read_bytes()[:-100])

    assert prepare(task, tiny["data"], say=lines.append).records == records
    assert lines == [f"tiny: {file} is damaged (it is not what was written); made anew."]
