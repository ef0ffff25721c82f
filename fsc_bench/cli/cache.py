"""`fsc-bench cache info|prune|verify`: what the embedding store holds, and whether it can be
trusted.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import DataOption, JsonOption
from fsc_bench.cli.show import say, tell


def add_commands(app: typer.Typer) -> None:
    """Adds the group `cache`."""
    cache = typer.Typer(help="The embedding store: what it holds, whether it is sound, tidying up.")
    cache.command("info")(info)
    cache.command("prune")(prune)
    cache.command("verify")(verify)
    app.add_typer(cache, name="cache")


def _folders(data: Path | None) -> list[Path]:
    from fsc_bench.embed.upkeep import stores
    from fsc_bench.suite import shipped
    from fsc_bench.task import data_folder

    folder = data_folder(data)
    places = [folder, *(folder / suite.name for suite in shipped().values() if suite.apart)]
    return [one for place in places for one in stores(place / "embeddings")]


def info(data: DataOption = None, json: JsonOption = False) -> None:
    """One line a model: images, texts, size, last use, damage."""
    from fsc_bench.cli.show import print_json, print_table
    from fsc_bench.embed.upkeep import describe

    found = [describe(folder) for folder in _folders(data)]
    if json:
        print_json([{**vars(facts), "folder": str(facts.folder)} for facts in found])
        return
    rows = [
        [
            facts.folder.name[:8],
            facts.model,
            f"{facts.images:,}",
            f"{facts.texts:,}",
            f"{facts.bytes / 1e6:,.1f} MB",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.used)),
            f"{len(facts.damage)} lines" if facts.damage else "",
        ]
        for facts in found
    ]
    total = f"{sum(facts.bytes for facts in found) / 1e6:,.1f} MB"
    rows.append([])
    rows.append(["all", "", "", "", total, "", ""])
    print_table(["store", "model", "images", "texts", "size", "last write", "damage"], rows)
    for facts in found:
        for line in facts.damage:
            tell(line)


def prune(
    stores: Annotated[
        list[str] | None,
        typer.Argument(help="Stores to remove whole, by the start of their name in `cache info`."),
    ] = None,
    older_than: Annotated[
        int | None, typer.Option(metavar="DAYS", help="Remove whole stores unused for so long.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Removes damaged segments, torn ends and doubles; with names or --older-than, whole stores."""
    import shutil

    from fsc_bench.embed.upkeep import describe, in_use
    from fsc_bench.embed.upkeep import prune as tidy
    from fsc_bench.errors import UsageError

    folders = _folders(data)
    for name in stores or []:
        if not any(folder.name.startswith(name) for folder in folders):
            raise UsageError(f"no store begins with {name!r}. `fsc-bench cache info` lists them.")
    freed = 0
    for folder in folders:
        named = any(folder.name.startswith(name) for name in stores or [])
        facts = describe(folder)
        old = older_than is not None and time.time() - facts.used > 86_400 * older_than
        if (named or old) and in_use(folder):
            tell(f"{folder}: a run is writing it; left as it is.")
        elif named or old:
            shutil.rmtree(folder)
            freed += facts.bytes
        elif not stores and older_than is None:
            saved, left = tidy(folder)
            freed += saved
            for line in left:
                tell(line)
    tell(f"{freed / 1e6:,.1f} MB freed.")


def verify(data: DataOption = None, json: JsonOption = False) -> None:
    """Reads every vector and compares it with its checksum. Exit code 4 if any is wrong."""
    from fsc_bench.cli.show import print_json
    from fsc_bench.embed.upkeep import verify as check

    good, lines = 0, []
    for folder in _folders(data):
        count, damage = check(folder)
        good += count
        lines += damage
    if json:
        print_json({"good": good, "damage": lines})
    else:
        say(f"{good:,} vectors are what was written.")
        for line in lines:
            tell(line)
    if any("damaged" in line for line in lines):
        raise typer.Exit(4)
