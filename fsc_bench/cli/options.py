"""Options: what several commands share on their command lines."""

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder; default $FSC_BENCH_DATA or ~/.cache/fsc_bench."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def split_words(values: list[str] | None) -> list[str]:
    """`-t a -t b,c` as [a, b, c]."""
    return [part for value in values or [] for part in value.split(",") if part]
