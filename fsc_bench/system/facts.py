"""Facts: TOML and JSON files as typed values, checked once where they enter.

The types are msgspec structs: it is small, fast to import, kept up, and refuses unknown keys and
wrong types itself. Here its complaints become our one line: the file, the key, the value that was
found, what was expected, and the near miss.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from fsc_bench.errors import FscBenchError, UsageError, near_miss

MOST = 32_000_000  # bytes of one file; the largest shipped task file has 40,000
DEEPEST = 64  # tables within tables
T = TypeVar("T")


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose keys are all known."""


_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def read_toml(path: Path, kind: type[T], error: type[FscBenchError] = UsageError) -> T:
    """A TOML file as `kind`, a msgspec struct. Raises `error`, one line, where it is none."""
    text = read_text(path, error)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{path}: not TOML: {problem}") from None
    except RecursionError:
        raise error(f"{path}: not read: tables within tables without end.") from None
    return typed(raw, kind, str(path), error)


def read_json(path: Path, kind: type[T], error: type[FscBenchError] = UsageError) -> T:
    """A JSON file as `kind`, a msgspec struct. Raises `error`, one line, where it is none."""
    text = read_text(path, error)
    try:
        raw = json.loads(text, parse_constant=_no_constant)
    except ValueError as problem:
        raise error(f"{path}: not JSON: {problem}") from None
    except RecursionError:
        raise error(f"{path}: not read: lists within lists without end.") from None
    return typed(raw, kind, str(path), error)


def check_choice(place: str, value: Any, choices: Iterable[str]) -> None:
    """`value` must be one of `choices`, which only other facts can tell. Raises UsageError."""
    choices = list(choices)
    if value not in choices:
        hint = near_miss(str(value), choices) or f" Choose one of: {', '.join(choices)}."
        raise UsageError(f"{place} = {value!r} is not known.{hint}")


def read_text(path: Path, error: type[FscBenchError] = UsageError) -> str:
    """A regular file of at most `MOST` bytes as text, with or without a byte-order mark."""
    try:
        if not path.exists():
            raise error(f"{path}: there is no such file.")
        if not path.is_file():
            raise error(f"{path}: not a file.")
        size = path.stat().st_size
        if size > MOST:
            raise error(f"{path}: {size:,} bytes; a file of facts has at most {MOST:,}.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}.") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 text (byte {problem.start}).") from None


def typed(raw: Any, kind: type[T], where: str, error: type[FscBenchError] = UsageError) -> T:
    """`raw` (what TOML or JSON gave) as `kind`. Raises `error`: `where`, key, value, near miss."""
    _check_depth(raw, where, error)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {_explained(str(problem), raw, kind)}") from None


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _check_depth(raw: Any, where: str, error: type[FscBenchError]) -> None:
    level = [raw]
    for _ in range(DEEPEST):
        level = [
            below
            for value in level
            if isinstance(value, (dict, list))
            for below in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise error(f"{where}: more than {DEEPEST} tables within tables.")


def _explained(problem: str, raw: Any, kind: Any) -> str:
    """msgspec's complaint in our words. Its form: `What - at `$.a.b[0]``."""
    what, _, at = problem.partition(" - at ")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", at)
    value, place = raw, ""
    for name, number in steps:
        if number == "...":  # msgspec says only that it is one of a table's entries
            name, number = _entry_at_fault(value, _kind_below(kind, "")), ""
        place += f"[{number}]" if number else f".{name}" if place else name
        value, kind = _below(value, name, number), _kind_below(kind, name)
    key = f"{place!r}"
    if found := re.match(r"Object contains unknown field `(.*)`", what):
        table = f"{place}: " if place else ""
        return f"{table}unknown key {found[1]!r}.{near_miss(found[1], _fields(kind))}"
    if found := re.match(r"Object missing required field `(.*)`", what):
        table = f"{place}: " if place else ""
        return f"{table}the key {found[1]!r} is missing."
    if re.match(r"Invalid (enum|literal) value|Invalid value", what) or _choices(kind):
        choices = [str(choice) for choice in _choices(kind)]
        hint = near_miss(str(value), choices) or f" Choose one of: {', '.join(choices)}."
        return f"{place} = {value!r:.80} is not known.{hint}"
    if found := re.match(r"Expected `(.*)`, got `(.*)`$", what):
        names = [_KINDS.get(name.strip(), name.strip()) for name in found[1].split("|")]
        return f"{key} must be {' or '.join(names)}, not {value!r:.80}."
    if found := re.match(r"Expected `\w+` (<=|>=|<|>) (\S+)$", what):
        return f"{key} = {value!r:.80} must be {found[1]} {float(found[2]):.6g}."
    return f"{key} = {value!r:.80}: {what}." if place else f"{what}."


def _entry_at_fault(table: Any, kind: Any) -> str:
    """The key of the first entry that does not fit, for a table of any keys."""
    for key, value in table.items() if isinstance(table, dict) else ():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return str(key)
    return "..."


def _below(value: Any, name: str, number: str) -> Any:
    if number:
        return value[int(number)] if number.isdigit() and isinstance(value, list) else value
    if isinstance(value, dict) and name in value:
        return value[name]
    return value


def _kind_below(kind: Any, name: str) -> Any:
    """The type of a field, or of a list's or table's entries, where it can be told."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        for field in msgspec.structs.fields(kind):
            if field.encode_name == name:
                return hints[field.name]
        return None
    inner = [part for part in get_args(kind) if part not in (type(None), ...)]
    if get_origin(kind) in (dict, Mapping):
        return inner[1]
    structs = [
        part for part in inner if isinstance(part, type) and issubclass(part, msgspec.Struct)
    ]
    return structs[0] if structs else inner[-1] if inner else None


def _fields(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(kind)]
    return []


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()
