"""Anything `datasets` loads that has an image and a caption column, `hf:org/name` or `hf:FOLDER`.

`?split=train` chooses a split. No code that a data set ships is ever run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.system.spec import Spec
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

IMAGES = ("image", "jpg", "img", "filepath", "image_path", "path")
CAPTIONS = ("caption", "text", "txt", "title", "captions")


class Table:
    """A `datasets.Dataset`; images are stored inside, or named by a path below `folder`."""

    def __init__(self, table: Any, keys: Keys, where: str, folder: Path):
        import datasets

        columns = table.column_names
        self.image = column(keys.image, IMAGES, columns, "image", where)
        self.text = column(keys.caption, CAPTIONS, columns, "caption", where)
        self.negatives = ""
        if keys.negatives:
            wanted = keys.negatives if keys.negatives != "data" else ""
            usual = ("negatives", "neg_caption", "hard_negatives")
            self.negatives = column(wanted, usual, columns, "negative", where)
        self.positives = ""
        if keys.positives:
            wanted = keys.positives if keys.positives != "data" else ""
            self.positives = column(wanted, POSITIVES, columns, "positive", where)
        if isinstance(table.features[self.image], datasets.Image):
            # Decoded here, so that a damaged image is counted instead of ending the run.
            table = table.cast_column(self.image, datasets.Image(decode=False))
        self.table, self.folder = table, folder
        self.captions = captions = table[self.text]
        named = table.features[self.image] == datasets.Value("string")
        # Rows of one image share a key where the image is named, so that a split cannot part them.
        self.keys = list(table[self.image]) if named else [f"{n:09d}" for n in range(len(table))]
        self.fingerprint = fingerprint(zip(self.keys, captions, strict=True))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Pair:
        row, where = self.table[index], f"row {index + 1}"
        caption = _first(row[self.text], where)
        negatives = row[self.negatives] if self.negatives else None
        # Without a column of them, the row's other captions say the same.
        positives = row[self.positives] if self.positives else _others(row[self.text])
        return Pair(
            self._open(row[self.image], where),
            caption,
            check_texts(negatives, where, "hard negatives"),
            check_texts(positives, where, "paraphrases"),
        )

    def caption(self, index: int) -> str:
        return _first(self.captions[index], f"row {index + 1}")

    def _open(self, value: Any, where: str):
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            value = read_file(self.folder / value, where)  # an absolute path stays as it is
        if not isinstance(value, bytes):
            raise BadPair(f"{where}: no image")
        return decode(value, where)


def _first(text: Any, where: str) -> str:
    """Of several captions the first, so that a pair is one row."""
    if isinstance(text, list):
        text = text[0] if text else ""
    return check_caption(text, where)


def _others(text: Any) -> list[str]:
    return text[1:] if isinstance(text, list) else []


def open_pairs(path: str, keys: Keys, links: Mapping[str, str]) -> Table:
    import datasets

    spec = Spec("hf", path)
    name, options = spec.place, spec.options("split", "name")
    split = options.get("split", "train")
    folder = Path(name).expanduser()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(folder))
        else:
            table = datasets.load_dataset(name, options.get("name"))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"hf:{name}: {' '.join(str(error).split())[:200]}") from None
    if isinstance(table, dict):
        if split not in table:
            raise UsageError(
                f"hf:{name}: no split {split!r} (has {', '.join(table)}).{near_miss(split, table)}"
            )
        table = table[split]
    return Table(table, keys, path, folder)
