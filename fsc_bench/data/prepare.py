"""Prepare: raw files to `prepared/<task>.parquet`, once, checked against the task's promises.

Prepared records know what they came from: the files that were read (size, times, inode), the names
in the raw folder, the task facts that shaped them and the code that read them. When one of these
changes they are made anew; so they are when a byte of theirs has changed on disk.
"""

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fsc_bench.data.evidence import check_evidence, judge
from fsc_bench.data.folders import remember, unchanged
from fsc_bench.data.images import Images, raw_folder, read_links
from fsc_bench.data.raw import ABSENT, Raw
from fsc_bench.data.readers import load_reader
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.records import (
    ImageRef,
    Record,
    check_records,
    read_facts,
    read_records,
    write_records,
)
from fsc_bench.system.files import locked, stamp, write_text
from fsc_bench.task import Task

PATIENCE = 3600.0  # seconds for another command that is reading the same raw files


@dataclass(frozen=True)
class Prepared:
    """A task's records, ready to be planned."""

    task: Task
    records: list[Record]
    fingerprint: str
    path: Path
    partial: str = ""  # what is missing, where the user allowed it
    missing_images: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = ()  # how the source differs from the published one; generators used


def prepared_path(task: Task, data: Path) -> Path:
    return data / "prepared" / f"{task.name}.parquet"


def is_fresh(task: Task, data: Path) -> bool:
    """Whether the prepared records still agree with the task file and the raw files."""
    return _agrees(task, data, read_facts(prepared_path(task, data)))


def _agrees(task: Task, data: Path, facts: Mapping[str, Any]) -> bool:
    if facts.get("task") != task.digest():
        return False
    folder = raw_folder(data, task.name, read_links(data))
    if not folder.exists():
        return True  # raw files that went away say nothing against records made from them
    if facts.get("raw") != str(folder) or facts.get("code") != reading_code():
        return False
    if facts.get("skipped"):
        return False  # images that were missing then may have come since
    same = all(_is_still(file, known) for file, known in facts.get("inputs", {}).items())
    return same and unchanged(folder, facts.get("folders", {}))


def _is_still(file: str, known: str) -> bool:
    if known == ABSENT:
        return not Path(file).exists()
    try:
        return bool(known) and stamp(file) == known
    except OSError:
        return False


