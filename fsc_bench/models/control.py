"""Control models: `control:chance` knows nothing, `control:blind` the text alone.

`control:chance` has no ties. `control:blind` likes likelier texts better, whatever the picture,
`?rule=ruler` shorter ones (models/text_alone). `control:fake`, for tests, is the smallest model
with every extra of fsc_bench/model.py, `?extras=no` the same model without them. Its vectors follow
from colours and words, quickly and without torch.
"""

import hashlib
from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.model import Extras, Identity
from fsc_bench.models import text_alone
from fsc_bench.records import folded
from fsc_bench.system.spec import Spec, is_seed

EXAMPLES = ("control:chance",)

DIMENSION = 512


class Chance:
    """A random direction for each distinct image and text: the right answer wins as often as luck.

    The direction follows from the content and the seed alone, so a run can be repeated. Texts that
    are one answer have one direction, as they have for CLIP's tokenizer.
    """

    device = "cpu"

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
        """Unit vectors [n, 512] of uint8 [n, 32, 32, 3]."""
        return np.stack([self._direction(b"image", image.tobytes()) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, 512]."""
        return np.stack([self._direction(b"text", folded(text).encode()) for text in texts])

    def _direction(self, kind: bytes, content: bytes) -> np.ndarray:
        digest = hashlib.sha256(b"%s %d " % (kind, self.seed) + content).digest()
        vector = np.random.Generator(np.random.PCG64(int.from_bytes(digest))).normal(size=DIMENSION)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class Blind:
    """The same vector for every picture; texts nearer to it, the likelier a rule of text_alone says
    they are right. Choosing among pictures is a tie for it, which is a miss.
    """

    device = "cpu"

    def __init__(self, rule: str):
        self.rule = rule
        counts = f"bigrams of SHA-256 {text_alone.counts_hash()}" if rule == "bigram" else "none"
        self.identity = Identity(
            weights=counts,
            architecture=f"text alone, {rule}",
            activation="none",
            preprocess="no picture",
            tokenizer="words and signs in lower case",
            context_length=0,
            precision="fp32",
        )

    def preprocess(self, image) -> np.ndarray:
        return np.zeros(1, np.uint8)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """The same unit vector n times: [n, 2]."""
        return np.tile(text_alone.PICTURE, (len(images), 1))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, 2]."""
        return text_alone.vectors(self.rule, texts)


class Fake(Extras):
    """A dual encoder and its own extras: 8x8 pixels and the first words, each through a fixed
    random matrix. A vector's bits do not depend on what is encoded beside it.
    """

    SIDE, CONTEXT, WORDS, WIDTH = 8, 12, 997, 64

    device = "cpu"
    rows_alike = True
    takes_arrays = False
    notes = ("control:fake knows nothing: it is for tests.",)

    def __init__(self, seed: int, extras: bool = True):
        noise = np.random.default_rng(seed)
        self.colours = noise.normal(size=(self.SIDE * self.SIDE * 3, self.WIDTH))
        self.words = noise.normal(size=(self.WORDS, self.WIDTH))
        self.words[0] = 0  # padding adds nothing
        self.identity = Identity(
            weights=f"seed {seed}",
            architecture=f"fake of {self.WIDTH} dimensions",
            activation="none",
            preprocess=f"{self.SIDE}x{self.SIDE} pixels",
            tokenizer="words",
            context_length=self.CONTEXT,
            precision="fp32",
        )
        if extras:
            self.extras = self.pixels = self.tokens = self.trees = self

    def preprocess(self, image) -> np.ndarray:
        return self.finish(self.load(image)[None])[0]

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Unit vectors [n, 64] of float [n, 8, 8, 3]."""
        return _unit([image.ravel() @ self.colours for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, 64]."""
        return self.encode(self.ids(texts)[0])

    # Pixels

    def load(self, image) -> np.ndarray:
        return np.asarray(image.resize((self.SIDE, self.SIDE)))

    def finish(self, batch: np.ndarray) -> np.ndarray:
        return batch / 255 - 0.4

    # Tokens and trees: the sum of the words' vectors from the first on

    def ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = np.zeros((len(texts), self.CONTEXT), np.int64)
        for row, text in zip(ids, texts, strict=True):
            words = folded(text).split()[: self.CONTEXT]
            row[: len(words)] = [1 + crc32(word.encode()) % (self.WORDS - 1) for word in words]
        return ids, np.maximum((ids > 0).sum(axis=1), 1)

    def encode(self, ids: np.ndarray | Sequence[np.ndarray], full: int = 0) -> np.ndarray:
        """Unit vectors [n, 64] of ids [n, length], or of one array a text."""
        known: dict[tuple[int, ...], np.ndarray] = {(): np.full(self.WIDTH, 1e-3)}
        for text in ids:
            text = tuple(text)
            for length in range(1, len(text) + 1):
                if text[:length] not in known:
                    # A word counts more, the earlier it stands: the order of words matters.
                    step = self.words[text[length - 1]] / length
                    known[text[:length]] = known[text[: length - 1]] + step
        return _unit([known[tuple(text)] for text in ids])

    def batches(self, ids: np.ndarray, lengths: np.ndarray, nodes: int) -> Iterable[np.ndarray]:
        """Batches of so many texts that they cannot have more than `nodes` beginnings."""
        order = np.lexsort(ids.T[::-1])
        at_once = max(1, nodes // self.CONTEXT)
        return (order[begin : begin + at_once] for begin in range(0, len(order), at_once))

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return self.ids(texts)[0], np.array([len(t.split()) > self.CONTEXT for t in texts])


def _unit(rows: Sequence[np.ndarray]) -> np.ndarray:
    vectors = np.stack(rows)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# name -> its options, each with what it may be; the first is the default, none: a whole number
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "chance": {"seed": ()},
    "blind": {"rule": text_alone.RULES},
    "fake": {"seed": (), "extras": ("yes", "no")},
}


def load(spec: Spec, device: str, precision: str) -> Chance | Blind | Fake:
    name = spec.place
    if name not in OPTIONS:
        raise UsageError(
            f"model '{spec}': there is control:chance (?seed=N), control:blind (?rule=ruler), and "
            f"for tests control:fake (?seed=N&extras=no).{near_miss(name, OPTIONS)}"
        )
    given = spec.options(*OPTIONS[name])
    for key, choices in OPTIONS[name].items():
        value = given.setdefault(key, choices[0] if choices else "0")
        if choices and value not in choices:
            hint = near_miss(value, choices)
            raise UsageError(
                f"model '{spec}': {key} = {value!r}; it is {' or '.join(choices)}.{hint}"
            )
        if not choices and not is_seed(value):
            raise UsageError(f"model '{spec}': seed must be a whole number, not {value!r:.40}.")
    if name == "blind":
        return Blind(given["rule"])
    seed = int(given["seed"])
    return Chance(seed) if name == "chance" else Fake(seed, given["extras"] == "yes")
