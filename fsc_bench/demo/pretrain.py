"""Pretraining of the demo model: `python -m fsc_bench.demo.pretrain --out FILE --seed 0`.

Four stages with fixed step counts, so that a seed names one model:

1. look: the image tower alone names what stands in each cell of crowded scenes, and of pairs where
   it is as seen from the other thing; and of the whole its words and its facts (which colour is on
   which shape), through heads that are thrown away. Without the cells, shapes stay at chance for
   minutes, and relations stayed there to the end; without the facts, nothing in an embedding tells
   a red star and a blue ring from a blue star and a red ring.
2. read: the text tower alone. The facts that a sentence states are read from its embedding through
   the head that read the pictures', which is held still: both towers put one fact in one place.
   Contrast alone leaves sentences bags of words for far longer than there is time.
3. web: contrastive learning on noisy bags of words, the facts beside it.
4. mixed: as 3, but a share of the captions are whole sentences, some in pairs that only word order
   or position tells apart.

Hyper-parameters were chosen on the dev world, by `evaluate` below; the test world is for scores.
The package's trainer (`fsc_bench.train`) is not used: this is what comes before it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from fsc_bench.demo import model as demo_model
from fsc_bench.demo import world
from fsc_bench.demo.raw.scan_digits import digits


@dataclass(frozen=True)
class PretrainConfig:
    seed: int = 0
    look_steps: int = 1800
    look_batch: int = 64
    look_lr: float = 2e-3
    read_steps: int = 900
    read_batch: int = 96
    read_lr: float = 2e-3
    web_steps: int = 100
    mixed_steps: int = 700
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 40
    word_weight: float = 0.1  # of the picture's words in stages 3 and 4, falling to 0.3 of it
    fact_weight: float = 0.25  # of each family of `FACTS`, falling likewise
    sentence_share: float = 0.5  # of the scenes of stage 4: captioned by a sentence
    twin_share: float = 0.6  # of those: two scenes that differ by one exchange


LOOK_KINDS = world.Domain(
    kinds=(("crowd", 0.28), ("pair", 0.44), ("single", 0.05), ("count", 0.08), ("digit", 0.15))
)  # fmt: skip
READ_KINDS = world.Domain(
    kinds=(("pair", 0.6), ("triple", 0.15), ("single", 0.1), ("count", 0.1), ("digit", 0.05))
)
ATTRIBUTES = {
    "shape": world.SHAPES, "colour": tuple(world.COLOURS), "texture": world.TEXTURES,
    "size": tuple(world.SIZES),
}  # fmt: skip


def pretrain(config: PretrainConfig, log: Callable[[str], None] = print) -> torch.nn.Module:
    """Runs the recipe and returns the model, in eval mode."""
    torch.manual_seed(config.seed)
    model = demo_model.build()
    width = model.visual.output_dim
    facts = FactHead(width)
    words = torch.nn.Linear(width, demo_model.WordTokenizer().vocab_size)
    for stage in (look, read, contrast):
        # Each stage has its own seeds, so that it can be done again alone.
        torch.manual_seed(config.seed)
        stage(model, facts, words, config, log)
    return model.eval()


def look(model, facts, words, config: PretrainConfig, log: Callable[[str], None]) -> None:
    """Stage 1, of the image tower alone."""
    began = time.perf_counter()
    tokenizer = demo_model.WordTokenizer()
    rng = world.random_stream("train", config.seed)
    head = LookHead(model.visual.conv1.out_channels, model.visual.output_dim)
    parameters = [p for part in (model.visual, head, words, facts) for p in part.parameters()]
    optimizer, schedule = _optimizer(parameters, config.look_lr, config.look_steps, config)
    for step in range(config.look_steps):
        scenes = [world.sample_scene(rng, domain=LOOK_KINDS) for _ in range(config.look_batch)]
        pooled, tokens = model.visual(_images(scenes))
        losses = head(pooled, tokens, scenes)
        losses["words"] = _word_loss(words(pooled), _word_targets(scenes, tokenizer))
        seen = [facts_of_scene(scene) for scene in scenes]
        losses["facts"] = facts(pooled, seen, LOOK_FACTS)
        _update(sum(losses.values()), parameters, optimizer, schedule)
        if step % 50 == 49:
            parts = " ".join(f"{name} {loss.detach():.2f}" for name, loss in losses.items())
            log(f"look {step + 1}/{config.look_steps} loss {parts} {_seconds(began)}")


def read(model, facts, words, config: PretrainConfig, log: Callable[[str], None]) -> None:
    """Stage 2, of the text tower alone: the facts stay where the pictures put them."""
    began = time.perf_counter()
    tokenizer = demo_model.WordTokenizer()
    rng = world.random_stream("train", config.seed + 2000)
    seeing = {id(p) for p in (*model.visual.parameters(), model.logit_scale)}
    parameters = [p for p in model.parameters() if id(p) not in seeing]
    optimizer, schedule = _optimizer(parameters, config.read_lr, config.read_steps, config)
    for step in range(config.read_steps):
        texts = [
            world.caption(world.sample_scene(rng, domain=READ_KINDS), rng)
            for _ in range(config.read_batch)
        ]
        said = [facts_of_text(text) for text in texts]
        loss = facts(encode_text(model, tokenizer(texts)), said)
        _update(loss, parameters, optimizer, schedule)
        if step % 50 == 49:
            log(f"read {step + 1}/{config.read_steps} loss {loss.detach():.2f} {_seconds(began)}")


def contrast(model, facts, words, config: PretrainConfig, log: Callable[[str], None]) -> None:
    """Stages 3 and 4, of both towers."""
    began = time.perf_counter()
    tokenizer = demo_model.WordTokenizer()
    rng = world.random_stream("train", config.seed + 1000)
    parameters = [p for part in (model, facts, words) for p in part.parameters()]
    steps = config.web_steps + config.mixed_steps
    optimizer, schedule = _optimizer(parameters, config.lr, steps, config)
    for step in range(steps):
        mixed = step >= config.web_steps
        scenes, captions = _contrastive_batch(rng, config, mixed)
        image_features = model.visual(_images(scenes))[0]
        text_features = encode_text(model, tokenizer(captions))
        similarity = F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
        logits = model.logit_scale.exp() * similarity
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        seen = facts(image_features, [facts_of_scene(scene) for scene in scenes])
        said = facts(text_features, [facts_of_text(caption) for caption in captions])
        named = _word_loss(words(image_features), _word_targets(scenes, tokenizer))
        aside = config.word_weight * named + config.fact_weight * (seen + said)
        weight = 1 - 0.7 * step / steps
        _update(loss + weight * aside, parameters, optimizer, schedule)
        with torch.no_grad():  # as CLIP: never above 100
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 49:
            log(
                f"{'mixed' if mixed else 'web'} {step + 1}/{steps} loss {loss.detach():.3f} "
                f"scale {model.logit_scale.detach().exp():.1f} {_seconds(began)}"
            )


class LookHead(torch.nn.Module):
    """Names, cell by cell, what stands there and, in a pair, its role; and of the whole picture,
    digit and count.
    """

    def __init__(self, token_width: int, embedding_width: int):
        super().__init__()
        self.cells = torch.nn.ModuleDict(
            {name: torch.nn.Linear(token_width, len(f)) for name, f in ATTRIBUTES.items()}
        )
        self.roles = torch.nn.Linear(token_width, len(world.SPATIAL))
        self.count = torch.nn.Linear(embedding_width, 10)
        self.digit = torch.nn.Linear(embedding_width, 10)

    def forward(self, pooled, tokens, scenes: list[world.Scene]) -> dict[str, torch.Tensor]:
        """pooled [n, embedding], tokens [n, patches, width] -> cross-entropy by what is named."""
        side = math.isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        cells = F.avg_pool2d(grid, side // 3).flatten(2).transpose(1, 2)  # [n, 9, width]
        where, things, paired, roles = [], [], [], []
        for n, scene in enumerate(scenes):
            for place, thing in enumerate(scene.things):
                if len(scene.things) == 2:
                    role = world.spatial_relation(thing, scene.things[1 - place])
                    paired.append(len(where))
                    roles.append([float(role == word) for word in world.SPATIAL])
                where.append((n, world.CELLS.index(world.cell_of(thing))))
                things.append(thing)
        rows, columns = torch.tensor(where).T
        looked = cells[rows, columns]
        losses = {}
        for name, family in ATTRIBUTES.items():
            target = torch.tensor([family.index(getattr(t, name)) for t in things])
            losses[name] = F.cross_entropy(self.cells[name](looked), target)
        if paired:
            found = F.binary_cross_entropy_with_logits(
                self.roles(looked[paired]), torch.tensor(roles)
            )
            losses["roles"] = len(world.SPATIAL) * found
        target = torch.tensor([len(s.things) for s in scenes])
        losses["count"] = F.cross_entropy(self.count(pooled), target)
        digits = [n for n, s in enumerate(scenes) if s.digit is not None]
        if digits:
            target = torch.tensor([scenes[n].digit.value for n in digits])
            losses["digit"] = F.cross_entropy(self.digit(pooled[digits]), target)
        return losses


def _on_shapes(values) -> tuple[tuple, ...]:
    return tuple((value, shape) for value in values for shape in world.SHAPES)


# What a fact head knows. A role is where a shape is, seen from another.
FACTS: dict[str, tuple] = {
    "colour": _on_shapes(world.COLOURS), "texture": _on_shapes(world.TEXTURES),
    "size": _on_shapes(world.SIZES), "role": _on_shapes(world.SPATIAL),
    "background": tuple(world.BACKGROUNDS), "count": (1, 2, 3, 4), "digit": tuple(range(10)),
}  # fmt: skip
# With nine families at once, stage 1 told 53 of 100 colour swaps after 1,500 steps; so, 68.
LOOK_FACTS = ("colour", "texture", "size", "role")
Facts = dict[str, list]  # family -> the facts of one picture or sentence


def facts_of_scene(scene: world.Scene) -> Facts:
    facts: Facts = {name: [] for name in FACTS}
    if scene.digit is not None:
        facts["digit"].append(scene.digit.value)
        return facts
    facts["background"].append(scene.background)
    if len({thing.shape for thing in scene.things}) == 1:
        facts["count"].append(len(scene.things))
    for thing in scene.things:
        for name in ("colour", "texture", "size"):
            facts[name].append((getattr(thing, name), thing.shape))
        if len(scene.things) > 3:  # among many, nearly all roles are true of all
            continue
        for other in scene.things:
            role = world.spatial_relation(thing, other)
            if role and thing.shape != other.shape:
                facts["role"].append((role, thing.shape))
    return facts


def facts_of_text(text: str) -> Facts:
    """The facts that a sentence states; none if it is no sentence."""
    facts: Facts = {name: [] for name in FACTS}
    description = world.parse(text)
    if description is None:
        return facts
    if description.background is not None:
        facts["background"].append(description.background)
    if description.digit is not None:
        facts["digit"].append(description.digit)
    for mention in description.mentions:
        if mention.count:
            facts["count"].append(mention.count)
        for name in ("colour", "texture", "size"):
            if mention.shape and getattr(mention, name):
                facts[name].append((getattr(mention, name), mention.shape))
    for i, word, j in description.relations:
        if word in world.SPATIAL:
            facts["role"].append((word, description.mentions[i].shape))
            facts["role"].append((world.OPPOSITE[word], description.mentions[j].shape))
    return facts


class FactHead(torch.nn.Module):
    """A direction in the embedding space for every fact, shared by pictures and sentences.

    Facts add up and so does the cosine: a picture and a sentence that share a fact come closer.
    """

    def __init__(self, embedding_width: int):
        super().__init__()
        self.directions = torch.nn.ParameterDict(
            {
                name: torch.nn.Parameter(torch.randn(len(family), embedding_width))
                for name, family in FACTS.items()
            }
        )
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(12.0)))

    def forward(self, embeddings, facts: list[Facts], families=tuple(FACTS)) -> torch.Tensor:
        """[n, embedding] -> the divergence from the stated facts, summed over families."""
        losses = []
        looked = self.log_scale.exp() * F.normalize(embeddings, dim=-1)
        for name in families:
            rows = [n for n, f in enumerate(facts) if f[name]]
            if not rows:
                continue
            target = torch.zeros(len(rows), len(FACTS[name]))
            for row, n in zip(target, rows, strict=True):
                for fact in facts[n][name]:
                    row[_PLACES[name][fact]] += 1 / len(facts[n][name])
            logits = looked[rows] @ F.normalize(self.directions[name], dim=-1).T
            losses.append(F.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean"))
        return torch.stack(losses).sum() if losses else embeddings.new_zeros(())


_PLACES = {name: {fact: n for n, fact in enumerate(family)} for name, family in FACTS.items()}


def encode_text(model, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's `encode_text`, on the longest text of the batch rather than on full context."""
    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ model.text_projection


