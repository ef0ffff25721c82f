"""COCO with captions in a table, `coco-tsv:train_neg_clip.tsv`: the layout of NegCLIP's repository.

Tab-separated (or, where the header has no tab, comma-separated) columns `title`, `filepath`
(`coco/val2014/COCO_....jpg`) and `neg_caption` (a Python list of one to five strings, read as a
literal, never evaluated). A column of paraphrases holds either such a list or one sentence. Quotes
are read as data/delimited.py says: a lone one is a letter of its row.
"""

import ast
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fsc_bench.data.delimited import BadTable, read_columns
from fsc_bench.errors import DataError
from fsc_bench.train.sources import (
    POSITIVES,
    BadPair,
    Keys,
    Pair,
    check_caption,
    check_texts,
    column,
    decode,
    fingerprint,
    read_file,
)


class CocoTsv:
    def __init__(self, path: Path, keys: Keys, links: Mapping[str, str]):
        try:
            table, cells = read_columns(path)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file.") from None
        except (OSError, BadTable) as error:
            raise DataError(f"{path}: not a readable table: {error}.") from None
        if not cells or not cells[0]:
            raise DataError(f"{path}: the table is empty.")
        columns = [name for name in table.columns if name]

        def of(wanted: str, usual: tuple[str, ...], what: str) -> Sequence[str]:
            wanted = "" if wanted == "data" else wanted
            return cells[table.columns.index(column(wanted, usual, columns, what, path))]

        self.captions = of(keys.caption, ("title", "caption"), "caption")
        self.keys = [_below_coco(name) for name in of(keys.image, ("filepath", "image"), "image")]
        self.negatives = self.positives = ()
        if keys.negatives:
            lists = of(keys.negatives, ("neg_caption", "negatives"), "negative")
            self.negatives = [text or "[]" for text in lists]
        if keys.positives:
            self.positives = of(keys.positives, POSITIVES, "positive")
        texts = [self.captions, self.negatives or self.captions]
        texts += [self.positives] if self.positives else []
        self.fingerprint = fingerprint(zip(self.keys, *texts, strict=True))
        self.folder, self.links = path.parent, dict(links)
        self.notes: list[str] = []
        if table.lone_quotes:
            rows = f"{table.lone_quotes:,} of {len(self):,} rows"
            self.notes.append(f"{path}: a quote that is not closed is a letter, in {rows}.")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair:
        name, where = self.keys[index], self._row(index)
        caption = self.caption(index)
        negatives = positives = ()
        if self.negatives:
            negatives = _strings(self.negatives[index], where, "hard negatives")
        if self.positives:
            text = self.positives[index].strip()  # one sentence, or a list as the negatives are
            positives = (text,) if text else ()
            if text.startswith(("[", "(")):
                positives = _strings(text, where, "paraphrases")
        content = read_file(self._locate(name), where)
        return Pair(decode(content, where), caption, negatives, positives)

    def caption(self, index: int) -> str:
        return check_caption(self.captions[index], self._row(index))

    def _row(self, index: int) -> str:
        return f"row {index + 1} ({self.keys[index]})"

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
    return name.removeprefix("./").removeprefix("coco/").removeprefix("images/")


def _strings(text: str, where: str, what: str) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # "\\d" in a caption is what it says
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadPair(f"{where}: the {what} are not a list: {text[:60]!r}") from None
    return check_texts(list(found) if isinstance(found, tuple) else found, where, what)
