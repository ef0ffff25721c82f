"""Delimited tables: each row is read once, whatever quotes its texts have, or refused by name."""

import pytest

from fsc_bench.data.delimited import BadTable, Table

TABLES = {
    "quotes that open and close": (
        '"a ""big"" dog"\t1\n"two\nlines"\t2\n',
        [['a "big" dog', "1"], ["two\nlines", "2"]],
        0,
    ),
    "a quote that a later row closes": (
        '"a dog\t1\na cat\t2\nthe end"\t3\na fox\t4\n',
        [['"a dog', "1"], ["a cat", "2"], ['the end"', "3"], ["a fox", "4"]],
        1,
    ),
    "a quote that nothing closes": ('"a dog\t1\na cat\t2\n', [['"a dog', "1"], ["a cat", "2"]], 1),
    "words behind a closed quote": (
        '"a" dog\t1\na cat\t2\n',
        [['"a" dog', "1"], ["a cat", "2"]],
        1,
    ),
    "quotes inside a cell": ('a "big" dog\t1\n', [['a "big" dog', "1"]], 0),
    "a last cell of two lines": ('1\t"a dog\nruns"\n2\tb\n', [["1", "a dog\nruns"], ["2", "b"]], 0),
    "blank lines and Windows": ("a\t1\r\n\r\nb\t2\r\n", [["a", "1"], ["b", "2"]], 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_as_many_as_the_lines_say(name):
    text, rows, lone = TABLES[name]
    table = Table(f"\ufefftitle\tfile\n{text}", None)

    assert [cells for _, cells in table] == rows
    assert table.columns == ["title", "file"] and table.lone_quotes == lone


def test_a_comma_in_quotes_is_text_and_so_is_a_lone_quote_that_no_row_closes():
    table = Table('title,file,kind\n"a dog, a cat",1,x\n"two\nlines, a",2,y\n"a fox,3,z\n')

    assert [cells for _, cells in table] == [
        ["a dog, a cat", "1", "x"], ["two\nlines, a", "2", "y"], ['"a fox', "3", "z"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "delimiter", "says"),
    [
        ("title,file,title\na,1,b\n", ",", "the header names the column 'title' twice"),
        ("title,file\na,1\nb\n", ",", "row 2: line 3 has 1 cells, the header 2"),
        ("title\tfile\n\na\t1\t2\n", "\t", "row 1: line 3 has 3 cells, the header 2"),
        ('title\tfile\n"a dog\n', "\t", "row 1: line 2 has a quote that is not closed"),
        ('"title\tfile\n', "\t", "the header has a quote that is not closed"),
        (
            'title,file\nx,0\n"a,1\nb,2\nc",3\n',
            ",",
            "row 2: a cell in quotes would hold the lines 3 ",
        ),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused_by_its_row(text, delimiter, says):
    with pytest.raises(BadTable) as caught:
        list(Table(text, delimiter))

    assert str(caught.value).startswith(says)
