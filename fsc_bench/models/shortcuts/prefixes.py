"""Texts that begin alike, through a causal text tower once: a tree of tokens; no family.

In a causal tower a token's state depends on the tokens before it alone, so what "a dog on" is in
"a dog on grass" it is in "a dog on sand" too. The tokens of a batch of texts become the nodes of a
tree; every matrix product sees each node once and no padding. Captions with their foils have 1.5
times as many tokens as nodes, class names in prompt templates 2 to 3 times.

A node's bits must not depend on what else is in the batch (embed/encode.py says why). Products have
a fixed number of rows. Attention works on questions of 8 neighbouring depths, against all keys up
to the last of them: the shapes follow from a node's depth alone, whichever text stands for it.

Tried against the model's own forward, like everything in towers.py, and used only if it agrees.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.nn import functional as F

from fsc_bench.models.shortcuts import towers as _towers

STRIDE = 8  # depths whose questions are asked together
ENDS = 128  # texts whose last tokens leave the tower together
STEP = 128  # what the rows of a smaller batch are a multiple of
PROBES = (
    *_towers.PROBES,
    "a dog",
    "a dog runs",
    "a dog runs after another dog on the wet grass of a park",
    "a dog runs after another dog on the wet sand of a beach",
    "two dogs play on the sand",
)


@dataclass(frozen=True)
class Tree:
    """Texts as paths: a token that follows the same tokens is one node.

    token, depth: int [nodes]; path: int [n, longest], each text's nodes, past its end any;
    fresh: bool [n, longest], where a text is the first with that node; end: int [n].
    """

    token: np.ndarray
    depth: np.ndarray
    path: np.ndarray
    fresh: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[np.ndarray]) -> "Tree":
        """Of token ids, one int array a text. Neighbours that begin alike share nodes."""
        lengths = np.array([len(ids) for ids in texts])
        grid = np.zeros((len(texts), lengths.max()), np.int64)
        for row, ids in zip(grid, texts, strict=True):
            row[: len(ids)] = ids
        return cls.of_rows(grid, lengths)

    @classmethod
    def of_rows(cls, grid: np.ndarray, lengths: np.ndarray) -> "Tree":
        """Of rows [n, longest] that hold a text up to its length each, and then anything."""
        column = np.arange(grid.shape[1])
        fresh = column >= shared(grid, lengths)[:, None]
        fresh &= column < lengths[:, None]
        # A node's number, in the row where it is fresh and in those below that share it.
        number = np.zeros(grid.shape, np.int64)
        number[fresh] = np.arange(fresh.sum())
        owner = np.maximum.accumulate(np.where(fresh, np.arange(len(grid))[:, None], 0), axis=0)
        path = number[owner, column]
        depth = np.broadcast_to(column, grid.shape)[fresh]
        return cls(grid[fresh], depth, path, fresh, path[np.arange(len(grid)), lengths - 1])


def shared(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int [n]: how many tokens each row begins with that the row before begins with too."""
    same = np.zeros(len(ids), np.int64)
    same[1:] = np.cumprod(ids[1:] == ids[:-1], axis=1).sum(axis=1)
    same[1:] = np.minimum(same[1:], lengths[:-1])
    return np.minimum(same, lengths)


