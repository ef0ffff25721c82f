"""Keeping: what a training loop's model, random numbers and autograd are put back to."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def unchanged() -> Iterator[Callable[..., Any]]:
    """Within it: no gradients, no autocast. Gives `keep(model, device="")`, which looks through
    wrappers, sets the model to evaluation, moves it if a device is named, and gives it. At the end,
    after an error too, every model kept is as it was, and so are all random numbers.
    """
    with ExitStack() as after:
        after.callback(_put_numbers_back, random.getstate(), np.random.get_state(),
                       torch.get_rng_state(), _card_states())  # fmt: skip
        after.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                after.enter_context(torch.autocast(kind, enabled=False))

        def keep(model: Any, device: str = "") -> Any:
            bare = unwrapped(model)
            if isinstance(bare, torch.nn.Module):
                _keep_module(bare, device, after)
            return bare

        yield keep


def unwrapped(model: Any) -> Any:
    """The model inside DistributedDataParallel, DataParallel and torch.compile, however nested."""
    while isinstance(model, torch.nn.Module):
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(
            model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel
        ):
            inner = model.module
        if inner is None:
            return model
        model = inner
    return model


def _keep_module(module: torch.nn.Module, device: str, after: ExitStack) -> None:
    modes = [(part, part.training) for part in module.modules()]

    def put_modes_back() -> None:
        for part, training in modes:
            part.training = training

    after.callback(put_modes_back)
    module.eval()
    first = next(module.parameters(), None)
    if device and first is not None and first.device != torch.device(device):
        from fsc_bench.models import pick_device

        wanted = pick_device(device)
        after.callback(module.to, first.device)
        module.to(wanted)


def _card_states() -> list[torch.Tensor]:
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.cuda.get_rng_state_all() if used else []


def _put_numbers_back(python: Any, numbers: Any, cpu: torch.Tensor, cards: list) -> None:
    random.setstate(python)
    np.random.set_state(numbers)
    torch.set_rng_state(cpu)
    if cards:
        torch.cuda.set_rng_state_all(cards)
