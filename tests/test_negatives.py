"""Hard negatives: sentences one can check by eye, and what no negative may ever do."""

import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsc_bench.errors import DataError, UsageError
from fsc_bench.train.negatives import (
    NegativeGenerator,
    build,
    captions_sha256,
    load_generator,
    show,
)
from fsc_bench.train.negatives.artefacts import LIMIT, LOOKS, artefacts
from fsc_bench.train.negatives.lexicon import article, inflect, lexicon
from fsc_bench.train.negatives.text import normalise


def _split(text: str) -> list[str]:
    return text.split(" ")


RULES = load_generator("rules")
CAPTIONS = [
    "A red car next to a blue truck.",
    "A man holding an umbrella.",
    "Two dogs chase a cat in the park.",
    "Three white plates on a wooden table",
]


def every(caption: str, kind: str, generator: NegativeGenerator = RULES, draws: int = 40) -> set:
    """All negatives that turn up in many draws."""
    found: set[str] = set()
    for seed in range(draws):
        found.update(generator.generate(caption, random.Random(seed), 8)[kind])
    return found


# -- Swaps


@pytest.mark.parametrize(
    ("caption", "swaps"),
    [
        # The whole phrases are not exchanged: B next to A is A next to B.
        (
            "A red car next to a blue truck.",
            {"A blue car next to a red truck.", "A red truck next to a blue car."},
        ),
        ("A man holding an umbrella.", {"An umbrella holding a man."}),
        (
            "Two dogs chase a cat, and three birds watch.",
            {
                "Three birds chase a cat, and two dogs watch.",
                "Two birds chase a cat, and three dogs watch.",
            },
        ),
        ("A group of people standing on a beach.", {"A beach standing on a group of people."}),
        ("A man jumps high and runs fast.", {"A man jumps fast and runs high."}),
        # Spacing and punctuation stay, also where they are odd.
        (
            "a  white cat , on the  red  couch .",
            {
                "a  red cat , on the  white  couch .",
                "a  white couch , on the  red  cat .",
                "the  red  couch , on a  white cat .",
            },
        ),
        # Capitals belong to the place when they open a sentence, else to the word.
        ("Batman riding a horse.", {"A horse riding Batman."}),
        ("Man Riding A Big Bike", {"A Big Bike Riding Man"}),
        ("A MAN RIDING A BIKE", {"A BIKE RIDING A MAN"}),
        # Lists say the same in any order, and "of" has no other one.
        ("A child and a dog are playing.", set()),
        ("A fork, a knife, and a spoon.", set()),
        (
            "Red cups next to white plates",
            {"White cups next to red plates", "Red plates next to white cups"},
        ),
        # What measures a group moves with it, and the verb agrees with what stands before it.
        (
            "A bunch of dogs are under two trees by a wall",
            {
                "A bunch of trees are under two dogs by a wall",
                "Two trees are under a bunch of dogs by a wall",
            },
        ),
        ("A picture of a cat.", set()),
        ("A kitchen with a sink, stove and fridge.", {
            "A sink with a kitchen, stove and fridge.",
        }),
        ("", set()),
    ],
)  # fmt: skip
def test_swaps_are_exactly_these(caption, swaps):
    found = every(caption, "swap")
    if caption.startswith("A kitchen"):  # "stove" and "fridge" have no article, and may move too
        assert swaps <= found
        assert "A kitchen with a sink, fridge and stove." not in found
    else:
        assert found == swaps


# -- Replacements


