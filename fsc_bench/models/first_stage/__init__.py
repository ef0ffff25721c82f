"""First stage: the dual encoder whose best answers a pair scorer ranks anew, named by options:
`?first=open_clip:ViT-B-32/openai&depth=64`, the same for every family of pair scorers.
"""

from typing import Any

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.model import DEPTH, DualEncoder, is_pair_scorer
from fsc_bench.models import check_named, load_model
from fsc_bench.system.escape import shortened
from fsc_bench.system.spec import Spec

OPTIONS = ("first", "depth")
DEEPEST = 1_000_000


def options_of(spec: Spec) -> tuple[str, int | None]:
    """(the first stage's name or nothing, how many answers are ranked anew if it is said).

    Raises UsageError for other options, for a depth that is none, and for a first stage whose name
    is wrong.
    """
    given = spec.options(*OPTIONS, nested="first")
    first, depth = given.get("first", ""), given.get("depth")
    if depth is not None and not (
        depth.isascii() and depth.isdigit() and len(depth) < 10 and 1 <= int(depth) <= DEEPEST
    ):
        raise UsageError(
            f"model '{spec}': depth = {shortened(depth)}: it is how many answers of the first "
            f"stage are ranked anew, a whole number of at least 1 ({DEPTH} where it is left out)."
        )
    if "first" in given:
        if Spec.read(first).kind == spec.kind and Spec.read(first).place == spec.place:
            raise UsageError(f"model '{spec}': it cannot be its own first stage by name.")
        _, mark, strange = first.partition("?")[0].partition("&")
        if mark:  # no name holds one: it is an option, of another name than those here
            key = strange.partition("=")[0]
            raise UsageError(
                f"model '{spec}': option {strange!r}: write key=value with {', '.join(OPTIONS)}."
                f"{near_miss(key, OPTIONS)}"
            )
        check_named(first)
    return first, None if depth is None else int(depth)


def first_stage(spec: Spec, named: str, device: str, precision: str) -> DualEncoder:
    """The dual encoder of that name. Raises UsageError where it is a model of another kind."""
    return check_first(load_model(named, device, precision), str(spec), named)


def check_first(model: Any, spec: str, named: str) -> DualEncoder:
    """Raises UsageError for a first stage that scores pairs itself."""
    if is_pair_scorer(model):
        raise UsageError(
            f"model '{spec}': {named} scores pairs itself; a first stage is a dual encoder, such "
            "as open_clip:ViT-B-32-quickgelu/openai."
        )
    return model
