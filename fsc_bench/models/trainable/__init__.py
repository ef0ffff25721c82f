"""Trainable: what a model of any family gives `fsc-bench train`, and what it leaves on disk.

A model that can be trained has one more method, `trainable()`, which gives a `Trainable`. A family
that is not open_clip's brings towers that say themselves what the trainer must know of them:

    visual.with_tokens(images)   features [B, D] and tokens [B, P, D], neither of unit length
    visual.tokens_are            what those tokens are, in words
    text.with_tokens(ids)        features [N, D] and tokens [N, T, D]
    text.pool_type               the token that is pooled: "first", "last" or "argmax"
    text.masks_padding           True where padding is not read, so that texts may be cut
    model.key_biases()           (bias, which part of it is the keys', of how many): the biases of
                                 attention's keys, of which softmax takes no notice
    model.left_alone             what becomes of parts that no loss reaches, in words
    model.set_grad_checkpointing(enable)

Nothing here trains: the losses, the steps and the files are train/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from fsc_bench.errors import UsageError
from fsc_bench.model import Extras, Identity


@dataclass(frozen=True)
class Folder:
    """A model as its family loads it from a folder: small files by name, and its weights."""

    files: Mapping[str, bytes]
    weights: Mapping[str, Tensor]  # of model.safetensors


class Trainable(Protocol):
    """A model in float32 as the trainer takes it.

    model: has `visual`, `encode_text` and `logit_scale`, as open_clip's have. tokenizer: n texts ->
    ids [n, context], filled up. preprocess: a torchvision transform that ends with Normalize.
    saved: FAMILY:NAME where a run leaves a whole model that this family loads, in its folder NAME;
    then it has `folder`. "" where it leaves weights alone.
    """

    model: nn.Module
    tokenizer: Any
    preprocess: Any
    identity: Identity
    extras: Extras
    saved: str

    def folder(self, weights: Mapping[str, Tensor]) -> Folder:
        """The folder that loads as the model with these weights, by the names of `model`."""


def offers_towers(adapter: Any) -> bool:
    """Whether a model of this family can be trained, though perhaps not this one."""
    return callable(getattr(adapter, "trainable", None))


def trainable_of(adapter: Any, name: str, wanted: str = "trained") -> Trainable:
    """Raises UsageError, one line, for a model that cannot be trained, or be what else is `wanted`
    of its towers.
    """
    if not offers_towers(adapter):
        raise UsageError(
            f"model {name!r} cannot be {wanted}: it offers no towers for that. Models of open_clip "
            "do (open_clip:, demo:, run:, ...), and BLIP's (blip: or hf:)."
        )
    return adapter.trainable()
