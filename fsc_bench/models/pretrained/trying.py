"""Trying: whether the model, image processor and tokenizer of a repository work together."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from fsc_bench.errors import UsageError, one_line
from fsc_bench.model import stacked
from fsc_bench.models.pretrained.kinds import Kind
from fsc_bench.system.memory import out_of_memory

SIZES = ((40, 61), (97, 33))  # of the pictures that a model is tried with
TEXTS = ("a", "two dogs, and a red ball")


def try_out(
    preprocess: Callable, use: Callable[[Tensor, Sequence[str]], Any], kind: Kind, config: Any,
    spec: str,
) -> None:  # fmt: skip
    """Raises UsageError where `use`, of two pictures and two texts, raises anything, or pictures do
    not all come out in the size that the image tower was made for: BLIP's would take the positions
    of others without a word.
    """
    try:
        pictures = [preprocess(Image.new("RGB", size, (200, 100, 50))) for size in SIZES]
        shapes = [tuple(one.shape) for one in pictures]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"the image processor gives {shapes[0]} and {shapes[1]} for pictures of two sizes"
            )
        wants = _size(kind, config)
        if wants and shapes[0][-2:] != wants:
            raise ValueError(
                f"the image processor gives pictures of {_by(shapes[0][-2:])}, the image tower "
                f"takes {_by(wants)}"
            )
        use(stacked(pictures), list(TEXTS))
    except Exception as error:
        if isinstance(error, MemoryError) or out_of_memory(error):
            raise
        raise UsageError(
            f"model {spec!r}: its model, image processor and tokenizer do not work together: "
            f"{type(error).__name__}: {one_line(error)}."
        ) from None


def _size(kind: Kind, config: Any) -> tuple[int, int] | None:
    """Height and width of the pictures that an image tower takes; nothing where that is open."""
    if kind.packed or kind.any_size:
        return None
    tower = getattr(config, "vision_config", None) or config.image_config
    size = tower.image_size
    return tuple(size) if isinstance(size, list | tuple) else (size, size)


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
