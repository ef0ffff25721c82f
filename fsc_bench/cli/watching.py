"""`fsc-bench run --watch DIR`: checkpoints are scored as they appear, until the command is stopped.

A checkpoint that is still being written is left until its size and its time stand still. One that
cannot be scored is told and passed over; if it is written anew, it is tried again.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fsc_bench.cli.model_lists import natural
from fsc_bench.errors import UsageError, reason
from fsc_bench.system.stopping import Left, asked

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
EVERY = 5.0  # seconds between two looks
STILL = 2.0  # seconds for which a file must not have changed

State = tuple[int, int]  # size, time of the last change in nanoseconds


def named(models: list[str], folder: Path) -> Callable[[Path], str]:
    """What gives a checkpoint's model: the one of `-m`, with the file put in behind an @.

    Raises UsageError, one line, where `-m` does not name one architecture, or nothing can be
    watched.
    """
    from fsc_bench.models import check_spec

    if len(models) != 1:
        raise UsageError(
            f"--watch {folder}: name one architecture, such as -m open_clip:ViT-B-32-quickgelu; "
            f"there are {len(models)} models."
        )
    _, spec = check_spec(models[0])
    if "@" in spec.rest or "/" in spec.rest.partition("?")[0]:
        raise UsageError(
            f"--watch {folder}: -m {models[0]!r} names weights; leave them out, as in "
            f"{spec.kind}:{spec.rest.partition('@')[0].partition('/')[0]}."
        )
    if not folder.is_dir():
        raise UsageError(f"--watch {folder}: there is no such folder.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--watch is for one process; start it without torchrun.")
    architecture, question, options = models[0].partition("?")

    def of(file: Path) -> str:
        return f"{architecture}@{file}{question}{options}"

    return of


def _pause(seconds: float) -> None:
    """Raises Left where SIGUSR1 came."""
    time.sleep(seconds)
    if asked():
        raise Left("left, as SIGUSR1 asked. The same command continues.")


def appearing(
    folder: Path,
    pause: Callable[[float], None] = _pause,
    now: Callable[[], float] = time.time,
) -> Iterator[Path]:
    """Every checkpoint of a folder once it is whole, in the order of their numbers; for ever.

    One that is written anew comes again. Raises UsageError where the folder is gone.
    """
    taken: dict[Path, State] = {}
    before: dict[Path, State] = {}
    while True:
        there = _states(folder)
        ready = [
            file
            for file in sorted(there, key=lambda file: natural(file.name))
            if taken.get(file) != there[file]
            and before.get(file) == there[file]
            and now() - there[file][1] / 1e9 >= STILL
        ]
        for file in ready:
            taken[file] = there[file]
            yield file
        before = there
        pause(EVERY)


def _states(folder: Path) -> dict[Path, State]:
    found: dict[Path, State] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"--watch {folder}: cannot be read: {reason(error)}.") from None
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        try:
            facts = path.stat()
        except OSError:
            continue  # gone since the folder was read, or a link to nothing
        if facts.st_size:
            found[path] = (facts.st_size, facts.st_mtime_ns)
    return found


def watch(
    folder: Path,
    of: Callable[[Path], str],
    score: Callable[[str], int],
    tell: Callable[[str], None],
    files: Iterator[Path] | None = None,
) -> None:
    """Scores what appears; ends only by an exception, such as Ctrl-C, and then says what was done.

    score: scores one model, shows it, and gives the exit code.
    """
    done, failed = 0, []
    tell(f"Watching {folder} for {', '.join(SUFFIXES)}; Ctrl-C ends it.")
    try:
        for file in files if files is not None else appearing(folder):
            tell(f"{file.name}:")
            if score(of(file)):
                failed.append(file.name)
            else:
                done += 1
    finally:
        passed = f"; not scored: {', '.join(dict.fromkeys(failed))}" if failed else ""
        tell(f"{done} checkpoints of {folder} scored{passed}. The same command goes on.")
