"""Tables: facts read from TOML, checked on entry. Each complaint is one line with the near miss."""

from collections.abc import Iterable, Mapping
from typing import Any

from fsc_bench.errors import UsageError, near_miss

_WORDS = {
    bool: "true or false",
    dict: "a table",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "a string",
}


def check_keys(place: str, table: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Keys must be known and of the type (or one of the types) that `allowed` says.

    `place` begins the complaint: `mine.toml: [data]`. Raises UsageError.
    """
    for key, value in table.items():
        if key not in allowed:
            raise UsageError(f"{place} unknown key {key!r}.{near_miss(key, allowed)}")
        types = allowed[key] if isinstance(allowed[key], tuple) else (allowed[key],)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            names = " or ".join(_WORDS[kind] for kind in types)
            raise UsageError(f"{place} {key!r} must be {names}, not {value!r}.")


def check_choice(place: str, value: Any, choices: Iterable[str]) -> None:
    """`value` must be one of `choices`. Raises UsageError."""
    choices = list(choices)
    if value not in choices:
        hint = near_miss(str(value), choices) or f" Choose one of: {', '.join(choices)}."
        raise UsageError(f"{place} = {value!r} is not known.{hint}")
