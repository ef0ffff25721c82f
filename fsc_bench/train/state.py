"""State: what a step changes, as a checkpoint keeps it and a resumed run takes it up again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fsc_bench.errors import UsageError
from fsc_bench.train import sharding
from fsc_bench.train.towers import Teacher, saved_buffers

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


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

    model: nn.Module
    trainable: Mapping[str, nn.Parameter]  # of the model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    teacher: Teacher | None

    def values(self) -> dict[str, Any]:
        """All of it, by name; `sharding.whole` gathers what is sharded."""
        return {
            "trainable": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "teacher": self._average(),
        }

    def weights(self) -> dict[str, Tensor]:
        """The model's own part alone: what trains, and the running statistics that go with it."""
        values = {**self.trainable, **saved_buffers(self.model)}
        return {name: value.detach() for name, value in values.items()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes over what `values` gave. Raises UsageError for another model's."""
        self.restore_weights(values["trainable"])
        sharding.load_optimizer(self.optimizer, values["optimizer"])
        self.scaler.load_state_dict(values["scaler"])
        _load_named(self._average(), values["teacher"])

    def restore_weights(self, values: Mapping[str, Tensor]) -> None:
        _load_named(self.weights(), values)

    def _average(self) -> dict[str, Tensor]:
        if self.teacher is None:
            return {}
        towers = self.teacher.towers
        return {**dict(towers.named_parameters()), **saved_buffers(towers)}


@torch.no_grad()
def _load_named(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    absent = sorted(tensors.keys() - values.keys())
    if absent and all(name.rpartition(".")[2] in STATISTICS for name in absent):
        raise UsageError(
            f"the checkpoint holds no running statistics ({absent[0]}, ...): an older version of "
            "fsc-bench left them out. It cannot be continued: start anew with another --out."
        )
    if tensors.keys() != values.keys():
        raise UsageError("the checkpoint is of another model: its weights have other names.")
    for name, tensor in tensors.items():
        tensor.copy_(sharding.part_of(values[name], tensor))
