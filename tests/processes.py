"""Several processes that work together, as torchrun starts them, at a fraction of its price.

They are forked from a server that has imported torch and open_clip once. That torchrun itself works
is tested where the command line is.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
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
