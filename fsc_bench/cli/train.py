"""The commands of training: `train`, `recipes`, `wise-ft`.

As main.py: parse, call one function, print; heavy modules are imported inside the commands.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import BudgetOption, DataOption, JsonOption, split_words
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.remote import refuse_remote
from fsc_bench.system.stopping import Left

if TYPE_CHECKING:
    from fsc_bench.run.job import Options
    from fsc_bench.train.config import Recipe


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(train)
    app.command()(recipes)
    app.command("wise-ft")(wise_ft)


# ---------------------------------------------------------------- train


def train(
    recipe: Annotated[str, typer.Argument(help="A name of `fsc-bench recipes`, or a TOML file.")],
    model: Annotated[str | None, typer.Option(help="FAMILY:CHECKPOINT to start from.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="KIND:PATH (coco-tsv, webdataset, parquet, hf, ...), or the folder that the "
            "recipe's own path is below; default $FSC_BENCH_TRAINING_DATA or ~/datasets."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Run directory. [default: trained/RECIPE]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe; repeat for more.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, or begin it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check settings, data and model; train nothing.")
    ] = False,
    eval_tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--eval",
            help="Then score this and the first model on these tasks, with commas or repeated; "
            "`fast` is a short list of cheap ones, or the one suite that the model knows. Their "
            "data are checked before the first step.",
        ),
    ] = None,
    budget: BudgetOption = None,
) -> None:
    """Fine-tunes a CLIP-style model: FSC-CLIP and its ancestors. Also under torchrun.

    On SIGUSR1 it saves a checkpoint after the step in hand and exits with 75; --resume continues.
    """
    from fsc_bench.data.images import read_links
    from fsc_bench.system.distributed import is_first, leave_at_once
    from fsc_bench.system.stopping import exit_code
    from fsc_bench.task import data_folder

    chosen = chosen_recipe(recipe, model, data, settings or [])
    out = out or Path("trained") / chosen.name
    wanted = split_words(eval_tasks)
    tasks = tasks_for(chosen.config.model, wanted) if wanted else []
    links = read_links(data_folder(None))
    if tasks:
        from fsc_bench.run.job import Options
        from fsc_bench.suite import place_of

        check_scorable(tasks, Options(data_folder(None) / place_of(tasks), out), "--eval")
    if dry_run and is_first():
        _show_settings(chosen)
    from fsc_bench.train.loop import train as run_training

    say = print if dry_run else _say
    try:
        run_training(chosen, out, resume=resume, dry_run=dry_run, links=links, say=say)
    except KeyboardInterrupt as stopped:
        if is_first():
            how = "" if resume else " with --resume"
            _say(f"fsc-bench: stopped. The same command{how} continues.")
        leave_at_once(exit_code(stopped))
    if tasks and not dry_run:
        from fsc_bench.models.run import spec_of

        _compare(chosen.config.model, spec_of(out), tasks, out.parent / f"{out.name}-scores")


def chosen_recipe(
    name: str, model: str | None, data: str | None, settings: Sequence[str]
) -> "Recipe":
    """The recipe with what the command line changes of it."""
    from fsc_bench.train.config import parse_setting, read_recipe

    recipe = read_recipe(name)
    config = recipe.config.changed({"model": model} if model else {})
    config = config.changed({"data": _training_data(config.data, data)})
    config = config.changed(dict(parse_setting(text) for text in settings))
    return _with_config(recipe, config)


def tasks_for(model: str, wanted: list[str]) -> list[Any]:
    """The tasks of `--eval`; what is fast for a model that knows one suite alone is that suite."""
    from fsc_bench.task import select

    if "fast" in wanted:
        from fsc_bench.models.run import suite_known

        fast = suite_known(model) or "fast"
        wanted = [fast if word == "fast" else word for word in wanted]
    return select(wanted)


def check_scorable(tasks: list[Any], options: "Options", option: str) -> None:
    """Reads and checks the data of tasks before the first step, as scoring does after the last;
    those that are drawn here are not drawn yet. Says of each task why it cannot be scored, and
    raises DataError then.
    """
    from fsc_bench.data.images import Images
    from fsc_bench.errors import DataError
    from fsc_bench.run.job import Silent, Summary
    from fsc_bench.run.suite import prepare_all
    from fsc_bench.system.distributed import is_first

    summary = Summary()
    at_hand = [task for task in tasks if not task.drawn]
    prepare_all(at_hand, options, Images(options.data), summary, Silent())
    errors = {name: error for _, name, error in summary.failures}
    if is_first():
        for error in errors.values():
            _say(f"fsc-bench: {error}")
    if errors:
        failed = [task for task in tasks if task.name in errors]
        names = ", ".join(errors)
        words = " ".join(task.word for task in failed)
        raise DataError(
            f"{option}: no step was trained, as {names} cannot be scored, for the reasons above. "
            f"Leave out what you do not need, or fetch it with `fsc-bench data get {words}`."
        )


def _compare(base: str, trained: str, tasks: list[Any], out: Path) -> None:
    """The table of both models. The run is safe whatever cannot be scored, and why is one line."""
    from fsc_bench.system.distributed import is_first

    summary = _score([base, trained], tasks, out, None)
    if summary.left:
        raise Left(
            "left while scoring, as SIGUSR1 asked. The same command with --resume continues."
        )
    failed = list(dict.fromkeys(name for _, name, _ in summary.failures))
    if not failed or not is_first():
        return
    if any(summary.results.values()):
        _say(f"Not scored, for the reasons above: {', '.join(failed)}.")
        return
    words = ",".join(task.word for task in tasks)
    _say(
        f"No task could be scored, for the reasons above; {trained} is trained. When that is "
        f"mended: `fsc-bench run -m {base} -m {trained} -t {words}`."
    )
    raise typer.Exit(summary.exit_code)


def _with_config(recipe: Any, config: Any) -> Any:
    """The recipe with other settings. What was published is of its model, and of no other."""
    from dataclasses import replace

    same = config.model == recipe.config.model
    return replace(recipe, config=config, expected=recipe.expected if same else {})


def _training_data(recipes_own: str, wanted: str | None) -> str:
    """`--data` as KIND:PATH; a bare folder is what the recipe's own path is below."""
    from fsc_bench.train.sources import kinds

    if wanted and wanted.partition(":")[0] in kinds():
        return wanted
    kind, colon, path = recipes_own.partition(":")
    if wanted and not Path(wanted).expanduser().exists():
        raise UsageError(
            f"--data {wanted}: there is no such folder, and it is no KIND:PATH. Kinds: "
            f"{', '.join(kinds())}.{near_miss(wanted.partition(':')[0], kinds())}"
        )
    if not colon or kind not in ("coco-tsv", "webdataset", "parquet"):
        if wanted:
            raise UsageError(
                f"--data {wanted}: this recipe names no data below a folder. Write --data "
                f"KIND:PATH. Kinds: {', '.join(kinds())}."
            )
        return recipes_own
    root = Path(wanted or os.environ.get("FSC_BENCH_TRAINING_DATA") or "~/datasets").expanduser()
    refuse_remote(root)
    return f"{kind}:{root / path}"


