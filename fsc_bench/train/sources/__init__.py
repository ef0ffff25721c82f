"""Training data: one file a kind, and the file's name is the kind's. `KIND:PATH` names a data set.

A kind is a module with `open_pairs(path, keys, links) -> Pairs`; other packages add kinds with the
entry-point group `fsc_bench.training_data`. All are read by number, never as a stream: any order,
any number of processes and workers, and each pair is seen exactly once an epoch.
"""

import hashlib
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from fsc_bench.data import border, pixels
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.system.regular import read_file as read_regular
from fsc_bench.system.spec import Spec
from fsc_bench.train.config import TrainConfig

# What a column of paraphrases is usually called.
POSITIVES = ("positives", "positive", "paraphrase", "paraphrases", "pos_caption")


class BadPair(Exception):
    """One pair cannot be used: an image absent or damaged, a caption empty. The run counts them."""


@dataclass(frozen=True)
class Keys:
    """Which columns or fields to take; empty names leave it to the kind."""

    image: str = ""
    caption: str = ""
    negatives: str = ""  # "" for none
    negative_kinds: tuple[str, ...] = ()
    positives: str = ""  # paraphrases: "" for none, "data" for the kind's usual column


def keys_of(config: TrainConfig) -> Keys:
    """What a config asks of its data. "data" stands for the kind's usual column."""
    return Keys(
        config.image_key,
        config.caption_key,
        (config.negative_key or "data") if config.negatives == "data" else "",
        config.negative_kinds if config.negatives != "none" else (),
        (config.positive_key or "data") if config.positives == "data" else "",
    )


@dataclass(frozen=True)
class Pair:
    """An image with its caption; `negatives` and `positives` where the data brings its own.

    `positives` say the same as the caption: paraphrases, or the other captions of the same row.
    """

    image: Image.Image
    caption: str
    negatives: tuple[str, ...] = ()
    positives: tuple[str, ...] = ()


class Pairs(Protocol):
    """A data set of pairs.

    keys: one string a pair, the same for pairs of one image. fingerprint: a hash of what it holds,
    wherever it lies. `notes` (optional): lines to show.
    """

    keys: Sequence[str]
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """Raises BadPair, with the reason, where this one cannot be used."""
        ...

    def caption(self, index: int) -> str:
        """The caption alone, for those who need no image. Raises BadPair."""
        ...


@dataclass
class Opened:
    """A file opened at most once in each process, whatever a data loader forks or pickles."""

    path: Any
    _files: dict[int, Any] = field(default_factory=dict)

    def read(self, offset: int, size: int) -> bytes:
        # pread: two threads or a forked worker share no position.
        handle = self._files.get(os.getpid())
        if handle is None:
            handle = self._files[os.getpid()] = os.open(self.path, os.O_RDONLY)
        content = os.pread(handle, size, offset)
        if len(content) != size:
            raise BadPair(f"{self.path}: ends before byte {offset + size}")
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_files": {}}


def open_pairs(data: str, keys: Keys, links: Mapping[str, str] | None = None) -> Pairs:
    """The data set that `KIND:PATH` names. Raises UsageError or DataError, one line.

    `links`: where image sources lie (`coco/val2014` -> folder): `fsc-bench data link` keeps them.
    """
    kind, path = split_data(data)
    pairs = kinds()[kind]().open_pairs(path, keys, links or {})
    if not len(pairs):
        raise DataError(f"training data {data!r} holds no pair of an image and a caption.")
    return pairs


def split_data(data: str) -> tuple[str, str]:
    """(kind, path) of `KIND:PATH`. Raises UsageError, one line, for an unknown kind."""
    spec, known = Spec.read(data), kinds()
    if not data:
        raise UsageError(f"no training data: give --data KIND:PATH. Kinds: {', '.join(known)}.")
    if not spec.rest or spec.kind not in known:
        raise UsageError(
            f"training data {data!r}: write KIND:PATH. Kinds: {', '.join(known)}."
            f"{near_miss(spec.kind, known)}"
        )
    return spec.kind, spec.rest


def kinds() -> dict[str, Callable[[], Any]]:
    """Every kind by name, with a function that imports it."""
    found: dict[str, Callable[[], Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        path = f"{__name__}.{module.name}"
        found[module.name.replace("_", "-")] = lambda path=path: importlib.import_module(path)
    for point in entry_points(group="fsc_bench.training_data"):
        found.setdefault(point.name, point.load)
    return found


def decode(content: bytes, where: str) -> Image.Image:
    """Bytes to the RGB image that scoring sees too. Raises BadPair for what cannot be read."""
    try:
        return pixels.decode(content, where)
    except DataError as error:
        raise BadPair(str(error)) from None


def read_file(path: Path, where: str) -> bytes:
    """The content of an image file. Raises BadPair; a pipe or device is no file, and would hang."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise BadPair(f"{where}: there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise BadPair(f"{where}: {path}: {border.reason(error)}") from None


def check_caption(text: Any, where: str) -> str:
    """The caption without outer blanks. Raises BadPair for an empty one, or one that is no text."""
    if not isinstance(text, str) or not text.strip():
        raise BadPair(f"{where}: the caption is empty")
    if not _is_unicode(text):
        raise BadPair(f"{where}: the caption holds half a character (a lone surrogate)")
    return text.strip()


def check_texts(found: Any, where: str, what: str) -> tuple[str, ...]:
    """A text or a list of texts as a tuple; "" for one that is absent. Raises BadPair for others.

    what: the word for them, such as "hard negatives".
    """
    found = [found] if isinstance(found, str) else [] if found is None else found
    texts = ["" if text is None else text for text in found] if isinstance(found, list) else None
    if texts is None or not all(isinstance(text, str) and _is_unicode(text) for text in texts):
        raise BadPair(f"{where}: the {what} are not a list of strings: {found!r:.60}")
    return tuple(text.strip() for text in texts)


def _is_unicode(text: str) -> bool:
    """JSON can spell half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def column(wanted: str, usual: Sequence[str], columns: Sequence[str], what: str, where: Any) -> str:
    """The column to take for `what`: the wanted one, or the first usual one that is there."""
    if wanted:
        if wanted not in columns:
            raise UsageError(
                f"{where}: no column {wanted!r} for the {what} (has {', '.join(columns)})."
                f"{near_miss(wanted, columns)}"
            )
        return wanted
    for name in usual:
        if name in columns:
            return name
    hints = [near_miss(name, columns) for name in usual]
    hint = next((hint for hint in hints if hint), "")
    raise UsageError(
        f"{where}: none of the columns {', '.join(columns)} is called {' or '.join(usual)}; set "
        f"{what}_key to the column with the {what}.{hint}"
    )


def fingerprint(rows: Iterable[Sequence[Any]]) -> str:
    """sha256 over the rows in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(row)).encode() + b"\n")
    return digest.hexdigest()
