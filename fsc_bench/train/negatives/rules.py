"""`rules`: swaps, replacements and shuffles by a bundled lexicon and a small tagger; no download.

It has no parser and finds no grammar beyond phrases; `spacy` has. A negative differs from its
caption in what it says and in nothing else: spacing, punctuation, capitals and a/an are as in the
caption, and a replacement is as often longer as shorter, for a text model must not tell the two
apart by looks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from fsc_bench.errors import UsageError
from fsc_bench.train.negatives.lexicon import lexicon
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

VERBS = "BZGVE"
# What an unknown word is by its ending; the first that fits.
ENDINGS = tuple(
    (ending, letters)
    for endings, letters in (
        ("ing", "G"),
        ("shed", "N"),
        ("ed", "EV"),
        ("ly", "R"),
        ("ness ment tion sion ity ss us is", "N"),
        ("ous ful less ish ive able ible ic al", "A"),
        ("s", "P"),
    )
    for ending in endings.split()
)
REPLACEABLE = "NPAR#I" + VERBS  # objects, attributes, numbers and relations
MAX_SPANS = 24  # of a family: a text of thousands of words is read in part, not quadratically

# After these words a form such as "rides" or "park" is a verb.
ACTORS = ("noun being", "noun role", "noun kin", "noun collective", "noun herd", "noun vehicle")


@dataclass(slots=True)
class Phrase:
    """A noun phrase: units start to end (exclusive), its nouns from `nouns` on, N or P."""

    start: int
    nouns: int
    end: int
    number: str


@dataclass(slots=True)
class Parse:
    """A caption in units: a word, or several that the lexicon holds as one ("fire hydrant")."""

    units: Words
    words: Words
    forms: list[str]  # lower case
    tags: list[str]  # one letter each, see lexicon.py
    phrases: list[Phrase]


class RulesGenerator:
    """Hard negatives from the bundled lexicon; `NegativeGenerator` is its contract."""

    name = "rules"
    kinds = ("swap", "replace", "shuffle")

    def __init__(self) -> None:
        self.version = f"rules-2-{lexicon().version}"

    def generate(self, caption: str, rng: Random, count: int = 4) -> dict[str, list[str]]:
        """Up to `count` different negatives a kind; an empty list where there is none.

        Takes any string and never raises.
        """
        parse = parse_caption(caption)
        return {
            "swap": distinct(caption, swaps(parse, rng), count),
            "replace": distinct(caption, replacements(parse, rng), count),
            "shuffle": distinct(caption, bigram_shuffles(parse.words, rng), count),
        }


# -- Reading a caption ---------------------------------------------------------------------------


def parse_caption(caption: str) -> Parse:
    """Units, tags and noun phrases of a caption."""
    known = lexicon()
    spans = [match.span() for match in WORD.finditer(caption)]
    lower = [caption[start:end].lower() for start, end in spans]
    words = find_words(caption, spans, lambda k: known.is_common(lower[k]))
    units = Words(caption, [], [], [], [])
    forms: list[str] = []
    k, count = 0, len(spans)
    while k < count:
        end, form = k + 1, lower[k]
        following = known.phrases.get(form)
        for rest in following.get(lower[end], ()) if following and end < count else ():
            after = k + 1 + len(rest)
            if lower[k + 1 : after] == rest and _tight(caption, spans, k, after):
                end, form = after, " ".join(lower[k:after])
                break
        forms.append(form)
        units.starts.append(spans[k][0])
        units.ends.append(spans[end - 1][1])
        units.slot.append(words.slot[k])
        units.lowers.append(words.lowers[k] or (words.slot[k] and known.is_common(form)))
        k = end
    tags = _tag(forms)
    return Parse(units, words, forms, tags, _phrases(units, tags))


def _tight(caption: str, spans: list[tuple[int, int]], first: int, end: int) -> bool:
    """Whether words first to end have only spaces between them."""
    return end <= len(spans) and all(
        caption[spans[k][1] : spans[k + 1][0]].isspace() for k in range(first, end - 1)
    )


@lru_cache(maxsize=65536)
def _candidates(form: str) -> str:
    """The letters that a form may have, from the lexicon or from its ending."""
    known = lexicon().tags.get(form)
    if known:
        return known
    if form.endswith(("'s", "’s", "s'")):
        return "$"
    if form[:1].isdigit():
        return "#"
    if "-" in form or "/" in form:
        last = re.split(r"[-/&]", form)[-1]
        letters = _candidates(last)
        return "A" if letters[0] in "EVG#" else letters
    for ending, letters in ENDINGS:
        if form.endswith(ending) and len(form) > len(ending) + 2:
            return letters
    return "N"


@lru_cache(maxsize=65536)
def _is_actor(form: str) -> bool:
    places = lexicon().places
    return any(name in ACTORS for letter in "NP" for name, _ in places.get((form, letter), ()))


def _tag(forms: list[str]) -> list[str]:
    """One letter a form, left to right, from what it may be, what precedes and what follows."""
    possible = [_candidates(form) for form in forms]
    possible.append("")
    tags: list[str] = []
    previous, subject = "", False
    for k, form in enumerate(forms):
        letters, following = possible[k], possible[k + 1]
        if len(letters) == 1 and letters not in "GEV":
            tag = letters
        else:
            tag = _resolve(letters, previous, subject, following, tags)
        tags.append(tag)
        subject = tag == "O" or (tag in "NP" and _is_actor(form))
        previous = tag
    return tags


def _resolve(letters: str, previous: str, subject: bool, following: str, before: list[str]) -> str:
    """The letter, of several, that fits between `previous` and what may follow.

    subject: the word before names someone or something that can act.
    """
    noun = "N" if "N" in letters else "P" if "P" in letters else ""
    then_noun = following[:1] in ("N", "P", "A") or "N" in following or "P" in following
    if "#" in letters:
        return "#"
    if "W" in letters and following[:1] in ("X", "Z", "V"):
        return "W"
    if previous and previous in "D#$A":
        if previous == "#" and "P" in letters:
            return "P"
        if "A" in letters and (then_noun or not noun):
            return "A"
        if noun:
            return noun
        if letters[0] in "GEV" and then_noun:
            return "A"
    elif previous == "X":
        for letter in "GEAB":
            if letter in letters:
                return letter
    elif previous == "T" and "B" in letters:
        return "B"
    elif previous and previous in "NPO":
        if "G" in letters:
            return "G"
        if "Z" in letters and (subject or not noun) and previous != "P":
            return "Z"
        if "B" in letters and previous in "PO" and (subject or not noun):
            return "B"
        if "E" in letters and not noun:
            return "V" if "V" in letters and following[:1] in ("D", "$", "#", "O") else "E"
        if "V" in letters and not noun:
            return "V"
    else:  # the start, or after a preposition, adverb, conjunction, verb or relative word
        if previous == "C" and len(before) > 1 and before[-2] in letters:
            return before[-2]
        if previous == "W":
            for letter in "ZVGEB":
                if letter in letters:
                    return letter
        if "A" in letters and then_noun:
            return "A"
        if "G" in letters and not (
            noun and previous == "I" and following[:1] not in ("D", "$", "#")
        ):
            return "G"
        if "E" in letters and not noun:
            return "A" if then_noun and previous != "R" else "E"
        if noun:
            return noun
    if "I" in letters:
        opens = following[:1] in ("D", "$", "#", "A", "N", "P", "O") or then_noun
        return "I" if opens or len(letters) == 1 else "R" if "R" in letters else "I"
    return letters[0]


def _phrases(units: Words, tags: list[str]) -> list[Phrase]:
    """The noun phrases: determiners, then adjectives, then nouns; never across punctuation."""
    text, starts, ends = units.text, units.starts, units.ends
    count, phrases, k = len(tags), [], 0
    # A comma ends a phrase, but for one between adjectives ("a large, red bus").
    gaps = [text[end:start] for end, start in zip(ends, starts[1:], strict=False)]
    apart = [
        gap != " " and tag != "A" and not gap.isspace()
        for gap, tag in zip(gaps, tags, strict=False)
    ]
    apart.append(True)
    while k < count:
        end = k
        while end < count and tags[end] in "D#$" and not apart[end]:
            end += 1
        while end < count and not apart[end]:
            follows = tags[end + 1]
            joins = end > k and tags[end] == "C" and tags[end - 1] == "A"
            if tags[end] == "A" or (follows == "A" and (tags[end] == "R" or joins)):
                end += 1
            else:
                break
        nouns = end
        while end < count and tags[end] in "NP":
            end += 1
            if apart[end - 1] or tags[end - 1] == "P":
                break
        if end > nouns:
            phrases.append(Phrase(k, nouns, end, tags[end - 1]))
        k = max(end, k + 1)
    return phrases


# -- Swaps ---------------------------------------------------------------------------------------


def swaps(parse: Parse, rng: Random) -> Iterator[str]:
    """Captions with two phrases, nouns, adjectives, adverbs or verbs exchanged, each pair once."""
    families = [list(combinations(spans, 2)) for spans in _families(parse) if len(spans) > 1]
    while families:
        chosen = pick(rng, len(families))
        pairs = families[chosen]
        drawn = pick(rng, len(pairs))
        pairs[drawn], pairs[-1] = pairs[-1], pairs[drawn]
        first, second = pairs.pop()
        if not pairs:
            families.pop(chosen)
        if not _says_the_same(parse, first, second):
            yield exchanged(parse.units, first, second)


def _takes_object(tags: list[str], k: int) -> bool:
    """Whether unit k, if a verb, has an object; a passive participle counts."""
    return tags[k] == "E" or (k + 1 < len(tags) and tags[k + 1] in "D#$ANPO")


Span = tuple[int, int]  # first unit, after the last


def _families(parse: Parse) -> list[list[Span]]:
    """Spans that may stand in each other's places, by family."""
    tags, forms, lists = parse.tags, parse.forms, lexicon().lists
    # With a verb that agrees ("is", "rides") only phrases of one number change places.
    agrees = any(
        tag in "ZB" or (tag == "X" and form in ("is", "are", "has", "have", "was", "were"))
        for tag, form in zip(tags, forms, strict=True)
    )
    families: dict[str, list[Span]] = {}

    def add(family: str, start: int, end: int) -> None:
        spans = families.setdefault(family, [])
        if len(spans) < MAX_SPANS:
            spans.append((start, end))

    skip = -1
    for k, phrase in enumerate(parse.phrases):
        measures = forms[phrase.end - 1] in lists["measure"]
        if not measures:
            # "a frosting": singular nouns with a determiner and those without stay apart.
            opened = phrase.number == "P" or tags[phrase.start] in "D#$"
            add(f"noun {phrase.number} {opened}", phrase.nouns, phrase.end)
        if k == skip:
            continue
        end, number = phrase.end, phrase.number
        follower = parse.phrases[k + 1] if k + 1 < len(parse.phrases) else None
        if measures and follower and follower.start == end + 1 and forms[end] == "of":
            end, skip, number = follower.end, k + 1, follower.number  # "a group of people are"
        add(f"phrase {number if agrees else ''}", phrase.start, end)
    for k, tag in enumerate(tags):
        if tag == "A":
            add("adjective", k, k + 1)
        elif tag == "R" and forms[k] not in lists["fixed"]:
            add("adverb", k, k + 1)
        elif tag in VERBS:
            add(f"verb {tag} {_takes_object(tags, k)}", k, k + 1)
            start = k
            while start and tags[start - 1] in "XR" and start > k - 3:
                start -= 1
            while start < k and tags[start] == "R":
                start += 1
            finite = tags[start] in "XZBV"
            if finite:
                plural = forms[start] in ("are", "have", "were") or tags[start] == "B"
                add(f"verb phrase {plural} {_takes_object(tags, k)}", start, k + 1)
    return list(families.values())


