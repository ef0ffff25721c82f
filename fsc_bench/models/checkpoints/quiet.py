"""Quiet: open_clip logs to the root logger, which would set itself up and print at the first line.

It warns of random weights wherever no tag is named, also where a checkpoint is loaded next, and
logs each error that it raises as well.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what is logged to the root logger itself within the block; errors are raised too."""
    root = logging.getLogger()
    nobody = logging.NullHandler()

    def unwanted(record: logging.LogRecord) -> bool:
        return False

    root.addHandler(nobody)  # without one, the first line that is logged adds one that prints
    root.addFilter(unwanted)
    try:
        yield
    finally:
        root.removeFilter(unwanted)
        root.removeHandler(nobody)
