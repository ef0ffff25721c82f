"""The losses: golden values of the reference, a plain transcription of the equations, and laws."""

import itertools
import json
import math
import os
from pathlib import Path

import processes
import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsc_bench.errors import FscBenchError
from fsc_bench.system.distributed import open_group
from fsc_bench.train import losses, related_losses
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.losses import fsc_clip_loss, hard_negative_cross_entropy, local_scores
from fsc_bench.train.objective import Features, feature_terms
from fsc_bench.train.tokens import TextTokens, pack_tokens

TERMS = ("contrastive", "global_hn", "local_hn")
ALIGNMENTS = ("minmax", "minmax-sparse", "softmax")


# --- A plain transcription of the equations -----------------------------------------------------


def plain_score(patches, words, scale, alignment):
    """log of the paper's local score of one image [P, D] and one text's valid words [T, D]."""
    similarity = (words @ patches.T).detach()
    if alignment == "softmax":
        attention = similarity.softmax(1)
    else:
        low = similarity.min(1, keepdim=True).values
        high = similarity.max(1, keepdim=True).values
        attention = (similarity - low) / (high - low)
        if alignment == "minmax-sparse":
            attention = torch.where(attention < 1 / len(patches), 0.0, attention)
    attended = (attention @ patches) / attention.sum(1, keepdim=True)
    return (scale * F.cosine_similarity(attended, words, dim=1)).logsumexp(0)


def plain_loss(batch, gamma, beta, alignment, missing):
    """The three terms, one image and one text at a time."""
    images, captions, scale = batch["image_features"], batch["text_features"], batch["logit_scale"]
    logits = scale * images @ captions.T
    labels = torch.arange(len(images))
    contrastive = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    sums = {"global_hn": [], "local_hn": []}
    for i, present in enumerate(batch["negative_mask"]):
        if not present.any():
            continue
        words = batch["text_tokens"][i][batch["text_token_mask"][i]]
        patches = batch["image_tokens"][i]
        rows = {
            "global_hn": [scale * images[i] @ captions[i]],
            "local_hn": [plain_score(patches, words, scale, alignment)],
        }
        n = 1 + int(present.sum())
        weights = [1 - beta + beta / n]
        for k, there in enumerate(present):
            if there:
                words = batch["negative_tokens"][i, k][batch["negative_token_mask"][i, k]]
                rows["global_hn"].append(scale * images[i] @ batch["negative_features"][i, k])
                rows["local_hn"].append(plain_score(patches, words, scale, alignment))
                weights.append(beta / n)
            elif missing == "zero":
                for row in rows.values():
                    row.append(torch.zeros((), dtype=images.dtype))
                weights.append(0.0)
        for name, row in rows.items():
            p = torch.stack(row).softmax(0)
            terms = [-y * (1 - q) ** gamma * q.log() for y, q in zip(weights, p, strict=True)]
            sums[name].append(sum(terms))
    means = {name: sum(rows) / len(rows) for name, rows in sums.items()}
    return {"contrastive": contrastive, **means}


def random_batch(b=5, k=3, p=7, t=9, d=16, *, scale=20.0, dtype=torch.float64, seed=0):
    """Arguments of fsc_clip_loss: random features and tokens, SOT and padding masked."""
    torch.manual_seed(seed)

    def tokens(*shape):
        return torch.randn(*shape, d, dtype=torch.float64).to(dtype)

    def mask(*shape):
        words = torch.randint(1, t - 1, shape)
        place = torch.arange(t)
        return (place >= 1) & (place <= words[..., None])

    negative_mask = torch.rand(b, k) < 0.7
    negative_mask[0], negative_mask[1:2, :1] = True, False
    return {
        "image_features": F.normalize(tokens(b), dim=-1),
        "text_features": F.normalize(tokens(b), dim=-1),
        "logit_scale": torch.tensor(scale, dtype=dtype),
        "negative_features": F.normalize(tokens(b, k), dim=-1),
        "negative_mask": negative_mask,
        "image_tokens": tokens(b, p),
        "text_tokens": tokens(b, t),
        "text_token_mask": mask(b),
        "negative_tokens": tokens(b, k, t),
        "negative_token_mask": mask(b, k),
    }