def _says_the_same(parse: Parse, first: Span, second: Span) -> bool:
    """Whether the exchange would change nothing: overlaps, equal words, lists, "A next to B"."""
    (start, middle), (after, end) = first, second
    if after < middle:
        return True
    forms, tags = parse.forms, parse.tags
    if forms[start:middle] == forms[after:end]:
        return True
    between = tags[middle:after]
    words = list(zip(forms[middle:after], between, strict=True))
    if "of" in forms[middle:after] and all(form == "of" or tag in "D$#A" for form, tag in words):
        return True  # "a picture of a cat" has no other order
    # A phrase may open with an adjective or adverb; alone it is the span itself.
    if tags[start] in "BZGVEX" or (tags[start] in "AR" and middle - start == 1):
        return all(tag in "CAR" for tag in between) and (tags[start] == "A" or "C" in between)
    symmetric = lexicon().lists["symmetric"]
    if any(tag not in "CDA$#NP" and form not in symmetric for form, tag in words):
        return False
    return _bare(parse, start) and _bare(parse, after)


def _bare(parse: Parse, start: int) -> bool:
    """Whether nothing but a determiner stands before unit `start` in its noun phrase."""
    for phrase in parse.phrases:
        if phrase.start <= start < phrase.end:
            return all(tag == "D" for tag in parse.tags[phrase.start : start])
    return True


