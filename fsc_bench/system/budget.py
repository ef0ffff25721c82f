"""Budget: the most that one file, archive or download may take, so that none takes the machine.

    pixels    100M   of one picture, and of the crop that a record's box asks for
    bytes     2G     of one file or member that is read whole, as it is once unpacked
    growth    200    times its packed size that a packed file may become (256 MB are always allowed)
    members   5M     of one archive, rows of one table of records, lines of one table in a CSV file
    depth     1k     lists within lists of one pickled or JSON file
    download  500G   bytes of one download
    seconds   86400  of one download, all tries together
    speed     1k     bytes a second that a download brings over any minute
    outside   1      0: symbolic links that lead out of a linked folder are refused

No benchmark comes near them. `--budget pixels=300M,bytes=8G` sets others for one command; the
environment variable FSC_BENCH_BUDGET says the same and reaches the processes that a command starts.
A picture takes up to 16 bytes a pixel while it is decoded, and large ones are decoded one at a
time; a member of an archive takes about 1 kB, a value of a JSON file about 100 bytes.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from fsc_bench.errors import UsageError, near_miss

VARIABLE = "FSC_BENCH_BUDGET"
SCALES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Budget:
    """What the table above says; every value is a whole number."""

    pixels: int = 100_000_000
    bytes: int = 2_000_000_000
    growth: int = 200
    members: int = 5_000_000
    depth: int = 1000
    download: int = 500_000_000_000
    seconds: int = 86_400
    speed: int = 1000
    outside: int = 1


class OverBudget(ValueError):
    """A file asks for more than the budget allows; the text says how to allow it."""


def check(key: str, wanted: int, what: str) -> None:
    """Raises OverBudget where `wanted` is more than the budget's `key` allows.

    what: the beginning of a sentence, such as `says that it has 169,000,000 pixels`.
    """
    allowed = getattr(budget(), key)
    if wanted > allowed:
        raise OverBudget(f"{what}; at most {allowed:,} are allowed ({raising(key, wanted)})")


def raising(key: str, wanted: int) -> str:
    """How a user allows `wanted`: `--budget pixels=169M allows it`."""
    return f"`--budget {key}={_written(wanted)}` allows it"


def budget() -> Budget:
    """The budget of this process."""
    return _parsed(os.environ.get(VARIABLE, ""))


def parse(text: str, start: Budget | None = None) -> Budget:
    """`pixels=300M,bytes=8G` over the defaults. Raises UsageError, one line, with the near miss."""
    found = start or Budget()
    names = [field.name for field in fields(Budget)]
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in names or not equals:
            hint = near_miss(key, names) or f" Its keys: {', '.join(names)}."
            raise UsageError(f"budget {part!r:.80}: write KEY=NUMBER, such as pixels=300M.{hint}")
        found = replace(found, **{key: _number(part, value)})
    return found


@contextmanager
def within(texts: list[str] | None) -> Iterator[Budget]:
    """Inside it, this process and those it starts have the budget that the texts say."""
    before = os.environ.get(VARIABLE)
    text = ",".join(filter(None, [before, *(texts or [])]))
    parsed = parse(text)
    os.environ[VARIABLE] = text
    try:
        yield parsed
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


_last: tuple[str, Budget] = ("", Budget())


def _parsed(text: str) -> Budget:
    """As `parse`, remembered: it is asked for once a picture."""
    global _last
    if text != _last[0]:
        _last = (text, parse(text))
    return _last[1]


def _number(part: str, value: str) -> int:
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,3})?)\s*([kMGT]?)", value)
    if match is None:
        raise UsageError(f"budget {part!r:.80}: write a number, such as 300M, 8G or 3600.")
    return int(float(match[1]) * SCALES[match[2]])


def _written(number: int) -> str:
    """The number as a budget says it, rounded up: 169000000 is 169M."""
    for unit in ("T", "G", "M", "k"):
        if number >= SCALES[unit]:
            return f"{-(-number // SCALES[unit])}{unit}"
    return str(number)
