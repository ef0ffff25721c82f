"""Losses worked out by hand: directions of the plane whose cosines are fractions, and the logits.

Every direction is from a triangle of whole sides, so at a scale of 5 the logits can be read off.
What is absent holds NaN: none of it may reach a number or a gradient.
"""

from math import exp, hypot, isnan, log, nan

import processes
import pytest
import torch
import torch.distributed as distributed

from fsc_bench.errors import FscBenchError
from fsc_bench.train import losses, related_losses
from fsc_bench.train.batches import Part, TextBlock
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.objective import (
    Features,
    contrast,
    feature_terms,
    local_term,
    negative_accuracy,
    weighted,
)
from fsc_bench.train.towers import Encoded

EAST, NORTH, WEST, AWAY = (1.0, 0.0), (0.0, 1.0), (-0.6, 0.8), (-1.0, 0.0)
LOW, MIDDLE, HIGH, STEEP = (0.96, 0.28), (0.8, 0.6), (0.6, 0.8), (0.28, 0.96)
NONE = (nan, nan)


def tensor(values, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def miss(own: float, *others: float) -> float:
    """Minus the log of the share of `own` in the softmax of all of them."""
    return log(sum(exp(other - own) for other in (own, *others)))


def mean(*values: float) -> float:
    return sum(values) / len(values)


def near(expected):
    return pytest.approx(expected, rel=1e-9, abs=1e-12)


# Three pairs with four kinds of hard negatives, of which the last is always absent. At scale 5:
#                   MIDDLE  WEST  HIGH
#     EAST             4     -3     3
#     HIGH            4.8    1.4    5
#     NORTH            3      4     4
SCALE = 5.0
IMAGES = tensor([EAST, HIGH, NORTH])
CAPTIONS = tensor([MIDDLE, WEST, HIGH])
NEGATIVES = tensor([[LOW, NONE, NONE, NONE], [NONE, STEEP, NONE, NONE], [EAST, MIDDLE, LOW, NONE]])
MASK = ~NEGATIVES[..., 0].isnan()
PAIRS = IMAGES, CAPTIONS, SCALE
EVERYTHING = *PAIRS, NEGATIVES, MASK

TO_TEXT = mean(miss(4, -3, 3), miss(1.4, 4.8, 5), miss(4, 3, 4))
TO_IMAGE = mean(miss(4, 4.8, 3), miss(1.4, -3, 4), miss(4, 3, 5))
CONTRAST = mean(TO_TEXT, TO_IMAGE)
# With its own hard negatives alone: EAST is at 4.8 from LOW, HIGH at 4.68 from STEEP, NORTH at
# 0, 3 and 1.4 from EAST, MIDDLE and LOW.
GLOBAL = mean(miss(4, 4.8), miss(1.4, 4.68), miss(4, 0, 3, 1.4))
GLOBAL_ZERO = mean(miss(4, 4.8, 0, 0, 0), miss(1.4, 4.68, 0, 0, 0), miss(4, 0, 3, 1.4, 0))
# With the hard negatives of everybody: LOW, STEEP, EAST, MIDDLE, LOW again.
COLUMNS = (4.8, 1.4, 5, 4, 4.8), (4, 4.68, 3, 4.8, 4), (1.4, 4.8, 0, 3, 1.4)
TEXTS = (4, -3, 3), (1.4, 4.8, 5), (4, 3, 4)  # the own caption first
NEGCLIP = mean(
    mean(*(miss(*row, *more) for row, more in zip(TEXTS, COLUMNS, strict=True))), TO_IMAGE
)
NEGCLIP_ZERO = mean(
    mean(*(miss(*row, *more, *[0] * 7) for row, more in zip(TEXTS, COLUMNS, strict=True))),
    TO_IMAGE,
)
# The captions with the hard negatives of everybody.
FROM_TEXTS = (4.68, 4, 4, 5, 4.68), (-1.76, 3, -3, 0, -1.76), (4, 4.68, 3, 4.8, 4)
INTRA_MODAL = mean(*(miss(own, *row) for own, row in zip((4, 1.4, 4), FROM_TEXTS, strict=True)))
INTRA_MODAL_AS_RELEASED = mean(*(miss(*row) for row in FROM_TEXTS))
# By how much a hard negative passes its caption less 1, 2 or 3, by its kind: 4.8 + 1 - 4,
# 4.68 + 2 - 1.4, then for NORTH nothing (0 + 1 - 4), 3 + 2 - 4 and 1.4 + 3 - 4. Twelve places.
STARTS = (1.0, 2.0, 3.0, 4.0)
RANK = (1.8 + 5.28 + 1 + 0.4) / 12
# Captions are at 9.4 / 3; kinds at (4.8 + 0) / 2, (4.68 + 3) / 2 and 1.4.
FOLLOWING = [9.4 / 3 - 2.4, 0.0, 9.4 / 3 - 1.4, 0.0]
# Paraphrases of the first and the third: MIDDLE is at 4 and 3 from the images and at 5 and 4.8
# from their captions, STEEP at 1.4 and 4.8, and at 4 and 4.68.
POSITIVES, THERE = tensor([MIDDLE, NONE, STEEP]), torch.tensor([True, False, True])
POSITIVE_TEXT = mean(mean(miss(4, 1.4), miss(4.8, 3)), mean(miss(5, 4), miss(4.68, 4.8)))
# Captions with their teachers' texts, at scale 10: 8 each; with their hard negatives 9.36, 6, and
# then 6, 9.6 and 8. Each is 0.4 from its teacher's, and so is the first image.
TEACHER_TEXTS = tensor([EAST, NORTH, NORTH])
TEACHER_IMAGES = tensor([MIDDLE, HIGH, NORTH])
TEXT_GROUNDED = mean(miss(8, 9.36), miss(8, 6), miss(8, 6, 9.6, 8))


# ---------------------------------------------------------------- the contrast, and others'


def test_the_contrast_is_the_mean_of_both_directions():
    by_name = losses.contrastive_loss(
        logit_scale=SCALE, text_features=CAPTIONS, image_features=IMAGES
    )
    assert losses.contrastive_loss(*PAIRS).item() == near(CONTRAST)
    assert by_name.item() == near(CONTRAST)
    assert abs(TO_TEXT - TO_IMAGE) > 0.005


def test_what_is_in_single_precision_stays_so_and_double_wins_over_it():
    single = IMAGES.float(), CAPTIONS.float(), SCALE
    assert losses.contrastive_loss(*single).dtype == torch.float32
    assert losses.contrastive_loss(*single).item() == pytest.approx(CONTRAST, rel=1e-6)
    assert losses.contrastive_loss(IMAGES, CAPTIONS.float(), SCALE).dtype == torch.float64


def test_siglip_tells_every_pair_apart_by_itself_with_its_bias():
    """A bias of -2 makes the logits 2, -0.6, 2 of the pairs; of the others six between -5 and 3."""
    value = related_losses.sigmoid_loss(*PAIRS, -2.0).item()
    terms = [miss(own, 0) for own in (2, -0.6, 2)]
    terms += [miss(0, other) for other in (-5, 1, 2.8, 3, 1, 2)]
    assert value == near(sum(terms) / 3)


@pytest.mark.parametrize(("missing", "value"), [("mask", NEGCLIP), ("zero", NEGCLIP_ZERO)])
def test_negclips_images_choose_among_everybodys_hard_negatives(missing, value):
    got = related_losses.negclip_loss(*EVERYTHING, missing=missing)
    assert got.item() == near(value)


@pytest.mark.parametrize(("missing", "value"), [("mask", GLOBAL), ("zero", GLOBAL_ZERO)])
def test_an_image_chooses_among_its_own_hard_negatives(missing, value):
    assert losses.global_hn_loss(*EVERYTHING, missing=missing).item() == near(value)
    assert losses.global_hn_loss(*EVERYTHING).item() == near(GLOBAL)


def test_own_texts_are_the_caption_and_the_hard_negatives_with_0_for_one_that_is_absent():
    got = losses.own_texts(IMAGES, CAPTIONS, NEGATIVES, MASK)
    expected = [[0.8, 0.96, 0, 0, 0], [0.28, 0, 0.936, 0, 0], [0.8, 0, 0.6, 0.28, 0]]
    for row, by_hand in zip(got.tolist(), expected, strict=True):
        assert row == near(by_hand)


def test_ce_clip_contrasts_the_pair_with_its_caption_and_everybodys_hard_negatives():
    loss = related_losses.intra_modal_contrast_loss
    assert loss(*EVERYTHING).item() == near(INTRA_MODAL)
    assert loss(*EVERYTHING, as_released=True).item() == near(INTRA_MODAL_AS_RELEASED)
    captions = CAPTIONS.clone().requires_grad_()
    none = loss(IMAGES, captions, SCALE, NEGATIVES, torch.zeros_like(MASK), as_released=True)
    assert none == 0
    assert not torch.autograd.grad(none, captions)[0].any()


def test_ce_clips_hinge_is_over_all_places_and_its_margins_are_the_mean_leads():
    value = related_losses.cross_modal_rank_loss(*EVERYTHING, tensor(STARTS))
    assert value.item() == near(RANK)
    one = IMAGES[:1], CAPTIONS[:1], SCALE, NEGATIVES[:1, :1], MASK[:1, :1]
    assert related_losses.cross_modal_rank_loss(*one, tensor([1.0])).item() == near(1.8)

    assert related_losses.rank_thresholds(*EVERYTHING).tolist() == near(FOLLOWING)
    tenfold = IMAGES, CAPTIONS, 10 * SCALE, NEGATIVES, MASK
    assert related_losses.rank_thresholds(*tenfold).tolist() == near([22 / 3, 0, 10, 0])


def test_tsvlcs_paraphrases_are_chosen_by_images_and_captions_that_have_one():
    assert related_losses.positive_text_loss(*PAIRS, POSITIVES, THERE).item() == near(POSITIVE_TEXT)


def test_deglas_captions_choose_their_teachers_texts_at_ten_times_the_cosine():
    loss = related_losses.text_grounded_contrast_loss
    assert loss(CAPTIONS, TEACHER_TEXTS, NEGATIVES, MASK).item() == near(TEXT_GROUNDED)
    half = loss(CAPTIONS, TEACHER_TEXTS, NEGATIVES, MASK, rows=6.0)
    assert half.item() == near(TEXT_GROUNDED / 2)
    assert related_losses.distillation_loss(CAPTIONS, TEACHER_TEXTS).item() == near(1.2)


# ---------------------------------------------------------------- calibration

# Shares of 6, 3 and 1 tenths; of a quarter and three, with the second place absent; and a row
# without a hard negative.
LOGITS = tensor([[log(6), log(3), 0.0], [0.0, nan, log(3)], [7.0, nan, nan]])
PRESENT = torch.tensor([[True, True], [False, True], [False, False]])


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [-log(0.6), -log(0.25)]),
        # 0.3 over three classes, and over the two that are there.
        (
            {"label_smoothing": 0.3},
            [
                -0.8 * log(0.6) - 0.1 * log(0.3) - 0.1 * log(0.1),
                -0.85 * log(0.25) - 0.15 * log(0.75),
            ],
        ),
        ({"focal_gamma": 3.0}, [-(0.4**3) * log(0.6), -(0.75**3) * log(0.25)]),
        (
            {"label_smoothing": 0.3, "focal_gamma": 3.0},
            [
                -0.8 * 0.4**3 * log(0.6) - 0.1 * 0.7**3 * log(0.3) - 0.1 * 0.9**3 * log(0.1),
                -0.85 * 0.75**3 * log(0.25) - 0.15 * 0.25**3 * log(0.75),
            ],
        ),
        # A logit of 0 in the absent place: fifths.
        ({"missing": "zero"}, [-log(0.6), -log(0.2)]),
    ],
)
def test_focus_and_smoothing_are_over_the_hard_negatives_that_are_there(settings, rows):
    def loss(count=None):
        return losses.hard_negative_cross_entropy(LOGITS, PRESENT, rows=count, **settings).item()

    assert loss() == near(sum(rows) / 2)
    assert loss(5.0) == near(sum(rows) / 5)
    alone = losses.hard_negative_cross_entropy(LOGITS[:1], PRESENT[:1], **settings)
    assert alone.item() == near(rows[0])


