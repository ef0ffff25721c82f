"""State: what a step changes, as a checkpoint keeps it and a resumed run takes it up again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fsc_bench.errors import UsageError
from fsc_bench.train import sharding
from fsc_bench.train.towers import Teacher


@dataclass(frozen=True)
class Best:
    """The best evaluation on the dev split so far, and how many came `since`."""

    loss: float = math.inf
    step: int = 0
    since: int = 0

    def after(self, loss: float, step: int) -> "Best":
        """Itself, one evaluation older, or the new one where that is better."""
        return Best(loss, step) if loss < self.loss else replace(self, since=self.since + 1)


@dataclass(frozen=True)
class Position:
    """Where a run stands between two steps, beside its weights."""

    thresholds: Tensor  # [K], CE-CLIP's curriculum
    done: int = 0  # steps
    bad_in_epoch: int = 0  # pairs that could not be used
    best: Best = field(default_factory=Best)


@dataclass(frozen=True)
class State:
    """The tensors that training changes: the model's own, the optimiser's, the moving average's."""

    trainable: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    teacher: Teacher | None

    def values(self) -> dict[str, Any]:
        """All of it, by name; `sharding.whole` gathers what is sharded."""
        return {
            "trainable": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "teacher": dict(self.teacher.towers.named_parameters()) if self.teacher else {},
        }

    def weights(self) -> dict[str, Tensor]:
        """The model's own part alone."""
        return {name: value.detach() for name, value in self.trainable.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes over what `values` gave. Raises UsageError for another model's."""
        self.restore_weights(values["trainable"])
        sharding.load_optimizer(self.optimizer, values["optimizer"])
        self.scaler.load_state_dict(values["scaler"])
        if self.teacher:
            _load_named(dict(self.teacher.towers.named_parameters()), values["teacher"])

    def restore_weights(self, values: Mapping[str, Tensor]) -> None:
        _load_named(self.trainable, values)


@torch.no_grad()
def _load_named(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    if parameters.keys() != values.keys():
        raise UsageError("the checkpoint is of another model: its weights have other names.")
    for name, parameter in parameters.items():
        parameter.copy_(sharding.part_of(values[name], parameter))
