"""The demo world's model: open_clip's own CLIP, very small, with a tokenizer of whole words.

The weights are a few MB of float16 safetensors that carry their recipe. It is not a general CLIP:
it has seen nothing but `world.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import safetensors
import safetensors.torch
import torch
from PIL import Image

from fsc_bench.demo import world

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONTEXT_LENGTH = 32
# Words of the benchmarks' prompt templates that no caption of the world holds.
PROMPT_WORDS = (
    "a photo of the number", "this is a photo of", "colour color shape texture background size",
    "scene thing things with on in at of that it", "zero five six seven eight nine",
    "blurry bad good close up centered drawing", "texts side corner middle is are there not any",
    "some many kind type something same different",
)  # fmt: skip
PAD, UNKNOWN = 0, 1
WEIGHTS = Path(__file__).parent / "weights"  # the shipped models, `<name>.safetensors`


def _words() -> tuple[str, ...]:
    prompts = {w for text in PROMPT_WORDS for w in world.words_of(text)}
    return tuple(sorted(prompts | set(world.vocabulary())))


class WordTokenizer:
    """Whole lower-case words to ids; punctuation is dropped, other words share one id.

    The end token is the highest id, so that open_clip's argmax pooling finds it.
    """

    def __init__(self, words: Sequence[str] = _words(), context_length: int = CONTEXT_LENGTH):
        self.words = tuple(words)
        self.context_length = context_length
        self.ids = {word: i for i, word in enumerate(self.words, start=UNKNOWN + 1)}
        self.sot_token_id = len(self.words) + 2
        self.eot_token_id = len(self.words) + 3
        self.vocab_size = len(self.words) + 4

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(word, UNKNOWN) for word in world.words_of(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        known = {i: word for word, i in self.ids.items()} | {UNKNOWN: "<unknown>"}
        return " ".join(known[int(t)] for t in tokens if int(t) in known)

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None
    ) -> torch.LongTensor:
        """Token ids [n, context_length], padded with 0; long texts are cut but keep their end."""
        texts = [texts] if isinstance(texts, str) else texts
        length = context_length or self.context_length
        tokens = np.full((len(texts), length), PAD, np.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [self.sot_token_id, *self.encode(text)[: length - 2], self.eot_token_id]
            row[: len(ids)] = ids
        return torch.from_numpy(tokens)


def architecture() -> dict:
    """open_clip's `CLIP` arguments: 1.3 M parameters, GELU."""
    return {
        "embed_dim": 96,
        "vision_cfg": {
            "image_size": world.IMAGE_SIZE,
            "patch_size": 8,
            "width": 128,
            "layers": 4,
            "head_width": 32,
            "output_tokens": True,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": WordTokenizer().vocab_size,
            "width": 128,
            "heads": 4,
            "layers": 2,
            "output_tokens": True,
        },
        "quick_gelu": False,
    }


def build(config: dict | None = None) -> open_clip.CLIP:
    """The model with fresh weights from torch's current seed; `config` as `architecture()`."""
    return open_clip.CLIP(**(config or architecture()))


def image_preprocess(size: int = world.IMAGE_SIZE) -> Callable[[Image.Image], torch.Tensor]:
    """PIL image -> float32 [3, size, size], as open_clip does it."""
    return open_clip.image_transform(size, is_train=False, mean=MEAN, std=STD)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [n, 48, 48, 3] of `world.render` -> float32 [n, 3, 48, 48], as `image_preprocess`."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def save(model: torch.nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """float16 safetensors; `metadata` should tell the recipe, the seed and the architecture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # attn_mask is a buffer that the architecture rebuilds.
    tensors = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    tensors = {k: v for k, v in tensors.items() if k != "attn_mask"}
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)  # written for its owner alone otherwise


def load(path: Path):
    """(model, preprocess, tokenizer) from a safetensors file; weights become float32, eval mode."""
    model = build()
    weights = safetensors.torch.load_file(path)
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    return model.eval(), image_preprocess(), WordTokenizer()


def read_metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata() or {}