def test_rows_with_a_hard_negative_are_counted_and_none_is_one():
    assert losses.mean_row_count(PRESENT) == 2
    assert losses.mean_row_count(PRESENT, "reference") == 2
    assert losses.mean_row_count(PRESENT[:, 1:]) == 2  # of three rows and one column
    assert losses.mean_row_count(PRESENT[2:]) == 1
    assert losses.hard_negative_cross_entropy(LOGITS[2:], PRESENT[2:]) == 0


# ---------------------------------------------------------------- the local loss

# The third patch is half-way between the others, so min-max attention is 0, 1 and a half: a word
# to the east or north attends (4, 10) + (2, 4) / 2 = (5, 12), of length 13; one to the west
# attends (0, -2) + (1, 2) = (1, 0).
PATCHES = tensor([[[0, -2], [4, 10], [2, 4]]])


def score(patches, words, alignment="minmax", scale=1.0):
    """The local scores of texts of one word each."""
    index = torch.arange(words.shape[1])[None]
    return losses.local_scores(patches, words, index, words.shape[1], scale, alignment=alignment)


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_min_max_attention_and_its_cosine_and_gradient_of_any_size(size):
    """Cosines 5/13, 12/13, 63/65 and -1. For words w and what they attend a, with cosine c:

    (a/|a| - c w/|w|) / |w|, and (w/|w| - c a/|a|) / |a| times the attention of each patch.
    """
    patches = (size * PATCHES).requires_grad_()
    words = (size * tensor([[[2, 0], [0, 3], [6, 8], [-1, 0]]])).requires_grad_()
    got = score(patches, words)[0]
    assert got.tolist() == near([5 / 13, 12 / 13, 63 / 65, -1])

    to_word, to_patch = torch.autograd.grad(got[0], (words, patches), retain_graph=True)
    assert (size * to_word[0, 0]).tolist() == near([0, 6 / 13])
    assert not to_word[0, 1:].any()
    east = [144 / 2197, -60 / 2197]
    assert (size * to_patch[0, 1]).tolist() == near(east)
    assert (size * to_patch[0, 2]).tolist() == near([value / 2 for value in east])
    assert not to_patch[0, 0].any()
    to_word, to_patch = torch.autograd.grad(got[1], (words, patches))
    assert (size * to_word[0, 1]).tolist() == near([5 / 39, 0])
    assert (size * to_patch[0, 1]).tolist() == near([-60 / 2197, 25 / 2197])