def _optimizer(parameters, lr: float, steps: int, config: PretrainConfig):
    decay = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain}],
        lr=lr, betas=(0.9, 0.98), weight_decay=0.0,
    )  # fmt: skip

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        return 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _update(loss, parameters, optimizer, schedule) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


def _images(scenes: list[world.Scene]) -> torch.Tensor:
    return demo_model.to_tensor(np.stack([world.render(s) for s in scenes]))


def _word_targets(scenes: list[world.Scene], tokenizer) -> torch.Tensor:
    """Each scene's words, as a distribution over the vocabulary: float32 [n, words]."""
    targets = torch.zeros(len(scenes), tokenizer.vocab_size)
    for row, scene in zip(targets, scenes, strict=True):
        if scene.digit is not None:
            row[tokenizer.ids[str(scene.digit.value)]] = 1
            continue
        for thing in scene.things:
            # The shape is the hardest to see and the most said.
            row[tokenizer.ids[thing.shape]] += 2 / len(scene.things)
            for word in (thing.colour, thing.texture, thing.size):
                row[tokenizer.ids[word]] += 1 / len(scene.things)
        row[tokenizer.ids[scene.background]] += 0.5
        if len(scene.things) < len(world.NUMBERS):
            row[tokenizer.ids[world.NUMBERS[len(scene.things)]]] += 0.5
    return targets / targets.sum(dim=1, keepdim=True)


