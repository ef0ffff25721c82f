"""Material: a run's data and what goes with them, opened and tried before a model is loaded.

Both `train` and `train --dry-run` come here, so that what a dry run passes does not fail later.
Nothing is written.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsc_bench.errors import DataError, UsageError
from fsc_bench.train.batches import HardNegatives, Positives
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.paraphrases import paraphrases
from fsc_bench.train.sources import BadPair, Pair, Pairs, keys_of, open_pairs, split_data

# Kinds of data whose PATH is a place on a disk; `hf` may be a name of the Hub.
ON_DISK = ("coco-tsv", "parquet", "webdataset")
TRIED = 64  # pairs, evenly over the data, that are read before training begins


@dataclass(frozen=True)
class Material:
    """What a run learns from. notes: lines to show; tried: lines for those who only look."""

    pairs: Pairs
    positives: Positives | None
    notes: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


def look_for_data(recipe: Recipe) -> None:
    """Raises UsageError for an unknown kind of data, DataError for a PATH that is not there.

    Quick: a model takes long to load, and data to be opened.
    """
    kind, path = split_data(recipe.config.data)
    fixed = re.split(r"[*?\[{]", path)[0]
    place = Path(fixed).expanduser()
    if kind in ON_DISK and not (place if fixed == path else place.parent).exists():
        get = recipe.reference.get("get")
        hint = f" What was published trained on is fetched by `{get}`." if get else ""
        raise DataError(f"{place}: there is no such file or folder.{hint}")


def open_material(
    recipe: Recipe, negatives: HardNegatives | None, links: Mapping[str, str] | None = None
) -> Material:
    """Opens the data and its paraphrases, and tries them and the hard negatives on 64 pairs.

    Raises UsageError or DataError, one line: for what is absent, for pairs of which none can be
    used, and for hard negatives or paraphrases that none of them has.
    """
    config = recipe.config
    pairs, notes = _open(config, links)
    tried, bad = _try(pairs)
    if not tried:
        raise DataError(f"{config.data}: of {len(bad)} pairs tried none can be used: {bad[0]}.")
    if bad:
        notes.append(
            f"{len(bad)} of {len(tried) + len(bad)} pairs tried cannot be used: {bad[0]}. Training "
            f"stops where more than bad_share = {config.bad_share:g} of an epoch's are so."
        )
    found = [_try_negatives(config, negatives, list(tried.values()))] if negatives else []
    return Material(pairs, paraphrases(config, pairs), tuple(notes), tuple(found))


def _open(config: TrainConfig, links: Mapping[str, str] | None) -> tuple[Pairs, list[str]]:
    """The pairs, or a sample of them, and lines about them."""
    pairs = open_pairs(config.data, keys_of(config), links)
    notes = list(getattr(pairs, "notes", ()))
    if not config.max_pairs:
        return pairs, notes
    if len(pairs) <= config.max_pairs:
        return pairs, [*notes, f"max_pairs = {config.max_pairs:,}: all {len(pairs):,} are taken."]
    sample = Sample(pairs, draw(pairs.keys, config.max_pairs, config.pairs_seed), config.pairs_seed)
    note = f"{len(sample):,} of {len(pairs):,} pairs, drawn by pairs_seed = {config.pairs_seed}."
    return sample, [*notes, note]


def draw(keys: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The numbers of `count` of the pairs, in order: those whose hash is lowest.

    The same for ever, whatever versions of libraries; a larger sample holds the smaller one.
    """
    ranks = [
        hashlib.blake2b(f"{seed}:{number}:{key}".encode(errors="surrogatepass")).digest()[:8]
        for number, key in enumerate(keys)
    ]
    order = np.argsort(np.frombuffer(b"".join(ranks), dtype=">u8"), kind="stable")
    return np.sort(order[:count])


@dataclass
class Sample:
    """Some pairs of a data set, as a data set."""

    pairs: Pairs
    numbers: np.ndarray
    seed: int
    keys: list[str] = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [self.pairs.keys[number] for number in self.numbers]
        facts = (self.pairs.fingerprint, len(self.numbers), self.seed)
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[int(self.numbers[index])]

    def caption(self, index: int) -> str:
        return self.pairs.caption(int(self.numbers[index]))


def _try(pairs: Pairs) -> tuple[dict[int, Pair], list[str]]:
    """Some pairs by number, evenly from all, and why others of them cannot be used."""
    usable: dict[int, Pair] = {}
    bad: list[str] = []
    for number in np.unique(np.linspace(0, len(pairs) - 1, TRIED).astype(int)):
        try:
            usable[int(number)] = pairs[int(number)]
        except BadPair as error:
            bad.append(str(error))
    return usable, bad


def first_caption(pairs: Pairs) -> str:
    """The first caption that can be used."""
    for number in range(len(pairs)):
        try:
            return pairs.caption(number)
        except BadPair:
            continue
    return ""


def _try_negatives(config: TrainConfig, negatives: HardNegatives, pairs: list[Pair]) -> str:
    """How many of some pairs have each kind. Raises UsageError where none has any."""
    drawn = negatives.draw(pairs, [np.random.default_rng(place) for place in range(len(pairs))])
    found = {
        kind: sum(row[place] is not None for row in drawn)
        for place, kind in enumerate(negatives.kinds)
    }
    if not any(found.values()):
        raise UsageError(
            f"negatives = {config.negatives!r}: none of {len(pairs)} captions tried has a hard "
            f"negative, such as {pairs[0].caption[:60]!r}: their loss would be 0 for ever."
        )
    shares = ", ".join(f"{kind} {count}" for kind, count in found.items())
    return f"Of {len(pairs)} captions tried have a hard negative: {shares}."


def check_place(out: Path, resume: bool) -> bool:
    """Whether `out` holds a run already. Raises UsageError where no run may begin or go on."""
    if (out / "config.json").exists():
        if not _holds_a_run(out):
            raise UsageError(f"--out {out}: its config.json is no training run's. Choose another.")
        if not resume:
            raise UsageError(
                f"{out} holds a run already: --resume continues it, --out puts this one elsewhere."
            )
        return True
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: this is a file; a run is a folder.")
    whole = out.expanduser().absolute()
    for parent in whole.parents:
        if _holds_a_run(parent):
            raise UsageError(f"--out {out} lies inside the run {parent}. Choose another place.")
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: nothing can be written in {there}.")
    return False


def _holds_a_run(folder: Path) -> bool:
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and "skeleton" in facts
