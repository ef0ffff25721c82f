"""Towers by their parts: their dense tokens, SigLIP's contrast with hard negatives, and runs of
every kind: in two processes, killed, scored. Expected values are plain loops over open_clip's own.
"""

import json
import math
from pathlib import Path

import numpy as np
import processes
import pytest
import tiny_families
import torch
from open_clip.loss import SigLipLoss
from safetensors.torch import load_file
from test_walk import forget_the_last_step, lay_out_benchmark
from torch.nn import functional as F

import fsc_bench
from fsc_bench.models import load_model
from fsc_bench.train import dense
from fsc_bench.train.build import Run, build
from fsc_bench.train.config import Recipe, TrainConfig, read_recipe
from fsc_bench.train.layout import TextLayout
from fsc_bench.train.loop import train
from fsc_bench.train.objective import Features, feature_terms, local_term, weighted
from fsc_bench.train.prepare import prepare
from fsc_bench.train.related_losses import sigmoid_loss
from fsc_bench.train.schedule import learning_rate

SETTINGS = {
    "data": "world:finetune?pairs=64", "negatives": "rules", "negative_kinds": ("swap",),
    "batch_size": 8, "max_steps": 2, "learning_rate": 1e-4, "warmup_steps": 0, "device": "cpu",
    "checkpoint_every": 1, "keep_checkpoints": 9, "log_every": 1, "workers": 0,
    "global_hn_weight": 0.5, "local_hn_weight": 0.2, "focal_gamma": 2.0, "label_smoothing": 0.02,
}  # fmt: skip
KINDS = {
    "map": {"contrast": "sigmoid", "negative_columns": True},
    "sigmoid": {"negative_columns": True, "accumulate": 2},
    "coca": {},
    "custom": {"tune": "lora"},
    # Adam makes a whole step of a gradient that is rounding alone, of which a ResNet has some.
    "resnet": {"epsilon": 1e-4},
}


@pytest.fixture(scope="module", autouse=True)
def families(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny_families.register(tmp_path_factory.mktemp("families"))
    yield
    torch.set_num_threads(threads)


def recipe(kind: str, **changes) -> Recipe:
    model = f"open_clip:tiny-{kind}/random"
    given = {**SETTINGS, "model": model, **KINDS.get(kind, {}), **changes}
    return Recipe("test", "", TrainConfig().changed(given))


def losses(out: Path, name: str = "loss") -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[name] for line in lines]


def weights(out: Path) -> dict[str, torch.Tensor]:
    found = load_file(out / "model.safetensors")
    found.pop("text_decoder.text_projection", None)  # open_clip leaves it as the memory was
    return found


# --- dense tokens -------------------------------------------------------------------------------


def pooled_as_if_all_were(visual: torch.nn.Module, images: torch.Tensor, place: int):
    """What the tower answers where every patch, and the class token, is the one at `place`."""
    if hasattr(visual, "attnpool"):
        cells = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
        alone = cells.flatten(2)[..., place, None, None].expand_as(cells)
        where = visual.attnpool.positional_embedding
        kept = where.data.clone()
        where.data[1:] = kept[1 + place]
        # The question is the mean's; its own answer counts among those that are weighed.
        where.data[0] = kept[1 + place]
        answer = visual.attnpool(alone)
        where.data.copy_(kept)
        return answer
    if hasattr(visual, "trunk"):
        seen = visual.trunk.forward_features(images)
        place += visual.trunk.num_prefix_tokens
        return visual.head(visual.trunk.forward_head(seen[:, [place]].expand_as(seen)))
    seen = visual.transformer(visual._embeds(images))
    return visual._pool(seen[:, [1 + place]].expand_as(seen))[0] @ visual.proj