def _word_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


def _contrastive_batch(rng, config: PretrainConfig, mixed: bool):
    scenes: list[world.Scene] = []
    captions: list[str] = []
    sentences = round(config.batch * config.sentence_share) if mixed else 0
    while len(scenes) < config.batch:
        if len(scenes) >= sentences:
            scene = world.sample_scene(rng)
            scenes.append(scene)
            captions.append(world.caption(scene, rng, "web"))
        elif rng.random() < config.twin_share:
            for scene, text in _twins(rng):
                scenes.append(scene)
                captions.append(text)
        else:
            scene = world.sample_scene(rng)
            scenes.append(scene)
            captions.append(world.caption(scene, rng))
    return scenes[: config.batch], captions[: config.batch]


def _twins(rng) -> list[tuple[world.Scene, str]]:
    """Two pair scenes that differ by one exchange, with sentences that tell them apart."""
    while True:
        scene = world.sample_scene(rng, "pair")
        kind = ("swap_colour", "swap_position", "swap_texture", "swap_size")[
            rng.choice(4, p=(0.4, 0.35, 0.15, 0.1))
        ]
        other = world.edit(scene, kind, rng)
        if other is None:
            continue
        detail = {"swap_colour": {"colour": 1.0}, "swap_position": {"relation": 1.0}}.get(
            kind, {kind.removeprefix("swap_"): 1.0}
        )
        style, state = world.sample_style(rng), rng.bit_generator.state
        mine = world.describe(scene, rng, **detail)
        rng.bit_generator.state = state  # so that both sentences state the same kinds of fact
        theirs = world.describe(other, rng, **detail)
        if not world.holds(mine, other) and not world.holds(theirs, scene):
            return [
                (scene, world.verbalise(mine, style)),
                (other, world.verbalise(theirs, style)),
            ]


