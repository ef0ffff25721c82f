"""Flipped bits in prepared records: they are made anew or refused, never believed.

    python tests/attack/flips.py [--count 300] [--seed 0]

One bit of `prepared/<task>.parquet`, of its seal, or of both, is turned; then the task is prepared
as every run does. What comes back must be the records that were written. Without the raw files the
damage must be said.
"""

import json
import random
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from attack.tally import Tally, Wrong, counted, finish  # noqa: E402

from fsc_bench.data.images import write_link  # noqa: E402
from fsc_bench.data.prepare import prepare  # noqa: E402
from fsc_bench.task import read_task  # noqa: E402

TASK = """
title = "Flips"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
replace_obj = 40
[data]
reader = "sugarcrepe"
sources = [{ images = "coco/val2017" }]
"""


def world(folder: Path) -> Path:
    """A task and its pictures, which are empty: they are not read here."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    rows = {
        str(number): {
            "filename": f"{number:012d}.jpg",
            "caption": f"a picture of number {number}",
            "negative_caption": f"no picture of number {number}",
        }
        for number in range(40)
    }
    (raw / "replace_obj.json").write_text(json.dumps(rows))
    (folder / "val2017").mkdir()
    for number in range(40):
        (folder / "val2017" / f"{number:012d}.jpg").touch()
    write_link(folder / "data", "coco/val2017", folder / "val2017")
    (folder / "flips.toml").write_text(TASK)
    write_link(folder / "data", "flips", raw)
    return folder / "flips.toml"


def flip(path: Path, luck: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[luck.randrange(len(content))] ^= 1 << luck.randrange(8)
    path.write_bytes(content)


def read(task, data: Path, truth: list) -> None:
    found = prepare(task, data, partial=True)
    if found.records != truth:
        raise Wrong("reads other records, without a word")


def attack(count: int, seed: int = 0) -> Tally:
    tally = Tally("flips")
    luck = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        task, data = read_task(world(folder)), folder / "data"
        truth = prepare(task, data, partial=True).records
        prepared = {path: path.read_bytes() for path in (data / "prepared").rglob("*")}
        prepared = {path: content for path, content in prepared.items() if content}
        table = data / "prepared" / "flips.parquet"
        others = [path for path in prepared if path != table]
        for number in range(count):
            for path, content in prepared.items():
                path.write_bytes(content)
            flip(table if number % 4 or not others else luck.choice(others), luck)
            if number % 4 == 3:
                hide(folder)
            tally.attempt(f"flip {number}", partial(read, task, data, truth))
            show(folder)
    return tally


def hide(folder: Path) -> None:
    """The raw files go away: nothing can be made anew."""
    shutil.move(folder / "raw", folder / "elsewhere")


def show(folder: Path) -> None:
    if (folder / "elsewhere").exists():
        shutil.move(folder / "elsewhere", folder / "raw")


if __name__ == "__main__":
    chosen = counted(300)
    finish(attack(chosen.count, chosen.seed), chosen)
