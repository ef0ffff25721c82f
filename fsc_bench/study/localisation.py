"""Localisation: how much of a word's alignment lies inside the true box of what it is said of.

The score of a word is the share of its alignment's mass inside the box, each patch by the part of
its area that the box covers; a uniform alignment scores the box's own share of the picture, and
that is what it is compared with. Intervals draw pictures, and the difference of two models is over
the same words, by the statistics of every other command.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsc_bench.errors import UsageError
from fsc_bench.score.clusters import mark
from fsc_bench.score.contrast import Contrast, contrast, paired
from fsc_bench.score.statistics import Means, bootstrap, cells
from fsc_bench.study.boxes import Example, Place
from fsc_bench.study.explain import Explainer, Reading, different, numbered

AT_ONCE = 32  # pictures
ALL = "caption, all words"
DIFFERS = {"caption": "caption, words that differ", "foil": "foil, words that differ"}


@dataclass(frozen=True)
class Scored:
    """A word of a caption or a foil under one model. inside: of its alignment's mass, box: of the
    picture (of the part that patches see), both from 0 to 1.
    """

    picture: str
    text: str  # caption or foil
    number: int
    word: str
    kind: str
    differs: bool
    inside: float
    box: float

    @property
    def key(self) -> tuple[str, str, int]:
        return self.picture, self.text, self.number

    @property
    def groups(self) -> list[str]:
        """The lines of the table that the word counts in."""
        found = [ALL, f"caption, {self.kind}"] if self.text == "caption" else []
        return found + [DIFFERS[self.text]] * self.differs


@dataclass(frozen=True)
class Line:
    """A group of words. inside: percent with its interval; against the box: inside less the box's
    share; against the base: the model less the base over the same words.
    """

    group: str
    words: int
    pictures: int
    box: float
    models: dict[str, Contrast]  # by model, against the box's share
    intervals: dict[str, tuple[float, float]]
    against_base: Contrast | None


@dataclass(frozen=True)
class Localisation:
    """models: the base first where there is one. left_out: why words were not scored, counted."""

    models: tuple[str, ...]
    lines: tuple[Line, ...]
    rows: dict[str, list[Scored]]
    left_out: dict[str, int]


def localise(
    explainers: Sequence[Explainer],
    examples: Sequence[Example],
    progress: Callable[[str, int, int], Any] = lambda what, done, total: None,
) -> Localisation:
    """Scores one model, or a base and a model fine-tuned from it, over the same words.

    Raises UsageError where no word could be scored.
    """
    left_out: dict[str, int] = {}
    rows = {}
    for explainer in explainers:
        found: list[Scored] = []
        for begin in range(0, len(examples), AT_ONCE):
            progress(explainer.name, begin, len(examples))
            found += _scored(explainer, examples[begin : begin + AT_ONCE], left_out)
        rows[explainer.name] = found
    common = set.intersection(*({row.key for row in found} for found in rows.values()))
    rows = {name: [row for row in found if row.key in common] for name, found in rows.items()}
    if not common:
        raise UsageError("no word could be scored: no box lies in what the model sees.")
    return Localisation(tuple(rows), tuple(table(rows)), rows, left_out)


def _scored(
    explainer: Explainer, examples: Sequence[Example], left_out: dict[str, int]
) -> list[Scored]:
    images = [example.open() for example in examples]
    kept, texts = [], []
    for example, image in zip(examples, images, strict=True):
        both = [text for text in (example.caption, example.foil) if text]
        try:
            explainer.check_length(both)
        except UsageError:
            _count(left_out, f"{explainer.name}: pictures whose text is longer than its context")
            continue
        kept.append((example, image))
        texts.append(both)
    if not kept:
        return []
    found: list[Scored] = []
    readings = explainer.read([image for _, image in kept], texts)
    for (example, image), own in zip(kept, readings, strict=True):
        frame = explainer.frame(image)
        grid = explainer.grid(own[0].words[0].map.size, explainer.adapter.preprocess(image))
        marks = different(example.caption, example.foil) if example.foil else (set(), set())
        sides = zip(
            ("caption", "foil"), own, (example.words, example.foil_words), marks, strict=False
        )
        for text, reading, places, differs in sides:
            for number, map_, place in located(reading, places):
                covered = grid.covered(frame.to_input(np.array(place.boxes)))
                if not covered.any():
                    _count(left_out, f"{explainer.name}: words whose box the model does not see")
                    continue
                inside, box = mass_inside(map_, covered)
                word = (example.foil if text == "foil" else example.caption).split()[number]
                found.append(
                    Scored(example.picture, text, number, word, place.kind, number in differs,
                           inside, box)
                )  # fmt: skip
    return found


def _count(left_out: dict[str, int], why: str) -> None:
    left_out[why] = left_out.get(why, 0) + 1


def located(
    reading: Reading, places: "dict[int, Place] | Any"
) -> Iterable[tuple[int, np.ndarray, Place]]:
    """(number of the word, its map, its place) of the words that have one."""
    for word, own in zip(reading.words, numbered(reading.words), strict=True):
        for number in own:
            if number in places:
                yield number, word.map, places[number]


def mass_inside(map_: np.ndarray, covered: np.ndarray) -> tuple[float, float]:
    """(share of the map's mass inside, share of the patches' area inside), from 0 to 1.

    map_: [rows, columns], at least 0. covered: the share of each patch that the box covers.
    """
    return float((map_ * covered).sum() / map_.sum()), float(covered.mean())


def table(rows: dict[str, list[Scored]]) -> list[Line]:
    """A line for each group of words: every model against the box, the last against the first."""
    order = {}
    for name, found in rows.items():
        order[name] = {row.key: row for row in found}
    keys = sorted(next(iter(order.values())))
    groups = sorted(
        {g for row in next(iter(order.values())).values() for g in row.groups}, key=_rank
    )
    lines = []
    for group in groups:
        own = [key for key in keys if group in order[next(iter(order))][key].groups]
        lines.append(_line(group, {name: [by[key] for key in own] for name, by in order.items()}))
    return lines


def _rank(group: str) -> tuple[int, str]:
    places = (ALL, "caption, object", "caption, noun")
    last = group in DIFFERS.values()
    return (places.index(group) if group in places else 3 + last, group)


def _line(group: str, rows: dict[str, list[Scored]]) -> Line:
    """The group's numbers; rows: of every model, of the same words."""
    first = next(iter(rows.values()))
    names = [row.picture for row in first]
    pictures, clusters = np.unique(names, return_inverse=True)
    keys = np.array([mark(name) for name in pictures], np.uint64)
    of = cells([group] * len(first), [""] * len(first))

    def measure(values: Iterable[float]) -> Means:
        return Means(np.fromiter(values, float), of, clusters, len(pictures))

    tree = {group: len(first)}
    inside = {name: measure(row.inside for row in found) for name, found in rows.items()}
    drawn = bootstrap(inside, tree, "samples", keys)[group]
    models = {
        name: contrast(
            paired(measure(row.box for row in rows[name]), inside[name], tree, "samples", keys)[
                group
            ]
        )
        for name in rows
    }
    against = None
    if len(rows) == 2:
        against = contrast(paired(*inside.values(), tree, "samples", keys)[group])
    return Line(
        group, len(first), len(pictures), 100 * math.fsum(row.box for row in first) / len(first),
        models, {name: (drawn[name].low, drawn[name].high) for name in rows}, against,
    )  # fmt: skip