@cache
def reading_code() -> str:
    """Hash of the code that turns raw files into records: another version may read others."""
    here = Path(__file__).parent
    files = [here.with_name("records.py"), *sorted(here.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def prepare(
    task: Task,
    data: Path,
    *,
    partial: bool = False,
    images: Images | None = None,
    say: Callable[[str], Any] = lambda line: None,
) -> Prepared:
    """Reads, checks and stores a task's records, or takes the stored ones while they are fresh.

    With `partial`, counts that differ from the promise and images that are missing are accepted and
    said in the result. Raises DataError otherwise. `images`, where given, are those of `data`; they
    remember what was found. `say` is told of stored records that turned out to be damaged.
    """
    images = images or Images(data)
    rows, facts, shortfalls = _checked(task, data, images, partial, say)
    return _with_coverage(task, rows, facts, images, partial, shortfalls)


def prepare_annotation(
    task: Task,
    data: Path,
    *,
    partial: bool = False,
    say: Callable[[str], Any] = lambda line: None,
) -> Prepared:
    """The same for whoever needs no picture: a record whose picture is missing is a record.

    Where a reader passed over missing pictures for other records, that is said as a shortfall.
    """
    rows, facts, shortfalls = _checked(task, data, Images(data), partial, say)
    if skipped := facts.get("skipped"):
        shortfalls.append(f"{len(skipped):,} images missing, passed over")
    path = prepared_path(task, data)
    return Prepared(task, rows, facts["fingerprint"], path, "; ".join(shortfalls))


def read_subsets(
    task: Task, data: Path, partial: bool = False
) -> tuple[list[Record], dict[str, str]]:
    """(records, why not by subset): each subset is read by itself, and left out where its files
    are absent or break its promise, which `partial` lets pass. Pictures count as there. Nothing is
    stored.
    """
    folder = raw_folder(data, task.name, read_links(data))
    reader = load_reader(task.data.reader, str(task.path))
    check_options(task, getattr(reader, "OPTIONS", {}), getattr(reader, "SEVERAL", ()))
    found: list[Record] = []
    left_out: dict[str, str] = {}
    for subset, promised in task.leaves.items():
        part = replace(task, subsets={subset: promised}, counts={})
        try:
            raw = Raw(part, folder)
            rows = [row for row in reader.read(part, raw) if row.subset == subset]
            check_records(part, rows, raw.where(), partial and bool(rows))
            found += rows
        except DataError as error:
            left_out[subset] = str(error)
    return found, left_out


def _checked(
    task: Task, data: Path, images: Images, partial: bool, say: Callable[[str], Any]
) -> tuple[list[Record], dict[str, Any], list[str]]:
    """(records, their facts, what they fall short of), whether or not their pictures are there."""
    path = prepared_path(task, data)
    found = _stored(task, data)
    if found is None:
        with locked(path, PATIENCE):  # several commands at once: the first reads the raw files
            found = _stored(task, data, say) or _read_raw(task, data, images, partial)
    rows, facts = found
    shortfalls = []
    try:
        check_records(task, rows, facts["where"])
    except DataError as error:
        if not partial:
            raise
        shortfalls.append(str(error).split(": ", 1)[1].split(" `--allow-partial`")[0])
    shortfalls += judge(task, facts["evidence"], partial, facts["where"])
    return rows, facts, shortfalls


def _stored(
    task: Task, data: Path, say: Callable[[str], Any] = lambda line: None
) -> tuple[list[Record], dict[str, Any]] | None:
    """(records, facts) that were prepared earlier, as long as they are whole and fresh."""
    path = prepared_path(task, data)
    whole = _is_whole(path)
    if whole is False:
        folder = raw_folder(data, task.name, read_links(data))
        if not folder.exists():
            raise DataError(
                f"{task.name}: {path} is damaged (it is not what was written), and the raw files "
                f"at {folder} are gone. `fsc-bench data get {task.name}`, or `fsc-bench data link "
                f"{task.name} PATH`."
            )
        say(f"{task.name}: {path} is damaged (it is not what was written); made anew.")
    facts = read_facts(path) if whole else {}
    return (read_records(path), facts) if _agrees(task, data, facts) else None


def _read_raw(
    task: Task, data: Path, images: Images, partial: bool
) -> tuple[list[Record], dict[str, Any]]:
    """(records, facts) from the raw files, checked and stored."""
    folder = raw_folder(data, task.name, read_links(data))
    raw = Raw(task, folder, lambda ref: _on_disk(images, task.name, ref))
    reader = load_reader(task.data.reader, str(task.path))
    check_options(task, getattr(reader, "OPTIONS", {}), getattr(reader, "SEVERAL", ()))
    folders = remember(folder)  # before it is read: what comes meanwhile is seen the next time
    rows = list(reader.read(task, raw))
    check_records(task, rows, raw.where(), partial)
    facts = {
        "task": task.digest(),
        "code": reading_code(),
        "raw": str(folder),
        "where": raw.where(),
        "inputs": raw.inputs,
        "folders": folders,
        "notes": raw.notes,
        "skipped": sorted(str(ref) for ref in raw.skipped),
        "evidence": check_evidence(task, rows, images, raw.where(), partial),
    }
    path = prepared_path(task, data)
    _seal(path).unlink(missing_ok=True)
    digest = write_records(path, rows, facts)
    write_text(_seal(path), f"{_sha256(path)}  {path.name}\n")  # last: now it is finished
    return rows, {**facts, "fingerprint": digest}


def _is_whole(path: Path) -> bool | None:
    """Whether prepared records are byte for byte what was written; None where none is finished."""
    try:
        return _seal(path).read_text(encoding="utf-8").split()[0] == _sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, IndexError):
        return False


def _seal(path: Path) -> Path:
    """Where the hash of prepared records stands, as `sha256sum -c` reads it."""
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_options(task: Task, defaults: Mapping[str, Any], several: Collection[str] = ()) -> None:
    """A reader's options are those it names, and of its defaults' types; those of `several` may be
    one name or a list of names. Raises UsageError.
    """
    for key, value in task.data.options.items():
        where = f"{task.path}: [data.options] {key!r}"
        if key not in defaults:
            hint = near_miss(key, defaults)
            raise UsageError(f"{where}: the reader {task.data.reader!r} has no such option.{hint}")
        wanted = type(defaults[key])
        alike = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        alike = alike or (wanted is dict and isinstance(value, list))  # one table or several
        one_or_more = value if isinstance(value, list) else [value]
        alike = alike or (key in several and all(isinstance(one, str) for one in one_or_more))
        if not alike or isinstance(value, bool) != (wanted is bool):
            raise UsageError(f"{where}: must be a {wanted.__name__}, not {value!r:.60}.")


def _on_disk(images: Images, task_name: str, ref: ImageRef) -> bool:
    """Whether a reader may count on an image. Of a source that is absent altogether it counts on
    every image: the check of coverage then says in one line which source to get.
    """
    return not images.root(task_name, ref.source).exists() or images.exists(task_name, ref)


def _with_coverage(
    task: Task,
    records: list[Record],
    facts: Mapping[str, Any],
    images: Images,
    partial: bool,
    shortfalls: list[str],
) -> Prepared:
    """Leaves out records whose image is missing, when allowed, and says so."""
    skipped = facts.get("skipped", [])  # by the reader, as the official code does
    if skipped and not partial:
        raise DataError(
            f"{task.name}: {len(skipped):,} images are missing, such as {skipped[0]!r}. "
            "`--allow-partial` goes on without them and flags the result."
        )
    if skipped:
        shortfalls.append(f"{len(skipped):,} images missing, passed over")
    wanted = {ref for row in records if row.scored for ref in row.images}
    gone = {ref for ref in wanted if not images.exists(task.name, ref)}
    if gone:
        sources = Counter(ref.source for ref in gone)
        source, count = sources.most_common(1)[0]
        name = shlex.quote(task.word) if source == "." else source
        example = min((ref for ref in gone if ref.source == source), key=str)
        total = len(wanted)
        if not partial or len(gone) == total:
            raise DataError(
                f"{task.name}: {count:,} of {total:,} images are missing, such as "
                f"{str(example)!r} in {images.root(task.name, source)}."
                f"{images.near(task.name, example)} `fsc-bench data link {name} PATH` says where "
                "they are; `--allow-partial` goes on without them."
            )
        kept = [row for row in records if not gone & set(row.images)]
        shortfalls.append(f"{len(gone):,} images missing, {len(records) - len(kept):,} records out")
        records = kept
    names = tuple(sorted({*skipped, *(str(ref) for ref in gone)}))
    notes = [f"{key}: {value}" for key, value in facts.get("notes", {}).items()]
    if facts["code"] != reading_code():
        notes.append("read by another version of fsc-bench; the raw files are gone")
    notes = (*source_differences(task, images.data), *notes)
    path, missing = prepared_path(task, images.data), "; ".join(shortfalls)
    return Prepared(task, records, facts["fingerprint"], path, missing, names, notes)


def source_differences(task: Task, data: Path) -> list[str]:
    """How the sources that were fetched are not the published ones, as the task file says; and the
    version of those of which it names none, which was resolved when they were first fetched.
    """
    from fsc_bench.data.items import owners
    from fsc_bench.data.session import finished

    found = []
    for owner in owners([task], data):
        if owner.linked or owner.drawn:
            continue
        for item in (item for group in owner.groups for item in group):
            if (marker := finished(item)) is None:
                continue
            if marker["differs"]:
                found.append(marker["differs"])
            if not item.pinned:
                version = marker["commit"] or f"sha256 {marker['sha256']}"
                found.append(f"resolved at the first fetch: {item.where} at {version}")
    return found
