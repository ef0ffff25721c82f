"""Models: one file a family, named as the family. `family:checkpoint` names a model.

A family is a module with `load(spec, device, precision) -> DualEncoder`; `spec` is the model's name
in its parts (system/spec.py). Other packages add families with the entry-point group
`fsc_bench.models`. What a model must have, and what it may have besides, is in
`fsc_bench/model.py`. A model is known by its `Identity`, not by its name.
"""

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.model import DualEncoder, Extras, Identity, check_model
from fsc_bench.system.spec import Spec

__all__ = ["DualEncoder", "Extras", "Identity", "Spec", "load_model"]  # for adapters

PRECISIONS = ("fp32", "bf16", "fp16")


def families() -> dict[str, Callable[[], Any]]:
    """Every family by name, with a function that imports it."""
    found: dict[str, Callable[[], Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:  # a folder holds what families share
            path = f"{__name__}.{module.name}"
            found[module.name] = lambda path=path: importlib.import_module(path)
    for point in entry_points(group="fsc_bench.models"):
        found.setdefault(point.name, point.load)
    return found


def describe() -> dict[str, str]:
    """The first line of each family's module, found without importing it (some load torch)."""
    import ast
    from importlib.util import find_spec

    modules = {point.name: point.module for point in entry_points(group="fsc_bench.models")} | {
        module.name: f"{__name__}.{module.name}"
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg
    }
    found = {}
    for name, module in sorted(modules.items()):
        spec = find_spec(module)
        source = spec.loader.get_source(module) if spec and spec.loader else ""
        found[name] = (ast.get_docstring(ast.parse(source or "")) or "").split("\n")[0]
    return found


def load_model(spec: str, device: str = "auto", precision: str = "fp32") -> DualEncoder:
    """The model that `family:checkpoint` names. Raises UsageError, one line, with the near miss."""
    import_family, parsed = check_spec(spec)
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    return check_model(import_family().load(parsed, device, precision), spec)


def check_spec(spec: str) -> tuple[Callable[[], Any], Spec]:
    """(what imports the family, the name in its parts) of a model's name; nothing is loaded.

    Raises UsageError for a name of another form and for an unknown family.
    """
    parsed, known = Spec.read(spec), families()
    if not parsed.rest:
        raise UsageError(
            f"model {spec!r}: write FAMILY:CHECKPOINT, "
            "such as open_clip:ViT-B-32-quickgelu/openai. "
            f"Families: {', '.join(sorted(known))}."
        )
    if parsed.kind not in known:
        hint = near_miss(parsed.kind, known) or f" There are: {', '.join(sorted(known))}."
        raise UsageError(f"model {spec!r}: no family called {parsed.kind!r}.{hint}")
    return known[parsed.kind], parsed


def pick_device(wanted: str) -> str:
    """`auto` as the best device here; anything else as it is, if torch knows it."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {wanted!r} cannot be used: {reason}") from None
    return wanted