# ---------------------------------------------------------------- what is written


def document(found: Localisation, how: dict[str, Any]) -> dict[str, Any]:
    """For JSON. how: what the numbers are of, and the command that repeats them."""
    return {
        **how,
        "models": list(found.models),
        "left_out": found.left_out,
        "lines": [
            {
                "group": line.group,
                "words": line.words,
                "pictures": line.pictures,
                "box": line.box,
                "models": {
                    name: {
                        "inside": one.b,
                        "low": line.intervals[name][0],
                        "high": line.intervals[name][1],
                        "less_box": _facts(one),
                    }
                    for name, one in line.models.items()
                },
                "less_base": _facts(line.against_base) if line.against_base else None,
            }
            for line in found.lines
        ],
    }


def _facts(one: Contrast) -> dict[str, Any]:
    return {
        "difference": one.difference, "low": one.low, "high": one.high, "p": one.p,
        "detectable": one.detectable,
    }  # fmt: skip


def header(found: Localisation) -> list[str]:
    columns = ["words", "n", "pictures", "box"]
    for name in found.models:
        columns += [name, "less box"]
    return columns + ["tuned less base", "p"] * (len(found.models) == 2)


def cells_of(line: Line) -> list[str]:
    """A line of the table, in percent."""
    found = [line.group, f"{line.words:,}", f"{line.pictures:,}", f"{line.box:.1f}"]
    for name, one in line.models.items():
        low, high = line.intervals[name]
        found += [f"{one.b:.1f} [{low:.1f}, {high:.1f}]", signed(one)]
    if line.against_base is not None:
        p = line.against_base.p
        found += [signed(line.against_base), "-" if p is None else f"{p:.4f}"]
    return found


def signed(one: Contrast) -> str:
    return f"{one.difference:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"


def markdown(found: Localisation, how: dict[str, Any]) -> str:
    """The table with what it is of and how to repeat it."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [
        "# Where words look: alignment inside the true box",
        "",
        f"{how['data']}. Percent of a word's alignment ({how['alignment']}) inside the box of what "
        "it is said of, and the box's share of the picture, which a uniform alignment would score. "
        "95% intervals and p over pictures.",
        "",
        row(header(found)),
        "|---|" + "---:|" * (len(header(found)) - 1),
        *(row(cells_of(line)) for line in found.lines),
        "",
        *(f"Left out: {count:,} {why.partition(': ')[2]} ({why.partition(': ')[0]})."
          for why, count in found.left_out.items()),
        "",
        f"Repeat with `{how['command']}`.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def csv_rows(found: Localisation) -> list[list[Any]]:
    """A header and a row for every word: the raw numbers."""
    columns = ["picture", "text", "number", "word", "kind", "differs", "box"]
    by_model = [{row.key: row for row in rows} for rows in found.rows.values()]
    rows: list[list[Any]] = [[*columns, *(f"inside {name}" for name in found.models)]]
    for key, row in by_model[0].items():
        rows.append(
            [row.picture, row.text, row.number, row.word, row.kind, int(row.differs),
             f"{row.box:.6f}", *(f"{by[key].inside:.6f}" for by in by_model)]
        )  # fmt: skip
    return rows
