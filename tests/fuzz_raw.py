"""Damage for raw files, and the check that a reader meets it well. Used by the readers' fuzz tests.

A reader that is given a damaged file either still reads a valid set of records or refuses it with
one line that names the file. It never raises anything else.
"""

import csv
import gzip
import io
import json
import random
import unittest.mock
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

from fsc_bench.data.images import Images
from fsc_bench.data.raw import Raw
from fsc_bench.errors import DataError
from fsc_bench.records import Record, check_records, read_records, write_records
from fsc_bench.task import Task

# Values that no annotation should hold where another stood.
ODD_VALUES = [
    None, True, False, 0, -1, 2**31, 10**30, 0.5, float("nan"), float("inf"), "", "   ", "\n",
    "a\nb", "\0", "\ud800", "../../etc/passwd", "/etc/passwd", "x" * 5000, "[1, 2", "{'a', 'b'}",
    "nan", "-1", ".", "/", "é" * 200, "a/" * 3000,
    [], {}, [None], [[]], {"": None}, ["a"] * 50, {"caption": {}},
]  # fmt: skip
ODD_FILES = [
    b"", b"\0" * 64, b"null", b"[]", b"{}", b'""', b"42", b"[null]", b"[[]]", b"\xff\xfe\xff\xfe",
    b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", b"[" * 100_000,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"9" * 10_000,
    b"\x1f\x8b\x08\x00garbage", b"PK\x03\x04garbage", b"PAR1garbagePAR1", b"\n\n\n", b",,,\n,,,\n",
]  # fmt: skip


def mutations(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Endless damaged versions of a file's content: whole, byte by byte, and by its structure."""
    yield from ODD_FILES
    kinds: list[Callable[[bytes, random.Random], bytes]] = [_bytes, *_structures(data) * 3]
    while True:
        yield rng.choice(kinds)(data, rng)


def check_reader(
    task: Task, folder: Path, read: Callable[[Task, Raw], Iterable[Record]]
) -> list[Record] | str:
    """Reads `folder` as preparing would: the records, or the one line that refuses it.

    Fails for any other exception, for a message of many lines or without a place, and for records
    that cannot be stored or scored.
    """
    try:
        raw = Raw(task, folder)
        records = list(read(task, raw))
        check_records(task, records, raw.where())
        images = Images(folder)
        images.links = {task.name: str(folder)}
        for reference in {image for record in records for image in record.images}:
            images.exists(task.name, reference)
    except DataError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 1500, f"not one line: {message!r:.2000}"
        assert str(folder) in message, f"names no file: {message}"
        return message
    for record in records:
        assert all(text.strip() for text in record.texts), f"an empty text: {record}"
    stored = folder.parent / f"{folder.name}.records.parquet"
    write_records(stored, records, {})
    assert read_records(stored) == records, "records change on their way through the file"
    return records


def fuzz(
    task: Task,
    folder: Path,
    file: str,
    read: Callable[[Task, Raw], Iterable[Record]],
    count: int = 100,
    seed: int = 0,
) -> dict[str, int]:
    """Damages one file of a raw copy `count` times; says how many were read and how many refused.

    The undamaged copy must be valid, and is again afterwards.
    """
    with unittest.mock.patch("fsc_bench.system.files.CLOCK_STEP", 0):  # nothing else writes here
        return _fuzz(task, folder, file, read, count, seed)


def _fuzz(
    task: Task,
    folder: Path,
    file: str,
    read: Callable[[Task, Raw], Iterable[Record]],
    count: int,
    seed: int,
) -> dict[str, int]:
    path = folder / file
    whole = path.read_bytes()
    assert isinstance(check_reader(task, folder, read), list), "the undamaged copy must be valid"
    outcomes = {"read": 0, "refused": 0}
    try:
        for damaged in islice(mutations(whole, random.Random(seed)), count):
            path.write_bytes(damaged)
            try:
                outcome = check_reader(task, folder, read)
            except Exception as error:
                raise AssertionError(
                    f"{file}, damaged to {damaged[:2000]!r}: {type(error).__name__}: {error}"
                ) from error
            outcomes["refused" if isinstance(outcome, str) else "read"] += 1
    finally:
        path.write_bytes(whole)
    return outcomes


# ---------------------------------------------------------------- byte by byte


def _bytes(data: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(data) + 1), rng.randrange(1, 40)
    kind = rng.randrange(9)
    if kind == 0:
        return data[:place]  # a download that broke off
    if kind == 1:
        return data[place:]
    if kind == 2:
        return data[:place] + rng.randbytes(length) + data[place + length :]
    if kind == 3:
        return data[:place] + data[place + length :]
    if kind == 4:
        return data[:place] + data[max(place - length, 0) :]
    if kind == 5:
        return data[:place] + b"\0" * length + data[place:]
    if kind == 6:
        return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"]))
    if kind == 7:
        return data[:place] + "é".encode("latin-1") + data[place:]
    return gzip.compress(data)[:place]


# ---------------------------------------------------------------- by structure


def _structures(data: bytes) -> list[Callable[[bytes, random.Random], bytes]]:
    """The structural mutations that fit this content: JSON, JSON lines or CSV."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    try:
        json.loads(text)
        return [_json]
    except ValueError:
        pass
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        for line in lines:
            json.loads(line)
        return [_json_lines]
    except ValueError:
        return [_csv] if lines and "," in lines[0] else []


def _json(data: bytes, rng: random.Random) -> bytes:
    tree = json.loads(data.decode("utf-8-sig"))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        tree = _damage(tree, rng)
    return json.dumps(tree).encode()


def _json_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode("utf-8-sig").splitlines()
    place = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[place])
    elif kind == 2:
        lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
    else:
        lines[place] = json.dumps(_damage(json.loads(lines[place]), rng))
    return "\n".join(lines).encode()


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value below `tree`."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _nodes(tree[key])


def _damage(tree: Any, rng: random.Random) -> Any:
    nodes = list(_nodes(tree))
    if not nodes or rng.random() < 0.02:
        return deepcopy(rng.choice(ODD_VALUES))
    container, key = rng.choice(nodes)
    kind = rng.randrange(8)
    if kind == 0:
        del container[key]  # a missing key, or one element fewer
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}_{rng.randrange(9)}"] = container.pop(key)  # a misspelt key
    elif kind == 2:
        other, place = rng.choice(nodes)
        if other is container:  # swapped columns
            container[key], container[place] = container[place], container[key]
    elif kind == 3 and isinstance(container, list):
        container.append(json.loads(json.dumps(container[key])))  # a record twice
    elif kind == 4 and isinstance(container[key], str):
        container[key] = rng.choice(
            [container[key] * 200, [container[key]], container[key] + "é\u2028"]
        )
    elif kind == 5 and isinstance(container[key], int | float):
        container[key] = rng.choice(
            [str(container[key]), -container[key] - 1, container[key] * 10**9]
        )
    else:
        container[key] = deepcopy(rng.choice(ODD_VALUES))  # a later damage may change it
    return tree


def _csv(data: bytes, rng: random.Random) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    place, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    kind = rng.randrange(9)
    if kind == 0:
        rows = [row[:column] + row[column + 1 :] for row in rows]  # a missing column
    elif kind == 1:
        rows[0][column] += "_"
    elif kind == 2:
        other = rng.randrange(len(rows[0]))  # swapped columns, with or without their names
        for row in rows[rng.randrange(2) :]:
            row[column], row[other] = row[other], row[column]
    elif kind == 3:
        del rows[place][column]
    elif kind == 4:
        rows[place].insert(column, "surplus")
    elif kind == 5:
        rows.append(rows[place])
    elif kind == 6:
        del rows[place]
    elif kind == 7:
        cell = rows[place][column]
        rows[place][column] = cell[: rng.randrange(len(cell) + 1)]
    else:
        odd = [str(value) for value in ODD_VALUES if value != "\ud800"]
        odd += ["['a', 'b'", "[]", "['', '', '', '', '']", "[None, 1, 2, 3, 4]", "__import__('os')"]
        odd += ["['a'] * 5", "{[]: 1}", "(" * 500, "['\\ud800', 'b', 'c', 'd', 'e']", "9" * 5000]
        rows[place][column] = rng.choice(odd)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