def _say(line: str) -> None:
    from fsc_bench.cli.show import tell

    tell(line)


def _score(models: list[str], tasks: list, out: Path, data: Path | None, **options: Any) -> Any:
    """Scores models and prints the table; a summary of `run`."""
    from fsc_bench.cli.scores import results_table
    from fsc_bench.cli.show import Terminal
    from fsc_bench.run import suite as runner
    from fsc_bench.suite import place_of
    from fsc_bench.system.distributed import is_first
    from fsc_bench.task import data_folder

    folder = data_folder(data) / place_of(tasks)
    if any(task.drawn for task in tasks):
        from fsc_bench.demo.build import build

        build(folder, _say, suites={task.suite for task in tasks})
    terminal = Terminal()
    try:
        summary = runner.run(
            models, tasks, runner.Options(data=folder, out=out, **options), terminal
        )
    finally:
        terminal.close()
    if any(summary.results.values()) and is_first():
        results_table(summary.results, tasks, "")
    return summary


# ---------------------------------------------------------------- recipes


def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe: everything about it.")] = None,
    json: JsonOption = False,
) -> None:
    """Training recipes: presets by method, and the published runs by data and architecture."""
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.train.config import read_recipe, recipe_names
    from fsc_bench.train.published import differences

    if name:
        recipe = read_recipe(name)
        print_json(_recipe_facts(recipe)) if json else _show_recipe(recipe)
        return
    every = [read_recipe(name) for name in recipe_names()]
    if json:
        print_json([_recipe_facts(recipe) for recipe in every])
        return
    measures = ("comp", "zs", "i2t", "t2i")
    rows = [
        [
            recipe.name,
            recipe.title,
            *(str(recipe.expected.get(measure, "-")) for measure in measures),
            ", ".join(one.name for one in differences(recipe)),
        ]
        for recipe in every
    ]
    print_table(["recipe", "what it is", "Comp", "ZS", "I2T", "T2I", "differs in"], rows)
    print(
        "Comp, ZS, I2T and T2I are published; `fsc-bench recipes NAME` says what differs, and how."
    )


def _recipe_facts(recipe: Any) -> dict[str, Any]:
    from fsc_bench.train.published import differences

    return {
        "name": recipe.name,
        "title": recipe.title,
        "source": recipe.source,
        "notes": list(recipe.notes),
        "expected": recipe.expected,
        "differences": [asdict(one) for one in differences(recipe)],
        "settings": recipe.config.settings(),
    }