@pytest.mark.parametrize(
    ("caption", "among", "never"),
    [
        ("An apple", {"A banana", "An orange"}, {"A fruit", "An banana"}),
        ("Two white dogs", {"Three white dogs", "Two black dogs", "Two white cats"}, {
            "One white dogs", "Two white cat", "Two white animals", "Two white puppies",
        }),
        ("the man", {"the woman", "the boy", "the dog"}, {"the guy", "the person", "the adult"}),
        ("the person", {"the animal"}, {"the man", "the child", "the baby"}),
        ("a hot dog", {"a pizza", "a hamburger"}, {"a cold dog", "a hot cat"}),
        ("A woman rode a horse", {"A woman pushed a horse", "A woman washed a horse"}, {
            "A woman pushing a horse", "A woman washes a horse",
        }),
        ("Men sitting", {"Men standing", "Women sitting", "Men kneeling"}, {"Men stand"}),
        ("a child is running", {"a child is walking", "a child is swimming"}, {
            "a child is jogging", "a child is throwing",
        }),
        ("The cat is under the table", {"The cat is on the table"}, {
            "The cat is beneath the table",
        }),
        ("a bowl filled with soup", {"a cup filled with soup"}, {
            "a bowl filled without soup", "a bowl emptied with soup",
        }),
        ("MAN", {"WOMAN"}, {"Woman", "woman"}),
        ("A big, red bus.", {"A small, red bus.", "A big, blue bus."}, {"A huge, red bus."}),
    ],
)  # fmt: skip
def test_replacements_have_these_and_never_those(caption, among, never):
    found = every(caption, "replace", draws=150)
    assert among <= found
    assert not never & found


def test_a_replacement_grows_and_shrinks_a_caption_equally_often():
    caption = "A man riding a brown horse on the beach."
    rng = random.Random(0)
    grown = [
        np.sign(len(RULES.generate(caption, rng, 1)["replace"][0]) - len(caption))
        for _ in range(4000)
    ]
    assert abs(np.mean(grown)) < 0.06  # three standard errors


@pytest.mark.parametrize(
    ("caption", "replacements"),
    [
        ("tops and bottoms", set()),
        ("wet dry", {"wet damp", "wet soaked"}),  # both longer: of what is shorter there is none
    ],
)
def test_a_caption_that_holds_its_own_replacements_is_not_drawn_for_ever(caption, replacements):
    assert every(caption, "replace") == replacements


def test_words_of_one_field_inflect_alike():
    assert inflect("verb", "sit", "sat") == [
        ("B", "sit"),
        ("Z", "sits"),
        ("G", "sitting"),
        ("V", "sat"),
        ("E", "sat"),
    ]
    forms = {
        verb: [form for _, form in inflect("verb", verb)]
        for verb in ("carry", "stop", "tie", "ski", "look at", "watch", "dye", "open")
    }
    assert forms == {
        "carry": ["carry", "carries", "carrying", "carried", "carried"],
        "stop": ["stop", "stops", "stopping", "stopped", "stopped"],
        "tie": ["tie", "ties", "tying", "tied", "tied"],
        "ski": ["ski", "skis", "skiing", "skied", "skied"],
        "look at": ["look at", "looks at", "looking at", "looked at", "looked at"],
        "watch": ["watch", "watches", "watching", "watched", "watched"],
        "dye": ["dye", "dyes", "dyeing", "dyed", "dyed"],
        "open": ["open", "opens", "opening", "opened", "opened"],
    }
    assert inflect("noun", "man", "men") == [("N", "man"), ("P", "men")]
    assert [inflect("noun", word)[1][1] for word in ("box", "berry", "toy", "dish")] == [
        "boxes", "berries", "toys", "dishes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("dog", "a"),
        ("apple", "an"),
        ("hour", "an"),
        ("house", "a"),
        ("unicycle", "a"),
        ("umbrella", "an"),
        ("unidentified", "an"),
        ("one-way", "a"),
        ("onion", "an"),
        ("European", "a"),
        ("used", "a"),
        ("x-ray", "an"),
        ("8", "an"),
        ("18", "an"),
        ("80-year-old", "an"),
        ("10", "a"),
    ],
)
def test_an_goes_before_a_vowel_sound(word, right):
    assert article(word) == right


def test_no_word_replaces_its_own_kind():
    known = lexicon()
    for (form, letter), places in known.places.items():
        offered = {word for word, _ in known.replacements(form, letter, True)}
        for name, index in places:
            entries = known.fields[name]
            assert not offered & set(entries[index].forms[letter]), (form, letter)
            for above in entries[index].line:
                assert not offered & set(entries[above].forms.get(letter, ())), (form, letter)


# -- Shuffles


def test_an_abbreviation_is_one_word():
    # Not "Top of v on.An older ...", a new sentence inside "T.V".
    for text in every("A T.V on top of an old U.S. map.", "shuffle"):
        assert "T.V" in text and "U.S" in text


