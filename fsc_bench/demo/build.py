"""Build: the raw files of the demo's tasks, drawn once into the data folder, in official formats.

A demo task's file says `sources = [{ demo = "sugarcrepe" }]`: the recipe of raw/ that makes it.
From there on the demo is an ordinary benchmark: the same readers, checks, metrics and tables.
"""

import hashlib
import json
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

from fsc_bench.data.images import raw_folder, read_links
from fsc_bench.demo import SUITE
from fsc_bench.errors import DataError
from fsc_bench.system.distributed import Ranks, join
from fsc_bench.system.files import write_text
from fsc_bench.task import DRAWN, Task, catalogue

SEED = 0  # of the drawn samples; the world keeps training, development and test scenes apart


def demo_models() -> list[str]:
    """The models that `run --demo` scores when none is named: before and after fine-tuning.

    demo:clip, demo:global-hn and demo:fsc-clip-lora ship too; two keep it under a minute.
    """
    return ["demo:pretrained", "demo:fsc-clip"]


def build(
    data: Path,
    say: Callable[[str], Any] = lambda line: None,
    ranks: Ranks | None = None,
    suites: Collection[str] = (SUITE,),
) -> None:
    """Draws what is not there yet for every task of the suites that is drawn.

    A marker file is written last. Of several processes the first draws, and the others find it
    done. ranks: those that take part; without it all that torchrun started.
    """
    with (ranks or join()).first_goes_first():
        _draw_missing(data, say, suites)


def _draw_missing(data: Path, say: Callable[[str], Any], suites: Collection[str]) -> None:
    from fsc_bench.demo import raw

    drawn = [task for task in catalogue().values() if task.suite in suites and task.drawn]
    todo = [task for task in drawn if not _done(task, data)]
    if not todo:
        return
    say(f"Drawing the miniature world for {len(todo)} tasks into {data}")
    for task in todo:
        folder = raw_folder(data, task.name, read_links(data))
        raw.write(_recipe(task), folder, data / "images", SEED)
        marker = folder / ".drawn.json"
        write_text(marker, json.dumps(_wanted(task)))


def _recipe(task: Task) -> str:
    recipes = [source[DRAWN] for source in task.data.sources if DRAWN in source]
    if len(recipes) != 1:
        raise DataError(f'{task.path}: a demo task has one source {{ demo = "..." }}.')
    return recipes[0]


def _done(task: Task, data: Path) -> bool:
    marker = raw_folder(data, task.name, read_links(data)) / ".drawn.json"
    try:
        done = json.loads(marker.read_text())
    except (OSError, ValueError):
        return False
    return done == _wanted(task)


def _wanted(task: Task) -> dict[str, str]:
    """What the marker must say: the recipe, and the code that draws it."""
    return {"recipe": _recipe(task), "code": _code()}


@cache
def _code() -> str:
    here = Path(__file__).parent
    files = [here / "world.py", here / "drawing.py", *sorted((here / "raw").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
