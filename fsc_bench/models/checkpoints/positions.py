"""Positions: embeddings of places and of tokens, resized for another image size or text length.

As open_clip's `resize_pos_embed` and `resize_text_pos_embed` do it: bicubic with antialiasing over
the grid of places, linear over the tokens. A vector for the class token stays as it is.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsc_bench.errors import UsageError

POSITIONS = ("positional_embedding", "pos_embed")


def is_of_text(name: str) -> bool:
    """Whether a position embedding is of the text tower."""
    return "text" in name or name == "positional_embedding"


def interpolated(
    model: nn.Module, state: Mapping[str, Tensor], spec: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(the state with position embeddings of the model's lengths, what was resized in words).

    Raises UsageError where nothing is to be resized, and for places that form no square.
    """
    own, found, notes, unlike = model.state_dict(), dict(state), [], False
    for name, tensor in state.items():
        wanted = own.get(name)
        if wanted is None or not name.endswith(POSITIONS) or wanted.shape == tensor.shape:
            continue
        if tensor.shape[-1] != wanted.shape[-1] or tensor.ndim != wanted.ndim:
            unlike = True  # another width: it does not fit, and `fit` says so
            continue
        there, here = tensor.shape[-2], wanted.shape[-2]
        flat = tensor.float().reshape(there, -1)
        resize = _tokens if is_of_text(name) else _places
        new = resize(flat, here)
        if new is None:
            raise UsageError(
                f"model {spec!r}: {name} has {there} places in the file, {here} in this "
                "architecture, which are not both squares: they cannot be interpolated."
            )
        found[name] = new.reshape(wanted.shape).to(tensor.dtype)
        notes.append(f"{name} interpolated from {there} to {here}")
    if not notes and not unlike:
        raise UsageError(
            f"model {spec!r}: resize=interpolate: every position embedding of the file has the "
            "architecture's length. Leave it out."
        )
    said = f"{'; '.join(notes)}: the model as it was trained had other sizes."
    return found, (said,) if notes else ()


def _tokens(table: Tensor, length: int) -> Tensor:
    """[tokens, width] as [length, width]."""
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


def _places(table: Tensor, length: int) -> Tensor | None:
    """[places, width] as [length, width]; None where these are no square grids."""
    for extra in (1, 0):  # the class token, in front
        old, new = len(table) - extra, length - extra
        side, wanted = math.isqrt(old), math.isqrt(new)
        if old > 0 and new > 0 and side**2 == old and wanted**2 == new:
            grid = table[extra:].T.reshape(1, -1, side, side)
            grid = F.interpolate(
                grid, size=(wanted, wanted), mode="bicubic", antialias=True, align_corners=False
            )
            return torch.cat([table[:extra], grid[0].flatten(1).T])
    return None