def test_one_side_may_be_frozen():
    words = tensor([[[2, 0], [0, 3]]])
    patches = PATCHES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(patches, words)[0, 0], patches)
    assert gradient[0, 1].tolist() == near([144 / 2197, -60 / 2197])
    words.requires_grad_()
    (gradient,) = torch.autograd.grad(score(PATCHES, words)[0, 0], words)
    assert gradient[0, 0].tolist() == near([0, 6 / 13])


def test_sparse_attention_drops_what_is_below_one_of_the_number_of_patches():
    """To the east attention is 0, 1/8, 1/4 and 1: of four patches the eighth is dropped."""
    patches = tensor([[[0, 9], [1, 40], [2, 4], [8, 7]]])
    words = tensor([[[1, 0], [0, 1]]])
    dense, sparse = score(patches, words)[0, 0], score(patches, words, "minmax-sparse")[0, 0]
    assert dense.item() == near(8.625 / hypot(8.625, 13))
    assert sparse.item() == near(8.5 / hypot(8.5, 8))


def test_softmax_attention_is_over_the_patches():
    """Similarities of log 3 and 0 are three quarters and one; a word to the north has 1 and 5."""
    patches = tensor([[[log(3), 1], [0, 5]]])
    got = score(patches, tensor([[[1, 0], [0, 1]]]), "softmax")[0]
    east = 0.75 * log(3)
    assert got[0].item() == near(east / hypot(east, 2))
    share = 1 / (1 + exp(4))
    across, up = share * log(3), share + 5 * (1 - share)
    assert got[1].item() == near(up / hypot(across, up))


