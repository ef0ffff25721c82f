"""Get: a task's files and the images it needs onto disk; what is there of them, and is it whole.

Nothing here prints: progress goes to a callback, and what a person must do is in the outcomes.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fsc_bench.data.archives import PLAIN, check_archive
from fsc_bench.data.download import fetch
from fsc_bench.data.hub import how_to_accept
from fsc_bench.data.images import Images, read_links
from fsc_bench.data.items import Item, Owner, needs, owners
from fsc_bench.data.lock import Lock, hold
from fsc_bench.data.mirror import fetch_mirror
from fsc_bench.data.prepare import is_fresh, prepared_path
from fsc_bench.data.session import (
    Progress,
    Session,
    Stopped,
    check_space,
    finished,
    read_marker,
    same_version,
    sha256_of,
)
from fsc_bench.errors import DataError
from fsc_bench.records import fingerprint, read_facts, read_records
from fsc_bench.task import Task, data_folder

CONNECTIONS = 4
USABLE = ("ready", "prepared", "linked")


@dataclass(frozen=True)
class Outcome:
    """What `get` came to for one task or image source.

    message: lines for a person: what went wrong, or the steps that only they can take.
    refused: what is there, or what would come, is not what the lock file names.
    """

    name: str
    kind: str  # task | images
    state: str  # as in Status
    path: Path
    fetched: int  # bytes that came now
    message: str = ""
    refused: bool = False

    @property
    def ok(self) -> bool:
        return self.state in USABLE and not self.refused


@dataclass(frozen=True)
class Status:
    """What is there of one task or image source.

    state: ready (on disk), prepared (records made), linked (the user's own folder or archive),
    partial (some of it), missing, gated (needs an account), manual (needs a person).
    """

    name: str
    kind: str  # task | images
    state: str
    bytes: int | None  # on disk; None for a linked folder, which is not searched
    download: int | None  # about so much is still to come; None where nobody knows
    download_known: int  # the part of it that is known
    path: Path
    next: str  # the command that goes on; empty where nothing is to do


def get(
    tasks: Iterable[Task],
    data: Path,
    *,
    progress: Progress = lambda what, done, total: None,
    offline: bool = False,
    images: Iterable[str] = (),
    lock: Lock | None = None,
) -> list[Outcome]:
    """Fetches what the tasks and image sources (those of the tasks, and `images`) lack.

    `progress(what, bytes so far, bytes in all or None)` is called from several threads, one at a
    time. One failure does not stop the others. The same call again goes on where this one ended.
    With `lock`, whatever it does not name is refused: what is there as well as what would come.
    Raises DataError where the disk cannot hold what is known to be needed.
    """
    every = owners(tasks, data, images)
    every, refused = hold(every, lock) if lock else (every, {})
    jobs = [
        (owner, group)
        for owner in every
        if not owner.linked and not owner.drawn and (owner.kind, owner.name) not in refused
        # A lock speaks of what was fetched: records made earlier and files of the user's do not do.
        if lock or _state(owner, data) not in USABLE
        for group in owner.groups
        if not any(finished(item) for item in group)
    ]
    came: dict[tuple[str, str], _Came] = {}
    if not offline:
        known = [_still_to_come(group[0]) for _, group in jobs]
        check_space("what is asked for", data, sum(size or 0 for size in known))
        for owner, markers, errors in _run(jobs, Session(progress)):
            came.setdefault((owner.kind, owner.name), _Came()).add(owner, markers, errors)
    outcomes = []
    for owner in every:
        key = (owner.kind, owner.name)
        state, one = _state(owner, data), came.get(key, _Came())
        message = "\n".join(refused.get(key, ())) or _message(
            owner, state, data, offline, one.problems, one.said
        )
        apart = key in refused or (lock is not None and not _whole(owner))
        outcomes.append(
            Outcome(owner.name, owner.kind, state, _path(owner), one.bytes, message, apart)
        )
    return outcomes


@dataclass
class _Came:
    """What came of one owner: bytes, what went wrong for good, what to say of what came."""

    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def add(self, owner: Owner, markers: list[dict], errors: list[str]) -> None:
        (self.said if markers else self.problems).extend(errors)
        for marker in markers:
            self.bytes += 0 if marker.get("found") else marker["bytes"]
            notes = filter(None, (marker["note"], marker["differs"]))
            self.said += [f"{owner.name}: {note}." for note in notes]


def _whole(owner: Owner) -> bool:
    """Whether all that can be fetched was, and nothing of the user's stands in its place."""
    return owner.drawn or all(any(map(finished, group)) for group in owner.groups)


def _run(
    jobs: list[tuple[Owner, tuple[Item, ...]]], session: Session
) -> Iterable[tuple[Owner, list[dict], list[str]]]:
    """Runs the jobs: URLs in threads, the Hub's client (parallel in itself) in this one."""
    results = []
    futures: list[tuple[Owner, Future]] = []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for owner, group in jobs:
                if group[0].url:
                    futures.append((owner, pool.submit(_fetch_group, owner, group, session)))
            for owner, group in jobs:
                if not group[0].url:
                    results.append((owner, *_fetch_group(owner, group, session)))
            for owner, future in futures:
                results.append((owner, *future.result()))
        except BaseException:  # Ctrl-C too: the threads end at their next chunk
            session.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _fetch_group(
    owner: Owner, group: tuple[Item, ...], session: Session
) -> tuple[list[dict], list[str]]:
    """(markers, complaints) of the first item that can be had, and of those before it."""
    if owner.access == "gated" and group[0].hf and not _has_token():
        return [], []
    complaints = []
    for item in group:
        try:
            marker = fetch_mirror(item, session) if item.shards else fetch(item, session)
            return [marker], [f"{line} {item.where} is taken instead." for line in complaints]
        except DataError as error:
            complaints.append(str(error))
        except Stopped:
            return [], []
    return [], complaints


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _message(
    owner: Owner, state: str, data: Path, offline: bool, problems: list[str], said: list[str]
) -> str:
    """What to tell of an owner: complaints, then the steps, then the command that goes on."""
    lines = problems[:3]
    if len(problems) > 3:
        lines.append(f"{owner.name}: and {len(problems) - 3} more.")
    lines += said
    if state in USABLE:
        return "\n".join(lines)
    again = _command(data, "get", owner.name)
    link = _command(data, "link", owner.word, "PATH")
    if owner.linked:
        lines.append(f"{owner.name}: linked to {owner.folder}, which is gone. `{link}` mends it.")
    elif owner.drawn:
        lines.append(f"{owner.name}: drawn, not fetched: `{owner.drawing}` draws it.")
    elif offline:
        lines.append(
            f"{owner.name}: not all there ({_path(owner)}), and --offline. `{again}` without it "
            f"fetches the rest; `{link}` names a copy of yours."
        )
    elif owner.access != "open":
        lines.append(f"{owner.name}: {_what_is_left(owner, state)}.")
        lines += owner.instructions.strip().splitlines()
        lines.append(f"Its folder: {owner.folder}    (or `{link}`)")
        then = again if state == "gated" or owner.kind == "images" else ""
        lines.append(f"Then: {then or _command(data, 'prepare', owner.name)}")
    else:
        lines += owner.instructions.strip().splitlines()
        lines.append(f"{owner.name}: not all there. `{again}` goes on; `{link}` names a copy.")
    return "\n".join(lines)


def _what_is_left(owner: Owner, state: str) -> str:
    """What a person must do about a gated or manual source, in a line before its own steps."""
    if state != "gated":
        return "needs your hands"
    places = [item.hf for group in owner.groups for item in group if item.hf]
    return f"needs an account: {how_to_accept(places[0])}" if places else "needs an account"


def _command(data: Path, *words: str) -> str:
    """A command of ours as the user would type it."""
    command = shlex.join(["fsc-bench", "data", *words])
    return command if data == data_folder() else f"{command} --data {shlex.quote(str(data))}"


# ---------------------------------------------------------------- what is there


def status(tasks: Iterable[Task], data: Path, *, images: Iterable[str] = ()) -> list[Status]:
    """What is on disk of the tasks and of the image sources that they (or `images`) name."""
    every = owners(tasks, data, images)
    states = {(owner.kind, owner.name): _state(owner, data) for owner in every}
    rows = []
    for owner in every:
        state = states[owner.kind, owner.name]
        rows.append(
            Status(
                owner.name,
                owner.kind,
                state,
                _size(owner),
                _download(owner, state),
                0 if state in USABLE else sum(size or 0 for size in _sizes_to_come(owner)),
                _path(owner),
                _next(owner, state, states, data),
            )
        )
    return rows


def bytes_to_fetch(tasks: Sequence[Task], data: Path) -> tuple[dict[str, int | None], int | None]:
    """(of each task with its images, of all together): what `get` would still download.

    None where nobody knows. Tasks share images: the whole is less than the sum.
    """
    sizes = {
        (owner.kind, owner.name): _download(owner, _state(owner, data))
        for owner in owners(tasks, data)
    }
    links = read_links(data)
    each = {}
    for task in tasks:
        own = [("task", task.name), *(("images", name) for name in needs(task, links))]
        each[task.name] = _sum([sizes[key] for key in own])
    return each, _sum(list(sizes.values()))


def _download(owner: Owner, state: str) -> int | None:
    if state in USABLE:
        return 0
    sizes = _sizes_to_come(owner)
    return _sum(sizes) if sizes else None


def _sizes_to_come(owner: Owner) -> list[int | None]:
    waiting = [group for group in owner.groups if not any(map(finished, group))]
    return [_still_to_come(group[0]) for group in waiting]


def _sum(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(sizes)


def _state(owner: Owner, data: Path) -> str:
    if owner.linked and not owner.folder.exists():
        return "missing"
    if owner.task is not None and is_fresh(owner.task, data):
        return "prepared"
    if owner.linked:
        return "linked"
    if owner.drawn:
        return "ready" if owner.folder.exists() else "missing"
    there = [any(finished(item) or _users(item) for item in group) for group in owner.groups]
    others = _others(owner)
    if owner.kind == "images":
        if others or (there and all(there)):
            return "ready"
    elif there and all(there):
        # What a person must bring is listed nowhere: anything but our files may be it.
        return "ready" if owner.access != "manual" or others else "manual"
    elif others and all(group[0].hf for group in owner.groups):
        return "ready"  # a copy of the user's in the place of the mirrors
    if not owner.groups and owner.access == "open":
        return "ready"  # all that it has are shared images
    if any(there) or any(_begun(item) for group in owner.groups for item in group):
        return "partial"
    return "missing" if owner.access == "open" else owner.access


def _users(item: Item) -> bool:
    """Whether an item's files are there without a marker: the user put them there."""
    if read_marker(item) is not None:
        return False
    if item.url:
        return not (item.unpack or item.shards) and item.path.is_file()
    if not item.path.is_dir() or _hub_notes(item).exists():
        return False
    names = [path.relative_to(item.path).as_posix() for path in item.path.rglob("*")]
    return all(any(fnmatchcase(name, pattern) for name in names) for pattern in item.files)


def _begun(item: Item) -> bool:
    if item.url:
        return item.part.exists() or bool(item.shards and item.path.exists())
    return any(_hub_notes(item).rglob("*.metadata")) or any(_hub_notes(item).rglob("*.incomplete"))


def _hub_notes(item: Item) -> Path:
    """Where the Hub's client writes down what it fetched."""
    return item.path / ".cache" / "huggingface"


def _others(owner: Owner) -> bool:
    """Whether an owner's folder holds something that is not of its items."""
    if not owner.folder.is_dir():
        return False
    ours = set()
    for item in (item for group in owner.groups for item in group):
        for path in (item.path, item.part):
            if path != owner.folder and path.is_relative_to(owner.folder):
                ours.add(path.relative_to(owner.folder).parts[0])
        if item.path == owner.folder and (_begun(item) or read_marker(item)):
            return False  # files of a repository have any name
    others = [
        path
        for path in owner.folder.iterdir()
        if path.name not in ours and not path.name.startswith(".")
    ]
    return any(place.is_file() for path in others for place in (path, *path.rglob("*")))


def _still_to_come(item: Item) -> int | None:
    if item.bytes is None:
        return None
    kept = item.part.stat().st_size if item.url and item.part.exists() else 0
    return max(0, item.bytes - kept)


def _path(owner: Owner) -> Path:
    """Where it is, or will be."""
    paths = [item.path for group in owner.groups for item in group if item.url and not item.unpack]
    if not owner.linked and len(paths) == 1 and owner.kind == "images":
        return owner.folder if owner.folder.exists() else paths[0]
    return owner.folder


def _size(owner: Owner) -> int | None:
    path = _path(owner)
    if path.is_dir():
        if owner.linked:
            return None
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    part = path.with_name(f"{path.name}.part")
    return next((place.stat().st_size for place in (path, part) if place.is_file()), 0)


def _next(owner: Owner, state: str, states: dict[tuple[str, str], str], data: Path) -> str:
    if state not in USABLE:
        if owner.linked:
            return _command(data, "link", owner.word, "PATH")
        return owner.drawing if owner.drawn else _command(data, "get", owner.name)
    if owner.task is None:
        return ""
    if owner.drawn:
        return owner.drawing
    for name in needs(owner.task, read_links(data)):
        if states.get(("images", name)) not in USABLE:
            return _command(data, "get", name)
    if state != "prepared":
        return _command(data, "prepare", owner.name)
    where = "" if data == data_folder() else f" --data {shlex.quote(str(data))}"
    return f"fsc-bench run -m MODEL -t {owner.name}{where}"


# ---------------------------------------------------------------- whether it is whole


def verify(
    tasks: Iterable[Task],
    data: Path,
    *,
    images: Iterable[str] = (),
    progress: Callable[[str], object] = lambda what: None,
) -> list[str]:
    """Reads again what is on disk and holds it against the markers, the pins and the records.

    Returns the problems, a line each; what is not there at all is none (see `status`).
    """
    problems = []
    for owner in owners(tasks, data, images):
        progress(owner.name)
        if owner.linked:
            if not owner.folder.exists():
                problems.append(f"{owner.name}: linked to {owner.folder}, which is gone.")
        else:
            for item in (item for group in owner.groups for item in group):
                problems += _verify_item(item, data)
        if owner.task is not None and prepared_path(owner.task, data).exists():
            problems += _verify_records(owner.task, data)
    return problems


def _verify_item(item: Item, data: Path) -> list[str]:
    again = f"Delete it, then `{_command(data, 'get', item.owner)}`."
    marker = read_marker(item)
    if marker is None:
        if not item.url or item.unpack or not item.path.is_file():
            return []
        try:
            if item.path.name.endswith(PLAIN):
                check_archive(item.path)
        except DataError as error:
            return [f"{item.owner}: {error}"]
        if item.sha256 and item.path.name == item.served and sha256_of(item.path) != item.sha256:
            return [f"{item.owner}: {item.path} is not the pinned {item.sha256}. {again}"]
        return []
    problems = []
    if not same_version(item, marker):
        problems.append(
            f"{item.owner}: {item.path} is of another version than is named now. {again}"
        )
    for name, (size, sha) in marker["files"].items():
        path = item.folder / name
        if not path.is_file():
            problems.append(f"{item.owner}: {path} is gone. `{_command(data, 'get', item.owner)}`.")
        elif path.stat().st_size != size:
            found = path.stat().st_size
            problems.append(f"{item.owner}: {path} has {found:,} bytes, not {size:,}. {again}")
        elif sha256_of(path) != sha:
            problems.append(f"{item.owner}: {path} has changed since it was fetched. {again}")
    return problems


def _verify_records(task: Task, data: Path) -> list[str]:
    """Whether records are readable, as they were written, of today's files, with their images."""
    path = prepared_path(task, data)
    prepare = _command(data, "prepare", task.name)
    try:
        records = read_records(path)
        if fingerprint(records) != read_facts(path).get("fingerprint"):
            return [f"{task.name}: {path} has changed since it was prepared. `{prepare}`."]
    except DataError as error:
        return [f"{task.name}: {error} `{prepare}`."]
    problems = []
    if not is_fresh(task, data):
        problems.append(f"{task.name}: its records are older than its files. `{prepare}`.")
    images = Images(data)
    refs = {ref for row in records for ref in row.images}
    try:
        gone = sorted(str(ref) for ref in refs if not images.exists(task.name, ref))
    except DataError as error:
        return [*problems, str(error)]
    if gone:
        problems.append(
            f"{task.name}: {len(gone):,} of {len(refs):,} images are missing, such as {gone[0]!r}."
        )
    return problems
