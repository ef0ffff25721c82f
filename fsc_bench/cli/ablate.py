"""`fsc-bench ablate`: a sweep of trainings, scored, with the paper's claims. Parse, call, print."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import BudgetOption, split_words
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    from fsc_bench.run.job import Options
    from fsc_bench.study.ablate import Outcome
    from fsc_bench.study.points import Sweep
    from fsc_bench.task import Task


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(ablate)


def ablate(
    recipe: Annotated[
        str, typer.Argument(help="A name of `fsc-bench recipes`, or a TOML file.")
    ] = "",
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help="table2, table3, methods, remove-lhn, global-vs-local or scr-sensitivity; repeat "
            "for more.",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="KEY=A,B,C of the recipe; of several, the product."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Every point is trained with each.")] = "1,2,3",
    model: Annotated[str | None, typer.Option(help="FAMILY:CHECKPOINT to start from.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Training data, as `fsc-bench train` takes them.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of every point; repeat for more.")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("-t", "--tasks", help="What to score on. [default: as `run`]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Its folder. [default: ablations/RECIPE]")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Table 2 in the miniature world, with short trainings.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that share it. [default: 1; --demo: cores]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say the points, what is done, and how long.")
    ] = False,
    helper: Annotated[bool, typer.Option("--helper", hidden=True)] = False,
    budget: BudgetOption = None,
) -> None:
    """Trains and scores a recipe's ablations over seeds: tables, picture, the paper's claims.

    The same command again continues; started as often as there are GPUs on one -o folder, each job
    takes the next training that no other holds.
    """
    from fsc_bench.system.distributed import launched

    if launched() > 1:
        raise UsageError(
            "ablate under torchrun: start one job a GPU on one -o folder instead; they share."
        )
    sweep = _sweep(recipe, presets or [], grid or [], seeds, model, data, settings or [], out, demo)
    chosen = _tasks(sweep, tasks)
    if dry_run:
        _look_ahead(sweep, chosen)
        return
    options = {"--preset": presets, "--grid": grid, "--seeds": [seeds], "--model": [model],
               "--data": [data], "--set": settings, "-t": tasks, "--budget": budget,
               "-o": [str(sweep.out)]}  # fmt: skip
    words = ["ablate", *[recipe] * bool(recipe), *["--demo"] * demo]
    words += [word for name, values in options.items() for value in values or [] if value
              for word in (name, value)]  # fmt: skip
    processes = Processes(jobs or (_cores() if demo else 1), alone=demo, helper=helper)
    raise typer.Exit(_carry_out(sweep, chosen, words, processes))


def _sweep(
    name: str,
    presets: Sequence[str],
    grids: Sequence[str],
    seeds: str,
    model: str | None,
    data: str | None,
    settings: Sequence[str],
    out: Path | None,
    demo: bool,
) -> "Sweep":
    """What is asked for, every point of it checked. Raises UsageError, one line."""
    from fsc_bench.cli.train import chosen_recipe
    from fsc_bench.study import points
    from fsc_bench.train.config import parse_setting

    presets = split_words(list(presets))
    facts = points.demo_facts()
    if demo:
        name = name or facts.recipe
        presets = presets or ([] if grids else [facts.preset])
    if not name:
        raise UsageError("ablate what? Name a recipe of `fsc-bench recipes`, or try --demo.")
    short = [f"{key}={value}" for key, value in facts.settings.items()] if demo else []
    recipe = chosen_recipe(name, model, data, [*short, *settings])
    swept = {text.partition("=")[0].strip() for text in grids}
    for text in settings:
        if (key := parse_setting(text)[0]) in swept:
            raise UsageError(f"--set {text} and --grid {key}: one of the two.")
    found = points.points_of(recipe, presets, grids)
    titles = tuple(points.read_preset(word).title for word in presets)
    folder = out or Path("ablations") / (f"miniature-{recipe.name}" if demo else recipe.name)
    return points.Sweep(recipe, found, points.read_seeds(seeds), folder, titles)


def _tasks(sweep: "Sweep", wanted: list[str] | None) -> list["Task"]:
    from fsc_bench.cli.train import tasks_for
    from fsc_bench.models.run import suite_known
    from fsc_bench.task import default_suite

    model = sweep.recipe.config.model
    words = split_words(wanted) or [suite_known(model) or default_suite()]
    return tasks_for(model, words)


def _options(sweep: "Sweep", tasks: list["Task"]) -> "Options":
    from fsc_bench.run.job import Options
    from fsc_bench.suite import place_of
    from fsc_bench.task import data_folder

    folder = data_folder(None) / place_of(tasks)
    return Options(data=folder, out=sweep.out / "runs", device=sweep.recipe.config.device)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- work


@dataclass(frozen=True)
class Processes:
    """How many share the work. alone: each on one thread, so that their number changes no bit;
    helper: whether this is one that another started.
    """

    count: int
    alone: bool = False
    helper: bool = False

    @contextmanager
    def started(self, words: Sequence[str]) -> Iterator[None]:
        """The others work with this one until the block ends, which waits for them."""
        threads = self._threads()
        others = [
            subprocess.Popen(
                [sys.executable, "-m", "fsc_bench", *words, "--helper"],
                env=self._environment(number, threads),
            )
            for number in range(1, 1 if self.helper else self.count)
        ]
        try:
            yield
            for process in others:
                process.wait()
        finally:
            for process in others:
                process.terminate()

    def _threads(self) -> int:
        """Threads of each; set here and now. Where the user says how many, that stands."""
        import torch

        if "OMP_NUM_THREADS" in os.environ or (self.count == 1 and not self.alone):
            return torch.get_num_threads()
        threads = 1 if self.alone else max(1, _cores() // self.count)
        torch.set_num_threads(threads)
        return threads

    def _environment(self, number: int, threads: int) -> dict[str, str]:
        """That of a helper: its threads, and a card of its own where there are several."""
        import torch

        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if cards == [""]:
            cards = [str(card) for card in range(torch.cuda.device_count())]
        own = {"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if len(cards) > 1 else {}
        return {**os.environ, "OMP_NUM_THREADS": str(threads), **own}


def _carry_out(
    sweep: "Sweep", tasks: list["Task"], words: Sequence[str], processes: Processes
) -> int:
    """Works with so many processes and writes the page. Returns the exit code."""
    from fsc_bench.cli.show import Terminal
    from fsc_bench.cli.train import check_scorable
    from fsc_bench.data.images import read_links
    from fsc_bench.run.suite import check_options, check_writable
    from fsc_bench.study.ablate import carry_out
    from fsc_bench.task import data_folder, is_apart

    options = _options(sweep, tasks)
    check_options(tasks, options)
    check_writable(sweep.out)
    if not processes.helper:
        check_scorable(tasks, options, "--tasks")
    terminal = Terminal()
    try:
        if any(map(is_apart, tasks)):
            from fsc_bench.demo.build import build

            build(options.data, terminal.say)
        with processes.started(words):
            outcome = carry_out(sweep, tasks, options, terminal, read_links(data_folder(None)))
        _write(sweep, tasks, words, outcome, terminal.say, quiet=processes.helper)
    finally:
        terminal.close()
    return outcome.exit_code


def _write(
    sweep: "Sweep",
    tasks: list["Task"],
    words: Sequence[str],
    outcome: "Outcome",
    say: Callable[[str], Any],
    quiet: bool,
) -> None:
    """Reads what all jobs have left so far and writes the page; one job at a time."""
    from fsc_bench.study import figures, page, verdicts
    from fsc_bench.study.ablate import WRITING, runs
    from fsc_bench.system.files import locked

    with locked(sweep.out / "ablation.md", WRITING):
        there = runs(sweep, say, outcome.broken)
        if not there:
            say("Nothing is scored yet: no page is written.")
            return
        found = figures.figures(there, tasks, say)
        judged = verdicts.judge(sweep, found, verdicts.read_claims())
        made = _made(sweep, tasks, words, outcome, there)
        files = page.write(sweep, found, judged, made)
    if quiet:
        return
    _show(sweep, found, judged)
    for line in made.missing:
        say(f"Not there yet: {line}.")
    say(f"Written: {', '.join(str(path) for path in files)}.")


def _made(
    sweep: "Sweep", tasks: list["Task"], words: Sequence[str], outcome: "Outcome", there: Any
) -> Any:
    """What the page says of how the ablation was made, and of what it lacks."""
    from fsc_bench.study.page import Made
    from fsc_bench.suite import suite_of
    from fsc_bench.train.checkpoint import versions

    wanted = [(one.name, seed) for one in sweep.points if one.config for seed in sweep.seeds]
    missing = [f"{name}, seed {seed}" for name, seed in wanted if (name, seed) not in there]
    failed = [(name, str(error)) for name, error in outcome.failures]
    told = {name for name, _ in failed}
    aparts = {suite_of(task.suite).apart for task in tasks} - {""}
    return Made(
        words,
        sweep.recipe.config.settings(),
        versions(),
        [task.word for task in tasks],
        "; ".join(aparts),
        [name for name in missing if name not in told],
        failed,
    )


def _show(sweep: "Sweep", found: Any, judged: Sequence[Any]) -> None:
    """The page's table and verdicts, on stdout."""
    from fsc_bench.cli.show import print_table, say
    from fsc_bench.study.page import cells, headings

    print_table(["point", *headings(found)],
                [[name, *row] for name, row in cells(sweep, found).items()])  # fmt: skip
    print()
    tried = [one for one in judged if one.verdict != "not tried"]
    if tried:
        rows = [[one.name, one.verdict, one.claim.says] for one in tried]
        print_table(["claim", "", "what the paper says"], rows)
    if len(tried) < len(judged):
        names = ", ".join(one.name for one in judged if one not in tried)
        say(f"Not tried: {names}; the page says what they need.")