def differentiable(batch):
    return {
        name: value.clone().requires_grad_() if value.is_floating_point() else value
        for name, value in batch.items()
    }


def gradients(loss, batch):
    inputs = {name: value for name, value in batch.items() if value.requires_grad}
    found = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(inputs.items(), found, strict=True)
    }


@pytest.mark.parametrize("missing", ["mask", "zero"])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(("gamma", "beta"), [(0.0, 0.0), (2.0, 0.02), (0.5, 0.3)])
def test_values_and_gradients_are_those_of_the_equations(gamma, beta, alignment, missing):
    ours, plain = differentiable(random_batch()), differentiable(random_batch())
    calibration = {"focal_gamma": gamma, "label_smoothing": beta}
    got = fsc_clip_loss(**ours, **calibration, alignment=alignment, missing=missing)
    expected = plain_loss(plain, gamma, beta, alignment, missing)
    for term in TERMS:
        torch.testing.assert_close(got[term], expected[term], rtol=1e-12, atol=0)
        for name, gradient in gradients(got[term], ours).items():
            reference = plain_loss(plain, gamma, beta, alignment, missing)[term]
            other = gradients(reference, plain)[name]
            scale = other.abs().max().clamp_min(1e-30)
            assert (gradient - other).abs().max() / scale < 1e-9, (term, name)


