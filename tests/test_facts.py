"""Facts: typed values out of TOML and JSON, and the one line that says what is wrong."""

from typing import Literal

import msgspec
import pytest

from fsc_bench.errors import DataError, UsageError
from fsc_bench.system.facts import DEEPEST, read_json, read_toml, typed


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    bytes: int = 0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    access: Literal["open", "gated"] = "open"
    weight: float = 0.5
    sources: tuple[Source, ...] = ()


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"titel": "x"}, "f: unknown key 'titel'. Did you mean 'title'?"),
        ({"access": "open"}, "f: the key 'title' is missing."),
        ({"title": 3}, "f: 'title' must be a string, not 3."),
        ({"title": "x", "weight": True}, "f: 'weight' must be a number, not True."),
        (
            {"title": "x", "access": "opne"},
            "f: access = 'opne' is not known. Did you mean 'open'?",
        ),
        (
            {"title": "x", "sources": [{"url": "a"}, {"ulr": "b"}]},
            "f: sources[1]: unknown key 'ulr'. Did you mean 'url'?",
        ),
        (
            {"title": "x", "sources": [{"url": "a", "bytes": "many"}]},
            "f: 'sources[0].bytes' must be a whole number, not 'many'.",
        ),
        ({"title": "x", "sources": {}}, "f: 'sources' must be a list, not {}."),
        (
            {"title": "x", "access": "\ud800"},
            r"f: '\ud800' holds half a character, which is no text.",
        ),
        ({"title": "x", "\ud800": 1}, r"f: '\ud800' holds half a character, which is no text."),
        (
            {"title": "x", "a - at `$.b`": 1},
            "f: unknown key 'a - at `$.b`'.",
        ),
        ({"title": "x", "a\nb": 1}, r"f: unknown key 'a\nb'."),
        (
            {"title": "x", "weight": "y" * 500},
            f"f: 'weight' must be a number, not '{'y' * 76}....",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_key_value_and_near_miss(raw, line):
    with pytest.raises(UsageError) as caught:
        typed(raw, Recipe, "f")

    assert str(caught.value) == line


def test_a_toml_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('﻿title = "x"\nweight = 1\n', encoding="utf-8")

    assert read_toml(path, Recipe) == Recipe("x", "open", 1.0, ())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ('{"title": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "without end"),
        ('{"title": ' + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1) + "}", "within tables"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_json_is_one_line(tmp_path, text, why):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(DataError, match=why) as caught:
        read_json(path, Recipe, DataError)

    assert str(path) in str(caught.value)


def test_an_absent_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        read_toml(tmp_path / "no.toml", Recipe)
    with pytest.raises(UsageError, match="not a file"):
        read_toml(tmp_path, Recipe)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('title = "a\\u001bb"', r"title holds '\x1b', which is no printable character: 'a\x1bb'."),
        ('title = "\\u202eb"', r"title holds '\u202e', which is no printable character"),
        ('title = "x"\n"a\\nb" = 1', r"the key 'a\nb' is no printable line."),
        (f'title = "x"\nweight = {"9" * 5000}', "not TOML: Exceeds the limit"),
        (f'title = "x"\nweight = 0x{"f" * 5000}', "weight = a int too long to show is no number"),
        (f'title = "x"\nweight = {2**63}', "weight = 9223372036854775808 is no number of 64 bits."),
        ('title = "x"\ntitle = "y"', "not TOML: Cannot overwrite a value"),
    ],
)
def test_toml_of_no_printable_text_or_of_endless_numbers_is_one_line(tmp_path, text, line):
    path = tmp_path / "x.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        read_toml(path, Recipe)
    assert line in str(caught.value) and str(caught.value).isprintable()


def test_texts_of_several_lines_and_whole_numbers_of_64_bits_are_facts(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('title = """a\n\tb"""\n[[sources]]\nurl = "é 犬"\nbytes = 9223372036854775807')

    assert read_toml(path, Recipe).title == "a\n\tb"


def test_a_key_of_json_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"title": "x", "weight": 1, "weight": 2}')

    with pytest.raises(UsageError, match="the key 'weight' stands twice in one table"):
        read_json(path, Recipe)
