"""Word order: ARO's four shuffles of a caption, each by a generator whose version is recorded.

`spacy` is the paper's recipe (mertyg/vision-language-models-are-bows, dataset_zoo/
perturbations.py): the same calls of the same two random streams in the same order, so that equal
versions of spaCy, its model and nltk give equal texts; other versions tag and split words
otherwise. `rules` needs no download: it tags by word lists and endings, and makes no shuffle that
leaves the caption as it was. Its texts are for small and private benchmarks, not for comparing with
published numbers.
"""

import random
import re
from collections.abc import Callable, Sequence

import numpy as np

# Words with their part of speech: "noun", "adjective" or "other".
Tagged = list[tuple[str, str]]
NOUNS = ("NN", "NNS", "NNP", "NNPS")
ADJECTIVES = ("JJ", "JJR", "JJS")
MODEL = "en_core_web_sm"


def pre_caption(caption: str, max_words: int = 30) -> str:
    """BLIP's clean-up, which ARO applies to every candidate, the right one too, after shuffling."""
    caption = re.sub(r'[.!"()*#:;~]', " ", caption.lower())
    caption = re.sub(r"\s{2,}", " ", caption).rstrip("\n").strip(" ")
    return " ".join(caption.split(" ")[:max_words])


class Shuffler:
    """The four shuffles, over one stream of captions: each caption moves the random state on."""

    def __init__(self, tag: Callable[[str], Tagged], split: Callable[[str], list[str]], seed: int):
        self.tag, self.split = tag, split
        # The paper seeds the global streams of NumPy and Python; these are the same, but our own.
        self.permutation = np.random.RandomState(seed).permutation
        self.shuffle = random.Random(seed).shuffle

    def __call__(self, caption: str) -> list[str]:
        """The caption and its four shuffles, cleaned: five candidates, the right one first."""
        shuffles = (
            self.nouns_and_adjectives, self.all_but_nouns_and_adjectives,
            self.within_trigrams, self.trigrams,
        )  # fmt: skip
        return [pre_caption(caption), *(pre_caption(one(caption)) for one in shuffles)]

    def nouns_and_adjectives(self, caption: str) -> str:
        tagged = self.tag(caption)
        words = [word for word, _ in tagged]
        for part in ("noun", "adjective"):
            self._permute(words, [i for i, (_, tag) in enumerate(tagged) if tag == part])
        return " ".join(words)

    def all_but_nouns_and_adjectives(self, caption: str) -> str:
        tagged = self.tag(caption)
        words = [word for word, _ in tagged]
        self._permute(words, [i for i, (_, tag) in enumerate(tagged) if tag == "other"])
        return " ".join(words)

    def within_trigrams(self, caption: str) -> str:
        groups = _trigrams(self.split(caption))
        for group in groups:
            self.shuffle(group)
        return " ".join(word for group in groups for word in group)

    def trigrams(self, caption: str) -> str:
        groups = _trigrams(self.split(caption))
        self.shuffle(groups)
        return " ".join(word for group in groups for word in group)

    def _permute(self, words: list[str], places: list[int]) -> None:
        chosen = [words[place] for place in places]
        for place, source in zip(places, self.permutation(len(chosen)), strict=True):
            words[place] = chosen[source]


class RedrawingShuffler(Shuffler):
    """Where a shuffle changed nothing, shuffles all words instead: it makes no ties."""

    def __call__(self, caption: str) -> list[str]:
        right = pre_caption(caption)
        candidates = super().__call__(caption)
        for place in range(1, len(candidates)):
            for _ in range(20):
                if candidates[place] != right:
                    break
                words = right.split(" ")
                self._permute(words, list(range(len(words))))
                candidates[place] = " ".join(words)
        return candidates


def _trigrams(words: Sequence[str]) -> list[list[str]]:
    return [list(words[start : start + 3]) for start in range(0, len(words), 3)]


def generator(kind: str, seed: int) -> tuple[Shuffler, str]:
    """(shuffler, its version, to be recorded). Raises ValueError that says what to install."""
    if kind == "rules":
        return RedrawingShuffler(_rule_tags, _split, seed), f"rules 1, seed {seed}"
    return _spacy(seed)


def _spacy(seed: int) -> tuple[Shuffler, str]:
    try:
        import nltk
        import spacy

        model = spacy.load(MODEL, disable=["parser", "lemmatizer", "ner"])
        nltk.word_tokenize("A test.")
    except ImportError as error:
        raise ValueError(
            f"needs {error.name}: `pip install 'fsc-bench[spacy]' nltk`, `python -m spacy download "
            f"{MODEL}` and `python -m nltk.downloader punkt punkt_tab`"
        ) from None
    except LookupError:
        raise ValueError(
            "needs nltk's sentence splitter: `python -m nltk.downloader punkt punkt_tab`"
        ) from None
    except OSError:
        raise ValueError(f"needs spaCy's model: `python -m spacy download {MODEL}`") from None
    kinds = {**dict.fromkeys(NOUNS, "noun"), **dict.fromkeys(ADJECTIVES, "adjective")}

    def tag(caption: str) -> Tagged:
        return [(token.text, kinds.get(token.tag_, "other")) for token in model(caption)]

    made_by = f"spacy {spacy.__version__}, {MODEL} {model.meta['version']}, nltk {nltk.__version__}"
    return Shuffler(tag, nltk.word_tokenize, seed), f"{made_by}, seed {seed}"


# ---------------------------------------------------------------- tagging by rules

_OTHER = """
    a an the this that these those some any no each every all both another other there here
    it its he his him she her they their them we our us i my me you your who whom which what
    whose and or but nor so yet if while as than then because although when where after
    before until of in on at by for with about against between into through during above
    below to from up down out off over under behind beside besides near next along across
    around inside outside onto upon toward towards without within underneath beneath atop
    among amongst past like is are was were be been being am do does did done has have had
    having will would can could may might must shall should not very too also just only
    still even ever never always together apart away back quite rather much one two three
    four five six seven eight nine ten looks look sits sit stands stand holds hold wears
    wear rides ride plays play eats eat walks walk runs run lies lie shows show lot
"""
_ADJECTIVES = """
    red blue green yellow orange purple pink brown black white grey gray golden silver dark
    light bright pale colorful colourful big small large little tiny huge tall short long
    wide narrow thin thick old young new modern empty full open closed wet dry clean dirty
    hot cold warm cool fresh wooden metal plastic striped spotted dotted plain checked
    checkered solid round square busy nice pretty beautiful good bad happy sad same
    different several many few high low front rear top bottom left right middle larger
    smaller taller shorter bigger
"""
_OTHER, _ADJECTIVES = frozenset(_OTHER.split()), frozenset(_ADJECTIVES.split())
_WORD = re.compile(r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*|[^\sA-Za-z0-9]")  # fmt: skip


def _split(caption: str) -> list[str]:
    return _WORD.findall(caption)


def _rule_tags(caption: str) -> Tagged:
    return [(word, _rule_tag(word.lower())) for word in _split(caption)]


def _rule_tag(word: str) -> str:
    if not word[0].isalpha() or word in _OTHER or word.endswith(("ing", "ed", "ly")):
        return "other"
    if word in _ADJECTIVES or word.endswith(("ful", "ous", "ish", "less", "able")):
        return "adjective"
    return "noun"