def test_float32_inside_autocast_is_float32():
    batch = random_batch(dtype=torch.float32)
    plain = fsc_clip_loss(**batch, focal_gamma=2.0, label_smoothing=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fsc_clip_loss(**batch, focal_gamma=2.0, label_smoothing=0.02)
    for term in TERMS:
        assert inside[term].dtype == torch.float32
        assert inside[term] == plain[term]


# --- Golden values ------------------------------------------------------------------------------

# The file holds what the reference adds up, so its hard-negative terms carry its default weights.
GOLDEN = {
    "contrastive": ("clip_loss", 1.0),
    "global_hn": ("clip_neg_loss", 0.5),
    "local_hn": ("local_neg_loss", 0.2),
}


def golden():
    folder = os.environ.get("FSC_BENCH_REAL_DATA")
    if not folder:
        pytest.skip("FSC_BENCH_REAL_DATA names no folder with golden_losses.json")
    return json.loads((Path(folder) / "golden_losses.json").read_text())


def golden_batch(inputs, scale, dtype):
    def tensor(name):
        return torch.tensor(inputs[name], dtype=torch.float64).to(dtype)

    def mask(name):
        return torch.tensor(inputs[name]).bool()

    return {
        "image_features": tensor("img"),
        "text_features": tensor("pos"),
        "logit_scale": torch.tensor(scale, dtype=dtype),
        "negative_features": tensor("negs").transpose(0, 1),
        "negative_mask": mask("mask_KB").T,
        "image_tokens": tensor("itok"),
        "text_tokens": tensor("ptok"),
        "text_token_mask": mask("attn_pos"),
        "negative_tokens": tensor("ntok").transpose(0, 1),
        "negative_token_mask": mask("attn_neg").transpose(0, 1),
    }


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("missing", ["zero", "mask"])
def test_golden_values_of_the_reference(missing, dtype, within):
    data = golden()
    batch = golden_batch(data["inputs"], data["meta"]["scale"], dtype)
    variants = {name: values for name, values in data["outputs"].items() if "|" in name}
    assert len(variants) == 15
    for name, values in variants.items():
        calibration, alignment = name.split("|")
        numbers = {"focal_gamma": 0.0, "label_smoothing": 0.0}
        for part in calibration.split("_"):
            if part.startswith("focal"):
                numbers["focal_gamma"] = float(part.removeprefix("focal"))
            elif part.startswith("ls"):
                numbers["label_smoothing"] = float(part.removeprefix("ls"))
        got = fsc_clip_loss(**batch, **numbers, alignment=alignment, missing=missing)
        expected = values if missing == "zero" else values | values["masked_variant"]
        for term, (key, weight) in GOLDEN.items():
            assert float(got[term]) * weight == pytest.approx(expected[key], rel=within), name


@pytest.mark.parametrize(
    ("missing", "key"),
    [("zero", "clip_loss_zero_rows_kept"), ("mask", "clip_loss_rows_dropped")],
)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_golden_values_of_negclip(missing, key, dtype, within):
    data = golden()
    batch = golden_batch(data["inputs"], data["meta"]["scale"], dtype)
    names = "image_features", "text_features", "logit_scale", "negative_features", "negative_mask"
    got = related_losses.negclip_loss(*(batch[name] for name in names), missing=missing)
    assert float(got) == pytest.approx(data["outputs"]["negclip_style"][key], rel=within)


# --- Adversarial inputs -------------------------------------------------------------------------


def constant_similarity(batch):
    batch["image_tokens"][:] = batch["image_tokens"][:, :1]


def constant_similarity_on_a_masked_token(batch):
    batch["text_tokens"][:, -1] = 0.0  # similarity 0 with every patch; the last is always masked
    batch["negative_tokens"][:, :, -1] = 0.0


def zero_tokens(batch):
    batch["text_tokens"][:] = 0.0
    batch["image_tokens"][0] = 0.0


def opposed_patches(batch):
    batch["image_tokens"][:, 1::2] = -batch["image_tokens"][:, :-1:2]
    batch["image_tokens"][:, -1] = 0.0
    batch["text_tokens"][:, :, 0] = 1.0
    batch["text_tokens"][:, :, 1:] = 0.0
    batch["image_tokens"][:, :, 0] = 0.0  # at right angles to every word: uniform attention


def one_token(batch):
    for name in ("text_token_mask", "negative_token_mask"):
        batch[name][..., :] = False
        batch[name][..., 1] = True


def all_negatives_missing(batch):
    batch["negative_mask"][:] = False


def extreme_scale(batch):
    batch["logit_scale"] = torch.tensor(1e4, dtype=batch["logit_scale"].dtype)


def large_tokens(batch):
    batch["image_tokens"] *= 3000
    batch["text_tokens"] *= 3000


def tiny_tokens(batch):
    batch["image_tokens"] *= 1e-3
    batch["negative_tokens"] *= 1e-3


def vanishing_tokens(batch):
    for name in ("image_tokens", "text_tokens", "negative_tokens"):
        batch[name] *= 1e-25  # 0 in float16


def caption_equals_its_negatives(batch):
    batch["negative_features"][:] = batch["text_features"][:, None]
    batch["negative_tokens"][:] = batch["text_tokens"][:, None]
    batch["negative_token_mask"][:] = batch["text_token_mask"][:, None]


def garbage_where_nothing_is(batch):
    absent = ~batch["negative_mask"]
    batch["negative_features"][absent] = torch.nan
    batch["negative_tokens"][absent] = torch.nan
    batch["text_tokens"][~batch["text_token_mask"]] = torch.inf


ADVERSARIAL = (
    constant_similarity,
    constant_similarity_on_a_masked_token,
    zero_tokens,
    opposed_patches,
    one_token,
    all_negatives_missing,
    extreme_scale,
    large_tokens,
    tiny_tokens,
    vanishing_tokens,
    caption_equals_its_negatives,
    garbage_where_nothing_is,
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spoil", ADVERSARIAL, ids=lambda spoil: spoil.__name__)
def test_adversarial_inputs_stay_finite(spoil, dtype):
    for alignment, missing, gamma in itertools.product(ALIGNMENTS, ("mask", "zero"), (0.0, 0.5, 2)):
        batch = random_batch(dtype=dtype, scale=100.0)
        spoil(batch)
        batch = differentiable(batch)
        got = fsc_clip_loss(
            **batch, focal_gamma=gamma, label_smoothing=0.02, alignment=alignment, missing=missing
        )
        for term in TERMS:
            assert got[term].isfinite(), term
            for name, gradient in gradients(got[term], batch).items():
                assert gradient.isfinite().all(), (term, name)
                assert gradient.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_patch_and_one_token_is_the_cosine(dtype):
    batch = random_batch(p=1, dtype=dtype)
    one_token(batch)
    words = torch.cat([batch["text_tokens"][:, None], batch["negative_tokens"]], dim=1)[:, :, 1]
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    expected = 20 * F.cosine_similarity(batch["image_tokens"].to(exact), words.to(exact), dim=-1)
    every = torch.ones(5, 4, dtype=torch.bool)
    packed, index = losses.pack_texts(
        batch["text_tokens"],
        batch["text_token_mask"],
        batch["negative_tokens"],
        batch["negative_token_mask"],
        every[:, 1:],
    )
    got = local_scores(batch["image_tokens"], packed, index, 4, 20.0)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [0, 3])
def test_a_batch_without_negatives_is_a_zero_with_a_gradient(k):
    batch = random_batch(b=2, k=k)
    batch["negative_mask"][:] = False
    batch = differentiable(batch)
    got = fsc_clip_loss(**batch, focal_gamma=2.0, label_smoothing=0.02)
    assert got["contrastive"] > 0
    for term in ("global_hn", "local_hn"):
        assert got[term] == 0
        assert all((gradient == 0).all() for gradient in gradients(got[term], batch).values())


def test_a_caption_without_any_token_is_left_out_of_the_local_loss():
    batch = random_batch()
    batch["text_token_mask"][0] = False
    rest = {n: v if v.ndim == 0 else v[1:] for n, v in batch.items()}
    assert fsc_clip_loss(**batch)["local_hn"] == pytest.approx(
        float(fsc_clip_loss(**rest)["local_hn"]), rel=1e-12
    )


# --- Properties ---------------------------------------------------------------------------------

seeds = st.integers(0, 10_000)
several = settings(max_examples=20, deadline=None)


def random_logits(seed, b=4, k=3):
    torch.manual_seed(seed)
    mask = torch.rand(b, k) < 0.6
    mask[0] = True
    return 5 * torch.randn(b, 1 + k, dtype=torch.float64), mask


@several
@given(seed=seeds)
def test_without_calibration_it_is_cross_entropy(seed):
    logits, _ = random_logits(seed)
    every = torch.ones(4, 3, dtype=torch.bool)
    expected = F.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(hard_negative_cross_entropy(logits, every), expected)


@several
@given(seed=seeds, beta=st.floats(0, 1))
def test_smoothing_weights_sum_to_one(seed, beta):
    # With every logit alike, each row's loss is log(n) times the sum of its weights.
    _, mask = random_logits(seed)
    got = hard_negative_cross_entropy(torch.zeros(4, 4).double(), mask, label_smoothing=beta)
    rows = mask.any(-1)
    expected = (1 + mask.sum(-1))[rows].double().log().mean()
    torch.testing.assert_close(got, expected)


@several
@given(seed=seeds, gamma=st.floats(0, 5), beta=st.floats(0, 1), k=st.integers(0, 2))
def test_a_masked_negative_equals_dropping_its_column(seed, gamma, beta, k):
    logits, mask = random_logits(seed)
    mask[:, k] = False
    calibration = {"focal_gamma": gamma, "label_smoothing": beta}
    others = [i for i in range(3) if i != k]
    dropped = hard_negative_cross_entropy(
        logits[:, [0] + [1 + i for i in others]], mask[:, others], **calibration
    )
    torch.testing.assert_close(hard_negative_cross_entropy(logits, mask, **calibration), dropped)


def test_a_masked_negative_equals_dropping_it_in_every_term():
    batch = random_batch()
    batch["negative_mask"][:, 1] = False
    without = dict(batch)
    for name in ("negative_features", "negative_mask", "negative_tokens", "negative_token_mask"):
        without[name] = batch[name][:, [0, 2]]
    calibration = {"focal_gamma": 2.0, "label_smoothing": 0.1}
    got, expected = fsc_clip_loss(**batch, **calibration), fsc_clip_loss(**without, **calibration)
    for term in TERMS:
        torch.testing.assert_close(got[term], expected[term])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_no_gradient_flows_through_the_alignment(alignment):
    torch.manual_seed(0)
    patches = torch.randn(1, 5, 8, dtype=torch.float64, requires_grad=True)
    words = torch.randn(1, 2, 8, dtype=torch.float64, requires_grad=True)
    _, attention = losses._attend(patches, words, alignment)
    frozen, moving = (
        (20 * F.cosine_similarity(weights @ patches, words, dim=-1)).logsumexp(-1)
        for weights in (attention.detach(), attention)
    )
    index = torch.zeros(1, 2, dtype=torch.long)
    ours = local_scores(patches, words, index, 1, 20.0, alignment=alignment)
    for tensor in (patches, words):
        (got,) = torch.autograd.grad(ours.sum(), tensor, retain_graph=True)
        (without,) = torch.autograd.grad(frozen.sum(), tensor, retain_graph=True)
        (through,) = torch.autograd.grad(moving.sum(), tensor, retain_graph=True)
        torch.testing.assert_close(got, without, rtol=1e-9, atol=1e-12)
        assert (got - through).abs().max() > 0.01


@several
@given(seed=seeds, alignment=st.sampled_from(ALIGNMENTS), missing=st.sampled_from(["mask", "zero"]))
def test_the_order_of_negatives_patches_and_images_does_not_matter(seed, alignment, missing):
    batch = random_batch(seed=seed)
    k, p, b = torch.randperm(3), torch.randperm(7), torch.randperm(5)
    shuffled = {name: v if v.ndim == 0 else v[b] for name, v in batch.items()}
    shuffled["image_tokens"] = shuffled["image_tokens"][:, p]
    for name in ("negative_features", "negative_mask", "negative_tokens", "negative_token_mask"):
        shuffled[name] = shuffled[name][:, k]
    choice = {
        "focal_gamma": 2.0,
        "label_smoothing": 0.02,
        "alignment": alignment,
        "missing": missing,
    }
    got, expected = fsc_clip_loss(**shuffled, **choice), fsc_clip_loss(**batch, **choice)
    for term in TERMS:
        torch.testing.assert_close(got[term], expected[term], rtol=1e-9, atol=1e-12)


@several
@given(seed=seeds)
def test_masked_positions_do_not_matter(seed):
    batch = random_batch(seed=seed)
    expected = fsc_clip_loss(**batch)["local_hn"]
    batch["text_tokens"][~batch["text_token_mask"]] = 7.0
    batch["negative_tokens"][~batch["negative_token_mask"]] = -7.0
    assert fsc_clip_loss(**batch)["local_hn"] == expected


# --- Packing ------------------------------------------------------------------------------------


def test_packing_puts_each_images_words_in_one_row():
    tokens = torch.arange(12.0).view(3, 4, 1)
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1]])
    block = TextTokens(tokens, mask, torch.tensor([0, 1, 0]), torch.tensor([1, 0, 0]))
    packed, index = pack_tokens([block], 3)
    assert packed[..., 0].tolist() == [[9, 10, 11, 1, 2], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert index.tolist() == [[0, 0, 0, 1, 1], [0, -1, -1, -1, -1], [-1, -1, -1, -1, -1]]


@several
@given(seed=seeds)
def test_length_buckets_give_the_same_loss_and_gradients_as_one_block(seed):
    torch.manual_seed(seed)
    tokens = torch.randn(8, 6, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.randint(1, 6, (8,))
    mask = (torch.arange(6) >= 1) & (torch.arange(6) <= lengths[:, None])
    images, texts = torch.arange(8) % 2, torch.arange(8) // 2
    present = torch.ones(2, 3, dtype=torch.bool)
    patches = torch.randn(2, 5, 4, dtype=torch.float64)

    def loss(order, cut, short):
        blocks = [
            TextTokens(tokens[i][:, :width], mask[i][:, :width], images[i], texts[i])
            for i, width in ((order[:cut], short), (order[cut:], 6))
        ]
        return losses.local_hn_loss_packed(patches, *pack_tokens(blocks, 2), present, 20.0)

    order = lengths.argsort()
    cut = 4
    one = loss(torch.arange(8), 0, 6)
    two = loss(order, cut, int(lengths[order[cut - 1]]) + 1)
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(*(torch.autograd.grad(x, tokens)[0] for x in (two, one)))


def test_packing_keeps_no_copy_of_the_tokens_for_backward():
    tokens = torch.randn(4, 9, 32, requires_grad=True)
    block = TextTokens(tokens, torch.ones(4, 9), torch.arange(4), torch.zeros(4, dtype=torch.long))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        pack_tokens([block], 4)
    assert not any(tensor.is_floating_point() for tensor in saved)


# --- Related methods ----------------------------------------------------------------------------


def features(seed=0, b=4, k=3, d=8):
    torch.manual_seed(seed)
    image, text = (F.normalize(torch.randn(b, d).double(), dim=-1) for _ in range(2))
    negative = F.normalize(torch.randn(b, k, d).double(), dim=-1)
    mask = torch.rand(b, k) < 0.6
    mask[0] = True
    return image, text, negative, mask


def test_arguments_may_go_by_name():
    image, text, *_ = features()
    by_name = losses.contrastive_loss(logit_scale=10.0, text_features=text, image_features=image)
    assert by_name == losses.contrastive_loss(image, text, 10.0)


def test_negclip_without_negatives_is_contrastive():
    image, text, negative, mask = features()
    plain = losses.contrastive_loss(image, text, 10.0)
    got = related_losses.negclip_loss(image, text, 10.0, negative, torch.zeros_like(mask))
    torch.testing.assert_close(got, plain)


def test_ce_clip_ranks_the_caption_above_each_negative_by_the_threshold():
    image, text, negative, mask = features()
    thresholds = torch.tensor([0.0, 1.0, 2.0]).double()
    got = related_losses.cross_modal_rank_loss(image, text, 10.0, negative, mask, thresholds)
    expected = 0.0
    for i, k in itertools.product(range(4), range(3)):
        lead = 10 * (image[i] @ text[i] - image[i] @ negative[i, k])
        expected += float(mask[i, k]) * max(0.0, float(thresholds[k] - lead)) / 12
    assert float(got) == pytest.approx(expected)


def test_ce_clip_thresholds_are_the_captions_mean_lead_within_0_and_10():
    one = torch.tensor([[1.0, 0.0]]).double()
    image, text = one.repeat(2, 1), one.repeat(2, 1)
    negative = torch.tensor([[[0.5, 0.0], [0.0, 1.0], [1.0, 0.0]]]).double().repeat(2, 1, 1)
    negative[:, 2] *= 2  # above the caption: a lead below 0
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]]).bool()
    got = related_losses.rank_thresholds(image, text, 12.0, negative, mask)
    assert got.tolist() == [6.0, 10.0, 0.0]
    mask[:, 1] = False
    got = related_losses.rank_thresholds(image, text, 12.0, negative, mask)
    assert got.tolist() == [6.0, 0.0, 0.0]


