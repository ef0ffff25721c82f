"""What gives a negative away by its looks: how often one text-only rule tells it from its caption.

A model trained on negatives that, say, end in " ." learns the full stop and not the picture. That
happened to published ones (69.5% of the negatives of NegCLIP's COCO file, 0.1% of the captions).
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

from fsc_bench.train.negatives.lexicon import article
from fsc_bench.train.negatives.text import WORD

LIMIT = 0.55  # a rule that is right more often than this is an artefact
PUNCTUATION = re.compile(r"[^\w\s]")
SPACE_BEFORE = re.compile(r"\s[.,;:!?]")
AN = re.compile(r"\b(an?) +(\w[\w'-]*)", re.IGNORECASE)


def _wrong_articles(text: str) -> int:
    return sum(one.lower() != article(following) for one, following in AN.findall(text))


LOOKS: dict[str, Callable[[str], float]] = {
    "characters": len,
    "words": lambda text: len(WORD.findall(text)),
    "starts with a capital": lambda text: text[:1].isupper(),
    "capitals": lambda text: sum(map(str.isupper, text)),
    "ends with a full stop": lambda text: text.rstrip().endswith("."),
    "punctuation": lambda text: len(PUNCTUATION.findall(text)),
    "double spaces": lambda text: text.count("  "),
    "spaces before punctuation": lambda text: len(SPACE_BEFORE.findall(text)),
    "space at an end": lambda text: text != text.strip(),
    "wrong a or an": _wrong_articles,
}


def artefacts(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """For each look, how often the best rule on it names the caption of (caption, negative) pairs.

    0.5 is chance. Two families of rules compete: "the one with more (or less) of it, if they differ
    by more than t" with a coin otherwise, and "a text with more (or less) than t is a caption".
    """
    pairs = list(pairs)
    found = {}
    for name, look in LOOKS.items():
        caption = np.array([look(caption) for caption, _ in pairs], float)
        negative = np.array([look(negative) for _, negative in pairs], float)
        found[name] = max(_best_difference(caption - negative), _best_threshold(caption, negative))
    return found


def _best_difference(difference: np.ndarray) -> float:
    best = 0.5
    for threshold in np.unique(np.append(np.abs(difference), 0)):
        above = np.mean(difference > threshold) - np.mean(difference < -threshold)
        best = max(best, 0.5 + abs(above) / 2)
    return float(best)


def _best_threshold(caption: np.ndarray, negative: np.ndarray) -> float:
    best = 0.5
    for threshold in np.unique(np.concatenate([caption, negative])):
        above = np.mean(caption > threshold) - np.mean(negative > threshold)
        best = max(best, 0.5 + abs(above) / 2)
    return float(best)
