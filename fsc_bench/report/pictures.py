"""Pictures: scores as charts, drawn by altair, as SVG files that read on light and dark pages.

They need the extra `html` (altair and vl-convert). No score is computed here: rows come from
ranking.py, points from `wise-ft`, losses from a training run's metrics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import atan2, degrees
from pathlib import Path
from typing import Any

from fsc_bench.errors import UsageError
from fsc_bench.report.leaderboard import Row
from fsc_bench.results import slug
from fsc_bench.system.escape import for_terminal
from fsc_bench.system.files import write_text

WIDTH, HEIGHT = 560, 420
# Middle tones, which stand out from white and from black alike.
INK, GRID, LINE, OTHER, LOW = "#7d8590", "#7d859040", "#2f81f7", "#db6d28", "#a371f7"


@dataclass(frozen=True)
class Point:
    """A model of a path: the share of the second model, and both scores in percent."""

    alpha: float
    x: float
    y: float


def tradeoff(rows: Sequence[Row], x: str, y: str, title: str) -> Any:
    """The chart of two averages: y up, x across, each model a cross of its intervals.

    Measured rows are filled and published ones hollow; an arrow leads from a base to what was
    fine-tuned from it (`Row.base`), a line through the models between two (`wise:A+B?alpha=`), a
    dashed one along the models that none is better than in both; chance and blind are lines.
    """
    alt = _altair()
    models = [row for row in rows if row.source != "declared" and {x, y} <= set(row.cells)]
    places = {row.model: (row.cells[x].value, row.cells[y].value) for row in models}
    data = [_place(row, x, y) for row in models]
    base = alt.Chart(alt.Data(values=data)).properties(
        width=WIDTH, height=HEIGHT, title=for_terminal(title)
    )
    across = alt.X("x:Q", title=f"{x} (%)").scale(zero=False, nice=True)
    up = alt.Y("y:Q", title=f"{y} (%)").scale(zero=False, nice=True)
    colour = alt.Color("kind:N", title=None).scale(
        domain=["measured", "published"], range=[LINE, OTHER]
    )
    points = {"x": across, "y": up, "color": colour,
              "tooltip": ["model:N", "x:Q", "y:Q", "source:N"]}  # fmt: skip
    layers = [
        *_levels(alt, rows, y, [place[1] for place in places.values()]),
        *_lines(alt, _front(places), "front", dash=[4, 4]),
        *(layer for path in _paths(models, places) for layer in _lines(alt, path, "path")),
        *_arrows(alt, models, places),
        base.mark_rule(color=INK).encode(x="low_x:Q", x2="high_x:Q", y=up),
        base.mark_rule(color=INK).encode(y="low_y:Q", y2="high_y:Q", x=across),
        base.transform_filter("datum.kind == 'measured'")
        .mark_point(size=60, filled=True, opacity=1)
        .encode(**points),
        base.transform_filter("datum.kind == 'published'")
        .mark_point(size=45, opacity=1)
        .encode(**points),
        base.transform_filter("datum.label != ''")
        .mark_text(align="left", dx=8, dy=-8, color=INK, fontSize=10)
        .encode(x=across, y=up, text="label:N"),
    ]
    return _dressed(alt, alt.layer(*layers))


def curve(points: Sequence[Point], x: str, y: str, title: str) -> Any:
    """The chart of a path of models between two (WiSE-FT, arXiv 2109.01903, figure 1; FSC-CLIP's
    figure 4); at each point alpha, the share of the second.
    """
    alt = _altair()
    ordered = sorted(points, key=lambda point: point.alpha)
    data = [{**vars(point), "told": f"{point.alpha:g}"} for point in ordered]
    base = alt.Chart(alt.Data(values=data)).properties(
        width=WIDTH,
        height=HEIGHT,
        title={"text": for_terminal(title), "subtitle": "at each point the share of the second"},
    )
    across = alt.X("x:Q", title=f"{x} (%)").scale(zero=False)
    up = alt.Y("y:Q", title=f"{y} (%)").scale(zero=False)
    layers = [
        base.mark_line(color=LINE).encode(x=across, y=up, order="alpha:Q"),
        base.mark_point(color=LINE, filled=True, size=60).encode(
            x=across, y=up, tooltip=["alpha:Q", "x:Q", "y:Q"]
        ),
        base.mark_text(align="left", dx=8, dy=-8, color=INK).encode(x=across, y=up, text="told:N"),
    ]
    return _dressed(alt, alt.layer(*layers))


@dataclass(frozen=True)
class Spot:
    """A point of an ablation. x, y: (value, low and high over items, deviation between seeds)."""

    name: str
    x: tuple[float, float, float, float]
    y: tuple[float, float, float, float]


def spots(panels: Mapping[str, Sequence[Spot]], y: str, title: str) -> Any:
    """The chart of an ablation: a panel for each score across, `y` up. Thin crosses are intervals
    over items, thick ones a standard deviation between seeds to either side.

    panels: by the score across, its points. Numbers stand for the points; the legend names them.
    """
    alt = _altair()
    names = list(dict.fromkeys(spot.name for panel in panels.values() for spot in panel))
    told = {name: f"{number} {for_terminal(name)}" for number, name in enumerate(names)}
    charts = [_spots(alt, panel, x, y, told) for x, panel in panels.items()]
    whole = alt.hconcat(*charts).resolve_scale(color="shared", y="shared")
    return _dressed(alt, whole.properties(title=for_terminal(title)))


def _spots(alt: Any, panel: Sequence[Spot], x: str, y: str, told: Mapping[str, str]) -> Any:
    data = []
    for spot in panel:
        row = {"name": told[spot.name], "number": told[spot.name].partition(" ")[0]}
        for axis, (value, low, high, between) in (("x", spot.x), ("y", spot.y)):
            row |= {axis: value, f"low_{axis}": low, f"high_{axis}": high,
                    f"less_{axis}": value - between, f"more_{axis}": value + between}  # fmt: skip
        data.append(row)
    base = alt.Chart(alt.Data(values=data)).properties(width=HEIGHT * 0.7, height=HEIGHT * 0.7)
    across = alt.X("x:Q", title=f"{x} (%)").scale(zero=False, nice=True)
    up = alt.Y("y:Q", title=f"{y} (%)").scale(zero=False, nice=True)
    hue = alt.Color("name:N", title=None, sort=list(told.values())).scale(scheme="tableau10")
    layers = []
    for ends, width in ((("low", "high"), 1), (("less", "more"), 4)):
        first, last = ends
        rule = base.mark_rule(strokeWidth=width, opacity=0.7)
        layers += [
            rule.encode(x=f"{first}_x:Q", x2=f"{last}_x:Q", y=up, color=hue),
            rule.encode(y=f"{first}_y:Q", y2=f"{last}_y:Q", x=across, color=hue),
        ]
    points = base.mark_point(size=50, filled=True, opacity=1)
    tips = ["name:N", "x:Q", "y:Q"]
    layers.append(points.encode(x=across, y=up, color=hue, tooltip=tips))
    text = base.mark_text(align="left", dx=6, dy=-7, color=INK, fontSize=11)
    layers.append(text.encode(x=across, y=up, text="number:N"))
    return alt.layer(*layers)


def shares(data: Sequence[Mapping[str, Any]], title: str) -> Any:
    """The chart of what wholes consist of, a bar each, in percent; pale where it is worked out.

    data: of each part of each bar {"bar", "part", "place" (in the bar), "share", "how"}.
    """
    alt = _altair()
    bars, names = (list(dict.fromkeys(row[key] for row in data)) for key in ("bar", "part"))
    chart = alt.Chart(alt.Data(values=[dict(row) for row in data]))
    marks = chart.mark_bar().encode(
        x=alt.X("share:Q", title="percent", stack="zero"),
        y=alt.Y("bar:N", title=None, sort=bars).axis(labelLimit=0),
        color=alt.Color("part:N", title=None, sort=names).scale(scheme="tableau10"),
        opacity=alt.Opacity("how:N", title=None).scale(
            domain=["measured", "worked out"], range=[1.0, 0.45]
        ),
        order="place:Q",
        tooltip=["bar:N", "part:N", "share:Q"],
    )
    return _dressed(alt, marks.properties(width=WIDTH, title=for_terminal(title)))


def progress(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], title: str
) -> Any:
    """The chart of trainings' metrics along their steps, one field a metric, one line a run.

    runs: by name, {"step": n, metric: number, ...} of each logged step.
    """
    alt = _altair()
    data = [
        {"run": for_terminal(run), "step": row["step"], "metric": name, "value": row[name]}
        for run, steps in runs.items()
        for row in steps
        for name in names
        if isinstance(row.get(name), int | float)
    ]
    base = alt.Chart(alt.Data(values=data)).properties(width=WIDTH, height=HEIGHT // 3)
    colour = alt.Color("run:N", title=None).scale(range=[LINE, OTHER, LOW, INK])
    lines = base.mark_line().encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("value:Q", title=None).scale(zero=False),
        color=colour if len(runs) > 1 else alt.value(LINE),
    )
    rows = lines.facet(row=alt.Row("metric:N", title=None, sort=list(names)))
    return _dressed(alt, rows.resolve_scale(y="independent").properties(title=for_terminal(title)))


# The panels of a probe's readings: each metric of metrics.jsonl by what it is called in its panel.
OF_PROBE: dict[str, dict[str, str]] = {
    "cosine of a caption with": {
        "probe_cos_paraphrase": "a paraphrase",
        "probe_cos_negative": "its hard negatives",
        "probe_cos_random": "other captions",
    },
    "cosine of an image with": {
        "probe_image_caption": "its caption",
        "probe_image_negative": "hard negatives of it",
        "probe_image_random": "other captions",
    },
    "cosine with the same vector of the base": {
        "probe_base_image": "images",
        "probe_base_caption": "captions",
        "probe_base_negative": "hard negatives",
    },
    "p of a caption among its hard negatives": {
        "probe_global_p0": "by cosine",
        "probe_local_p0": "by local score",
    },
    "focal weight of the caption": {
        "probe_global_focal": "by cosine",
        "probe_local_focal": "by local score",
    },
    "hard negatives above the caption, percent": {
        "probe_global_confused": "by cosine",
        "probe_local_confused": "by local score",
    },
}
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]


def mechanism(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], title: str) -> Any:
    """The chart of what trainings did to a probe, a panel for each kind of reading.

    runs: by name, the logged steps of one training or of several that differ in their seed, which
    are drawn as their mean with a band from the least to the greatest. A panel of which nothing was
    logged, or nothing but one number (no focal loss), is left out.
    """
    alt = _altair()
    panels = []
    for heading, names in {**OF_PROBE, **_by_kind(runs)}.items():
        data = [
            {"run": for_terminal(run), "what": told, "step": step,
             "value": sum(values) / len(values), "low": min(values), "high": max(values)}
            for run, trainings in runs.items()
            for name, told in names.items()
            for step, values in _by_step(trainings, name).items()
        ]  # fmt: skip
        if len({row["value"] for row in data}) > 1:
            panels.append(_probe_panel(alt, data, heading, list(names.values())))
    chart = alt.concat(*panels, columns=2).resolve_scale(strokeDash="independent")
    return _dressed(alt, chart.properties(title=for_terminal(title)) if title else chart)


def beside(charts: Sequence[Any]) -> Any:
    """Charts side by side as one; a lone one as it is."""
    if len(charts) == 1:
        return charts[0]
    alt = _altair()
    bare = [chart.copy() for chart in charts]
    for chart in bare:
        chart.config = alt.Undefined  # a part of a picture has no dress of its own
    return _dressed(alt, alt.hconcat(*bare).resolve_scale(color="independent"))


def _by_kind(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
) -> dict[str, dict[str, str]]:
    """The panel of a caption's cosine with its hard negatives, a line for each kind of them."""
    begin = "probe_cos_negative_"
    found = {
        name: for_terminal(name.removeprefix(begin))
        for trainings in runs.values()
        for steps in trainings
        for row in steps
        for name in row
        if name.startswith(begin)
    }
    return {"cosine of a caption with its hard negatives": found}


