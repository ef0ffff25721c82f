"""Mirror: a folder of WebDataset shards at an address, as clip_benchmark's `--dataset_root` has it.

Below the address lie `SPLIT/nshards.txt`, which says how many shards there are, `SPLIT/0.tar ...`
and, where the data set has them, `dataset_type.txt`, `classnames.txt` and
`zeroshot_classification_templates.txt`. Each file is fetched and resumed as any other; the marker
of the whole is written last.
"""

from dataclasses import replace
from typing import Any

from fsc_bench.data.download import NotThere, fetch
from fsc_bench.data.items import Item
from fsc_bench.data.lock import check_lock
from fsc_bench.data.session import Session, finish
from fsc_bench.errors import DataError
from fsc_bench.system.facts import read_text
from fsc_bench.system.files import write_json

MAY_LACK = ("dataset_type.txt", "classnames.txt", "zeroshot_classification_templates.txt")
MOST = 100_000  # shards


def fetch_mirror(item: Item, session: Session) -> dict[str, Any]:
    """Brings every file of the split. Returns the marker of all.

    Raises DataError, one line, where the mirror lacks a shard that it promises.
    """
    item.folder.mkdir(parents=True, exist_ok=True)
    write_json(item.path, {"url": item.url})
    names = [_file(item, f"{item.shards}/nshards.txt", session)]
    for name in MAY_LACK:
        try:
            names.append(_file(item, name, session))
        except NotThere:
            continue
    for number in range(_shards(item)):
        names.append(_file(item, f"{item.shards}/{number}.tar", session))
    marker = finish(item, names, None)
    check_lock(item, marker)
    return marker


def _file(item: Item, name: str, session: Session) -> str:
    """Brings one file below the address. Returns its name below the item's folder."""
    path = item.folder / name
    one = replace(item, path=path, url=f"{item.url}/{name}", served=path.name, shards="",
                  expects=())  # fmt: skip
    fetch(one, session)
    return name


def _shards(item: Item) -> int:
    path = item.folder / item.shards / "nshards.txt"
    said = read_text(path).strip()
    if not said.isascii() or not said.isdigit() or not 0 < int(said) <= MOST:
        path.unlink()
        raise DataError(
            f"{item.owner}: {item.url}/{item.shards}/nshards.txt says {said!r:.40}, no number of "
            "shards. It was not kept."
        )
    return int(said)
