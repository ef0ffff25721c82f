"""Parts: a training step of any open_clip architecture, whole and cut into its parts, each with its
forward and its backward, to be timed or counted. Nothing here reads a clock.

Weights are random, pictures are noise, and a word is one token: a step costs the same. Every text
has the same number of words, so that shapes follow from the workload alone.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsc_bench.errors import UsageError
from fsc_bench.models import check_named
from fsc_bench.models.checkpoints.quiet import quiet
from fsc_bench.models.shortcuts import parts as of_model
from fsc_bench.train import dense
from fsc_bench.train.batches import Part, Pixels, text_blocks
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.hard_negatives import FromGenerator
from fsc_bench.train.layout import TextLayout
from fsc_bench.train.losses import mean_row_count
from fsc_bench.train.negatives import load_generator
from fsc_bench.train.objective import Features, feature_terms, local_term, weighted
from fsc_bench.train.schedule import decay_groups
from fsc_bench.train.sources import Pair
from fsc_bench.train.step import Worker
from fsc_bench.train.towers import Encoded, Towers

GAMMA, BETA, GLOBAL, LOCAL = 2.0, 0.02, 0.5, 0.2  # as recipe fsc-clip
CALIBRATED = {"focal_gamma": GAMMA, "label_smoothing": BETA}
STEPS: dict[str, dict[str, Any]] = {
    "FSC-CLIP": {"global_hn_weight": GLOBAL, "local_hn_weight": LOCAL, **CALIBRATED},
    "FSC-CLIP without local": {"global_hn_weight": GLOBAL, **CALIBRATED},
    "NegCLIP": {"negative_columns": True},
    "NegCLIP + local": {"negative_columns": True, "local_hn_weight": LOCAL, **CALIBRATED},
}
IMAGE, TEXT, CONTRAST = "image tower", "text tower", "contrastive loss"
GLOBAL_LOSS, LOCAL_LOSS = "global hard-negative loss", "local hard-negative loss"
PLAIN, OPTIMISER, NEGATIVES = "local loss, plain", "optimiser (AdamW)", "making of negatives"
LOSSES: dict[str, dict[str, Any]] = {
    CONTRAST: {},
    GLOBAL_LOSS: {"contrastive_weight": 0.0, "global_hn_weight": GLOBAL, **CALIBRATED},
    LOCAL_LOSS: {"contrastive_weight": 0.0, "local_hn_weight": LOCAL, **CALIBRATED},
}
OF_STEP = (IMAGE, TEXT, *LOSSES, OPTIMISER)  # what FSC-CLIP's step consists of
# What hard negatives are made of to time the making: as long as COCO's captions are.
CAPTIONS = (
    "a man rides a red bicycle down a wet street",
    "two black dogs run after a yellow ball on the grass",
    "a woman in a white coat holds a cup of hot coffee",
    "a small boat lies next to an old wooden house by the lake",
    "three children look at a large brown horse behind a fence",
    "a cat sleeps on a blue sofa under an open window",
)


@dataclass(frozen=True)
class Workload:
    """What a step sees: `batch` pictures, each with a caption and `negatives` hard negatives of
    `words` words.
    """

    batch: int = 8
    negatives: int = 3
    words: int = 11  # with start and end 13 tokens; a caption of COCO has 12.6


def check_architecture(name: str) -> None:
    """Raises UsageError with the near miss for what open_clip does not know."""
    check_named(f"open_clip:{name}/random")


def build(architecture: str, device: str) -> nn.Module:
    """The architecture with random weights; on `meta` with shapes alone. Raises UsageError for one
    that cannot be built here, or that the local loss cannot train.
    """
    check_architecture(architecture)
    if (open_clip.get_model_config(architecture) or {}).get("text_cfg", {}).get("hf_model_name"):
        raise UsageError(
            f"architecture {architecture!r} has no local loss to profile: its text tower, one of "
            "transformers, gives no words in the space of its images. Leave it out."
        )
    torch.manual_seed(0)
    try:
        # What it warns of are random weights, which are meant.
        with quiet(), warnings.catch_warnings(), torch.device(device):
            warnings.simplefilter("ignore", UserWarning)
            model = open_clip.create_model(architecture, device=device, pretrained_text=False)
    except (OSError, ImportError, ValueError) as error:  # a text tower that the Hub describes
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UsageError(f"architecture {architecture!r} cannot be built here: {reason}.") from None
    if why := dense.lacks(model):
        raise UsageError(
            f"architecture {architecture!r} has no local loss to profile: {why}. Leave it out."
        )
    if device != "meta":
        with torch.no_grad():
            model.logit_scale.fill_(2.0)  # random features know nothing; losses keep a gradient
    return model.train()


def image_size(model: nn.Module) -> int:
    """The side of its pictures in pixels."""
    size = model.visual.image_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise UsageError(f"this model sees {tuple(size)} images: only squares train.")
    return sides.pop()


class Setting:
    """A model with one batch. Raises UsageError for more words than its context holds."""

    def __init__(self, model: nn.Module, workload: Workload, architecture: str):
        self.model, self.workload = model, workload
        self.device = str(model.logit_scale.device)
        self.towers = Towers(model, tokens=True)
        self.towers.layout = TextLayout.of(model, self._ids)
        self.towers.trims = self.towers.open_text  # as a probe of causal towers finds
        room = self.context - 1 - self.towers.layout.start
        if workload.words > room:
            raise UsageError(
                f"--words {workload.words}: a text of {architecture!r} has room for {room} words."
            )
        side = image_size(model)
        self.pixels = Pixels(side, (0.5,) * 3, (0.25,) * 3)
        self.part = self._part(side)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._optimizer: torch.optim.Optimizer | None = None

    @property
    def context(self) -> int:
        return int(of_model.text_home(self.model).context_length)

    @property
    def texts(self) -> int:
        return self.workload.batch * (1 + self.workload.negatives)

    def _ids(self, texts: Sequence[str]) -> Tensor:
        """Token ids [N, context], a word each: as CLIP's tokenizer lays them out, or as SigLIP's
        where the model pools its last token.
        """
        vocabulary = int(of_model.text_home(self.model).token_embedding.num_embeddings)
        of_clip = of_model.text_pool(self.model) in ("", "argmax")
        ids = torch.full((len(texts), self.context), 0 if of_clip else 1)
        for row, text in zip(ids, texts, strict=True):
            found = [sum(map(ord, word)) % (vocabulary - 4) + 2 for word in text.split()]
            found = [vocabulary - 2, *found, vocabulary - 1] if of_clip else found
            row[: len(found)] = torch.tensor(found)
        return ids

    def _part(self, side: int) -> Part:
        batch, kinds = self.workload.batch, self.workload.negatives
        words = [
            [f"w{(7 * number + place) % 997}" for place in range(self.workload.words)]
            for number in range(self.texts)
        ]
        ids = self._ids([" ".join(one) for one in words])
        rows = [number // (1 + kinds) for number in range(self.texts)]
        places = [number % (1 + kinds) for number in range(self.texts)]
        generator = torch.Generator().manual_seed(1)
        # Without numbers a batch of any size takes no memory.
        images = torch.empty(batch, 3, side, side, dtype=torch.uint8, device=self._images_device)
        if not images.is_meta:
            images.random_(0, 256, generator=generator)
        blocks = text_blocks(ids, rows, places, int(self.towers.trims), self.towers.layout)
        return Part(images, blocks, torch.ones(batch, kinds, dtype=torch.bool))

    @property
    def _images_device(self) -> str:
        return "meta" if self.device == "meta" else "cpu"

    # ------------------------------------------------------------ whole steps

    def step(self, name: str) -> Callable[[], None]:
        """One of STEPS with its optimiser's; on `meta` without."""
        config = TrainConfig(negatives="rules", device="cpu", **STEPS[name])
        towers = Towers(self.model, bool(config.local_hn_weight))
        towers.trims, towers.layout = self.towers.trims, self.towers.layout
        worker = Worker(config, towers, self.pixels, self.device, None)
        thresholds = torch.zeros(self.workload.negatives, device=self.device)

        def run() -> None:
            self.model.zero_grad(set_to_none=True)
            worker.gradients([self.part], 0, 0, self.scaler, thresholds)
            if self.device != "meta":
                self.optimizer.step()

        return run

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW at a rate at which weights stand still: every step is of the same model."""
        if self._optimizer is None:
            groups = decay_groups(self.trainable, 0.1)
            fused = torch.device(self.device).type in ("cpu", "cuda")
            self._optimizer = torch.optim.AdamW(groups, lr=1e-12, fused=fused)
        return self._optimizer

    @property
    def held(self) -> list[Tensor]:
        """What is there between two steps: weights, and the optimiser's moments once made."""
        states = self._optimizer.state.values() if self._optimizer else ()
        moments = [value for state in states for value in state.values() if torch.is_tensor(value)]
        return [*self.model.parameters(), *self.model.buffers(), *moments]

    # ------------------------------------------------------------ parts of one

    def parts(self) -> dict[str, Callable[[], None]]:
        """Each part of FSC-CLIP's step that is not the optimiser, forward and backward; and the
        local loss as one would first write it.
        """
        _ = self.encoded  # no part of any
        found: dict[str, Callable[[], None]] = {IMAGE: self._image, TEXT: self._text}
        for name, settings in LOSSES.items():
            config = TrainConfig(negatives="rules", device="cpu", **settings)
            found[name] = partial(self._loss, config)
        found[PLAIN] = self._plain
        return found

    def _image(self) -> None:
        images = self.pixels.normalise(self.part.images.to(self.device))
        self.model.zero_grad(set_to_none=True)
        _backward(self.towers.encode_image(images, tokens=True))

    def _text(self) -> None:
        self.model.zero_grad(set_to_none=True)
        blocks = self.part.texts
        sides = [self.towers.encode_text(b.ids.to(self.device), b.end.to(self.device), tokens=True)
                 for b in blocks]  # fmt: skip
        _backward([tensor for both in sides for tensor in both])

    @cached_property
    def encoded(self) -> Encoded:
        """What towers give, as leaves: the losses' backward ends there."""
        with torch.no_grad():
            images = self.pixels.normalise(self.part.images.to(self.device))
            blocks = self.part.texts
            found = self.towers(images, [b.ids.to(self.device) for b in blocks],
                                [b.end.to(self.device) for b in blocks])  # fmt: skip
        bias = found.logit_bias
        return Encoded(
            _leaf(found.image_features), _leaf(found.image_tokens),
            [_leaf(one) for one in found.text_features], [_leaf(one) for one in found.text_tokens],
            _leaf(found.logit_scale), None if bias is None else _leaf(bias),
        )  # fmt: skip

    def _loss(self, config: TrainConfig) -> None:
        encoded = self.encoded
        mask = self.part.negative_mask.to(self.device)
        rows, scale = mean_row_count(mask), encoded.logit_scale
        if config.local_hn_weight:
            terms = {"local_hn": local_term(config, self.part, encoded, rows, scale)}
        else:
            features = Features.of(self.part, encoded)
            terms, _ = feature_terms(config, features, mask, scale, rows,
                                     logit_bias=encoded.logit_bias)  # fmt: skip
        torch.autograd.grad(weighted(config, terms), _leaves(encoded), allow_unused=True)

    def _plain(self) -> None:
        """The local loss of whole contexts, one pass a text of each picture."""
        encoded = self.encoded
        block, (words,) = self.part.texts[0], encoded.text_tokens
        width = 1 + self.workload.negatives
        whole = F.pad(words, (0, 0, 0, self.context - words.shape[1]))
        whole = whole.view(self.workload.batch, width, self.context, -1)
        mask = F.pad(block.token_mask, (0, self.context - words.shape[1]))
        mask = mask.view(self.workload.batch, width, -1).to(self.device)
        logits = [
            plain_local_score(encoded.image_tokens, whole[:, k], mask[:, k], encoded.logit_scale)
            for k in range(width)
        ]
        there = self.part.negative_mask.to(self.device)
        loss = LOCAL * plain_calibrated(torch.stack(logits, 1), there)
        torch.autograd.grad(loss, _leaves(encoded), allow_unused=True)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _leaves(encoded: Encoded) -> list[Tensor]:
    return [encoded.image_features, encoded.image_tokens, *encoded.text_features,
            *encoded.text_tokens]  # fmt: skip


