"""What a model is: the protocol that every family obeys and that everything else relies on.

A model is a `DualEncoder`, or a `PairScorer`, which looks at an image and a text together. `Extras`
is what it may tell or do besides, and all of it may be left out: a model without extras is scored
at the same batch sizes, with the same numbers. `control:fake` (models/control.py) is the smallest
dual encoder that has it all.
"""

from __future__ import annotations  # numpy is named in types alone: commands start without it

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fsc_bench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

MEMBERS = ("identity", "device", "preprocess", "encode_images", "encode_texts")
PAIR_MEMBERS = ("identity", "device", "preprocess", "score_pairs")
DEPTH = 128  # how many answers of a first stage a pair scorer ranks anew (BLIP's k_test for Flickr)


@dataclass(frozen=True)
class Identity:
    """What decides a model's embeddings. Two models with one fingerprint give the same vectors."""

    weights: str  # sha256 of the tensors, wherever they came from
    architecture: str
    activation: str
    preprocess: str  # with the versions of the libraries that move pixels
    tokenizer: str
    context_length: int
    precision: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class DualEncoder(Protocol):
    """Images and texts to unit vectors of one space.

    identity: what the vectors follow from. device: where the model works, as torch writes it
    ("cpu", "cuda:0"); it decides the batch size. preprocess: PIL RGB image -> tensor or array, all
    of one shape, stacked by the caller. encode_images: [n, ...] as preprocess made them -> [n, d];
    encode_texts: n strings -> [n, d]; both of unit length, float32, tensors or arrays.

    A model may have one more member, `extras`, an `Extras`.
    """

    identity: Identity
    device: str
    preprocess: Callable[[Any], Any]

    def encode_images(self, images: Any) -> Any: ...

    def encode_texts(self, texts: Sequence[str]) -> Any: ...


class PairScorer(Protocol):
    """Scores of an image and a text that are looked at together, such as BLIP's matching head.

    identity, device, preprocess: as of a dual encoder. score_pairs: images [n, ...] and n texts,
    pair by pair -> [n], more where they belong together; any scale, compared among one model's own
    alone. It takes pairs, not two sides of a matrix, because what is needed of the matrix is thin
    (a record's own texts, the best K of a gallery): so every needed pair is scored once and no
    other.

    Members that it may have: `read_images`, [k, ...] as preprocess made them -> [k, ...]: what of
    an image no text changes. It is called once for each image, and score_pairs is given rows of
    what it gave. `first`, the DualEncoder whose best `depth` answers (DEPTH where it does not say)
    are ranked anew in retrieval; a model without cannot be scored there. `extras`, an `Extras`, of
    which `pixels`, `notes` and `tokenize` are used.
    """

    identity: Identity
    device: str
    preprocess: Callable[[Any], Any]

    def score_pairs(self, images: Any, texts: Sequence[str]) -> Any: ...


class Pixels(Protocol):
    """`preprocess` in two halves, which together give the same tensor.

    takes_arrays: whether `load` would now rather have uint8 [h, w, 4] than an image of PIL's.
    """

    takes_arrays: bool

    def load(self, image: Any) -> np.ndarray:
        """An RGB image -> uint8 [h, w, 3]; called in many threads."""

    def finish(self, batch: np.ndarray) -> Any:
        """uint8 [n, h, w, 3] -> what `encode_images` takes; called in one thread."""


class Tokens(Protocol):
    """Texts as token ids, which may be cut where nothing is lost."""

    def ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids [n, context], tokens that must stay [n])."""

    def encode(self, ids: np.ndarray) -> Any:
        """Ids [n, length] of one length -> unit vectors [n, d], as `encode_texts` gives them."""


class Trees(Protocol):
    """Texts that begin alike, encoded once as far as they do."""

    def batches(self, ids: np.ndarray, lengths: np.ndarray, nodes: int) -> Iterable[np.ndarray]:
        """Rows of ids [n, context] in batches of at most `nodes` different beginnings."""

    def encode(self, texts: Sequence[np.ndarray], full: int) -> Any:
        """Ids, one array a text -> unit vectors [n, d]. full: the `nodes` of a whole batch."""


class Extras:
    """What a model may have besides; each default says "no". Subclasses say what they have.

    notes: lines to show and record.
    rows_alike: whether, in batches of one shape, a row's bits do not depend on the others and on
    its place: then batches can be filled up so that results repeat bit for bit.
    one_shape: whether images must come in batches of one shape, as a compiled tower wants them.
    pixels, tokens, trees: faster ways to the same vectors; trees need tokens.
    tokenize: n texts -> (ids [n, context], whether each was cut [n]), for counting texts that were
    cut and texts that became equal.
    compile: compiles the image tower; another identity from then on.
    """

    notes: tuple[str, ...] = ()
    rows_alike: bool = False
    one_shape: bool = False
    pixels: Pixels | None = None
    tokens: Tokens | None = None
    trees: Trees | None = None
    tokenize: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]] | None = None
    compile: Callable[[], None] | None = None


def is_pair_scorer(model: Any) -> bool:
    """Whether a model scores pairs; one that also encodes is a pair scorer with a first stage."""
    return callable(getattr(model, "score_pairs", None))


def depth_of(model: PairScorer) -> int:
    """How many of its first stage's answers a pair scorer ranks anew."""
    return int(getattr(model, "depth", None) or DEPTH)


def extras_of(model: DualEncoder | PairScorer) -> Extras:
    """The model's extras; those that say "no" to everything where it has none."""
    return getattr(model, "extras", None) or Extras()


def check_model(model: Any, name: str) -> DualEncoder | PairScorer:
    """The model, if it has what every model must have. Raises UsageError, which names the rest."""
    members = PAIR_MEMBERS if is_pair_scorer(model) else MEMBERS
    lacks = [member for member in members if getattr(model, member, None) is None]
    if lacks:
        raise UsageError(f"model {name!r}: a {type(model).__name__} without {', '.join(lacks)}.")
    if not isinstance(model.identity, Identity):
        kind = type(model.identity).__name__
        raise UsageError(
            f"model {name!r}: identity is a {kind}; it must be an fsc_bench.model.Identity."
        )
    extras = extras_of(model)
    if not isinstance(extras, Extras):
        kind = type(extras).__name__
        raise UsageError(
            f"model {name!r}: extras is a {kind}; it must be an fsc_bench.model.Extras."
        )
    return model


def stacked(pixels: Sequence[Any]) -> Any:
    """One batch [n, ...] of what `preprocess` gave: tensors or arrays."""
    import numpy as np

    if isinstance(pixels[0], np.ndarray):
        return np.stack(pixels)
    import torch

    return torch.stack(list(pixels))


def as_rows(vectors: Any) -> np.ndarray:
    """What an encoder gave, a tensor or an array, as float32 [n, d]."""
    import numpy as np

    if hasattr(vectors, "detach"):
        vectors = vectors.detach().float().cpu().numpy()
    return np.asarray(vectors, np.float32)