def test_patches_that_are_alike_are_all_attended():
    """Both are at 0 from the word's first axis: the sum is (0, 4), or (3, 4) with the other."""
    got = score(tensor([[[3, 0], [0, 4]]]), tensor([[[1, 0.75], [4, 3]]]))[0]
    assert got.tolist() == near([0.96, 0.96])


@pytest.mark.parametrize(
    ("patches", "word"),
    [
        # Opposite patches cancel to less than their rounding, 2000 times 1.2e-7.
        ([[1000, 0], [-1000.00006, 0]], [0, 1]),
        ([[3, 4], [4, 10]], [0, 0]),
    ],
)
def test_what_has_no_direction_has_cosine_0_and_no_gradient(patches, word):
    patches = tensor([patches], torch.float32).requires_grad_()
    words = tensor([[word, [1, 2]]], torch.float32).requires_grad_()
    got = score(patches, words)[0, 0]
    assert got == 0
    for gradient in torch.autograd.grad(got, (patches, words)):
        assert not gradient.any()


def test_autocast_changes_neither_the_local_score_nor_its_gradients():
    """Half precision would have three digits: a third of 3, 4 and 10 has none exactly."""
    patches = (tensor([[[0, -2], [4, 10], [2, 4]]], torch.float32) / 3).requires_grad_()
    words = (tensor([[[2, 0.1], [0.7, 3]]], torch.float32) / 3).requires_grad_()
    exact = patches.double().detach().requires_grad_(), words.double().detach().requires_grad_()
    reference = torch.autograd.grad(score(*exact)[0, 1], exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = score(patches, words)[0, 1]
        found = torch.autograd.grad(inside, (patches, words))
    assert inside.item() == pytest.approx(score(*exact)[0, 1].item(), rel=1e-6)
    for got, expected in zip(found, reference, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


# At a scale of 13/4: a word to the east scores 5/4, to the north 3, to (3, 4) 3.15.
WORDS = {"east": (1, 0), "north": (0, 1), "steep": (3, 4), "": (9, 9)}


def packed(*rows):
    """(words, the text of each) of rows of (text, word); -1 is padding."""
    index = torch.tensor([[text for text, _ in row] for row in rows])
    return tensor([[WORDS[word] for _, word in row] for row in rows]), index


def test_the_local_loss_is_over_texts_that_have_words_and_are_not_marked_absent():
    words, index = packed(
        # The second hard negative is marked absent, though it has a word.
        [(0, "steep"), (1, "east"), (1, "north"), (2, "north"), (-1, "")],
        # The first hard negative has no word.
        [(0, "east"), (2, "north"), (-1, ""), (-1, ""), (-1, "")],
        # The caption has none: the row is left out.
        [(1, "north"), (2, "east"), (-1, ""), (-1, ""), (-1, "")],
    )
    mask = torch.tensor([[True, False], [True, True], [True, True]])
    patches = PATCHES.expand(3, -1, -1)
    both = log(exp(1.25) + exp(3))

    scores = losses.local_scores(patches, words, index, 3, 3.25)
    assert scores[0].tolist() == near([3.15, both, 3])
    assert scores[1].tolist() == [near(1.25), -torch.inf, near(3)]
    assert scores[2].tolist() == [-torch.inf, near(3), near(1.25)]

    def loss(**settings):
        return losses.local_hn_loss_packed(patches, words, index, mask, 3.25, **settings).item()

    assert loss() == near(mean(miss(3.15, both), miss(1.25, 3)))
    assert loss(missing="zero") == near(mean(miss(3.15, both, 0), miss(1.25, 3, 0)))
    assert loss(rows=8.0) == near(mean(miss(3.15, both), miss(1.25, 3)) / 4)


def test_texts_are_packed_without_padding_and_absent_hard_negatives():
    captions = tensor([[[1], [2], [3]], [[4], [5], [6]]])
    caption_mask = torch.tensor([[0, 1, 1], [0, 1, 0]])
    others = 10 * tensor([[[[1], [2], [3]], [[4], [5], [6]]], [[[7], [8], [9]], [[1], [2], [4]]]])
    other_mask = torch.tensor([[[0, 1, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 1]]])
    mask = torch.tensor([[1, 1], [0, 1]])
    words, index = losses.pack_texts(captions, caption_mask, others, other_mask, mask)
    assert words[..., 0].tolist() == [[2, 3, 20, 50, 60], [5, 40, 0, 0, 0]]
    assert index.tolist() == [[0, 0, 1, 2, 2], [0, 2, -1, -1, -1]]


def test_the_three_terms_are_without_focus_and_smoothing_unless_they_are_asked_for():
    """One pair: EAST is at 4 from its caption and 4.8 from its hard negative; steep and north."""
    one = {
        "image_features": IMAGES[:1], "text_features": CAPTIONS[:1], "logit_scale": SCALE,
        "negative_features": NEGATIVES[:1, :1], "negative_mask": MASK[:1, :1],
        "image_tokens": PATCHES, "text_tokens": tensor([[(3, 4)]]),
        "text_token_mask": torch.ones(1, 1), "negative_tokens": tensor([[[(0, 1)]]]),
        "negative_token_mask": torch.ones(1, 1, 1),
    }  # fmt: skip
    terms = losses.fsc_clip_loss(**one)
    assert {name: value.item() for name, value in terms.items()} == {
        "contrastive": 0.0,
        "global_hn": near(miss(4, 4.8)),
        "local_hn": near(miss(63 / 13, 60 / 13)),
    }
    smooth = losses.fsc_clip_loss(**one, focal_gamma=1.0, label_smoothing=0.5)
    share = exp(-miss(4, 4.8))
    expected = 0.75 * (1 - share) * miss(4, 4.8) + 0.25 * share * miss(4.8, 4)
    assert smooth["global_hn"].item() == near(expected)


def test_words_that_are_no_choice_are_refused_everywhere():
    with pytest.raises(FscBenchError, match="no missing called 'masked'"):
        losses.hard_negative_cross_entropy(LOGITS, PRESENT, missing="masked")
    with pytest.raises(FscBenchError, match="no missing called 'masked'"):
        related_losses.negclip_loss(*EVERYTHING, missing="masked")
    with pytest.raises(FscBenchError, match="no alignment called 'none'"):
        score(PATCHES, tensor([[[1, 0]]]), "none")


# ---------------------------------------------------------------- the objective of a config


def features(images=IMAGES, captions=CAPTIONS) -> Features:
    texts = torch.cat([captions[:, None], NEGATIVES], dim=1)
    return Features(images, texts, POSITIVES)


def terms_of(bias=None, **settings):
    given = {"negatives": "data", "positives": "data", "ema_decay": 0.9, **settings}
    teacher = Features(TEACHER_IMAGES, TEACHER_TEXTS[:, None])
    terms, following = feature_terms(
        TrainConfig(**given), features(), MASK, torch.tensor(SCALE), torch.tensor(3.0),
        logit_bias=bias, positive_mask=THERE, teacher=teacher, thresholds=tensor(STARTS),
    )  # fmt: skip
    return {name: value.item() for name, value in terms.items()}, following


SIGLIP = [miss(own, 0) for own in (2, -0.6, 2)] + [miss(0, o) for o in (-5, 1, 2.8, 3, 1, 2)]
BY_WEIGHT = {
    "contrastive": CONTRAST,
    "global_hn": GLOBAL,
    "intra_modal": INTRA_MODAL,
    "rank": RANK,
    "positive_text": POSITIVE_TEXT,
    "text_grounded": TEXT_GROUNDED,
    "distillation": 1.6,
}


@pytest.mark.parametrize("name", BY_WEIGHT)
def test_a_loss_is_there_where_it_has_a_weight_and_alone_where_no_other_has(name):
    terms, following = terms_of(**{"contrastive_weight": 0.0, f"{name}_weight": 0.5})
    assert terms == {name: near(BY_WEIGHT[name])}
    assert (following is None) == (name != "rank")
    if name == "rank":
        assert following.tolist() == near(FOLLOWING)


def test_all_losses_together_are_what_they_are_alone():
    every = {f"{name}_weight": 0.5 for name in BY_WEIGHT}
    assert terms_of(**every)[0] == near(BY_WEIGHT)
    assert terms_of(**every, negative_columns=True)[0] == near(
        {**BY_WEIGHT, "contrastive": NEGCLIP}
    )
    assert terms_of(**every, bias=-2.0)[0]["contrastive"] == near(sum(SIGLIP) / 3)


def test_calibration_and_released_variants_reach_their_losses():
    zero = terms_of(missing="zero", negative_columns=True, global_hn_weight=1.0)[0]
    assert zero == near({"contrastive": NEGCLIP_ZERO, "global_hn": GLOBAL_ZERO})
    focal = terms_of(contrastive_weight=0.0, global_hn_weight=1.0, focal_gamma=2.0)[0]
    rows = [miss(4, 4.8), miss(1.4, 4.68), miss(4, 0, 3, 1.4)]
    assert focal["global_hn"] == near(mean(*(row * (1 - exp(-row)) ** 2 for row in rows)))
    released = terms_of(intra_modal_weight=1.0, intra_modal_as_released=True)[0]
    assert released["intra_modal"] == near(INTRA_MODAL_AS_RELEASED)


def test_the_contrast_is_that_of_clip_negclip_or_siglip():
    plain, columns = TrainConfig(), TrainConfig(negatives="data", negative_columns=True)
    assert contrast(plain, EVERYTHING, None).item() == near(CONTRAST)
    assert contrast(columns, EVERYTHING, None).item() == near(NEGCLIP)
    assert contrast(plain, EVERYTHING, -2.0).item() == near(sum(SIGLIP) / 3)
    # Each image's own hard negatives, at 4.8, 4.68, 0, 3 and 1.4, have label -1.
    refused = [miss(0, logit) for logit in (2.8, 2.68, -2, 1, -0.6)]
    assert contrast(columns, EVERYTHING, -2.0).item() == near(sum(SIGLIP + refused) / 3)
    asked = TrainConfig(contrast="softmax")
    assert contrast(asked, EVERYTHING, -2.0).item() == near(CONTRAST)


def test_terms_are_added_by_the_weights_of_the_config():
    config = TrainConfig(negatives="data", contrastive_weight=2.0, global_hn_weight=0.25)
    assert weighted(config, {"contrastive": tensor(3.0), "global_hn": tensor(4.0)}) == 7
    assert weighted(config, {"global_hn": tensor(4.0)}) == 1
    with pytest.raises(FscBenchError, match="rank"):
        losses.weighted_sum({"rank": tensor(1.0)}, {})


# ---------------------------------------------------------------- texts find their places


def part(texts, mask, positives=None) -> Part:
    """A part of blocks of (image, text) rows: start, two words of which the last is the end."""
    blocks = tuple(
        TextBlock(
            torch.zeros(len(rows), 3, dtype=torch.long),
            torch.full((len(rows),), 2),
            torch.tensor([image for image, _ in rows]),
            torch.tensor([text for _, text in rows]),
        )
        for rows in texts
    )
    mask = torch.tensor(mask)
    images = torch.zeros(len(mask), 3, 1, 1, dtype=torch.uint8)
    return Part(images, blocks, mask, positive_mask=positives)


def encoded(rows, image_tokens=None, text_tokens=None) -> Encoded:
    blocks = [tensor([[10.0 * image + text, 1] for image, text in block]) for block in rows]
    return Encoded(IMAGES, image_tokens, blocks, text_tokens, torch.tensor(SCALE))


PLACES = [[(2, 0), (0, 1), (1, 0)], [(0, 0), (2, 2)]]
HOLES = [[True, False], [False, False], [False, True]]


def test_features_of_a_part_stand_by_image_and_text_and_absent_ones_are_zeros():
    found = Features.of(part(PLACES, HOLES), encoded(PLACES))
    assert found.images is IMAGES and found.positives is None
    assert found.texts[..., 0].tolist() == [[0, 1, 0], [10, 0, 0], [20, 0, 22]]
    assert found.texts[..., 1].tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 1]]


