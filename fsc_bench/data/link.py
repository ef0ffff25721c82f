"""Link: what lies at a path is looked at before it is remembered as a task's data or as pictures.

A folder that cannot be read yet may be linked, and it is said why; one that is empty, or is
recognised as other data, is refused.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fsc_bench.clip_benchmark import PREFIX, filled
from fsc_bench.data.archives import PLAIN, check_link
from fsc_bench.data.border import reason
from fsc_bench.data.containers import container_module
from fsc_bench.data.evidence import ALWAYS, FLAG, ForeignData, check_evidence, examine, pictures_fit
from fsc_bench.data.images import Images, read_links, write_link
from fsc_bench.data.listing import IMAGE_SUFFIXES, entries, unread
from fsc_bench.data.prepare import check_options, is_fresh
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.data.sources import ImageSource, named, sources, wrappers
from fsc_bench.errors import DataError, FscBenchError, UsageError
from fsc_bench.evidence import describe
from fsc_bench.records import ImageRef, Record, broken_promises, check_records
from fsc_bench.task import Task, catalogue, is_apart, is_shipped

DEPTH = 5  # folders down, where a source does not say how its pictures are called


def link(word: str, path: Path, data: Path) -> str:
    """Remembers that a task or image source lies at `path`; says what was recognised there.

    word: its name, or the TOML file of one's own. Raises UsageError where nothing is there,
    DataError where it is something else.
    """
    if word.startswith(PREFIX):
        path = Path(filled(str(path), word))
    # resolve() would raise over a link that leads round in a circle.
    path = Path(os.path.realpath(path.expanduser()))
    task, source = named(word, path)
    name = task.name if task is not None else source.name
    path = in_hub_cache(name, task.data.sources if task is not None else (), path)
    if task is not None and path.is_file():
        path = _folder_of(task, path, data)
    found = look(task, source, path, data)
    write_link(data, name, path)
    return f"{name} -> {path}: {found}"


def in_hub_cache(name: str, places: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """The repository to read, where `path` is the root of the Hub's cache; else `path` itself.

    It is the one that the task file names as a source, else the only one there. Raises DataError
    where neither tells.
    """
    prefix = "datasets--"
    there = [entry.name for entry in entries(path) if entry.name.startswith(prefix)]
    if path.name == "huggingface" and (path / "hub").is_dir() and not there:
        return in_hub_cache(name, places, path / "hub")
    if not there:
        return path
    named_by_task = [prefix + place["hf"].replace("/", "--") for place in places if "hf" in place]
    found = [one for one in named_by_task if one in there] or there
    if len(found) > 1 and found == there:
        shown = ", ".join(sorted(there)[:8])
        raise DataError(
            f"{path}: the Hub's cache, of {len(there)} data sets ({shown}), and the task file of "
            f"{name} names none of them; link the folder of the one to be read."
        )
    return path / found[0]


def _folder_of(task: Task, file: Path, data: Path) -> Path:
    """The folder of a file that is no data set by itself, but a part of the one in its folder.

    Any other file stays as it is.
    """
    if not isinstance(_read(task, file, data), DataError) or container_module(file) is not None:
        return file
    raw = _raw(task, file.parent, _images(task, file.parent, data))
    with suppress(DataError):
        records = list(load_reader(task.data.reader, str(task.path)).read(task, raw))
        if records and str(file) in raw.inputs:
            return file.parent
    return file


def look(task: Task | None, source: ImageSource | None, path: Path, data: Path) -> str:
    """What lies at `path`, in words. Raises DataError where it is not what is looked for."""
    name = task.name if task is not None else source.name
    if not path.exists():
        raise UsageError(f"{path}: there is no such folder or archive to link {name!r} to.")
    if path.is_file():
        check_link(path)
    else:
        _check_holds_files(path, name)
    if task is None:
        return _look_at_pictures(source, path)
    if source is None:
        return _look_at_task(task, path, data)
    try:
        found = _look_at_pictures(source, path)
    except DataError as error:  # the task's own files lie there, or neither
        records = _read(task, path, data)
        if isinstance(records, DataError):
            raise error from None
        return _look_at_task(task, path, data)
    if not isinstance(_read(task, path, data), DataError):
        return f"{found}; {_look_at_task(task, path, data)}"
    return f"{found} (the pictures; the task's own files come with `fsc-bench data get {name}`)"


def _check_holds_files(folder: Path, name: str) -> None:
    """Raises DataError for a folder without a file; one that is closed to us may have some."""
    closed: list[OSError] = []
    if any(files for _, _, files in os.walk(folder, onerror=closed.append)):
        return
    if closed:
        raise DataError(f"{closed[0].filename}: cannot be read: {reason(closed[0])}.")
    raise DataError(f"{folder}: an empty folder: there is nothing to link {name!r} to.")


def recheck(tasks: Iterable[Task], images: Iterable[str], data: Path) -> list[str]:
    """What is wrong with the data that was linked and not prepared since, a line each."""
    links = read_links(data)
    wanted = [(task, None) for task in tasks if task.name not in sources()]
    wanted = [(task, None) for task, _ in wanted if not is_fresh(task, data)]
    wanted += [(None, source) for name, source in sources().items() if name in images]
    problems = []
    for task, source in wanted:
        name = task.name if task is not None else source.name
        if name in links and Path(links[name]).exists():
            try:
                look(task, source, Path(links[name]), data)
            except FscBenchError as error:
                problems.append(str(error))
    return problems


# ---------------------------------------------------------------- a task's own data


def _look_at_task(task: Task, path: Path, data: Path) -> str:
    images = _images(task, path, data)
    records = _read(task, path, data)
    if isinstance(records, DataError):
        others = [other.name for other in _others(task) if _is_data_of(other, path, data)]
        if others:
            names = " or ".join(others)
            raise ForeignData(f"{records} It looks like the data of {names}.") from None
        if path.is_file():
            raise records
        return f"linked, but it cannot be read yet: {records}"
    promises = broken_promises(task, records)
    broken = [line for name, line in promises if name not in task.evidence.unchecked]
    partial = bool(broken) and len(records) <= task.n  # more records are no part
    notes = [line for _, line in check_evidence(task, records, images, str(path), partial)]
    refs = {ref for row in records if row.scored for ref in row.images}
    gone = sum(not images.exists(task.name, ref) for ref in refs)
    notes = [*broken[:1], *notes]
    if gone:
        notes.insert(0, f"{gone:,} of {len(refs):,} pictures are not there")
    whole = "" if broken else ", as the task file promises"
    facts = [] if notes else describe(task.evidence)
    fits = f" ({'; '.join(facts)})" if facts else ""
    found = "; ".join([f"{len(records):,} records{whole}{fits}", *notes])
    return found if not broken or is_shipped(task) else f"{found}.\n{counted(task, records)}"


def counted(task: Task, records: Iterable[Record]) -> str:
    """The `[subsets]` and `[counts]` that hold of these records, to be pasted into a task file."""
    records = list(records)
    found = Counter(row.subset for row in records)
    images = {(image.source, image.path) for row in records for image in row.images}
    lines = ["What is there, for the task file, if that is all of it:", "[subsets]"]
    lines += [f"{toml_key(name)} = {count}" for name, count in found.items()]
    texts = sum(len(row.texts) for row in records)
    counts = ["[counts]", f"images = {len(images)}"]
    counts += [] if task.kind == "classification" else [f"texts = {texts}"]
    return "\n".join([*lines, *(counts if task.counts else [])])


def toml_key(name: str) -> str:
    """A name as a key of TOML: bare, or quoted."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return name if bare else json.dumps(name, ensure_ascii=False)


