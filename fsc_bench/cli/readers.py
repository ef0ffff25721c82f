"""`fsc-bench readers [NAME]`: what each reader of raw files reads, its options, an example."""

from typing import Annotated, Any

import typer

from fsc_bench.cli.options import JsonOption
from fsc_bench.cli.show import print_json, print_table, say
from fsc_bench.errors import UsageError, near_miss


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(readers)


def readers(
    name: Annotated[str | None, typer.Argument(help="One reader: everything about it.")] = None,
    json: JsonOption = False,
) -> None:
    """Readers of raw files: what a task file's `reader` may say, its options, an example."""
    from fsc_bench.data.readers import docstring, names

    known = names()
    if name is not None and name not in known:
        hint = near_miss(name, known) or f" There are: {', '.join(known)}."
        raise UsageError(f"no reader called {name!r}.{hint}")
    if name:
        facts = _facts(name)
        print_json(facts) if json else _show(facts)
        return
    rows = [{"reader": one, "reads": docstring(one).partition("\n")[0]} for one in known]
    if json:
        print_json(rows)
        return
    print_table(["reader", "what it reads"], [list(row.values()) for row in rows])
    say("`fsc-bench readers NAME` lists a reader's options, with an example.")


def _facts(name: str) -> dict[str, Any]:
    from fsc_bench.data.readers import docstring, load_reader
    from fsc_bench.task import catalogue

    reader = load_reader(name, "readers")
    used = [task.name for task in catalogue().values() if task.data.reader == name]
    return {
        "reader": name,
        "text": docstring(name),
        "options": getattr(reader, "OPTIONS", {}),
        "example": getattr(reader, "EXAMPLE", ""),
        "tasks": used,
    }


def _show(facts: dict[str, Any]) -> None:
    from fsc_bench.task import catalogue

    say(f"{facts['reader']}: {facts['text']}")
    if facts["options"]:
        say("\nDefaults of [data.options]:")
        for key, value in facts["options"].items():
            say(f"    {key} = {_toml(value)}")
    if facts["example"]:
        say(f"\nAn example:\n{facts['example'].strip()}")
    elif facts["tasks"]:
        task = catalogue()[facts["tasks"][0]]
        say(f"\nAs in the shipped task {task.name} ({task.path}):")
        say(f'    [data]\n    reader = "{facts["reader"]}"')
        if task.data.options:
            say("    [data.options]")
        for key, value in task.data.options.items():
            say(f"    {key} = {_toml(value)}")
    if facts["tasks"]:
        say(f"\nShipped tasks with it: {', '.join(facts['tasks'])}.")


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    import json

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)