def test_ce_clip_contrasts_the_pair_with_all_negative_captions():
    image, text, negative, mask = features()
    present = negative[mask]
    expected = []
    for i in range(4):
        logits = torch.cat([(image[i] @ text[i])[None], present @ text[i]]) * 10
        expected.append(-logits.log_softmax(0)[0])
    got = related_losses.intra_modal_contrast_loss(image, text, 10.0, negative, mask)
    torch.testing.assert_close(got, torch.stack(expected).mean())
    released = related_losses.intra_modal_contrast_loss(
        image, text, 10.0, negative, mask, as_released=True
    )
    logits = 10 * text @ present.T
    torch.testing.assert_close(released, -logits.log_softmax(1)[:, 0].mean())


def plain_positive_text(batch):
    """One row at a time, over the paraphrases that are there."""
    images, captions, scale = batch["image_features"], batch["text_features"], batch["logit_scale"]
    there = [i for i, present in enumerate(batch["positive_mask"]) if present]
    columns = torch.stack([batch["positive_features"][i] for i in there])
    total = 0.0
    for place, i in enumerate(there):
        for anchor in (images[i], captions[i]):
            total = total - (scale * columns @ anchor).log_softmax(0)[place]
    return total / len(there) / 2


def positive_text(batch):
    names = "image_features", "text_features", "logit_scale", "positive_features", "positive_mask"
    return related_losses.positive_text_loss(*(batch[name] for name in names))


