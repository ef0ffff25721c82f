"""`fsc-bench tasks` and `models`: the catalogue of benchmarks and of model families."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins
from typer.core import TyperGroup

from fsc_bench.cli.options import DataOption, JsonOption, PartialOption
from fsc_bench.errors import DataError, FscBenchError

if TYPE_CHECKING:
    from fsc_bench.cli.show import Terminal
    from fsc_bench.records import Record
    from fsc_bench.task import Task


class OrOneTask(TyperGroup):
    """`tasks blind` is a command; any other word is a task to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["show", *args])


tasks_app = typer.Typer(
    cls=OrOneTask,
    invoke_without_command=True,
    subcommand_metavar="[TASK | blind [TASKS]]",
    help="The catalogue: each benchmark's size, metric, chance level, access and licence. "
    "With a task: everything about it.",
)


models_app = typer.Typer(
    invoke_without_command=True,
    subcommand_metavar="[zoo]",
    help="Model families, and how a model of each is written.",
)


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.add_typer(tasks_app, name="tasks")
    app.add_typer(models_app, name="models")


@tasks_app.callback()
def tasks(context: typer.Context, data: DataOption = None, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        _show(None, json)


@tasks_app.command("show", hidden=True)
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="One task: everything about it.")],
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Everything about one task, or the lines of several (a group, a suite, a glob)."""
    _show(name, json or bool(context.parent and context.parent.params["json"]))


def _show(name: str | None, json: bool) -> None:
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.task import catalogue, select

    if name:
        chosen = select([name])
        if len(chosen) == 1:
            _show_task(chosen[0], json)
            return
    else:
        chosen = list(catalogue().values())
    if json:
        print_json([_task_facts(task) for task in chosen])
        return
    rows: list[list[str]] = []
    for task in chosen:
        if rows and rows[-1][1] != f"{task.suite}/{task.group}":
            rows.append([])
        rows.append(
            [
                task.name,
                f"{task.suite}/{task.group}",
                f"{task.n:,}",
                ", ".join(task.headline),
                ", ".join(f"{value:.3g}" for value in task.chance.values()),
                _percent(task.blind.best),
                task.data.access,
                task.license or "not stated",
            ]
        )
    header = ["task", "suite/group", "n", "headline", "chance", "blind", "access", "licence"]
    print_table(header, rows)


def _task_facts(task: Any) -> dict[str, Any]:
    return {
        "name": task.name,
        "title": task.title,
        "suite": task.suite,
        "group": task.group,
        "kind": task.kind,
        "version": task.version,
        "n": task.n,
        "subsets": task.subsets,
        "within": task.within,
        "headline": task.headline,
        "chance": task.chance,
        "paper": task.paper,
        "license": task.license,
        "access": task.data.access,
        "sources": task.data.sources,
        "instructions": task.data.instructions,
        "classes": len(task.classes),
        "prompts": {name: len(prompts.templates) for name, prompts in task.prompts.items()},
        "evidence": asdict(task.evidence),
        "reference": task.reference,
        "blind": asdict(task.blind),
    }


def _show_task(task: Any, json: bool) -> None:
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.evidence import describe
    from fsc_bench.task import walk

    facts = _task_facts(task)
    if json:
        print_json(facts)
        return
    for key in ("title", "paper", "license", "suite", "group", "kind", "version", "n", "access"):
        print(f"{key:<10}{facts[key]}")
    print(f"{'headline':<10}{', '.join(task.headline)}; chance {dict(task.chance)}")
    reference = next(iter(task.reference.items()), None)
    quoted = reference[1].get("subsets", {}) if reference else {}
    rows = []
    for name, node in walk(task.subsets):
        count = f"{node:,}" if isinstance(node, int) else f"mean over {task.within}"
        blind = [_percent(rule.get(name)) for rule in (task.blind.ruler, task.blind.bigram)]
        rows.append([name, count, *blind, str(quoted.get(name, ""))])
    published = f"published, {reference[0]}" if reference else ""
    print_table(["subset", "n", "ruler", "bigram", published], rows)
    if reference:
        numbers = [f"{key} {reference[1][key]}" for key in task.headline if key in reference[1]]
        print(f"published {', '.join(numbers)} ({reference[1]['where']})")
    if task.prompts:
        default = next(iter(task.prompts))
        print(f"classes   {len(task.classes)}; prompts {default} (default)")
        for set_name, prompts in task.prompts.items():
            print(
                f"prompts.{set_name}: {len(prompts.templates)} templates: {prompts.templates[0]!r}"
            )
            for old, new in prompts.rename.items():
                print(f"  {old!r} is spelled {new!r}")
    if task.blind.source:
        best = "" if task.blind.best is None else f"{task.blind.best:.1f}; "
        print(f"blind     {best}computed of {task.blind.source}")
    for line in describe(task.evidence):
        print(f"evidence  {line}")
    for source in task.data.sources:
        print("source    " + "  ".join(f"{key}={value}" for key, value in source.items()))
    if task.data.instructions:
        print(task.data.instructions.strip())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


# ---------------------------------------------------------------- blind


@tasks_app.command("blind")
def blind(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASKS]", help="Matching tasks; else those of the default suite."),
    ] = None,
    data: DataOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the reader's options, such as cap=0; repeat."),
    ] = None,
    classifier: Annotated[bool, typer.Option(help="The classifier takes the longest.")] = True,
    allow_partial: PartialOption = False,
    json: JsonOption = False,
) -> None:
    """What a benchmark gives away to scorers that see no picture, from its annotation alone.

    Percent by subset. ruler: the shorter text wins. bigram: the likelier one. classifier: learned
    from the other four fifths. free: records without a wrong answer.
    """
    from fsc_bench.cli.show import Terminal, print_json
    from fsc_bench.task import data_folder, default_suite, select
    from fsc_bench.train.config import parse_setting

    chosen = select(names or [default_suite()])
    if not names:
        chosen = [task for task in chosen if task.kind == "matching"]
    options = dict(parse_setting(word) for word in settings or [])
    found: dict[str, Any] = {}
    problems: dict[str, FscBenchError] = {}
    terminal = Terminal()
    try:
        for task in chosen:
            try:
                records, shortfall = _annotation(
                    task, data_folder(data), options, allow_partial, terminal
                )
                found[task.name] = _blind_facts(task, records, classifier) | shortfall
            except FscBenchError as error:
                problems[task.name] = error
    finally:
        terminal.close()
    if json and found:
        print_json(found)
    for name, facts in {} if json else found.items():
        _print_blind(name, facts)
    _tell(found, problems, every=bool(names))


def _annotation(
    task: "Task", folder: Path, options: Mapping[str, Any], partial: bool, terminal: "Terminal"
) -> tuple[list["Record"], dict[str, Any]]:
    """(records, what they lack): all that are promised, or the subsets that can be read.

    options: of the reader, in place of the task file's; nothing is stored then.
    """
    from fsc_bench.data.evidence import ForeignData
    from fsc_bench.data.prepare import prepare_annotation
    from fsc_bench.score.blind import check_kind

    check_kind(task)
    if options:
        data = replace(task.data, options={**task.data.options, **options})
        records, lacks = _subsets(replace(task, data=data), folder, partial)
        if not records:
            raise DataError(next(iter(lacks["left_out"].values())))
        return records, lacks
    try:
        ready = prepare_annotation(task, folder, partial=partial, say=terminal.say)
    except ForeignData:
        raise
    except DataError:
        records, lacks = _subsets(task, folder, partial)
        if not records:
            raise
        return records, lacks
    return ready.records, {"left_out": {}, "partial": ready.partial}


def _subsets(task: "Task", folder: Path, partial: bool) -> tuple[list["Record"], dict[str, Any]]:
    from fsc_bench.data.prepare import read_subsets
    from fsc_bench.records import broken_promises

    records, left_out = read_subsets(task, folder, partial)
    read = task.leaves.keys() - left_out.keys()
    broken = [line for name, line in broken_promises(task, records) if name in read]
    return records, {"left_out": left_out, "partial": "; ".join(broken)}


def _blind_facts(task: "Task", records: list["Record"], classifier: bool) -> dict[str, Any]:
    """One task's entry of the JSON document."""
    from fsc_bench.score.blind import blind_facts

    nodes = blind_facts(task, records, classifier)
    whole = nodes.pop("headline", None)
    return {"subsets": nodes, "headline": whole}


