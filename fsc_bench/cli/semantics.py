"""`fsc-bench semantics`: what fine-tuning did to similarities, of finished models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import DeviceOption, JsonOption
from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    from fsc_bench.study.similarity import Readings
    from fsc_bench.train.mechanism import ProbeData

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
            help="KIND:PATH of image-text pairs, as `train --data`. [default for the miniature "
            "models: the miniature world]"
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
    from fsc_bench.cli.show import Terminal
    from fsc_bench.study import similarity as study

    probe = _probe([base, *models] if base else models, data, negatives, positives, pairs, seed)
    options = {
        "--base": base, "--data": data, "--negatives": negatives, "--positives": positives,
        "--pairs": pairs, "--seed": seed, "--gamma": f"{gamma:g}",
    }  # fmt: skip
    given = [(name, str(value)) for name, value in options.items() if value is not None]
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
    _write(found, how, out, json)


def _probe(
    models: list[str], data: str | None, negatives: str | None, positives: str | None,
    pairs: int, seed: int,
) -> "ProbeData":  # fmt: skip
    """The pairs to measure on, once the models' names are known to be right."""
    from fsc_bench.data.images import read_links
    from fsc_bench.models import check_named
    from fsc_bench.study.similarity import probe_pairs
    from fsc_bench.task import data_folder

    if len(set(models)) < len(models):
        raise UsageError("a model is named twice.")
    for name in models:
        check_named(name)
    chosen = data or _default_data(models)
    of_world = chosen.startswith("world:")
    return probe_pairs(
        chosen,
        negatives or ("data" if of_world else "rules"),
        positives or ("data" if of_world else "captions"),
        pairs,
        seed,
        read_links(data_folder(None)),
    )


def _write(found: "dict[str, Readings]", how: dict[str, Any], out: Path, json: bool) -> None:
    """Writes and shows the table."""
    from fsc_bench.cli.show import print_json, print_table, tell
    from fsc_bench.study import similarity as study
    from fsc_bench.system.files import write_json, write_text

    lines = study.table(found)
    document = study.document(found, lines, how)
    write_text(out / "semantics.md", study.markdown(found, lines, how))
    write_json(out / "semantics.json", document)
    if json:
        print_json(document)
    else:
        print_table(study.header(found), [study.cells_of(line) for line in lines], how["data"])
        for line in study.legend(found):
            tell(line)
    tell(f"Written: {out / 'semantics.md'}, {out / 'semantics.json'}")


def _default_data(models: list[str]) -> str:
    from fsc_bench.models.run import suite_known

    if all(map(suite_known, models)):
        return WORLD
    raise UsageError("--data KIND:PATH: name image-text pairs to measure on, as for `train`.")
