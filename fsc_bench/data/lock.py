"""Lock: the versions of all that one machine fetched, in a file that holds another machine to them.

`fsc-bench data lock FILE` writes it, as TOML or, where FILE ends in .json, as JSON. A commit that
was resolved at the first fetch stands there as well as a pinned one, with size and sha256 of every
file. Nothing in it tells of a machine or a day: of the same data each writes the same file.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from fsc_bench import __version__
from fsc_bench.data.archives import unsafe_name
from fsc_bench.data.items import Item, Owner, owners
from fsc_bench.data.session import finished, read_marker
from fsc_bench.errors import DataError, UsageError
from fsc_bench.system.facts import Facts, read_json, read_toml
from fsc_bench.system.files import write_text
from fsc_bench.task import Task

SCHEMA = 1


class LockedFile(Facts, frozen=True):
    """A file as it lies below its source's folder."""

    name: str
    bytes: int
    sha256: str


class LockedSource(Facts, frozen=True, omit_defaults=True):
    """One source of a task or image source, as it was fetched.

    asked: the names and globs of a repository's files. sha256, bytes: of what was served, where
    that was one file; `files` is what became of it.
    """

    owner: str
    kind: Literal["task", "images"]
    pinned: bool
    files: tuple[LockedFile, ...]
    url: str = ""
    hf: str = ""
    asked: tuple[str, ...] = ()
    commit: str = ""
    sha256: str = ""
    bytes: int = 0


class LockFile(Facts, frozen=True):
    """A lock file as it stands."""

    schema: int
    fsc_bench: str
    sources: tuple[LockedSource, ...] = ()


@dataclass(frozen=True)
class Lock:
    """A lock file that was read, and where from. sha256: of what it says."""

    path: Path
    file: LockFile

    @property
    def sha256(self) -> str:
        return hashlib.sha256(_as_json(self.file).encode()).hexdigest()


# ---------------------------------------------------------------- writing and reading


def write_lock(
    path: Path, tasks: Iterable[Task], data: Path, images: Iterable[str] = ()
) -> tuple[LockFile, list[str]]:
    """Writes every source of the tasks and image sources that was fetched and is whole.

    Returns (what was written, the names of those whose data a lock cannot hold: linked, or put
    there by hand). Raises UsageError where there is nothing to lock, RunError where it cannot be
    written.
    """
    found: list[LockedSource] = []
    outside: list[str] = []
    for owner in owners(tasks, data, images):
        if owner.drawn:
            continue
        if owner.linked or _holds_more(owner):
            outside.append(owner.name)
        if not owner.linked:
            found += [
                _locked(owner, item, marker)
                for group in owner.groups
                for item in group
                if (marker := finished(item)) is not None
            ]
    if not found:
        raise UsageError(
            f"{path}: not written: nothing that was named has been fetched into {data}. "
            "`fsc-bench data get NAME` fetches it."
        )
    found.sort(key=lambda one: (one.kind, one.owner, one.hf, one.url, one.asked))
    file = LockFile(SCHEMA, __version__, tuple(found))
    write_text(path, _as_json(file) if path.suffix == ".json" else _as_toml(file))
    return file, outside


def read_lock(path: Path) -> Lock:
    """Raises UsageError, one line, for a file that is no lock file."""
    read = read_json if path.suffix == ".json" else read_toml
    file = read(path, LockFile)
    if file.schema != SCHEMA:
        raise UsageError(
            f"{path}: schema = {file.schema} is not known; this version reads {SCHEMA}."
        )
    for place, source in enumerate(file.sources):
        _check(f"{path}: sources[{place}] ({source.owner})", source)
    return Lock(path, file)


def _check(where: str, source: LockedSource) -> None:
    if bool(source.url) == bool(source.hf):
        raise UsageError(f"{where} needs either 'url' or 'hf'.")
    if bool(source.hf) != bool(re.fullmatch(r"[0-9a-f]{40}", source.commit)):
        raise UsageError(
            f"{where}: commit = {source.commit!r} is not the 40 digits 0-9a-f of a commit."
        )
    if not source.files:
        raise UsageError(f"{where} names no file.")
    sums = [source.sha256] * bool(source.sha256) + [one.sha256 for one in source.files]
    for one in sums:
        if not re.fullmatch(r"[0-9a-f]{64}", one):
            raise UsageError(f"{where}: sha256 = {one!r} is not 64 digits 0-9a-f.")
    for one in source.files:
        if unsafe_name(one.name):
            raise UsageError(f"{where}: files has {one.name!r}, which {unsafe_name(one.name)}.")


def _locked(owner: Owner, item: Item, marker: dict[str, Any]) -> LockedSource:
    return LockedSource(
        owner=owner.name,
        kind=owner.kind,
        pinned=item.pinned,
        files=tuple(
            LockedFile(name, size, sha) for name, (size, sha) in sorted(marker["files"].items())
        ),
        url=item.url,
        hf=item.hf,
        asked=item.files,
        commit=marker["commit"] or item.revision,
        sha256="" if marker["unchecked"] else marker["sha256"],
        bytes=marker["bytes"],
    )


def _holds_more(owner: Owner) -> bool:
    """Whether files without a marker of ours stand in an item's place."""
    return any(
        item.url
        and not (item.unpack or item.shards)
        and item.path.is_file()
        and read_marker(item) is None
        for group in owner.groups
        for item in group
    )


def _as_json(file: LockFile) -> str:
    return json.dumps(msgspec.to_builtins(file), indent=1, ensure_ascii=False) + "\n"