@pytest.mark.parametrize("kind", ["vit", "custom", "sigmoid", "coca", "map", "resnet"])
@torch.no_grad()
def test_a_patchs_token_is_what_the_tower_answers_to_that_patch_alone(kind):
    visual = load_model(f"open_clip:tiny-{kind}/random").model.eval().visual
    side = 64 if kind == "resnet" else 32
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(4))
    features, tokens = dense.image_rule(visual).encode(visual, images)
    whole = visual(images)

    assert torch.allclose(features, whole[0] if isinstance(whole, tuple) else whole, atol=1e-6)
    for place in (0, tokens.shape[1] - 1):
        expected = pooled_as_if_all_were(visual, images, place)
        assert torch.allclose(tokens[:, place], expected, atol=1e-5), place
    assert not torch.allclose(tokens[:, 0], tokens[:, -1], atol=1e-3)


@pytest.mark.parametrize("kind", ["sigmoid", "coca"])
@torch.no_grad()
def test_words_are_normed_and_projected_as_the_token_that_is_pooled(kind):
    adapter = load_model(f"open_clip:tiny-{kind}/random")
    model, ids = adapter.model.eval(), adapter.tokenizer(["a dog", "two cats on a red sofa"])
    features, words = dense.encode_text(model.text, ids)
    expected = model.encode_text(ids)

    assert torch.allclose(F.normalize(features, dim=-1), F.normalize(expected, dim=-1), atol=1e-6)
    assert words.shape == (2, ids.shape[1], 24)
    if kind == "sigmoid":  # pooled at the last place, which is one of the text's own
        assert torch.equal(words[:, -1], features)