def _backward(outputs: Sequence[Tensor]) -> None:
    torch.autograd.backward(list(outputs), [torch.ones_like(one) for one in outputs])


# ---------------------------------------------------------------- the plain local loss


def plain_calibrated(logits: Tensor, negative_mask: Tensor) -> Tensor:
    """Paper eq. 9 of logits [B, 1 + K] as one would first write it, with GAMMA and BETA."""
    present = torch.cat([torch.ones_like(negative_mask[:, :1]), negative_mask], dim=1)
    log_p = logits.masked_fill(~present, -torch.inf).log_softmax(-1).masked_fill(~present, 0.0)
    target = BETA * present.to(logits) / present.sum(-1, keepdim=True)
    first = torch.zeros_like(target)
    first[:, 0] = 1
    target = target + first * (1 - BETA)
    loss = -(target * (1 - log_p.exp()) ** GAMMA * log_p).sum(-1)
    kept = negative_mask.any(-1)
    return (loss * kept).sum() / kept.sum()


def plain_local_score(patches: Tensor, words: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    """Paper eq. 6-8 of one text a picture: patches [B, P, D], words and mask [B, T], scores [B]."""
    similarity = torch.einsum("btd,bpd->btp", words, patches).detach()
    low = similarity.min(-1, keepdim=True).values
    high = similarity.max(-1, keepdim=True).values
    attention = (similarity - low) / (high - low)
    attention = attention / attention.sum(-1, keepdim=True)
    attended = F.normalize(torch.einsum("btp,bpd->btd", attention, patches), dim=-1)
    cosine = (attended * F.normalize(words, dim=-1)).sum(-1)
    return (scale * cosine).masked_fill(~mask, -torch.inf).logsumexp(-1)


# ---------------------------------------------------------------- hard negatives


def making(workload: Workload) -> Callable[[], Any]:
    """The making of a batch's hard negatives by `rules`, as the processes that read data do it: one
    of each kind that it knows, up to as many as are wanted.
    """
    generator = load_generator("rules")
    source = FromGenerator(generator, generator.kinds[: workload.negatives])
    captions = [CAPTIONS[number % len(CAPTIONS)] for number in range(workload.batch)]
    pairs = [Pair(image=None, caption=caption) for caption in captions]
    rngs = [np.random.default_rng(number) for number in range(workload.batch)]
    return partial(source.draw, pairs, rngs)
