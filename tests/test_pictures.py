"""Pictures: where models stand in them, what leads from one to another, and what is left out."""

import json
from xml.etree import ElementTree

import pytest

from fsc_bench.cli.curves import curves
from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import Row
from fsc_bench.report.pictures import progress, svg, tradeoff, write_tradeoffs
from fsc_bench.results import Cell


def row(model: str, zs: float, comp: float, source: str = "measured", base: str = "") -> Row:
    half = 2 if source == "measured" else None
    cells = {
        name: Cell(value, value - half, value + half) if half else Cell(value)
        for name, value in (("ZS", zs), ("Comp", comp))
    }
    return Row(model, source, cells, base=base)


def marks(text: str, role: str) -> list[dict[str, str]]:
    """What a picture says of its marks of one kind, as it tells a screen reader."""
    return [
        dict(part.split(": ", 1) for part in mark.get("aria-label").split("; "))
        for mark in ElementTree.fromstring(text).iter()
        if mark.get("aria-roledescription") == role
    ]


@pytest.fixture(scope="module")
def picture() -> str:
    rows = [
        row("first", 60, 40),
        row("tuned & <b>", 55, 52, base="first"),
        row("wise:first+tuned & <b>?alpha=0.5", 59, 48),
        row("paper", 58, 50, source="Table 1"),
        row("worse", 54, 41, source="Table 1"),
        Row("chance", "declared", {"Comp": Cell(36.0), "ZS": Cell(10.0)}),
        Row("blind", "declared", {"Comp": Cell(3.0)}),
        Row("hole", "measured", {"Comp": Cell(50.0)}),
    ]
    return svg(tradeoff(rows, "ZS", "Comp", "cost & use"))


def test_every_complete_model_stands_at_its_scores_with_its_intervals(picture):
    places = {
        mark["model"]: (float(mark["x"]), float(mark["y"]))
        for mark in marks(picture, "point")
        if "model" in mark
    }

    assert places == {
        "first": (60, 40), "tuned & <b>": (55, 52), "wise:first+tuned & <b>?alpha=0.5": (59, 48),
        "paper": (58, 50), "worse": (54, 41),
    }  # fmt: skip
    ends = {tuple(mark[key] for key in mark if key.startswith("low") or key.startswith("high"))
            for mark in marks(picture, "rule mark")}  # fmt: skip
    assert ends >= {("58", "62"), ("38", "42"), ("50", "54")}


def test_what_leads_where_and_what_nothing_beats(picture):
    """An arrow from first to tuned, up and to the left; the front leaves first's way to it and
    `worse` out: from 55, 52 over 58, 50 and 59, 48 to 60, 40.
    """
    arrows = [mark for mark in marks(picture, "point") if "angle" in mark]
    assert [(float(a["at_x"]), float(a["at_y"])) for a in arrows] == [(57.5, 46.0)]
    assert -90 < float(arrows[0]["angle"].replace("\N{MINUS SIGN}", "-")) < 0
    lines = [mark.get("d") for mark in ElementTree.fromstring(picture).iter()
             if mark.get("aria-roledescription") == "line mark"]  # fmt: skip
    assert sorted(line.count("L") for line in lines) == [2, 3]  # WiSE-FT's three, the front's four


def test_a_level_far_below_is_left_out_and_names_are_text(picture):
    texts = [text.text for text in ElementTree.fromstring(picture).iter() if text.text]

    assert "chance" in texts and "blind" not in texts  # 3 would press all models into the corner
    assert {"tuned & <b>", "cost & use", "ZS (%)", "Comp (%)", "measured", "published"} <= set(
        texts
    )
    assert "<b>" not in picture and "http" not in picture.replace("http://www.w3.org/", "")


NAMES = ["Comp", "ZS", "I2T"]


def test_a_suite_gets_the_pictures_that_two_models_have_scores_for(tmp_path):
    rows = [row("a", 60, 40), row("b", 55, 52)]

    files = write_tradeoffs(tmp_path, "my suite", rows, NAMES)

    assert [file.name for file in files] == ["my-suite-zs.svg"]
    first = files[0].read_bytes()
    write_tradeoffs(tmp_path, "my suite", rows, NAMES)
    assert files[0].read_bytes() == first
    assert write_tradeoffs(tmp_path, "alone", rows[:1], NAMES) == []


def test_a_trainings_metrics_are_lines_along_its_steps():
    steps = [{"step": 1, "loss": 3.5, "note": "x"}, {"step": 2, "loss": 2.25, "lr": 0.1}]

    text = svg(progress({"one": steps, "other": steps[:1]}, ["loss", "lr"], "mine"))

    texts = [one.text for one in ElementTree.fromstring(text).iter() if one.text]
    assert {"mine", "loss", "lr", "step", "one", "other"} <= set(texts)


def test_curves_draws_what_runs_logged_and_names_what_they_did_not(tmp_path, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    lines = [{"step": 1, "loss": 3.5}, {"step": 2, "loss": 2.25}, {"step": 2, "dev_loss": 2.5}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    curves([run], None, False, tmp_path / "out.svg")

    assert capsys.readouterr().out.endswith("out.svg (loss, dev_loss).\n")
    assert "dev_loss" in (tmp_path / "out.svg").read_text()
    with pytest.raises(UsageError, match=r"--metric 'los': no run logged it. Did you mean 'loss'"):
        curves([run], ["los"], False, tmp_path / "out.svg")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2: no logged step"):
        curves([run], None, False, tmp_path / "out.svg")
    with pytest.raises(UsageError, match="no training run with metrics"):
        curves([tmp_path], None, False, tmp_path / "out.svg")
    with pytest.raises(UsageError, match=r"out.png: the picture is an .svg file"):
        curves([run], None, False, tmp_path / "out.png")
