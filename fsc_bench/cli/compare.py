"""`fsc-bench compare`: is B better than A?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import DataOption, JsonOption, split_words
from fsc_bench.cli.show import say, tell
from fsc_bench.errors import GateError, Undecided, UsageError, near_miss

if TYPE_CHECKING:
    from fsc_bench.results import Run
    from fsc_bench.score.compare import Comparison, Flip, Line
    from fsc_bench.suite import Suite

PUBLISHED = "published:"
MOST = 20  # subsets of a task that the table shows; `--json` and `--html` have them all


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(compare)


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]",
            help="Run folders, models with a run, or published:NAME; each is compared with A.",
        ),
    ],
    runs: Annotated[Path, typer.Option("--runs", help="Where runs are looked for.")] = Path("runs"),
    tasks: Annotated[
        list[str] | None, typer.Option("-t", "--tasks", help="Only these tasks.")
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="Show N samples that only one has right.")] = 0,
    margin: Annotated[
        float, typer.Option(min=0, help="Percent points within which two models are the same.")
    ] = 0.5,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(min=0, help="Exit 4 where an average is worse by more than X, beyond error."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 5 where the verdict is UNDECIDED.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page, with pictures of the flips.")
    ] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Is B better than A? The difference over the same samples, with interval, p and verdict."""
    from fsc_bench.cli.show import Terminal, print_json
    from fsc_bench.score.compare import against_totals
    from fsc_bench.score.compare import compare as compare_runs

    if len(models) < 2:
        raise UsageError(f"compare {models[0]!r}: name at least two runs: A, and what is compared.")
    if models[0].startswith(PUBLISHED):
        raise UsageError(f"{models[0]!r}: a published row can only stand second: swap the two.")
    base = find_run(models[0], runs)
    words = split_words(tasks)
    terminal = Terminal()
    found = []
    for model in models[1:]:
        if model.startswith(PUBLISHED):
            only, _ = _only(words, [base])
            found.append(against_totals(base, *published(model.removeprefix(PUBLISHED)), only))
        else:
            other = find_run(model, runs)
            only, table = _only(words, [base, other])
            found.append(compare_runs(base, other, flips, only, terminal.progress, table))
    terminal.close()
    if html:
        write_page(html, found, margin, data)
    if json:
        print_json({"comparisons": [document(one, margin) for one in found]})
    else:
        for one in found:
            show(one, margin)
        if html:
            tell(f"Written: {html}")
    check_gates(found, margin, fail_if_worse, strict)


def _only(words: list[str], runs: Sequence["Run"]) -> tuple[list[str] | None, "Suite | None"]:
    """(the tasks to compare, the suite whose averages are meant): words as `run -t` takes them, and
    names of tasks that a run has, whose file may be gone.
    """
    from fsc_bench.suite import read_suite
    from fsc_bench.task import is_suite, select

    suites = [word for word in words if word.endswith(".toml") and is_suite(Path(word))]
    if suites and len(words) > 1:
        raise UsageError(f"-t {suites[0]}: a suite's file goes alone.")
    if suites:
        suite = read_suite(Path(suites[0]))
        return [task.name for task in suite.tasks], suite
    known = {task for run in runs for task in run.results}
    found = [
        task
        for word in words
        for task in ([word] if word in known else [one.name for one in select([word])])
    ]
    return list(dict.fromkeys(found)) if words else None, None


def check_gates(
    found: Sequence["Comparison"], margin: float, fail_if_worse: float | None, strict: bool
) -> None:
    """Raises GateError where an average is worse than allowed, Undecided where that is asked."""
    for one in found:
        for line in one.headline:
            if fail_if_worse is not None and line.found.high < -fail_if_worse:
                raise GateError(
                    f"{one.b} is worse than {one.a} by more than {fail_if_worse:g}: {line.name} "
                    f"{interval(line)}."
                )
    for one in found:
        if strict and one.verdict(margin) == "UNDECIDED":
            raise Undecided(f"{one.b} against {one.a}: undecided.")


def find_run(word: str, runs: Path) -> "Run":
    """A run by its folder or its model's name. Raises UsageError with the near miss."""
    from fsc_bench.results import read_runs

    complaints: list[str] = []
    folder = Path(word)
    if (folder / "run.json").is_file():
        found = read_runs([folder], complaints.append)
    else:
        every = read_runs([runs], complaints.append) if runs.is_dir() else []
        found = [run for run in every if word in (run.name, run.path.name)]
        if not found:
            hint = near_miss(word, [run.name for run in every])
            raise UsageError(
                f"{word!r}: neither a run's folder nor a model with a run in {runs}.{hint} "
                f"`fsc-bench run -m {word}` makes one."
            )
    for line in complaints:
        tell(f"fsc-bench: left out: {line}")
    if len(found) > 1:
        folders = ", ".join(str(run.path) for run in found)
        raise UsageError(f"{word!r}: {len(found)} runs are of that name; name one: {folders}.")
    if not found:
        raise UsageError(f"{word}: no readable run there.")
    return found[0]


def published(name: str) -> tuple[str, Mapping[str, float]]:
    """A published row: (its name and source, number by column). Of several of one name the one with
    the most numbers of the tables; `NAME [SOURCE]` names another. Raises UsageError.
    """
    from fsc_bench.report.leaderboard import published_rows
    from fsc_bench.report.suites import TaskFacts
    from fsc_bench.task import catalogue, default_suite

    rows = published_rows(
        [TaskFacts.of(t) for t in catalogue().values() if t.suite == default_suite()]
    )
    found = [row for row in rows if name in (row.model, f"{row.model} [{row.source}]")]
    if not found:
        hint = near_miss(name, [row.model for row in rows])
        raise UsageError(f"published:{name}: no such row in leaderboards/published.{hint}")
    row = max(found, key=lambda row: len(row.cells))
    cells = {column: cell.value for column, cell in row.cells.items()}
    return f"{row.model} [{row.source}]", cells


