"""Mechanism: what training does to similarities, measured on a probe that never changes.

A probe is some pairs with hard negatives and paraphrases, drawn once. Every `probe_every` steps the
model encodes it, in evaluation mode, in float32 and without touching any random stream, so that a
run with a probe is the run without. `readings` says what comes of it; metrics.jsonl gets its means,
study/similarity.py the same numbers of finished models, pair by pair.

Shapes: n pairs, K kinds of hard negatives, D dimensions.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsc_bench.errors import UsageError
from fsc_bench.train import dense
from fsc_bench.train.batches import Batches, HardNegatives, Part, Pixels, Positives
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.hard_negatives import FromData, FromGenerator
from fsc_bench.train.losses import Alignment, local_scores
from fsc_bench.train.material import draw
from fsc_bench.train.negatives import load_generator
from fsc_bench.train.objective import Features, packed_texts
from fsc_bench.train.paraphrases import Paraphrases, SameImage
from fsc_bench.train.sources import Pairs, keys_of, open_pairs
from fsc_bench.train.towers import Towers

PART = 32  # pairs that are encoded at once


@dataclass(frozen=True)
class ProbeData:
    """What a probe is drawn from, one pair of an image at most; `where` says it in words."""

    pairs: Pairs
    indices: np.ndarray
    negatives: HardNegatives
    positives: Positives
    where: str


def probe_data(
    config: TrainConfig,
    pairs: Pairs,
    chosen: np.ndarray,
    held_out: np.ndarray,
    links: Mapping[str, str] | None = None,
) -> ProbeData | None:
    """The pairs to measure on, none where `probe_every` is 0: those of `probe_data`, else of the
    dev split, else some of those that train.

    Raises UsageError where there are fewer than two.
    """
    if not config.probe_every:
        return None
    if config.probe_data:
        pairs = open_pairs(config.probe_data, keys_of(config), links)
        some, where = np.arange(len(pairs)), f"of {config.probe_data}"
    elif len(held_out):
        some, where = held_out, "of the dev split"
    else:
        some, where = chosen, "that are trained on: held out are those of dev_share or probe_data"
    return drawn_data(config, pairs, some, where)


def drawn_data(config: TrainConfig, pairs: Pairs, some: np.ndarray, where: str) -> ProbeData:
    """At most `probe_pairs` of `some` pairs, of different images, in parts of equal size."""
    _, first = np.unique([pairs.keys[int(index)] for index in some], return_index=True)
    some = np.asarray(some)[np.sort(first)]
    keys = [pairs.keys[int(index)] for index in some]
    some = some[draw(keys, min(config.probe_pairs, len(some)), config.seed)]
    if len(some) < 2:
        raise UsageError(f"probe_every: there are {len(some)} pairs {where}: a probe needs two.")
    some = some[: len(some) // min(PART, len(some)) * PART]
    positives = Paraphrases() if config.positives == "data" else SameImage(pairs)
    return ProbeData(pairs, some, probe_negatives(config), positives, where)


def probe_negatives(config: TrainConfig) -> HardNegatives:
    """The hard negatives that the config names, needed by a loss or not; `rules` where it names
    none.
    """
    if config.negatives == "data":
        return FromData(config.negative_kinds)
    generator = load_generator("rules" if config.negatives == "none" else config.negatives)
    kinds = [kind for kind in config.negative_kinds if kind in generator.kinds]
    return FromGenerator(generator, kinds or generator.kinds)


@dataclass(frozen=True)
class Probe:
    """A probe as a model reads it. apart: bool [n, n], pairs whose captions are different."""

    parts: tuple[Part, ...]
    apart: Tensor
    kinds: tuple[str, ...]
    where: str

    @property
    def words(self) -> str:
        return f"{len(self.apart):,} pairs {self.where}"


def make_probe(data: ProbeData, towers: Towers, tokenizer: Any, pixels: Pixels, seed: int) -> Probe:
    """The texts drawn and cut into tokens, the pictures at the size of the model."""
    batches = Batches(
        data.pairs, data.indices, tokenizer=tokenizer, pixels=pixels, negatives=data.negatives,
        batch_size=min(PART, len(data.indices)), seed=seed, buckets=int(towers.trims),
        layout=towers.layout, augment=False, positives=data.positives,
    )  # fmt: skip
    parts = tuple(batches[step][0] for step in range(batches.steps_per_epoch))
    captions = [
        tuple(ids[: end + 1].tolist())
        for part in parts
        for block in part.texts
        for ids, end, text in zip(block.ids, block.end.tolist(), block.text_index, strict=True)
        if text == 0
    ]
    known = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    label = torch.tensor([known[caption] for caption in captions])
    apart = label[:, None] != label
    return Probe(parts, _in_rows(parts, apart), tuple(data.negatives.kinds), data.where)


def _in_rows(parts: tuple[Part, ...], apart: Tensor) -> Tensor:
    """The matrix with texts in the order of their pictures: blocks sort them by length."""
    rows, before = [], 0
    for part in parts:
        places = [b.image_index[b.text_index == 0] + before for b in part.texts]
        rows += torch.cat(places).tolist()
        before += len(part.images)
    order = torch.argsort(torch.tensor(rows))
    return apart[order][:, order]


# ---------------------------------------------------------------- encoding


@dataclass(frozen=True)
class Embedded:
    """A probe's vectors, unit length, float32 on the CPU. Absent texts are zeros."""

    images: Tensor  # [n, D]
    texts: Tensor  # [n, 1 + K, D], the caption first
    present: Tensor  # bool [n, K]
    paraphrases: Tensor  # [n, D]
    paraphrased: Tensor  # bool [n]
    scale: float
    local: Tensor | None  # [n, 1 + K], local scores; None for a model without tokens


