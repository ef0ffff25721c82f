"""Packed tokens: the valid tokens of all texts of one image, in one row.

It knows nothing of losses or towers; `losses.local_hn_loss_packed` scores the rows.
A caption fills 12 of its 77 positions on average, so a row of one caption and three hard
negatives is about 50 tokens, where the padded tensors hold 308.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class TextTokens:
    """Texts as a text tower returns them. A batch is one such block, or one per length bucket.

    The masks and indices may stay on the CPU while the tokens are on a GPU: `pack_tokens` then
    plans there, and never waits for the GPU.
    """

    tokens: Tensor  # [N, T, D], raw (not unit length)
    mask: Tensor  # [N, T], true for words and EOT, false for SOT and padding
    image_index: Tensor  # [N], the batch row that each text belongs to
    text_index: Tensor  # [N], 0 for the caption, k for its k-th hard negative


def pack_tokens(blocks: Sequence[TextTokens], batch_size: int) -> tuple[Tensor, Tensor]:
    """Put the valid tokens of each image's texts into one row.

    Returns the tokens `[batch_size, L, D]`, where L is the longest row (at least 1), and the
    index `[batch_size, L]` of the text each token belongs to, -1 (and zeros) for padding.
    Gradients flow to the blocks' tokens. A text whose mask is all false is simply absent.
    """
    sources, rows, texts = [], [], []
    for block in blocks:
        text, position = block.mask.bool().nonzero(as_tuple=True)
        sources.append(text * block.mask.shape[1] + position)
        rows.append(block.image_index[text])
        texts.append(block.text_index[text])
    sizes = [len(source) for source in sources]
    rows, texts = torch.cat(rows), torch.cat(texts)

    counts = torch.bincount(rows, minlength=batch_size)
    length = max(int(counts.max()), 1)
    # Stable sorts, so a row reads caption, first negative, second, ... whatever the blocks' order.
    order = torch.argsort(texts, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    rank = torch.empty_like(rows)
    rank[order] = torch.arange(len(rows), device=rows.device)
    slots = rows * length + rank - (counts.cumsum(0) - counts)[rows]
    index = texts.new_full((batch_size * length,), -1)
    index[slots] = texts

    device = blocks[0].tokens.device
    sources = [source.to(device, non_blocking=True) for source in sources]
    slots = slots.to(device, non_blocking=True).split(sizes)
    tokens = [block.tokens for block in blocks]
    packed = _Place.apply(batch_size * length, sources, slots, *tokens)
    return (
        packed.view(batch_size, length, -1),
        index.view(batch_size, length).to(device, non_blocking=True),
    )


class _Place(torch.autograd.Function):
    """Rows `sources` of each `[N, T, D]` to rows `slots` of zeros `[size, D]`; saves indices only.

    No row is read or written twice, so both directions are plain copies: nothing is added up,
    and the gradient is the same every time, also on a GPU.
    """

    @staticmethod
    def forward(ctx, size, sources, slots, *tokens):
        ctx.sources, ctx.slots, ctx.shapes = sources, slots, [block.shape for block in tokens]
        packed = tokens[0].new_zeros(size, tokens[0].shape[-1])
        for source, slot, block in zip(sources, slots, tokens, strict=True):
            packed.index_copy_(0, slot, block.flatten(0, 1).index_select(0, source))
        return packed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradients = []
        for source, slot, shape in zip(ctx.sources, ctx.slots, ctx.shapes, strict=True):
            block = gradient.new_zeros(shape)
            block.flatten(0, 1).index_copy_(0, source, gradient.index_select(0, slot))
            gradients.append(block)
        return None, None, None, *gradients
