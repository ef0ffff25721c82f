"""Attack: run folders of strangers. A table shows what fits, names the rest, and runs nothing.

Each of 83 hostile files lies in one run beside a run that is as it should be; `fsc-bench
leaderboard` makes its table of both.
"""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outcomes import Ran, Tally, command, main, tried, unprintable, workplace, written_outside

from fsc_bench.results import Cell, Result, RunDirectory, Samples

RESULT = Result(
    task="stairs",
    version=3,
    kind="matching",
    fingerprint="f",
    n=8,
    expected=8,
    metrics={
        "headline": {"text": Cell(37.5, 13.25, 69.5, 8, 50.0)},
        "up": {"text": Cell(37.5, 13.25, 69.5, 8, 50.0)},
    },
    headline=("text",),
    ties=2,
    nan=0,
    facts={
        "title": "Stairs", "suite": "own", "group": "compositionality", "kind": "matching",
        "version": 3, "headline": ["text"], "chance": {"text": 50.0}, "within": "subsets",
        "subsets": {"up": 8}, "n": 8, "decays": False, "shipped": False,
    },
)  # fmt: skip

Change = Callable[[dict], Any]


def at(path: str, value: Any) -> Change:
    """Sets what a path such as `facts.suite` names."""

    def change(content: dict) -> dict:
        *before, last = path.split(".")
        table = content
        for key in before:
            table = table[key]
        table[last] = value
        return content

    return change


def without(path: str) -> Change:
    def change(content: dict) -> dict:
        *before, last = path.split(".")
        table = content
        for key in before:
            table = table[key]
        del table[last]
        return content

    return change


def text(raw: str | bytes) -> Change:
    """The whole file is this."""
    return lambda content: raw.encode() if isinstance(raw, str) else raw


def renamed(path: str, new: str) -> Change:
    """Another key for what a path names."""

    def change(content: dict) -> dict:
        *before, last = path.split(".")
        table = content
        for key in before:
            table = table[key]
        table[new] = table.pop(last)
        return content

    return change


def doubled(content: dict) -> bytes:
    return json.dumps(content).replace('"n": 8', '"n": 8, "n": 9', 1).encode()


def marked(content: dict) -> bytes:
    return b"\xef\xbb\xbf" + json.dumps(content).encode()


CELL = "metrics.headline.text"
# What is wrong with a `tasks/stairs.json`: each is to be named in one line and left out.
REFUSED: dict[str, Change] = {
    "empty": text(""),
    "half": text('{"schema": 1, "task": "stai'),
    "null": text("null"),
    "a list": text("[]"),
    "a number": text("3"),
    "a web page": text("<html>"),
    "deep lists": text("[" * 100_000 + "]" * 100_000),
    "deep tables": text('{"a":' * 100_000 + "1" + "}" * 100_000),
    "deep within": at("audits", json.loads("[" * 500 + "]" * 500)),
    "UTF-16": lambda content: json.dumps(content).encode("utf-16"),
    "no text": text(b"\xff\xfe\x00"),
    "too large": lambda content: json.dumps(content).encode() + b" " * 33_000_000,
    "a key twice": doubled,
    "NaN": lambda content: json.dumps(at(f"{CELL}.value", float("nan"))(content)).encode(),
    "infinity": lambda content: json.dumps(at(f"{CELL}.value", 1e999)(content)).encode(),
    "1e400": lambda content: json.dumps(content).replace("37.5", "1e400").encode(),
    "many digits": lambda content: json.dumps(content).replace("37.5", "9" * 5000).encode(),
    "schema 2": at("schema", 2),
    "schema in words": at("schema", "one"),
    "no schema": without("schema"),
    "metrics a list": at("metrics", []),
    "metrics of lists": at("metrics", {"headline": []}),
    "a cell a number": at(CELL, 37.5),
    "value a text": at(f"{CELL}.value", "37.5"),
    "value true": at(f"{CELL}.value", True),
    "value a list": at(f"{CELL}.value", [37.5]),
    "value negative": at(f"{CELL}.value", -3.0),
    "value above 100": at(f"{CELL}.value", 101.0),
    "value huge": at(f"{CELL}.value", 10**400),
    "value gone, interval there": at(f"{CELL}.value", None),
    "value below its interval": at(f"{CELL}.value", 3.0),
    "value above its interval": at(f"{CELL}.value", 99.0),
    "interval turned": at(f"{CELL}.ci", [69.5, 13.25]),
    "interval half": at(f"{CELL}.ci", [13.25, None]),
    "interval of one": at(f"{CELL}.ci", [13.25]),
    "interval of three": at(f"{CELL}.ci", [13.25, 37.5, 69.5]),
    "interval beyond": at(f"{CELL}.ci", [13.25, 1e6]),
    "interval gone": without(f"{CELL}.ci"),
    "n negative": at(f"{CELL}.n", -8),
    "n a text": at(f"{CELL}.n", "8"),
    "n half": at("n", 8.5),
    "n huge": at("n", 10**30),
    "chance beyond": at(f"{CELL}.chance", 1e9),
    "strict beyond": at(f"{CELL}.strict", -1.0),
    "a cell's key unknown": at(f"{CELL}.vaule", 1.0),
    "a key unknown": at("nmae", "x"),
    "headline a text": at("headline", "text"),
    "headline of another": at("headline", ["group"]),
    "another task": at("task", "ramps"),
    "a task that is a path": at("task", "../../stairs"),
    "kind unknown": at("kind", "guessing"),
    "version a text": at("version", "3"),
    "version other than its facts": at("version", 7),
    "more ties than samples": at("ties", 9),
    "flags a text": at("flags", "incomplete"),
    "flags of numbers": at("flags", [1]),
    "audits a list": at("audits", [1]),
    "no facts": without("facts"),
    "facts a list": at("facts", []),
    "no suite": without("facts.suite"),
    "suite a number": at("facts.suite", 3),
    "suite too long": at("facts.suite", "x" * 5000),
    "suite of two lines": at("facts.suite", "own\nown"),
    "suite with an escape": at("facts.suite", "\x1b[2Jown"),
    "group unknown": at("facts.group", "best"),
    "chance without the metric": at("facts.chance", {}),
    "chance in words": at("facts.chance", {"text": "half"}),
    "a metric of two lines": renamed(CELL, "te\nxt"),
    "a subset with turned letters": renamed("metrics.up", "\u202epu"),
}
# What is wrong with a `run.json`.
RUNS_REFUSED: dict[str, Change] = {
    "run empty": text(""),
    "run a list": text("[]"),
    "run without a model": without("model"),
    "model a number": at("model", 3),
    "model of two lines": at("model", "good\n| evil | 100.0 |"),
    "model with an escape": at("model", "\x1b]0;evil\x07"),
    "model half a character": at("model", "\ud800"),
    "model too long": at("model", "x" * 100_000),
}
# What is odd and right: it is shown, without doing anything where it stands.
SHOWN: dict[str, Change] = {
    "model a formula": at("model", "=HYPERLINK(\"http://e.org\",\"best\")"),
    "model with a tag": at("model", "<img src=x onerror=alert(1)>"),
    "model a link": at("model", "[best](javascript:alert(1)) | 100.0"),
    "model markup of rich": at("model", "[/x]\\"),
}  # fmt: skip
FLAGS_SHOWN: dict[str, Change] = {
    "flags with tags and lines": at("flags", ["<script>x</script>\n| evil | 100.0 |", "\x1b[2J"]),
    "a byte-order mark": marked,
}
CASES = [
    *(("tasks/stairs.json", name, change, False) for name, change in REFUSED.items()),
    *(("run.json", name, change, False) for name, change in RUNS_REFUSED.items()),
    *(("run.json", name, change, True) for name, change in SHOWN.items()),
    *(("tasks/stairs.json", name, change, True) for name, change in FLAGS_SHOWN.items()),
]


