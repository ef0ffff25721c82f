"""CLIP's tokenizer word by word: the tokenizer's own ids, and unused where it is another."""

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from fsc_bench.models.shortcuts.words import Words, token_ids

PARTS = (
    "'s", "'LL", "<start_of_text>", "<END_OF_TEXT>", "</w>", "&amp;", "&", "3d", "--", " ", "\t",
    "café", "ſ", "“", "\x1b[0m", "\r\n", "犬", "\ufb01", "a", "Dogs", "!?", "_", "\x00",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=12)), max_size=20).map("".join)


@pytest.fixture(scope="module")
def tokenizer():
    return SimpleTokenizer(context_length=20)


def test_a_caption_of_three_words_is_five_tokens(tokenizer):
    ids = token_ids(tokenizer)(["A  cat's"])

    assert isinstance(token_ids(tokenizer), Words)
    assert ids.shape == (1, 20)
    assert ids[0, :6].tolist() == [49406, 320, 2368, 568, 49407, 0]  # CLIP's: a, cat, 's
    assert ids.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_any_texts_have_the_tokenizers_own_ids(tokenizer, some):
    assert np.array_equal(Words(tokenizer)(some), tokenizer(some).numpy())


@pytest.mark.parametrize("words", [17, 18, 19, 20, 60])
def test_a_text_is_cut_where_the_tokenizer_cuts_it(tokenizer, words):
    text = "dog " * words

    ids = Words(tokenizer)([text])[0]
    assert np.array_equal(ids, tokenizer([text]).numpy()[0])
    assert (ids == 1929).sum() == min(words, 18)


def test_each_different_word_is_cut_into_tokens_once():
    own = SimpleTokenizer()
    words, asked = Words(own), []
    encode = own.encode
    own.encode = lambda text: asked.append(text) or encode(text)
    words(["a red cat", "A cat on a red mat", "a caf\u00e9 cat"])

    assert asked == ["a", "red", "cat", "on", "mat", "a café cat"]


def spans_blanks() -> SimpleTokenizer:
    tokenizer = SimpleTokenizer()
    tokenizer.pat = regex.compile(r"[\p{L}]+(?: [\p{L}]+)?|[^\s\p{L}]+")
    return tokenizer


@pytest.mark.parametrize(
    "other",
    [
        lambda: SimpleTokenizer(clean="canonicalize"),
        lambda: SimpleTokenizer(reduction_mask="simple"),
        lambda: SimpleTokenizer(additional_special_tokens=["<a b>"]),
        lambda: type("Own", (SimpleTokenizer,), {})(),
    ],
)
def test_a_tokenizer_with_ways_of_its_own_is_asked_itself(other):
    assert not isinstance(token_ids(other()), Words)


def test_what_is_no_plain_tokenizer_gives_its_own_ids():
    canonical = SimpleTokenizer(clean="canonicalize")
    some = ["A cat, a dog.", "it's_3"]

    assert np.array_equal(token_ids(canonical)(some), canonical(some).numpy())


def test_a_tokenizer_that_disagrees_on_the_trial_texts_is_asked_itself():
    assert not isinstance(token_ids(spans_blanks()), Words)
