"""Published: in what a run differs from the run whose numbers a recipe quotes. Nothing is trained.

Computed from the settings, the number of pairs and of processes against the recipe's `reference`
(its settings as shipped, and its [reference] table): a number without this beside it would promise
what another run gave.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fsc_bench.train.config import Recipe

# What moves no number, or only where pairs are left out anyway.
SILENT = frozenset(
    {"accumulate", "activation_checkpointing", "bad_share", "checkpoint_every", "compile", "data",
     "device", "gather", "image_key", "keep_checkpoints", "length_buckets", "log_every",
     "max_pairs", "pairs_seed", "parallel", "probe_data", "probe_every", "probe_pairs",
     "tensorboard", "workers"}
)  # fmt: skip
LOGITS = "float32"  # ours in every precision: losses.py
ABOUT = 0.05  # papers round the number of their pairs


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was in the published run."""

    name: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.name}: {self.ours} (published: {self.theirs})"


def published_lines(recipe: Recipe, found: Sequence[object]) -> list[str]:
    """Lines to show: what was published, and each of the differences that were found."""
    if not recipe.expected:
        return []
    numbers = ", ".join(f"{name} {value}" for name, value in recipe.expected.items())
    return [f"published: {numbers}", *(f"differs: {one}" for one in found)]


def differences(
    recipe: Recipe, pairs: int | None = None, processes: int | None = None
) -> list[Difference]:
    """How a run of `recipe` differs from the published one; empty where nothing was published.

    pairs: of the training data; processes: that train. None where that is not known yet.
    """
    if not recipe.expected:
        return []
    return [
        *_of_data(recipe, pairs),
        *_of_settings(recipe),
        *_of_processes(recipe, processes or 1),
        *_of_rounding(recipe, pairs),
        *_of_logits(recipe),
    ]


def _of_settings(recipe: Recipe) -> Iterator[Difference]:
    reference = recipe.reference
    for name, value in recipe.config.settings().items():
        if name not in SILENT and name in reference and value != reference[name]:
            yield Difference(name, _shown(value), _shown(reference[name]))


def _of_data(recipe: Recipe, pairs: int | None) -> Iterator[Difference]:
    config, reference = recipe.config, recipe.reference
    theirs = str(reference.get("data_set") or reference.get("data", ""))
    about = int(reference.get("pairs", 0))
    if config.max_pairs:
        ours = f"a sample of {pairs or config.max_pairs:,} pairs of your own"
        yield Difference("data", ours, theirs)
    elif pairs and about and abs(pairs - about) > ABOUT * about:
        yield Difference("data", f"{pairs:,} pairs", f"about {about:,}: {theirs}")
    elif not _same_place(config.data, str(reference.get("data", ""))):
        yield Difference("data", config.data or "none yet", theirs)


def _same_place(ours: str, theirs: str) -> bool:
    """Whether both are one kind and one path, ours perhaps below a folder."""
    kind, _, path = theirs.partition(":")
    own_kind, _, own_path = ours.partition(":")
    return bool(path) and kind == own_kind and (own_path == path or own_path.endswith(f"/{path}"))


def _of_processes(recipe: Recipe, processes: int) -> Iterator[Difference]:
    """Of several processes it matters only how features are gathered."""
    ours, theirs = recipe.config.gather, recipe.reference.get("gather", "whole")
    wanted = int(recipe.reference.get("processes", 1))
    if ours != theirs and max(processes, wanted) > 1:
        over = "one process" if wanted == 1 else f"{wanted} processes"
        yield Difference("gather", ours, f"{theirs}, over {over}")
    elif ours == theirs == "reference" and processes != wanted:
        yield Difference("processes", str(processes), str(wanted))


def _of_rounding(recipe: Recipe, pairs: int | None) -> Iterator[Difference]:
    """We leave out what does not fill a batch; the reference's reader fills up with repeats."""
    reference, batch = recipe.reference, recipe.config.batch_size
    if reference.get("epoch_rounding", "down") == "down":
        return
    if pairs is None:
        yield Difference("epochs", "rounded down to whole batches", "rounded up")
        return
    readers = max(int(reference.get("readers", 1)), 1)
    ours, theirs = pairs // batch, math.ceil(math.ceil(pairs / batch) / readers) * readers
    if ours != theirs:
        yield Difference("epochs", f"{ours:,} steps each, rounded down", f"{theirs:,}, rounded up")


def _of_logits(recipe: Recipe) -> Iterator[Difference]:
    theirs = recipe.reference.get("logits", LOGITS)
    if theirs != LOGITS:
        yield Difference("logits", LOGITS, theirs)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