def _by_step(trainings: Sequence[Sequence[Mapping[str, Any]]], name: str) -> dict[int, list[float]]:
    """The values of every training at the steps that all of them logged."""
    each = [
        {row["step"]: row[name] for row in steps if isinstance(row.get(name), int | float)}
        for steps in trainings
    ]
    common = set.intersection(*(set(one) for one in each))
    return {step: [one[step] for one in each] for step in sorted(common)}


def _probe_panel(alt: Any, data: list[dict[str, Any]], heading: str, order: list[str]) -> Any:
    base = alt.Chart(alt.Data(values=data))
    runs = list(dict.fromkeys(row["run"] for row in data))
    shared = {
        "x": alt.X("step:Q", title="step"),
        # The band's opacity would be the legend's too.
        "color": alt.Color("run:N", title=None, sort=runs)
        .scale(domain=runs, range=[LINE, OTHER, LOW, INK])
        .legend(symbolOpacity=1),
    }
    what = alt.StrokeDash("what:N", title=None, sort=order).scale(domain=order, range=DASHES)
    up = alt.Y("value:Q", title=None).scale(zero=False)
    layers = [base.mark_line().encode(**shared, y=up, strokeDash=what)]
    if any(row["low"] < row["high"] for row in data):
        band = base.mark_area(opacity=0.2).encode(
            **shared, y=alt.Y("low:Q", title=None).scale(zero=False), y2="high:Q",
            detail="what:N",
        )  # fmt: skip
        layers.insert(0, band)
    return alt.layer(*layers).properties(width=WIDTH // 2, height=HEIGHT // 2, title=heading)


def write_tradeoffs(
    out: Path, suite: str, rows: Sequence[Row], averages: Sequence[str]
) -> list[Path]:
    """`<suite>-zs.svg` and `<suite>-i2t.svg`: the suite's first average (Comp) against what it may
    cost, the next two, where at least two models have both. Raises UsageError where the extra is
    not installed.
    """
    files = []
    for x in averages[1:3]:
        y = averages[0]
        shown = [row for row in rows if row.source != "declared" and {x, y} <= set(row.cells)]
        if len(shown) > 1:
            path = out / f"{slug(suite)}-{slug(x).lower()}.svg"
            write_text(path, svg(tradeoff(rows, x, y, f"{suite}: what {y} costs")))
            files.append(path)
    return files


def svg(chart: Any) -> str:
    """A chart as the text of an SVG file, with nothing outside it."""
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_json(), allowed_base_urls=[])


