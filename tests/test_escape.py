"""Escape: a stranger's text made harmless for terminals, Markdown, HTML and CSV."""

import csv
import io

import pytest

from fsc_bench.system.escape import (
    for_csv,
    for_html,
    for_markdown,
    for_terminal,
    is_printable,
    shortened,
)

PLAIN = "open_clip:ViT-B-32-quickgelu/openai"


def test_an_ordinary_name_stays_as_it_is_everywhere():
    assert {for_terminal(PLAIN), for_markdown(PLAIN), for_html(PLAIN), for_csv(PLAIN)} == {PLAIN}
    assert (
        for_terminal("Ünïcode 犬, a\u00a0blank, 👩\u200d🔬")
        == "Ünïcode 犬, a\u00a0blank, 👩\u200d🔬"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[2Jgone\x9b1A", r"\x1b[2Jgone\x9b1A"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u2028b\u200bc", r"a\u2028b\u200bc"),
        ("\ud800", r"\ud800"),  # half a character, as JSON can say it
        ("\0\x7f\b", r"\x00\x7f\x08"),
    ],
)
def test_what_moves_a_cursor_or_hides_is_written_out_on_one_line(text, written):
    assert for_terminal(text) == written
    assert not is_printable(text)
    for escape in (for_markdown, for_html, for_csv):
        assert is_printable(escape(text))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("a\n| b |", r"a\\n\| b \|"),
        ("<img src=x>&copy;", "&lt;img src=x&gt;&amp;copy;"),
        ("[x](http://e.org)", r"\[x\](http\://e.org)"),
        ("www.e.org me@e.org", r"www\.e.org me\@e.org"),
        ("**b** `c` ~~d~~ $e$", r"\*\*b\*\* \`c\` \~\~d\~\~ \$e\$"),
        ("_i_ a_b", r"\_i\_ a_b"),
        ("a\\|b", r"a\\\|b"),  # its backslash must not undo ours
        ("# h", r"\# h"),
        ("- l", r"\- l"),
        ("    code", "code"),
        ("1. x", r"1\. x"),
        ("12) x", r"12\) x"),
        ("---", r"\---"),
    ],
)
def test_no_markup_is_left_for_markdown(text, escaped):
    assert for_markdown(text) == escaped


def test_html_and_its_attributes_hold_no_tag_and_no_quote():
    assert for_html("<script>'\"&\n") == "&lt;script&gt;&#x27;&quot;&amp;\\n"


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", " =", '"=', "'=", "＝", "＋"])
def test_a_cell_that_is_a_formula_becomes_text(begin):
    text = for_csv(f"{begin}cmd|'/C calc'!A0")
    out = io.StringIO()
    csv.writer(out).writerow(["a,b", text])

    assert text.startswith("'")
    assert next(csv.reader(io.StringIO(out.getvalue())))[1] == text
    assert for_csv("41.5 - 3") == "41.5 - 3"


def test_a_quoted_value_says_where_it_was_cut():
    assert shortened("abc") == "'abc'"
    assert shortened("x" * 10**7, 20) == f"'{'x' * 16}..."
    assert shortened({"k" * 50: 1}, 20) == "{'kkkkkkkkkkkkkkk..."
    assert shortened("\x1b") == r"'\x1b'"
    assert shortened(16**5000) == "a int too long to show"
