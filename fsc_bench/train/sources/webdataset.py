"""WebDataset tars, `webdataset:FOLDER` or `webdataset:FOLDER/{00000..00013}.tar` (img2dataset's).

The headers are read once, and pairs by their place in the file: pairs are shared out, not shards,
so any number of shards serves any number of workers and processes, and none is lost or repeated.
"""

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsc_bench.data.containers import tar
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.train.sources import (
    BadPair,
    Keys,
    Opened,
    Pair,
    check_caption,
    decode,
    fingerprint,
)

IMAGES = ("jpg", "jpeg", "png", "webp")
Members = dict[str, tuple[int, int]]  # name or suffix -> (offset, size in bytes)
TRIED = 64  # samples that are looked at before a name counts as unknown


class WebDataset:
    """CC3M's and LAION-COCO's 100k subsets, and anything of their layout."""

    def __init__(self, path: str, keys: Keys):
        self.shards = [Opened(shard) for shard in expand(path)]
        self.caption_key, self.positive_key = keys.caption, keys.positives
        self.notes: list[str] = _gaps([shard.path for shard in self.shards])
        # (shard, image at, size, text at, size, JSON at, size); -1 where a member is absent.
        self.places: list[tuple[int, ...]] = []
        self.keys: list[str] = []
        left_out, sizes = 0, []
        for number, shard in enumerate(self.shards):
            samples, refused = read_samples(shard.path)
            if refused:
                self.notes.append(f"{shard.path}: left out: {refused[0]} ({len(refused)} such).")
            for key, members in samples.items():
                image = next((members[suffix] for suffix in IMAGES if suffix in members), None)
                text, facts = members.get("txt"), members.get("json")
                if image is None or (text is None and not keys.caption):
                    left_out += 1
                    continue
                self.places.append((number, *image, *(text or (-1, -1)), *(facts or (-1, -1))))
                self.keys.append(f"{shard.path.name}/{key}")
                sizes.append((shard.path.name, key, image[1], (text or (0, 0))[1]))
        if left_out:
            self.notes.append(f"{left_out:,} samples without an image or a text are left out.")
        read = [self.caption_key, *([self.positive_key] if self.positive_key else [])]
        self.fingerprint = fingerprint([*sizes, tuple(read)])
        self._check_key(self.caption_key, "caption")
        self._check_key(self.positive_key, "paraphrase")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair:
        shard, image_at, image_size, *_ = self.places[index]
        first, *others = self._captions(index)
        if self.positive_key:
            others = self._field(index, self.positive_key) or []
        caption = check_caption(first, self.keys[index])
        content = self.shards[shard].read(image_at, image_size)
        return Pair(decode(content, self.keys[index]), caption, (), tuple(others))

    def caption(self, index: int) -> str:
        return check_caption(self._captions(index)[0], self.keys[index])

    def _captions(self, index: int) -> list[str]:
        """The caption, and others of the sample where its JSON has a list of them."""
        shard, _, _, text_at, text_size, *_ = self.places[index]
        if not self.caption_key:
            return [self._text(shard, text_at, text_size)]
        found = self._field(index, self.caption_key)
        if not found:
            raise BadPair(f"{self.keys[index]}: no caption {self.caption_key!r}")
        return found

    def _field(self, index: int, name: str) -> list[str] | None:
        """The text or texts that a sample has under a name; None where it has no such thing."""
        shard, facts = self.places[index][0], self._facts(index)
        value = facts.get(name)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        # The reference's other place: a folder of texts beside the shards, by the sample's key.
        key = str(facts.get("key") or Path(self.keys[index]).name)
        folder = self.shards[shard].path.parent
        for place in (folder / name, folder.parent / name):
            try:
                return [(place / f"{Path(key).name}.txt").read_text().splitlines()[0]]
            except (OSError, IndexError, ValueError):  # ValueError: no UTF-8, or a zero byte in it
                continue
        return None

    def _facts(self, index: int) -> dict[str, Any]:
        """A sample's JSON; empty where it has none. Raises BadPair for one that is no object."""
        shard, *_, json_at, json_size = self.places[index]
        if json_at < 0:
            return {}
        try:
            facts = json.loads(self._text(shard, json_at, json_size))
        except (ValueError, RecursionError):
            raise BadPair(f"{self.keys[index]}: its JSON cannot be read") from None
        if not isinstance(facts, dict):
            raise BadPair(f"{self.keys[index]}: its JSON is no object but {facts!r:.40}")
        return facts

    def _text(self, shard: int, at: int, size: int) -> str:
        return self.shards[shard].read(at, size).decode("utf-8", errors="replace")

    def _check_key(self, name: str, what: str) -> None:
        """Looks a name up in the first sample that can be read. Raises DataError, one line."""
        if not name:
            return
        for index in range(min(len(self), TRIED)):
            try:
                facts, found = self._facts(index), self._field(index, name)
            except BadPair:
                continue
            # Of paraphrases this sample may have none, and others some.
            if found or (what == "paraphrase" and name in facts):
                return
            raise DataError(
                f"{self.keys[index]}: no {what} {name!r}: neither a field of its JSON "
                f"({', '.join(facts) or 'it has none'}) nor a folder beside the shards."
                f"{near_miss(name, facts)}"
            )