# ---------------------------------------------------------------- what is shown


def interval(line: "Line") -> str:
    """The difference with its interval, signed: +1.2 [+0.3, +2.1]."""
    found = line.found
    return f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def chance_of_luck(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def of_how_many(line: "Line") -> str:
    short = line.of is not None and line.of[0] < line.of[1]
    return f"{line.name} ({line.of[0]} of {line.of[1]})" if short else line.name


def show(one: "Comparison", margin: float) -> None:
    """Verdict first, then the averages, tasks and subsets, and the flips."""
    from fsc_bench.cli.show import print_table

    say(f"{one.verdict(margin)}: {one.b}, compared with {one.a}")
    for line in one.headline:
        say(f"  {sentence(line, margin)}")
    for note in one.notes:
        say(f"  {note}")
    print()
    header = ["", "metric", "A", "B", "B - A", "p", "Holm", "verdict", "detectable",
              "n", "images", "fixed", "broken"]  # fmt: skip
    rows = [cells(line, margin) for line in one.averages]
    rows += [[]] * bool(rows)
    for line in one.tasks:
        rows.append(cells(line, margin))
        below = [sub for sub in one.subsets.get(line.task, ()) if sub.metric == line.metric]
        rows += [cells(sub, margin, "  ") for sub in below] if len(below) <= MOST else []
    print_table(header, rows, f"A {one.a}, B {one.b}; percent")
    for task, why in one.left_out.items():
        say(f"left out: {task}: {why}")
    if one.flips:
        print()
        print_table(
            ["", "task", "subset", "id", "margin A", "margin B", "texts"],
            [flip_cells(flip) for flip in one.flips],
            "Flipped samples, the biggest movers first",
        )
    print()


def sentence(line: "Line", margin: float) -> str:
    verdict = line.found.verdict(margin)
    text = f"{of_how_many(line)} {interval(line)}: {verdict}"
    if verdict == "UNDECIDED" and line.found.detectable is not None:
        text += f"; a true difference of {line.found.detectable:.2f} would be found in 4 of 5 cases"
    return text


def cells(line: "Line", margin: float, indent: str = "") -> list[str]:
    found = line.found
    counts = ["-" if count is None else f"{count:,}" for count in (line.fixed, line.broken)]
    return [
        indent + of_how_many(line),
        line.metric,
        f"{found.a:.2f}",
        f"{found.b:.2f}",
        interval(line),
        chance_of_luck(found.p),
        chance_of_luck(found.holm),
        found.verdict(margin),
        "-" if found.detectable is None else f"{found.detectable:.2f}",
        f"{line.n:,}",
        f"{line.images:,}",
        *counts,
    ]


def flip_cells(flip: "Flip") -> list[str]:
    what = " | ".join(flip.texts) or f"{flip.answer}: {flip.taken_a} -> {flip.taken_b}"
    return [
        "fixed" if flip.fixed else "broken",
        flip.task,
        flip.subset,
        flip.id,
        f"{flip.margin_a:+.3f}",
        f"{flip.margin_b:+.3f}",
        what,
    ]


def document(one: "Comparison", margin: float) -> dict[str, Any]:
    """A comparison for JSON."""
    return {
        "a": one.a,
        "b": one.b,
        "verdict": one.verdict(margin),
        "margin": margin,
        "paired": one.paired,
        "averages": [line_facts(line, margin) for line in one.averages],
        "tasks": [line_facts(line, margin) for line in one.tasks],
        "subsets": {
            task: [line_facts(line, margin) for line in lines]
            for task, lines in one.subsets.items()
        },
        "flips": [vars(flip) for flip in one.flips],
        "left_out": dict(one.left_out),
        "notes": list(one.notes),
    }


def line_facts(line: "Line", margin: float) -> dict[str, Any]:
    found = line.found
    return {
        "name": line.name,
        "task": line.task,
        "metric": line.metric,
        **vars(found),
        "difference": found.difference,
        "verdict": found.verdict(margin),
        "n": line.n,
        "images": line.images,
        "fixed": line.fixed,
        "broken": line.broken,
        "of": line.of,
    }


def write_page(path: Path, found: Sequence["Comparison"], margin: float, data: Path | None) -> None:
    """Writes the comparisons as one HTML file with nothing outside it."""
    from fsc_bench.report.page import comparison_page
    from fsc_bench.system.files import write_text

    shown = thumbnails([flip for one in found for flip in one.flips], data)
    write_text(path, comparison_page([document(one, margin) for one in found], shown))


def thumbnails(flips: Sequence["Flip"], data: Path | None) -> dict[str, str]:
    """Small JPEGs as data URIs, by the name that samples files give a picture in a task. A picture
    that is not on this machine has none.
    """
    from base64 import b64encode
    from io import BytesIO

    from fsc_bench.data.images import Images
    from fsc_bench.errors import DataError
    from fsc_bench.records import read_shown
    from fsc_bench.task import data_folder

    images, found = Images(data_folder(data)), {}
    for flip in flips:
        for name in flip.images:
            ref = read_shown(name)
            if ref is None:
                continue
            try:
                picture = images.open(flip.task, ref)
            except DataError:
                continue
            picture.thumbnail((160, 160))
            content = BytesIO()
            picture.convert("RGB").save(content, "JPEG")
            encoded = b64encode(content.getvalue()).decode()
            found[f"{flip.task} {name}"] = f"data:image/jpeg;base64,{encoded}"
    return found
