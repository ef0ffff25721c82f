"""`fsc-bench profile`: what each part of a training step costs. Parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsc_bench.cli.options import DeviceOption, JsonOption

if TYPE_CHECKING:
    from fsc_bench.study.profile import Found, Wish


def add_commands(app: typer.Typer) -> None:
    """Adds the command of this module to the command line."""
    app.command("profile")(profile)


def profile(
    architectures: Annotated[
        list[str] | None,
        typer.Option(
            "-a", "--architecture", help="One of open_clip's; repeat for more. [default: ViT-B-32, "
            "ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-SO400M-14-SigLIP-384]",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures a step, at least 2.")] = 8,
    negatives: Annotated[int, typer.Option(help="Hard negatives of each.")] = 3,
    words: Annotated[int, typer.Option(help="Words of each text, a token each.")] = 11,
    device: DeviceOption = "auto",
    repeats: Annotated[int, typer.Option(help="Times that everything is measured.")] = 3,
    limit: Annotated[
        float, typer.Option(help="Seconds of an architecture beyond which it is worked out.")
    ] = 120,
    memory: Annotated[
        float | None,
        typer.Option(help="GB that the largest batch must fit. [default: the device's own]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Writes profile.json, profile.csv, profile.svg there."),
    ] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """The cost of a training step, part by part: time, memory, FLOPs; measured and worked out."""
    from fsc_bench.cli.show import Terminal
    from fsc_bench.errors import UsageError
    from fsc_bench.study import profile as study

    if not limit >= 0:
        raise UsageError(f"--limit {limit:g}: seconds are 0 or more; 0 works out everything.")
    if memory is not None and not 0 < memory < 1e6:
        raise UsageError(f"--memory {memory:g}: write gigabytes, above 0 and below a million.")
    wish = study.Wish(
        tuple(architectures or study.ARCHITECTURES), study.Workload(batch, negatives, words),
        device, repeats, None if memory is None else int(memory * 1e9), limit,
    )  # fmt: skip
    study.check(wish)
    terminal = Terminal()
    try:
        found = study.profile(wish, terminal.progress)
    finally:
        terminal.close()
    _show(found, _how(wish), out, json)


def _how(wish: "Wish") -> dict[str, Any]:
    """What repeats the numbers."""
    import shlex

    import torch

    from fsc_bench import __version__

    work = wish.workload
    command = ["fsc-bench", "profile", *(w for name in wish.architectures for w in ("-a", name)),
               "--batch", work.batch, "--negatives", work.negatives, "--words", work.words,
               "--device", wish.device, "--repeats", wish.repeats,
               "--limit", f"{wish.limit:g}"]  # fmt: skip
    if wish.memory:
        command += ["--memory", f"{wish.memory / 1e9:g}"]
    return {
        "command": shlex.join(map(str, command)),
        "fsc_bench": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": "fp32",
        "batch": work.batch,
        "negatives": work.negatives,
        "words": work.words,
    }


def _show(found: "Found", how: dict[str, Any], out: Path | None, json: bool) -> None:
    from fsc_bench.cli.show import print_json, print_table, say
    from fsc_bench.study import profile_tables as tables

    document = tables.document(found, how)
    if json:
        print_json(document)
    else:
        for one in found.profiles:
            print_table(tables.HEADER, tables.rows(one), tables.title(one))
            print()
        words = f"Of a step with the local loss over one without; {found.device}"
        if found.capacity:
            words += f", {found.capacity / 1e9:.1f} GB"
        print_table(*tables.upright(found), words)
        say(
            f"{how['batch']} pictures, {how['negatives']} hard negatives each, texts of "
            f"{how['words']} words, {how['precision']}, {how['threads']} threads, torch "
            f"{how['torch']}. Towers give dense tokens; steps include AdamW; making of negatives "
            "is beside the step, in the processes that read."
        )
    if out is not None:
        _write(found, document, out)


def _write(found: "Found", document: dict[str, Any], out: Path) -> None:
    """profile.json, profile.csv, and profile.svg where the extra html is there."""
    import csv
    import io

    from fsc_bench.cli.show import tell
    from fsc_bench.errors import UsageError
    from fsc_bench.report.pictures import shares, svg
    from fsc_bench.study import profile_tables as tables
    from fsc_bench.system.files import write_json, write_text

    write_json(out / "profile.json", document)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(tables.csv_rows(found))
    write_text(out / "profile.csv", text.getvalue())
    files = [out / "profile.json", out / "profile.csv"]
    try:
        chart = svg(shares(tables.bars(found), "What an FSC-CLIP step is spent on"))
    except UsageError as error:  # the extra html is not installed
        tell(f"No picture: {error}")
    else:
        write_text(out / "profile.svg", chart)
        files.append(out / "profile.svg")
    tell(f"Written: {', '.join(map(str, files))}")