def open_pairs(path: str, keys: Keys, links: Mapping[str, str]) -> WebDataset:
    if keys.negatives:
        raise DataError("webdataset: these tars hold no hard negatives: set negatives = rules.")
    if keys.positives == "data":
        raise UsageError(
            "webdataset: set positive_key to the JSON field, or the folder beside the shards, that "
            "holds the paraphrases."
        )
    return WebDataset(path, keys)


def expand(path: str) -> list[Path]:
    """The shards of a folder, a glob, or a `{00000..00013}` range; every one must be there."""
    path = str(Path(path).expanduser())
    span = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if span:
        first, last = span.groups()
        shards = [
            Path(path[: span.start()] + str(number).zfill(len(first)) + path[span.end() :])
            for number in range(int(first), int(last) + 1)
        ]
    elif Path(path).is_dir():
        shards = sorted(Path(path).glob("*.tar"))
    else:
        shards = sorted(Path(found) for found in glob.glob(path))
    if not shards:
        packed = sorted([*Path(path).glob("*.tar.gz"), *Path(path).glob("*.tgz")])
        hint = f" Those like {packed[0].name} must be .tar first: gunzip." if packed else ""
        raise DataError(f"{path}: there are no .tar shards.{hint}")
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise DataError(f"{path}: {len(absent)} shards are absent, such as {absent[0]}.")
    return shards


def _gaps(shards: list[Path]) -> list[str]:
    """A line where numbered shards are not all there: a copy may have stopped half way."""
    numbers = {int(shard.stem) for shard in shards if shard.stem.isdecimal()}
    absent = sorted(set(range(min(numbers), max(numbers))) - numbers) if numbers else []
    if not absent:
        return []
    shown = f"{absent[0]:0{len(shards[0].stem)}d}.tar"
    return [f"Of the shards up to {max(numbers)}, {len(absent):,} are absent, such as {shown}."]


def read_samples(shard: Path) -> tuple[dict[str, Members], tuple[str, ...]]:
    """{sample: {suffix: (offset, size)}} of a tar, from its headers alone, and what is refused.

    Raises DataError for one that is not proved to be whole: by its end mark, or by the number of
    samples that img2dataset wrote beside it.
    """
    try:
        index = tar.read_index(shard)
    except (OSError, ValueError) as error:
        raise DataError(f"{shard}: not a whole tar file: {error}. Fetch it again.") from None
    if index.repeated:
        raise DataError(f"{shard}: holds {index.repeated!r} twice.")
    samples = _samples(shard, index.offsets)
    stats, promised = _promised(shard)
    if promised is not None and len(samples) < promised:
        raise DataError(
            f"{shard}: holds {len(samples):,} samples, {stats.name} promises {promised:,}. "
            "Fetch it again, or delete the stats file to use what is there."
        )
    if index.flaw and promised is None:
        last = next(reversed(samples), "")
        raise DataError(
            f"{shard}: {index.flaw}: what comes after sample {last!r} may be lost. Fetch it again, "
            "or unpack it and pack it again."
        )
    return samples, index.refused


def _samples(shard: Path, offsets: Members) -> dict[str, Members]:
    """Members by sample: a name up to its first dot, or to its last where names hold dots."""
    found: dict[str, Members] = {}
    for name, place in offsets.items():
        folder, _, base = name.rpartition("/")
        key, _, suffix = base.partition(".")
        if key:  # WebDataset skips hidden files too, such as the ._x.jpg of a Mac
            members = found.setdefault(f"{folder}/{key}".lstrip("/"), {})
            if suffix.lower() in members:
                raise DataError(f"{shard}: holds {name!r} twice.")
            members[suffix.lower()] = place
    samples: dict[str, Members] = {}
    for key, members in found.items():
        parts = [suffix.rpartition(".") for suffix in members]
        kinds = [kind for *_, kind in parts]
        for (prefix, dot, kind), place in zip(parts, members.values(), strict=True):
            # x.image.png and x.caption.txt are one sample, x.1.png and x.2.png are two.
            name = key if len(set(kinds)) == len(kinds) else f"{key}{dot and '.'}{prefix}"
            samples.setdefault(name, {})[kind] = place
    return samples


def _promised(shard: Path) -> tuple[Path, int | None]:
    """img2dataset writes how many samples a shard holds: a shorter one was cut off."""
    stats = shard.with_name(f"{shard.stem}_stats.json")
    try:
        return stats, int(json.loads(stats.read_text())["successes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return stats, None
