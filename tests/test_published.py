"""Published: quoted numbers out of anybody's CSV files."""

import pytest

from fsc_bench.errors import UsageError
from fsc_bench.report.published import read_published

KNOWN = ("Comp", "stairs", "ramps")
GOOD = "model,source,Comp,stairs\nm,p. 3,41.5,-\n"


def read(folder, text, others=()):
    """(rows, what was told of a file with this text)."""
    (folder / "a.csv").write_text(GOOD)
    (folder / "b.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    said = []
    rows = read_published(folder, KNOWN, said.append, others)
    assert all(line.isprintable() and line.startswith(str(folder / "b.csv")) for line in said)
    assert rows[0].values == {"Comp": 41.5}  # whatever the other file is
    return rows[1:], [line.removeprefix(f"{folder / 'b.csv'}: ") for line in said]


def test_rows_say_where_they_stand_and_holes_are_left_out(tmp_path):
    rows, said = read(tmp_path, "\ufeffmodel,source,ramps,stairs\n\nn,p. 4,2.25,\n")

    assert not said
    assert [(row.model, row.source, row.values, row.line) for row in rows] == [
        ("n", "p. 4", {"ramps": 2.25}, 3)
    ]


@pytest.mark.parametrize("cell", ["nan", "inf", "-1", "100.1", "1e400", "٤٢", "4_2", "42%", "=1"])
def test_a_cell_that_is_no_percentage_is_told_and_its_row_shown(tmp_path, cell):
    rows, said = read(tmp_path, f"model,source,ramps,stairs\nn,p,{cell},7.5\n")

    assert [row.values for row in rows] == [{"stairs": 7.5}]
    assert said == [f"line 2: ramps = '{cell}' is no number within 0 and 100."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty; its first line"),
        ("model,sourec,Comp\n", "lacks 'source'. Did you mean 'sourec'?"),
        ("model,source,Comp,Comp\nn,p,1,2\n", "'Comp' twice"),
        ("model,source,Comp\nn,p\n", "line 2: 2 cells below 3 columns"),
        ("model,source,Comp\nn,p,1,2\n", "line 2: 4 cells below 3 columns"),
        ('model,source,Comp\n"n,p,1\n', "not CSV"),
        ('model,source,Comp\n"a\nb",p,1\n', r"'model' is 'a\nb'"),
        ("model,source,Comp\n\x1b[2J,p,1\n", r"'model' is '\x1b[2J'"),
        ("model,source,Comp\n,p,1\n", "'model' is ''"),
        (f"model,source,Comp\n{'x' * 1001},p,1\n", "more than 1,000 characters"),
        (b"model,source,Comp\n\xff,p,1\n", "not UTF-8"),
        (f"model,source,Comp\n{'y' * 200_000},p,1\n", "not CSV: field larger"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line_and_left_out(tmp_path, text, words):
    rows, said = read(tmp_path, text)

    assert not rows
    assert len(said) == 1 and words in said[0]


def test_a_column_that_no_table_has_is_told_with_the_near_miss(tmp_path):
    text = "model,source,stiars,pairs\nn,p,3,4\n"

    rows, said = read(tmp_path, text, others=["pairs"])
    assert said == ["the column 'stiars' is no column of a table; left out. Did you mean 'stairs'?"]
    assert [row.values for row in rows] == [{}]
    with pytest.raises(UsageError, match="stiars"):
        read_published(tmp_path, KNOWN)
