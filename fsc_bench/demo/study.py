"""The study of the demo world: `python -m fsc_bench.demo.study --out FOLDER`.

For every pretraining seed it pretrains, fine-tunes from there by every objective, scores all of it
and writes FOLDER/study.md: the scores, and which of the paper's claims C1-C9 hold in small. The
same command again goes on where it was stopped; `--seeds` and `--models` divide the work among
processes, and `--tables` only writes the tables anew.

    FOLDER/seed-0/pretrained/         a run directory each, as `run:FOLDER/seed-0/clip` loads it
    FOLDER/seed-0/pretrained.json     its scores
    FOLDER/data/                      the test suite's files

Nothing is chosen here. Settings were chosen on the dev world with seed 0; the suite and everything
called "test" are drawn from scenes of another split.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

# Every model of the study: its recipe and what is changed in it. The ablation's rows are the
# paper's table 2.
OFF = {"focal_gamma": 0.0, "label_smoothing": 0.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("demo-clip", {}),
    "global-hn": ("demo-global-hn", {}),
    "fsc-clip": ("demo-fsc-clip", {}),
    "fsc-clip-lora": ("demo-fsc-clip-lora", {}),
    "local-hn": ("demo-fsc-clip", {"global_hn_weight": 0.0, **OFF}),
    "both": ("demo-fsc-clip", OFF),
    "both-focal": ("demo-fsc-clip", {"label_smoothing": 0.0}),
    "both-smoothing": ("demo-fsc-clip", {"focal_gamma": 0.0}),
    "global-calibrated": ("demo-fsc-clip", {"local_hn_weight": 0.0}),
    "local-calibrated": ("demo-fsc-clip", {"global_hn_weight": 0.0}),
}
# Between the pretrained and a fine-tuned model, weight by weight [WiSE-FT]. Of 0.3, 0.5 and 0.7 the
# share was chosen on the dev world with seed 0, as the settings were.
AVERAGED = {"fsc-clip-wise": ("fsc-clip", 0.5)}
PRETRAINED = "pretrained"
NAMES = (PRETRAINED, *MODELS, *AVERAGED)
METRICS = ("Comp", "ZS", "I2T", "T2I", "swaps", "binding", "replacement", "word order")

Scores = Mapping[str, float]  # metric -> percent


# --------------------------------------------------------------------------- claims


@dataclass(frozen=True)
class Condition:
    """A sum of models' scores that must be above, below or not below zero, in one metric."""

    metric: str
    terms: tuple[tuple[int, str], ...]  # (sign, model)
    sign: Literal[">", "<", ">=", "="]
    margin: float = 0.0  # points that ">=" and "=" forgive

    def __str__(self) -> str:
        (_, first), *rest = self.terms
        told = first + "".join(f" {'+' if sign > 0 else '-'} {model}" for sign, model in rest)
        bound = {">": "> 0", "<": "< 0", ">=": f"> -{self.margin:g}", "=": f"+-{self.margin:g}"}
        return f"{self.metric}: {told} {bound[self.sign]}"

    def values(self, scores: Mapping[int, Mapping[str, Scores]]) -> list[float]:
        """The sum for every seed that has all its models."""
        return [
            sum(sign * models[name][self.metric] for sign, name in self.terms)
            for _, models in sorted(scores.items())
            if all(name in models for _, name in self.terms)
        ]

    def verdict(self, values: Sequence[float]) -> str:
        """holds, does not hold, or undecided where the interval over seeds allows for both."""
        if not values:
            return "-"
        low, high = t_interval(values)
        allowed = {
            ">": (0.0, math.inf), "<": (-math.inf, 0.0), ">=": (-self.margin, math.inf),
            "=": (-self.margin, self.margin),
        }[self.sign]  # fmt: skip
        if allowed[0] < low and high < allowed[1]:
            return "holds"
        if high < allowed[0] or allowed[1] < low:
            return "does not hold"
        return "undecided"


def _difference(metric: str, of: str, to: str, sign: str, margin: float = 0.0) -> Condition:
    return Condition(metric, ((1, of), (-1, to)), sign, margin)


