"""Transform: how a config describes what is done to pictures, checked before it is built.

The config may be a stranger's: a size that fills the memory, or a deviation of 0, is refused.
"""

from typing import Annotated, Any, Literal

import msgspec

from fsc_bench.system.facts import typed

Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]  # pixels
EACH = msgspec.Meta(min_length=3, max_length=3)  # of red, green and blue
Level = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Spread = Annotated[float, msgspec.Meta(gt=0, le=100)]


class Transform(msgspec.Struct, frozen=True):
    """The image transform of a config, which may be a stranger's: no size that fills the memory."""

    size: Side | Annotated[list[Side], msgspec.Meta(min_length=2, max_length=2)] = 224
    mode: Literal["RGB"] = "RGB"
    mean: Annotated[list[Level], EACH] | None = None
    std: Annotated[list[Spread], EACH] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


def check_transform(config: Any, where: str) -> None:
    """Raises UsageError, one line that begins with `where`, for values that no transform has."""
    typed(config, Transform, where)
