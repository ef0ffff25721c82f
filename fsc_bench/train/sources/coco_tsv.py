"""COCO with captions in a table, `coco-tsv:train_neg_clip.tsv`: the layout of NegCLIP's repository.

Tab-separated columns `title`, `filepath` (`coco/val2014/COCO_....jpg`) and `neg_caption` (a Python
list of one to five strings, read as a literal, never evaluated). A column of paraphrases holds
either such a list or one sentence.
"""

import ast
import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fsc_bench.errors import DataError
from fsc_bench.train.sources import (
    POSITIVES,
    BadPair,
    Keys,
    Pair,
    check_caption,
    column,
    decode,
    fingerprint,
)


class CocoTsv:
    def __init__(self, path: Path, keys: Keys, links: Mapping[str, str]):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file.") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: not a readable table: {error}") from None
        if not rows:
            raise DataError(f"{path}: the table is empty.")
        columns = [name for name in rows[0] if name]
        title = column(keys.caption, ("title", "caption"), columns, "caption", path)
        image = column(keys.image, ("filepath", "image"), columns, "image", path)
        self.captions = [row[title] or "" for row in rows]
        self.keys = [_below_coco(row[image] or "") for row in rows]
        self.negatives: list[str] = []
        if keys.negatives:
            name = column(
                keys.negatives if keys.negatives != "data" else "",
                ("neg_caption", "negatives"), columns, "negative", path,
            )  # fmt: skip
            self.negatives = [row[name] or "[]" for row in rows]
        self.positives: list[str] = []
        if keys.positives:
            name = column(
                keys.positives if keys.positives != "data" else "", POSITIVES, columns, "positive",
                path,
            )  # fmt: skip
            self.positives = [row[name] or "" for row in rows]
        texts = [self.captions, self.negatives or self.captions]
        texts += [self.positives] if self.positives else []
        self.fingerprint = fingerprint(zip(self.keys, *texts, strict=True))
        self.folder, self.links = path.parent, dict(links)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair:
        name = self.keys[index]
        caption = self.caption(index)
        negatives: tuple[str, ...] = ()
        if self.negatives:
            negatives = _strings(self.negatives[index], f"row {index} ({name})", "hard negatives")
        positives: tuple[str, ...] = ()
        if self.positives:
            text = self.positives[index].strip()  # one sentence, or a list as the negatives are
            positives = (text,) if text else ()
            if text.startswith(("[", "(")):
                positives = _strings(text, f"row {index} ({name})", "paraphrases")
        try:
            content = self._locate(name).read_bytes()
        except OSError as error:
            raise BadPair(f"{name}: {error.strerror}") from None
        return Pair(decode(content, name), caption, negatives, positives)

    def caption(self, index: int) -> str:
        return check_caption(self.captions[index], f"row {index} ({self.keys[index]})")

    def _locate(self, name: str) -> Path:
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts:
            raise BadPair(f"{name!r} is not a path below the COCO folder")
        linked = self.links.get(f"coco/{pure.parent}")
        if linked:
            return Path(linked) / pure.name
        inside = self.folder / "images" / name
        return inside if inside.is_file() else self.folder / name


def open_pairs(path: str, keys: Keys, links: Mapping[str, str]) -> CocoTsv:
    return CocoTsv(Path(path).expanduser(), keys, links)


def _below_coco(name: str) -> str:
    return name.removeprefix("coco/").removeprefix("images/")


def _strings(text: str, where: str, what: str) -> tuple[str, ...]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadPair(f"{where}: the {what} are not a list: {text[:60]!r}") from None
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list | tuple) or not all(isinstance(part, str) for part in found):
        raise BadPair(f"{where}: the {what} are not a list of strings: {text[:60]!r}")
    return tuple(part.strip() for part in found)
