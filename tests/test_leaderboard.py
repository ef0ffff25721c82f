"""Leaderboard: holes, averages, chance, published rows, staleness, on hand-made results."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsc_bench.errors import GateError, UsageError
from fsc_bench.report.leaderboard import (
    Row,
    averages,
    chance_row,
    headline_cell,
    measured_row,
    published_rows,
)
from fsc_bench.report.ranking import measured_rows, order, ranked, relative, seed_groups, signed
from fsc_bench.report.suites import TaskFacts, strangers, suites
from fsc_bench.report.tables import to_csv, to_markdown, write
from fsc_bench.results import Cell, Result, Run, RunDirectory, Samples, read_runs
from fsc_bench.suite import default
from fsc_bench.task import catalogue, select

AVERAGES = list(default().averages)


def result(task, value=50.0, flags=(), version=None, strict=None) -> Result:
    cell = Cell(value, value - 2, value + 2, 100, 10.0, strict)
    return Result(
        task=task.name,
        version=version or task.version,
        kind="matching",
        fingerprint="f",
        n=100,
        expected=100,
        metrics={"headline": dict.fromkeys(task.headline, cell)},
        headline=task.headline,
        ties=0,
        nan=0,
        flags=flags,
        facts={
            "suite": task.suite,
            "group": task.group,
            "headline": list(task.headline),
            "chance": dict(task.chance),
            "decays": task.decays,
        },
    )


def run_of(results, model="mine") -> Run:
    return Run(Path("runs/mine"), {"model": model}, {one.task: one for one in results})


FSC = [TaskFacts.of(task) for task in select(["fsc"])]
MINE = TaskFacts("stairs", "own", "compositionality", 1, ("text",), {"text": 50.0})


def test_averages_are_plain_means_of_11_of_21_and_of_3():
    row = measured_row(run_of([result(task, 40.0 + n) for n, task in enumerate(FSC)]), FSC)
    groups = {
        group: [40.0 + n for n, task in enumerate(FSC) if task.group == group]
        for group in ("compositionality", "classification", "retrieval")
    }

    assert [len(values) for values in groups.values()] == [11, 21, 3]
    assert row.cells["Comp"].value == pytest.approx(sum(groups["compositionality"]) / 11)
    assert row.cells["ZS"].value == pytest.approx(sum(groups["classification"]) / 21)
    assert row.cells["I2T"].value == row.cells["T2I"].value
    # Eleven half-widths of 2, added in squares: 2 * sqrt(11) / 11.
    assert row.cells["Comp"].high - row.cells["Comp"].value == pytest.approx(2 / 11**0.5)


def test_20_of_21_is_a_hole_not_a_mean_of_what_is_there():
    results = [result(task) for task in FSC if task.name != "voc2007"]
    row = measured_row(run_of(results), FSC)

    assert "ZS" not in row.cells
    assert "Comp" in row.cells
    page = to_markdown("fsc", [row], [], FSC)
    line = next(line for line in page.splitlines() if line.startswith("|  | mine"))
    assert line.split("|")[3:6:2] == [" 50.0 [49.4, 50.6] ", " 50.0 [48.8, 51.2] "]
    assert line.split("|")[4].strip() == "-"


def test_a_partial_result_is_shown_marked_and_enters_no_average():
    results = [
        result(task, flags=("limited to 5 records a subset",) if task.name == "aro" else ())
        for task in FSC
    ]
    row = measured_row(run_of(results), FSC)

    assert "Comp" not in row.cells
    assert str(row.cells["aro"]) == "50.0*"
    assert "limited to 5 records" in to_markdown("fsc", [row], [], FSC)


def test_what_decays_by_nature_enters_averages_and_marks_them():
    flags = ("2,000 of 22,162 records missing",)
    results = [result(task, flags=flags if task.name == "svo_probes" else ()) for task in FSC]
    row = measured_row(run_of(results), FSC)

    assert str(row.cells["Comp"]) == "50.0*"
    assert row.cells["Comp"].note == "holds svo_probes, not complete"
    assert "2,000 of 22,162 records missing" in to_markdown("fsc", [row], [], FSC)


def test_a_result_of_another_task_version_is_a_hole():
    row = measured_row(run_of([result(task, version=99) for task in FSC]), FSC)

    assert row.cells == {}
    assert row.left_out["aro"] == (
        f"of version 99 of the task; the table is of version {FSC[0].version}"
    )
    assert "- mine, aro: of version 99" in to_markdown("fsc", [row], [], FSC)


def test_chance_row_is_what_the_task_files_declare():
    row = chance_row(FSC)

    assert row.cells["sugarcrepe"].value == 50.0
    assert row.cells["ZS"].value == pytest.approx(
        sum(task.chance[task.headline[0]] for task in FSC if task.group == "classification") / 21
    )


def test_published_rows_stand_apart_and_are_not_recomputed():
    rows = published_rows(FSC)
    clip = next(row for row in rows if row.model == "CLIP (ViT-B-32)" and "Comp" in row.cells)

    assert clip.cells["Comp"].value == 46.1  # FSC-CLIP, Table 1
    assert clip.cells["winoground"].value == 8.8
    page = to_markdown("fsc", [measured_row(run_of([]), FSC)], rows, FSC)
    measured, published = page.split("## Published numbers")
    assert "NegCLIP" in published
    assert "NegCLIP" not in measured


def test_csv_has_one_line_a_row_and_empty_holes():
    text = to_csv([measured_row(run_of([result(FSC[0])]), FSC), chance_row(FSC)], FSC)
    rows = list(csv.DictReader(io.StringIO(text)))

    assert [row["model"] for row in rows] == ["mine", "chance"]
    assert rows[0]["Comp"] == ""
    assert rows[0]["aro"] == "50.0000"
    assert rows[0]["aro low"] == "48.0000"


def test_whole_rows_come_first_and_the_best_of_them():
    low = run_of([result(task, 30.0) for task in FSC], "low")
    high = run_of([result(task, 60.0) for task in FSC], "high")
    part = run_of([result(FSC[0], 99.0)], "part")

    rows = order([measured_row(run, FSC) for run in (part, low, high)], AVERAGES)

    assert [row.model for row in rows] == ["high", "low", "part"]


def test_relative_to_a_model():
    rows = [
        measured_row(run_of([result(task, value) for task in FSC], name), FSC)
        for name, value in (("base", 50.0), ("tuned", 53.0))
    ]

    found = relative(rows, "base")

    assert found[1].cells["Comp"].value == pytest.approx(3.0)
    with pytest.raises(UsageError, match="Did you mean 'base'"):
        relative(rows, "bas")


def test_averages_of_an_empty_group_are_nothing():
    assert averages({"x": Cell(1.0)}, []) == {}


def test_written_tables_are_checked_for_staleness(tmp_path):
    task = TaskFacts.of(catalogue()["sugarcrepe"])
    directory = RunDirectory(tmp_path / "runs", "mine", "0123456789")
    directory.write_result(result(task, 61.5), Samples({"id": ["1"], "correct": [True]}))
    directory.write_run({"model": "mine"})
    rows = measured_rows(read_runs([tmp_path / "runs"]), FSC)

    files = write(tmp_path / "boards", "fsc", rows, FSC)
    write(tmp_path / "boards", "fsc", rows, FSC, check=True)

    assert "61.5" in files[1].read_text()
    files[0].write_text("edited")
    with pytest.raises(GateError, match="stale"):
        write(tmp_path / "boards", "fsc", rows, FSC, check=True)


def test_a_folder_without_runs_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="no runs there"):
        read_runs([tmp_path])


def test_the_strict_number_stands_beside_the_headline_and_in_averages():
    results = [result(task, 40.0, strict=36.7 if task.name == "aro" else None) for task in FSC]
    row = measured_row(run_of(results), FSC)

    assert str(row.cells["aro"]) == "40.0†"
    assert row.cells["crepe"].strict is None
    assert row.cells["Comp"].value == pytest.approx(40.0)
    assert row.cells["Comp"].strict == pytest.approx((10 * 40.0 + 36.7) / 11)  # 39.7
    assert row.cells["ZS"].strict is None
    page = to_markdown("fsc", [row], [], FSC)
    assert "- mine, aro: 40.0, by the strict rule 36.7" in page
    line = next(csv.DictReader(io.StringIO(to_csv([row], FSC))))
    assert (line["aro"], line["aro strict"], line["crepe strict"]) == ("40.0000", "36.7000", "")


def test_ones_own_benchmark_has_a_table_of_its_own(tmp_path):
    runs = [run_of([result(MINE, 62.5)])]

    tables = suites(runs, catalogue().values())
    files = write(tmp_path, "own", measured_rows(runs, tables["own"]), tables["own"])

    assert tables == {"own": [MINE]}
    assert [file.name for file in files] == ["own.csv", "own.md"]
    # One task is all of its suite's compositionality: the average is its number.
    assert next(csv.DictReader(io.StringIO(files[0].read_text())))["Comp"] == "62.5000"


def test_of_two_versions_the_newer_has_the_table_and_the_other_is_named():
    newer = TaskFacts("stairs", "own", "compositionality", 2, ("text",), {"text": 50.0})
    runs = [run_of([result(MINE, 62.5)], "old"), run_of([result(newer, 64.0)], "new")]

    (table,) = suites(runs, catalogue().values()).values()
    rows = {run.name: measured_row(run, table) for run in runs}

    assert rows["new"].cells["stairs"].value == 64.0
    assert "stairs" not in rows["old"].cells
    assert rows["old"].left_out == {"stairs": "of version 1 of the task; the table is of version 2"}


def test_a_task_that_calls_a_shipped_suite_its_own_stands_in_no_table():
    impostor = TaskFacts("stairs", "fsc", "compositionality", 1, ("text",), {"text": 50.0})
    runs = [run_of([result(impostor, 90.0), result(FSC[0], 40.0)])]

    tables = suites(runs, catalogue().values())

    assert "stairs" not in [task.name for task in tables["fsc"]]
    assert strangers(runs, tables) == [
        "runs/mine: stairs is no task of the shipped suite 'fsc': it stands in no table. Give its "
        "task file a suite of its own."
    ]


def test_an_own_task_called_like_a_shipped_one_never_enters_the_shipped_table():
    mnist = next(task for task in FSC if task.name == "mnist")
    own = TaskFacts("mnist", "mine", mnist.group, mnist.version, mnist.headline, mnist.chance)
    row = measured_row(run_of([result(own, 10.0)]), FSC)

    assert "mnist" not in row.cells
    assert row.left_out == {"mnist": "of another task of that name, suite 'mine'"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": 500.0}, "'metrics.headline.text.value' = 500.0"),
        ({"value": "much"}, "'metrics.headline.text.value' must be a number or nothing"),
        ({"n": -1}, "'metrics.headline.text.n' = -1"),
        ({"ci": [1.0]}, "ci"),
    ],
)
def test_a_result_that_is_none_is_left_out_and_the_rest_is_shown(tmp_path, change, why):
    directory = RunDirectory(tmp_path / "runs", "mine", "0123456789")
    directory.write_run({"model": "mine"})
    for task, value in ((MINE, 62.5), (replace(MINE, name="ramps"), 41.5)):
        directory.write_result(result(task, value), Samples({"id": ["1"], "correct": [True]}))
    file = directory.task_file("stairs")
    content = json.loads(file.read_text())
    content["metrics"]["headline"]["text"] |= change
    file.write_text(json.dumps(content))
    said = []

    (run,) = read_runs([tmp_path / "runs"], said.append)

    assert list(run.results) == ["ramps"]
    assert len(said) == 1
    assert str(file) in said[0] and why in said[0]
    with pytest.raises(UsageError):
        read_runs([tmp_path / "runs"])


# ---------------------------------------------------------------- one bootstrap


def drawn_row(model: str, draws: list[float], seeds: str = "", value: float | None = None) -> Row:
    """A row of a suite whose only average is Comp, with these draws; its value is their mean."""
    cell = Cell(float(np.mean(draws)) if value is None else value)
    return Row(model, "measured", {"Comp": cell}, draws={"Comp": np.array(draws)}, seeds=seeds)


def test_an_averages_interval_is_that_of_its_draws_not_of_independent_tasks():
    """Two tasks whose draws are alike, from 40 to 60: the mean's interval is as wide as theirs, not
    1 / sqrt(2) of it. Against one that falls where the other rises it has no width.
    """
    rising = np.linspace(40, 60, 41)
    cells = {"stairs": Cell(50.0, 40.5, 59.5), "ramps": Cell(50.0, 40.5, 59.5)}

    alike = averages(cells, OWN, {"stairs": rising, "ramps": rising})["Comp"]
    against = averages(cells, OWN, {"stairs": rising, "ramps": rising[::-1]})["Comp"]
    unknown = averages(cells, OWN, {"stairs": rising})["Comp"]

    assert (alike.low, alike.high) == (pytest.approx(40.5), pytest.approx(59.5))
    assert (against.low, against.high) == (pytest.approx(50.0), pytest.approx(50.0))
    assert unknown.low == pytest.approx(50 - 9.5 / 2**0.5)


def test_ranks_and_ties_come_from_the_same_draws():
    """a beats b in three of four draws and c in all, b beats c in all. a - b is 3, 3, 3, -1: its
    interval holds 0. The row without draws for all has no rank, nor has one with a hole.
    """
    a, b, c = [63, 64, 65, 60], [60, 61, 62, 61], [50, 51, 52, 51]
    rows = [drawn_row("a", a), drawn_row("b", b), drawn_row("c", c), Row("hole", "measured", {})]

    found = {row.model: (row.rank, row.tied) for row in ranked(rows, ["Comp"])}

    assert found == {
        "a": ((1, 2), ("b",)), "b": ((1, 2), ("a",)), "c": ((3, 3), ()), "hole": (None, ()),
    }  # fmt: skip
    without = [*rows, Row("old", "measured", {"Comp": Cell(40.0)})]
    assert all(row.rank is None for row in ranked(without, ["Comp"]))


def test_a_difference_to_a_row_has_the_paired_interval():
    """1, 3, 2 and 2 better in four draws: percentiles of 1, 2, 2, 3 at 2.5 and 97.5."""
    rows = [drawn_row("base", [50, 60, 55, 58]), drawn_row("tuned", [51, 63, 57, 60])]

    cell = relative(rows, "base")[1].cells["Comp"]

    assert (cell.value, cell.low, cell.high) == (2.0, pytest.approx(1.075), pytest.approx(2.925))


@pytest.mark.parametrize(
    ("comp", "zs", "word"),
    [
        ([3, 4, 5], [1, 2, 1], "GAIN"),
        ([3, 4, 5], [-1, 0, 2], "GAIN"),  # ZS is down in some draws alone
        ([3, 4, 5], [-2, -1, -3], "TRADE-OFF"),
        ([-3, -4, -5], [1, 2, 1], "LOSS"),
        ([-1, 4, 5], [-2, -1, -3], ""),
    ],
)
def test_a_signature_says_what_fine_tuning_did_beyond_error(comp, zs, word):
    """Draws of the differences to a base of 50 in every draw."""

    def row(model: str, base: str, *shifts: list[float]) -> Row:
        draws = {name: 50 + np.array(one) for name, one in zip(("Comp", "ZS"), shifts, strict=True)}
        cells = {name: Cell(float(drawn.mean())) for name, drawn in draws.items()}
        return Row(model, "measured", cells, draws=draws, base=base)

    rows = [row("base", "", [0, 0, 0], [0, 0, 0]), row("tuned", "base", comp, zs)]

    assert [one.signature for one in signed(rows, ["Comp", "ZS"])] == ["", word]
    without = [replace(one, cells={"ZS": one.cells["ZS"]}) for one in rows]
    found = [one.signature for one in signed(without, ["Comp", "ZS"])]
    assert found == ["", ""]  # nothing is said of Comp


def test_runs_that_differ_in_their_seed_alone_are_grouped_seed_spread_apart():
    """50, 53 and 56: mean 53, standard deviation 3; the fourth is of another recipe."""
    rows = [
        drawn_row(f"run:{seed}", [value - 1, value + 1], "recipe")
        for seed, value in enumerate((50, 53, 56))
    ]
    rows.append(drawn_row("run:other", [70, 71], "another"))

    (group,) = seed_groups(rows, ["Comp"])

    assert group.models == ("run:0", "run:1", "run:2")
    assert group.cells["Comp"].value == 53.0
    assert group.spread["Comp"] == pytest.approx(3.0)
    assert group.cells["Comp"].low == pytest.approx(52.05)  # of 52 and 54
    assert len(seed_groups(rows[1:], ["Comp"])) == 1  # two are a group, one is none
    assert seed_groups(rows[2:], ["Comp"]) == []
    page = to_markdown("own", rows, [], [STAIRS])
    assert "| run:0, run:1, run:2 | 3 | 53.0 [52.0, 54.0] sd 3.00 |" in page


# ---------------------------------------------------------------- whole tables, cell by cell

STAIRS = MINE
RAMPS = replace(MINE, name="ramps", chance={"text": 20.0}, blind=30.0)
PAIRS = TaskFacts(
    "pairs", "own", "retrieval", 1, ("i2t_r1", "t2i_r1"), {"i2t_r1": 4.0, "t2i_r1": 8.0}
)
OWN = [STAIRS, RAMPS, PAIRS]


def own_rows() -> list:
    """Two models: the first whole, with a note, a strict number, a rank and one that it is tied
    with; the second with a hole.
    """
    first = {
        "stairs": Cell(62.0, 59.0, 67.0),
        "ramps": Cell(41.0, 37.0, 53.0, strict=38.0, note="2 missing"),
        "pairs i2t_r1": Cell(30.0, 20.0, 45.0),
        "pairs t2i_r1": Cell(25.0),
    }
    second = {"stairs": Cell(50.0, 48.0, 53.0)}
    cells = {**averages(first, OWN), **first}
    rows = [Row("a|b", "measured", cells, rank=(1, 2), tied=("=c",))]
    return [*rows, Row("hole", "measured", {**averages(second, OWN), **second}, {"x": "too old"})]


def test_the_whole_page_of_a_table():
    """Comp: (62 + 41) / 2; below sqrt(9 + 16) / 2, above sqrt(25 + 144) / 2; strict (62 + 38) / 2.

    ZS is no column, for there is no such task; T2I has no interval, as its only number has none.
    Headroom of ramps, whose blind score is 30: (41 - 30) / 70.
    """
    published = [
        Row("paper", "Table 1", {"T2I": Cell(12.5), "ramps": Cell(33.3)}),
        Row("other", "Table 2", {"stairs": Cell(20.0)}),
    ]

    page = to_markdown("fsc_bench: own", own_rows(), published, OWN)

    title, _, explained, *rest = page.splitlines()
    assert title == "# fsc_bench: own"
    assert explained.startswith("Percent, with 95% intervals")
    assert "\n".join(rest) == PAGE


PAGE = """
| Rank | Model | Comp | I2T | T2I |
|---:|---|---:|---:|---:|
| 1-2 | a\\|b | 51.5*† [49.0, 58.0] | 30.0 [20.0, 45.0] | 25.0 |
|  | hole | - | - | - |

