"""Points: what an ablation trains, as settings over one recipe. Nothing is trained here.

A point has a name and a whole TrainConfig, which the trainer itself has checked. Names come from
points.toml, or say themselves what they change: "focal_gamma=5". Presets are small TOML files.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from fsc_bench import __version__
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.results import slug
from fsc_bench.system.facts import Facts, read_toml
from fsc_bench.train.config import RESUMABLE, Recipe, TrainConfig

BASE = "base"
FULL = "full"
ELSEWHERE = {"seed": "--seeds 1,2,3 repeats every point", "model": "name one with --model"}


class PointFacts(Facts, frozen=True):
    """A point of points.toml. times: settings of the recipe times a number. on, without: settings
    that the recipe must have changed, and must not have.
    """

    says: str
    base: bool = False
    share: float = 0.0
    on: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    set: dict[str, Any] = msgspec.field(default_factory=dict)
    times: dict[str, float] = msgspec.field(default_factory=dict)


class Preset(Facts, frozen=True):
    """A preset: named points, and settings that are swept one at a time."""

    title: str
    source: str
    points: tuple[str, ...]
    sweeps: dict[str, list[Any]] = msgspec.field(default_factory=dict)


class DemoFacts(Facts, frozen=True):
    """What `ablate --demo` ablates, and the settings that make it short."""

    recipe: str
    preset: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A point: the first model (no config, no share), a training, or a mixture of the first model
    and so much of a training (config and share).
    """

    name: str
    config: TrainConfig | None = None
    share: float = 1.0

    @property
    def key(self) -> str:
        """What makes two points one: all that decides their weights, but for the seed."""
        facts = _deciding(self.config) if self.config else None
        return _digest([facts, self.share])


@dataclass(frozen=True)
class Trial:
    """One training of a point: its seed, its settings and the folder that they decide."""

    recipe: Recipe  # with the point's settings and the seed
    folder: Path

    @property
    def seed(self) -> int:
        return self.recipe.config.seed


@dataclass(frozen=True)
class Sweep:
    """What one `ablate` is about. out: where points, runs and the page go."""

    recipe: Recipe
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    out: Path
    titles: tuple[str, ...] = ()  # of the presets

    def trial(self, point: Point, seed: int) -> Trial:
        """The training that a point is, or that a mixture is made with, at one seed."""
        config = replace(point.config, seed=seed)
        same = _deciding(config) == _deciding(self.recipe.config)
        expected = self.recipe.expected if same else {}
        recipe = replace(self.recipe, config=config, expected=expected)
        name = f"{slug(_changes(self.recipe.config, config))[:60]}-{_digest(_deciding(config))}"
        # Another version's training is another one: it lies beside this one.
        folder = self.out / "points" / f"{name}-{slug(__version__)}" / f"seed-{seed}"
        return Trial(recipe, folder)

    @property
    def trials(self) -> list[Trial]:
        """Every training once; seed by seed, so that what is there early is of all points."""
        found: dict[Path, Trial] = {}
        for seed in self.seeds:
            for point in self.points:
                if point.config:
                    trial = self.trial(point, seed)
                    found.setdefault(trial.folder, trial)
        return list(found.values())


