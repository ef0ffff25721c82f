"""Scoring again from stored scores, and replaying published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from known import World, matching
from made_runs import choices, write_run

from fsc_bench.cli.main import app
from fsc_bench.errors import DataError
from fsc_bench.report.verify import (
    Check,
    beside_published,
    replay_outcomes,
    replay_references,
    replay_tables,
    rounding,
)
from fsc_bench.results import read_runs
from fsc_bench.score.rescore import rescore
from fsc_bench.task import catalogue

FSC = [task for task in catalogue().values() if task.suite == "fsc"]
MODEL = "open_clip:ViT-B-32-quickgelu/openai"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_other_ties_and_groupmatch_come_out_of_the_stored_scores(world):
    """Four records of one picture: right; right, with its copy; a tie of different texts; wrong.

    Headline 2 of 4, strict 1 (the copy ties), lenient 3. Two records of two and two at 0 and 40
    degrees: texts at 4 and 36 are both ways right; texts at 30 and 60 are both nearer to 40, so
    group has 1 of 2, but 30 + 20 is less apart than 60 + 10: GroupMatch has both.
    """
    one = world.picture("one", 10)
    near, far, other = world.text(12), world.text(50), world.text(8)
    again = world.text(12, near.upper())
    rows = [[near, far], [near, again, far], [near, other], [far, near]]
    ties = [matching([one], texts) for texts in rows]
    left, right = world.picture("left", 0), world.picture("right", 40)
    pairs = [
        matching([left, right], [world.text(a), world.text(b)]) for a, b in ((4, 36), (30, 60))
    ]
    world.ask(world.task("ties", ["text"], {"all": 4}), ties)
    world.ask(world.task("pairs", ["group"], {"all": 2}), pairs)
    (run,) = read_runs([world.out])

    def headline(ties: str, task: str = "ties", metric: str = "text") -> float:
        return rescore(run, ties).cells[task]["headline"][metric].value

    assert [headline(ties) for ties in ("headline", "strict", "lenient")] == [50.0, 25.0, 75.0]
    assert headline("headline", "pairs", "group") == 50.0
    assert headline("headline", "pairs", "groupmatch") == 100.0
    mean = rescore(run, averages={"mine": [("ties", ""), ("pairs", "groupmatch")]}).averages
    assert mean["mine"].value == 75.0


def test_scoring_again_by_the_headline_rule_gives_the_results_numbers(tmp_path):
    sugarcrepe = catalogue()["sugarcrepe"]
    rng = np.random.default_rng(0)
    rows = [
        (leaf, f"p{rng.integers(300)}", bool(rng.random() < 0.7))
        for leaf in sugarcrepe.leaves
        for _ in range(60)
    ]
    run = write_run(tmp_path, "mine:a", [(sugarcrepe, choices(rows))])

    found = rescore(run).cells["sugarcrepe"]

    stated = run.results["sugarcrepe"].metrics
    for node, cells in stated.items():
        again, cell = found[node]["text"], cells["text"]
        assert (again.value, again.low, again.high) == (cell.value, cell.low, cell.high), node
        assert again.n == cell.n


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--average", "mine"], "write NAME=task"),
        (["--average", "mine=sugercrepe"], "Did you mean 'sugarcrepe'?"),
        (["--average", "mine=sugarcrepe:image"], "sugarcrepe has no 'image'"),
        (["--ties", "stricht"], "Did you mean 'strict'?"),
    ],
)
def test_a_mistake_in_what_is_wanted_is_one_line(tmp_path, capsys, arguments, said):
    sugarcrepe = catalogue()["sugarcrepe"]
    rows = [(leaf, f"p{i}", bool(i % 3)) for leaf in sugarcrepe.leaves for i in range(6)]
    write_run(tmp_path, "mine:a", [(sugarcrepe, choices(rows))])

    with pytest.raises(SystemExit) as stopped:
        app(["rescore", "mine:a", "--runs", str(tmp_path), *arguments])

    err = capsys.readouterr().err
    assert (stopped.value.code, len(err.splitlines())) == (2, 1)
    assert said in err


# ---------------------------------------------------------------- published numbers


def test_published_averages_follow_from_published_parts():
    references, tables = replay_references(FSC), replay_tables(FSC)

    assert len(references) >= 11 and len(tables) >= 60
    assert [check for check in (*references, *tables) if not check.holds] == []


def test_what_is_stated_with_two_decimals_may_be_off_by_half_of_the_second():
    assert rounding(31.97) == pytest.approx(0.005)
    assert rounding(73.0257) == pytest.approx(0.00005)
    assert rounding(50.0) == pytest.approx(0.05)
    assert not Check("x", 50.0, 50.2, 0.1).holds


def test_published_outcomes_give_published_scores(real_data):
    path = real_data / "fsc_plus/bivlc/SUGARCREPE_CORRECT_ViT-B-32.csv.gz"

    found = replay_outcomes(path, catalogue()["sugarcrepe"], MODEL)

    assert len(found) == 7  # six subsets, whose sizes agree, and the headline
    assert all(check.holds for check in found)


def test_a_table_that_is_none_of_outcomes_is_one_line(tmp_path):
    path = tmp_path / "outcomes.csv"
    path.write_text("type,subtype,correct\nadd,obj,1\nadd,objects,1\n")

    with pytest.raises(DataError, match="line 3: 'add_objects'"):
        replay_outcomes(path, catalogue()["sugarcrepe"], MODEL)


def test_a_run_of_a_published_model_stands_beside_its_published_row(tmp_path, capsys):
    """90 of 100 in replace_obj, published 90.9: inside. 30 of 100 in swap_att, 64.0: outside."""
    sugarcrepe = catalogue()["sugarcrepe"]
    hits = dict.fromkeys(sugarcrepe.leaves, 75) | {"replace_obj": 90, "swap_att": 30}
    rows = [(leaf, f"{leaf}{i}", i < hits[leaf]) for leaf in sugarcrepe.leaves for i in range(100)]
    run = write_run(tmp_path, MODEL, [(sugarcrepe, choices(rows))])

    found = {line.node: line for line in beside_published([run], FSC)}

    assert found["replace_obj"].inside and found["replace_obj"].published == 90.9201
    assert not found["swap_att"].inside and "headline" in found
    with pytest.raises(SystemExit) as stopped:
        app(["verify", str(run.path), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    assert {Path(line["task"]).name for line in document["runs"]} == {"sugarcrepe"}
