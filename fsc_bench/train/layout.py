"""Layout: where a text's words lie in its token ids, which differs between tokenizers.

CLIP's texts begin with a start token and end with the highest id; SigLIP's begin with a word, are
filled up by the token that also ends them, and are pooled at their last place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fsc_bench.models.shortcuts import parts


@dataclass(frozen=True)
class TextLayout:
    """Where words lie in a text's token ids; of CLIP unless something else is found.

    start: ids before the first word. pad: what fills up, None where the end token is the highest
    id. pooled: the place that is pooled beside the words, 0 or -1; None where it is the end token,
    or no token of the text's (CoCa's class token).
    """

    start: int = 1
    pad: int | None = None
    pooled: int | None = None

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> "TextLayout":
        """Read off the tower's pooling and the ids of two texts with different first words."""
        pool, text = parts.text_pool(model), parts.text_home(model)
        if pool == "argmax" or not pool:
            return cls()
        ids = tokenizer(["a dog", "two cats"])
        start = int(ids[0, 0] == ids[1, 0])
        pooled = {"last": -1, "first": 0}.get(pool)
        if getattr(text, "cls_emb", None) is not None:
            pooled = None
        return cls(start, int(ids[0, -1]), pooled)

    def end(self, ids: Tensor) -> Tensor:
        """[N]: the place of the end token, or of the last word where padding serves as one."""
        if self.pad is None:
            return ids.argmax(dim=1)
        places = torch.arange(ids.shape[1]) * (ids != self.pad)
        return places.amax(dim=1)

    def mask(self, ids: Tensor, end: Tensor) -> Tensor:
        """[N, T], true for words, the end token and the token that is pooled."""
        place = torch.arange(ids.shape[1])
        mask = (place >= self.start) & (place <= end[:, None])
        if self.pooled is not None:
            mask[:, self.pooled] = True
        return mask


OF_CLIP = TextLayout()
