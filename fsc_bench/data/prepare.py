"""Prepare: raw files to `prepared/<task>.parquet`, once, checked against the task's promises.

Prepared records know the files that they came from (size and time) and the task facts that shaped
them; when either changes they are made anew.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsc_bench.data.evidence import check_evidence, judge
from fsc_bench.data.images import Images, raw_folder, read_links
from fsc_bench.data.raw import Raw
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
from fsc_bench.task import Task


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
    facts = read_facts(prepared_path(task, data))
    if facts.get("task") != task.digest():
        return False
    folder = raw_folder(data, task.name, read_links(data))
    if facts.get("raw") != str(folder):
        return not folder.exists()
    for file, stamp in facts.get("inputs", {}).items():
        try:
            stat = Path(file).stat()
        except OSError:
            continue  # a raw file that went away says nothing against records made from it
        if [stat.st_size, stat.st_mtime_ns] != stamp:
            return False
    # Images that were missing then may have come since.
    return not facts.get("skipped") or not folder.exists()


def prepare(
    task: Task, data: Path, *, partial: bool = False, images: Images | None = None
) -> Prepared:
    """Reads, checks and stores a task's records, or takes the stored ones while they are fresh.

    With `partial`, counts that differ from the promise and images that are missing are accepted and
    said in the result. Raises DataError otherwise. `images`, where given, are those of `data`; they
    remember what was found.
    """
    path = prepared_path(task, data)
    images = images or Images(data)
    fresh = is_fresh(task, data)
    if fresh:
        records = read_records(path)
    else:
        folder = raw_folder(data, task.name, read_links(data))
        raw = Raw(task, folder, lambda ref: _on_disk(images, task.name, ref))
        reader = load_reader(task.data.reader, str(task.path))
        _check_options(task, getattr(reader, "OPTIONS", {}))
        records = list(reader.read(task, raw))
        check_records(task, records, raw.where(), partial)
        facts = {"task": task.digest(), "raw": str(raw.folder), "inputs": raw.inputs}
        facts |= {"notes": raw.notes, "skipped": sorted(str(ref) for ref in raw.skipped)}
        facts["evidence"] = check_evidence(task, records, images, raw.where(), partial)
        write_records(path, records, facts)
    shortfalls = []
    try:
        if fresh or partial:  # otherwise they were just checked
            check_records(task, records, str(path))
    except DataError as error:
        if not partial:
            raise
        shortfalls.append(str(error).split(": ", 1)[1].split(" `--allow-partial`")[0])
    shortfalls += judge(task, read_facts(path).get("evidence", []), partial, str(path))
    return _with_coverage(task, records, path, images, partial, shortfalls)


def _check_options(task: Task, defaults: Mapping[str, Any]) -> None:
    """A reader's options are those it names, and of its defaults' types."""
    for key, value in task.data.options.items():
        where = f"{task.path}: [data.options] {key!r}"
        if key not in defaults:
            hint = near_miss(key, defaults)
            raise UsageError(f"{where}: the reader {task.data.reader!r} has no such option.{hint}")
        wanted = type(defaults[key])
        alike = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        alike = alike or (wanted is dict and isinstance(value, list))  # one table or several
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
    path: Path,
    images: Images,
    partial: bool,
    shortfalls: list[str],
) -> Prepared:
    """Leaves out records whose image is missing, when allowed, and says so."""
    facts = read_facts(path)
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
    notes = (*source_differences(task, images.data), *notes)
    missing = "; ".join(shortfalls)
    return Prepared(task, records, facts["fingerprint"], path, missing, names, notes)


def source_differences(task: Task, data: Path) -> list[str]:
    """How the sources that were fetched are not the published ones, as the task file says."""
    from fsc_bench.data.items import owners
    from fsc_bench.data.session import finished

    (owner,) = (owner for owner in owners([task], data) if owner.task is task)
    if owner.linked or owner.demo:
        return []
    markers = [finished(item) for group in owner.groups for item in group]
    return [marker["differs"] for marker in markers if marker and marker["differs"]]
