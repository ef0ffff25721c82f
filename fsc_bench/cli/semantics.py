"""`fsc-bench semantics`: what fine-tuning did to similarities, of finished models."""

from pathlib import Path
from typing import Annotated

import typer

from fsc_bench.cli.options import DeviceOption, JsonOption
from fsc_bench.errors import UsageError

WORLD = "world:finetune?pairs=2000&seed=7"  # scenes that the demo's recipes do not train on


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the command line."""
    app.command("semantics")(semantics)


def semantics(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="FAMILY:CHECKPOINT.")],
    base: Annotated[
        str | None, typer.Option(help="The model before fine-tuning: drift and differences.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="KIND:PATH of image-text pairs, as `train --data`. [default for the demo's "
            "models: the demo world]"
        ),
    ] = None,
    negatives: Annotated[
        str | None, typer.Option(help="As in a recipe: data, rules, spacy, file:FILE.")
    ] = None,
    positives: Annotated[
        str | None, typer.Option(help="Paraphrases: data, or captions of the same image.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, help="So many, at most.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Draws pairs and texts.")] = 0,
    gamma: Annotated[float, typer.Option(min=0, help="Of the focal weight.")] = 2.0,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of what is written.")] = Path(
        "semantics"
    ),
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Cosines of captions with hard negatives, paraphrases and others; drift; how sure it is."""
    import shlex

    from fsc_bench import __version__
    from fsc_bench.cli.show import Terminal, print_json, print_table, tell
    from fsc_bench.data.images import read_links
    from fsc_bench.models import check_named
    from fsc_bench.study import similarity as study
    from fsc_bench.system.files import write_json, write_text
    from fsc_bench.task import data_folder

    every = [base, *models] if base else models
    if len(set(every)) < len(every):
        raise UsageError("a model is named twice.")
    for name in every:
        check_named(name)
    chosen = data or _default_data(every)
    options = {
        "--base": base, "--data": data, "--negatives": negatives, "--positives": positives,
        "--pairs": pairs, "--seed": seed, "--gamma": f"{gamma:g}",
    }  # fmt: skip
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    of_world = chosen.startswith("world:")
    probe = study.probe_pairs(
        chosen,
        negatives or ("data" if of_world else "rules"),
        positives or ("data" if of_world else "captions"),
        pairs,
        seed,
        read_links(data_folder(None)),
    )
    terminal = Terminal()
    try:
        found = study.measure(
            models, base, probe, seed=seed, focal_gamma=gamma, device=device,
            progress=terminal.progress,
        )  # fmt: skip
    finally:
        terminal.close()
    how = {
        "data": f"{len(probe.indices):,} pairs {probe.where}, hard negatives of "
        f"{getattr(probe.negatives, 'version', 'the data')}",
        "gamma": gamma,
        "command": shlex.join(
            ["fsc-bench", "semantics", *models, *(p for one in given for p in one)]
        ),
        "fsc_bench": __version__,
    }
    lines = study.table(found)
    document = study.document(found, lines, how)
    write_text(out / "semantics.md", study.markdown(found, lines, how))
    write_json(out / "semantics.json", document)
    if json:
        print_json(document)
    else:
        print_table(study.header(found), [study.cells_of(line) for line in lines], how["data"])
    tell(f"Written: {out / 'semantics.md'}, {out / 'semantics.json'}")


def _default_data(models: list[str]) -> str:
    from fsc_bench.cli.train import _knows_only_the_demo_world

    if all(map(_knows_only_the_demo_world, models)):
        return WORLD
    raise UsageError("--data KIND:PATH: name image-text pairs to measure on, as for `train`.")
