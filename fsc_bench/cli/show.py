"""Show: progress, tables and JSON on a terminal. It computes nothing and imports nothing heavy.

What is shown may be a stranger's words: they are escaped here, for the terminal and for rich.
"""

import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from fsc_bench.system.escape import for_terminal

WRONG = ("fsc-bench:", "Traceback")  # how lines begin that a quiet command says too


class Terminal:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere.

    quiet: only what went wrong is said.
    """

    def __init__(self, quiet: bool = False):
        self.quiet, self.tracing = quiet, False
        self.live = sys.stderr.isatty() and not quiet
        self.bar = None
        self.job = None
        self.what = ""
        self.last = time.monotonic()

    def say(self, line: str) -> None:
        told, line = self.tracing or line.startswith(WRONG), for_terminal(line)
        self.tracing = line.startswith(WRONG[1]) or (self.tracing and line.startswith(" "))
        if self.quiet and not told:
            return
        if self.bar:
            self.bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        if self.quiet:
            return
        what = for_terminal(what)
        if not self.live:
            now = time.monotonic()
            if now - self.last > 10:
                self.last = now
                self.say(f"  {what}: {done:,} of {total:,}")
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            self.bar = Progress(
                "[progress.description]{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()
        what = what.replace("[", "\\[")  # a progress bar's words are markup
        if what != self.what:
            if self.job is not None:
                self.bar.remove_task(self.job)
            self.job = self.bar.add_task(what, total=total)
            self.what = what
        self.bar.update(self.job, completed=done, total=total)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def say(text: str) -> None:
    """Lines on stdout."""
    _print_lines(text, sys.stdout)


def tell(text: str) -> None:
    """Lines on stderr: what is no result."""
    _print_lines(text, sys.stderr)


def _print_lines(text: str, file: TextIO) -> None:
    for line in str(text).split("\n"):
        print(for_terminal(line.replace("\t", "    ")), file=file, flush=True)


def print_json(content: Any) -> None:
    """One document on stdout."""
    from fsc_bench.results import plain

    print(json.dumps(plain(content), indent=1, default=str))


def readable_time(seconds: float) -> str:
    """5400 as 1 h 30 min; under a minute in seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout, columns of numbers to the right. An empty row parts groups."""
    numbers = [
        all(re.match(r"[-+\[\d]|$", str(row[place])) for row in rows if row)
        for place in range(len(header))
    ]
    header, title = list(map(for_terminal, header)), for_terminal(title)
    rows = [[for_terminal(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(header, rows, title, numbers)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(title) if title else None
    table = Table(title=heading, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for place, name in enumerate(header):
        justify = "right" if numbers[place] else "left"
        table.add_column(Text(name), justify=justify, overflow="fold")
    for row in rows:
        if row:
            table.add_row(*map(Text, row))
        else:
            table.add_section()
    Console().print(table)


def _print_plain(
    header: Sequence[str], rows: Sequence[Sequence[str]], title: str, numbers: Sequence[bool]
) -> None:
    """For files and pipes: as wide as it needs to be, no frames (and no import of rich: 0.1 s)."""
    lines = [header, *rows]
    widths = [max(len(line[place]) for line in lines if line) for place in range(len(header))]
    if title:
        print(f"{title}\n")
    for line in lines:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=False)
        ]
        print("  ".join(cells).rstrip())