def _show_recipe(recipe: Any) -> None:
    """Everything about a recipe: what came of it, where its data come from, its settings."""
    from fsc_bench.train.published import differences, published_lines

    lines = published_lines(recipe, differences(recipe))
    if recipe.expected and recipe.config.data:
        lines.append(f"data: {recipe.reference.get('data_set', recipe.config.data)}")
        if get := recipe.reference.get("get"):
            lines.append(f"data: {get}")
            lines.append("data: or of your own tars: --data webdataset:DIR --set max_pairs=100000")
    _show_settings(recipe, lines)


def _show_settings(recipe: Any, lines: Sequence[str] = ()) -> None:
    """Title, source, notes, other lines, and settings with a mark at those that it changes."""
    from fsc_bench.train.config import TrainConfig

    print(f"{recipe.name}: {recipe.title}")
    print(f"source: {recipe.source or 'your own'}")
    for line in [*(f"note: {note}" for note in recipe.notes), *lines]:
        print(line)
    default = TrainConfig().settings()
    for key, value in recipe.config.settings().items():
        mark = " " if value == default[key] else "*"
        print(f"{mark} {key} = {value!r}")


# ---------------------------------------------------------------- wise-ft


def wise_ft(
    first: Annotated[str, typer.Argument(help="The model at alpha 0, such as the pretrained one.")],
    second: Annotated[str, typer.Argument(help="The model at alpha 1, such as run:DIR.")],
    alphas: Annotated[
        str, typer.Option(help="Shares of the second, with commas.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--tasks",
            help="Scored tasks, with commas or repeated; else the default suite.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where runs go.")] = Path("runs/wise-ft"),
    data: DataOption = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once. [default: found by trying]")
    ] = None,
) -> None:
    """Scores the models between two: weights interpolated linearly (WiSE-FT). Draws the curve."""
    from fsc_bench.models import wise
    from fsc_bench.system.distributed import is_first

    try:
        shares = [float(part) for part in alphas.split(",")]
    except ValueError:
        raise UsageError(f"--alphas {alphas}: write numbers and commas: 0,0.5,1.") from None
    from fsc_bench.task import default_suite

    shares = list(dict.fromkeys(shares))
    specs = {share: f"wise:{first}+{second}?alpha={share:g}" for share in shares}
    for spec in specs.values():
        wise.read_spec(spec.removeprefix("wise:"))
    chosen = tasks_for(first, split_words(tasks) or [default_suite()])
    summary = _score(list(specs.values()), chosen, out, data, batch_size=batch_size or 0)
    if is_first():
        _draw_curve(
            {share: summary.results.get(spec, {}) for share, spec in specs.items()}, chosen, out,
            f"{first} to {second}",
        )  # fmt: skip
    raise typer.Exit(summary.exit_code)


def _draw_curve(results: Any, tasks: list[Any], out: Path, title: str) -> None:
    """Comp against ZS along alpha, or the first two scores there are, as a picture in `out`.

    results: {alpha: {task: Result}}.
    """
    from fsc_bench.report.pictures import Point, curve, svg
    from fsc_bench.results import slug
    from fsc_bench.system.files import write_text

    found = {share: _curve_scores(scored, tasks) for share, scored in results.items()}
    first, *others = found.values()
    names = [name for name in first if all(name in scores for scores in others)]
    y, x = ("Comp", "ZS") if {"Comp", "ZS"} <= set(names) else [*names, "", ""][:2]
    if not x or not others:
        _say("No curve is drawn: it takes two alphas, and two scores that every one of them has.")
        return
    points = [Point(share, scores[x], scores[y]) for share, scores in found.items()]
    path = out / f"{slug(title)}.svg"
    try:
        write_text(path, svg(curve(points, x, y, title)))
    except UsageError as error:  # the extra that draws is not installed
        _say(f"No curve is drawn: {error}")
        return
    _say(f"Written: {path} ({y} against {x}).")


def _curve_scores(results: Any, tasks: list[Any]) -> dict[str, float]:
    """Headline scores by column, then the averages that are complete, in percent."""
    from fsc_bench.report.leaderboard import averages, columns, headline_cell
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.task import catalogue

    cells = {}
    for name, (task, metric) in columns([TaskFacts.of(task) for task in tasks]).items():
        if task.name in results and (cell := headline_cell(task, results[task.name], metric)):
            cells[name] = cell
    suites = {task.suite for task in tasks}
    whole = [TaskFacts.of(task) for task in catalogue().values() if task.suite in suites]
    cells |= averages(cells, whole)
    return {name: cell.value for name, cell in cells.items()}
