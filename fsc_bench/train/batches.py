"""Batches: which pairs a step sees, and what becomes of them on the way to the towers.

A batch is a function of (seed, step) alone: how many workers read it, how many processes share it
and whether the run was interrupted makes no difference. Losses are not known here.
"""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Resize

from fsc_bench.errors import DataError, UsageError
from fsc_bench.system.distributed import launched_here
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.layout import OF_CLIP, TextLayout
from fsc_bench.train.sources import BadPair, Pair, Pairs

AHEAD = 2  # batches that each reading process has ready

# What a random stream is for, so that two streams of one step never meet.
ORDER, CROP, NEGATIVES, SUBSTITUTE, POSITIVES = range(5)


@dataclass(frozen=True)
class TextBlock:
    """Texts of similar length, trimmed to the longest. All of it on the CPU."""

    ids: Tensor  # [N, T]
    end: Tensor  # [N], the position of the end token
    image_index: Tensor  # [N], the row of the part that a text belongs to
    text_index: Tensor  # [N], 0 for the caption, k for its k-th hard negative, K + 1: paraphrase
    layout: TextLayout = OF_CLIP

    @property
    def token_mask(self) -> Tensor:
        """[N, T], true for words and the end token, false for the start token and padding."""
        return self.layout.mask(self.ids, self.end)

    def pin_memory(self) -> "TextBlock":
        """For the data loader: pages that a GPU copies from without waiting."""
        return replace(self, ids=self.ids.pin_memory(), end=self.end.pin_memory())


@dataclass(frozen=True)
class Part:
    """A batch, or the part of it that is encoded at once."""

    images: Tensor  # [b, 3, H, W], uint8
    texts: tuple[TextBlock, ...]
    negative_mask: Tensor  # [b, K]
    bad: tuple[str, ...] = ()  # pairs that could not be used, each with the reason
    positive_mask: Tensor | None = None  # [b], rows with a paraphrase; None where none are wanted

    def pin_memory(self) -> "Part":
        texts = tuple(block.pin_memory() for block in self.texts)
        return replace(self, images=self.images.pin_memory(), texts=texts)


class HardNegatives(Protocol):
    """Hard negatives of a batch: one text, or None, for each pair and each of `kinds`."""

    kinds: Sequence[str]

    def draw(
        self, pairs: Sequence[Pair], rngs: Sequence[np.random.Generator]
    ) -> list[list[str | None]]: ...


class Positives(Protocol):
    """Paraphrases of a batch's captions: one text, or None, for each pair."""

    def draw(
        self,
        indices: Sequence[int],
        pairs: Sequence[Pair],
        rngs: Sequence[np.random.Generator],
    ) -> list[str | None]: ...


@dataclass(frozen=True)
class Pixels:
    """What the model's own preprocessing says: size, mean and deviation of each channel."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: float = 1.0
    squash: bool = False  # without a random crop, the whole picture in another shape

    def __call__(self, image: Image.Image, rng: np.random.Generator | None) -> np.ndarray:
        """uint8 [3, size, size]: RandomResizedCrop, bicubic; without `rng` a centre crop, or all of
        the picture squashed.
        """
        width, height = image.size
        whole = rng is None or self.crop_scale == 1.0
        if whole and self.squash:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        elif whole:
            # torchvision's Resize and CenterCrop: the long side cut to an integer, edges rounded.
            short = min(width, height)
            resized = [int(self.size * side / short) for side in (width, height)]
            image = image.resize(resized, Image.Resampling.BICUBIC)
            left, top = (round((side - self.size) / 2) for side in resized)
            image = image.crop((left, top, left + self.size, top + self.size))
        else:
            left, top, right, bottom = crop_box(width, height, self.crop_scale, rng)
            image = image.crop((left, top, right, bottom))
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(image, np.uint8).transpose(2, 0, 1)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [b, 3, H, W] -> float32, as the model was trained to see them."""
        mean, std = (_of_channels(values, images.device) for values in (self.mean, self.std))
        return (images.float() / 255 - mean) / std