class Words:
    """SigLIP's way with texts: no start token, filled up with the token that also ends them."""

    def __call__(self, texts):
        ids = torch.ones(len(texts), 6, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            found = [2 + sum(map(ord, word)) % 90 for word in text.split()]
            row[: len(found)] = torch.tensor(found)
        return ids


def test_a_text_without_a_start_token_begins_with_its_first_word():
    model = load_model("open_clip:tiny-sigmoid/random").model
    layout, ids = TextLayout.of(model, Words()), Words()(["a dog", "two red cats sit"])

    assert layout == TextLayout(start=0, pad=1, pooled=-1)
    assert layout.end(ids).tolist() == [1, 3]
    # Two words and the last place, which is pooled; four words and the last place.
    assert layout.mask(ids, layout.end(ids)).int().tolist() == [
        [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 0, 1],
    ]  # fmt: skip
    # CLIP's: start 8, word 3, end 9; the start token is no word.
    clip = torch.tensor([[8, 3, 9, 0]])
    assert TextLayout().mask(clip, TextLayout().end(clip)).int().tolist() == [[0, 1, 1, 0]]


# --- SigLIP's contrast with hard negatives ------------------------------------------------------


def plain_sigmoid(images, texts, negatives, mask, scale, bias) -> float:
    total = 0.0
    for i, image in enumerate(images.tolist()):
        pairs = [(text, 1 if i == j else -1) for j, text in enumerate(texts.tolist())]
        pairs += [(text, -1) for text, there in zip(negatives[i], mask[i], strict=True) if there]
        for text, label in pairs:
            logit = scale * float(np.dot(image, np.asarray(text))) + bias
            total += math.log(1 + math.exp(-label * logit))
    return total / len(images)


def test_hard_negatives_are_further_pairs_of_their_image_with_label_minus_one():
    make = torch.Generator().manual_seed(1)
    images, texts = (F.normalize(torch.randn(5, 8, generator=make), dim=-1) for _ in range(2))
    negatives = F.normalize(torch.randn(5, 3, 8, generator=make), dim=-1)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]]).bool()
    negatives[~mask] = torch.nan
    scale, bias = torch.tensor(7.0, requires_grad=True), torch.tensor(-3.0, requires_grad=True)
    found = sigmoid_loss(images, texts, scale, bias, negatives, mask)
    bare = sigmoid_loss(images, texts, scale, bias)

    expected = plain_sigmoid(images, texts, negatives.tolist(), mask.tolist(), 7.0, -3.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert bare.item() == pytest.approx(SigLipLoss()(images, texts, scale, bias).item(), abs=1e-6)
    assert found.item() > bare.item() + 0.05
    found.backward()
    step = 1e-3
    for leaf, moved in ((scale, (7 + step, -3)), (bias, (7, -3 + step))):
        slope = plain_sigmoid(images, texts, negatives.tolist(), mask.tolist(), *moved) - expected
        assert float(leaf.grad) == pytest.approx(slope / step, abs=2e-3)


def test_one_image_its_caption_and_a_hard_negative_by_hand():
    unit = torch.tensor([[1.0, 0.0]])
    negative = torch.tensor([[[0.6, 0.8]]])
    # log(1 + exp(-(2 - 1))) + log(1 + exp(1.2 - 1)) = 0.313262 + 0.798139
    found = sigmoid_loss(unit, unit, 2.0, -1.0, negative, torch.ones(1, 1))

    assert float(found) == pytest.approx(1.111401, abs=1e-6)


# --- steps against plain loops --------------------------------------------------------------------


def plain_calibrated(logits: list[torch.Tensor]) -> torch.Tensor:
    """-sum_k y_k (1 - p_k)^2 log p_k with labels smoothed by 0.02 over those that are there."""
    p = torch.stack(logits).softmax(0)
    label = torch.full((len(logits),), 0.02 / len(logits))
    label[0] += 0.98
    return -(label * (1 - p) ** 2 * p.log()).sum()


def plain_local(patches: torch.Tensor, words: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    similarity = (words @ patches.T).detach()
    low, high = similarity.min(1, keepdim=True)[0], similarity.max(1, keepdim=True)[0]
    seen = ((similarity - low) / (high - low)) @ patches
    return (scale * F.cosine_similarity(seen, words, dim=-1)).logsumexp(0)


def plain_loss(model: torch.nn.Module, part, pixels) -> torch.Tensor:
    """SigLIP's loss by open_clip, and the global and local losses text by text."""
    (block,), rows = part.texts, len(part.images)
    images = pixels.normalise(part.images).to(model.logit_scale.dtype)
    image = F.normalize(model.encode_image(images), dim=-1)
    trunk = model.visual.trunk
    seen = trunk.forward_features(images)
    patches = torch.stack([trunk.attn_pool(seen[:, [p]]) for p in range(1, seen.shape[1])], 1)
    tower = model.text
    tower.output_tokens = True
    _, words = tower(block.ids)
    tower.output_tokens = False
    words = tower.text_projection(words)
    texts = F.normalize(words[:, -1], dim=-1)
    own = [[None, None] for _ in range(rows)]
    for number, (row, place) in enumerate(zip(block.image_index, block.text_index, strict=True)):
        own[row][place] = number
    scale, bias = model.logit_scale.exp(), model.logit_bias
    captions = texts[[first for first, _ in own]]
    terms, kept = [], 0
    for row, (caption, negative) in enumerate(own):
        if negative is None:
            continue
        kept += 1
        terms.append(0.5 * plain_calibrated([scale * image[row] @ texts[n] for n in own[row]]))
        found = []
        for n in (caption, negative):
            real = block.ids[n] != 0
            real[0], real[-1] = False, True  # without the start token, with the one that is pooled
            found.append(plain_local(patches[row], words[n][real], scale))
        terms.append(0.2 * plain_calibrated(found))
    return SigLipLoss()(image, captions, scale, bias) + torch.stack(terms).sum() / kept


@torch.no_grad()
def in_double(ready: Run) -> dict[str, torch.Tensor]:
    """The losses of a run's first batch by the trainer's own towers and objective, in float64."""
    (part,), config, towers = ready.batches[0], ready.config, ready.prepared.towers.double()
    rows = part.negative_mask.any(1).sum().double()
    images = ready.batches.pixels.normalise(part.images).double()
    encoded = towers(images, [b.ids for b in part.texts], [b.end for b in part.texts])
    terms, _ = feature_terms(
        config, Features.of(part, encoded), part.negative_mask, encoded.logit_scale, rows,
        logit_bias=encoded.logit_bias,
    )  # fmt: skip
    terms["local_hn"] = local_term(config, part, encoded, rows, encoded.logit_scale)
    return terms


def test_a_siglips_loss_is_a_plain_transcription_to_the_sixth_decimal():
    chosen = recipe("map", negative_columns=False)
    ready = build(prepare(chosen, Path("nowhere"), say=lambda line: None))
    found = weighted(chosen.config, in_double(ready))
    with torch.no_grad():
        expected = plain_loss(ready.model, ready.batches[0][0], ready.batches.pixels)

    assert expected.dtype is torch.float64 and float(expected) > 1
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def both_ways(folder: Path, steps: int) -> tuple[list[float], list[float]]:
    """The losses of a SigLIP's run, and those of a plain loop over the same batches."""
    chosen = recipe("map", max_steps=steps, epochs=steps, negative_columns=False,
                    checkpoint_every=1000)  # fmt: skip
    ready = build(prepare(chosen, folder / "plain", say=lambda line: None))
    model = ready.model
    no_decay = [p for p in model.parameters() if p.ndim < 2]
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "ln" not in n]
    groups = [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
    expected = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(chosen.config, step, steps)
        loss = plain_loss(model, ready.batches[step][0], ready.batches.pixels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    train(chosen, folder / "ours", say=lambda line: None)
    return losses(folder / "ours"), expected


def test_a_siglips_losses_are_those_of_a_plain_loop(tmp_path):
    found, expected = both_ways(tmp_path, 6)  # a hundred: tests/siglip_demo.py
    biases = losses(tmp_path / "ours", "logit_bias")

    assert found == pytest.approx(expected, abs=1e-5)
    assert found[-1] < found[0] - 0.1
    assert biases[-1] != biases[0]


def test_the_recipe_of_a_siglip_is_its_contrast_and_fsc_clips_hard_negatives():
    found = read_recipe("siglip-fsc")

    assert found.config.contrast == "sigmoid" and not found.config.negative_columns
    assert found.config.weights == {"contrastive": 1.0, "global_hn": 0.5, "local_hn": 0.2}
    assert (found.config.focal_gamma, found.config.label_smoothing) == (2.0, 0.02)
    assert not found.expected


# --- runs of every kind -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Path]:
    """A run of two steps of each kind, in one process."""
    root = tmp_path_factory.mktemp("alone")
    for kind in KINDS:
        train(recipe(kind), root / kind, say=lambda line: None)
    return {kind: root / kind for kind in KINDS}


# What test_train_loop does not have: there a SigLIP is trained in parts, a CoCa with LoRA.
SHARED = {"map": {"parallel": "fsdp"}, "coca": {}}


def train_kinds(rank: int, folder: str) -> None:
    tiny_families.register(Path(folder) / "families" / str(rank))
    for kind, settings in SHARED.items():
        train(recipe(kind, **settings), Path(folder) / kind, say=lambda line: None)


def test_two_processes_give_the_weights_of_one(alone, tmp_path):
    processes.together(train_kinds, str(tmp_path))
    for kind in SHARED:
        ours, theirs = weights(tmp_path / kind), weights(alone[kind])

        assert ours.keys() == theirs.keys()
        apart = {key: float((ours[key] - theirs[key]).abs().max()) for key in ours}
        assert max(apart.values()) < 1e-6, (kind, max(apart, key=apart.get))
        assert losses(tmp_path / kind) == pytest.approx(losses(alone[kind]), abs=1e-5), kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_weights(alone, tmp_path, kind):
    whole, settings = alone[kind], {}
    if kind == "coca":  # open_clip leaves a part of a random one as the memory was: not twice so
        whole, settings = tmp_path / "whole", {"model": f"run:{alone[kind]}"}
        train(recipe(kind, **settings), whole, say=lambda line: None)
    forget_the_last_step(whole, tmp_path / "killed")
    train(recipe(kind, **settings), tmp_path / "killed", resume=True, say=lambda line: None)
    ours, theirs = weights(tmp_path / "killed"), weights(whole)

    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_what_was_trained_is_scored(alone, tmp_path):
    lay_out_benchmark(tmp_path, np.random.default_rng(3))
    for kind, out in alone.items():
        scores = fsc_bench.score(
            f"run:{out}", tmp_path / "tiny.toml", data=tmp_path / "data", device="cpu"
        )
        assert len(scores.table) and scores.table["score"].notna().all(), kind