# -- Replacements --------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def _options(form: str, letter: str, takes_object: bool) -> Options | None:
    return options_of(form, lexicon().replacements(form, letter, takes_object))


def replacements(parse: Parse, rng: Random) -> Iterator[str]:
    """Captions with an attribute, object, relation or number replaced, without end, unless none."""
    tags = parse.tags
    places: list[tuple[int, Options]] = []
    for k, (form, tag) in enumerate(zip(parse.forms, tags, strict=True)):
        if tag in REPLACEABLE:
            options = _options(form, tag, tag in VERBS and _takes_object(tags, k))
            if options and not _is_bound(parse, k):
                places.append((k, options))
    for k, new in substitutions(places, set(parse.forms), rng):
        old = parse.units.text[parse.units.starts[k] : parse.units.ends[k]]
        yield replaced(parse.units, k, recapitalised(old, new))


def _is_bound(parse: Parse, k: int) -> bool:
    """Whether unit k is half of a fixed pair: "filled with", "dressed in", "look at"."""
    forms, tags, lists = parse.forms, parse.tags, lexicon().lists
    if tags[k] == "I":
        before = forms[k - 1] if k else ""
        return before in lists["binds"] or (forms[k] == "at" and before in lists["binds_at"])
    return forms[k] in lists["binds"] and tags[k + 1 : k + 2] == ["I"]


def load(argument: str) -> RulesGenerator:
    """`rules` takes no argument. Raises UsageError for one."""
    if argument:
        raise UsageError(f"negatives 'rules:{argument}': 'rules' takes nothing after its name.")
    return RulesGenerator()
