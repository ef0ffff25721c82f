"""Results: the files that a run leaves, written and read again."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fsc_bench.errors import UsageError
from fsc_bench.results import (
    Busy,
    Cell,
    Result,
    RunDirectory,
    Samples,
    plain,
    read_draws,
    read_result,
    read_runs,
    slug,
    write_json,
)
from fsc_bench.samples import read_samples

RESULT = Result(
    task="stairs",
    version=3,
    kind="matching",
    fingerprint="f",
    n=8,
    expected=9,
    metrics={"headline": {"text": Cell(37.5, 13.25, 69.5, 8, 50.0, 25.0)}},
    headline=("text",),
    ties=2,
    nan=1,
    flags=("1 missing",),
    facts={
        "suite": "own", "group": "compositionality", "headline": ["text"], "chance": {"text": 50.0}
    },
)  # fmt: skip
SAMPLES = Samples({"id": ["a", "b"], "correct": [True, False]})


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "runs", "mine", "0123456789")
    directory.write_run({"model": "mine"})
    directory.write_result(RESULT, SAMPLES)
    return directory


def changed(directory: RunDirectory, **cell) -> Cell:
    """The headline as it is read after a change in the file."""
    file = directory.task_file("stairs")
    content = json.loads(file.read_text())
    content["metrics"]["headline"]["text"] |= cell
    file.write_text(json.dumps(content))
    return read_result(file).metrics["headline"]["text"]


def test_what_was_written_is_read(directory):
    found = directory.finished("stairs")

    assert found == replace(RESULT, metrics=found.metrics)
    assert found.metrics == RESULT.metrics
    assert directory.finished("ramps") is None
    assert (directory.path.name, directory.task_file("stairs").parent.name) == (
        "mine-01234567",
        "tasks",
    )


def test_a_number_is_shown_with_its_marks_and_its_interval():
    whole = Cell(41.27, 30.04, 55.06, 12, 25.0)
    marked = replace(whole, strict=40.0, note="2 missing")

    assert [str(cell) for cell in (whole, marked, Cell(None))] == ["41.3", "41.3*†", "-"]
    assert [cell.interval for cell in (whole, Cell(41.27))] == ["[30.0, 55.1]", ""]
    facts = {"value": 41.27, "ci": [30.04, 55.06], "n": 12, "chance": 25.0}
    assert whole.facts() == facts
    assert marked.facts() == {**facts, "strict": 40.0}


@pytest.mark.parametrize(
    ("flags", "nan", "complete", "lacks_data"),
    [
        ((), 0, True, False),
        (("2 missing",), 0, False, True),
        (("3 are no number",), 3, False, False),
        (("2 missing", "3 are no number"), 3, False, True),
    ],
)
def test_data_may_come_but_a_similarity_that_is_no_number_stays(flags, nan, complete, lacks_data):
    found = replace(RESULT, flags=flags, nan=nan)

    assert (found.complete, found.lacks_data) == (complete, lacks_data)


def test_a_folders_name_has_80_letters_at_most():
    assert slug("-open_clip:ViT-B/32 (x).") == "open-clip-ViT-B-32-x"
    assert slug("ab" * 60) == "ab" * 40


def test_a_locked_directory_is_busy_at_once_and_free_afterwards(directory):
    with directory.locked():
        started = time.monotonic()
        with pytest.raises(Busy, match="another run is writing here"), directory.locked():
            pass
        assert time.monotonic() - started < 0.5
    with directory.locked():
        pass
    fresh = RunDirectory(directory.path / "deep" / "er", "mine", "0123456789")
    with fresh.locked():
        assert fresh.path.is_dir()


def test_draws_are_read_as_they_were_written_and_what_are_none_is_one_line(directory):
    path = directory.samples_file("stairs")
    drawn = np.array([37.5, 12.25, np.nan])
    directory.write_result(RESULT, Samples(SAMPLES.columns, draws={"text": drawn}))
    assert read_draws(path)["text"] == pytest.approx(drawn, nan_ok=True)

    directory.write_result(RESULT, Samples(SAMPLES.columns, draws={"text": 9 * drawn}))
    with pytest.raises(UsageError, match=r"draws cannot be read \(percentages beyond 0 to 100\)"):
        read_draws(path)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot be read \(Parquet file size is 0 bytes\)"):
        read_draws(path)


def test_what_sums_samples_up_lies_in_their_files_head(directory):
    assert not pq.read_schema(directory.samples_file("stairs")).metadata

    directory.write_result(RESULT, replace(SAMPLES, summary={"recall": [50.0, np.nan]}))

    table = pq.read_table(directory.samples_file("stairs"))
    assert json.loads(table.schema.metadata[b"fsc_bench"]) == {"recall": [50.0, None]}
    assert table.to_pydict() == SAMPLES.columns


def test_replaced_results_are_kept_with_or_without_their_samples(directory):
    directory.set_aside("stairs")
    assert directory.finished("stairs") is None
    directory.set_aside("stairs")  # nothing is there any more
    directory.write_result(RESULT, SAMPLES)
    directory.samples_file("stairs").unlink()
    directory.set_aside("stairs")

    kept = sorted(path.name for path in (directory.path / "superseded").iterdir())
    assert [name.rsplit(".")[-1] for name in kept].count("json") == 2
    assert [name.rsplit(".")[-1] for name in kept].count("parquet") == 1
    assert all(
        re.fullmatch(r"stairs-\d{8}-\d{6}-[0-9a-f]{8}\.(json|parquet)", name) for name in kept
    )


def test_json_knows_no_nan_and_nothing_of_numpy(tmp_path):
    value = {1: (np.float32(0.5), np.int64(3), np.nan), "c": Cell(2.0), "inf": np.inf, "s": {7}}
    cell = {"value": 2.0, "ci": [None, None], "n": None, "chance": None}

    assert plain(value) == {"1": [0.5, 3, None], "c": cell, "inf": None, "s": [7]}
    write_json(tmp_path / "a.json", {"a": [1.0, np.nan]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  1.0,\n  null\n ]\n}\n'


@pytest.mark.parametrize(
    "change",
    [
        {"value": 100 + 5e-7, "ci": [-5e-7, 100 + 5e-7]},  # a rounding beyond the ends
        {"value": None, "ci": [None, None], "chance": None},
        {"n": 0},
        {"strict": None},
    ],
)
def test_numbers_at_the_ends_of_their_range_are_taken(directory, change):
    expected = {**RESULT.metrics["headline"]["text"].facts(), **change}
    if expected["strict"] is None:
        del expected["strict"]

    assert changed(directory, **change).facts() == expected


@pytest.mark.parametrize(
    "change",
    [
        {"value": 100.001},
        {"value": -0.001},
        {"ci": [1.0]},
        {"ci": [1.0, 2.0, 3.0]},
        {"n": -1},
        {"n": 2**60},
        {"unknown": 1.0},
        {"ci": [13.25, None]},  # half an interval
        {"value": None},  # an interval of nothing
        {"ci": [37.6, 69.5]},  # an interval without its value
        {"ci": [13.25, 37.4]},
        {"ci": [69.5, 13.25]},
        {"value": "37.5"},
        {"value": True},
    ],
)
def test_numbers_beyond_their_range_are_refused(directory, change):
    with pytest.raises(UsageError, match=r"stairs\.json"):
        changed(directory, **change)


@pytest.mark.parametrize(("name", "taken"), [("", 0), ("x", 1), ("x" * 1000, 1), ("x" * 1001, 0)])
def test_a_models_name_has_1_to_1000_letters_and_a_run_without_one_is_left_out(
    directory, name, taken
):
    directory.write_run({"model": name})
    said = []

    found = read_runs([directory.path], said.append)

    assert [run.name for run in found] == [name] * taken
    assert len(said) == 1 - taken
    if said:
        with pytest.raises(UsageError, match=r"run\.json"):
            read_runs([directory.path])


def test_runs_are_read_by_path_without_the_results_of_parts(directory, tmp_path):
    first = RunDirectory(tmp_path / "runs", "another", "0123456789")
    first.write_run({"model": "last"})
    directory.write_facts(replace(RESULT, n=5), ".limit-5")

    runs = read_runs([tmp_path / "runs"])

    assert [run.name for run in runs] == ["last", "mine"]
    assert [list(run.results) for run in runs] == [[], ["stairs"]]
    assert runs[1].results["stairs"].n == 8


def test_a_result_of_another_schema_is_refused(directory):
    file = directory.task_file("stairs")
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))

    with pytest.raises(UsageError, match="schema 2; this version reads 1"):
        directory.finished("stairs")


NAMES = ["two\nlines", "\x1b[2J", "\u202egpj", " blank", "a\u200bb", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_printable_line_is_refused_and_quoted_printably(directory, name):
    file = directory.task_file("stairs")
    before = json.loads(file.read_text())
    cell = before["metrics"]["headline"]["text"]
    for change in (
        {"metrics": {**before["metrics"], name: {"text": cell}}},
        {"metrics": {"headline": {**before["metrics"]["headline"], name: cell}}},
        {"facts": {**before["facts"], "suite": name}},
    ):
        file.write_text(json.dumps({**before, **change}))
        said = []
        (run,) = read_runs([directory.path], said.append)

        assert not run.results
        assert len(said) == 1 and said[0].isprintable() and said[0].startswith(str(file))


def test_flags_come_as_printable_lines(directory):
    directory.write_facts(replace(RESULT, flags=("1 missing: a\nb\x1b.jpg",)))

    assert directory.finished("stairs").flags == (r"1 missing: a\nb\x1b.jpg",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "ramps"}, "of the task 'ramps', as its name does not say"),
        ({"ties": 9}, "'ties' = 9 of 8 samples"),
        ({"nan": 9}, "'nan' = 9 of 8 samples"),
        ({"version": 4}, "facts: 'version' is 3, the result's own 4"),
        ({"headline": ["group"]}, "facts: 'headline' is"),
        ({"version": -1}, "'version' = -1 must be >= 0"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(directory, change, words):
    file = directory.task_file("stairs")
    content = json.loads(file.read_text())
    content["facts"]["version"] = 3
    file.write_text(json.dumps({**content, **change}))

    with pytest.raises(UsageError, match=words):
        directory.finished("stairs")


def test_a_key_that_stands_twice_is_refused(directory):
    file = directory.task_file("stairs")
    file.write_text(file.read_text().replace('"value": 37.5', '"value": 37.5, "value": 99.5'))

    with pytest.raises(UsageError, match="'value' stands twice"):
        directory.finished("stairs")


def test_a_run_that_two_folders_reach_is_one_run(directory):
    folder = directory.path

    assert len(read_runs([folder, folder.parent, folder / ".." / folder.name])) == 1


@pytest.mark.parametrize(
    ("columns", "n", "words"),
    [
        ({"id": ["a", "b"], "correct": [True, False]}, 2, ""),
        ({"id": ["a", "b"], "correct": [1, 0]}, 2, "'correct' is of type int64"),
        ({"id": ["a", None], "correct": [True, False]}, 2, "'id' has 1 holes"),
        ({"id": ["a", "b"], "corect": [True, False]}, 2, "no column 'correct'.*'corect'"),
        ({"id": ["a"], "correct": [True]}, 2, "1 samples; its result is of 2"),
    ],
)
def test_samples_are_checked_before_they_are_read(tmp_path, columns, n, words):
    file = tmp_path / "stairs.parquet"
    pq.write_table(pa.table(columns), file)

    if not words:
        assert read_samples(file, ["id", "correct"], n).to_pydict() == columns
        return
    with pytest.raises(UsageError, match=words):
        read_samples(file, ["id", "correct"], n)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"{}"])
def test_samples_that_are_no_parquet_are_one_line(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)

    with pytest.raises(UsageError, match=r"a\.parquet: ") as caught:
        read_samples(tmp_path / "a.parquet", ["id"])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "change", [{"headline": []}, {"headline": ["text", "group"]}, {"suite": ""}, {"group": "other"}]
)
def test_facts_that_make_no_column_are_refused(directory, change):
    file = directory.task_file("stairs")
    content = json.loads(file.read_text())
    content["facts"] |= change
    file.write_text(json.dumps(content))

    with pytest.raises(UsageError, match=r"stairs\.json: facts"):
        directory.finished("stairs")


@pytest.mark.parametrize(
    ("count", "right"), [(1, True), (2**53, True), (2**53 + 1, False), (0, False), (True, False)]
)
def test_a_subset_has_a_count_that_a_float_can_hold(directory, count, right):
    file = directory.task_file("stairs")
    content = json.loads(file.read_text())
    content["facts"]["subsets"] = {"part": count}
    file.write_text(json.dumps(content))

    if right:
        directory.finished("stairs")
        return
    with pytest.raises(UsageError, match=r"stairs\.json: facts: 'subsets' has 'part'"):
        directory.finished("stairs")
