"""Batch normalisation by the statistics of the batch of all processes, not of a process's share.

As torch's SyncBatchNorm, which knows GPUs only: the same weights with one process or many.
"""

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Layers whose forward is torch's own; a subclass may do more.
KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(model: nn.Module) -> None:
    """Makes every batch normalisation of `model` one of all processes, in place; names stay."""
    for module in model.modules():
        if type(module) in KNOWN:
            module.__class__ = _SYNCHRONISED[type(module)]


class _OverProcesses:
    """The training forward of a batch normalisation whose batch lies in equal shares."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            values = input.to(torch.promote_types(input.dtype, torch.float32))
            places = [0, *range(2, values.ndim)]
            count = values.numel() // values.shape[1] * distributed.get_world_size()
            shape = (1, -1, *(1 for _ in places[1:]))
            mean = _SumOfAll.apply(values.sum(places)) / count
            centred = values - mean.view(shape)
            variance = _SumOfAll.apply(centred.square().sum(places)) / count
            self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
            output = centred * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # a plain mean of all batches
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes, with the gradient of the sum of their losses."""

    @staticmethod
    def forward(ctx, tensor):
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(tensor)
        return tensor

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient


_SYNCHRONISED = {
    plain: type(f"Synchronised{plain.__name__}", (_OverProcesses, plain), {}) for plain in KNOWN
}
