"""fsc_bench: the honest evaluation of CLIP-style vision-language models.

As a library it has four calls; fsc_bench/library.py says what each takes and gives:

    import fsc_bench

    model = fsc_bench.load_model("demo:pretrained")
    before = fsc_bench.score(model, "demo-fast")
    after = fsc_bench.score("demo:fsc-clip", tasks="demo-fast")
    print(before.table)
    print(after.averages)
    names = [task.name for task in fsc_bench.tasks("demo-fast")]
    change = fsc_bench.compare(before, after)
    print(change.table)
    print(change.verdict())

Importing the package imports no torch; a call does.
"""

import importlib
from types import ModuleType
from typing import Any

from fsc_bench import score as _scoring

__version__ = "0.1.0"
__all__ = ["compare", "load_model", "score", "tasks"]


class _CallableScoring(ModuleType):
    """The package `fsc_bench.score` that can also be called, as the library's `score`: Python sets
    the name to the package wherever a module of it is imported.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("fsc_bench.library").score(*arguments, **options)


_scoring.__class__ = _CallableScoring
score = _scoring


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fsc_bench' has no attribute {name!r}")
    return getattr(importlib.import_module("fsc_bench.library"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
