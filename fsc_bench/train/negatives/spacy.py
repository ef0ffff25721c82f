"""`spacy`: the paper's recipe [FSC-CLIP, A.1]: a parser's swaps, WordNet replacements, shuffles.

Needs the extra `fsc-bench[spacy]`, the model below and WordNet; nothing is downloaded from here.
Differences from the reference code: the scene graph is read off the dependency tree (its parser
library is no longer kept up), prepositions are weighted by coarse steps of our own, names are not
replaced, verbs change places with verbs in the same form, members of a list do not change places,
and what would give a negative away is left out, as in `rules`: capitals move, a/an agree, the
shuffle leaves punctuation in its place and "it's" and "t-shirt" whole, and a replacement is one
word, as often longer as shorter. Slurs, obscenities and words that degrade people are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

from fsc_bench.errors import UsageError
from fsc_bench.train.negatives.text import (
    WORD,
    Options,
    Random,
    Words,
    bigram_shuffles,
    distinct,
    exchanged,
    find_words,
    options_of,
    pick,
    recapitalised,
    replaced,
    substitutions,
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
# What may hang on a member of a list that says the same in any other place of the list.
LIST = frozenset(["det", "cc", "conj", "punct", "nsubj"])
MODIFIERS = frozenset(["amod", "nummod", "compound", "advmod", "poss"])
# Compared by an ending: one syllable, or two of which the last is as in "happy" or "narrow".
COMPARED = re.compile(r"y?[^aeiouy]*[aeiouy]{1,2}[^aeiouy]*(e|y|le|ow)?")
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


# What WordNet says of words that a caption must not gain: in glosses, and as fields of usage.
HARSH = "offensive|disparaging|derogatory|insulting|obscene|vulgar|contemptuous"
UNKIND = re.compile(
    rf"ethnic slur|\b({HARSH})\b[^;]*\b(terms?|names?|words?|slang|reference)\b"
    rf"|\b(considered|regarded as|often|sometimes) ({HARSH})|\(({HARSH})\b"
)
UNKIND_USAGES = frozenset(["ethnic_slur.n.01", "disparagement.n.01", "obscenity.n.02"])
# Labels that a caption must not gain for its people, with all that is below them: for what they are
# thought to have done or to be, their misfortune, body, faith, colour or sex life.
LABELS = (
    "unwelcome_person.n.01 bad_person.n.01 simpleton.n.01 misfit.n.01 primitive.n.01 "
    "unfortunate.n.01 slave.n.01 cripple.n.01 small_person.n.01 freak.n.01 hag.n.01 bimbo.n.01 "
    "prostitute.n.01 homosexual.n.01 nonreligious_person.n.01 person_of_color.n.01 mixed-blood.n.01"
)
# How often WordNet's corpus has a word for people in other senses if it is harmless: boy, queen.
HARMLESS = 10


class Thesaurus(Protocol):
    """Words that share a field of meaning, but no meaning."""

    version: str

    def related(self, word: str, lemma: str, pos: str) -> dict[str, float]:
        """Co-hyponyms and antonyms with weights, as lemmas, of a word that a parser takes for a
        form of `lemma`; pos as WordNet has it: n, v, a or r."""


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
        self._options = lru_cache(maxsize=16384)(self._weighed)

    def __reduce__(self):
        if self.argument is None:
            raise TypeError("a SpacyGenerator that load() did not make cannot be sent elsewhere.")
        return load, (self.argument,)

    def generate(self, caption: str, rng: Random, count: int = 4) -> dict[str, list[str]]:
        """Up to `count` different negatives a kind; an empty list where there is none."""
        doc = self.nlp(caption)
        spans = [match.span() for match in WORD.finditer(caption)]
        opening = {token.idx: token for token in doc}
        words = find_words(caption, spans, lambda k: _is_common(opening.get(spans[k][0])))
        return {
            "swap": distinct(caption, self._swaps(doc, words, rng), count),
            "replace": distinct(caption, self._replacements(doc, words, rng), count),
            "shuffle": distinct(caption, bigram_shuffles(words, rng), count),
        }

    def _swaps(self, doc: Doc, words: Words, rng: Random) -> Iterator[str]:
        """Two spans of a family exchanged; families are equally likely, and so are their pairs."""
        pairs = []
        for family in _families(doc):
            places = [(words.between(span.start_char, span.end_char), span) for span in family]
            places = sorted((place, span) for place, span in places if place)
            pairs.append(
                [
                    (first, second)
                    for (first, one), (second, other) in combinations(places, 2)
                    if one.text.lower() != other.text.lower()
                    and _inflected_alike(one, other)
                    and not _in_one_list(one, other)
                ]
            )
        pairs = [family for family in pairs if family]
        while pairs:
            family = pairs[pick(rng, len(pairs))]
            yield exchanged(words, *family.pop(pick(rng, len(family))))
            pairs = [family for family in pairs if family]

    def _replacements(self, doc: Doc, words: Words, rng: Random) -> Iterator[str]:
        """Words of the scene graph, all equally likely, replaced."""
        places = []
        for token in scene_words(doc):
            place = words.between(token.idx, token.idx + len(token))
            # A name, or a part of one: its cousins in WordNet are those of a word spelt like it.
            named = token.pos_ == "PROPN" and not token.is_lower
            if place and place[1] == place[0] + 1 and not named:
                options = self._options(token.lower_, token.lemma_.lower(), token.pos_, token.tag_)
                if options:
                    places.append((place[0], options))
        for k, new in substitutions(places, {token.lower_ for token in doc}, rng):
            old = words.text[words.starts[k] : words.ends[k]]
            yield replaced(words, k, recapitalised(old, new))

    def _weighed(self, word: str, lemma: str, pos: str, tag: str) -> Options | None:
        if pos == "ADP":
            return options_of(word, [(w, p) for w, p in PREPOSITIONS.items() if w != word])
        if pos not in WORDNET_POS or not lemma:
            return None
        related = self.thesaurus.related(word, lemma, WORDNET_POS[pos])
        # Words of several words would tell the negatives by their number.
        forms = [
            (self.inflect(one, tag), weight) for one, weight in related.items() if "_" not in one
        ]
        return options_of(word, [(f, weight) for f, weight in forms if f and f.lower() != word])


def _is_common(token: Token | None) -> bool:
    """Whether a word that opens with a token is written small inside a sentence."""
    return token is None or (token.pos_ != "PROPN" and token.text != "I")


def _inflected_alike(first: Span, second: Span) -> bool:
    """Whether verbs fit each other's places: not "sits" for "riding". True for other spans."""
    if first[-1].pos_ != "VERB":
        return True
    return (first[0].tag_, first[-1].tag_) == (second[0].tag_, second[-1].tag_)


