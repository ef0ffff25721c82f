"""Verdicts: which of the paper's claims an ablation bears out. The claims are facts (claims.toml).

A condition holds where the whole 95% interval (items and seeds) of its sum of points lies where it
should, fails where all of it lies elsewhere, and is undecided otherwise; the minimum detectable
difference says what could have been seen. A claim holds where all its conditions do, fails where
one does, and is not tried where the sweep lacks a point or a group of tasks.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from fsc_bench.errors import UsageError
from fsc_bench.study.figures import Figures, Spread, spread
from fsc_bench.study.points import Sweep, names_of, point, preset_names
from fsc_bench.system.facts import Facts, typed

Verdict = Literal["holds", "fails", "undecided", "not tried"]


class Condition(Facts, frozen=True, rename={"sign": "is"}):
    """A sum of points' scores in one average, and where it should lie. margin: points forgiven;
    paper: the paper's own difference; way: of which of several ways.
    """

    metric: str
    of: dict[str, float]
    sign: Literal[">", "<", ">=", "<=", "="]
    margin: float = 0.0
    paper: float | None = None
    way: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        return {
            ">": (0.0, math.inf), "<": (-math.inf, 0.0), ">=": (-self.margin, math.inf),
            "<=": (-math.inf, self.margin), "=": (-self.margin, self.margin),
        }[self.sign]  # fmt: skip

    def __str__(self) -> str:
        signed = [("+" if weight > 0 else "-", abs(weight), name)
                  for name, weight in self.of.items()]  # fmt: skip
        words = [f"{sign} {'' if size == 1 else f'{size:g} x '}{name}"
                 for sign, size, name in signed]  # fmt: skip
        where = {">": "> 0", "<": "< 0", ">=": f"> -{self.margin:g}", "<=": f"< {self.margin:g}",
                 "=": f"within ±{self.margin:g}"}  # fmt: skip
        return f"{self.metric}: {' '.join(words).removeprefix('+ ')} {where[self.sign]}"

    def verdict(self, found: Spread) -> Verdict:
        low, high = self.bounds
        if low < found.low and found.high < high:
            return "holds"
        if found.high < low or high < found.low:
            return "fails"
        return "undecided"


class Claim(Facts, frozen=True):
    """A claim of the paper, in words, with its conditions."""

    says: str
    source: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Measured:
    """A condition with what was found of it. Not tried: points that the sweep has not, or lacking,
    another reason.
    """

    condition: Condition
    verdict: Verdict
    found: Spread | None = None
    points: tuple[str, ...] = ()
    lacking: str = ""

    @property
    def needs(self) -> str:
        """What a condition that was not tried needs, in words."""
        return f"point {', '.join(self.points)}" if self.points else self.lacking


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict and conditions."""

    name: str
    claim: Claim
    verdict: Verdict
    conditions: Sequence[Measured]

    @property
    def needs(self) -> str:
        """What a claim that was not tried needs, in words."""
        points = list(dict.fromkeys(name for one in self.conditions for name in one.points))
        reasons = dict.fromkeys(one.lacking for one in self.conditions if one.lacking)
        presets = [word for word in preset_names() if set(points) <= names_of(word)]
        hint = f" (--preset {presets[0]})" if points and presets else ""
        told = f"the point{'s' * (len(points) > 1)} {', '.join(points)}{hint}"
        return "; ".join([told] * bool(points) + list(reasons))


@cache
def read_claims() -> Mapping[str, Claim]:
    """C1 to C15, as claims.toml has them."""
    text = (resources.files("fsc_bench.study") / "claims.toml").read_text("utf-8")
    return typed(tomllib.loads(text), dict[str, Claim], "claims.toml")


def judge(sweep: Sweep, figures: Figures, claims: Mapping[str, Claim]) -> list[Judged]:
    """Every claim's verdict, from what the points of a sweep scored."""
    known = {one.key: one.name for one in sweep.points}
    return [
        _judged(name, claim, [_measured(one, sweep, known, figures) for one in claim.conditions])
        for name, claim in claims.items()
    ]


def _judged(name: str, claim: Claim, measured: Sequence[Measured]) -> Judged:
    ways: dict[str, list[Measured]] = {}
    for one in measured:
        ways.setdefault(one.condition.way, []).append(one)
    words = [_all_of([one.verdict for one in way]) for way in ways.values()]
    verdict = next(word for word in ("holds", "undecided", "not tried", "fails") if word in words)
    return Judged(name, claim, verdict, measured)


def _all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """As strong as the weakest: one that fails is enough to fail, whatever was not tried."""
    return next(word for word in ("fails", "not tried", "undecided", "holds") if word in verdicts)


def _measured(
    condition: Condition, sweep: Sweep, known: Mapping[str, str], figures: Figures
) -> Measured:
    names, absent, lacking = _names(condition, sweep, known)
    if absent or lacking:
        return Measured(condition, "not tried", points=tuple(absent), lacking=lacking)
    scored = figures.columns.get(condition.metric, {})
    if not scored:
        return Measured(condition, "not tried", lacking=f"tasks of {condition.metric}")
    missing = [name for name in names if name not in scored]
    if missing:
        return Measured(condition, "not tried", lacking=f"scores of {', '.join(missing)}")
    found = spread([(weight, scored[name]) for name, weight in names.items()])
    if found is None:
        lacking = f"a seed that {', '.join(names)} share"
        return Measured(condition, "not tried", lacking=lacking)
    return Measured(condition, condition.verdict(found), found)


def _names(
    condition: Condition, sweep: Sweep, known: Mapping[str, str]
) -> tuple[dict[str, float], list[str], str]:
    """(the sweep's own names of a condition's points with their weights; those that it has not;
    what else stands against it).

    Points are known by their settings: "focal_gamma=5" of a grid is that of table 3.
    """
    found: dict[str, float] = {}
    absent = []
    for name, weight in condition.of.items():
        try:
            key = point(name, sweep.recipe.config).key
        except UsageError:
            return {}, [], f"a recipe that can have {name}, which {sweep.recipe.name} cannot"
        if key not in known:
            absent.append(name)
            continue
        found[known[key]] = found.get(known[key], 0.0) + weight
    if not absent and not all(found.values()):
        return {}, [], f"a recipe in which {' and '.join(condition.of)} differ"
    return found, absent, ""


def facts(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The verdicts for a file of numbers: a row a condition."""
    rows = []
    for one in judged:
        for part in one.conditions:
            found = part.found
            rows.append(
                {
                    "claim": one.name,
                    "verdict": one.verdict,
                    "condition": str(part.condition),
                    "condition_verdict": part.verdict,
                    "difference": found.value if found else None,
                    "low": found.low if found else None,
                    "high": found.high if found else None,
                    "item_low": found.item_low if found else None,
                    "item_high": found.item_high if found else None,
                    "between_seeds": found.between if found else None,
                    "seeds": found.seeds if found else None,
                    "detectable": found.detectable if found else None,
                    "paper": part.condition.paper,
                    "needs": part.needs,
                }
            )
    return rows
