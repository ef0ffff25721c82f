"""Memory: when it has run out, and giving it back. Nothing here knows a model."""

import gc


def out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words
    )


def free_memory(thoroughly: bool) -> None:
    import torch

    if thoroughly:
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
