"""Cost: floating-point operations and bytes of a computation, counted kernel by kernel.

The same counting serves a real run and one on tensors that have shapes and no numbers (torch's
device `meta`): what this machine cannot run is worked out that way, from the step's own code. FLOPs
are torch's own (torch.utils.flop_counter): two for each multiplication with its addition in a
matrix product, a convolution or an attention; what goes element by element is not counted. torch
has no formula for the one kernel in which a CPU does attention: it gets the formula of CUDA's.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_OF_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_OF_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
FORMULAS: dict[Any, Callable[..., int]] = {
    _OF_CPU: flop_registry[torch.ops.aten._scaled_dot_product_flash_attention],
    _OF_CPU_BACKWARD: flop_registry[torch.ops.aten._scaled_dot_product_flash_attention_backward],
    **flop_registry,
}
MOMENTS = 8  # bytes that AdamW keeps of a parameter in float32: two moments


@dataclass(frozen=True)
class Count:
    """What one computation took. peak: the most bytes at once, with those that it was given."""

    flops: int
    peak: int
    given: int

    @property
    def added(self) -> int:
        """Bytes at the peak beside what was there before."""
        return self.peak - self.given


def count(work: Callable[[], Any], given: Iterable[Tensor] = ()) -> Count:
    """Runs `work` once and counts. given: tensors that are there before it and count as held."""
    counter = Counter()
    for tensor in given:
        counter.hold(tensor)
    before = counter.live
    with fused_attention(), counter:
        work()
    return Count(counter.flops, counter.peak, before)


class Counter(TorchDispatchMode):
    """FLOPs of every kernel by torch's formulas; bytes of the tensors that are alive, and the most
    there were. A kernel's own scratch space, which it gives back before it returns, is not seen.
    (torch's FlopCounterMode also follows modules, which makes a step of shapes three times slower.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.live = self.peak = 0
        # By storage: its bytes, and what tells that it is gone.
        self._known: dict[int, tuple[int, weakref.ref]] = {}

    def hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known[place] = size, weakref.ref(storage, partial(self._drop, place))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _drop(self, place: int, _: weakref.ref) -> None:
        size, _ = self._known.pop(place)
        self.live -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        formula = FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        for value in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(value, Tensor):
                self.hold(value)
        return result


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention of tensors without numbers as the CPU and CUDA compute it: in one kernel that keeps
    no matrix of words by words. By itself torch takes the path of single products for them.
    """
    functional = nn.functional
    own = functional.scaled_dot_product_attention

    def fused(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, **more: Any,
    ) -> Tensor:  # fmt: skip
        if not query.is_meta:
            return own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
        return _OF_CPU(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


def largest_batch(small: tuple[int, int], large: tuple[int, int], capacity: int) -> int:
    """The largest batch whose peak fits `capacity` bytes, of two batches (pairs, peak bytes): a
    part that every batch takes and a part a pair. 0 where one pair is too many.
    """
    slope = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - slope * small[0]
    return max(0, int((capacity - fixed) // slope))