## Compositionality

| Model | stairs | ramps |
|---|---:|---:|
| a\\|b | 62.0 | 41.0*† |
| hole | 50.0 | - |

## Retrieval

| Model | pairs i2t_r1 | pairs t2i_r1 |
|---|---:|---:|
| a\\|b | 30.0 | 25.0 |
| hole | - | - |

## Headroom

(score - blind) / (100 - blind), in percent: what is won beyond text alone.

| Model | ramps |
|---|---:|
| a\\|b | 15.7 |
| hole | - |

## Published numbers

Quoted, not measured here; sources in the CSV.

| Model | Comp | I2T | T2I | stairs | ramps |
|---|---:|---:|---:|---:|---:|
| paper | - | - | 12.5 | - | 33.3 |
| other | - | - | - | 20.0 | - |

## Not complete (`*`)

- a\\|b, Comp: holds ramps, not complete
- a\\|b, ramps: 2 missing

## Any tie a miss (`†`)

- a\\|b, Comp: 51.5, by the strict rule 50.0
- a\\|b, ramps: 41.0, by the strict rule 38.0

## Tied within error

- a\\|b: \\=c

## Left out

- hole, x: too old"""


def test_a_page_without_notes_and_quotes_has_no_such_headings():
    page = to_markdown("own", [Row("m", "measured", {"stairs": Cell(1.0)})], [], OWN)

    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Compositionality", "## Retrieval", "## Headroom"]


def test_the_whole_csv_of_a_table():
    """The numbers of the page above. Of each column: value, low, high, strict; of ramps headroom.

    A name that a spreadsheet would take for a formula is marked as text.
    """
    header, first, second = csv.reader(io.StringIO(to_csv(own_rows(), OWN)))
    names = ["Comp", "ZS", "I2T", "T2I", "stairs", "ramps", "pairs i2t_r1", "pairs t2i_r1"]

    assert header[:5] == ["model", "source", "rank low", "rank high", "tied with"]
    assert header[5:7] == ["base", "signature"]
    assert [name for name in header[7:-1] if name.rpartition(" ")[2] not in
            ("low", "high", "strict", "headroom")] == names  # fmt: skip
    assert header[7:11] == ["Comp", "Comp low", "Comp high", "Comp strict"]
    assert header[-1] == "notes"
    assert first == [
        *("a|b", "measured", "1", "2", "'=c", "", ""),
        *("51.5000", "49.0000", "58.0000", "50.0000"),
        *("", "", "", ""),
        *("30.0000", "20.0000", "45.0000", ""),
        *("25.0000", "", "", ""),
        *("62.0000", "59.0000", "67.0000", ""),
        *("41.0000", "37.0000", "53.0000", "38.0000", "15.7143"),
        *("30.0000", "20.0000", "45.0000", ""),
        *("25.0000", "", "", ""),
        "Comp: holds ramps, not complete; ramps: 2 missing",
    ]
    assert second[:2] == ["hole", "measured"] and second[-1] == "x left out: too old"
    assert second[23:27] == ["50.0000", "48.0000", "53.0000", ""]
    assert not any(second[2:23] + second[27:-1])


def test_a_mean_of_numbers_of_which_one_has_no_interval_has_none():
    cells = {"stairs": Cell(62.0, 59.0, 67.0), "ramps": Cell(41.0)}

    assert averages(cells, OWN)["Comp"] == Cell(51.5)


def test_the_second_headline_of_a_classification_task_is_in_no_average():
    """Both mAPs of VOC are columns; ZS takes the first: (40 + 71) / 2, not (40 + 62) / 2."""
    plain = TaskFacts("plain", "own", "classification", 1, ("accuracy",), {"accuracy": 10.0})
    both = replace(plain, name="both", headline=("map11", "map11_devkit"))
    cells = {"plain": Cell(40.0), "both map11": Cell(71.0), "both map11_devkit": Cell(62.0)}

    assert averages(cells, [plain, both]) == {"ZS": Cell(55.5)}


def test_each_way_of_retrieval_enters_its_own_average_whatever_stands_first():
    """I2T: 30 and 50, T2I: 20, 10 and 60. A task of one way is no part of the other's average."""
    turned = replace(PAIRS, name="turned", headline=("t2i_r1", "i2t_r1"))
    alone = replace(PAIRS, name="alone", headline=("t2i_r1",))
    cells = {"pairs i2t_r1": Cell(30.0), "pairs t2i_r1": Cell(20.0), "turned t2i_r1": Cell(10.0)}
    cells |= {"turned i2t_r1": Cell(50.0), "alone": Cell(60.0)}

    assert averages(cells, [PAIRS, turned, alone]) == {"I2T": Cell(40.0), "T2I": Cell(30.0)}
    page = to_markdown("own", [Row("m", "measured", {"alone": Cell(60.0)})], [], [alone])
    assert "| Model | T2I |" in page


