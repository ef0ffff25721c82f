"""`fsc-bench tasks` and `models`: the catalogue of benchmarks and of model families."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from fsc_bench.cli.options import DataOption, JsonOption


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(tasks)
    app.command()(models)


def tasks(
    name: Annotated[str | None, typer.Argument(help="One task: everything about it.")] = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """The catalogue: each benchmark's size, metric, chance level, access and licence."""
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
                task.data.access,
                task.license or "not stated",
            ]
        )
    header = ["task", "suite/group", "n", "headline", "chance", "access", "licence"]
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
        rows.append([name, count, str(quoted.get(name, ""))])
    print_table(["subset", "n", f"published, {reference[0]}" if reference else ""], rows)
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
    for line in describe(task.evidence):
        print(f"evidence  {line}")
    for source in task.data.sources:
        print("source    " + "  ".join(f"{key}={value}" for key, value in source.items()))
    if task.data.instructions:
        print(task.data.instructions.strip())


def models(json: JsonOption = False) -> None:
    """Model families, and how a model of each is written."""
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