def _read(task: Task, path: Path, data: Path) -> list[Record] | DataError:
    """The records as preparing would read them, or the line that refuses them."""
    raw = _raw(task, path, _images(task, path, data))
    reader = load_reader(task.data.reader, str(task.path))
    check_options(task, getattr(reader, "OPTIONS", {}), getattr(reader, "SEVERAL", ()))
    try:
        records = list(reader.read(task, raw))
        check_records(task, records, raw.where(), partial=True)
        if not records:
            raise DataError(f"{task.name}: {path}: holds no record.")
    except DataError as error:
        return error
    return records


def _raw(task: Task, path: Path, images: Images) -> Raw:
    return Raw(task, path, lambda ref: _may_count_on(images, task.name, ref))


def _may_count_on(images: Images, name: str, ref: ImageRef) -> bool:
    return not images.root(name, ref.source).exists() or images.exists(name, ref)


def _images(task: Task, path: Path, data: Path) -> Images:
    """Images as they would be with the link."""
    images = Images(data)
    images.links = {**images.links, task.name: str(path)}
    return images


def _others(task: Task) -> list[Task]:
    tasks = [other for other in catalogue().values() if not is_apart(other)]
    return [other for other in tasks if other.group == task.group and other.name != task.name]


def _is_data_of(task: Task, path: Path, data: Path) -> bool:
    """Whether another task's data lie there.

    Files of a benchmark's own form are its own; of labelled pictures, which any layout may hold,
    only the whole data tell, their evidence included.
    """
    images = _images(task, path, data)
    try:
        # Of most tasks the first picture already says that it is not theirs.
        reader = load_reader(task.data.reader, str(task.path))
        first = next(iter(reader.read(task, _raw(task, path, images))), None)
        if first is None or not pictures_fit(task, [first], images):
            return False
        records = _read(task, path, data)
    except FscBenchError:
        return False
    if isinstance(records, DataError):
        return False
    kinds = {kind for kind, _ in examine(task, records, images)}
    if task.group != "classification":
        return ALWAYS not in kinds
    return len(records) == task.n and kinds <= {FLAG}