# ---------------------------------------------------------------- looking ahead


def _look_ahead(sweep: "Sweep", tasks: list["Task"]) -> None:
    """The points, what is there of them, and how long the rest takes one job."""
    from fsc_bench.cli.show import print_table, readable_time, say
    from fsc_bench.data.images import read_links
    from fsc_bench.study.ablate import begun, runs, seconds_a_training
    from fsc_bench.study.points import says
    from fsc_bench.task import data_folder

    rows = []
    for one in sweep.points:
        states = [begun(sweep.trial(one, seed)) or "-" for seed in sweep.seeds if one.config]
        rows.append([one.name, says(one.name), *states, *["-"] * (len(sweep.seeds) - len(states))])
    print_table(["point", "what it is", *(f"seed {seed}" for seed in sweep.seeds)], rows)
    trials = sweep.trials
    done = sum(begun(trial) == "done" for trial in trials)
    scored = runs(sweep, lambda line: None)
    models = 1 + (len(sweep.points) - 1) * len(sweep.seeds)
    say(f"{done} of {len(trials)} trainings are done, {len(scored)} of {models} models scored.")
    if done == len(trials):
        return
    with TemporaryDirectory() as scratch:
        links = read_links(data_folder(None))
        each = seconds_a_training(sweep, Path(scratch) / "rehearsal", links)
    spent = [sum(run.facts.get("seconds", {}).values()) for run in scored.values()]
    scoring = sum(spent) / len(spent) * (models - len(scored)) if spent else 0.0
    left = each * (len(trials) - done)
    say(
        f"A training takes about {readable_time(each)}: {readable_time(left + scoring)} for what "
        f"is left, by one job{'' if spent else ', and the scoring, which nothing tells yet'}."
    )