@torch.no_grad()
def embed(
    towers: Towers, probe: Probe, pixels: Pixels, device: str, alignment: Alignment
) -> Embedded:
    """What a model makes of the probe. Its mode and every random stream stay as they were."""
    features, local, scale = [], [], 1.0
    with _at_rest(towers), torch.autocast(torch.device(device).type, enabled=False):
        for part in probe.parts:
            images = pixels.normalise(part.images.to(device))
            ids, ends = ([one.to(device) for one in several] for several in
                         zip(*((b.ids, b.end) for b in part.texts), strict=True))  # fmt: skip
            encoded = towers(images, ids, ends)
            features.append(Features.of(part, encoded))
            scale = float(encoded.logit_scale)
            if encoded.image_tokens is not None:
                tokens, index = packed_texts(part, encoded)
                scores = local_scores(
                    encoded.image_tokens, tokens, index, 1 + len(probe.kinds),
                    encoded.logit_scale, alignment=alignment,
                )  # fmt: skip
                local.append(scores.float().cpu())
    joined = Features.join(features)
    return Embedded(
        joined.images.float().cpu(),
        joined.texts.float().cpu(),
        torch.cat([part.negative_mask for part in probe.parts]),
        joined.positives.float().cpu(),
        torch.cat([part.positive_mask for part in probe.parts]),
        scale,
        torch.cat(local) if local else None,
    )


