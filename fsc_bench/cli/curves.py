"""`fsc-bench curves`: what training runs logged, as one picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fsc_bench.errors import UsageError, near_miss

USUAL = ("loss", "contrastive", "global_hn", "local_hn", "negative_accuracy", "logit_scale",
         "dev_loss")  # fmt: skip


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the command line."""
    app.command("curves")(curves)


def curves(
    runs: Annotated[list[Path], typer.Argument(help="Training runs: folders of `train -o`.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option("-m", "--metric", help="What to draw, with commas or repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture.")] = Path("curves.svg"),
) -> None:
    """Draws what training runs logged along their steps: losses, accuracies, scales."""
    from fsc_bench.cli.options import split_words
    from fsc_bench.report.pictures import progress, svg
    from fsc_bench.system.files import write_text

    if out.suffix != ".svg":
        raise UsageError(f"-o {out}: the picture is an .svg file.")
    if len(set(runs)) < len(runs):
        raise UsageError("a run is named twice.")
    found = {str(run): read_metrics(run) for run in runs}
    known = sorted({key for steps in found.values() for row in steps for key in row} - {"step"})
    wanted = split_words(metrics) or [name for name in USUAL if name in known]
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--metric {name!r}: no run logged it.{near_miss(name, known)} "
                f"Logged: {', '.join(known)}."
            )
    write_text(out, svg(progress(found, wanted, " and ".join(run.name for run in runs))))
    print(f"Written: {out} ({', '.join(wanted)}).")


def read_metrics(run: Path) -> list[dict[str, Any]]:
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
