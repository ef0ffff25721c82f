"""The bundled lexicon: which forms a word has, and which other words could stand in its place.

It is read from `lexicon.txt`, whose head explains the notation; it never looks at a sentence.
Parts of speech are one letter: N noun, P plural noun, A adjective, R adverb, I preposition,
B Z G V E verb (base, -s, -ing, past, participle), # number, D determiner, $ possessive, O pronoun,
C conjunction, X auxiliary, T "to", W relative or question word.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

CODES = {
    "det": "D", "poss": "$", "pron": "O", "conj": "C", "aux": "X", "wh": "W", "number": "#",
    "prep": "I", "adv": "R", "adj": "A", "noun": "N", "mass": "N", "plural": "P",
}  # fmt: skip
STEP = 0.25  # each level that two words lie apart: a cat becomes a dog sooner than a man
SYNONYM = 0.15  # the second and third of several synonyms, against the first


@dataclass
class Entry:
    """One place in a field: a word with its synonyms, by part of speech."""

    forms: dict[str, list[str]]
    rank: int
    line: tuple[int, ...]  # the entries it is a kind of, outermost first


@dataclass
class Lexicon:
    """`tags[form]` holds the letters a form can have; `places[form, letter]` where it stands."""

    version: str
    tags: dict[str, str] = field(default_factory=dict)
    places: dict[tuple[str, str], list[tuple[str, int]]] = field(default_factory=dict)
    fields: dict[str, list[Entry]] = field(default_factory=dict)
    # First word -> second word -> the words after the first, the longest first.
    phrases: dict[str, dict[str, list[list[str]]]] = field(default_factory=dict)
    lists: dict[str, frozenset[str]] = field(default_factory=dict)  # as the file's head names them

    def add(self, form: str, letter: str, place: tuple[str, int] | None = None) -> None:
        if letter not in self.tags.get(form, ""):
            self.tags[form] = self.tags.get(form, "") + letter
        if place:
            self.places.setdefault((form, letter), []).append(place)
        first, *rest = form.split(" ")
        if rest:
            rests = self.phrases.setdefault(first, {}).setdefault(rest[0], [])
            if rest not in rests:
                rests.append(rest)
                rests.sort(key=len, reverse=True)

    def is_common(self, form: str) -> bool:
        """Whether a form is known and written small inside a sentence."""
        return form in self.tags and form not in self.lists["proper"]

    def replacements(self, form: str, letter: str, object: bool) -> list[tuple[str, float]]:
        """What may stand for `form`, inflected alike, with weights. Never a synonym, nor a word
        for a kind of it or for what it is a kind of: those would leave the caption true.

        object: whether a verb has one (or is a passive participle); it means nothing for others.
        The weights are nearly symmetric, so a replaced caption is no rarer than the original.
        """
        weights: dict[str, float] = {}
        barred = {form}
        for name, index in self.places.get((form, letter), ()):
            entries = self.fields[name]
            own = entries[index]
            if name.startswith("verbi" if object else "verbt"):
                continue
            for other, entry in enumerate(entries):
                if other == index or other in own.line or index in entry.line:
                    barred.update(entry.forms.get(letter, ()))
                    continue
                common = len(set(entry.line) & set(own.line))
                apart = max(len(entry.line), len(own.line)) - common
                weight = STEP**apart / (entry.rank + 1)
                for place, word in enumerate(entry.forms.get(letter, ())):
                    weights[word] = weights.get(word, 0) + weight * (SYNONYM if place else 1)
        return sorted((word, weight) for word, weight in weights.items() if word not in barred)


@cache
def lexicon() -> Lexicon:
    """The bundled lexicon, read once a process (a tenth of a second)."""
    text = resources.files(__package__).joinpath("lexicon.txt").read_text(encoding="utf-8")
    found = Lexicon(version=hashlib.sha256(text.encode()).hexdigest()[:8])
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        head, _, body = line.partition(":")
        kind, name = head.split()
        if kind in CODES or kind.startswith("verb"):
            _read_field(found, kind, name, body)
        else:
            found.lists[kind] = frozenset(entry.replace("_", " ") for entry in body.split())
    found.add("to", "T")
    return found


def _read_field(found: Lexicon, kind: str, name: str, body: str) -> None:
    entries: list[Entry] = []
    line: list[int] = []
    for token in re.findall(r"[^\s()]+|[()]", body):
        if token == "(":
            line.append(len(entries) - 1)
        elif token == ")":
            line.pop()
        else:
            place = (f"{kind} {name}", len(entries)) if name != "-" else None
            forms: dict[str, list[str]] = {}
            for synonym in token.split("|"):
                for letter, form in inflect(kind, *synonym.replace("_", " ").split("/")):
                    forms.setdefault(letter, []).append(form)
                    found.add(form, letter, place)
            entries.append(Entry(forms, len(entries), tuple(line)))
    if name != "-":
        found.fields[f"{kind} {name}"] = entries


def inflect(kind: str, lemma: str, *irregular: str) -> list[tuple[str, str]]:
    """(letter, form) for every form of a word of the lexicon.

    `irregular`: the plural of a noun; the past, participle and gerund of a verb.
    """
    if kind == "noun":
        return [("N", lemma), ("P", irregular[0] if irregular else plural(lemma))]
    if not kind.startswith("verb"):
        return [(CODES[kind], lemma)]
    verb, *particle = lemma.split(" ")
    past = irregular[0] if irregular else _joined(verb, "ed")
    participle = irregular[1] if len(irregular) > 1 else past
    gerund = irregular[2] if len(irregular) > 2 else _joined(verb, "ing")
    forms = zip("BZGVE", (verb, plural(verb), gerund, past, participle), strict=True)
    return [(letter, " ".join([form, *particle])) for letter, form in forms]


def plural(word: str) -> str:
    """The plural of a regular noun, and the -s form of a verb."""
    if re.search(r"(s|x|z|ch|sh)$", word) or word in ("go", "do"):
        return word + "es"
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


def _joined(verb: str, suffix: str) -> str:
    """`verb` with -ed or -ing: ride -> riding, sit -> sitting, carry -> carried."""
    if suffix == "ed":
        if verb.endswith("e"):
            return verb + "d"
        if re.search(r"[^aeiou]y$", verb):
            return verb[:-1] + "ied"
    if suffix == "ing" and verb.endswith("ie"):
        return verb[:-2] + "ying"
    if re.search(r"[^aeoy]e$", verb):
        return verb[:-1] + suffix
    if re.fullmatch(r"[^aeiou]*(qu)?[aeiouy][bdfgklmnprtvz]", verb):
        return verb + verb[-1] + suffix
    return verb + suffix


VOWEL_SOUND = re.compile(
    r"(?!uni(?![dnm])|us[eu]|ute|uti|eu|ew|one(\b|-)|once|uk|uri)[aeiou]|hour|hono|heir|[fhlmnrsx](\b|-)"
)


def article(word: str) -> str:
    """`a` or `an`, by how the next word sounds: a dog, an hour, a unicycle."""
    word = word.lower()
    if word[:1].isdigit():
        return "an" if word.startswith(("8", "11", "18")) and not word.startswith("110") else "a"
    return "an" if VOWEL_SOUND.match(word) else "a"