def test_a_paraphrase_stands_after_the_last_hard_negative():
    places = [*PLACES, [(1, 4), (0, 4)]]
    holes = [[*row, False] for row in HOLES]
    there = torch.tensor([True, True, False])
    found = Features.of(part(places, holes, there), encoded(places))
    assert found.texts[..., 0].tolist() == [[0, 1, 0, 0], [10, 0, 0, 0], [20, 0, 22, 0]]
    assert found.positives.tolist() == [[4, 1], [14, 1], [0, 0]]


def test_parts_are_joined_in_their_order():
    one = Features(IMAGES[:1], NEGATIVES[:1], POSITIVES[:1])
    rest = Features(IMAGES[1:], NEGATIVES[1:], POSITIVES[1:])
    both = Features.join([one, rest])
    assert torch.equal(both.images, IMAGES)
    assert torch.equal(both.texts.isnan(), NEGATIVES.isnan()) and len(both.positives) == 3
    assert Features.join([one]) is one
    plain = Features.join(
        [Features(IMAGES[:1], NEGATIVES[:1]), Features(IMAGES[1:], NEGATIVES[1:])]
    )
    assert plain.positives is None and len(plain.images) == 3


def test_a_parts_local_term_is_over_its_texts_but_not_its_paraphrases():
    """Scale 13/4, and half of the batch's four rows: (miss(3.15, 3) + miss(5/4, 3)) / 4.

    The start token and the paraphrase are to the north-west, which would be seen.
    """
    places = [[(0, 0), (0, 1), (1, 2)], [(1, 0), (1, 1), (0, 2)]]
    words = [["steep", "north", ""], ["east", "north", ""]]
    tokens = [tensor([[(-9, 9), WORDS[word], WORDS[word]] for word in block]) for block in words]
    given = part(places, [[True], [True]], torch.tensor([True, True]))
    made = encoded(places, PATCHES.expand(2, -1, -1), tokens)
    config = TrainConfig(negatives="data", local_hn_weight=1.0)
    got = local_term(config, given, made, torch.tensor(4.0), torch.tensor(3.25))
    # Both words of a text are the same one: its score is log 2 more, which cancels.
    assert got.item() == near((miss(3.15, 3) + miss(1.25, 3)) / 4)
    focal = TrainConfig(negatives="data", local_hn_weight=1.0, focal_gamma=1.0, label_smoothing=0.5)
    got = local_term(focal, given, made, torch.tensor(4.0), torch.tensor(3.25))
    rows = [
        0.75 * (1 - exp(-miss(own, other))) * miss(own, other)
        + 0.25 * exp(-miss(own, other)) * miss(other, own)
        for own, other in ((3.15, 3), (1.25, 3))
    ]
    assert got.item() == near(sum(rows) / 4)


