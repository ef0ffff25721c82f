"""Page: an ablation as files that a paper can take: a table with intervals, a picture, the raw
numbers and how to repeat it. Everything is worked out in figures.py and verdicts.py.
"""

import csv
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsc_bench import __version__
from fsc_bench.errors import UsageError
from fsc_bench.report.pictures import Spot, spots, svg
from fsc_bench.study.figures import Figures, Spread, spread
from fsc_bench.study.points import BASE, Point, Sweep, lines_of, says, shown
from fsc_bench.study.verdicts import Judged, Measured, facts
from fsc_bench.system.files import write_text
from fsc_bench.train.config import TrainConfig

AGAINST = ("ZS", "I2T", "T2I")  # what Comp may cost, each a panel of the picture
COSTS = "Comp"


@dataclass(frozen=True)
class Made:
    """How an ablation was made: what its page says so that it can be repeated."""

    command: Sequence[str]
    settings: Mapping[str, Any]  # of the recipe's own point
    versions: Mapping[str, str]
    tasks: Sequence[str]
    apart: str = ""  # why the numbers stand beside no others
    missing: Sequence[str] = field(default_factory=tuple)  # trainings and scores not there yet
    failed: Sequence[tuple[str, str]] = field(default_factory=tuple)  # (which, why)


def write(sweep: Sweep, figures: Figures, judged: Sequence[Judged], made: Made) -> list[Path]:
    """Writes ablation.md, ablation.csv, numbers.csv, claims.csv, and the picture where its extra is
    installed. Returns what was written.
    """
    out = sweep.out
    files = {
        "ablation.csv": _csv(point_rows(sweep, figures)),
        "numbers.csv": _csv(number_rows(figures)),
        "claims.csv": _csv(facts(judged)),
    }
    pictures = []
    try:
        pictures = _pictures(sweep, figures, out)
        note = ""
    except UsageError as error:
        note = f"No picture is drawn: {error}"
    files["ablation.md"] = page(sweep, figures, judged, made, [p.name for p in pictures], note)
    for name, text in files.items():
        write_text(out / name, text)
    return [*(out / name for name in files), *pictures]


# ---------------------------------------------------------------- numbers


def point_rows(sweep: Sweep, figures: Figures) -> list[dict[str, Any]]:
    """A row for every point and column: its number, and how it differs from the first model."""
    rows = []
    for column, points in figures.columns.items():
        for name in _order(sweep, points):
            own = spread([(1, points[name])])
            row = {"point": name, "column": column, **_numbers(own)}
            if name != BASE and BASE in points:
                over = spread([(1, points[name]), (-1, points[BASE])])
                row |= {f"over_base_{key}": value for key, value in _numbers(over).items()}
            rows.append(row)
    return rows


def _numbers(found: Spread | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "value": found.value,
        "item_low": found.item_low,
        "item_high": found.item_high,
        "between_seeds": found.between,
        "seeds": found.seeds,
        "low": found.low,
        "high": found.high,
        "detectable": found.detectable,
    }


def number_rows(figures: Figures) -> list[dict[str, Any]]:
    """The raw numbers: a row for every point, seed and column."""
    return [
        {"point": point, "seed": seed, "column": column, "value": score.value, "n": score.n}
        for column, points in figures.columns.items()
        for point, seeds in points.items()
        for seed, score in seeds.items()
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    )
    return text.getvalue()


def _order(sweep: Sweep, points: Mapping[str, Any]) -> list[str]:
    return [one.name for one in sweep.points if one.name in points]


# ---------------------------------------------------------------- the page


