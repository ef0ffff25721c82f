"""`fsc-bench doctor [-m MODEL]`: whether a model keeps the protocol; what this installation has."""

from typing import Annotated, Any

import typer

from fsc_bench.cli.options import DataOption, DeviceOption, JsonOption, PrecisionOption
from fsc_bench.errors import GateError


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command()(doctor)


def doctor(
    model: Annotated[str | None, typer.Option("-m", "--model", help="FAMILY:CHECKPOINT.")] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    json: JsonOption = False,
) -> None:
    """What a model is and whether it keeps the protocol; without -m, what this installation has."""
    from fsc_bench.cli.show import print_json, print_table

    if model is None:
        facts: dict[str, Any] = _installation(data)
        if json:
            print_json(facts)
        else:
            print_table(["", "here"], [[key, _words(value)] for key, value in facts.items()])
        return
    from fsc_bench.model import is_pair_scorer
    from fsc_bench.models import load_model
    from fsc_bench.run.examination import examine, in_half

    loaded = load_model(model, device, precision)
    found = examine(loaded)
    facts = found.facts
    if precision == "fp32" and not is_pair_scorer(loaded) and all(c.holds for c in found.checks):
        facts |= in_half(loaded, lambda other: load_model(model, device, other))
    if json:
        print_json({"model": model, **facts, "checks": [vars(one) for one in found.checks]})
    else:
        print_table(["", model], [[key, _words(value)] for key, value in facts.items()])
        rows = [["ok" if one.holds else "BROKEN", one.name, one.found] for one in found.checks]
        print_table(["", "check", "found"], rows)
    broken = [one.name for one in found.checks if not one.holds]
    if broken:
        raise GateError(f"model {model!r}: does not keep the protocol: {', '.join(broken)}.")


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _extras() -> dict[str, str]:
    """Each extra of this package: here, or what it lacks."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    wanted: dict[str, list[str]] = {}
    try:
        lines = requires("fsc-bench") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return {}
    for line in lines:
        if found := re.match(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]", line):
            wanted.setdefault(found[2], []).append(found[1])
    told = {}
    for extra, packages in wanted.items():
        lacking = []
        for package in packages:
            try:
                version(package)
            except PackageNotFoundError:
                lacking.append(package)
        told[f"extra {extra}"] = f"lacks {', '.join(lacking)}" if lacking else "here"
    return told


def _installation(data: Any) -> dict[str, Any]:
    """Versions, the machine, what data are ready, and which packages add to it."""
    import os
    import platform
    import shutil
    from importlib.metadata import PackageNotFoundError, version

    from fsc_bench import __version__
    from fsc_bench.data.prepare import prepared_path
    from fsc_bench.system.plugins import OURS, plugins
    from fsc_bench.task import catalogue, data_folder

    facts: dict[str, Any] = {"fsc_bench": __version__, "python": platform.python_version()}
    for package in ("torch", "open_clip_torch", "transformers", "spacy", "pandas", "pyarrow"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    import torch

    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    folder = data_folder(data)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    prepared = [task.name for task in catalogue().values() if prepared_path(task, folder).exists()]
    groups = ("fsc_bench.models", "fsc_bench.readers", "fsc_bench.tasks")
    added = [one for group in groups for one in plugins(group) if one.package != OURS]
    return facts | {
        "devices": cards or ["cpu"],
        "cores": os.cpu_count(),
        "memory, GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "data folder": str(folder),
        "disk free, GiB": round(shutil.disk_usage(there).free / 2**30, 1),
        "tasks prepared": prepared,
        "plugins": [one.who for one in added],
        **_extras(),
    }