def batch_with_paraphrases(b=6, mask=(1, 1, 0, 1, 0, 1)):
    batch = random_batch(b)
    batch["positive_features"] = F.normalize(torch.randn(b, 16, dtype=torch.float64), dim=-1)
    batch["positive_mask"] = torch.tensor(mask).bool()
    return batch


def test_tsvlc_images_and_captions_pick_their_paraphrase_among_those_that_are_there():
    ours, plain = (differentiable(batch_with_paraphrases()) for _ in range(2))
    torch.testing.assert_close(positive_text(ours), plain_positive_text(plain), rtol=1e-12, atol=0)

    found = gradients(positive_text(ours), ours)
    expected = gradients(plain_positive_text(plain), plain)
    for name in ("image_features", "text_features", "logit_scale", "positive_features"):
        apart = (found[name] - expected[name]).abs().max() / expected[name].abs().max()
        assert expected[name].any() and apart < 1e-9, name
    # Two paraphrases at logits (1, 0) and (0, 1) from image and caption alike: -log sigmoid(1).
    eye = torch.eye(2)
    value = related_losses.positive_text_loss(eye, eye, 1.0, eye, torch.tensor([True, True]))
    assert value == pytest.approx(0.313262, abs=1e-6)


def test_absent_paraphrases_take_no_part_whatever_is_in_their_place():
    batch, spoilt = (differentiable(batch_with_paraphrases()) for _ in range(2))
    with torch.no_grad():
        spoilt["positive_features"][2] = torch.nan
    assert positive_text(spoilt) == positive_text(batch)
    assert all(g.isfinite().all() for g in gradients(positive_text(spoilt), spoilt).values())

    none = differentiable(batch_with_paraphrases(mask=(0,) * 6))
    assert positive_text(none) == 0
    assert not any(g.any() for g in gradients(positive_text(none), none).values())