# "Not worse" and "about the same" forgive two points: what one miniature's interval spans.
MARGIN = 2.0


def claims(comp: str = "Comp") -> dict[str, tuple[str, tuple[Condition, ...]]]:
    """C1-C9 as conditions. `comp`: the metric that stands for compositionality."""
    d = _difference

    def recovered(name: str) -> tuple[Condition, ...]:
        gains = tuple(d(metric, name, "both", ">") for metric in ("ZS", "I2T", "T2I"))
        return (*gains, d(comp, name, "both", ">=", MARGIN))

    gain = ((1, "fsc-clip"), (1, "both"), (-1, "both-focal"), (-1, "both-smoothing"))
    helped = (
        (1, "global-calibrated"), (-1, "global-hn"), (-1, "local-calibrated"), (1, "local-hn"),
    )  # fmt: skip
    return {
        "C1": ("global hard negatives raise Comp and cost ZS and I2T", (
            d(comp, "global-hn", PRETRAINED, ">"), d("ZS", "global-hn", PRETRAINED, "<"),
            d("I2T", "global-hn", PRETRAINED, "<"),
        )),
        "C2": ("local ones raise Comp at no cost of ZS and I2T", (
            d(comp, "local-hn", PRETRAINED, ">"), d("ZS", "local-hn", PRETRAINED, ">=", MARGIN),
            d("I2T", "local-hn", PRETRAINED, ">=", MARGIN),
        )),
        "C3": ("local against global: better ZS, I2T and T2I, lower Comp", (
            d("ZS", "local-hn", "global-hn", ">"), d("I2T", "local-hn", "global-hn", ">"),
            d("T2I", "local-hn", "global-hn", ">"), d(comp, "local-hn", "global-hn", "<"),
        )),
        "C4": ("both, uncalibrated: best Comp, worst ZS and I2T", tuple(
            d(metric, "both", other, sign)
            for metric, sign in ((comp, ">"), ("ZS", "<"), ("I2T", "<"))
            for other in ("global-hn", "local-hn")
        )),
        "C5": ("the focal factor alone wins ZS, I2T and T2I back, Comp stays",
               recovered("both-focal")),
        "C6": ("label smoothing alone does so too", recovered("both-smoothing")),
        "C7": ("the two together add up in I2T and cost no Comp", (
            d("I2T", "fsc-clip", "both", ">"), Condition("I2T", gain, "=", MARGIN),
            d(comp, "fsc-clip", "both", ">=", MARGIN),
        )),
        "C8": ("calibration gives global negatives more I2T than local ones", (
            d("I2T", "global-calibrated", "global-hn", ">"), Condition("I2T", helped, ">"),
        )),
        "C9": ("calibrated, local negatives add Comp to global ones, the rest is no worse", (
            d(comp, "fsc-clip", "global-calibrated", ">"),
            *(d(metric, "fsc-clip", "global-calibrated", ">=", MARGIN)
              for metric in ("ZS", "I2T", "T2I")),
        )),
    }  # fmt: skip


def overall(verdicts: Sequence[str]) -> str:
    """A claim holds if all its conditions do, and does not if one does not."""
    for word in ("does not hold", "-", "undecided"):
        if word in verdicts:
            return word
    return "holds"


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean over seeds, by Student's t; unbounded for one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return -math.inf, math.inf
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


# --------------------------------------------------------------------------- tables


