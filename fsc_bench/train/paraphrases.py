"""Where a batch's paraphrases come from: a column of the data, or another caption of the image.

TSVLC's come from a language model; there is none here. Write its answers into a column and train
with `positives = "data"`.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fsc_bench.errors import UsageError
from fsc_bench.train.batches import Positives
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.sources import BadPair, Pair, Pairs


def paraphrases(config: TrainConfig, pairs: Pairs) -> Positives | None:
    """What `config.positives` names; None where no loss asks for it.

    Raises UsageError where none of 64 pairs has one: the loss would be 0 for ever.
    """
    if not config.positive_text_weight:
        return None
    found = Paraphrases() if config.positives == "data" else SameImage(pairs)
    if not _some(found, pairs):
        raise UsageError(
            'positives = "data": the data brings no paraphrase; set positive_key to their column.'
            if config.positives == "data"
            else 'positives = "captions": no image has a second caption. With a column of '
            'paraphrases set positives = "data", or else positive_text_weight = 0.'
        )
    return found


class Paraphrases:
    """One of the texts that the data gives beside the caption."""

    def draw(
        self,
        indices: Sequence[int],
        pairs: Sequence[Pair],
        rngs: Sequence[np.random.Generator],
    ) -> list[str | None]:
        found = zip(indices, pairs, rngs, strict=True)
        return [self._draw_one(index, pair, rng) for index, pair, rng in found]

    def _draw_one(self, index: int, pair: Pair, rng: np.random.Generator) -> str | None:
        candidates = self._candidates(index, pair)
        for place in rng.permutation(len(candidates)):
            text = candidates[place].strip()
            if text and text != pair.caption:
                return text
        return None

    def _candidates(self, index: int, pair: Pair) -> Sequence[str]:
        return pair.positives


class SameImage(Paraphrases):
    """Another caption of the same image, of the same row or of another: COCO has five."""

    def __init__(self, pairs: Pairs):
        rows = defaultdict(list)
        for index, key in enumerate(pairs.keys):
            rows[key].append(index)
        self.pairs = pairs
        self.rows = {key: found for key, found in rows.items() if len(found) > 1}

    def _candidates(self, index: int, pair: Pair) -> Sequence[str]:
        texts = list(pair.positives)
        for other in self.rows.get(self.pairs.keys[index], ()):
            try:
                texts += [self.pairs.caption(other)] if other != index else []
            except BadPair:
                continue  # that row is counted when its own turn comes
        return texts


def _some(found: Paraphrases, pairs: Pairs) -> bool:
    if isinstance(found, SameImage) and found.rows:
        return True
    for index in np.unique(np.linspace(0, len(pairs) - 1, 64).astype(int)):
        try:
            drawn = found.draw([int(index)], [pairs[int(index)]], [np.random.default_rng(0)])
        except BadPair:
            continue
        if drawn[0] is not None:
            return True
    return False
