"""Cost: what an image and a text take on this machine, from a short trial on made-up ones."""

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fsc_bench.data.jpeg import open_rgb
from fsc_bench.embed.encode import Encoder, buckets, decoders, wait_for


def calibrate(encoder: Encoder, seconds: float = 2.0) -> dict[str, float]:
    """Seconds that an image, a text and the decoding of an image take, from a short trial."""
    smooth, prepare = encoder.one_image()
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=90)
    one = prepare(smooth)
    batch = encoder.batch
    calls, rows, call = dict(encoder.calls), batch, encoder.strings_at_once
    trial = [_text(number) for number in range(rows)]
    if (tokens := encoder.extras.tokens) is not None:
        ids, lengths = tokens.ids([_text(encoder.tokens)])
        length = int(buckets(lengths, ids.shape[1])[0])
        rows, call = encoder.rows(length), encoder.tokens_at_once
        ids, _ = tokens.ids([_text(number) for number in range(rows)])
        trial = list(ids[:, :length])
        if encoder.extras.trees is not None:
            call = partial(encoder.tree_at_once, rows)
    cost = {
        "image": _time(lambda: encoder.images_at_once([one] * batch, batch), seconds),
        "text": _time(lambda: call(trial, rows), seconds),
        "decode": _time(lambda: prepare(open_rgb(file.getvalue())), seconds / 4),
    }
    encoder.calls = calls
    return {
        "image": cost["image"] / batch,
        "text": cost["text"] / rows,
        "decode": cost["decode"] / decoders(),
    }


def _text(number: int) -> str:
    """One of many made-up texts that begin differently: none spares another's work."""
    return f"{number} dogs on the green grass of a park"


def _time(work: Callable[[], Any], seconds: float) -> float:
    """The least of several trials within `seconds`, the first, which warms up, left out."""
    begun, best = time.perf_counter(), float("inf")
    result = work()
    wait_for(result)
    while True:
        started = time.perf_counter()
        wait_for(work())
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - begun > seconds:
            return best