def tables(scores: Mapping[str, Mapping[int, Mapping[str, Scores]]]) -> str:
    """The page. scores: world ("dev", "test") -> seed -> model -> metric -> percent."""
    lines = [
        "# The demo world, measured",
        "",
        "A miniature; not comparable with any real benchmark. Percent: the mean over pretraining "
        "seeds, with the half-width of Student's 95% interval over seeds. Settings were chosen on "
        "the dev world with seed 0. Swaps: a sentence against one with two colours, textures, "
        "sizes or things exchanged (chance 50). Binding: swaps and opposite relations (chance 50). "
        "Replacement: a word replaced within its family (chance 50). Word order: a sentence "
        "against its words shuffled (chance 50). fsc-clip-wise: the mean of the weights of "
        "pretrained and fsc-clip. Rows of unlike seeds are not comparable; the claims compare "
        "models within a seed.",
    ]
    for split, seeds in scores.items():
        names = [n for n in NAMES if any(n in m for m in seeds.values())]
        if not names:
            continue
        columns = [m for m in METRICS if m in next(iter(seeds.values()))[names[0]]]
        lines += ["", f"## {split.capitalize()} world, seeds {', '.join(map(str, sorted(seeds)))}"]
        lines += ["", f"| model | seeds | {' | '.join(columns)} |"]
        lines += ["|---|---:|" + "---:|" * len(columns)]
        for name in names:
            found = [models[name] for _, models in sorted(seeds.items()) if name in models]
            cells = [_cell([values[column] for values in found]) for column in columns]
            lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    lines += ["", "## Claims, on the test world"]
    if scores.get("test"):
        lines += ["", *_claim_table(scores["test"])]
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{mean(values):.1f} ±{t_interval(values)[1] - mean(values):.1f}"


def _claim_table(scores: Mapping[int, Mapping[str, Scores]]) -> list[str]:
    lines = [
        "A condition holds where Student's 95% interval over seeds of its difference lies wholly "
        f"on its side; not worse and the same forgive {MARGIN:g} points. The last column takes "
        "binding for Comp.",
        "",
        "| claim | measured | | by binding |",
        "|---|---|---|---|",
    ]
    by_binding = claims("binding")
    for key, (told, conditions) in claims().items():
        parts, verdicts = [], []
        for condition in conditions:
            values = condition.values(scores)
            verdicts.append(condition.verdict(values))
            measured = f"{mean(values):+.1f}" if values else "-"
            if len(values) > 1:
                low, high = t_interval(values)
                measured += f" [{low:+.1f}, {high:+.1f}]"
            parts.append(f"{condition}: {measured}, {verdicts[-1]}")
        bound = [c.verdict(c.values(scores)) for c in by_binding[key][1]]
        lines.append(
            f"| {key} {told} | {'; '.join(parts)} | **{overall(verdicts)}** | {overall(bound)} |"
        )
    return lines


def read_scores(out: Path) -> dict[str, dict[int, dict[str, Scores]]]:
    """What is there so far: world -> seed -> model -> metric -> percent."""
    found: dict[str, dict[int, dict[str, Scores]]] = {"dev": {}, "test": {}}
    for path in sorted(out.glob("seed-*/*.json")):
        seed = int(path.parent.name.removeprefix("seed-"))
        for split, values in json.loads(path.read_text()).items():
            if split in found:
                found[split].setdefault(seed, {})[path.stem] = summary(values)
    return found


def summary(values: Scores) -> dict[str, float]:
    """The metrics of the tables, from the figures of `pretrain.evaluate` and the suite's averages.

    Where the suite is not scored (the dev world), ZS, I2T and T2I are those of the figures.
    """
    from fsc_bench.demo.pretrain import BINDING

    replaced = ("object", "attribute", "texture", "size", "count", "background")
    zero_shot = [value for name, value in values.items() if name.startswith("zero_shot_")]
    result = {
        "ZS": mean(zero_shot),
        "I2T": values["i2t"],
        "T2I": values["t2i"],
        "swaps": mean(values[kind] for kind in BINDING if kind.startswith("swap_")),
        "binding": mean(values[kind] for kind in BINDING),
        "replacement": mean(values[f"replace_{name}"] for name in replaced),
        "word order": values["shuffle"],
    }
    suite = {name: values[name] for name in ("Comp", "ZS", "I2T", "T2I") if name in values}
    return result | suite


# --------------------------------------------------------------------------- the work


def pretrained(out: Path, seed: int, say=print) -> Path:
    """The run directory of the pretrained model of a seed, made if it is not there."""
    from fsc_bench.demo import model as demo_model
    from fsc_bench.demo import pretrain as recipe

    folder = out / f"seed-{seed}" / PRETRAINED
    if not (folder / "config.json").is_file():
        config = recipe.PretrainConfig(seed=seed)
        model = recipe.pretrain(config, say)
        # In float16, as the shipped one: seed 0 is the shipped model.
        demo_model.save(model, folder / "model.safetensors", recipe.metadata(config))
        (folder / "config.json").write_text(json.dumps({"skeleton": "demo:pretrained"}))
    return folder


