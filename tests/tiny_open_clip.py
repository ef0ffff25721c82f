"""A CLIP of open_clip's own classes, small enough to train in a second; `py:FILE:load` names it."""

import open_clip
import torch

from fsc_bench.model import Identity
from fsc_bench.models import pick_device
from fsc_bench.models.open_clip import OpenClip, activation_of, state_digest

CONTEXT, START, END = 16, 198, 199


class Tokenizer:
    """Words to ids by the sum of their letters; the end token is the highest."""

    context_length, vocab_size = CONTEXT, 200

    def __call__(self, texts, context_length=CONTEXT):
        ids = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            words = [sum(map(ord, word)) % 190 + 1 for word in text.split()][: CONTEXT - 2]
            row[: len(words) + 2] = torch.tensor([START, *words, END])
        return ids


def build() -> open_clip.CLIP:
    return open_clip.CLIP(
        embed_dim=24,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        text_cfg={"context_length": CONTEXT, "vocab_size": 200, "width": 32, "heads": 2,
                  "layers": 2},
    )  # fmt: skip


def load(device, precision):
    device = pick_device(device)
    torch.manual_seed(3)
    model = build()
    preprocess = open_clip.image_transform(32, is_train=False, mean=(0.5,) * 3, std=(0.25,) * 3)
    identity = Identity(
        weights=state_digest(model), architecture="tiny", activation=activation_of(model),
        preprocess="32 pixels", tokenizer="words", context_length=CONTEXT, precision=precision,
    )  # fmt: skip
    return OpenClip(model.to(device), preprocess, Tokenizer(), identity, device)
