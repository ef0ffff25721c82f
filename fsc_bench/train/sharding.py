"""Sharding: weights, gradients and optimiser state cut over the processes (FSDP2), block by block.

It computes what DistributedDataParallel computes, in less memory; what is written is whole, so that
a run directory does not tell how it was trained. Where nothing is sharded, every function here
hands back what it got.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from fsc_bench.errors import UsageError


def shard(towers: nn.Module, device: str) -> None:
    """Shards every block of `towers`, then what is left of it, over all processes, in place.

    From then on its parameters are DTensors, of which a process holds the rows of its own, and each
    block is gathered when it is computed. Scalars (the logit scale) stay whole on every process.
    Raises UsageError where this torch cannot leave them out.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise UsageError(
            f'parallel = "fsdp": torch {torch.__version__} cannot leave the logit scale out of '
            'sharding. Use a newer torch, or parallel = "ddp".'
        )
    mesh = init_device_mesh(torch.device(device).type, (distributed.get_world_size(),))
    for block in blocks(towers):
        fully_shard(block, mesh=mesh)
    # Embeddings and projections too are let go after a forward: evaluation has no backward that
    # would, and the optimiser must find shards.
    fully_shard(
        towers, mesh=mesh, reshard_after_forward=True, ignored_params=set(scalars(towers))
    )  # fmt: skip


def blocks(towers: nn.Module) -> list[nn.Module]:
    """The layers of the towers' transformers: open_clip keeps them in lists, timm in `blocks`."""
    found = []
    for name, module in towers.named_modules():
        if isinstance(module, nn.ModuleList) or name.endswith(".blocks"):
            found += [child for child in module.children() if any(True for _ in child.parameters())]
    return found


def scalars(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of no dimension, which cannot be cut."""
    return [parameter for parameter in module.parameters() if parameter.ndim == 0]


def average_scalars(module: nn.Module) -> None:
    """Means of the scalars' gradients over the processes, as all other gradients are by now."""
    for parameter in scalars(module):
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def separate_scalars(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser groups of shards or of scalars: one fused step cannot take both."""
    parted = []
    for group in groups:
        for alone in (False, True):
            some = [value for value in group["params"] if (value.ndim == 0) == alone]
            parted += [{**group, "params": some}] if some else []
    return parted


def whole(values: Any, keep: bool = True) -> Any:
    """The same nested dicts and lists with every shard gathered, on the CPU.

    All processes must call it with the same structure; one that does not `keep` gets None in the
    place of gathered tensors.
    """
    if isinstance(values, Mapping):
        return {key: whole(value, keep) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(whole(value, keep) for value in values)
    if not is_shard(values):
        return values
    gathered = values.full_tensor()
    return gathered.detach().cpu() if keep else None


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as `like` holds it: the process's own shard, or all of it."""
    if not is_shard(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has read the whole value: nothing needs to be sent.
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads a whole `state_dict` into an optimiser of shards."""
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    own = {
        number: {name: part_of(value, parameters[number]) for name, value in moments.items()}
        for number, moments in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": own})


def local(value: Tensor) -> Tensor:
    """A process's own part, to compute with element by element."""
    return value.to_local() if is_shard(value) else value


def is_shard(value: Any) -> bool:
    # Without importing DTensor, which runs of one process need not wait for.
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")