def finetuned(out: Path, seed: int, name: str, say=print) -> Path:
    """The run directory of one fine-tuned model, made or continued. Its seed is the recipe's."""
    from fsc_bench.train.config import read_recipe
    from fsc_bench.train.loop import train

    folder = out / f"seed-{seed}" / name
    if (folder / "model.safetensors").is_file():  # written last
        return folder
    base = pretrained(out, seed, say)
    recipe, changes = MODELS[name]
    recipe = read_recipe(recipe)
    config = recipe.config.changed({"model": f"run:{base}", **changes})
    return train(replace(recipe, config=config), folder, resume=True, say=say)


def averaged(out: Path, seed: int, name: str, say=print) -> Path:
    """The run directory of a model between the pretrained and a fine-tuned one."""
    from fsc_bench.demo import model as demo_model
    from fsc_bench.models import load_model

    folder = out / f"seed-{seed}" / name
    if not (folder / "config.json").is_file():
        tuned, alpha = AVERAGED[name]
        ends = pretrained(out, seed, say), finetuned(out, seed, tuned, say)
        spec = f"wise:{'+'.join(f'run:{end}' for end in ends)}?alpha={alpha:g}"
        model = load_model(spec, "cpu").model
        demo_model.save(model, folder / "model.safetensors", {"alpha": str(alpha), "of": tuned})
        (folder / "config.json").write_text(json.dumps({"skeleton": "demo:pretrained"}))
    return folder


def score(out: Path, run: Path, say=print) -> None:
    """Writes what the model of a run directory scores on the dev and test worlds, once."""
    from fsc_bench.demo import model as demo_model
    from fsc_bench.demo.build import build
    from fsc_bench.demo.pretrain import evaluate
    from fsc_bench.report.leaderboard import averages, columns, headline_cell
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.results import write_json
    from fsc_bench.run.suite import Options
    from fsc_bench.run.suite import run as run_suite
    from fsc_bench.system.stopping import Left
    from fsc_bench.task import catalogue

    path = run.with_suffix(".json")
    if path.is_file():
        return
    model, _, _ = demo_model.load(run / "model.safetensors")
    found: dict[str, dict[str, float]] = {
        split: evaluate(model, split=split) for split in ("dev", "test")
    }
    tasks = [task for task in catalogue().values() if task.suite == "demo"]
    build(out / "data", say)
    summary = run_suite([f"run:{run}"], tasks, Options(out / "data", out / "suite"))
    if summary.left:
        raise Left("left, as SIGUSR1 asked. The same command continues.")
    results = next(iter(summary.results.values()))
    facts = [TaskFacts.of(task) for task in tasks]
    cells = {
        name: headline_cell(task, results[task.name], metric)
        for name, (task, metric) in columns(facts).items()
    }
    for name, cell in (averages(cells, facts) | cells).items():
        found["test"][name] = cell.value
    write_json(path, found)  # a model is scored when its file is there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of models and scores")
    parser.add_argument("--seeds", default="0,1,2", help="pretraining seeds [default: 0,1,2]")
    parser.add_argument("--models", default=",".join(NAMES[1:]), help="[default: all]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="train nothing, write the tables")
    arguments = parser.parse_args()
    names = [name for name in arguments.models.split(",") if name]
    for name in names:
        if name not in NAMES[1:]:
            parser.error(f"no model {name!r}; there are: {', '.join(NAMES[1:])}")
    out = arguments.out.resolve()
    if not arguments.tables:
        import torch

        torch.set_num_threads(arguments.threads)
        for seed in [int(number) for number in arguments.seeds.split(",")]:
            score(out, pretrained(out, seed))
            for name in names:
                print(f"seed {seed}, {name}", flush=True)
                score(out, (averaged if name in AVERAGED else finetuned)(out, seed, name))
    page = tables(read_scores(out))
    (out / "study.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