def _in_one_list(first: Span, second: Span) -> bool:
    """Whether two spans are the members of a list: "a dog and a cat" is "a cat and a dog"."""
    if second.root not in first.root.conjuncts:
        return False
    # What hangs on the first behind the second is said of both: "a dog and a cat on a sofa".
    return all(
        child.dep_ in LIST or child in span or (span is first and child.i >= second.end)
        for span in (first, second)
        for child in span.root.children
    )


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
    """WordNet by nltk: antonyms, and lemmas that share a grandparent (siblings and cousins).

    What it marks as a slur or obscene is left out, and the labels below LABELS.
    """

    def __init__(self) -> None:
        """Raises UsageError where nltk or its WordNet is missing, or a file of WordNet's."""
        try:
            from nltk.corpus import wordnet

            self.version = f"wordnet-{wordnet.get_version()}"
            # How often WordNet's own corpus has each sense. nltk searches the file for every lemma,
            # which took nine tenths of the time that negatives took.
            with wordnet.open("cntlist.rev") as file:
                self.counts = {key: int(count) for key, _, count in map(str.split, file)}
        except ImportError as error:
            raise UsageError(f"negatives 'spacy' needs nltk: {INSTALL}") from error
        except (LookupError, OSError) as error:
            raise UsageError(f"negatives 'spacy' needs WordNet: {INSTALL_WORDNET}") from error
        self.wordnet = wordnet
        self.labels = frozenset(
            synset
            for root in map(wordnet.synset, LABELS.split())
            for synset in (root, *root.closure(lambda synset: synset.hyponyms()))
        )
        self._kind = cache(self._kind)
        self._nephews = cache(self._nephews)
        self._adjectives = cache(self._adjectives)

    def related(self, word: str, lemma: str, pos: str) -> dict[str, float]:
        lemma = self._lemma(word, lemma, pos)
        synsets = self.wordnet.synsets(lemma, pos)
        lemmas = [lemma for synset in synsets for lemma in synset.lemmas()]
        own = {lemma.name() for lemma in lemmas}
        antonyms = (antonym for lemma in lemmas for antonym in lemma.antonyms())
        found = [self._counted(antonym) for antonym in antonyms if self._kind(antonym)]
        if pos == "a":  # adjectives have no hypernyms: over the nouns they come from, and back
            nouns = {
                form.synset()
                for lemma in lemmas
                for form in lemma.derivationally_related_forms()
                if form.synset().pos() == "n"
            }
            for grandparent in _grandparents(nouns):
                found += self._adjectives(grandparent)
        else:
            for grandparent in _grandparents(synsets):
                found += self._nephews(grandparent)
        weights: dict[str, float] = {}
        for name, count in found:
            if name not in own:
                weights[name] = max(weights.get(name, 1.0), count)
        return dict(sorted(weights.items()))

    def _lemma(self, word: str, lemma: str, pos: str) -> str:
        """The commoner of two readings: spaCy takes "riding" and "rides" for forms of "rid"."""
        readings = (self.wordnet.morphy(word, pos) or lemma, lemma)
        return max(
            readings,
            key=lambda reading: sum(
                self._counted(one)[1] for one in self.wordnet.lemmas(reading, pos)
            ),
        )

    def _counted(self, lemma) -> tuple[str, float]:
        return lemma.name(), float(self.counts.get(lemma.key(), 0))

    def _nephews(self, grandparent) -> list[tuple[str, float]]:
        """Lemmas two steps below a synset."""
        return [self._counted(lemma) for lemma in _below(grandparent) if self._kind(lemma)]

    def _adjectives(self, grandparent) -> list[tuple[str, float]]:
        """The adjectives that come from nouns two steps below a synset."""
        return [
            self._counted(back)
            for lemma in _below(grandparent)
            for back in lemma.derivationally_related_forms()
            if back.synset().pos() in "as" and self._kind(back)
        ]

    def _kind(self, lemma) -> bool:
        """Whether a caption may gain a word, by all senses of it: a reader does not know which."""
        own = lemma.synset()
        person = own.lexname() == "noun.person"
        unkind, harmless = False, 0
        for synset in self.wordnet.synsets(lemma.name()):
            if (person and synset in self.labels) or _is_marked(synset):
                unkind = True
            elif synset.pos() == own.pos():
                same = (one for one in synset.lemmas() if one.name() == lemma.name())
                harmless += sum(self.counts.get(one.key(), 0) for one in same)
        return not unkind or harmless >= (HARMLESS if person else 1)