def test_an_image_is_right_where_its_caption_is_nearer_than_every_hard_negative_that_is_there():
    """Three of five: a nearer hard negative and a tie are misses; a row without any is not asked.

    The second caption is at -0.6, below the 0 of the absent one and above the -1 of the other.
    """
    absent = (0.0, 0.0)
    texts = [
        [MIDDLE, LOW, absent],
        [WEST, absent, AWAY],
        [MIDDLE, MIDDLE, HIGH],
        [LOW, absent, absent],
        [LOW, MIDDLE, HIGH],
        [MIDDLE, HIGH, absent],
    ]
    mask = tensor(texts)[:, 1:].ne(0).any(-1)
    found = Features(tensor([EAST] * 6), tensor(texts))
    assert negative_accuracy(found, mask).tolist() == [3, 5]
    none = Features(tensor([EAST] * 6), tensor(texts)[:, :1])
    assert negative_accuracy(none, mask[:, :0]).tolist() == [0, 0]


# ---------------------------------------------------------------- what is absent


def test_what_is_absent_reaches_no_gradient():
    """Nor does it through any of the losses that look at hard negatives or paraphrases."""
    negatives, positives = NEGATIVES.clone().requires_grad_(), POSITIVES.clone().requires_grad_()
    total = (
        losses.global_hn_loss(*PAIRS, negatives, MASK)
        + related_losses.negclip_loss(*PAIRS, negatives, MASK)
        + related_losses.intra_modal_contrast_loss(*PAIRS, negatives, MASK)
        + related_losses.cross_modal_rank_loss(*PAIRS, negatives, MASK, tensor(STARTS))
        + related_losses.positive_text_loss(*PAIRS, positives, THERE)
    )
    for gradient, there in zip(
        torch.autograd.grad(total, (negatives, positives)), (MASK, THERE), strict=True
    ):
        assert not gradient[~there].any() and gradient[there].isfinite().all()
    assert not isnan(total.item())


