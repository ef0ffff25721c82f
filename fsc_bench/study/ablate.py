"""Ablate: a sweep of `train` and `run`, shared by as many jobs as are started on one folder.

    out/points/<changes>-<digest>/seed-1/   each training, as `train` leaves it
    out/runs/                               each model's results, as `run` leaves them
    out/scored.json                         which run is of which model
    out/ablation.md .csv .svg, numbers.csv  written anew whenever a job ends (page.py)

A training is taken as `run` takes a model (run/claims.py); the same command goes on where it was
killed. A point that fails is told and stops no other.
"""

import json
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fsc_bench.errors import FscBenchError, RunError, UsageError
from fsc_bench.models.run import is_written, spec_of
from fsc_bench.results import Busy, Run, read_runs
from fsc_bench.run.claims import Claims
from fsc_bench.run.job import Options, Reporter
from fsc_bench.run.suite import run as run_suite
from fsc_bench.study.points import Point, Sweep, Trial
from fsc_bench.system.facts import read_json
from fsc_bench.system.files import locked, write_json
from fsc_bench.system.settings import working
from fsc_bench.task import Task
from fsc_bench.train.build import run_facts
from fsc_bench.train.checkpoint import check_same_run
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.loop import train
from fsc_bench.train.prepare import prepare

# Settings that decide which model and data a training starts from.
MATERIAL = ("model", "data", "image_key", "caption_key", "negatives", "negative_key",
            "negative_kinds", "positives", "positive_key", "max_pairs", "pairs_seed",
            "dev_share")  # fmt: skip
WRITING = 600  # seconds that a job waits while another writes the page


@dataclass
class Outcome:
    """What a job did. failures: (point and seed, or model and task; the error); broken: the folders
    of trainings that failed; elsewhere: trainings that other jobs are at.
    """

    failures: list[tuple[str, FscBenchError]] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return max((error.exit_code for _, error in self.failures), default=0)


@dataclass(frozen=True)
class Job:
    """What one `ablate` has at hand. material: what the trainer found of model and data, by the
    settings that name them; looked at once, for it takes seconds.
    """

    sweep: Sweep
    claims: Claims
    reporter: Reporter
    links: Mapping[str, str] | None
    outcome: Outcome = field(default_factory=Outcome)
    material: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)  # lines that trainings have in common


def carry_out(
    sweep: Sweep,
    tasks: Sequence[Task],
    options: Options,
    reporter: Reporter,
    links: Mapping[str, str] | None = None,
) -> Outcome:
    """Trains and scores what no other job has, and what there is of the sweep. options: of `run`,
    whose folder is that of the sweep. Raises what stops everything, such as a full disk.
    """
    claims = Claims(sweep.out / "points", "training")
    job = Job(sweep, claims, reporter, links)
    waiting = sweep.trials
    with claims.begun():
        for _ in range(2):  # what another job holds may be given up by the end
            waiting = [trial for trial in waiting if not _take(trial, job)]
    job.outcome.elsewhere += [told(sweep, trial) for trial in waiting]
    _score(tasks, options, job)
    return job.outcome


def told(sweep: Sweep, trial: Trial) -> str:
    """A training by its point's name and its seed."""
    for point in sweep.points:
        if point.config and sweep.trial(point, trial.seed).folder == trial.folder:
            return f"{point.name}, seed {trial.seed}"
    return str(trial.folder)


# ---------------------------------------------------------------- training


def _take(trial: Trial, job: Job) -> bool:
    """Trains a point, unless another job is at it: then False. What goes wrong is noted."""
    name = told(job.sweep, trial)
    with job.claims.take(str(trial.folder.relative_to(job.sweep.out))) as taken:
        if not taken:
            return False
        try:
            if not is_trained(trial, job):
                job.reporter.say(f"{name}: training")
                train(trial.recipe, trial.folder, resume=True, links=job.links, say=_few(job))
        except FscBenchError as error:
            _fail(name, trial, error, f"fsc-bench: {name}: {error}", job)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            failure = RunError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            _fail(name, trial, failure, "".join(traceback.format_exception(error)), job)
    return True


def _few(job: Job) -> Callable[[str], None]:
    """Of what a training says what no other has said yet; no steps, for there are many."""

    def say(line: str) -> None:
        if line not in job.said and not line.startswith(("step ", "Written: ")):
            job.said.add(line)
            job.reporter.say(f"  {line}")

    return say


def _fail(name: str, trial: Trial, error: FscBenchError, lines: str, job: Job) -> None:
    outcome = job.outcome
    if any(str(error) == str(other) for _, other in outcome.failures):
        lines = f"fsc-bench: {name}: fails alike."
    outcome.failures.append((name, error))
    outcome.broken.add(trial.folder)
    for line in lines.rstrip().splitlines():
        job.reporter.say(line)


def is_trained(trial: Trial, job: Job) -> bool:
    """Whether a training is finished, of these settings, of this model and this data.

    Raises UsageError where the folder holds one of other contents.
    """
    out = trial.folder
    if begun(trial) != "done" or not is_written(out):
        return False
    facts = {**_material(trial, job), "settings": trial.recipe.config.settings()}
    check_same_run(out, read_json(out / "config.json", dict[str, Any]), facts)
    return True


