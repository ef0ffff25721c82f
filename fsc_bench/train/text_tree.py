"""Texts that begin alike, through a causal text tower once, with gradients.

A hard negative repeats its caption up to the first word that differs, and a token's state depends
on the tokens before it alone. So each beginning is computed once, and padding never; attention
alone sees every text whole. A caption with three hard negatives is 1.4 times as many padded tokens
as nodes of a tree. `models/_prefixes.py` is for scores: it fixes every bit of a vector whatever
else is in the batch, which costs more and has no gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fsc_bench.models.shortcuts.prefixes import Tree
from fsc_bench.train.lora import input_projection


@dataclass(frozen=True)
class TextTree:
    """The texts of some blocks as paths through one tree of tokens.

    token, depth: [nodes]; paths: [N, T] for each block, the node of each token (past a text's end
    any node); home: [nodes], where each node is computed: a token, counted through all blocks.
    """

    token: Tensor
    depth: Tensor
    paths: list[Tensor]
    home: Tensor

    @classmethod
    def of(cls, ids: Sequence[Tensor], ends: Sequence[Tensor]) -> "TextTree":
        """Of token ids [N, T] and end positions [N] for each block; on the CPU."""
        longest = max(block.shape[1] for block in ids)
        grid = np.concatenate([F.pad(b, (0, longest - b.shape[1]), value=-1).numpy() for b in ids])
        lengths = torch.cat(list(ends)).numpy() + 1
        grid[np.arange(longest) >= lengths[:, None]] = -1
        order = np.lexsort(grid.T[::-1])  # those that share the most become neighbours
        tree = Tree.of_rows(grid[order], lengths[order])
        path, fresh = np.empty_like(tree.path), np.empty_like(tree.fresh)
        path[order], fresh[order] = tree.path, tree.fresh

        paths, home, row, start = [], np.empty(len(tree.token), np.int64), 0, 0
        for block in ids:
            some = np.s_[row : row + len(block), : block.shape[1]]
            home[path[some][fresh[some]]] = start + np.flatnonzero(fresh[some])
            paths.append(torch.from_numpy(path[some]))
            row, start = row + len(block), start + block.numel()
        token, depth, home = (torch.from_numpy(part) for part in (tree.token, tree.depth, home))
        return cls(token, depth, paths, home)


def encode(tower: Any, tree: TextTree) -> Tensor:
    """[nodes, width]: open_clip's text transformer up to its last norm, once for each node.

    tower: CLIP or TextTransformer, of plain blocks (`_prefixes.over_tree` knows).
    """
    x = tower.token_embedding(tree.token) + tower.positional_embedding[tree.depth]
    for block in tower.transformer.resblocks:
        x = x + block.ls_1(block.attn.out_proj(_attention(block, x, tree)))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return tower.ln_final(x)


def _attention(block: Any, x: Tensor, tree: TextTree) -> Tensor:
    """[nodes, width]: what each node takes from those before it, the output projection left out."""
    projected = input_projection(block.attn, block.ln_1(x))
    found = []
    for path in tree.paths:
        asked = projected.index_select(0, path.flatten())
        heads = asked.view(*path.shape, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        found.append(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
    return torch.cat(found).index_select(0, tree.home)