def test_degla_grounds_captions_in_the_teachers_texts():
    _, text, negative, mask = features()
    teacher = F.normalize(torch.randn_like(text), dim=-1).requires_grad_()
    text = text.requires_grad_()
    got = related_losses.text_grounded_contrast_loss(text, teacher, negative, mask)
    expected = []
    for i in range(4):
        if mask[i].any():
            own = torch.cat([(text[i] @ teacher[i])[None], negative[i][mask[i]] @ text[i]])
            expected.append(-(10 * own).log_softmax(0)[0])
    torch.testing.assert_close(got, torch.stack(expected).mean())
    distance = related_losses.distillation_loss(text, teacher)
    torch.testing.assert_close(distance, (text - teacher).square().sum())
    (got + distance).backward()
    assert teacher.grad is None and text.grad.abs().max() > 0


def test_terms_add_up_by_weight_and_a_stray_name_is_refused():
    terms = {"contrastive": torch.tensor(2.0), "global_hn": torch.tensor(3.0)}
    assert losses.weighted_sum(terms, {"contrastive": 1.0, "global_hn": 0.5}) == 3.5
    with pytest.raises(FscBenchError, match="local_hn"):
        losses.weighted_sum(terms, {"contrastive": 1.0, "local_hn": 0.5})


def test_an_unknown_alignment_or_missing_is_one_line_with_the_near_miss():
    batch = random_batch()
    with pytest.raises(FscBenchError, match=r"no alignment called 'minmaks'.*Did you mean 'minma"):
        fsc_clip_loss(**batch, alignment="minmaks")
    with pytest.raises(FscBenchError, match="no missing called 'drop'"):
        fsc_clip_loss(**batch, missing="drop")