def _deciding(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide a training's weights, but for the seed; those that are not the
    default, so that a setting which a later version adds makes no training another one.
    """
    free = {"seed", *(RESUMABLE - {"data"})}
    default, settings = TrainConfig().settings(), config.settings()
    return {name: value for name, value in settings.items()
            if name not in free and value != default[name]}  # fmt: skip


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _changes(recipe: TrainConfig, config: TrainConfig) -> str:
    """How a point differs from the recipe, as part of a folder's name."""
    own, changed = config.settings(), _changed(recipe, config)
    return " ".join(f"{name}-{shown(own[name])}" for name in changed) or FULL


def _changed(one: TrainConfig, other: TrainConfig) -> list[str]:
    """The deciding settings in which two configs differ."""
    ours, theirs = _deciding(one), _deciding(other)
    return [name for name in one.settings() if ours.get(name) != theirs.get(name)]


def shown(value: Any) -> str:
    """A setting's value as a name holds it: 0.5, 2, true, minmax, swap+replace."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- names


def _file(name: str) -> Any:
    return resources.files("fsc_bench.study") / name


@cache
def named_points() -> dict[str, PointFacts]:
    """The points of points.toml, by name."""
    return read_toml(Path(str(_file("points.toml"))), dict[str, PointFacts])


def point(name: str, recipe: TrainConfig) -> Point:
    """A point by its name: one of points.toml, or "KEY=VALUE KEY=VALUE".

    Raises UsageError for an unknown name, and where the recipe has no such point.
    """
    if "=" in name:
        changes = dict(_setting(part) for part in name.split())
        return Point(name, recipe.changed(changes, where=name))
    facts = named_points().get(name)
    if facts is None:
        raise UsageError(f"no point called {name!r}.{near_miss(name, named_points())}")
    if facts.base:
        return Point(name)
    default, own = TrainConfig().settings(), recipe.settings()
    for key in (*facts.on, *facts.without):
        if (own[key] == default[key]) == (key in facts.on):
            raise UsageError(f"{name!r} is no point of a recipe with {key} = {shown(own[key])}.")
    scaled = {key: getattr(recipe, key) * factor for key, factor in facts.times.items()}
    changes = {**{key: default[key] for key in facts.off}, **facts.set, **scaled}
    config = recipe.changed(changes, where=name)
    return Point(name, config, facts.share or 1.0)


def says(name: str) -> str:
    """What a named point is, in words; empty for one that says itself what it changes."""
    facts = named_points().get(name)
    return facts.says if facts else ""


def preset_names() -> list[str]:
    """The shipped presets' names."""
    files = _file("presets").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def read_preset(name: str) -> Preset:
    """A shipped preset by name. Raises UsageError with the near miss."""
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise UsageError(f"--preset {name!r}: there is {known}.{near_miss(name, preset_names())}")
    return read_toml(Path(str(_file("presets") / f"{name}.toml")), Preset)


def names_of(word: str) -> set[str]:
    """The names of a preset's points, the first model's too."""
    preset = read_preset(word)
    swept = {f"{key}={shown(value)}" for key, values in preset.sweeps.items() for value in values}
    return {BASE, *preset.points, *swept}


def demo_facts() -> DemoFacts:
    return read_toml(Path(str(_file("miniature.toml"))), DemoFacts)


# ---------------------------------------------------------------- grids


def points_of(recipe: Recipe, presets: Sequence[str], grids: Sequence[str]) -> tuple[Point, ...]:
    """The points of presets, then those of the product of all grids; the first model before them.

    Raises UsageError, one line: no point at all, a preset, key or value given twice, a wrong key or
    value (the trainer's own words), points of a preset that this recipe makes one.
    """
    if not presets and not grids:
        known = ", ".join(preset_names())
        raise UsageError(
            f"an ablation of no point: name --preset ({known}) or --grid KEY=A,B of {recipe.name}."
        )
    for word in presets:
        if presets.count(word) > 1:
            raise UsageError(f"--preset {word} is given twice.")
    found = [Point(BASE)]
    for word in presets:
        found += _of_preset(word, recipe)
    if grids:
        found += _of_grids([_grid(text, recipe.config) for text in grids], recipe.config)
    first: dict[str, Point] = {}
    for one in found:
        first.setdefault(one.key, one)
    return tuple(first.values())


def _of_preset(word: str, recipe: Recipe) -> list[Point]:
    preset = read_preset(word)
    try:
        found = [point(name, recipe.config) for name in preset.points]
        for key, values in preset.sweeps.items():
            found += _of_grids([(key, values)], recipe.config)
    except UsageError as error:
        raise UsageError(
            f"--preset {word} does not suit {recipe.name}: {error} fsc-clip has all of them."
        ) from None
    return found


def _of_grids(grids: Sequence[tuple[str, Sequence[Any]]], recipe: TrainConfig) -> list[Point]:
    """The product of grids, checked by the trainer's own config."""
    keys = [key for key, _ in grids]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--grid {key} is given twice: write all its values in one.")
    found = []
    for values in product(*(values for _, values in grids)):
        changes = dict(zip(keys, values, strict=True))
        try:
            config = recipe.changed(changes, where="--grid")
        except UsageError as error:
            told = " ".join(f"{key}={shown(value)}" for key, value in changes.items())
            raise UsageError(f"--grid {told}: {error}".replace("--grid: ", "")) from None
        name = " ".join(f"{key}={shown(getattr(config, key))}" for key in keys)
        found.append(Point(name, config))
    return found


def _grid(text: str, recipe: TrainConfig) -> tuple[str, list[Any]]:
    """`KEY=A,B,C` as (key, values). Raises UsageError for no value, and for one given twice."""
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(f"--grid {text}: write --grid KEY=A,B,C.")
    if key in ELSEWHERE:
        raise UsageError(f"--grid {text}: {key} is no setting to ablate here; {ELSEWHERE[key]}.")
    if not rest.strip(" ,"):
        raise UsageError(f"--grid {text}: a grid with no point; write values: {key}=A,B,C.")
    values = _values(rest)
    cleaned = [_as_setting(key, value) for value in values]
    for place, value in enumerate(cleaned):
        if value in cleaned[:place]:
            raise UsageError(f"--grid {text}: the value {shown(value)} stands twice.")
    return key, values


def _values(text: str) -> list[Any]:
    """The values between commas, each as TOML or else as a bare word."""
    try:
        return tomllib.loads(f"values = [{text}]")["values"]
    except (ValueError, RecursionError):
        return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, _value(value)


def _as_setting(key: str, value: Any) -> Any:
    """1 and 1.0 are one value of a setting that holds numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def read_seeds(text: str) -> tuple[int, ...]:
    """`1,2,3`. Raises UsageError for what is no whole number, and for a seed given twice."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text}: write whole numbers and commas: 1,2,3.") from None
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UsageError(f"--seeds {text}: {seed} stands twice.")
        TrainConfig().changed({"seed": seed}, where="--seeds")
    return tuple(seeds)


def lines_of(sweep: Sweep) -> Iterator[tuple[str, Mapping[str, Point]]]:
    """Settings with at least two values while all others are the recipe's: (key, value: point)."""
    own = sweep.recipe.config
    lines: dict[str, dict[str, Point]] = {}
    full = None
    for one in sweep.points:
        if one.config is None or one.share != 1:
            continue
        changed = _changed(own, one.config)
        if not changed:
            full = one
        if len(changed) == 1:
            value = shown(one.config.settings()[changed[0]])
            lines.setdefault(changed[0], {})[value] = one
    for key, line in lines.items():
        if full is not None:
            line[shown(own.settings()[key])] = full
            yield key, dict(sorted(line.items(), key=lambda item: _rank(item[0])))


def _rank(value: str) -> tuple[float, str]:
    """Numbers in their order, words after them."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value