@pytest.mark.parametrize(
    ("decays", "change", "counts"),
    [
        (False, {}, True),
        (False, {"flags": ("2 missing",)}, False),
        (True, {"flags": ("2 missing",)}, True),
        (True, {"flags": ("first 5",), "settings": {"limit": 5}}, False),
        (True, {"flags": ("1 of 100 is no number",), "nan": 1}, False),
        (False, {"flags": ("2 missing",), "nan": 1}, False),
        (False, {"settings": {"limit": 500}}, True),  # of fewer records than that: whole
    ],
)
def test_only_dying_pictures_may_be_missing_in_an_average(decays, change, counts):
    """Neither a limit nor a similarity that is no number is of the pictures' doing."""
    task = replace(STAIRS, decays=decays)

    cell = headline_cell(task, replace(result(task, 62.0), **change), "text")

    assert cell.counts == counts
    assert cell.note == "".join(change.get("flags", ()))


def test_a_headline_that_was_not_computed_is_a_hole():
    found = result(STAIRS, 62.0)
    nothing = replace(found, metrics={"headline": {"text": Cell(None)}})

    assert headline_cell(STAIRS, found, "text").value == 62.0
    assert headline_cell(STAIRS, nothing, "text") is None
    assert headline_cell(STAIRS, found, "image") is None