def _is_marked(synset) -> bool:
    usages = {usage.name() for usage in synset.usage_domains()}
    return bool(UNKIND.search(synset.definition()) or usages & UNKIND_USAGES)


def _grandparents(synsets: Iterable) -> set:
    return {
        grandparent
        for synset in synsets
        for parent in synset.hypernyms()
        for grandparent in parent.hypernyms()
    }


def _below(grandparent) -> Iterator:
    for aunt in grandparent.hyponyms():
        for cousin in aunt.hyponyms():
            yield from cousin.lemmas()


@cache
def inflect(lemma: str, tag: str) -> str | None:
    """The form of a lemma for a Penn tag; None where there is none."""
    if tag in ("NN", "NNP", "JJ", "RB", "VB", "VBP"):
        return lemma
    if tag in ("JJR", "JJS", "RBR", "RBS") and not COMPARED.fullmatch(lemma):
        return None
    from pyinflect import getInflection

    forms = getInflection(lemma, tag.replace("NNPS", "NNS"))
    return forms[0] if forms else None


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
    made_by = (
        f"spacy-3-{spacy.__version__}-{found}-{nlp.meta['version']}-{thesaurus.version}-"
        f"pyinflect-{version('pyinflect')}"
    )
    return SpacyGenerator(nlp, thesaurus, inflect, made_by, argument)
