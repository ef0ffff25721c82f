"""Imported: results of CLIP_benchmark, and published tables, as rows of leaderboards/published.

Nothing here becomes a measured row: an import says in `source` whose software computed it.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fsc_bench.errors import UsageError
from fsc_bench.report.export import their_metric
from fsc_bench.report.leaderboard import columns, declared
from fsc_bench.report.published import ABOUT, LONGEST, Quoted, is_further, read_published_file
from fsc_bench.report.suites import TaskFacts
from fsc_bench.system.escape import for_csv, shortened
from fsc_bench.system.facts import check_name, read_json, read_text, typed

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
SOURCE = "imported: CLIP_benchmark"
THEIRS = ("dataset", "model", "pretrained", "task")


class ClipBenchmark(msgspec.Struct):
    """What is read of a result file of CLIP_benchmark."""

    dataset: str
    model: str
    pretrained: str
    task: str
    metrics: dict[str, Any]
    language: str = "en"


def import_files(files: Sequence[Path], tasks: Sequence[TaskFacts]) -> str:
    """The text of one published CSV with the rows of all files: `.json` of CLIP_benchmark, and
    `.csv` of `clip_benchmark build` or in our own published form.

    Raises UsageError, one line, for a file that is neither, and for two numbers of one cell.
    """
    known = {*columns(tasks), *declared(tasks)}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in files:
        for model, source, cells in _rows(path, tasks, known):
            row = rows.setdefault((model, source), {})
            for name, value in cells.items():
                if row.setdefault(name, value) != value:
                    raise UsageError(
                        f"{path}: {name} of {shortened(model)} is {value}, {row[name]} elsewhere."
                    )
    if not rows:
        raise UsageError(f"{', '.join(map(str, files))}: no row there to import.")
    return _text(rows, [*declared(tasks), *columns(tasks)])


def _rows(path: Path, tasks: Sequence[TaskFacts], known: set[str]) -> list[tuple[str, str, dict]]:
    if path.suffix == ".json":
        stored = typed(read_json(path, dict[str, Any]), ClipBenchmark, str(path))
        return [_theirs(str(path), stored, tasks)]
    if path.suffix != ".csv":
        raise UsageError(f"{path}: neither .json of CLIP_benchmark nor .csv.")
    lines = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    if not lines or not set(THEIRS) <= lines[0].keys():
        return [_ours(row) for row in read_published_file(path, known)]
    found = []
    for number, line in enumerate(lines, 2):
        where = f"{path}: line {number}"
        if None in line or None in line.values():
            raise UsageError(f"{where}: has not as many cells as the header.")
        facts = {name: line[name] for name in THEIRS}
        skipped = (*THEIRS, "language", "model_fullname")
        metrics = {
            name: _number(where, name, text)
            for name, text in line.items()
            if name not in skipped and text.strip()
        }
        found.append(_theirs(where, ClipBenchmark(**facts, metrics=metrics), tasks))
    return found


def _number(where: str, name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}: {name} = {shortened(text)} is no number.") from None


def _ours(row: Quoted) -> tuple[str, str, dict]:
    return row.model, row.source, {**row.about, **row.values, **row.more}


def _theirs(
    where: str, stored: ClipBenchmark, tasks: Sequence[TaskFacts]
) -> tuple[str, str, dict[str, Any]]:
    """One result of CLIP_benchmark as a row: our column where dataset and metric are of one of our
    tasks by name, `dataset/metric` elsewhere. Its fractions become percent.
    """
    model = f"{stored.model} {stored.pretrained}".strip()[:LONGEST]
    dataset = stored.dataset[:LONGEST].removeprefix("wds/")
    check_name(model, f"{where}: 'model'")
    check_name(dataset, f"{where}: 'dataset'")
    if stored.language != "en":
        dataset = f"{dataset} {stored.language}"
    ours = _columns_by_theirs(tasks)
    cells = {}
    for metric, value in stored.metrics.items():
        if isinstance(value, dict | list | str) or value is None:
            continue  # a table of classes, no number
        fraction = typed(value, Fraction, f"{where}: {metric}")
        key = (_plain(dataset), metric)
        name = ours.get(key) or f"{dataset.replace('/', ' ')}/{metric}"
        cells[name] = round(100 * fraction, 10)
    return model, SOURCE, cells


def _columns_by_theirs(tasks: Sequence[TaskFacts]) -> Mapping[tuple[str, str], str]:
    return {
        (_plain(task.name), their_metric(_kind(task), metric)): name
        for name, (task, metric) in columns(tasks).items()
    }


def _kind(task: TaskFacts) -> str:
    return {"compositionality": "matching"}.get(task.group, task.group)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _text(rows: Mapping[tuple[str, str], Mapping[str, Any]], order: Sequence[str]) -> str:
    held = {name for cells in rows.values() for name in cells}
    names = [name for name in (*ABOUT, *order) if name in held]
    names += sorted(name for name in held - set(names) if is_further(name))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "source", *names])
    for (model, source), cells in sorted(rows.items()):
        values = [cells.get(name, "") for name in names]
        shown = [for_csv(value) if isinstance(value, str) else repr(value) for value in values]
        writer.writerow([for_csv(model), for_csv(source), *shown])
    return out.getvalue()
