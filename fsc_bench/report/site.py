"""Site: a leaderboard as one HTML file with nothing outside it: table, picture, a page a model.

It computes no score. The look is page.html.j2, site.css and site.js beside this file; sorting and
searching are DataTables', out of the package itables. Whatever a result file says is put in as
text: escaped by the template, or as JSON that the script writes into text nodes.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fsc_bench import __version__
from fsc_bench.blind import Blind
from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import Row, blind_row, chance_row, columns, present, reading
from fsc_bench.report.suites import TaskFacts
from fsc_bench.results import Cell, Result, Run
from fsc_bench.suite import suite_of
from fsc_bench.system.escape import for_terminal
from fsc_bench.task import GROUPS

FOLDER = Path(__file__).parent
NEEDS = "leaderboard --html needs {}: `pip install 'fsc-bench[html]'`."
FLIPS = 20  # of a model, at most


@dataclass(frozen=True)
class Board:
    """One suite of the page.

    rows: measured ones, as `measured_rows` gives them; published: quoted ones. runs: whose folders
    `Row.path` names. comparisons: with the base, by the same folder, as `compare --json` has them.
    picture: SVG text instead of the plain one.
    """

    suite: str
    tasks: Sequence[TaskFacts]
    rows: Sequence[Row]
    published: Sequence[Row] = ()
    runs: Mapping[Path, Run] = field(default_factory=dict)
    comparisons: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    picture: str = ""

    @property
    def title(self) -> str:
        why = suite_of(self.suite).apart
        return f"{self.suite} ({why})" if why else self.suite


def check_needs() -> None:
    """Raises UsageError where a package is missing that the page is made with."""
    for name in ("jinja2", "itables"):
        if find_spec(name) is None:
            raise UsageError(NEEDS.format(name))


def site(boards: Sequence[Board]) -> str:
    """The whole file. Raises UsageError where the extra `html` is not installed."""
    check_needs()
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    title = "fsc_bench leaderboard"
    suites = [_suite(board) for board in boards]
    style, script = _read("site.css"), _script()
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined
    )
    drawn = [
        {
            "number": number,
            "title": suite["title"],
            "verdict": for_terminal(verdict(board)),
            "reading": [for_terminal(text) for text in reading(board.tasks)],
            "averages": present(board.tasks),
            "picture": Markup(board.picture),
            "points": None if board.picture else _points(_kinds(board), present(board.tasks)),
            "plain": [_plain(*row, present(board.tasks)) for row in _kinds(board)],
        }
        for number, (board, suite) in enumerate(zip(boards, suites, strict=True))
    ]
    return environment.get_template("page.html.j2").render(
        title=title,
        version=__version__,
        policy=_policy(style, script, [board.picture for board in boards]),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_json({"title": title, "suites": suites})),
        suites=drawn,
    )


def verdict(board: Board) -> str:
    """What the table says, in one or two sentences."""
    names = present(board.tasks)
    whole = [row for row in board.rows if names and all(name in row.cells for name in names)]
    if not whole:
        return (
            f"Nothing is ranked: of {len(board.rows):,} models measured, none has every task "
            f"of {board.suite}."
        )
    first = whole[0]
    told = ", ".join(f"{n} {first.cells[n]} {first.cells[n].interval}".strip() for n in names)
    if len(whole) == 1:
        return f"One model is measured on every task of {board.suite}: {first.model} ({told})."
    text = f"Of {len(whole):,} models measured on every task of {board.suite}, "
    if first.rank is None:
        return f"{text}{first.model} has the highest mean of averages ({told})."
    if not first.tied:
        return f"{text}{first.model} is first, beyond error ({told})."
    others = ", ".join(first.tied[:3]) + f" and {len(first.tied) - 3:,} more" * (
        len(first.tied) > 3
    )
    return f"{text}{first.model} is first ({told}), but tied within error with {others}."


# ---------------------------------------------------------------- the data of a suite


def _suite(board: Board) -> dict[str, Any]:
    known = columns(board.tasks)
    averages = present(board.tasks)
    chance, blind = chance_row(board.tasks), blind_row(board.tasks)
    groups = {"averages": averages} if averages else {}
    for group in GROUPS:
        found = [name for name, (task, _) in known.items() if task.group == group]
        groups |= {group: found} if found else {}
    nodes = _nodes(board)
    names = [*averages, *known]
    rows = []
    for row, kind in _kinds(board):
        about = named(row.model) if kind == "published" else ()
        made = _measured(row, names, board, nodes) if kind == "measured" else None
        rows.append(made or _row(row, names, kind, *about))
    return {
        "title": board.title,
        "groups": groups,
        "columns": {
            name: {
                "chance": _value(chance.cells.get(name)),
                "blind": _value(blind.cells.get(name)),
                "average": name in averages,
            }
            for name in names
        },
        "tasks": {
            task: [
                [label, depth, metric, n, _tenth(by_chance), _tenth(by_text)]
                for label, depth, metric, n, by_chance, by_text, _ in lines
            ]
            for task, lines in nodes.items()
        },
        "rows": rows,
    }


def _kinds(board: Board) -> list[tuple[Row, str]]:
    """Every row in the order of the table, with its kind."""
    blind = blind_row(board.tasks)
    declared = [chance_row(board.tasks), *([blind] if blind.cells else [])]
    return [
        *((row, "measured") for row in board.rows),
        *((row, "declared") for row in declared),
        *((row, "published") for row in board.published),
    ]


def named(model: str) -> tuple[str, str]:
    """(family, base) of a published row as its source writes it: method (base, training data)."""
    method, _, inside = model.rpartition(" (")
    return (method, inside.rstrip(")").partition(",")[0]) if method else (model, "")


def _row(
    row: Row, names: Sequence[str], kind: str, family: str = "", base: str = ""
) -> dict[str, Any]:
    """What the table needs of any row, and a page that says what is known."""
    about = [["Source", row.source]] * (kind == "published")
    about += [["Scorer", row.scorer]] * bool(row.scorer)
    return {
        "model": row.model + " ‡" * bool(row.scorer),
        "kind": kind,
        "family": family,
        "base": base,
        "rank": row.rank,
        "place": _place(row),
        "cells": [_shown(row.cells[name]) if name in row.cells else 0 for name in names],
        "about": about,
    }


def _measured(
    row: Row, names: Sequence[str], board: Board, nodes: Mapping[str, list[tuple]]
) -> dict[str, Any]:
    """A measured row with its run's page: every node, flags, identity, provenance."""
    run = board.runs.get(row.path) if row.path else None
    found = _row(row, names, "measured", row.model.partition(":")[0], row.base)
    if row.signature:
        found["about"].append(["Against its base", row.signature])
    if row.rank:
        found["about"].append(["Rank", f"{found['place']} (95% of the draws)"])
    if row.tied:
        found["about"].append(["Tied within error with", ", ".join(row.tied)])
    if run is None:
        return found
    results = [run.results[task.name] for task in board.tasks if task.name in run.results]
    results = [result for result in results if result.task not in row.left_out]
    found["flags"] = [f"{result.task}: {flag}" for result in results for flag in result.flags]
    lists = {
        "Left out": [f"{task}: {why}" for task, why in row.left_out.items()],
        "Ties, NaN and audits": [line for result in results if (line := _audits(result))],
        "Official metrics": [
            f"{name} {replace(cell, note='')} ({cell.note})" for name, cell in row.official.items()
        ],
        "Notes": list(map(str, run.facts.get("notes", ()))),
    }
    found["lists"] = [[heading, lines] for heading, lines in lists.items() if lines]
    found["tasks"] = {result.task: _cells(result, nodes[result.task]) for result in results}
    found["who"] = _who(run)
    if row.path in board.comparisons:
        flips = max(3, min(FLIPS, 400 // len(board.comparisons)))  # of many models, few each
        found["comparison"] = _comparison(board.comparisons[row.path], flips)
    return found


def _nodes(board: Board) -> dict[str, list[tuple]]:
    """The lines of every task's own table: (label, depth, metric, promised n, chance, blind, node).

    They are those of the first run that has the task; a node that only others have comes after.
    """
    found: dict[str, dict[tuple[str, str], tuple]] = {task.name: {} for task in board.tasks}
    for run in board.runs.values():
        for name, result in run.results.items():
            if name not in found:
                continue
            order = [("headline", 0), *_depths(result.facts.get("subsets", {}))]
            order += [(node, 1) for node in result.metrics if node not in dict(order)]
            blind = Blind(**result.facts.get("blind", {}))
            for node, depth in order:
                for metric, cell in result.metrics.get(node, {}).items():
                    both = [rule[node] for rule in (blind.ruler, blind.bigram) if node in rule]
                    text = max(both, default=None) if metric == result.headline[0] else None
                    label = name if node == "headline" else node
                    line = (label, min(depth, 3), metric, cell.n, cell.chance, text, node)
                    found[name].setdefault((node, metric), line)
    return {name: list(lines.values()) for name, lines in found.items()}


def _depths(tree: Mapping[str, Any], depth: int = 1) -> list[tuple[str, int]]:
    """Every subset with its depth, parents before children."""
    found = []
    for name, node in tree.items():
        found.append((name, depth))
        if isinstance(node, Mapping):
            found += _depths(node, depth + 1)
    return found


def _cells(result: Result, lines: Sequence[tuple]) -> list[list[int | None] | None]:
    """[value, value - low, high - value, n if another than stated, strict] of each line that the
    result has; numbers but n in tenths of a percent; what is None at the end is left out. A page
    holds some 300 of these a model: this is its size.
    """
    found: list[list[int | None] | None] = []
    for _, _, metric, n, _, _, node in lines:
        cell = result.metrics.get(node, {}).get(metric)
        if cell is None or cell.value is None:
            found.append(None)
            continue
        value, low, high, strict = map(_tenths, (cell.value, cell.low, cell.high, cell.strict))
        ends = [None, None] if low is None or high is None else [value - low, high - value]
        found.append(_cut([value, *ends, None if cell.n == n else cell.n, strict]))
    return found


def _tenths(number: float | None) -> int | None:
    """Tenths of a percent, rounded as every table rounds."""
    return None if number is None else int(f"{number:.1f}".replace(".", ""))


def _cut(values: list[Any]) -> list[Any]:
    """Without what is None at the end."""
    while values and values[-1] is None:
        values.pop()
    return values


def _shown(cell: Cell) -> list[Any] | None:
    """[number to sort by, value, value - low, high - value, strict, note] of the board's own cells;
    all but the first and the note in tenths of a percent, as in `_cells`.
    """
    if cell.value is None:
        return None
    value, low, high, strict = map(_tenths, (cell.value, cell.low, cell.high, cell.strict))
    ends = [None, None] if low is None or high is None else [value - low, high - value]
    return _cut([round(cell.value, 4), value, *ends, strict, cell.note or None])


def _tenth(number: float | None) -> float | None:
    return None if number is None else float(f"{number:z.1f}")


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else _tenth(cell.value)


def _place(row: Row) -> str:
    if row.rank is None:
        return ""
    return f"{row.rank[0]}" if row.rank[0] == row.rank[1] else f"{row.rank[0]}-{row.rank[1]}"


def _audits(result: Result) -> str:
    """What makes samples of a task easy or unfair, counted; empty where nothing does."""
    counts = {"ties": result.ties, "NaN": result.nan, **result.audits}
    told = [f"{name} {count:,}" for name, count in counts.items()
            if isinstance(count, int | float) and count]  # fmt: skip
    return f"{result.task}: {', '.join(told)}" if told else ""


def _who(run: Run) -> list[list[str]]:
    """Identity and provenance as a run.json states them."""
    facts = run.facts
    lines = [["run", run.path.name]]
    for name, value in facts.items():
        if name in ("schema", "model", "notes", "seconds"):
            continue
        if isinstance(value, Mapping):
            lines += [[f"{name}: {key}", _words(part)] for key, part in value.items()]
        elif value not in (None, "", []):
            lines.append([name, _words(value)])
    return lines


def _words(value: Any) -> str:
    """A value of a run.json as words, at most 500 characters of them."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else f"{text[:497]}..."


def _comparison(found: Mapping[str, Any], flips: int) -> dict[str, Any]:
    """A comparison with the base, as lines of text."""

    def line(one: Mapping[str, Any]) -> list[str]:
        ends = f"{one['difference']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        counts = ["-" if one[key] is None else f"{one[key]:,}" for key in ("fixed", "broken")]
        return [one["name"], one["metric"], f"{one['a']:.2f}", f"{one['b']:.2f}", ends,
                one["verdict"], *counts]  # fmt: skip

    def flip(one: Mapping[str, Any]) -> list[Any]:
        texts = list(one["texts"])
        if one["answer"]:
            texts = [one["answer"], f"base: {one['taken_a']}", f"this: {one['taken_b']}"]
        where = " ".join(filter(None, (one["task"], one["subset"], one["id"])))
        texts = [text if len(text) <= 300 else f"{text[:297]}..." for text in texts]
        return ["fixed" if one["fixed"] else "broken", where, texts]

    return {
        "a": found["a"],
        "sentence": f"{found['verdict']}: {found['b']}, compared with {found['a']}.",
        "lines": [line(one) for one in [*found["averages"], *found["tasks"]]],
        "flips": [flip(one) for one in found["flips"][:flips]],
    }


# ---------------------------------------------------------------- what the template is given


def _plain(row: Row, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """A row for where no script runs (a mail's preview): averages as text."""
    found = [row.cells.get(name) for name in names]
    cells = [f"{cell} {cell.interval}".strip() if cell else "-" for cell in found]
    return {"place": _place(row), "model": for_terminal(row.model), "kind": kind, "cells": cells}


def _points(rows: Sequence[tuple[Row, str]], names: Sequence[str]) -> dict[str, Any] | None:
    """The first average against the second, a point a model; None where no two are known."""
    if len(names) < 2:
        return None
    up, across = names[:2]
    found = [
        (number, row.cells[across].value, row.cells[up].value, row, kind)
        for number, (row, kind) in enumerate(rows)
        if kind != "declared" and {up, across} <= set(row.cells)
    ]
    if not found:
        return None
    low_x, high_x = _tens([x for _, x, *_ in found])
    low_y, high_y = _tens([y for _, _, y, *_ in found])

    def place_x(x: float) -> float:
        return round(60 + 560 * (x - low_x) / (high_x - low_x), 1)

    def place_y(y: float) -> float:
        return round(370 - 350 * (y - low_y) / (high_y - low_y), 1)

    return {
        "across": across,
        "up": up,
        "ticks_across": [{"at": place_x(x), "text": x} for x in range(low_x, high_x + 1, 10)],
        "ticks_up": [{"at": place_y(y), "text": y} for y in range(low_y, high_y + 1, 10)],
        "points": [
            {
                "row": number,
                "kind": kind,
                "x": place_x(x),
                "y": place_y(y),
                "told": for_terminal(f"{row.model}: {up} {y:.1f}, {across} {x:.1f}"),
            }
            for number, x, y, row, kind in found
        ],
    }


def _tens(values: Sequence[float]) -> tuple[int, int]:
    """The tens below the least and above the greatest."""
    low, high = int(min(values) // 10 * 10), int(-(-max(values) // 10) * 10)
    return (low, high) if low < high else (max(low - 10, 0), low + 10)


def _json(content: Any) -> str:
    """JSON for within a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(_printable(content), separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _printable(value: Any) -> Any:
    """Every text of a value on one printable line."""
    if isinstance(value, str):
        return for_terminal(value)
    if isinstance(value, Mapping):
        return {for_terminal(key): _printable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(part) for part in value]
    return value


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _script() -> str:
    """DataTables and jQuery, a module of JavaScript that itables ships, and the page's own."""
    places = find_spec("itables").submodule_search_locations
    path = Path(places[0]) / "html" / "dt_bundle.js"
    library = path.read_text(encoding="utf-8") if path.is_file() else ""
    local = re.search(r"export\{[^}]*?([\w$]+) as jQuery\b", library)
    if local is None:
        raise UsageError(
            f"{path}: not the DataTables that the page is made with. "
            "`pip install --upgrade 'fsc-bench[html]'` brings it."
        )
    # Its strings and patterns speak of scripts and comments, which would end the element.
    library = re.sub(r"<(?=!--|/?script)", r"\\x3c", library, flags=re.IGNORECASE)
    return f"{library}\n;((jQuery) => {{\n{_read('site.js')}}})({local[1]});\n"


def _policy(style: str, script: str, pictures: Sequence[str]) -> str:
    """What the page may do: its own script and style by their digests, and no request at all.

    DataTables and pictures set style attributes, which can load nothing here.
    """
    inner = re.findall(r"<style[^>]*>(.*?)</style>", "\n".join(pictures), re.DOTALL)
    styles = " ".join(map(_digest, [style, *inner]))
    return (
        f"default-src 'none'; script-src {_digest(script)}; style-src-elem {styles}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
