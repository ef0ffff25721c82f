"""Stopping: SIGTERM is taken like Ctrl-C, SIGUSR1 asks to leave when what is in hand is finished,
and a process whose launcher died does not stay behind.

The first and the last are an exception in the main thread, which leaves every `with` on its way:
what is in flight is dropped or finished, locks are released, and nothing half written stays.
SIGUSR1 only sets what `asked` gives: `run` looks after each task, `train` after each step, and both
end with exit code 75 (EX_TEMPFAIL: "try again"), on which a batch file can requeue itself. A second
SIGUSR1 is taken like SIGTERM. Schedulers send it to every process of a job: those that we start
(workers that read data) do not hear it.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LOOK = 5.0  # seconds between two looks at the launcher
GRACE = 20.0  # seconds that a process whose launcher died has to leave by itself
INTERRUPTED, TERMINATED = 130, 143  # exit codes, as shells know them
LEFT = 75  # exit code: SIGUSR1 was heeded, the same command continues

_asked = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM came: from a scheduler, `kill`, or a launcher that gives up."""


class Stopped(Exception):
    """A command ended by Ctrl-C or SIGTERM, which is its cause."""


class Left(Exception):
    """Work was written and left because SIGUSR1 asked for it; the same command continues."""


def asked() -> bool:
    """Whether SIGUSR1 came: finish what is in hand, write it, and end."""
    return _asked.is_set()


def listen() -> None:
    """From now on SIGUSR1 is what `asked` gives, and SIGTERM raises Terminated in the main thread,
    once; a second one just ends.
    """
    process = os.getpid()

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != process:  # a data loader's process, forked from us
            os.kill(os.getpid(), signal.SIGTERM)
            return
        raise Terminated

    with suppress(ValueError):  # not the main thread: whoever called us has the signals
        signal.signal(signal.SIGTERM, stop)
        _wait_for_requests()


def _wait_for_requests() -> None:
    """SIGUSR1 is blocked here, in every later thread and in whatever this process starts, and heard
    by a thread of its own, also while the main thread computes.
    """
    if any(thread.name == "SIGUSR1" for thread in threading.enumerate()):
        return
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # a launcher may ignore it, and so would we
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    def hear() -> None:
        while True:
            signal.sigwait([signal.SIGUSR1])
            if asked():
                os.kill(os.getpid(), signal.SIGTERM)
            _asked.set()

    threading.Thread(target=hear, name="SIGUSR1", daemon=True).start()


def exit_code(stopped: BaseException | None) -> int:
    """143 for SIGTERM, 130 for Ctrl-C; either may be the cause of what is known now."""
    seen = stopped
    while seen is not None:
        if isinstance(seen, Terminated):
            return TERMINATED
        seen = seen.__cause__ or seen.__context__
    return INTERRUPTED


def watch_launcher() -> None:
    """Under torchrun: ends this process soon after its agent died, whatever it waits for.

    torch would wait for the others for 20 minutes, and our own group for days.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return
    parent = os.getppid()
    if parent == 1 and b"torch" not in _command(1):
        _leave()  # it died before we had begun
    threading.Thread(target=_watch, args=[parent], daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)  # the main thread may wait inside torch, where no signal is heard
    _leave()


def _leave() -> None:
    with suppress(OSError):
        print("fsc-bench: the launcher is gone; stopped.", file=sys.stderr, flush=True)
    os._exit(TERMINATED)


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b"torch"  # nobody can tell
