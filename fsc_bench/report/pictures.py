"""Curve: a picture of two scores along a path of models, as SVG text. It computes no score.

WiSE-FT's picture (arXiv 2109.01903, figure 1; FSC-CLIP's figure 4): one score across, one up, the
share alpha of the second model at every point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 50, 60  # margins, in pixels
SMALL = "font-size='11'"
LINE, GRID, TEXT = "#0b62a4", "#dddddd", "#222222"


@dataclass(frozen=True)
class Point:
    """A model of the path: the share of the second model, and both scores in percent."""

    alpha: float
    x: float
    y: float


def curve_svg(points: Sequence[Point], x: str, y: str, title: str) -> str:
    """The whole SVG file: points in the order of alpha, axes named `x` and `y`, in percent."""
    points = sorted(points, key=lambda point: point.alpha)
    across, up = _ticks([point.x for point in points]), _ticks([point.y for point in points])

    def place(at_x: float, at_y: float) -> tuple[float, float]:
        share_x = (at_x - across[0]) / (across[-1] - across[0])
        share_y = (at_y - up[0]) / (up[-1] - up[0])
        return (
            LEFT + share_x * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="{TEXT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(WIDTH / 2, 22, title, "middle", f"font-size='{min(15, 1000 / len(title)):.3g}'"),
        _text(WIDTH / 2, 38, "at each point alpha, the share of the second", "middle", SMALL),
    ]
    for tick in across:
        (at, bottom), (_, top) = place(tick, up[0]), place(tick, up[-1])
        parts += [_line(at, bottom, at, top), _text(at, bottom + 18, f"{tick:g}", "middle")]
    for tick in up:
        (left, at), (right, _) = place(across[0], tick), place(across[-1], tick)
        parts += [_line(left, at, right, at), _text(left - 8, at + 4, f"{tick:g}", "end")]
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts += [
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, f"{x} (%)", "middle"),
        _text(20, middle, f"{y} (%)", "middle", f"transform='rotate(-90 20 {middle:g})'"),
    ]
    where = [place(point.x, point.y) for point in points]
    path = " ".join(f"{at_x:.2f},{at_y:.2f}" for at_x, at_y in where)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>')
    for point, (at_x, at_y) in zip(points, where, strict=True):
        told = f"alpha {point.alpha:g}: {x} {point.x:.2f}, {y} {point.y:.2f}"
        parts += [
            f'<circle cx="{at_x:.2f}" cy="{at_y:.2f}" r="4" fill="{LINE}">'
            f"<title>{escape(told)}</title></circle>",
            _text(at_x + 7, at_y - 7, f"{point.alpha:g}", "start"),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, three to eight of them, from below the least to above the greatest."""
    span = max(max(values) - min(values), 0.1)
    size = 10 ** math.floor(math.log10(span))
    step = next(size * unit for unit in (0.2, 0.5, 1, 2) if span / (size * unit) <= 6)
    first, last = math.floor(min(values) / step), math.ceil(max(values) / step)
    if first == last:
        first, last = first - 1, last + 1
    return [round(number * step, 10) for number in range(first, last + 1)]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="{GRID}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"'
    return f"<text {place}{' ' * bool(more)}{more}>{escape(text)}</text>"
