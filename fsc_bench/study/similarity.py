"""Similarity: what fine-tuning did to the cosines of captions, of finished models.

The same readings that a run logs with `probe_every` (train/mechanism.py), pair by pair, of any
models that the trainer knows: base against fine-tuned, over the same pairs, with intervals. For a
sweep: `measure` gives the numbers, `table` the lines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.models import load_model
from fsc_bench.models.run import read_facts
from fsc_bench.models.trainable import trainable_of
from fsc_bench.report.tables import bullets
from fsc_bench.score.clusters import mark
from fsc_bench.score.contrast import Contrast, contrast, paired
from fsc_bench.score.statistics import Means, cells, draws
from fsc_bench.train import dense
from fsc_bench.train.batches import pixels_of
from fsc_bench.train.config import RESUMABLE, TrainConfig
from fsc_bench.train.mechanism import Embedded, ProbeData, drawn_data, embed, make_probe, readings
from fsc_bench.train.sources import keys_of, open_pairs
from fsc_bench.train.towers import Towers

# What a reading is, in the table's words; the names are those of metrics.jsonl without `probe_`.
WORDS = {
    "cos_paraphrase": "caption with a paraphrase",
    "cos_negative": "caption with its hard negatives",
    "cos_random": "caption with other captions",
    "image_caption": "image with its caption",
    "image_negative": "image with hard negatives",
    "image_random": "image with other captions",
    "base_image": "image with the base's",
    "base_caption": "caption with the base's",
    "base_negative": "hard negative with the base's",
    "global_p0": "p of the caption, by cosine",
    "global_focal": "focal weight, by cosine",
    "global_confused": "hard negatives above, by cosine (%)",
    "local_p0": "p of the caption, by local score",
    "local_focal": "focal weight, by local score",
    "local_confused": "hard negatives above, by local score (%)",
}
Readings = dict[str, np.ndarray]  # by name, float [n]; NaN for a pair that has none


def probe_pairs(
    data: str, negatives: str, positives: str, pairs: int, seed: int,
    links: Mapping[str, str] | None = None,
) -> ProbeData:  # fmt: skip
    """The pairs to measure on, with their texts. Raises UsageError or DataError, one line."""
    config = TrainConfig().changed(
        {"data": data, "negatives": negatives, "positives": positives, "probe_pairs": pairs,
         "probe_every": 1, "pairs_seed": seed}, where="semantics",
    )  # fmt: skip
    found = open_pairs(data, keys_of(config), links)
    return drawn_data(config, found, np.arange(len(found)), f"of {data}")


def measure(
    models: Sequence[str],
    base: str | None,
    data: ProbeData,
    *,
    seed: int = 0,
    focal_gamma: float = 2.0,
    device: str = "auto",
    progress: Callable[[str, int, int], Any] = lambda what, done, total: None,
) -> dict[str, Readings]:
    """Every model's readings of the same pairs, the base's own first. Raises UsageError for a model
    that offers no towers.
    """
    first, found = None, {}
    names = [base, *models] if base else list(models)
    for number, name in enumerate(dict.fromkeys(names)):
        progress("measured", number, len(names))
        embedded, probe = _embedded(name, data, seed, device)
        first = first or (embedded if base else None)
        same = first is not None and first.images.shape == embedded.images.shape
        values = readings(embedded, first if same else None, probe, focal_gamma)
        found[name] = {key: value.numpy() for key, value in values.items()}
    return found


def _embedded(name: str, data: ProbeData, seed: int, device: str) -> tuple[Embedded, Any]:
    loaded = load_model(name, device, "fp32")
    adapter = trainable_of(loaded, name, "probed")
    towers = Towers(adapter.model, tokens=not dense.lacks(adapter.model))
    towers.probe(adapter.tokenizer)
    pixels = pixels_of(adapter.preprocess, 1.0)
    probe = make_probe(data, towers, adapter.tokenizer, pixels, seed)
    return embed(towers, probe, pixels, loaded.device, "minmax"), probe


@dataclass(frozen=True)
class Line:
    """A reading: of each model its mean with a 95% interval over pairs, and less the first's."""

    name: str
    pairs: int
    means: dict[str, tuple[float, float, float]]  # by model: mean, low, high
    less_first: dict[str, Contrast]  # in hundredths; of all models but the first


def table(found: Mapping[str, Readings]) -> list[Line]:
    """A line for every reading that all models have."""
    first = next(iter(found.values()))
    names = [name for name in WORDS if all(name in one for one in found.values())]
    names += sorted(name for name in first if name not in WORDS and name in _common(found))
    return [_line(name, {model: one[name] for model, one in found.items()}) for name in names]


def _common(found: Mapping[str, Readings]) -> set[str]:
    return set.intersection(*(set(one) for one in found.values()))