def good_run(folder: Path, model: str) -> Path:
    """A run folder as our own command writes it."""
    directory = RunDirectory(folder, model, "0123456789")
    directory.write_run({"model": model})
    directory.write_result(RESULT, Samples({"id": list("abcdefgh")}))
    return directory.path


def outcome(ran: Ran, place: Path, out: Path, shown: bool, model: str) -> str:
    """One word for how a table came out; `place` is the hostile file."""
    if ran.code is None:
        return "traceback"
    table = next(iter(sorted(out.glob("*.csv"))), None)
    if ran.code != 0 or table is None:
        return "stops the table"
    if unprintable(ran.err) or unprintable(ran.out):
        return "raw on the terminal"
    rows = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8"))))
    if "good" not in [row[0] for row in rows]:
        return "the good run is gone"
    if shown:
        return _markup(rows, table.with_suffix(".md").read_text(encoding="utf-8"), model)
    lines = [line for line in ran.err.splitlines() if str(place) in line]
    others = [row for row in rows[1:] if row[0] not in ("good", "chance")]
    return "refused" if len(lines) == 1 and not any(map(any, (o[2:] for o in others))) else "silent"


def _markup(rows: list[list[str]], page: str, model: str) -> str:
    """`shown`, or what a stranger's text does in a table."""
    if len(rows) != 4:  # header, both models, chance
        return "not shown"
    if any(cell[:1] in tuple("=+-@") for row in rows for cell in row if not _number(cell)):
        return "formula in CSV"
    plain = re.sub(r"\\.", "", page)
    if re.search(r"<\w|\]\(", plain) or "\x1b" in page:
        return "markup in Markdown"
    widths = {line.count("|") for line in plain.splitlines() if line.startswith("|")}
    forged = re.search(r"\|\s*100\.0\s*\|", plain)  # a cell that only the stranger's text has
    return "shown" if len(widths) <= 2 and not forged else "a row"


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"[-+]?[\d.]*", cell))


def attack(count: int = len(CASES), every: int = 1) -> Tally:
    cases = CASES[:: max(1, every)][:count]
    with workplace() as folder:

        def one(number: int) -> tuple[str, str]:
            file, name, change, shown = cases[number]
            for part in ("runs", "out"):
                shutil.rmtree(folder / part, ignore_errors=True)
            good_run(folder / "runs", "good")
            place = good_run(folder / "runs", "odd") / file
            changed = change(json.loads(place.read_text()))
            raw = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
            place.write_bytes(raw)
            ran = command("leaderboard", folder / "runs", "-o", folder / "out")
            if written_outside(folder) or {p.name for p in folder.iterdir()} - {"runs", "out"}:
                return "written outside", name
            found = outcome(ran, place, folder / "out", shown, "odd")
            return found, f"{name}: {ran.err.strip()[-160:]!r}"

        return tried(len(cases), one, apart=False)


if __name__ == "__main__":
    assert len(CASES) == 83 or os.environ.get("ANY")
    main(attack, len(CASES))