def test_a_shuffle_moves_pairs_of_words_and_nothing_else():
    assert every("A man rides, slowly, a horse.", "shuffle") >= {
        "A horse rides, slowly, a man.",
        "Rides slowly a, horse, a man.",
    }
    assert every("one two three", "shuffle") == {"three one two"}
    assert every("one two", "shuffle") == set()


# -- What holds for any text


TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            _split(
                "A a an The man apple red two is riding on next to, . , ! ? - 's men's Man's İ ß "
                "é 😀 and of TV white wooden sits people İstanbul x-ray 3.5 (a \t \n"
            )
        ),
        max_size=30,
    ).map(" ".join),
)


@given(TEXTS, st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_no_negative_equals_its_caption_or_another(caption, seed):
    made = RULES.generate(caption, random.Random(seed), 3)
    assert tuple(made) == RULES.kinds
    for negatives in made.values():
        keys = [normalise(text) for text in negatives]
        assert len(keys) <= 3
        assert len({normalise(caption), *keys}) == len(keys) + 1


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_swap_or_a_shuffle_keeps_spaces_and_punctuation(caption):
    made = RULES.generate(caption, random.Random(0), 2)

    def marks(text: str) -> list[str]:
        return sorted(c for c in text if not c.isalnum())

    for text in made["swap"] + made["shuffle"]:
        assert marks(text) == marks(caption)


@pytest.mark.parametrize(
    "caption", ["", " ", "\n\t", ".", "😀", "...!?", "\ud800", "的", "A", "a a a a"]
)
def test_where_there_is_nothing_to_change_the_lists_are_empty(caption):
    assert RULES.generate(caption, random.Random(0)) == {"swap": [], "replace": [], "shuffle": []}


def test_a_text_of_a_hundred_thousand_words_is_no_trouble():
    made = RULES.generate("a man rides a horse on the beach " * 15_000, random.Random(0), 1)
    assert all(made.values())


def test_the_same_chance_makes_the_same_negatives_with_either_kind_of_rng():
    caption = CAPTIONS[0]
    for rng in (random.Random, np.random.default_rng):
        assert RULES.generate(caption, rng(3)) == RULES.generate(caption, rng(3))


def test_generators_keep_the_protocol_and_names_have_near_misses():
    assert isinstance(RULES, NegativeGenerator)
    with pytest.raises(UsageError, match=r"no generator called 'rule'\. Did you mean 'rules'"):
        load_generator("rule")
    with pytest.raises(UsageError, match="takes nothing after its name"):
        load_generator("rules:x")


# -- Files


def test_a_built_file_is_the_same_bytes_for_any_number_of_processes(tmp_path):
    captions = [f"{caption} {k}" for k in range(1100) for caption in CAPTIONS]
    calls: list[tuple[int, int]] = []
    one, two = tmp_path / "one.parquet", tmp_path / "new" / "two.parquet"
    build(captions, RULES, 7, 2, one, progress=lambda *call: calls.append(call))
    build(captions, RULES, 7, 2, two, processes=2)
    assert one.read_bytes() == two.read_bytes()
    assert calls == [(2048, 4400), (4096, 4400), (4400, 4400)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "one.parquet"]


def test_a_built_file_says_what_made_it_and_reads_back(tmp_path):
    path = tmp_path / "negatives.parquet"
    metadata = build([*CAPTIONS, CAPTIONS[0], "Hi"], RULES, 7, 3, path)
    assert metadata == {
        "generator": "rules",
        "version": RULES.version,
        "kinds": "swap,replace,shuffle",
        "seed": "7",
        "candidates_per_kind": "3",
        "captions_sha256": captions_sha256([*CAPTIONS, CAPTIONS[0], "Hi"]),
    }
    file = pq.read_schema(path)
    assert {key.decode(): value.decode() for key, value in file.metadata.items()} == metadata
    assert file.names == ["caption", "kind", "negatives"]

    read = load_generator(f"file:{path}")
    assert read.kinds == RULES.kinds
    assert read.version.startswith(f"rules {RULES.version}, seed 7, sha256 ")
    rows = dict(show([*CAPTIONS, "Hi"], RULES, 5, seed=7, candidates_per_kind=3))
    for caption in CAPTIONS:
        made = read.generate(caption, random.Random(0), 9)
        assert {kind: set(texts) for kind, texts in made.items()} == {
            kind: set(texts) for kind, texts in rows[caption].items()
        }
    nothing = {"swap": [], "replace": [], "shuffle": []}
    assert read.generate("Hi", random.Random(0)) == nothing
    assert read.generate("a caption the file does not hold", random.Random(0)) == nothing


def test_another_seed_or_caption_list_shows(tmp_path):
    build(CAPTIONS, RULES, 0, 1, tmp_path / "a.parquet")
    build(CAPTIONS, RULES, 1, 1, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() != (tmp_path / "b.parquet").read_bytes()
    assert captions_sha256(["ab", "c"]) != captions_sha256(["a", "bc"])


def test_what_cannot_be_built_is_said_and_leaves_no_file(tmp_path):
    out = tmp_path / "x.parquet"
    with pytest.raises(UsageError, match="there are no captions"):
        build([], RULES, 0, 1, out)
    with pytest.raises(UsageError, match="candidates 0: there must be at least 1"):
        build(CAPTIONS, RULES, 0, 0, out)
    with pytest.raises(UsageError, match="is no text: surrogates not allowed"):
        build(["a \ud800"], RULES, 0, 1, out)

    class Broken:
        name, kinds, version = "broken", ("swap",), "1"

        def generate(self, caption, rng, count=4):
            raise RuntimeError("mid-way")

    with pytest.raises(RuntimeError, match="mid-way"):
        build(CAPTIONS, Broken(), 0, 1, out)
    assert list(tmp_path.iterdir()) == []


def test_show_takes_captions_evenly():
    captions = [f"A red car {k}" for k in range(100)]
    assert [caption for caption, _ in show(captions, RULES, 4)] == [
        "A red car 0", "A red car 25", "A red car 50", "A red car 75",
    ]  # fmt: skip
    assert len(show(captions[:3], RULES, 10)) == 3


def test_a_column_of_python_lists_is_read_as_in_the_coco_file(tmp_path):
    path = tmp_path / "train_neg_clip.tsv"
    path.write_text(
        "\ttitle\tfilepath\tneg_caption\n"
        "0\tA cat on a mat.\tcoco/1.jpg\t['A mat on a cat .', \"A dog's mat on a cat\"]\n"
        "1\tA cat on a mat.\tcoco/2.jpg\t['A cat, on a mat', 'a mat on a cat.']\n"
        "2\tNA\tcoco/3.jpg\t[]\n"
    )
    read = load_generator(f"file:{path}")
    assert read.kinds == ("neg_caption",)
    # Of texts that say the same one is kept, and none that repeats the caption.
    found = every("A cat on a mat.", "neg_caption", read)
    assert found == {"A mat on a cat .", "a mat on a cat.", "A dog's mat on a cat"}
    assert len(read.generate("A cat on a mat.", random.Random(0))["neg_caption"]) == 2
    assert read.generate("NA", random.Random(0)) == {"neg_caption": []}


def test_a_lone_quote_in_a_table_of_negatives_swallows_no_row(tmp_path):
    path = tmp_path / "train_neg_clip.tsv"
    rows = "\"A man says hi\t['hi says A man']\nA cow\t[]\nA cat\"\t['A dog']\n"
    path.write_text(f"\ufefftitle\tneg_caption\n{rows}", encoding="utf-8")

    assert {caption: kinds["neg_caption"] for caption, kinds in read_rows(path).items()} == {
        '"A man says hi': ["hi says A man"], "A cow": [], 'A cat"': ["A dog"],
    }  # fmt: skip


def read_rows(path) -> dict[str, dict[str, list[str]]]:
    return load_generator(f"file:{path}").rows


def test_a_column_may_be_named_and_hold_lists_or_json(tmp_path):
    path = tmp_path / "data.parquet"
    pd.DataFrame({"t": ["a b", "c d"], "n": [["b a"], ["d c"]]}).to_parquet(path)
    read = load_generator(f"file:{path}?captions=t&negatives=n")
    assert read.generate("c d", random.Random(0)) == {"n": ["d c"]}
    path = tmp_path / "data.csv"
    pd.DataFrame({"caption": ["a b"], "negatives": ['["b a", "x\\u00e9"]']}).to_csv(path)
    found = load_generator(f"file:{path}").generate("a b", random.Random(0))["negatives"]
    assert sorted(found) == ["b a", "xé"]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("__import__('os').system('true')", "is no list of texts"),
        ("{'a': 1}", "is no list of texts"),
        ("[1, 2]", "is no list of texts"),
        ("[" * 5000, "is no list of texts"),
    ],
)
def test_a_cell_that_is_no_list_is_named_and_never_run(tmp_path, cell, shown):
    path = tmp_path / "x.tsv"
    path.write_text(f"title\tneg_caption\nA cat\t['A dog']\nA cow\t{cell}\n")
    with pytest.raises(DataError, match="row 2, column 'neg_caption'") as error:
        load_generator(f"file:{path}")
    assert shown in str(error.value)