@contextmanager
def _at_rest(towers: nn.Module):
    modes = [(module, module.training) for module in towers.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        towers.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


# ---------------------------------------------------------------- readings


def readings(
    now: Embedded, base: Embedded | None, probe: Probe, focal_gamma: float
) -> dict[str, Tensor]:
    """float64 [n] by name; NaN for a pair without such a text. A name without a value is left out.

    cos_negative, cos_negative_KIND, cos_paraphrase, cos_random   of a caption with its hard
                            negatives (mean), those of one kind, a paraphrase, the other captions of
                            the probe (mean)
    image_caption, image_negative, image_random   of an image with its caption and the same texts
    base_image, base_caption, base_negative       of a vector with the same one of the base: drift
    global_p0, local_p0     how sure the caption wins among its hard negatives (softmax), by cosine
                            and by local score
    global_focal, local_focal         (1 - p0)^gamma, what focal loss leaves of the caption's term
    global_confused, local_confused   percent of hard negatives that the image is closer to
    """
    captions, negatives = now.texts[:, 0], now.texts[:, 1:]
    apart = probe.apart.double()
    counts = apart.sum(1)

    def over_others(similarity: Tensor) -> Tensor:
        return (similarity.double() * apart).sum(1) / counts  # NaN where there is no other

    with_negatives = _dot(captions[:, None], negatives)
    image_negatives = _dot(now.images[:, None], negatives)
    found = {
        "cos_negative": _mean(with_negatives, now.present),
        **{
            f"cos_negative_{kind}": _mean(with_negatives[:, [place]], now.present[:, [place]])
            for place, kind in enumerate(probe.kinds)
        },
        "cos_paraphrase": _mean(_dot(captions, now.paraphrases)[:, None], now.paraphrased[:, None]),
        "cos_random": over_others(captions @ captions.T),
        "image_caption": _dot(now.images, captions),
        "image_negative": _mean(image_negatives, now.present),
        "image_random": over_others(now.images @ captions.T),
    }
    if base is not None:
        found["base_image"] = _dot(now.images, base.images)
        found["base_caption"] = _dot(captions, base.texts[:, 0])
        found["base_negative"] = _mean(_dot(negatives, base.texts[:, 1:]), now.present)
    cosines = torch.cat([found["image_caption"][:, None], image_negatives], 1)
    scores = {"global": now.scale * cosines}
    if now.local is not None:
        scores["local"] = now.local.double()
    for name, logits in scores.items():
        found |= {f"{name}_{key}": value for key, value in
                  _choice(logits, now.present, focal_gamma).items()}  # fmt: skip
    return {name: value for name, value in found.items() if not bool(value.isnan().all())}


def _choice(logits: Tensor, present: Tensor, focal_gamma: float) -> dict[str, Tensor]:
    """Of logits [n, 1 + K], the caption's first; NaN for rows without a hard negative."""
    there = torch.nn.functional.pad(present, (1, 0), value=True)
    nothing = torch.where(present.any(1), 0.0, torch.nan).double()
    p0 = logits.masked_fill(~there, -torch.inf).softmax(1)[:, 0]
    confused = (logits[:, 1:] > logits[:, :1]).double()
    return {
        "p0": p0 + nothing,
        "focal": (1 - p0) ** focal_gamma + nothing,
        "confused": 100 * _mean(confused, present),
    }


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() * other.double()).sum(-1)


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """The mean of each row's values that are there; NaN where none is."""
    values = values.double().masked_fill(~present, 0.0)
    return values.sum(1) / present.sum(1)


# ---------------------------------------------------------------- during training


class Mechanism:
    """A run's probe, and what its model made of it before the first step."""

    def __init__(self, probe: Probe, towers: Towers, sharded: bool, pixels: Pixels, device: str,
                 config: TrainConfig):  # fmt: skip
        # Local scores tell of runs without the local loss too; shards are gathered by the towers
        # they were cut as, and by no others.
        if not towers.tokens and not sharded and not dense.lacks(towers.model):
            layout, trims = towers.layout, towers.trims
            towers = Towers(towers.model, tokens=True)
            towers.layout, towers.trims = layout, trims
        self.probe, self.towers, self.pixels = probe, towers, pixels
        self.device, self.config = device, config
        self.base: Embedded | None = None

    def begin(self) -> None:
        """Remembers the model as it is: before a checkpoint is taken up again."""
        self.base = self._embed()

    def due(self, step: int, last: int) -> bool:
        """Whether it is measured after so many steps: at the first and last, and in between."""
        return step % self.config.probe_every == 0 or step == last

    def measure(self) -> dict[str, float]:
        """The mean of every reading over the pairs that have it."""
        found = readings(self._embed(), self.base, self.probe, self.config.focal_gamma)
        return {name: float(value.nanmean()) for name, value in found.items()}

    def _embed(self) -> Embedded:
        return embed(self.towers, self.probe, self.pixels, self.device, self.config.alignment)
