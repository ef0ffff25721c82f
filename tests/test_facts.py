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