def page(
    sweep: Sweep,
    figures: Figures,
    judged: Sequence[Judged],
    made: Made,
    pictures: Sequence[str],
    note: str = "",
) -> str:
    """The page as Markdown."""
    config = sweep.recipe.config
    seeds = ", ".join(map(str, sweep.seeds))
    lines = [f"# Ablation of {sweep.recipe.name}", ""]
    lines += [f"{title}." for title in sweep.titles]
    lines += [f"**This is {made.apart}.**"] * bool(made.apart)
    lines += [
        f"{len(sweep.points)} points from {config.model}, trained on {config.data}, seeds {seeds}; "
        f"{len(made.tasks)} tasks."
    ]
    lines += [f"- {name} failed: {why}" for name, why in made.failed]
    if made.missing:
        lines += [f"- Not there yet, so not in these numbers: {'; '.join(made.missing)}."]
    lines += ["", *_table(sweep, figures), ""]
    lines += [f"![{name}]({name})" for name in pictures] + [note] * bool(note)
    lines += ["", *_sensitivity(sweep, figures), *_claims(judged), *_notes(figures), ""]
    return "\n".join([*lines, *_repeat(sweep, made)]) + "\n"


def _table(sweep: Sweep, figures: Figures) -> list[str]:
    titles = headings(figures)
    return [
        "Percent: the mean over seeds, its 95% interval over items (pictures drawn anew, the "
        "trainings as they are), and behind ± the standard deviation between seeds.",
        "",
        f"| point | what it is | {' | '.join(titles)} |",
        "|---|---|" + "---:|" * len(titles),
        *(
            f"| {name} | {says(name)} | {' | '.join(row)} |"
            for name, row in cells(sweep, figures).items()
        ),
    ]


def headings(figures: Figures) -> list[str]:
    """The averages that there are; without any, the tasks."""
    return [_title(column, figures) for column in _shown(figures)]


def cells(sweep: Sweep, figures: Figures) -> dict[str, list[str]]:
    """By point the cells below the headings; a point without a number is left out."""
    found = {}
    for one in sweep.points:
        every = [figures.columns[column].get(one.name) for column in _shown(figures)]
        if any(every):
            found[one.name] = [_cell(spread([(1, seeds)])) if seeds else "-" for seeds in every]
    return found


def _shown(figures: Figures) -> list[str]:
    averages = [name for name in figures.averages if name in figures.columns]
    return averages or list(figures.columns)


def _title(column: str, figures: Figures) -> str:
    there, of = figures.averages.get(column, (1, 1))
    return column if there == of else f"{column} ({there} of {of} tasks)"


def _cell(found: Spread) -> str:
    text = f"{found.value:.1f} [{found.item_low:.1f}, {found.item_high:.1f}]"
    return text if found.between is None else f"{text} ±{found.between:.1f}"


def _sensitivity(sweep: Sweep, figures: Figures) -> list[str]:
    """For each setting that was swept alone: what every value adds to the recipe's, by group."""
    tables = [line for key, points in lines_of(sweep)
              for line in _one_setting(sweep, figures, key, points)]  # fmt: skip
    if not tables:
        return []
    return [
        "## One setting at a time, by group of tasks",
        "",
        "Points that a value adds to the recipe's own, with the 95% interval over items and seeds; "
        "range: from the least to the most.",
        "",
        *tables,
    ]


def _one_setting(
    sweep: Sweep, figures: Figures, key: str, points: Mapping[str, Point]
) -> Iterator[str]:
    """points: by the setting's value."""
    columns = _shown(figures)
    ours = points[shown(getattr(sweep.recipe.config, key))].name
    reach: dict[str, list[float]] = {name: [0.0] for name in columns}
    yield f"| {key} | {' | '.join(headings(figures))} |"
    yield "|---:|" + "---:|" * len(columns)
    for value, one in points.items():
        row = []
        for column in columns:
            scored = figures.columns[column]
            both = one.name in scored and ours in scored
            found = spread([(1, scored[one.name]), (-1, scored[ours])]) if both else None
            row.append(_own_or(found, one.name == ours))
            reach[column] += [found.value] if found else []
        yield f"| {value} | {' | '.join(row)} |"
    ranges = [f"{max(values) - min(values):.1f}" for values in reach.values()]
    yield f"| range | {' | '.join(ranges)} |"
    yield ""


def _own_or(found: Spread | None, own: bool) -> str:
    if own:
        return "the recipe's"
    return "-" if found is None else f"{found.value:+.1f} {_interval(found)}"