class Prefixes:
    """A causal text tower over trees of tokens: `fsc_bench.model.Trees`.

    tower: open_clip's CLIP or TextTransformer.
    """

    def __init__(self, tower: Any):
        self.tower = tower
        self.blocks = list(tower.transformer.resblocks)
        self.known: dict[tuple[int, int], bool] = {}

    @staticmethod
    def batches(ids: np.ndarray, lengths: np.ndarray, nodes: int) -> Iterator[np.ndarray]:
        """Places of the rows of ids [n, context] in batches of at most `nodes` nodes, in an order
        in which neighbours share much. A text of more tokens than that is a batch of its own.
        """
        order = np.lexsort(ids.T[::-1])
        lengths = lengths[order]
        new = lengths - shared(ids[order], lengths)
        begin = held = 0
        for place in range(len(order)):
            if place > begin and held + new[place] > nodes:
                yield order[begin:place]
                begin, held = place, 0
            held += lengths[place] if place == begin else new[place]
        if len(order):
            yield order[begin:]

    def rows(self, nodes: int, full: int) -> int:
        """How many rows the products of a batch of `nodes` nodes have: fewer than `full` only where
        a trial of this tower's own products shows that no bit of a row depends on it.
        """
        least = -(-nodes // STEP) * STEP
        fitting = (rows for rows in range(least, full, STEP) if self._same_bits(rows, full))
        return next(fitting, max(least, full))

    def _same_bits(self, rows: int, full: int) -> bool:
        if (rows, full) not in self.known:
            noise = torch.Generator().manual_seed(0)
            self.known[rows, full] = True
            for weight, bias in _products(self.blocks[0]):
                x = torch.randn(full, weight.shape[1], generator=noise)
                x = x.to(weight.device, weight.dtype)
                few, many = F.linear(x[:rows], weight, bias), F.linear(x, weight, bias)[:rows]
                self.known[rows, full] &= torch.equal(few, many)
        return self.known[rows, full]

    @torch.no_grad()
    def encode(self, texts: Sequence[np.ndarray], full: int) -> torch.Tensor:
        """Unit vectors [n, d] of token ids, one array a text, what begins alike once."""
        return _towers.unit(self(texts, full))

    def __call__(self, texts: Sequence[np.ndarray], full: int) -> torch.Tensor:
        """Features [n, d] of token ids, one array a text. Products have `full` rows, fewer where
        that moves no bit, more where the texts have more nodes.
        """
        tree = Tree.of(texts)
        rows = self.rows(len(tree.token), full)
        tower, device = self.tower, self.tower.positional_embedding.device
        kind = tower.transformer.get_cast_dtype()
        token, depth = np.zeros((2, rows), np.int64)
        token[: len(tree.token)], depth[: len(tree.token)] = tree.token, tree.depth
        x = tower.token_embedding(torch.from_numpy(token).to(device)).to(kind)
        x = x + tower.positional_embedding[torch.from_numpy(depth).to(device)].to(kind)
        steps = [_Step.of(tree, first, device) for first in range(0, tree.path.shape[1], STRIDE)]
        for block in self.blocks[:-1]:
            x = x + block.ls_1(block.attn.out_proj(_attention(block, x, steps)))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        # Only the ends leave the tower; the last block is worked out for them alone.
        end = torch.from_numpy(np.resize(tree.end, -(-len(texts) // ENDS) * ENDS)).to(device)
        block, answers, found = self.blocks[-1], _attention(self.blocks[-1], x, steps), []
        for part in end.split(ENDS):
            y = x[part] + block.ls_1(block.attn.out_proj(answers[part]))
            y = y + block.ls_2(block.mlp(block.ln_2(y)))
            found.append(_towers.project(tower, tower.ln_final(y)))
        return torch.cat(found)[: len(texts)]


@dataclass(frozen=True)
class _Step:
    """Attention of nodes of STRIDE neighbouring depths, each path that has one once.

    question: [m * STRIDE] and key: [m * depths so far], nodes; answer: which of the m * STRIDE
    answers are kept, for the nodes `kept`; mask [STRIDE, depths so far].
    """

    question: torch.Tensor
    key: torch.Tensor
    answer: torch.Tensor
    kept: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, tree: Tree, first: int, device: Any) -> "_Step":
        last = first + STRIDE
        fresh = tree.fresh[:, first:last]
        path = np.pad(tree.path[:, :last], ((0, 0), (0, max(0, last - tree.path.shape[1]))))
        fresh = np.pad(fresh, ((0, 0), (0, STRIDE - fresh.shape[1])))
        wanted = fresh.any(axis=1)
        path, fresh = path[wanted], fresh[wanted]
        asked = path[:, first:]
        mask = np.arange(last) <= np.arange(first, last)[:, None]
        parts = (asked.ravel(), path.ravel(), np.flatnonzero(fresh), asked[fresh], mask)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))


def _attention(block: Any, x: torch.Tensor, steps: Sequence[_Step]) -> torch.Tensor:
    """[nodes, width]: what each node takes from those before it, the output projection left out."""
    heads = block.attn.num_heads
    x = block.ln_1(x)
    # In two products, because rows that lie together are gathered several times as fast.
    ask, answer = (F.linear(x, *part) for part in _projections(block.attn))
    answers = torch.zeros_like(x)
    for step in steps:
        depths = step.mask.shape[1]
        question = ask[step.question].view(-1, STRIDE, heads, ask.shape[1] // heads)
        key, value = answer[step.key].view(-1, depths, 2, heads, question.shape[-1]).unbind(2)
        found = F.scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in (question, key, value)), attn_mask=step.mask
        )
        found = found.transpose(1, 2).reshape(-1, ask.shape[1])
        answers[step.kept] = found[step.answer]
    return answers


def _projections(attn: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, bias) of the questions, and of keys and values together."""
    sizes = [attn.embed_dim, 2 * attn.embed_dim]
    return list(zip(attn.in_proj_weight.split(sizes), attn.in_proj_bias.split(sizes), strict=True))


def _products(block: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layers = (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj)
    return [*_projections(block.attn), *((layer.weight, layer.bias) for layer in layers)]


def over_tree(model: Any) -> Prefixes | None:
    """The text tower over trees of tokens, where its parts are those that this module knows."""
    tower = model if hasattr(model, "token_embedding") else getattr(model, "text", None)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", ())
    if pool not in ("argmax", "eos") or not all(type(b) is ResidualAttentionBlock for b in blocks):
        return None
    if not blocks or getattr(tower, "cls_emb", None) is not None:
        return None
    return Prefixes(tower)


@torch.no_grad()
def exact_prefixes(model: Any, tokenizer: Callable, device: str) -> Prefixes | None:
    """`over_tree(model)` if it gives what encode_text gives on texts that begin alike, or None."""
    tower = over_tree(model)
    if tower is None:
        return None
    ids = tokenizer(sorted(PROBES))
    whole = _towers.unit(_towers.first(model.encode_text(ids.to(device))))
    lengths = _towers.lengths(ids.numpy(), _towers.pad_of(tokenizer))
    texts = [row[:length] for row, length in zip(ids.numpy(), lengths, strict=True)]
    return tower if _towers.agree(_towers.unit(tower(texts, STEP)), whole) else None
