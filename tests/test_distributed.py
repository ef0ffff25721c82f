"""Several processes as one: they meet, take turns, and part without a crash."""

import subprocess
import sys

import torch

from fsc_bench.system.distributed import Ranks, join

PROCESS = r"""
import atexit, os, torch

@atexit.register  # the first registered is the last to be called
def look():
    say("still there" if torch.distributed.is_initialized() else "left")

def say(line):
    os.write(1, f"{line}\n".encode())  # at once: the two share a pipe

from fsc_bench.system.distributed import join, open_group
open_group("gloo")  # as training does, before it scores
ranks = join()
assert join().group is ranks.group
assert ranks.gather(10 + ranks.rank) == [10, 11]
with ranks.first_goes_first():
    say(f"turn {ranks.rank}")
"""


def test_alone_nothing_waits(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)

    assert join() == Ranks(0, 1)
    assert join().gather("mine") == ["mine"]
    assert not torch.distributed.is_initialized()


def test_processes_meet_take_turns_and_leave_before_python_ends(tmp_path):
    """A process that gloo's threads outlive is aborted by them, not always but often enough."""
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["turn 0", "turn 1", "left", "left"]