def _altair() -> Any:
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        raise UsageError("pictures need the extra html: pip install 'fsc-bench[html]'.") from None
    return altair


def _dressed(alt: Any, chart: Any) -> Any:
    """No background, and middle tones: the page behind may be light or dark."""
    return chart.configure(
        background="transparent",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=INK, titleColor=INK, gridColor=GRID, domainColor=INK, tickColor=INK
        ),
        title=alt.TitleConfig(color=INK, subtitleColor=INK),
        legend=alt.LegendConfig(labelColor=INK, titleColor=INK, labelLimit=0),
        header=alt.HeaderConfig(labelColor=INK, titleColor=INK),
    )


def _place(row: Row, x: str, y: str) -> dict[str, Any]:
    across, up = row.cells[x], row.cells[y]
    measured = row.source == "measured"
    name = for_terminal(row.model)
    return {
        "model": name,
        "label": name if measured else "",
        "source": for_terminal(row.source),
        "kind": "measured" if measured else "published",
        "x": across.value,
        "y": up.value,
        "low_x": across.value if across.low is None else across.low,
        "high_x": across.value if across.high is None else across.high,
        "low_y": up.value if up.low is None else up.low,
        "high_y": up.value if up.high is None else up.high,
    }


def _levels(alt: Any, rows: Iterable[Row], y: str, values: Sequence[float]) -> list[Any]:
    """A line for chance and one for blind, where they lie near enough to be seen with the models.

    A level far below would press all models into the upper edge; then it is left out.
    """
    if not values:
        return []
    least = min(values) - max(max(values) - min(values), 5)
    levels = [
        {"y": row.cells[y].value, "told": row.model}
        for row in rows
        if row.source == "declared" and y in row.cells and row.cells[y].value >= least
    ]
    if not levels:
        return []
    base = alt.Chart(alt.Data(values=levels))
    return [
        base.mark_rule(color=LOW, strokeDash=[2, 3]).encode(y="y:Q"),
        base.mark_text(color=LOW, align="left", dy=-5).encode(
            y="y:Q", x=alt.value(4), text="told:N"
        ),
    ]