@lru_cache(maxsize=16)
def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[3, 1, 1], made once: making it on a GPU waits for all that the GPU was given before."""
    return torch.tensor(values, device=device)[:, None, None]


def pixels_of(preprocess: Any, crop_scale: float) -> Pixels:
    """Reads the size and the normalisation off a model's torchvision transform."""
    size = mean = std = None
    steps = getattr(preprocess, "transforms", ())
    for step in steps:
        if hasattr(step, "mean") and hasattr(step, "std"):
            mean, std = (tuple(float(v) for v in values) for values in (step.mean, step.std))
        elif hasattr(step, "size"):
            wanted = step.size
            size = wanted if isinstance(wanted, int) else max(wanted)
            if not isinstance(wanted, int) and len(set(wanted)) > 1:
                raise UsageError(f"this model sees {tuple(wanted)} images: only squares train.")
    if size is None or mean is None:
        raise UsageError("this model's preprocessing has no Resize and Normalize to train with.")
    # A Resize to both sides takes all of a picture; a crop behind it, or another step, does not.
    squash = any(isinstance(s, Resize) and not isinstance(s.size, int) for s in steps)
    squash = squash and not any("Crop" in type(step).__name__ for step in steps)
    return Pixels(int(size), mean, std, crop_scale, squash)


