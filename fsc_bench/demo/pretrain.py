"""Pretraining of the demo model: `python -m fsc_bench.demo.pretrain --out FILE --seed 0`.

Three stages with fixed step counts, so that a seed names one model:

1. look: the image tower alone names what stands in each cell of crowded scenes, and the words of
   the whole, through linear heads that are thrown away. Without it, shapes stay at chance for
   minutes.
2. web: contrastive learning on noisy bags of words. It makes a good recogniser that does not bind.
3. mixed: as 2, but a share of the captions are whole sentences, some in pairs that only word order
   or position tells apart. It gives fine-tuning something to build on.

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
from fsc_bench.demo.raw import scan_digits


@dataclass(frozen=True)
class PretrainConfig:
    seed: int = 0
    look_steps: int = 700
    look_batch: int = 64
    look_lr: float = 2e-3
    web_steps: int = 200
    mixed_steps: int = 700
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 40
    name_weight: float = 0.3  # of `NameHead` in stages 2 and 3, falling to 0.09
    sentence_share: float = 0.5  # of the scenes of stage 3: captioned by a sentence
    twin_share: float = 0.6  # of those: two scenes that differ by one exchange


LOOK_KINDS = world.Domain(
    kinds=(("crowd", 0.44), ("single", 0.16), ("count", 0.12), ("digit", 0.28))
)  # fmt: skip
ATTRIBUTES = {
    "shape": world.SHAPES, "colour": tuple(world.COLOURS), "texture": world.TEXTURES,
    "size": tuple(world.SIZES),
}  # fmt: skip


def pretrain(
    config: PretrainConfig,
    log: Callable[[str], None] = print,
    start: dict | None = None,
    on_step: Callable[[int, torch.nn.Module], None] | None = None,
) -> torch.nn.Module:
    """Runs the recipe and returns the model, in eval mode. About ten minutes on two cores.

    `start` is a state dict that the first stage left: it goes on with the second. `on_step` is
    called after each step of the second and third.
    """
    tokenizer = demo_model.WordTokenizer()
    began = time.perf_counter()
    if start is None:
        # Each part has its own seeds, so that it can be done again alone from a state dict.
        torch.manual_seed(config.seed)
        model = demo_model.build()
        _learn_to_look(model, config, log, began)
    else:
        model = demo_model.build()
        model.load_state_dict(start)

    torch.manual_seed(config.seed + 1000)
    rng = world.random_stream("train", config.seed + 1000)
    head = NameHead(model.visual.output_dim, tokenizer)
    parameters = [*model.parameters(), *head.parameters()]
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
        weight = config.name_weight * (1 - 0.7 * step / steps)
        _update(loss + weight * head(image_features, scenes), parameters, optimizer, schedule)
        with torch.no_grad():  # as CLIP: never above 100
            model.logit_scale.clamp_(0, math.log(100))
        if step % 50 == 49:
            log(
                f"{'mixed' if mixed else 'web'} {step + 1}/{steps} loss {loss:.3f} "
                f"scale {model.logit_scale.exp():.1f} {_seconds(began)}"
            )
        if on_step is not None:
            on_step(step + 1, model)
    return model.eval()


def _learn_to_look(model, config: PretrainConfig, log: Callable[[str], None], began: float) -> None:
    rng = world.random_stream("train", config.seed)
    look = LookHead(model.visual.conv1.out_channels, model.visual.output_dim)
    tokenizer = demo_model.WordTokenizer()
    words = torch.nn.Linear(model.visual.output_dim, tokenizer.vocab_size)
    parameters = [*model.visual.parameters(), *look.parameters(), *words.parameters()]
    optimizer, schedule = _optimizer(parameters, config.look_lr, config.look_steps, config)
    for step in range(config.look_steps):
        scenes = [world.sample_scene(rng, domain=LOOK_KINDS) for _ in range(config.look_batch)]
        pooled, tokens = model.visual(_images(scenes))
        losses = look(pooled, tokens, scenes)
        losses["words"] = _word_loss(words(pooled), _word_targets(scenes, tokenizer))
        _update(sum(losses.values()), parameters, optimizer, schedule)
        if step % 50 == 49:
            parts = " ".join(f"{name} {loss:.2f}" for name, loss in losses.items())
            log(f"look {step + 1}/{config.look_steps} loss {parts} {_seconds(began)}")


class LookHead(torch.nn.Module):
    """Names, cell by cell, what stands there; and of the whole picture, digit and count."""

    def __init__(self, token_width: int, embedding_width: int):
        super().__init__()
        self.cells = torch.nn.ModuleDict(
            {name: torch.nn.Linear(token_width, len(f)) for name, f in ATTRIBUTES.items()}
        )
        self.count = torch.nn.Linear(embedding_width, 10)
        self.digit = torch.nn.Linear(embedding_width, 10)

    def forward(self, pooled, tokens, scenes: list[world.Scene]) -> dict[str, torch.Tensor]:
        """pooled [n, embedding], tokens [n, patches, width] -> cross-entropy by what is named."""
        side = math.isqrt(tokens.shape[1])
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        cells = F.avg_pool2d(grid, side // 3).flatten(2).transpose(1, 2)  # [n, 9, width]
        where, things = [], []
        for n, scene in enumerate(scenes):
            for thing in scene.things:
                where.append((n, world.CELLS.index(world.cell_of(thing))))
                things.append(thing)
        rows, columns = torch.tensor(where).T
        looked = cells[rows, columns]
        losses = {}
        for name, family in ATTRIBUTES.items():
            target = torch.tensor([family.index(getattr(t, name)) for t in things])
            losses[name] = F.cross_entropy(self.cells[name](looked), target)
        target = torch.tensor([len(s.things) for s in scenes])
        losses["count"] = F.cross_entropy(self.count(pooled), target)
        digits = [n for n, s in enumerate(scenes) if s.digit is not None]
        if digits:
            target = torch.tensor([scenes[n].digit.value for n in digits])
            losses["digit"] = F.cross_entropy(self.digit(pooled[digits]), target)
        return losses


class NameHead(torch.nn.Module):
    """Names, from the whole picture's embedding: words, pairs of colour and shape, shapes by cell.

    The pairs and places keep in the embedding what bags of words do not ask for: which colour is
    on which shape, and where. Whether texts can address it is another matter.
    """

    def __init__(self, embedding_width: int, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.words = torch.nn.Linear(embedding_width, tokenizer.vocab_size)
        shapes = len(world.SHAPES)
        self.pairs = torch.nn.Linear(embedding_width, len(world.COLOURS) * shapes)
        self.places = torch.nn.Linear(embedding_width, len(world.CELLS) * shapes)

    def forward(self, pooled, scenes: list[world.Scene]) -> torch.Tensor:
        """pooled [n, embedding] -> the mean of three cross-entropies."""
        words = _word_loss(self.words(pooled), _word_targets(scenes, self.tokenizer))
        seen = [n for n, s in enumerate(scenes) if s.things]
        pairs = torch.zeros(len(seen), self.pairs.out_features)
        places = torch.zeros(len(seen), self.places.out_features)
        colours, cells = tuple(world.COLOURS), world.CELLS
        for row, n in enumerate(seen):
            things = scenes[n].things
            for thing in things:
                shape = world.SHAPES.index(thing.shape)
                colour, cell = colours.index(thing.colour), cells.index(world.cell_of(thing))
                pairs[row, colour * len(world.SHAPES) + shape] += 1 / len(things)
                places[row, cell * len(world.SHAPES) + shape] += 1 / len(things)
        looked = pooled[seen]
        return (
            words + _word_loss(self.pairs(looked), pairs) + _word_loss(self.places(looked), places)
        ) / 3


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
    pixels, labels = scan_digits()
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
        "steps": str(config.look_steps + config.web_steps + config.mixed_steps),
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
