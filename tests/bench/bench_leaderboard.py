"""Leaderboards over many result files: time and memory, without torch.

    python tests/bench/bench_leaderboard.py [--runs 286]

Makes that many run folders with a result file of each of the suite's 35 tasks (286 runs: 10,010
files), without samples, and times `fsc-bench leaderboard --folder` on them as a process of its own.
The promise: under 10 s and 1 GB, and no torch.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from fsc_bench.results import Cell, Result, RunDirectory, plain, task_facts  # noqa: E402
from fsc_bench.task import WHOLE, Task, select  # noqa: E402

CHECKED = """
import resource, sys
from pathlib import Path
from fsc_bench.cli.report import write_pages
write_pages(Path(sys.argv[1]))
assert "torch" not in sys.modules, "torch was imported"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def result(task: Task, luck: random.Random) -> Result:
    """A finished result of a task, with a number for every subset."""
    metrics = {}
    for node in (WHOLE, *task.leaves):
        value = luck.uniform(20, 80)
        count = task.leaves.get(node, task.n)
        cell = Cell(value, value - 1.5, value + 1.5, count, task.chance[task.headline[0]])
        metrics[node] = dict.fromkeys(task.headline, cell)
    return Result(
        task=task.name,
        version=task.version,
        kind=task.kind,
        fingerprint="0" * 64,
        n=task.n,
        expected=task.n,
        metrics=metrics,
        headline=task.headline,
        ties=0,
        nan=0,
        facts=task_facts(task),
    )


def make(folder: Path, runs: int) -> int:
    """Writes the run folders; how many result files they hold."""
    luck = random.Random(0)
    tasks = select(["fsc"])
    for number in range(runs):
        directory = RunDirectory(folder, f"drawn:{number}", f"{number:08x}")
        directory.path.mkdir(parents=True)
        facts = {"schema": 1, "model": f"drawn:{number}"}
        (directory.path / "run.json").write_text(json.dumps(facts))
        (directory.path / "tasks").mkdir()
        for task in tasks:
            file = directory.task_file(task.name)
            file.write_text(json.dumps({"schema": 1, **plain(vars(result(task, luck)))}))
    return runs * len(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=286)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        boards = Path(place)
        (boards / "published").mkdir()
        for file in (ROOT / "leaderboards" / "published").glob("*.csv"):
            (boards / "published" / file.name).write_bytes(file.read_bytes())
        count = make(boards / "measured", wanted.runs)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHECKED, str(boards)],
            check=True, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        seconds = time.perf_counter() - start
    megabytes = int(done.stdout.split()[-1])
    print(f"{count:,} result files of {wanted.runs:,} runs: {seconds:.1f} s, {megabytes:,} MB")


if __name__ == "__main__":
    main()