def test_missing_files_columns_and_options_are_named(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        load_generator("file:nowhere.parquet")
    path = tmp_path / "x.tsv"
    path.write_text("titel\tneg_caption\na\t['b']\n")
    with pytest.raises(UsageError, match=r"no column caption or title .*it has titel, neg_caption"):
        load_generator(f"file:{path}")
    with pytest.raises(UsageError, match=r"no column title .*Did you mean 'titel'"):
        load_generator(f"file:{path}?captions=title")
    with pytest.raises(UsageError, match="Did you mean 'captions'"):
        load_generator(f"file:{path}?caption=titel")
    path.write_text("title\tneg_caption\ttitle\na\t['b']\tc\n")
    with pytest.raises(DataError, match="the header names the column 'title' twice"):
        load_generator(f"file:{path}")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as a table"):
        load_generator(f"file:{broken}")


# -- spaCy: the parts that need no model


class TinyThesaurus:
    version = "tiny"
    words: ClassVar = {("cat", "n"): {"dog": 5, "guinea_pig": 1}, ("red", "a"): {"blue": 1},
             ("chase", "v"): {"follow": 1, "chase": 1}, ("apple", "n"): {"pear": 1},
             ("bike", "n"): {"car": 1}, ("shirt", "n"): {"dress": 1}}  # fmt: skip

    def related(self, word, lemma, pos):
        return dict(self.words.get((lemma, pos), {}))


CHASE = {
    # A red cat chases two mice under the old table.
    "words": _split("A red cat chases two mice under the old table ."),
    "tags": _split("DT JJ NN VBZ CD NNS IN DT JJ NN ."),
    "pos": _split("DET ADJ NOUN VERB NUM NOUN ADP DET ADJ NOUN PUNCT"),
    "lemmas": _split("a red cat chase two mouse under the old table ."),
    "deps": _split("det amod nsubj ROOT nummod dobj prep det amod pobj punct"),
    "heads": [2, 2, 3, 3, 5, 3, 3, 9, 9, 6, 3],
}


@pytest.fixture
def parsed():
    spacy = pytest.importorskip("spacy")
    from fsc_bench.train.negatives.spacy import SpacyGenerator

    vocab = spacy.blank("en").vocab

    def make(spaces=None, **parse):
        count = len(parse["words"])
        spaces = spaces or [k < count - 2 for k in range(count)]

        def nlp(text):
            doc = spacy.tokens.Doc(vocab, spaces=spaces, **parse)
            assert doc.text == text
            return doc

        def inflect(lemma, tag):
            return lemma + {"VBZ": "s", "NNS": "s", "VBG": "ing"}.get(tag, "")

        return SpacyGenerator(nlp, TinyThesaurus(), inflect, "test")

    return make


def test_the_spacy_recipe_swaps_spans_of_its_six_families(parsed):
    assert every("A red cat chases two mice under the old table.", "swap", parsed(**CHASE)) == {
        "The old table chases two mice under a red cat.",  # noun chunks of more than two tokens
        "A red table chases two mice under the old cat.",  # NN
        "An old cat chases two mice under the red table.",  # ADJ
    }


def test_the_spacy_recipe_replaces_entities_modifiers_and_relations(parsed):
    found = every("A red cat chases two mice under the old table.", "replace", parsed(**CHASE))
    assert {
        "A red dog chases two mice under the old table.",
        "A blue cat chases two mice under the old table.",
        "A red cat follows two mice under the old table.",
        "A red cat chases two mice after the old table.",
    } <= found
    # "two" and "mice" have no cousins in the tiny thesaurus, nor has "chases" in itself.
    assert all(" two mice " in text for text in found)
    assert "A red cat chases two mice under the old table." not in found
    # Two words for one would tell the negatives by their number.
    assert not any("guinea" in text for text in found)


def test_the_spacy_recipe_needs_two_entities_to_replace(parsed):
    alone = {key: value[:4] + value[-1:] for key, value in CHASE.items()}
    alone["heads"] = [2, 2, 3, 3, 3]
    made = parsed(**alone).generate("A red cat chases.", random.Random(0))
    assert made["replace"] == []
    assert made["shuffle"] == ["Cat chases a red."]


# What spaCy's own model makes of captions, where the recipe went wrong with it.
SHIRT = {
    # A cat that's chasing a red t-shirt.
    "words": _split("A cat that 's chasing a red t - shirt ."),
    "spaces": [True, True, False, True, True, True, True, False, False, False, False],
    "tags": _split("DT NN WDT VBZ VBG DT JJ NN HYPH NN ."),
    "pos": _split("DET NOUN PRON AUX VERB DET ADJ NOUN PUNCT NOUN PUNCT"),
    "lemmas": _split("a cat that be chase a red t - shirt ."),
    "deps": _split("det ROOT nsubj aux relcl det amod compound punct dobj punct"),
    "heads": [1, 1, 4, 4, 1, 9, 9, 9, 9, 4, 1],
}
LISTED = {
    # A cat and a dog near an Apple bike.
    "words": _split("A cat and a dog near an Apple bike ."),
    "tags": _split("DT NN CC DT NN IN DT NNP NN ."),
    "pos": _split("DET NOUN CCONJ DET NOUN ADP DET PROPN NOUN PUNCT"),
    "lemmas": _split("a cat and a dog near an Apple bike ."),
    "deps": _split("det ROOT cc det conj prep det compound pobj punct"),
    "heads": [1, 1, 1, 4, 1, 1, 8, 8, 5, 1],
}
VERBS = {
    # Cats riding by are seen to ride on, rolling.
    "words": _split("Cats riding by are seen to ride on rolling ."),
    "tags": _split("NNS VBG RP VBP VBN TO VB RP VBG ."),
    "pos": _split("NOUN VERB ADP AUX VERB PART VERB ADP VERB PUNCT"),
    "lemmas": _split("cat ride by be see to ride on roll ."),
    "deps": _split("nsubjpass acl prt auxpass ROOT aux xcomp prt advcl punct"),
    "heads": [4, 0, 1, 4, 4, 6, 4, 6, 6, 4],
}


def test_the_spacy_recipe_cuts_no_word_in_two(parsed):
    caption, generator = "A cat that's chasing a red t-shirt.", parsed(**SHIRT)
    found = every(caption, "replace", generator)
    assert "A dog that's chasing a red t-shirt." in found
    assert all(text.endswith(" t-shirt.") for text in found)  # not "t-dress"
    assert every(caption, "swap", generator) == set()
    for text in every(caption, "shuffle", generator):
        assert sorted(text.lower().rstrip(".").split()) == sorted(
            caption.lower().rstrip(".").split()
        )


def test_the_spacy_recipe_replaces_no_part_of_a_name(parsed):
    caption = "A cat and a dog near an Apple bike."
    found = every(caption, "replace", parsed(**LISTED))
    assert "A cat and a dog near an Apple car." in found
    assert all("Apple" in text for text in found)
    # Nor by what the caption has already: "A dog and a dog".
    assert "A dog and a dog near an Apple bike." not in found


def test_the_spacy_recipe_swaps_no_members_of_a_list(parsed):
    assert every("A cat and a dog near an Apple bike.", "swap", parsed(**LISTED)) == {
        "A bike and a dog near an Apple cat.",
        "A cat and a bike near an Apple dog.",
    }


def test_the_spacy_recipe_swaps_verbs_of_one_form(parsed):
    # Not "Cats ride by are seen to riding on".
    assert every("Cats riding by are seen to ride on rolling.", "swap", parsed(**VERBS)) == {
        "Cats rolling by are seen to ride on riding.",
    }


def test_a_replacement_by_the_spacy_recipe_grows_and_shrinks_a_caption_equally_often(parsed):
    generator = parsed(**CHASE)
    longer = {"elephant": 20, "crocodile": 20, "dog": 1, "ox": 1}
    generator.thesaurus.words = {("cat", "n"): longer, ("table", "n"): {"cot": 1, "pen": 1}}
    caption = "A red cat chases two mice under the old table."
    rng = random.Random(0)
    grown = [
        np.sign(len(generator.generate(caption, rng, 1)["replace"][0]) - len(caption))
        for _ in range(2000)
    ]
    assert abs(np.mean(grown)) < 0.08


def test_without_a_parse_the_spacy_recipe_still_swaps_words(parsed):
    tagged = {key: CHASE[key] for key in ("words", "tags", "pos")}
    generator = parsed(**tagged)
    made = generator.generate("A red cat chases two mice under the old table.", random.Random(0), 9)
    assert set(made["swap"]) == {
        "A red table chases two mice under the old cat.",
        "An old cat chases two mice under the red table.",
    }
    assert made["replace"] == []


def test_a_spacy_model_is_never_downloaded_and_its_command_is_told(monkeypatch):
    pytest.importorskip("spacy")
    pytest.importorskip("pyinflect")
    with pytest.raises(
        UsageError, match=r"no model no_such_model: pip install 'fsc-bench\[spacy\]'"
    ):
        load_generator("spacy:no_such_model")
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(UsageError, match="negatives 'spacy' needs spacy: pip install"):
        load_generator("spacy")


def test_pyinflect_inflects_and_compares_only_what_has_endings():
    pytest.importorskip("pyinflect")
    from fsc_bench.train.negatives.spacy import inflect

    asked = [("ride", "VBG"), ("mouse", "NNS"), ("cat", "NN"), ("young", "JJR"), ("happy", "JJS")]
    assert [inflect(*one) for one in asked] == ["riding", "mice", "cat", "younger", "happiest"]
    # pyinflect itself offers "beautifuler" and "woodener".
    assert [inflect(one, "JJR") for one in ("beautiful", "wooden")] == [None, None]


class TinyWordNet:
    """As much of nltk's WordNet as is asked for the lemma of a word."""

    def __init__(self, counts):
        self.counts = counts

    def morphy(self, word, pos):
        return {"riding": "ride", "swinging": "swinge", "scissors": "scissors"}.get(word)

    def lemmas(self, name, pos):
        return [SimpleNamespace(name=lambda: name, key=lambda: name)] * (name in self.counts)


def test_of_two_lemmas_the_commoner_is_taken():
    from fsc_bench.train.negatives.spacy import WordNet

    counts = {"ride": 65, "rid": 4, "swing": 20, "swinge": 0, "scissors": 0}
    wordnet = WordNet.__new__(WordNet)
    wordnet.counts, wordnet.wordnet = counts, TinyWordNet(counts)
    asked = [("riding", "rid"), ("swinging", "swing"), ("scissors", "scissor"), ("qux", "qux")]
    # spaCy 3.8 takes "riding" for a form of "rid", and pyinflect makes "riding" of "rid".
    assert [wordnet._lemma(*one, "v") for one in asked] == ["ride", "swing", "scissors", "qux"]


class Sense:
    """As much of nltk's synset, and of its only lemma, as tells whether a word is kind."""

    def __init__(self, word, gloss="", count=0, usage=(), field="noun.person", pos="n"):
        self.word, self.gloss, self.usage, self.field, self.kind = word, gloss, usage, field, pos
        self.count = count

    def definition(self):
        return self.gloss

    def usage_domains(self):
        return [SimpleNamespace(name=lambda name=name: name) for name in self.usage]

    def lexname(self):
        return self.field

    def pos(self):
        return self.kind

    def lemmas(self):
        return [self]

    def name(self):
        return self.word

    def key(self):
        return id(self)

    def synset(self):
        return self


def test_a_caption_gains_no_slur_and_calls_nobody_names():
    from fsc_bench.train.negatives.spacy import WordNet

    labels = [
        Sense("rotter", "one who is despicable"),
        Sense("dog", "a dull girl"),
        Sense("rat", "one who reveals confidential information"),
    ]
    senses = [
        *labels,
        Sense("farmer", "a person who operates a farm"),
        Sense("wog", "(offensive British slang) term used by the British"),
        Sense("darky", "a person", usage=("ethnic_slur.n.01",)),
        Sense("quarterback", "the position of the offensive player; runs the team"),
        Sense("dog", "a canine", 42, field="noun.animal"),
        Sense("rat", "a rodent", 3, field="noun.animal"),
        Sense("taco", "(ethnic slur) offensive term for a person of Mexican descent"),
        Sense("taco", "a tortilla", 0, field="noun.food"),
        Sense("colored", "a term that is now considered offensive"),
        Sense("colored", "having color", 25, field="adj.all", pos="a"),
    ]
    wordnet = WordNet.__new__(WordNet)
    wordnet.counts = {sense.key(): sense.count for sense in senses}
    wordnet.labels = frozenset(labels)
    wordnet.wordnet = SimpleNamespace(
        synsets=lambda word: [sense for sense in senses if sense.word == word]
    )

    assert [(sense.word, sense.field) for sense in senses if wordnet._kind(sense)] == [
        ("dog", "noun.person"),  # the canine has been met often enough
        ("farmer", "noun.person"),
        ("quarterback", "noun.person"),
        ("dog", "noun.animal"),
        ("rat", "noun.animal"),  # a mouse may become one, a man may not
        ("colored", "adj.all"),
    ]


def test_the_real_wordnet_offers_people_for_people_and_none_of_its_slurs():
    from fsc_bench.train.negatives.spacy import WordNet

    try:
        wordnet = WordNet()
    except UsageError as error:
        pytest.skip(str(error))
    offered = wordnet.related("boy", "boy", "n")
    assert {"girl", "man", "farmer"} <= offered.keys() and len(offered) > 1000
    assert not {"whore", "tart", "idiot", "mulatto", "slave", "darky", "colored"} & offered.keys()


# -- Artefacts


def test_artefacts_find_what_gives_negatives_away():
    found = artefacts([("A cat", "A cat ."), ("A dog sits.", "A dog sits ."), ("An ox", "A ox")])
    assert set(found) == set(LOOKS)
    assert found["spaces before punctuation"] == pytest.approx(5 / 6)
    assert found["wrong a or an"] == pytest.approx(4 / 6)
    assert found["double spaces"] == 0.5


@pytest.fixture(scope="module")
def coco():
    folder = os.environ.get("FSC_BENCH_REAL_DATA")
    if not folder:
        pytest.skip("FSC_BENCH_REAL_DATA names no folder of real annotation files")
    file = Path(folder, "coco_karpathy", "coco_karpathy_test.json")
    captions = [text for row in json.loads(file.read_text()) for text in row["caption"]]
    assert len(captions) == 25_010
    rng = random.Random(0)
    return captions, [RULES.generate(caption, rng, 2) for caption in captions]


def test_nearly_every_coco_caption_has_negatives(coco):
    _, made = coco
    shares = {kind: np.mean([bool(one[kind]) for one in made]) for kind in RULES.kinds}
    assert shares["swap"] >= 0.90
    assert shares["replace"] >= 0.95
    assert shares["shuffle"] >= 0.99


@pytest.mark.parametrize("kind", ["swap", "replace", "shuffle", "all"])
def test_no_look_tells_coco_captions_from_their_negatives(coco, kind):
    captions, made = coco
    pairs = [
        (caption, text)
        for caption, one in zip(captions, made, strict=True)
        for name, texts in one.items()
        if kind in (name, "all")
        for text in texts
    ]
    assert all(normalise(caption) != normalise(text) for caption, text in pairs)
    found = artefacts(pairs)
    assert max(found.values()) <= LIMIT, found


def test_a_wordnet_that_lacks_a_file_is_one_line(monkeypatch):
    from fsc_bench.train.negatives.spacy import WordNet

    class Torn:
        def get_version(self):
            return "3.0"

        def open(self, name):
            raise OSError(f"No such file or directory: {name}")

    corpus = ModuleType("nltk.corpus")
    corpus.wordnet = Torn()
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
    with pytest.raises(UsageError, match=r"needs WordNet: python -m nltk\.downloader wordnet"):
        WordNet()
