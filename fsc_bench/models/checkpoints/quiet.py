"""Quiet: open_clip logs to the root logger, which would set itself up and print at the first line.

It warns of random weights wherever no tag is named, also where a checkpoint is loaded next.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what is logged to the root logger within the block to handlers that were there."""
    root = logging.getLogger()
    nobody = logging.NullHandler()

    def wanted(record: logging.LogRecord) -> bool:
        return "nitialized randomly" not in record.getMessage()

    root.addHandler(nobody)
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
        root.removeHandler(nobody)
