"""SPEC's files: one picture and K texts, or one text and K pictures (wjpoom/SPEC, spec/dataset.py).

`<part>/image2text.json` and `<part>/text2image.json` are lists of `{"query", "keys": [...],
"label"}`: `label` is the place of the right one among `keys`; pictures are relative to `<part>/`. A
subset is a part and a direction: `count_i2t` chooses texts, `count_t2i` pictures. Read unpacked or
inside `data.zip`. Option: `candidates`, by part, how many `keys` each sample has; another number
stops the reading, since chance and published scores would no longer be comparable.
"""

from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.border import reason
from fsc_bench.data.containers import zip
from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"candidates": {}}
FILES = {"i2t": "image2text.json", "t2i": "text2image.json"}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    candidates = task.data.options.get("candidates", OPTIONS["candidates"])
    for subset in task.leaves:
        part, _, direction = subset.rpartition("_")
        path, prefix, content = _open(raw, part, FILES[direction])
        if not isinstance(content, list):
            raw.fail(path, None, "is not a list of samples.")
        expected = candidates.get(part) or _count(content)
        for number, row in enumerate(content):
            keys = _keys(raw, path, number, row, expected)
            query = raw.field(path, number, row, "query")
            label = raw.field(path, number, row, "label", int)
            if not 0 <= label < len(keys):
                raw.fail(path, number, f"'label' is {label}, but there are {len(keys)} 'keys'.")
            ordered = (keys[label], *keys[:label], *keys[label + 1 :])
            images, texts = ((query,), ordered) if direction == "i2t" else (ordered, (query,))
            yield Record(
                id=f"{subset}/{number}",
                subset=subset,
                images=tuple(ImageRef(OWN, f"{prefix}{image}") for image in images),
                texts=texts,
                # The pictures of one base case are made together; the right one stands for them.
                cluster=images[0],
            )


def _count(content: list) -> int:
    """Candidates of the first sample, for task files that promise no number."""
    first = content[0] if content and isinstance(content[0], dict) else {}
    return len(first["keys"]) if isinstance(first.get("keys"), list) else 0


def _keys(raw: Raw, path: str | Path, number: int, row: dict, expected: int) -> list[str]:
    keys = raw.field(path, number, row, "keys", list)
    for place in range(len(keys)):
        raw.field(path, number, keys, place)
    if len(keys) != expected or len(keys) < 2:
        raw.fail(path, number, f"'keys' holds {len(keys)} candidates, not {expected}.")
    return keys


def _open(raw: Raw, part: str, file: str) -> tuple[str | Path, str, object]:
    """(where the annotation is, prefix of its pictures' paths, its content)."""
    roots = ("", "data/")
    if not raw.has("data.zip") or any((raw.folder / root / part).is_dir() for root in roots):
        names = [f"{root}{part}/{file}" for root in roots]
        path = raw.find(*names)
        prefix = path.parent.relative_to(raw.folder).as_posix()
        return path, f"{prefix}/", raw.json(*names)
    archive = raw.find("data.zip")
    members = [
        name
        for name in raw.zip_names("data.zip")
        if f"/{name}".endswith(f"/{part}/{file}") and not name.startswith("__MACOSX")
    ]
    if not members:
        raw.fail(archive, None, f"has no {part}/{file}.")
    member = min(members, key=len)
    where = f"{archive}::{member}"
    try:
        text = zip.Container(archive).read(member).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raw.fail(where, None, f"cannot be read: {reason(error)}.")
    return where, f"data.zip::{member.removesuffix(file)}", raw.parse(where, None, text)