def _front(places: Mapping[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """The models that none is better than in both, from left to right."""
    found: list[tuple[float, float]] = []
    for place in sorted(set(places.values()), reverse=True):
        if not found or place[1] > found[-1][1]:
            found.append(place)
    return found[::-1]


def _paths(
    models: Sequence[Row], places: Mapping[str, tuple[float, float]]
) -> list[list[tuple[float, float]]]:
    """The places of the models between two others, with both ends where they are rows too."""
    paths: dict[str, dict[float, tuple[float, float]]] = {}
    for row in models:
        name, _, alpha = row.model.partition("?alpha=")
        if name.startswith("wise:") and _is_number(alpha):
            ends = name.removeprefix("wise:").partition("+")
            path = paths.setdefault(name, {})
            path |= {share: places[end] for share, end in ((0, ends[0]), (1, ends[2]))
                     if end in places}  # fmt: skip
            path[float(alpha)] = places[row.model]
    return [[path[share] for share in sorted(path)] for path in paths.values()]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def _lines(
    alt: Any, path: Sequence[tuple[float, float]], name: str, dash: Sequence[int] = (1, 0)
) -> list[Any]:
    if len(path) < 2:
        return []
    data = [{"x": x, "y": y, "n": n} for n, (x, y) in enumerate(path)]
    line = alt.Chart(alt.Data(values=data), name=name if name == "front" else alt.Undefined)
    return [
        line.mark_line(color=INK, strokeDash=list(dash), opacity=0.7).encode(
            x="x:Q", y="y:Q", order="n:Q"
        )
    ]


def _arrows(
    alt: Any, models: Sequence[Row], places: Mapping[str, tuple[float, float]]
) -> list[Any]:
    """A line from each base to what came of it, with a head on its middle.

    The head's angle is that of the picture: both axes span the models that are shown.
    """
    pairs = [
        (places[row.base], places[row.model])
        for row in models
        if row.base in places and row.base != row.model
    ]
    if not pairs:
        return []
    xs, ys = zip(*places.values(), strict=True)
    scale_x = WIDTH / max(max(xs) - min(xs), 1e-9)
    scale_y = HEIGHT / max(max(ys) - min(ys), 1e-9)
    data = [
        {
            "x": x1, "y": y1, "x2": x2, "y2": y2, "at_x": (x1 + x2) / 2, "at_y": (y1 + y2) / 2,
            "angle": degrees(atan2((x2 - x1) * scale_x, (y2 - y1) * scale_y)),
        }
        for (x1, y1), (x2, y2) in pairs
    ]  # fmt: skip
    base = alt.Chart(alt.Data(values=data))
    return [
        base.mark_rule(color=INK, opacity=0.5).encode(x="x:Q", y="y:Q", x2="x2:Q", y2="y2:Q"),
        base.mark_point(shape="triangle-up", size=50, filled=True, color=INK).encode(
            x="at_x:Q",
            y="at_y:Q",
            angle=alt.Angle("angle:Q").scale(domain=[-180, 180], range=[-180, 180]),
        ),
    ]
