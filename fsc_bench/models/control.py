"""Control models: what a score is worth. `control:chance` knows nothing and has no ties."""

import hashlib
from collections.abc import Sequence

import numpy as np

from fsc_bench.errors import UsageError
from fsc_bench.models import Identity, split_options
from fsc_bench.records import folded

DIMENSION = 512


class Chance:
    """A random direction for each distinct image and text: the right answer wins as often as luck.

    The direction follows from the content and the seed alone, so a run can be repeated. Texts that
    are one answer have one direction, as they have for CLIP's tokenizer.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.identity = Identity(
            weights=f"none, seed {seed}",
            architecture=f"random directions of {DIMENSION} dimensions",
            activation="none",
            preprocess="32x32 pixels",
            tokenizer="case and white space folded",
            context_length=0,
            precision="fp32",
        )

    def preprocess(self, image) -> np.ndarray:
        return np.asarray(image.resize((32, 32)))

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self._direction(b"image", image.tobytes()) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._direction(b"text", folded(text).encode()) for text in texts])

    def _direction(self, kind: bytes, content: bytes) -> np.ndarray:
        digest = hashlib.sha256(b"%s %d " % (kind, self.seed) + content).digest()
        vector = np.random.Generator(np.random.PCG64(int.from_bytes(digest))).normal(size=DIMENSION)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def load(checkpoint: str, device: str, precision: str) -> Chance:
    name, options = split_options(checkpoint, ("seed",))
    if name != "chance":
        raise UsageError(f"model 'control:{name}': there is control:chance (?seed=N).")
    if not options.get("seed", "0").isdigit():
        raise UsageError(f"model 'control:{checkpoint}': seed must be a whole number.")
    return Chance(int(options.get("seed", "0")))
