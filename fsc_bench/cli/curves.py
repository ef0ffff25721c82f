"""`fsc-bench curves`: what training runs logged, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fsc_bench.errors import UsageError, near_miss

USUAL = ("loss", "contrastive", "global_hn", "local_hn", "negative_accuracy", "logit_scale",
         "dev_loss")  # fmt: skip
PROBE = "probe"  # the word for all that a probe says, and how its metrics begin

Steps = list[dict[str, Any]]


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the command line."""
    app.command("curves")(curves)


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Training runs: folders of `train -o`.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--metric",
            help="What to draw, with commas or repeated; `probe`: all that `probe_every` logged. "
            "[default: losses, accuracies, scales and the probe]",
        ),
    ] = None,
    seeds: Annotated[
        bool,
        typer.Option(
            "--seeds",
            help="Runs that differ in nothing but their seed are one line of the probe: their "
            "mean, with a band from the least to the greatest.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture.")] = Path("curves.svg"),
) -> None:
    """Draws what training runs logged along their steps: losses, accuracies, scales, the probe."""
    from fsc_bench.cli.options import split_words
    from fsc_bench.report.pictures import svg
    from fsc_bench.system.files import write_text

    if out.suffix != ".svg":
        raise UsageError(f"-o {out}: the picture is an .svg file.")
    if len(set(runs)) < len(runs):
        raise UsageError("a run is named twice.")
    found = {run: read_metrics(run) for run in runs}
    known = sorted({key for steps in found.values() for row in steps for key in row} - {"step"})
    probed = any(key.startswith(f"{PROBE}_") for key in known)
    wanted = split_words(metrics) or [
        name for name in (*USUAL, PROBE) if name in known or (name == PROBE and probed)
    ]
    for name in wanted:
        if name not in known and name != PROBE:
            raise UsageError(
                f"--metric {name!r}: no run logged it.{near_miss(name, known)} "
                f"Logged: {', '.join(known)}."
            )
    if PROBE in wanted and not probed:
        raise UsageError(
            "--metric probe: no run looked at a probe. Train with --set probe_every=20."
        )
    if seeds and PROBE not in wanted:
        raise UsageError("--seeds is for the probe, and no run has one here: leave it out.")
    write_text(out, svg(_chart(found, wanted, seeds)))
    print(f"Written: {out} ({', '.join(wanted)}).")


def _chart(found: Mapping[Path, Steps], wanted: Sequence[str], seeds: bool) -> Any:
    """The metrics below each other, and the panels of the probe beside them."""
    from fsc_bench.report.pictures import beside, mechanism, progress

    title, charts = " and ".join(run.name for run in found), []
    if plain := [name for name in wanted if name != PROBE]:
        charts.append(progress({str(run): steps for run, steps in found.items()}, plain, title))
    if PROBE in wanted:
        from fsc_bench.study.similarity import by_seed

        groups = by_seed(list(found)) if seeds else {str(run): [run] for run in found}
        of_groups = {name: [found[run] for run in own] for name, own in groups.items()}
        charts.append(mechanism(of_groups, "" if charts else title))
    return beside(charts)


def read_metrics(run: Path) -> Steps:
    """The lines of a run's metrics.jsonl. Raises UsageError, one line, where it is no such file."""
    import json

    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UsageError(f"{run}: no training run with metrics (there is no metrics.jsonl).")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UsageError(f"{path}, line {number + 1}: no logged step: {line[:60]!r}.")
        found.append(row)
    if not found:
        raise UsageError(f"{path}: it is empty; the first step is logged soon after the start.")
    return found