def crop_box(
    width: int, height: int, smallest: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop: area in [smallest, 1], aspect in [3/4, 4/3], ten tries."""
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1.0)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    # The largest crop of an allowed aspect, in the middle.
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass
class Batches(torch.utils.data.Dataset):
    """`batches[step]` is this process's share of the batch of a step, in `parts` parts."""

    pairs: Pairs
    indices: np.ndarray  # of the pairs that take part
    tokenizer: Callable[..., Tensor]
    pixels: Pixels
    negatives: HardNegatives | None
    batch_size: int  # over all processes
    seed: int
    parts: int = 1
    rank: int = 0
    world: int = 1
    buckets: int = 1  # 0: texts are not trimmed
    layout: TextLayout = OF_CLIP
    augment: bool = True
    positives: Positives | None = None

    def __post_init__(self) -> None:
        check_batch(self.batch_size, len(self.indices), self.world, self.parts)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: a different remainder is left out of each epoch."""
        return len(self.indices) // self.batch_size

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.negatives.kinds) if self.negatives else ()

    def batch_indices(self, step: int) -> np.ndarray:
        """The pairs of a step, of all processes."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _epoch_order(len(self.indices), self.seed, epoch)
        return self.indices[order[place * self.batch_size : (place + 1) * self.batch_size]]

    def __getitem__(self, step: int) -> list[Part]:
        everyone = self.batch_indices(step)
        share = len(everyone) // self.world
        mine = everyone[self.rank * share : (self.rank + 1) * share]
        return [self._part(step, some, everyone) for some in np.split(mine, self.parts)]

    def _part(self, step: int, indices: np.ndarray, everyone: np.ndarray) -> Part:
        pairs, rngs, images, used, bad = [], [], [], [], []
        for index in indices:
            index, pair = self._usable(step, int(index), everyone, bad)
            used.append(index)
            crop = self._rng(CROP, step, index) if self.augment else None
            images.append(self.pixels(pair.image, crop))
            pairs.append(pair)
            rngs.append(self._rng(NEGATIVES, step, index))
        drawn = self.negatives.draw(pairs, rngs) if self.negatives else [[] for _ in pairs]
        present = [[text is not None for text in row] for row in drawn]
        positive_mask = None
        if self.positives:
            streams = [self._rng(POSITIVES, step, index) for index in used]
            paraphrases = self.positives.draw(used, pairs, streams)
            positive_mask = torch.tensor([text is not None for text in paraphrases])
            # The last text of a row, after all the hard negatives, there or not.
            drawn = [[*row, text] for row, text in zip(drawn, paraphrases, strict=True)]
        texts, image_index, text_index = [], [], []
        for row, (pair, others) in enumerate(zip(pairs, drawn, strict=True)):
            for place, text in enumerate([pair.caption, *others]):
                if text is not None:
                    texts.append(text)
                    image_index.append(row)
                    text_index.append(place)
        return Part(
            images=torch.from_numpy(np.stack(images)),
            texts=text_blocks(
                self.tokenizer(texts), image_index, text_index, self.buckets, self.layout
            ),
            negative_mask=torch.tensor(present, dtype=torch.bool).view(len(pairs), -1),
            bad=tuple(bad),
            positive_mask=positive_mask,
        )

    def _usable(
        self, step: int, index: int, everyone: np.ndarray, bad: list[str]
    ) -> tuple[int, Pair]:
        """The pair, or one of another batch in its place: every process brings a full share."""
        rng = None
        for _ in range(50):
            try:
                return index, self.pairs[index]
            except BadPair as error:
                bad.append(str(error))
            rng = rng or self._rng(SUBSTITUTE, step, index)
            spare = self.indices[rng.integers(len(self.indices), size=20)]
            index = int(next((i for i in spare if i not in everyone), spare[0]))
        raise DataError(f"50 pairs in a row could not be used; the last: {bad[-1]}.")

    def _rng(self, purpose: int, step: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, step // self.steps_per_epoch, index])


def readers(config: TrainConfig, batches: Batches) -> int:
    """How many processes read: `config.workers`, or for -1 up to 4 as there are cores and room.

    Batches come through shared memory, of which a container may have 64 MB. The number of readers
    changes nothing but the time.
    """
    if config.workers >= 0:
        return config.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = min(4, (cores or 1) // launched_here())
    try:
        room = shutil.disk_usage("/dev/shm").free // launched_here()
    except OSError:
        return wanted  # no such place: the system shares memory some other way
    size = batches.batch_size // batches.world * 3 * batches.pixels.size**2
    return min(wanted, room // 2 // (AHEAD * size))


def check_batch(batch_size: int, pairs: int, world: int, parts: int) -> None:
    """Raises UsageError for a batch that the data cannot fill or the processes cannot share."""
    if batch_size > pairs:
        raise UsageError(f"batch_size = {batch_size} is larger than the data: {pairs:,} pairs.")
    check_shares(batch_size, world, parts)


def check_shares(batch_size: int, world: int, parts: int) -> None:
    """Raises UsageError for a batch that does not divide into the parts of all processes."""
    if batch_size % (world * parts):
        raise UsageError(
            f"batch_size = {batch_size} does not divide into {world} processes of {parts} parts "
            "(accumulate) each."
        )


@lru_cache(maxsize=2)
def _epoch_order(pairs: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(pairs)


def text_blocks(
    ids: Tensor,
    image_index: Sequence[int],
    text_index: Sequence[int],
    buckets: int,
    layout: TextLayout = OF_CLIP,
) -> tuple[TextBlock, ...]:
    """Token ids `[N, context]` as at most `buckets` blocks by length; 0 leaves them untrimmed."""
    image_index, text_index = torch.tensor(image_index), torch.tensor(text_index)
    end = layout.end(ids)
    if not buckets:
        return (TextBlock(ids, end, image_index, text_index, layout),)
    order = torch.argsort(end, stable=True)
    cuts = _cuts(end[order] + 1, buckets)
    blocks = []
    for rows in order.tensor_split(cuts):
        length = int(end[rows].max()) + 1
        of_rows = (end[rows], image_index[rows], text_index[rows], layout)
        blocks.append(TextBlock(ids[rows, :length], *of_rows))
    return tuple(blocks)


def _cuts(lengths: Tensor, buckets: int) -> list[int]:
    """Where to cut sorted lengths so that the least padding is computed, one cut after another."""
    cuts: list[int] = []
    for _ in range(min(buckets, len(lengths)) - 1):
        best, saved = None, 0
        for start, stop in zip([0, *cuts], [*cuts, len(lengths)], strict=True):
            # A cut before `at` spares the rows start..at-1 the difference to the longest.
            inner = lengths[start:stop]
            gain = (inner[-1] - inner[:-1]) * torch.arange(1, len(inner))
            if len(gain) and int(gain.max()) > saved:
                best, saved = start + int(gain.argmax()) + 1, int(gain.max())
        if best is None:
            break
        cuts = sorted([*cuts, best])
    return cuts