def test_rows_are_ordered_by_the_mean_of_all_averages_not_by_the_best():
    """Sums: 170, 190, 180, though the first has the highest single number; then holes by name."""
    rows = [
        Row(model, "measured", dict(zip(AVERAGES, map(Cell, values), strict=False)))
        for model, values in {
            "third": (90.0, 30.0, 30.0, 20.0),
            "first": (50.0, 50.0, 50.0, 40.0),
            "second": (60.0, 40.0, 40.0, 40.0),
            "z": (99.0, 99.0, 99.0),
            "y": (98.0, 98.0),
        }.items()
    ]

    assert [row.model for row in order(rows, AVERAGES)] == ["first", "second", "third", "y", "z"]


def test_differences_keep_notes_and_leave_out_what_the_other_has_not():
    base = Row("base", "measured", {"stairs": Cell(50.0), "Comp": Cell(44.0)})
    tuned = Row("tuned", "measured", {"stairs": Cell(53.5, note="2 missing"), "ramps": Cell(9.0)})

    found = relative([tuned, base], "base")

    assert found == [
        Row("tuned", "minus base", {"stairs": Cell(3.5, note="2 missing")}),
        Row("base", "minus base", {"stairs": Cell(0.0), "Comp": Cell(0.0)}),
    ]


def test_quoted_numbers_are_read_where_they_are_columns_and_a_bad_one_names_its_line(tmp_path):
    file = tmp_path / "paper.csv"
    file.write_text("model,source,Comp,stairs,ramps,other\nm,p. 3,41.5,-,,7\nn,p. 4,,12,2,\n")
    said = []

    assert published_rows(OWN, tmp_path, said.append) == [
        Row("m", "p. 3", {"Comp": Cell(41.5)}),
        Row("n", "p. 4", {"stairs": Cell(12.0), "ramps": Cell(2.0)}),
    ]
    assert said == [f"{file}: the column 'other' is no column of a table; left out."]
    file.write_text("model,source,Comp\nm,p. 3,41.5\nn,p. 4,much\n")
    with pytest.raises(UsageError, match=r"paper\.csv: line 3: .*much"):
        published_rows(OWN, tmp_path)


def test_a_row_of_further_numbers_alone_stands_in_no_table_and_one_of_none_does(tmp_path):
    file = tmp_path / "paper.csv"
    file.write_text("model,source,Comp,stairs/left\nboth,p,41.5,7\nfurther,p,,8\nnone,p,,\n")

    assert [row.model for row in published_rows(OWN, tmp_path)] == ["both", "none"]


def test_tables_of_other_suites_quote_nothing_and_the_demos_says_what_it_is(tmp_path):
    pages = {suite: write(tmp_path, suite, [], OWN)[1].read_text() for suite in ("demo", "own")}

    assert pages["own"].splitlines()[0] == "# fsc_bench: own"
    assert pages["demo"].splitlines()[0] == (
        "# fsc_bench: demo (a miniature world; not comparable with any real benchmark)"
    )
    assert all("Published" not in page for page in pages.values())


def test_checking_says_where_a_table_is_missing_and_writes_none(tmp_path):
    with pytest.raises(GateError, match=r"own\.csv: stale"):
        write(tmp_path, "own", [], OWN, check=True)
    assert not list(tmp_path.iterdir())
