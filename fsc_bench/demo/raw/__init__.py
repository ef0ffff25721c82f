"""Miniature raw copies: the world's test split, written in the benchmarks' official raw formats.

One module a recipe, and its name is the word that a task's `sources = [{ demo = "..." }]` says. A
recipe is a module with

    def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = ...) -> None

`raw` is the task's own raw folder, `images` gives the folder of a named image source
(`coco/val2017`, `vg`, ...), `n` is the number of samples of each subset. The same arguments write
the same bytes. In every sample the right text is true of its image and every distractor is false of
it, by `world.holds`. A module with `PARTS` is one recipe for each of them (`folders/shapes`), and
its `write` takes `part` as well. Records and scores are not made here: the real readers make them,
as from a real download.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from fsc_bench.demo.drawing import ImageFolder


def sources_below(folder: Path) -> ImageFolder:
    """Image sources as folders below `folder`, e.g. `coco/val2017`."""
    return lambda source: folder / source


def recipes() -> list[str]:
    """What `write` can write: a benchmark, or `<module>/<part>`."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        parts = getattr(recipe_module(module.name), "PARTS", None)
        found += [module.name] if parts is None else [f"{module.name}/{part}" for part in parts]
    return sorted(found)


def recipe_module(recipe: str) -> ModuleType:
    """The module that writes a recipe, e.g. `folders` for `folders/shapes`."""
    return importlib.import_module(f"{__name__}.{recipe.partition('/')[0]}")


def write(recipe: str, raw: Path, images: Path, seed: int = 0, n: int | None = None) -> None:
    """Writes one recipe's raw folder, and its named image sources as folders below `images`.

    n: samples of each subset, when they are not to be the recipe's own number.
    Raises ValueError where there is no such recipe.
    """
    if recipe not in recipes():
        raise ValueError(f"no recipe called {recipe!r}; there are: {', '.join(recipes())}")
    part = recipe.partition("/")[2]
    wanted = ({} if n is None else {"n": n}) | ({"part": part} if part else {})
    recipe_module(recipe).write(raw, sources_below(images), seed, **wanted)