def _as_toml(file: LockFile) -> str:
    """TOML's strings, numbers and true/false are written as JSON's are."""
    lines = [
        "# Written by `fsc-bench data lock`; `fsc-bench data get --locked FILE` takes these alone.",
        f"schema = {file.schema}",
        f"fsc_bench = {json.dumps(file.fsc_bench)}",
    ]
    for source in msgspec.to_builtins(file)["sources"]:
        lines += ["", "[[sources]]"]
        files = source.pop("files")
        lines += [_pair(*pair) for pair in source.items()]
        rows = (
            ", ".join(f"{key} = {json.dumps(value)}" for key, value in one.items()) for one in files
        )
        lines += ["files = [", *(f"    {{ {row} }}," for row in rows), "]"]
    return "\n".join(lines) + "\n"


def _pair(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value)}"


# ---------------------------------------------------------------- holding to it


def hold(
    every: Iterable[Owner], lock: Lock
) -> tuple[list[Owner], dict[tuple[str, str], list[str]]]:
    """(the owners with what the lock names alone, what is refused of each: lines).

    Of several places of the same data the lock's is taken. Nothing is fetched here.
    """
    known = {
        _key(one.kind, one.owner, one.url, one.hf, one.asked): one for one in lock.file.sources
    }
    held, refused = [], {}
    for owner in every:
        lines: list[str] = []
        groups = []
        if owner.linked:
            lines.append(
                f"{owner.name}: linked to {owner.folder}, of which {lock.path} says nothing: a "
                "lock holds what `data get` fetched."
            )
        else:
            for group in owner.groups:
                try:
                    groups.append((_held(owner, group, known, lock),))
                except DataError as error:
                    lines.append(str(error))
        held.append(replace(owner, groups=tuple(groups)) if not owner.linked else owner)
        if lines:
            refused[owner.kind, owner.name] = lines
    return held, refused


def check_held(task: Task, data: Path, lock: Lock) -> None:
    """Raises DataError, one line, where a task's data or its images are not what the lock names."""
    held, refused = hold(owners([task], data), lock)
    for lines in refused.values():
        raise DataError(lines[0])
    for item in (item for owner in held for group in owner.groups for item in group):
        if finished(item) is None:
            raise DataError(
                f"{item.owner}: {item.where} is not there as {lock.path} names it. "
                f"`fsc-bench data get {item.owner} --locked {lock.path}` fetches it."
            )


def _held(owner: Owner, group: tuple[Item, ...], known: dict, lock: Lock) -> Item:
    """The item of a group that the lock names, at the lock's version. Raises DataError."""
    found = [
        (item, entry)
        for item in group
        if (entry := known.get(_key(owner.kind, owner.name, item.url, item.hf, item.files)))
    ]
    if not found:
        raise DataError(
            f"{owner.name}: {lock.path} does not name {' or '.join(item.where for item in group)}. "
            "Lock it where it was fetched (`fsc-bench data lock FILE`), or get it without --locked."
        )
    item, entry = found[0]
    if item.revision and item.revision != entry.commit:
        raise DataError(
            f"{owner.name}: {item.where} is pinned to {item.revision} here, and {lock.path} has "
            f"{entry.commit}: it was written by fsc_bench {lock.file.fsc_bench}."
        )
    if item.sha256 and entry.sha256 and item.sha256 != entry.sha256:
        raise DataError(
            f"{owner.name}: {item.where} is pinned to sha256 {item.sha256} here, and {lock.path} "
            f"has {entry.sha256}: it was written by fsc_bench {lock.file.fsc_bench}."
        )
    held = replace(
        item,
        revision=entry.commit,
        resolved=bool(item.hf and not item.revision),
        sha256=item.sha256 or (entry.sha256 if item.url else ""),
        expects=tuple((one.name, one.bytes, one.sha256) for one in entry.files),
    )
    _check_what_is_there(held, entry, lock)
    return held


def _check_what_is_there(item: Item, entry: LockedSource, lock: Lock) -> None:
    """Raises DataError where something else was fetched before."""
    marker = read_marker(item)
    if marker is None:
        return
    advice = f"Delete {item.folder}, then get it again with --locked."
    if item.hf and marker["commit"] and marker["commit"] != entry.commit:
        raise DataError(
            f"{item.owner}: {item.where} was fetched at {marker['commit']}, and {lock.path} has "
            f"{entry.commit}. {advice}"
        )
    if other := _other(item, marker):
        name, found, wanted = other
        raise DataError(
            f"{item.owner}: {item.folder / name} has {found}, and {lock.path} has {wanted}. "
            f"{advice}"
        )


def check_lock(item: Item, marker: dict[str, Any]) -> None:
    """What came against the lock that it was fetched under. Raises DataError; it is not kept."""
    if not item.expects or (other := _other(item, marker)) is None:
        return
    name, found, wanted = other
    item.hidden("done.json").unlink(missing_ok=True)
    for came in marker["files"]:
        if not marker.get("found"):
            (item.folder / came).unlink(missing_ok=True)
    raise DataError(
        f"{item.owner}: {item.where}: {name} has {found}, and the lock file has {wanted}: it was "
        "damaged or replaced. It was not kept."
    )


def _other(item: Item, marker: dict[str, Any]) -> tuple[str, str, str] | None:
    """(name, what it is, what a lock says), of the first file that is not the lock's."""
    wanted = {name: (size, sha) for name, size, sha in item.expects}
    found = {name: (size, sha) for name, (size, sha) in marker["files"].items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            return name, _words(found.get(name)), _words(wanted.get(name))
    return None


def _words(facts: tuple[int, str] | None) -> str:
    return f"sha256 {facts[1]} ({facts[0]:,} bytes)" if facts else "no such file"


def _key(kind: str, owner: str, url: str, hf: str, asked: tuple[str, ...]) -> tuple[Any, ...]:
    return kind, owner, url, hf, tuple(asked)