# --- Several processes --------------------------------------------------------------------------


def rank_gradients(rank, folder):
    """One of two processes: its half of the batch, the gradients its parameters would average."""
    open_group("gloo")
    batch = differentiable(uneven_batch())
    half = {n: v if v.ndim == 0 else v[3 * rank : 3 * rank + 3] for n, v in batch.items()}
    loss = batch_loss(half)
    total = loss.detach().clone()
    torch.distributed.all_reduce(total)
    found = gradients(loss, batch)
    for gradient in found.values():
        torch.distributed.all_reduce(gradient)
    torch.save(
        (total / 2, {name: value / 2 for name, value in found.items()}), f"{folder}/{rank}.pt"
    )
    torch.save({how: one_pair_a_process(rank, how) for how in HOW}, f"{folder}/gather-{rank}.pt")


HOW = "whole", "reference"


def one_pair_a_process(rank, how):
    """(gradient at this process's image [2], rows with a hard negative) of a batch of two pairs."""
    image = torch.eye(2)[rank : rank + 1].requires_grad_()
    features = Features(image, torch.eye(2)[rank : rank + 1, None])
    terms, _ = feature_terms(
        TrainConfig(gather=how), features, torch.zeros(1, 0, dtype=torch.bool),
        torch.tensor(3.0).log(), torch.tensor(1.0),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(terms["contrastive"], image)
    uneven = torch.tensor([[rank == 0], [True], [rank == 0]])
    return gradient[0], float(losses.mean_row_count(uneven, how))


def uneven_batch():
    """Six rows; the first process's three have hard negatives, of the second's only one."""
    batch = random_batch(b=6)
    batch["negative_mask"][:3, 0], batch["negative_mask"][3, 1] = True, True
    batch["negative_mask"][4:] = False
    positives = batch_with_paraphrases()
    return {**batch, **{n: v for n, v in positives.items() if n.startswith("positive")}}


def batch_loss(batch):
    names = "image_features", "text_features", "negative_features"
    image, text, negative = (batch[name] for name in names)
    scale, mask = batch["logit_scale"], batch["negative_mask"]
    gathered = [losses.gather_features(value) for value in (image, text, negative, mask)]
    rows = losses.mean_row_count(mask)
    packed = losses.pack_texts(
        batch["text_tokens"],
        batch["text_token_mask"],
        batch["negative_tokens"],
        batch["negative_token_mask"],
        mask,
    )
    terms = {
        "contrastive": losses.contrastive_loss(*gathered[:2], scale),
        "negclip": related_losses.negclip_loss(*gathered[:2], scale, *gathered[2:]),
        "global_hn": losses.global_hn_loss(image, text, scale, negative, mask, rows=rows),
        "local_hn": losses.local_hn_loss_packed(
            batch["image_tokens"], *packed, mask, scale, rows=rows
        ),
        "positive_text": related_losses.positive_text_loss(
            *gathered[:2],
            scale,
            losses.gather_features(batch["positive_features"]),
            losses.gather_features(batch["positive_mask"]),
        ),
    }
    return losses.weighted_sum(terms, dict.fromkeys(terms, 1.0))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder where two processes left what they computed."""
    folder = tmp_path_factory.mktemp("processes")
    processes.together(rank_gradients, str(folder))
    return folder


def test_gathered_as_the_reference_does_the_contrast_has_half_the_gradient_of_two_processes(
    two_processes,
):
    # Images and texts are the axes and the scale is log 3: each pair has 3 / (3 + 1) of its
    # softmax, and the loss's gradient at the logits is half of [[-1/4, 1/4], [1/4, -1/4]].
    slope = math.log(3) / 8
    for rank, by_hand in enumerate([[-slope, slope], [slope, -slope]]):
        found = torch.load(two_processes / f"gather-{rank}.pt")
        # Averaging over both processes halves both: then whole is one process with both pairs.
        whole, reference = (found[how][0].tolist() for how in HOW)
        assert whole == pytest.approx([2 * value for value in by_hand], rel=1e-5)
        assert reference == pytest.approx(by_hand, rel=1e-5)
        # Rows with a hard negative, 3 of the first process and 1 of the second: 2 on average.
        assert [found[how][1] for how in HOW] == [2.0, [3.0, 1.0][rank]]


def test_two_processes_give_the_loss_and_gradients_of_one(two_processes):
    batch = differentiable(uneven_batch())
    loss = batch_loss(batch)
    expected = gradients(loss, batch)
    for rank in range(2):
        total, found = torch.load(two_processes / f"{rank}.pt")
        torch.testing.assert_close(total, loss.detach())
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name])
