"""Distributed: one run on many processes, started by `torchrun ... -m fsc_bench run ...`.

Every process plans the same work and encodes its own share of it, divided by content: no sample is
repeated, none added to make the shares even. The store is where they meet; the processes only wait
for one another and tell which images were unreadable, so gloo carries it all, on GPUs too. Process
0 prepares data, scores and writes; one that dies takes the others with it (torchrun sees to that),
what was encoded stays in the store, and the same command finishes.

Many checkpoints need no torchrun at all: start the same command as often as there are machines,

    fsc-bench run -m CHECKPOINT... -t fsc -o SHARED/runs --data SHARED/data

and each job takes the next model that no other job holds (run/suite.py). What that costs, for M
models:

    time = M x (load + images x t_image + texts x t_text) / jobs + hash of all images, once

with the unique images and texts of the tasks, and t_image = max(encoder, decoder / threads).
`fsc-bench run --dry-run -m MODEL` counts and measures all of it. On paper, for a million unique
images and a million texts: at 70 ms and 8 ms (ViT-B/32, fp32, two CPU cores) 22 h a model; at
0.4 ms (16 decoding threads are the limit there, not the card) and 0.01 ms on a GPU 7 minutes, so
that 1,000 checkpoints on 8 GPUs are 15 hours. They leave 4 GB of embeddings each, which
`fsc-bench cache prune NAME` forgets.
"""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Ranks:
    """This process among those of one run. Alone: rank 0 of 1, and nothing waits."""

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, everywhere, once all are here."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, self.group)
        return values

    def wait(self) -> None:
        self.gather(None)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """What writes files that the others then find: process 0 does it, then the others."""
        if not self.first:
            self.wait()
        try:
            yield
        finally:
            if self.first:
                self.wait()


def is_first() -> bool:
    """Whether this process is the one that speaks; needs no torch."""
    return int(os.environ.get("RANK", "0")) == 0


def launched() -> int:
    """How many processes torchrun started; 1 where it started none. Needs no torch."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def launched_here() -> int:
    """How many of them run on this machine. Needs no torch."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def join() -> Ranks:
    """The run that torchrun started, or this process alone."""
    if launched() == 1:
        return Ranks()
    open_group("gloo")
    return Ranks(int(os.environ["RANK"]), launched(), _patient_group())


def open_group(backend: str) -> None:
    """torch's group of all processes: opened once, by whoever asks first, and left at exit.

    Not sooner, as torch cannot be trusted to open a second one under the same torchrun: the new one
    may find the addresses of the old. Not later, as gloo's threads let go of a process's last
    tensors when they get to it, and where Python is gone by then they end the process (SIGABRT).
    """
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group(backend)
        atexit.register(leave)


def leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def leave_at_once(code: int) -> None:
    """Ends this process. One of several does not say goodbye to the others: they may be gone."""
    if launched() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@cache
def _patient_group() -> Any:
    """A run's own group: others may wait for hours while one hashes a million files."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=timedelta(days=7))


def own_device(device: str) -> str:
    """`auto` and `cuda` become the card that torchrun means for this process."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or device not in ("auto", "cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return device
    return f"cuda:{int(local) % torch.cuda.device_count()}"
