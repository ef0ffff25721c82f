"""Many processes on one folder: files, lock operations and bytes, counted and held to a bound.

    PYTHONPATH=. python tests/bench/bench_scale.py [--processes 64] [--models 96] [--tasks 3]

The command's own `run` with control models, in so many processes that are forked at once, on one
output folder and one store. An audit hook of Python counts what each asks of the file system.
Every result must be written once and every vector made once. Exit code 1 where a bound is missed.

    files     <= M (T + 10) + 10 T + 2 P         M models, T tasks, P processes
    locks     <= P (M + 4) + 4 M (T + 1)         taken and let go
    requests  <= 3 locks + 20 P seconds          a process that waits asks 20 times a second
    opens     <= requests + P (M + 8 T + 16) + 16 M (T + 4)
    lists     <= P (2 M + 8) + 8 M (T + 2)       folders that were listed
"""

import argparse
import fcntl
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402, F401 - once, not in every process
from PIL import Image  # noqa: E402

from fsc_bench.embed.store import RECORD  # noqa: E402
from fsc_bench.results import Busy  # noqa: E402
from fsc_bench.run.suite import Options, run  # noqa: E402
from fsc_bench.task import Task, read_task  # noqa: E402

IMAGES, SAMPLES = 5, 12
TASK = """
title = "Drawn {number}"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
within = "samples"
[subsets]
swap_obj = {samples}
[data]
reader = "sugarcrepe"
sources = [{{ images = "coco/val2017" }}]
"""
EVENTS = {"open": "opens", "os.rename": "renames", "os.remove": "removals",
          "os.listdir": "lists", "os.scandir": "lists"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--models", type=int, default=96)
    parser.add_argument("--tasks", type=int, default=3)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tasks = drawn(folder, sizes.tasks)
        begun = time.perf_counter()
        counted = together(folder, tasks, sizes)
        seconds = time.perf_counter() - begun
        missed = told(folder, sizes, counted, seconds)
    raise SystemExit(missed)


def drawn(folder: Path, n: int) -> list[Task]:
    """n tasks of 12 samples with texts of their own, on the same 5 pictures."""
    pictures = folder / "data" / "images" / "coco" / "val2017"
    pictures.mkdir(parents=True)
    for number in range(IMAGES):
        colour = (40 * number, 200 - 30 * number, 90)
        Image.new("RGB", (48, 32), colour).save(pictures / f"{number:012d}.jpg")
    tasks = []
    for number in range(n):
        rows = {
            str(place): {
                "filename": f"{place % IMAGES:012d}.jpg",
                "caption": f"a swap of number {place} in {number}",
                "negative_caption": f"no swap of number {place} in {number}",
            }
            for place in range(SAMPLES)
        }
        raw = folder / "data" / "raw" / f"drawn_{number}"
        raw.mkdir(parents=True)
        (raw / "swap_obj.json").write_text(json.dumps(rows))
        file = folder / f"drawn_{number}.toml"
        file.write_text(TASK.format(number=number, samples=SAMPLES))
        tasks.append(read_task(file))
    return tasks


def together(folder: Path, tasks: list[Task], sizes: Any) -> Counter:
    """What all processes asked for."""
    counts = folder / "counts"
    counts.mkdir()
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(sizes.processes)
    started = [
        fork.Process(target=work, args=(folder, tasks, sizes.models, counts / str(rank), barrier))
        for rank in range(sizes.processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    codes = {process.exitcode for process in started}
    assert codes == {0}, codes
    total: Counter = Counter()
    for file in counts.iterdir():
        total.update(json.loads(file.read_text()))
    return total


def work(folder: Path, tasks: list[Task], models: int, counts: Path, barrier: Any) -> None:
    """One job of an array: the same models and tasks as every other's."""
    found: Counter = Counter()
    root, results = str(folder), f"{os.sep}tasks{os.sep}"

    def hook(event: str, given: tuple) -> None:
        if event == "fcntl.flock":
            found["requests"] += 1
            found["locks"] += bool(given[1] & fcntl.LOCK_UN)
        elif event in EVENTS and str(given[0]).startswith(root):
            found[EVENTS[event]] += 1
            if event == "os.rename" and results in str(given[1]):
                found["results"] += 1

    barrier.wait()
    sys.addaudithook(hook)
    specs = [f"control:chance?seed={seed}" for seed in range(models)]
    options = Options(out=folder / "out", data=folder / "data", device="cpu")
    try:
        assert not run(specs, tasks, options).failures
    except Busy:  # others hold every model: what a job is told that came too late
        found["idle"] += 1
    counts.write_text(json.dumps(found))


def told(folder: Path, sizes: Any, counted: Counter, seconds: float) -> int:
    """Prints the table; 1 where a bound is missed."""
    m, t, p = sizes.models, sizes.tasks, sizes.processes
    written = [file for place in ("out", "data") for file in (folder / place).rglob("*")]
    written = [file for file in written if file.is_file()]
    rows = sum(file.stat().st_size for file in written if file.suffix == ".idx") // RECORD.itemsize
    vectors = m * (IMAGES + 2 * SAMPLES * t)
    bounds = {
        "files": (len(written), m * (t + 10) + 10 * t + 2 * p),
        "locks": (counted["locks"], p * (m + 4) + 4 * m * (t + 1)),
        "requests": (counted["requests"], 3 * counted["locks"] + int(20 * p * seconds)),
        "opens": (counted["opens"], counted["requests"] + p * (m + 8 * t + 16) + 16 * m * (t + 4)),
        "lists": (counted["lists"], p * (2 * m + 8) + 8 * m * (t + 2)),
    }
    print(f"{m} models x {t} tasks, {p} processes: {seconds:.1f} s")
    print("| what | counted | at most |\n|---|---|---|")
    for name, (count, most) in bounds.items():
        print(f"| {name} | {count:,} | {most:,} |")
    print(f"| results written | {counted['results']:,} | {m * t:,} exactly |")
    print(f"| vectors made | {rows:,} | {vectors:,} exactly |")
    size = sum(file.stat().st_size for file in written)
    print(f"| bytes | {size:,} | |")
    print(f"| processes that found every model held | {counted['idle']} | |")
    print(f"| renames, removals | {counted['renames']:,}, {counted['removals']:,} | |")
    kinds = Counter(
        "claims" if ".claims" in file.parts else file.suffix or file.name for file in written
    )
    print(f"| files by kind | {dict(kinds.most_common(8))} | |")
    exact = counted["results"] == m * t and rows == vectors
    return int(not exact or any(count > most for count, most in bounds.values()))


if __name__ == "__main__":
    main()