def _print_blind(name: str, facts: Mapping[str, Any]) -> None:
    from fsc_bench.cli.show import print_table

    rows = [_blind_row(node, values) for node, values in facts["subsets"].items()]
    if facts["headline"]:
        rows += [[], _blind_row("headline", facts["headline"])]
    header = ["subset", "n", "free", "ruler", "bigram", "classifier"]
    print_table(header, rows, f"{name}: percent right without a picture")


def _blind_row(node: str, values: Mapping[str, Any]) -> list[str]:
    cells = []
    for name in ("ruler", "bigram", "classifier"):
        value, strict = values[name], values.get(f"{name}_strict")
        cell = "-" if value is None else f"{value:.1f}"
        differs = strict is not None and f"{strict:.1f}" != cell
        cells.append(f"{cell} (strict {strict:.1f})" if differs else cell)
    return [node, f"{values['n']:,}", f"{values['free']:,}", *cells]


def _tell(found: Mapping[str, Any], problems: Mapping[str, FscBenchError], every: bool) -> None:
    """What is missing, a line each. Raises the first problem where nothing else was to be done."""
    for name, facts in found.items():
        if left := facts["left_out"]:
            subset, why = next(iter(left.items()))
            more = (
                f" So are {', '.join(list(left)[1:])} (--json says why)." if len(left) > 1 else ""
            )
            print(f"{name}: {subset} is left out: {why}{more}", file=sys.stderr)
        if facts["partial"]:
            print(f"{name}: partial: {facts['partial']}", file=sys.stderr)
    if problems and (every or not found):
        *others, last = problems.values()
        for error in others:
            print(f"fsc-bench: {error}", file=sys.stderr)
        raise last
    if problems:
        print(f"Not at hand: {', '.join(problems)}.", file=sys.stderr)


