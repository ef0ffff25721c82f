"""Memory: when it has run out, giving it back, and keeping it. Nothing here knows a model."""

import gc
import platform


def out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words
    )


def keep_memory() -> None:
    """Tells glibc to keep freed memory: a tower's activations are as large at every batch.

    Without it each of them comes from the kernel anew, page by page, which costs a CPU 5 to 10% of
    a tower's time and of a training step. Elsewhere (macOS, musl) nothing happens.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold = -1, -3  # malloc.h; 32 MiB is the most that glibc takes
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, 2**31 - 1)


def free_memory(thoroughly: bool) -> None:
    import torch

    if thoroughly:
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