def _line(name: str, values: Mapping[str, np.ndarray]) -> Line:
    kept = ~np.isnan(np.stack(list(values.values()))).any(axis=0)
    scale = 100.0 if name.endswith("_confused") else 1.0
    count = int(kept.sum())
    keys = np.array([mark(f"pair {place}") for place in np.flatnonzero(kept)], np.uint64)
    of, tree = cells([name] * count, [""] * count), {name: count}
    measures = {
        model: Means(one[kept] / scale, of, np.arange(count), count)
        for model, one in values.items()
    }
    drawn = draws(measures, tree, "samples", keys)
    means = {}
    for model, one in values.items():
        ends = np.nanpercentile(drawn[model][name], [2.5, 97.5]) if count > 1 else [np.nan] * 2
        low, high = (float(end) * scale / 100 for end in ends)
        means[model] = (float(one[kept].mean()), low, high)
    base, *others = measures
    less = {
        other: contrast(paired(measures[base], measures[other], tree, "samples", keys)[name])
        for other in others
    }
    return Line(name, count, means, less)


# ---------------------------------------------------------------- runs that differ in their seed


def by_seed(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Runs that differ in nothing but their seed, together, by what tells them from the others:
    settings, or the first folder's name where one group is all there is.
    """
    groups: dict[str, list[Path]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        own = read_facts(run).get("settings")
        own = dict(own) if isinstance(own, dict) else {"run": str(run)}
        for name in ("seed", "data", *RESUMABLE):
            own.pop(name, None)
        key = repr(sorted(own.items()))
        groups.setdefault(key, []).append(run)
        settings[key] = own
    differ = [
        name
        for name in sorted({name for own in settings.values() for name in own})
        if len({repr(own.get(name)) for own in settings.values()}) > 1
    ]
    return {
        ", ".join(f"{name} {settings[key].get(name)}" for name in differ) or own[0].name: own
        for key, own in groups.items()
    }


# ---------------------------------------------------------------- what is written


def told(name: str) -> str:
    return WORDS.get(name, name.replace("cos_negative_", "caption with negatives: "))


LONGEST = 24  # letters of a name at the head of a column


def labels(found: Mapping[str, Readings]) -> dict[str, str]:
    """What a model is called at the head of a column: its name, or `m0`, `m1`, ... where one is as
    long as a path.
    """
    if all(len(name) <= LONGEST for name in found):
        return {name: name for name in found}
    return {name: f"m{number}" for number, name in enumerate(found)}


def legend(found: Mapping[str, Readings]) -> list[str]:
    """Which is which, where `labels` are not the names."""
    return [f"{label} = {name}" for name, label in labels(found).items() if label != name]


def header(found: Mapping[str, Readings]) -> list[str]:
    first, *others = labels(found).values()
    columns = ["cosine of a", "pairs", first]
    for name in others:
        columns += [name, f"less {first}"]
    return columns


def cells_of(line: Line) -> list[str]:
    decimals = 1 if line.name.endswith("_confused") else 3
    found = [told(line.name), f"{line.pairs:,}"]
    scale = 1.0 if line.name.endswith("_confused") else 0.01
    for model, (mean, low, high) in line.means.items():
        found.append(f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]")
        if model in line.less_first:
            one = line.less_first[model]
            numbers = [scale * value for value in (one.difference, one.low, one.high)]
            change, below, above = (f"{value:+.{decimals}f}" for value in numbers)
            found.append(f"{change} [{below}, {above}]")
    return found


def document(
    found: Mapping[str, Readings], lines: Sequence[Line], how: dict[str, Any]
) -> dict[str, Any]:
    """For JSON: the lines, and every pair's numbers."""
    return {
        **how,
        "models": list(found),
        "lines": [
            {
                "reading": line.name,
                "pairs": line.pairs,
                "models": {
                    model: {"mean": mean, "low": low, "high": high}
                    for model, (mean, low, high) in line.means.items()
                },
                "less_first": {
                    model: {"difference": one.difference / 100, "low": one.low / 100,
                            "high": one.high / 100, "p": one.p}
                    for model, one in line.less_first.items()
                },
            }
            for line in lines
        ],
        "pairs": {
            model: {
                name: [None if np.isnan(value) else float(value) for value in values]
                for name, values in own.items()
            }
            for model, own in found.items()
        },
    }  # fmt: skip


def markdown(found: Mapping[str, Readings], lines: Sequence[Line], how: dict[str, Any]) -> str:
    """The table, what it is of, and how to repeat it."""

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join(
        [
            "# What fine-tuning did to similarities",
            "",
            f"{how['data']}; 95% intervals over pairs; focal weight with gamma {how['gamma']:g}.",
            "",
            row(header(found)),
            "|---|" + "---:|" * (len(header(found)) - 1),
            *(row(cells_of(line)) for line in lines),
            "",
            *bullets(legend(found)),
            f"Repeat with `{how['command']}`.",
            "",
        ]
    )