# ---------------------------------------------------------------- pictures that tasks share


def _look_at_pictures(source: ImageSource, path: Path) -> str:
    name, facts = source.name, source.evidence
    if path.is_file() and not path.name.casefold().endswith(PLAIN):
        raise DataError(f"{path}: not {name}: no folder, zip or tar. It is {source.layout}.")
    names = set(_picture_names(source, path))
    if not names:
        holds = f"{path}: not {name}: it holds no pictures. {unread(path)}"
        raise DataError(f"{holds}It is {source.layout}.")
    fits = {one for one in names if re.fullmatch(facts.names or ".*", one)}
    if not fits:
        others = [other.name for other in sources().values() if _is_pictures_of(other, path)]
        hint = f" It looks like {' or '.join(others)}." if others else ""
        raise DataError(
            f"{path}: not {name}: its pictures are called like {min(names)!r:.80}; {name} is "
            f"{source.layout}.{hint}"
        )
    known = fits.intersection(facts.known)
    if facts.known and not known and len(fits) >= facts.files:
        raise DataError(
            f"{path}: not {name}: none of its {len(fits):,} pictures is {facts.known[0]}, one of "
            f"the published {facts.files:,}."
        )
    if not facts.files or len(fits) == facts.files:
        return f"{len(fits):,} pictures"
    some = "" if known or not facts.known else ", none of the known ones among them"
    return f"{len(fits):,} pictures{some}; the published source has {facts.files:,}"


def _is_pictures_of(source: ImageSource, path: Path) -> bool:
    return bool(source.evidence.known) and bool(
        set(source.evidence.known).intersection(_picture_names(source, path))
    )


def _picture_names(source: ImageSource, path: Path) -> Iterator[str]:
    """Names of pictures below a source's root, as records would name them."""
    wraps = wrappers(source.name)
    depth = 1 + source.evidence.names.count("/") if source.evidence.names else DEPTH
    if path.is_file():
        yield from _member_names(path, wraps)
        return
    for wrap in wraps:
        yield from _file_names(path / wrap, depth)
    for entry in entries(path):
        if entry.name.casefold().endswith(PLAIN) and entry.is_file():
            yield from _member_names(Path(entry.path), wraps)


def _file_names(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    for entry in entries(folder):
        if entry.is_dir():
            if depth > 1:
                yield from _file_names(Path(entry.path), depth - 1, f"{prefix}{entry.name}/")
        elif _is_picture(entry.name):
            yield prefix + entry.name


def _member_names(archive: Path, wraps: Iterable[str]) -> Iterator[str]:
    try:
        names = container_module(archive).Container(archive).names()
    except (OSError, ValueError) as error:
        raise DataError(f"{archive}: damaged: {error}") from None
    for name in names:
        if _is_picture(name.rpartition("/")[2]):
            yield name
            yield from (name.removeprefix(wrap) for wrap in wraps if wrap and name.startswith(wrap))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