def _seconds(began: float) -> str:
    return f"{time.perf_counter() - began:.0f} s"


# --------------------------------------------------------------------------- the dev world


BINDING = ("swap_attribute", "swap_texture", "swap_size", "swap_object", "replace_relation")


@torch.no_grad()
def evaluate(model, n: int = 400, seed: int = 0, split: world.Split = "dev") -> dict[str, float]:
    """Percentages on fresh scenes: what the recipe was tuned by. Not the benchmark miniatures.

    zero_shot_*: accuracy among all classes; i2t, t2i: recall at 1 among n scenes with sentences;
    foil kinds: share of captions that beat their foil (chance 50); winoground_group (chance 1/6).
    """
    model.eval()
    tokenizer = demo_model.WordTokenizer()
    rng = world.random_stream(split, seed)

    def images(scenes):
        parts = [_images(scenes[i : i + 256]) for i in range(0, len(scenes), 256)]
        return F.normalize(torch.cat([model.visual(p)[0] for p in parts]), dim=-1)

    def texts(sentences):
        return F.normalize(encode_text(model, tokenizer(sentences)), dim=-1)

    def zero_shot(scenes, labels, prompts):
        hits = (images(scenes) @ texts(prompts).T).argmax(dim=1) == torch.tensor(labels)
        return hits.float().mean().item() * 100

    result: dict[str, float] = {}
    families = {
        "shape": world.SHAPES, "colour": tuple(world.COLOURS), "texture": world.TEXTURES,
        "size": tuple(world.SIZES),
    }  # fmt: skip
    for name, family in families.items():
        labels = [i % len(family) for i in range(n)]
        scenes = [
            world.sample_scene(rng, "single", split=split, **{name: family[i]}) for i in labels
        ]
        prompts = [
            f"a photo of a {v}" if name == "shape" else f"a photo of a {v} object" for v in family
        ]
        result[f"zero_shot_{name}"] = zero_shot(scenes, labels, prompts)
    labels = [i % 6 for i in range(n)]
    names = tuple(world.BACKGROUNDS)
    scenes = [world.sample_scene(rng, "single", split=split, background=names[i]) for i in labels]
    result["zero_shot_background"] = zero_shot(scenes, labels, [f"a photo of {v}" for v in names])
    labels = [i % 4 for i in range(n)]
    scenes = [world.sample_scene(rng, "count", split=split, count=i + 1) for i in labels]
    prompts = ["a photo of one object"]
    prompts += [f"a photo of {w} objects" for w in world.NUMBERS[2:]]
    result["zero_shot_count"] = zero_shot(scenes, labels, prompts)
    prompts = [f'a photo of the number: "{d}".' for d in range(10)]
    for style in ("font", "stroke", "pixel"):
        labels = [i % 10 for i in range(n)]
        scenes = [
            world.sample_scene(rng, "digit", split=split, value=i, style=style) for i in labels
        ]
        result[f"zero_shot_{style}_digits"] = zero_shot(scenes, labels, prompts)

    scenes = [world.sample_scene(rng, domain=world.OBJECTS, split=split) for _ in range(n)]
    similarity = images(scenes) @ texts([world.caption(s, rng) for s in scenes]).T
    target = torch.arange(n)
    result["i2t"] = (similarity.argmax(dim=1) == target).float().mean().item() * 100
    result["t2i"] = (similarity.argmax(dim=0) == target).float().mean().item() * 100

    for kind in world.FOILS:
        scenes, pairs = [], []
        while len(scenes) < n:
            scene = world.sample_scene(
                rng, "count" if kind == "replace_count" else "pair", split=split
            )
            pair = world.caption_and_foil(scene, kind, rng)
            if pair is not None:
                scenes.append(scene)
                pairs.append(pair)
        looked = images(scenes)
        true, false = (texts([p[k] for p in pairs]) for k in (0, 1))
        hits = (looked * true).sum(dim=1) > (looked * false).sum(dim=1)
        result[kind] = hits.float().mean().item() * 100
    twins = [_twins(rng) for _ in range(n)]
    i0, i1 = (images([t[k][0] for t in twins]) for k in (0, 1))
    t0, t1 = (texts([t[k][1] for t in twins]) for k in (0, 1))
    s00, s01, s10, s11 = ((i * t).sum(dim=1) for i in (i0, i1) for t in (t0, t1))
    by_text, by_image = (s00 > s01) & (s11 > s10), (s00 > s10) & (s11 > s01)
    for name, hits in (("text", by_text), ("image", by_image), ("group", by_text & by_image)):
        result[f"winoground_{name}"] = hits.float().mean().item() * 100
    result["binding"] = float(np.mean([result[kind] for kind in BINDING]))
    return result


