"""`spacy`: the paper's recipe [FSC-CLIP, A.1]: a parser's swaps, WordNet replacements, shuffles.

Needs the extra `fsc-bench[spacy]`, the model below and WordNet; nothing is downloaded from here.
Differences from the reference code: the scene graph is read off the dependency tree (its parser
library is no longer kept up), prepositions are weighted by coarse steps of our own, and what would
give a negative away is left out, as in `rules`: capitals move, a/an agree, and the shuffle leaves
punctuation in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Protocol

from fsc_bench.errors import UsageError
from fsc_bench.train.negatives.text import (
    Random,
    Words,
    bigram_shuffles,
    distinct,
    drawn,
    exchanged,
    find_words,
    pick,
    recapitalised,
    replaced,
    shuffled,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

MODEL = "en_core_web_sm"
MODEL_VERSION = "3.8.0"
INSTALL = (
    "pip install 'fsc-bench[spacy]' https://github.com/explosion/spacy-models/releases/download/"
    f"{MODEL}-{MODEL_VERSION}/{MODEL}-{MODEL_VERSION}-py3-none-any.whl"
)
INSTALL_WORDNET = "python -m nltk.downloader wordnet"
VERB_PHRASE = [
    {"POS": "VERB", "OP": "?"},
    {"POS": "ADV", "OP": "*"},
    {"POS": "AUX", "OP": "*"},
    {"POS": "VERB", "OP": "+"},
]
WORDNET_POS = {"NOUN": "n", "PRON": "n", "PROPN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}
DRAWS = 2  # replacements of each word, of which one sentence is then drawn
MODIFIERS = frozenset(["amod", "nummod", "compound", "advmod", "poss"])
SUBJECTS = frozenset(["nsubj", "nsubjpass", "agent"])
OBJECTS = frozenset(["dobj", "obj", "prep", "attr", "agent"])
# Weights fall by steps of ten, from the commonest prepositions of English to the rare ones.
PREPOSITIONS = {
    word: weight
    for weight, words in (
        (1000.0, "of in to for with on at from by"),
        (100.0, "about into through after over between against under without within before"),
        (10.0, "during around toward across behind along near inside outside above below beside"),
        (
            1.0,
            "beneath underneath onto atop alongside amid past beyond opposite despite throughout",
        ),
    )
    for word in words.split()
}


class Thesaurus(Protocol):
    """Words that share a field of meaning, but no meaning."""

    version: str

    def related(self, word: str, pos: str) -> dict[str, float]:
        """Co-hyponyms and antonyms of a lemma with weights; pos as WordNet has it: n, v, a or r."""


class SpacyGenerator:
    """Negatives from a parsed caption; `NegativeGenerator` is the contract.

    nlp: caption -> Doc with tags, parts of speech, lemmas and a dependency parse; without the parse
    (or without lemmas) what needs it is missing. inflect: (lemma, Penn tag) -> form or None.
    argument: what `load` made it from, so that it can be sent to another process.
    """

    name = "spacy"
    kinds = ("swap", "replace", "shuffle")

    def __init__(
        self,
        nlp: Callable[[str], Doc],
        thesaurus: Thesaurus,
        inflect: Callable[[str, str], str | None],
        version: str,
        argument: str | None = None,
    ):
        self.nlp, self.thesaurus, self.inflect = nlp, thesaurus, inflect
        self.version, self.argument = version, argument
        self.related = lru_cache(maxsize=65536)(thesaurus.related)

    def __reduce__(self):
        if self.argument is None:
            raise TypeError("a SpacyGenerator that load() did not make cannot be sent elsewhere.")
        return load, (self.argument,)

    def generate(self, caption: str, rng: Random, count: int = 4) -> dict[str, list[str]]:
        """Up to `count` different negatives a kind; an empty list where there is none."""
        doc = self.nlp(caption)
        tokens = [token for token in doc if not (token.is_punct or token.is_space)]
        # Of each token of the document: its place among the words.
        place = {token.i: k for k, token in enumerate(tokens)}
        spans = [(token.idx, token.idx + len(token)) for token in tokens]
        words = find_words(
            caption, spans, lambda k: tokens[k].pos_ != "PROPN" and tokens[k].text != "I"
        )
        return {
            "swap": distinct(caption, self._swaps(doc, words, place, rng), count),
            "replace": distinct(caption, self._replacements(doc, words, place, rng), count),
            "shuffle": distinct(caption, bigram_shuffles(words, rng), count),
        }

    def _swaps(self, doc: Doc, words: Words, place: dict[int, int], rng: Random) -> Iterator[str]:
        """Two spans of a family exchanged; families are equally likely, and so are their pairs."""
        pairs = []
        for family in _families(doc):
            ends = [(place.get(span.start), place.get(span.end - 1)) for span in family]
            ranges = [(a, b + 1) for a, b in ends if a is not None and b is not None]
            pairs.append(
                [
                    (first, second)
                    for first, second in combinations(sorted(ranges), 2)
                    if _fragment(words, first).lower() != _fragment(words, second).lower()
                ]
            )
        pairs = [family for family in pairs if family]
        while pairs:
            family = pairs[pick(rng, len(pairs))]
            yield exchanged(words, *family.pop(pick(rng, len(family))))
            pairs = [family for family in pairs if family]

    def _replacements(
        self, doc: Doc, words: Words, place: dict[int, int], rng: Random
    ) -> Iterator[str]:
        """Of each word of the scene graph two replacements; then all of these in random order."""
        made = []
        for token in scene_words(doc):
            if token.i not in place:
                continue
            options = dict(self._options(token))
            for _ in range(min(DRAWS, len(options))):
                new = drawn(list(options), list(accumulate(options.values())), rng)
                del options[new]
                made.append((place[token.i], new))
        for k, new in shuffled(made, rng):
            old = words.text[words.starts[k] : words.ends[k]]
            yield replaced(words, k, recapitalised(old, new))

    def _options(self, token: Token) -> Iterator[tuple[str, float]]:
        if token.pos_ == "ADP":
            yield from ((w, p) for w, p in PREPOSITIONS.items() if w != token.lower_)
            return
        pos = WORDNET_POS.get(token.pos_)
        if pos is None or not token.lemma_:
            return
        for lemma, weight in self.related(token.lemma_.lower(), pos).items():
            form = self.inflect(lemma.replace("_", " "), token.tag_)
            if form and form.lower() != token.lower_:
                yield form, weight


def _fragment(words: Words, span: tuple[int, int]) -> str:
    return words.text[words.starts[span[0]] : words.ends[span[1] - 1]]


def _families(doc: Doc) -> list[list[Span]]:
    """The six families of spans, without overlaps, the longest first."""
    from spacy.matcher import Matcher
    from spacy.util import filter_spans

    matcher = Matcher(doc.vocab)
    matcher.add("verb phrase", [VERB_PHRASE])
    chunks = doc.noun_chunks if doc.has_annotation("DEP") else ()
    families = [
        [chunk for chunk in chunks if len(chunk) > 2],
        [doc[start:end] for _, start, end in matcher(doc)],
        [doc[t.i : t.i + 1] for t in doc if t.tag_ == "NN"],
        [doc[t.i : t.i + 1] for t in doc if t.tag_ == "NNS"],
        [doc[t.i : t.i + 1] for t in doc if t.pos_ == "ADV"],
        [doc[t.i : t.i + 1] for t in doc if t.pos_ == "ADJ"],
    ]
    return [filter_spans(family) for family in families]


def scene_words(doc: Doc) -> list[Token]:
    """The words of a caption's scene graph: heads of entities, their modifiers, and relations.

    None unless there are two entities, and a modifier or a relation: less says too little to be
    made wrong. Needs a dependency parse.
    """
    if not doc.has_annotation("DEP"):
        return []
    chunks = list(doc.noun_chunks)
    heads = [chunk.root for chunk in chunks]
    entities = {head.i for head in heads}
    modifiers = [
        token
        for chunk in chunks
        for token in chunk
        if token.dep_ in MODIFIERS and token.i not in entities
    ]
    relations = []
    for token in doc:
        children = list(token.children)
        if token.pos_ == "ADP":
            if any(child.dep_ == "pobj" and child.i in entities for child in children):
                relations.append(token)
        elif token.pos_ == "VERB":
            subject = token.dep_ in ("acl", "relcl") and token.head.i in entities
            subject = subject or any(child.dep_ in SUBJECTS for child in children)
            if subject and any(child.dep_ in OBJECTS for child in children):
                relations.append(token)
    if len(heads) < 2 or not (modifiers or relations):
        return []
    return heads + modifiers + relations


class WordNet:
    """WordNet by nltk: antonyms, and lemmas that share a grandparent (siblings and cousins)."""

    def __init__(self) -> None:
        """Raises UsageError where nltk or its WordNet is missing."""
        try:
            from nltk.corpus import wordnet

            self.version = f"wordnet-{wordnet.get_version()}"
        except ImportError as error:
            raise UsageError(f"negatives 'spacy' needs nltk: {INSTALL}") from error
        except LookupError as error:
            raise UsageError(f"negatives 'spacy' needs WordNet: {INSTALL_WORDNET}") from error
        self.wordnet = wordnet

    def related(self, word: str, pos: str) -> dict[str, float]:
        synsets = self.wordnet.synsets(word, pos)
        own = {lemma.name() for synset in synsets for lemma in synset.lemmas()}
        lemmas = [lemma for synset in synsets for lemma in synset.lemmas()]
        found = [antonym for lemma in lemmas for antonym in lemma.antonyms()]
        if pos == "a":  # adjectives have no hypernyms: over the nouns they come from, and back
            nouns = {
                form.synset()
                for lemma in lemmas
                for form in lemma.derivationally_related_forms()
                if form.synset().pos() == "n"
            }
            found += [
                back
                for synset in sorted(nouns)
                for cousin in _cousins(synset)
                for back in cousin.derivationally_related_forms()
                if back.synset().pos() in "as"
            ]
        else:
            found += [cousin for synset in synsets for cousin in _cousins(synset)]
        weights: dict[str, float] = {}
        for lemma in found:
            if lemma.name() not in own:
                weights[lemma.name()] = max(weights.get(lemma.name(), 1.0), float(lemma.count()))
        return dict(sorted(weights.items()))


def _cousins(synset) -> list:
    return [
        lemma
        for parent in synset.hypernyms()
        for grandparent in parent.hypernyms()
        for aunt in grandparent.hyponyms()
        for cousin in aunt.hyponyms()
        for lemma in cousin.lemmas()
    ]


def inflect(lemma: str, tag: str) -> str | None:
    """The form of a lemma for a Penn tag; None where there is none. Of a phrase, the last word of a
    noun and the first of a verb are inflected."""
    if tag in ("NN", "NNP", "JJ", "RB", "VB", "VBP"):
        return lemma
    from pyinflect import getInflection

    first, space, rest = lemma.partition(" ") if tag.startswith("V") else lemma.rpartition(" ")
    word = first if tag.startswith("V") else rest
    forms = getInflection(word, tag.replace("NNPS", "NNS"))
    if not forms:
        return None
    return forms[0] + space + rest if tag.startswith("V") else first + space + forms[0]


def load(argument: str) -> SpacyGenerator:
    """`spacy`, with the pinned model, or `spacy:MODEL` for another that is installed or a folder.

    Raises UsageError, one line with the command that installs what is missing.
    """
    try:
        import pyinflect  # noqa: F401  (wanted only when the first word is inflected)
        import spacy
    except ImportError as error:
        raise UsageError(f"negatives 'spacy' needs {error.name}: {INSTALL}") from error
    try:
        nlp = spacy.load(argument or MODEL, exclude=["ner"])
    except OSError as error:
        raise UsageError(f"negatives 'spacy': no model {argument or MODEL}: {INSTALL}") from error
    found = f"{nlp.meta['lang']}_{nlp.meta['name']}"
    if not argument and nlp.meta["version"] != MODEL_VERSION:
        raise UsageError(
            f"negatives 'spacy': {found} is {nlp.meta['version']}, not {MODEL_VERSION}: {INSTALL} "
            f"(or name it, 'spacy:{MODEL}', to take it as it is)."
        )
    thesaurus = WordNet()
    version = f"spacy-1-{spacy.__version__}-{found}-{nlp.meta['version']}-{thesaurus.version}"
    return SpacyGenerator(nlp, thesaurus, inflect, version, argument)
