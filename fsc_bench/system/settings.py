"""Settings of the whole process, made in one place while a command works and put back after it.

`working` is what `run` and `train` stand in. Nothing else sets any of them: building a model or
an encoder changes nothing outside itself.
"""

import gc
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
MMAP = 32 << 20  # bytes; the most that glibc takes, and what it arrives at with large blocks
TRIM = 64 << 20  # bytes; what glibc arrives at by itself
# Seconds after which a busy thread lets another one have the interpreter; Python's own is 0.005.
# A thread that decodes returns from C some fifteen times a picture, and beside one that is busy in
# Python (numba compiling, texts tokenised) it waits so long each time. Sixteen threads of fifteen
# calls that sleep 0.5 ms each: 1,790 rounds a second alone, 157 beside a busy thread, 1,205 so.
SWITCH = 0.0001


@contextmanager
def working(tf32: bool = False) -> Iterator[Callable[[], None]]:
    """Within it: float32 products are not rounded to TF32 unless `tf32`; glibc keeps freed memory;
    threads take turns often; what exists now is not walked through by the garbage collector. Gives
    a function that adds what exists later, such as a million records, to that.
    """
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    # cuDNN would by default round the patch embedding; published numbers are float32.
    products.allow_tf32 = convolutions.allow_tf32 = tf32
    keep_memory()
    turns = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    gc.freeze()
    try:
        yield gc.freeze
    finally:
        gc.unfreeze()
        sys.setswitchinterval(turns)
        _set_glibc(TRIM)
        products.allow_tf32, convolutions.allow_tf32 = before


def keep_memory() -> None:
    """Tells glibc to keep freed memory: a tower's activations are as large at every batch.

    Without it each of them comes from the kernel anew, page by page, which costs a CPU 5 to 10% of
    a tower's time and of a training step. Elsewhere (macOS, musl) nothing happens.
    """
    _set_glibc(2**31 - 1)


def _set_glibc(trim: int) -> None:
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    mallopt(MMAP_THRESHOLD, MMAP)
    mallopt(TRIM_THRESHOLD, trim)
