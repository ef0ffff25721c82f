"""Models: one file a family, named as the family. `family:checkpoint` names a model.

A family is a module with `load(spec, device, precision)` that gives a `DualEncoder` or a
`PairScorer`; `spec` is the model's name in its parts (system/spec.py). It may have `check(spec)`
besides, which raises UsageError for what is wrong with a name before data are prepared: it loads no
weights and executes nothing. It may state `BY_NAME = True`, where building any of its models reads
nothing but what is shipped or pinned, so that a stranger's file may name one, and `SUITE`, the one
suite that its models know. Other packages add families with the entry-point group
`fsc_bench.models`. What a model must have, and what it may have besides, is in
`fsc_bench/model.py`. A model is known by its `Identity`, not by its name.
"""

import ast
import errno
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from fsc_bench.errors import UsageError, near_miss, one_line, reason
from fsc_bench.model import DualEncoder, Extras, Identity, PairScorer, check_model
from fsc_bench.system.escape import is_printable, shortened
from fsc_bench.system.plugins import Plugin, usable
from fsc_bench.system.spec import Spec

__all__ = ["DualEncoder", "Extras", "Identity", "PairScorer", "Spec", "load_model"]  # for adapters

PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
LONGEST = 4000  # characters of a model's name; that of a mixture of runs may hold two paths


def families() -> dict[str, Callable[[], Any]]:
    """Every family by name, with a function that imports it."""
    found: dict[str, Callable[[], Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:  # a folder holds what families share
            path = f"{__name__}.{module.name}"
            found[module.name] = lambda path=path: importlib.import_module(path)
    for plugin in usable("fsc_bench.models", lambda: list(found)).values():
        found[plugin.name] = lambda plugin=plugin: _family(plugin)
    return found


def _family(plugin: Plugin) -> Any:
    """What another package's entry point names, if it is a family. Raises UsageError."""
    family = plugin.load()
    if not callable(getattr(family, "load", None)):
        raise UsageError(
            f"{plugin.who}: a {type(family).__name__} without `load(spec, device, precision)`; "
            "name a module that has it."
        )
    return family


def describe() -> dict[str, str]:
    """The first paragraph of each family's module, found without importing it (some load torch)."""
    return {name: _first_paragraph(tree) for name, tree in _sources().items()}


def examples() -> dict[str, tuple[str, ...]]:
    """Names of models that can be pasted behind `-m`, by family: its module's EXAMPLES."""
    return {name: tuple(_stated(tree, "EXAMPLES") or ()) for name, tree in _sources().items()}


def stated(family: str, name: str) -> Any:
    """What a family's module states as a literal, such as SUITE, found without importing it; None
    where it does not, and of an unknown family.
    """
    module = _modules().get(family)
    return None if module is None else _stated(_parsed(module), name)


def _sources() -> dict[str, ast.Module]:
    """The parsed source of each family's module, not imported."""
    return {name: _parsed(module) for name, module in sorted(_modules().items())}


def _modules() -> dict[str, str]:
    """The module of each family, by its import path."""
    modules = {
        module.name: f"{__name__}.{module.name}"
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg
    }
    for plugin in usable("fsc_bench.models", lambda: list(modules)).values():
        modules[plugin.name] = plugin.point.module
    return modules


def _parsed(module: str) -> ast.Module:
    """A module's source; an empty one where there is none to be read, as of a broken plugin."""
    try:
        spec = find_spec(module)
        return ast.parse((spec.loader.get_source(module) if spec and spec.loader else "") or "")
    except (ImportError, SyntaxError, ValueError, AttributeError):
        return ast.parse("")


def _first_paragraph(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")


def _stated(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            with suppress(ValueError):  # not a literal
                return ast.literal_eval(node.value)
    return None


def load_model(
    spec: str, device: str = "auto", precision: str = "fp32"
) -> DualEncoder | PairScorer:
    """The model that `family:checkpoint` names. Raises UsageError, one line, with the near miss."""
    import_family, parsed = check_spec(spec)
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    with _readable_paths(spec):
        return check_model(import_family().load(parsed, device, precision), spec)


def check_spec(spec: str) -> tuple[Callable[[], Any], Spec]:
    """(what imports the family, the name in its parts) of a model's name; nothing is loaded.

    Raises UsageError for a name of another form and for an unknown family.
    """
    if len(spec) > LONGEST or not is_printable(spec):
        raise UsageError(
            f"model {shortened(spec)}: a model's name is one printable line of at most {LONGEST:,} "
            "characters."
        )
    parsed, known = Spec.read(spec), families()
    if not parsed.rest:
        raise UsageError(
            f"model {spec!r}: write FAMILY:CHECKPOINT, "
            "such as open_clip:ViT-B-32-quickgelu/openai. "
            f"Families: {', '.join(sorted(known))}."
        )
    if parsed.kind not in known:
        hint = near_miss(parsed.kind[:80], known) or f" There are: {', '.join(sorted(known))}."
        raise UsageError(f"model {spec!r}: no family called {parsed.kind!r}.{hint}")
    return known[parsed.kind], parsed


def check_named(spec: str) -> None:
    """Raises UsageError for all that is wrong with a model's name and can be told without loading
    it: the family, what it has by that name, options, files that are not there.
    """
    import_family, parsed = check_spec(spec)
    check = getattr(import_family(), "check", None)
    if check is not None:
        with _readable_paths(spec):
            check(parsed)


@contextmanager
def _readable_paths(spec: str) -> Iterator[None]:
    """A path that the system refuses as it stands, whichever family asks for it, is one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES):
            raise
        raise UsageError(
            f"model {shortened(spec)}: {shortened(str(error.filename))}: {reason(error)}."
        ) from None


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
        kind, number = wanted.partition(":")[0], wanted.partition(":")[2]
        hint = " Did you mean 'cuda'?" if kind.lower() in ("gpu", "nvidia") else ""
        hint = hint or ("" if kind in DEVICES else near_miss(kind, DEVICES))
        if kind in DEVICES and (not number or number.isdigit()):
            hint = f" {one_line(error)}."  # what is not here, in torch's words
        raise UsageError(
            f"device {shortened(wanted)} cannot be used.{hint} Here are: {', '.join(_devices())}."
        ) from None
    return wanted


def _devices() -> list[str]:
    """The devices of this machine, as `--device` takes them."""
    import torch

    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["auto", "cpu", *cards[:8], *mps]