# ---------------------------------------------------------------- two processes


def first_process() -> None:
    """What the first of two brings, said without our code: in the order that the second asks."""
    rows = [torch.empty(2, 2), torch.empty(2, 2)]
    distributed.all_gather(rows, torch.tensor([[1.0, 2], [3, 4]]))
    distributed.all_reduce(torch.tensor([[10.0, 20], [30, 40], [50, 60], [70, 80]]))
    distributed.all_gather(rows, torch.tensor([[1.0, 2], [3, 4]]))
    distributed.all_reduce(torch.tensor(3.0))
    distributed.all_reduce(torch.tensor(0.0))


def test_the_second_of_two_gathers_all_rows_and_the_slope_of_its_own(tmp_path):
    """Its rows are the third and the fourth, where the first one's slope is ten times its own.

    Of rows with a hard negative the first has 3 and the second 2: 2.5 on average.
    """
    slope = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    own = torch.tensor([[5.0, 6], [7, 8]], requires_grad=True)
    with processes.second_of_two(first_process, tmp_path):
        whole = losses.gather_features(own)
        (averaged,) = torch.autograd.grad(whole, own, slope)
        alone = losses.gather_features(own, "reference")
        (kept,) = torch.autograd.grad(alone, own, slope)
        counts = [
            losses.mean_row_count(PRESENT),
            losses.mean_row_count(PRESENT, "reference"),
            losses.mean_row_count(PRESENT[2:]),
        ]
    assert whole.tolist() == alone.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert averaged.tolist() == [[55, 66], [77, 88]]
    assert kept.tolist() == [[5, 6], [7, 8]]
    assert counts == [2.5, 2, 0.5]


def test_one_process_in_a_group_of_its_own_gathers_nothing(tmp_path):
    with processes.group(0, 1, tmp_path):
        assert losses.gather_features(IMAGES) is IMAGES
        assert losses.mean_row_count(PRESENT) == 2