@torch.no_grad()
def scan_digits_accuracy(model) -> float:
    """Percent of scikit-learn's 1,797 real handwritten digits; nothing was trained on them."""
    pixels, labels = digits()
    preprocess, tokenizer = demo_model.image_preprocess(), demo_model.WordTokenizer()
    batch = torch.stack([preprocess(Image.fromarray(a).convert("RGB")) for a in pixels])
    looked = F.normalize(model.visual(batch)[0], dim=-1)
    prompts = tokenizer([f'a photo of the number: "{d}".' for d in range(10)])
    scores = looked @ F.normalize(encode_text(model, prompts), dim=-1).T
    return float((scores.argmax(dim=1).numpy() == labels).mean() * 100)


def report(model, log: Callable[[str], None] = print) -> dict[str, float]:
    figures = evaluate(model) | {"scan_digits": scan_digits_accuracy(model)}
    for name, value in figures.items():
        log(f"dev  {name:24s} {value:5.1f}")
    return figures


def metadata(config: PretrainConfig) -> dict[str, str]:
    """What a weights file says of itself."""
    return {
        "format": "pt",
        "recipe": "fsc_bench.demo.pretrain",
        "config": json.dumps(asdict(config)),
        "seed": str(config.seed),
        "steps": str(config.look_steps + config.read_steps + config.web_steps + config.mixed_steps),
        "architecture": json.dumps(demo_model.architecture()),
        "words": " ".join(demo_model.WordTokenizer().words),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = PretrainConfig(seed=arguments.seed)
    model = pretrain(config)
    demo_model.save(model, arguments.out, metadata(config))
    report(demo_model.load(arguments.out)[0])


if __name__ == "__main__":
    main()
