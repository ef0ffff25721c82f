"""What a profile is shown and written as: tables, JSON, CSV and picture. Nothing is computed anew.

A column is measured or worked out, never both: `ms` and `MB` are measured; what is worked out says
so in its heading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from fsc_bench.study import parts as of_step
from fsc_bench.study.profile import PLAIN_RATIO, SHARES, Found, Line, Profile

HEADER = ["part", "ms", "% of step", "MB", "GFLOP, worked out", "MB, worked out", "ms, worked out"]
CSV_HEADER = [
    "architecture", "part", "kind", "measured_seconds", "measured_seconds_low",
    "measured_seconds_high", "measured_bytes", "worked_out_flops", "worked_out_bytes",
    "worked_out_seconds", "worked_out_because",
]  # fmt: skip
SUM, BY_FLOPS = "sum of the parts", "by FLOPs, worked out"


def title(one: Profile) -> str:
    words = (
        f"{one.architecture}: {one.image_size} pixels, {one.patches} patches, "
        f"{one.parameters / 1e6:,.0f} M parameters"
    )
    return f"{words}; worked out, not run: {one.left}" if one.left else words


def rows(one: Profile) -> list[list[str]]:
    """The parts of FSC-CLIP's step, the steps, and what is beside them; empty rows between."""
    step = one.lines["FSC-CLIP"]
    groups = [[line for line in one.lines.values() if line.kind == kind]
              for kind in ("part", "step", "beside")]  # fmt: skip
    groups[0] = sorted(groups[0], key=lambda line: of_step.OF_STEP.index(line.name))
    found = [[_cells(line, step) for line in group] for group in groups]
    found[0].append(_cells(_sum(groups[0]), step))
    return [row for group in found for row in [*group, []]][:-1]


def _sum(parts: Sequence[Line]) -> Line:
    """Of the parts' medians; bytes at peaks of different moments have no sum."""
    medians = [line.median for line in parts]
    worked = [line.worked_seconds for line in parts if line.worked_flops != 0]
    return Line(
        SUM,
        "part",
        sum(line.worked_flops or 0 for line in parts),
        seconds=(sum(m for m in medians if m is not None),) if None not in medians else (),
        worked_seconds=None if None in worked else sum(s for s in worked if s is not None),
    )


def _cells(line: Line, step: Line) -> list[str]:
    share = "-"
    if line.median is not None and step.median and line.kind == "part":
        share = f"{100 * line.median / step.median:.2f}"
    return [
        line.name, _number(line.median, 1e-3, 1), share, _number(line.bytes, 1e6, 1),
        _number(line.worked_flops, 1e9, 3), _number(line.worked_bytes, 1e6, 1),
        _number(line.worked_seconds, 1e-3, 1),
    ]  # fmt: skip


def _number(value: float | None, unit: float, decimals: int) -> str:
    if value is None:
        return "-"
    shown = value / unit
    return f"{shown:,.{decimals}f}" if shown == 0 or shown >= 10**-decimals else f"{shown:.2g}"


# ---------------------------------------------------------------- over architectures


def summary_header(found: Found) -> list[str]:
    names = [*SHARES, PLAIN_RATIO]
    shown = [cell for name in names for cell in (name, BY_FLOPS)]
    fits = [f"largest batch, {name}, worked out" for name in found.profiles[0].fits]
    return ["architecture", *shown, *fits]


def summary(found: Found) -> list[list[str]]:
    """One row an architecture: shares as percent with the range of the repeats, ratios as times."""
    table = []
    for one in found.profiles:
        row = [one.architecture]
        for name, ratio in one.ratios.items():
            row += [_ratio(name, ratio.measured), _told(name, ratio.worked_out)]
        row += [_number(fit, 1, 0) for fit in one.fits.values()]
        table.append(row)
    return table


def _ratio(name: str, measured: Sequence[float]) -> str:
    if not measured:
        return "-"
    low, high = _told(name, min(measured)), _told(name, max(measured))
    return f"{_told(name, median(measured))} [{low} to {high}]"


def _told(name: str, ratio: float | None) -> str:
    """A step over another is told as what it adds, the plain loss over ours as times."""
    if ratio is None:
        return "-"
    return f"{ratio:.1f}x" if name == PLAIN_RATIO else f"{100 * (ratio - 1):+.2f}%"


def upright(found: Found) -> tuple[list[str], list[list[str]]]:
    """The summary with an architecture a column: it has more figures than a page is wide."""
    header = summary_header(found)
    table = summary(found)
    names = [row[0] for row in table]
    labels: list[str] = []
    for name in header[1:]:
        labels.append(f"{labels[-1]}, {name}" if name == BY_FLOPS else name)
    return ["", *names], [
        [label, *(row[place] for row in table)] for place, label in enumerate(labels, 1)
    ]


# ---------------------------------------------------------------- files


def document(found: Found, how: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for --json: under `measured` and under `worked_out`, never mixed."""
    return {**how, "device": found.device, "capacity_bytes": found.capacity,
            "profiles": [_document(one) for one in found.profiles]}  # fmt: skip


def _document(one: Profile) -> dict[str, Any]:
    lines = [
        {
            "part": line.name,
            "kind": line.kind,
            "measured": {"seconds": list(line.seconds), "bytes": line.bytes},
            "worked_out": {"flops": line.worked_flops, "bytes": line.worked_bytes,
                           "seconds": line.worked_seconds},
        }
        for line in one.lines.values()
    ]  # fmt: skip
    return {
        "architecture": one.architecture,
        "image_size": one.image_size,
        "patches": one.patches,
        "parameters": one.parameters,
        "worked_out_because": one.left,
        "lines": lines,
        "ratios": {name: asdict(ratio) for name, ratio in one.ratios.items()},
        "largest_batch_worked_out": dict(one.fits),
    }


def csv_rows(found: Found) -> list[list[Any]]:
    table: list[list[Any]] = [CSV_HEADER]
    for one in found.profiles:
        for line in one.lines.values():
            low, high = (min(line.seconds), max(line.seconds)) if line.seconds else (None, None)
            values = [line.median, low, high, line.bytes, line.worked_flops, line.worked_bytes,
                      line.worked_seconds]  # fmt: skip
            cells = ["" if value is None else value for value in values]
            table.append([one.architecture, line.name, line.kind, *cells, one.left])
    return table


def bars(found: Found) -> list[dict[str, Any]]:
    """The parts of FSC-CLIP's step in percent of their sum, for the picture: by measured times, or
    where there are none by FLOPs, which are worked out.
    """
    data = []
    for one in found.profiles:
        parts = [one.lines[name] for name in of_step.OF_STEP]
        measured = not one.left
        sizes = [(line.median if measured else line.worked_flops) or 0 for line in parts]
        label = f"{one.architecture}, {'ms' if measured else 'FLOPs, worked out'}"
        data += [
            {"bar": label, "part": line.name, "place": place, "share": 100 * size / sum(sizes),
             "how": "measured" if measured else "worked out"}
            for place, (line, size) in enumerate(zip(parts, sizes, strict=True))
        ]  # fmt: skip
    return data