def _interval(found: Spread) -> str:
    if found.between is None and found.detectable is None:
        return f"[{found.item_low:+.1f}, {found.item_high:+.1f}] items alone"
    return f"[{found.low:+.1f}, {found.high:+.1f}]"


CLAIMS = """## The paper's claims

A condition holds where the whole 95% interval of its difference lies where it should, and fails
where all of it lies elsewhere. That interval, behind the difference, is of items and seeds at once:
all points over the same pictures, seed against the same seed. Apart: the interval over items, the
trainings as they are, and the standard deviation between seeds. Detectable: the smallest true
difference that such an experiment finds in four of five cases; undecided is not "no difference".
Each condition stands at 95%; nothing is corrected for their number.

| claim | condition | here | items | seeds | detectable | paper | |
|---|---|---:|---:|---:|---:|---:|---|"""


def _claims(judged: Sequence[Judged]) -> list[str]:
    lines = CLAIMS.splitlines()
    for one in judged:
        if one.verdict != "not tried":
            lines.append(f"| **{one.name}** | {one.claim.says} | | | | | | **{one.verdict}** |")
            lines += [_condition(part) for part in one.conditions]
    lines.append("")
    for one in judged:
        if one.verdict == "not tried":
            lines.append(f"- **{one.name}** not tried ({one.claim.says}): it needs {one.needs}.")
    return [*lines, ""]


def _condition(part: Measured) -> str:
    found, paper = part.found, part.condition.paper
    published = "" if paper is None else f"{paper:+.1f}"
    if found is None:
        return f"| | {part.condition} | - | | | | {published} | not tried: {part.needs} |"
    one_seed = found.between is None
    whole = f"{found.value:+.2f}" + ("" if one_seed else f" [{found.low:+.2f}, {found.high:+.2f}]")
    items = f"[{found.item_low:+.2f}, {found.item_high:+.2f}]"
    seeds = "one seed" if one_seed else f"{found.between:.2f}"
    least = "-" if found.detectable is None else f"{found.detectable:.2f}"
    return (
        f"| | {part.condition} | {whole} | {items} | {seeds} | {least} | {published} | "
        f"{part.verdict} |"
    )


def _notes(figures: Figures) -> list[str]:
    if not figures.flags:
        return []
    return ["## What to know of the numbers", "", *(f"- {flag}" for flag in figures.flags)]


def _repeat(sweep: Sweep, made: Made) -> list[str]:
    default = TrainConfig().settings()
    changed = [f"{k} = {shown(v)}" for k, v in made.settings.items() if v != default[k]]
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    return [
        "## To repeat it",
        "",
        "```console",
        f"$ fsc-bench {shlex.join(made.command)}",
        "```",
        "",
        f"fsc_bench {__version__}; {versions}.",
        f"Tasks: {', '.join(made.tasks)}.",
        f"The recipe's own point, where it is not the trainer's default: {', '.join(changed)}.",
        "Raw numbers: numbers.csv (a row a point, seed and column), ablation.csv (a row a point "
        "and column), claims.csv (a row a condition). Trainings are in points/, results in runs/.",
    ]  # fmt: skip


# ---------------------------------------------------------------- the picture


def _pictures(sweep: Sweep, figures: Figures, out: Path) -> list[Path]:
    """Comp against each of what it may cost; nothing where two points have not both."""
    panels = {}
    for x in AGAINST:
        across, up = figures.columns.get(x, {}), figures.columns.get(COSTS, {})
        both = [name for name in _order(sweep, across) if name in up]
        if len(both) > 1:
            panels[x] = [
                Spot(name, _place(across[name]), _place(up[name])) for name in both
            ]  # fmt: skip
    if not panels:
        return []
    path = out / "ablation.svg"
    title = f"{sweep.recipe.name}: what compositionality costs"
    write_text(path, svg(spots(panels, COSTS, title)))
    return [path]


def _place(seeds: Mapping[int | None, Any]) -> tuple[float, float, float, float]:
    """(value, low and high over items, standard deviation between seeds)."""
    found = spread([(1, seeds)])
    return found.value, found.item_low, found.item_high, found.between or 0.0