def _material(trial: Trial, job: Job) -> dict[str, Any]:
    """What the trainer says of the model, the data and the negatives of such a training."""
    config = trial.recipe.config
    settings = config.settings()
    key = json.dumps([settings[name] for name in MATERIAL])
    if key not in job.material:
        with working(tf32=config.tf32):
            ready = prepare(trial.recipe, trial.folder, resume=True, links=job.links, say=_nothing)
        found = run_facts(ready, 0)
        job.material[key] = {name: found[name] for name in ("base", "data", "negatives")}
    return job.material[key]


def _nothing(line: str) -> None:
    pass


def begun(trial: Trial) -> str:
    """done, begun or empty: what is on disk of a training, without a look at model or data."""
    with suppress(UsageError):
        if not (trial.folder / "config.json").is_file():
            return ""
        facts = read_json(trial.folder / "config.json", dict[str, Any])
        return "done" if "finished" in facts else "begun"
    return ""


# ---------------------------------------------------------------- scoring


def specs(sweep: Sweep, broken: Collection[Path] = ()) -> dict[str, tuple[Point, int | None]]:
    """The models to score that there are by now: (point, seed); the first model has no seed.

    broken: folders of trainings that are not what they should be.
    """
    first = sweep.recipe.config.model
    found: dict[str, tuple[Point, int | None]] = {}
    for point in sweep.points:
        if point.config is None:
            found[first] = (point, None)
    for seed in sweep.seeds:
        for point in sweep.points:
            if point.config is None:
                continue
            trial = sweep.trial(point, seed)
            if trial.folder in broken or begun(trial) != "done":
                continue
            spec = spec_of(trial.folder)
            if point.share != 1:
                spec = f"wise:{first}+{spec}?alpha={point.share:g}"
            found[spec] = (point, seed)
    return found


def _score(tasks: Sequence[Task], options: Options, job: Job) -> None:
    """Runs every model that is there, and notes which run is whose."""
    out, outcome = job.sweep.out, job.outcome
    wanted = specs(job.sweep, outcome.broken)
    try:
        summary = run_suite(list(wanted), tasks, options, job.reporter)
    except Busy:
        job.reporter.say("Scoring is left to the other job.")
        return
    for spec, task, error in summary.failures:
        point, seed = wanted.get(spec, (None, None))
        words = [point.name if point else "", f"seed {seed}" if seed is not None else "", task]
        outcome.failures.append((", ".join(filter(None, words)), error))
    path = out / "scored.json"
    folders = {spec: str(_within(folder, out)) for spec, folder in summary.folders.items()}
    with locked(path, WRITING):
        write_json(path, _scored(path) | folders)


def _within(folder: Path, out: Path) -> Path:
    return folder.relative_to(out) if folder.is_relative_to(out) else folder


def _scored(path: Path) -> dict[str, str]:
    """Model: its run's folder. Empty where nothing is scored yet."""
    return read_json(path, dict[str, str]) if path.is_file() else {}


def runs(
    sweep: Sweep, complain: Callable[[str], Any], broken: Collection[Path] = ()
) -> dict[tuple[str, int | None], Run]:
    """What is scored by now: (point's name, seed): its run."""
    scored = _scored(sweep.out / "scored.json")
    found = {}
    for spec, (point, seed) in specs(sweep, broken).items():
        folder = sweep.out / scored[spec] if spec in scored else None
        if folder and (folder / "run.json").is_file():
            found[point.name, seed] = read_runs([folder], complain)[0]
    return found


# ---------------------------------------------------------------- looking ahead

REHEARSED = 4  # steps, of which the first is not timed


def seconds_a_training(sweep: Sweep, scratch: Path, links: Mapping[str, str] | None) -> float:
    """How long one training takes here: the mean of those that are finished; else, by a few steps
    of the recipe itself into `scratch`, which nobody keeps.
    """
    spans = [span for one in sweep.trials if (span := span_of(one.folder))]
    if spans:
        return sum(spans) / len(spans)
    config = sweep.recipe.config
    short = {"max_steps": REHEARSED, "log_every": 1, "epochs": 1, "tensorboard": False}
    recipe = replace(sweep.recipe, config=config.changed(short))
    train(recipe, scratch, links=links, say=_nothing)
    lines = (scratch / "metrics.jsonl").read_text("utf-8").splitlines()
    speeds = [json.loads(line)["images_per_second"] for line in lines[1:]]
    return steps_of(config, scratch) * config.batch_size / (sum(speeds) / len(speeds))


def steps_of(config: TrainConfig, run: Path) -> int:
    """The steps that a whole training takes. run: one of the same data."""
    facts = read_json(run / "config.json", dict[str, Any])
    pairs = facts["data"]["pairs"] - facts["data"]["dev"]
    steps = pairs // config.batch_size * config.epochs
    return min(steps, config.max_steps) if config.max_steps else steps


def span_of(run: Path) -> float | None:
    """Seconds from a training's beginning to its end, with what interrupted it."""
    from datetime import datetime

    with suppress(UsageError, KeyError, ValueError, TypeError):
        facts = read_json(run / "config.json", dict[str, Any])
        ends = [datetime.fromisoformat(facts[name]) for name in ("started", "finished")]
        return (ends[1] - ends[0]).total_seconds()
    return None
