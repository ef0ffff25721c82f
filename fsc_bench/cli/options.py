"""Options: the types of options that several commands share, or that one has many of."""

from pathlib import Path
from typing import Annotated

import typer


def _set_data(context: typer.Context, folder: Path | None) -> Path | None:
    """Holds until the command ends: a task without a file is made of what lies there."""
    from fsc_bench.task import data_at

    context.with_resource(data_at(folder))
    return folder


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        callback=_set_data,
        is_eager=True,
        help="Data folder; default $FSC_BENCH_DATA or ~/.cache/fsc_bench.",
    ),
]
LockedOption = Annotated[
    Path | None,
    typer.Option("--locked", metavar="FILE", help="Refuse what a lock file does not name."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "-m",
        "--model",
        help="FAMILY:CHECKPOINT; repeat for more. @models.txt names one a line; "
        "'open_clip:ViT-B-32@ckpts/*.pt' every file.",
    ),
]
TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "-t", "--tasks", help="Names, groups, suites, globs or TOML files; else the default suite."
    ),
]
ExcludeOption = Annotated[
    list[str] | None, typer.Option("-x", "--exclude", help="Tasks to leave out.")
]
DemoOption = Annotated[
    bool, typer.Option("--demo", help="The embedded miniature suite and its models.")
]
RunsOption = Annotated[
    Path | None, typer.Option("-o", "--out", help="Where runs go. [default: runs]")
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="Only N records a subset; the result is flagged.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be encoded.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Images at once. [default: found by trying]")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="torch.compile the image tower (CUDA; moves bits).")
]
ExactOption = Annotated[
    bool | None,
    typer.Option(
        "--exact/--no-exact",
        help="Equal bits, whatever is encoded beside an item. [default: on a CPU only]",
    ),
]
PromptsOption = Annotated[
    str | None,
    typer.Option(help="Prompt set where they differ: elevater, openai, clip_benchmark."),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say only results and what went wrong.")
]
WatchOption = Annotated[
    Path | None,
    typer.Option(
        "--watch",
        help="Score this folder's checkpoints as they appear, until stopped; -m names their "
        "architecture.",
    ),
]
PartialOption = Annotated[
    bool, typer.Option("--allow-partial", help="Score incomplete data; the result is flagged.")
]


def _set_budget(context: typer.Context, texts: list[str] | None) -> list[str] | None:
    """Holds until the command ends, in what it starts as well."""
    from fsc_bench.system.budget import within

    context.with_resource(within(texts))
    return texts


BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        callback=_set_budget,
        metavar="KEY=N,...",
        help="The most that one file, archive or download may take: pixels=100M,bytes=2G,"
        "growth=200,members=5M,depth=1k,download=500G,seconds=86400,speed=1k,outside=1 are the "
        "defaults; also $FSC_BENCH_BUDGET.",
    ),
]


def split_words(values: list[str] | None) -> list[str]:
    """`-t a -t b,c` as [a, b, c]."""
    return [part for value in values or [] for part in value.split(",") if part]