@models_app.callback()
def models(context: typer.Context, json: JsonOption = False) -> None:
    if context.invoked_subcommand is None:
        _show_families(json)


def _show_families(json: bool) -> None:
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.models import describe, examples

    found, names = describe(), examples()
    if json:
        facts = [{"family": family, "what": what} for family, what in found.items()]
        print_json([{**one, "examples": names[one["family"]]} for one in facts])
        return
    print_table(["family", "what it loads"], [list(pair) for pair in found.items()])
    print("\nAs -m takes them:")
    for family in found:
        for name in names[family]:
            print(f"  -m '{name}'" if "?" in name else f"  -m {name}")


@models_app.command("zoo")
def zoo(json: JsonOption = False) -> None:
    """Fine-tuned models of others: what each starts from, how it is read and what it needs."""
    from fsc_bench.cli.show import print_json, print_table

    found = _fine_tunes()
    if json:
        print_json(found)
        return
    columns = ("model", "title", "architecture", "activation", "layout", "licence")
    rows = [
        [*(one[name] for name in columns), "by hand" if one["by_hand"] else "Hub"] for one in found
    ]
    print_table([*columns, "from"], rows)
    print("\nTo be downloaded by hand, and named behind the @:")
    for one in found:
        if one["by_hand"]:
            print(f"  {one['model']}@FILE: {one['by_hand']}")
    print("\nThe others are fetched from the Hub. --json tells papers, bases, LoRA and scores too.")


def _fine_tunes() -> list[dict[str, Any]]:
    """Every entry of the catalogue, and the twelve models of FSC-CLIP, which have a family."""
    from fsc_bench.models.checkpoints import catalogue, released

    found = []
    for name in catalogue.names():
        facts = catalogue.entry(name)
        found.append({"model": f"zoo:{name}", **to_builtins(facts), "by_hand": facts.by_hand})
    for name, one in released.released().items():
        lora = {"rank": 4, "alpha": 1.0} if "-lora-" in name else None
        found.append(
            {
                "model": f"fsc_clip:{name}", "title": "FSC-CLIP", "paper": "arXiv:2410.05210",
                "architecture": one.architecture.removesuffix("-quickgelu"),
                "activation": "quickgelu" if one.quick_gelu else "gelu", "layout": "state",
                "licence": "not checked", "lora": lora, "by_hand": "",
                "get": {"hub": released.REPOSITORY, "file": one.file, "sha256": one.sha256},
            }
        )  # fmt: skip
    return found
