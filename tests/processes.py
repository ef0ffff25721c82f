"""Several processes that work together, as torchrun starts them, at a fraction of its price.

They are forked from a server that has imported torch and open_clip once. That torchrun itself works
is tested where the command line is.
"""

import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

PRELOADED = ["open_clip", "fsc_bench.train.loop", "fsc_bench.models.open_clip"]


def together(work: Callable[..., Any], *arguments: Any, said: Path | None = None) -> None:
    """Runs `work(rank, *arguments)` in two processes; what they print goes to `said`.

    Fails with the traceback of the first that raises.
    """
    import torch.multiprocessing

    multiprocessing.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _process, (port, said, work, arguments), nprocs=2, start_method="forkserver"
    )


@contextmanager
def second_of_two(first: Callable[[], Any], folder: Path) -> Iterator[None]:
    """The test's own process as the second of two, so that mutants and traces are in it.

    The first is forked from it and runs `first()`, which should be torch's calls alone.
    """
    process = multiprocessing.get_context("fork").Process(target=_first, args=(first, folder))
    with warnings.catch_warnings():
        # Python 3.12 warns of threads in a process that forks; the child meets none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        with group(1, 2, folder):
            yield
    finally:
        process.kill()
        process.join()


def _first(work: Callable[[], Any], folder: Path) -> None:
    import torch

    torch.set_num_threads(1)  # the parent's threads are not in a forked process
    with group(0, 2, folder):
        work()


@contextmanager
def group(rank: int, count: int, folder: Path) -> Iterator[None]:
    """torch's group of so many processes, which meet in a file of `folder`."""
    import torch.distributed

    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", timedelta(seconds=10), count, rank
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _process(rank: int, port: int, said: Path | None, work: Callable, arguments: tuple) -> None:
    import torch

    from fsc_bench.system import distributed

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if said:
        sys.stdout = sys.stderr = said.with_suffix(f".{rank}").open("w", buffering=1)
    try:
        work(rank, *arguments)
    finally:
        distributed.leave()  # such a process ends without what is registered for its end
        sys.stdout.flush()


def start(work: Callable[..., Any], *arguments: Any) -> multiprocessing.Process:
    """A process of its own that has imported torch already: `work(*arguments)`."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def command(arguments: list, said: Path, environment: dict, before: Any = None) -> None:
    """What such a process does as `fsc-bench ARGUMENTS`; what it prints goes to the file `said`."""
    import torch

    torch.set_num_threads(1)
    os.environ |= environment
    sys.stdout = sys.stderr = said.open("w", buffering=1)
    if before is not None:
        before()
    from fsc_bench.cli.main import app

    app(arguments)
