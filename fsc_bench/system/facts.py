"""Facts: TOML and JSON files as typed values, checked once where they enter.

The types are msgspec structs: it is small, fast to import, kept up, and refuses unknown keys and
wrong types itself. Here its complaints become our one line: the file, the key, the value that was
found, what was expected, and the near miss.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from fsc_bench.errors import FscBenchError, UsageError, near_miss, reason
from fsc_bench.system.escape import is_printable, shortened

MOST = 32_000_000  # bytes of one file; the largest shipped task file has 40,000
UNKNOWN = "Object contains unknown field `"  # how msgspec's complaint of a key begins
DEEPEST = 64  # tables within tables
# Control characters but for line feed and tab, ends of lines, and what turns the direction.
UNREADABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
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
    except RecursionError:
        raise error(f"{path}: not read: tables within tables without end.") from None
    except ValueError as problem:  # TOMLDecodeError, or a number of thousands of digits
        raise error(f"{path}: not TOML: {problem}") from None
    _check_depth(raw, str(path), error)
    _check_values(raw, str(path), error)
    return typed(raw, kind, str(path), error)


def read_json(path: Path, kind: type[T], error: type[FscBenchError] = UsageError) -> T:
    """A JSON file as `kind`, a msgspec struct. Raises `error`, one line, where it is none."""
    text = read_text(path, error)
    try:
        raw = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    except ValueError as problem:
        raise error(f"{path}: not JSON: {problem}") from None
    except RecursionError:
        raise error(f"{path}: not read: lists within lists without end.") from None
    return typed(raw, kind, str(path), error)


def check_choice(place: str, value: Any, choices: Iterable[str]) -> None:
    """`value` must be one of `choices`, which only other facts can tell. Raises UsageError."""
    choices = list(choices)
    if value not in choices:
        hint = near_miss(_in_words(value), choices) or f" Choose one of: {', '.join(choices)}."
        raise UsageError(f"{place} = {shortened(value)} is not known.{hint}")


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
        raise error(f"{path}: cannot be read: {reason(problem)}.") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 text (byte {problem.start}).") from None


def typed(raw: Any, kind: type[T], where: str, error: type[FscBenchError] = UsageError) -> T:
    """`raw` (what TOML or JSON gave) as `kind`. Raises `error`: `where`, key, value, near miss."""
    _check_depth(raw, where, error)
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {_explained(str(problem), raw, kind)}") from None
    except UnicodeEncodeError as problem:
        half = shortened(problem.object)
        raise error(f"{where}: {half} holds half a character, which is no text.") from None


def check_name(text: str, where: str, error: type[FscBenchError] = UsageError) -> None:
    """A name must be one printable line without blanks around it. Raises `error` with `where`."""
    if text != text.strip() or not text or not is_printable(text):
        raise error(f"{where} is {shortened(text)}; a name is one line of printable characters.")


def _check_values(raw: Any, where: str, error: type[FscBenchError]) -> None:
    """A file that people write holds text alone: no escape sequences, no turned directions; and
    whole numbers of 64 bits, which is what TOML has.

    Line feeds and tabs may stand in values, as in instructions; never in keys.
    """
    waiting: list[tuple[str, Any]] = [("", raw)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            for key, below in value.items():
                if UNREADABLE.search(key) or "\n" in key or "\t" in key:
                    raise error(f"{where}: the key {shortened(key)} is no printable line.")
                waiting.append((f"{place}.{key}" if place else key, below))
        elif isinstance(value, list):
            waiting += [(f"{place}[{number}]", below) for number, below in enumerate(value)]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise error(f"{where}: {place} = {shortened(value)} is no number of 64 bits.")
        elif isinstance(value, str) and (found := UNREADABLE.search(value)):
            raise error(
                f"{where}: {place} holds {found[0]!r}, which is no printable character: "
                f"{shortened(value)}."
            )


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shortened(twice)} stands twice in one table")
    return table


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
    what, _, at = problem.rpartition(" - at ") if " - at " in problem else (problem, "", "")
    if isinstance(raw, dict) and problem.removeprefix(UNKNOWN).removesuffix("`") in raw:
        what, at = problem, ""  # of the whole file, whatever stands in the key
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", at)
    value, place = raw, ""
    for name, number in steps:
        if number == "...":  # msgspec says only that it is one of a table's entries
            name, number = _entry_at_fault(value, _kind_below(kind, "")), ""
        shown = name if is_printable(name) and len(name) <= 80 else shortened(name)
        place += f"[{number}]" if number else f".{shown}" if place else shown
        value, kind = _below(value, name, number), _kind_below(kind, name)
    key = f"'{place}'"
    if found := re.match(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        table = f"{place}: " if place else ""
        return f"{table}unknown key {shortened(found[1])}.{near_miss(found[1][:80], _fields(kind))}"
    if found := re.match(r"Object missing required field `(.*)`", what):
        table = f"{place}: " if place else ""
        return f"{table}the key {found[1]!r} is missing."
    if re.match(r"Invalid (enum|literal) value|Invalid value", what) or _choices(kind):
        choices = [str(choice) for choice in _choices(kind)]
        hint = near_miss(_in_words(value), choices) or f" Choose one of: {', '.join(choices)}."
        return f"{place} = {shortened(value)} is not known.{hint}"
    if found := re.match(r"Expected `(.*)`, got `(.*)`$", what):
        names = [_KINDS.get(name.strip(), name.strip()) for name in found[1].split("|")]
        return f"{key} must be {' or '.join(names)}, not {shortened(value)}."
    if found := re.match(r"Expected `\w+` (<=|>=|<|>) (\S+)$", what):
        return f"{key} = {shortened(value)} must be {found[1]} {float(found[2]):.6g}."
    return f"{key} = {shortened(value)}: {what}." if place else f"{what}."


def _in_words(value: Any) -> str:
    return value[:80] if isinstance(value, str) else shortened(value)


def _entry_at_fault(table: Any, kind: Any) -> str:
    """The key of the first entry that does not fit, for a table of any keys."""
    for key, value in table.items() if isinstance(table, dict) else ():
        try:
            msgspec.convert(value, kind)
        except (msgspec.ValidationError, UnicodeEncodeError):
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
