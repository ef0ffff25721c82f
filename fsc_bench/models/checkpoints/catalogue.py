"""Catalogue: fine-tuned models of others, a TOML file each: where it is, how its weights are read.

Facts only; nothing is fetched or loaded here, and torch is not imported. `zoo:` (models/zoo.py)
loads what an entry describes. A file in `fine_tunes/` adds a model; a path to one's own works too.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.facts import Facts, read_toml

FOLDER = Path(__file__).parent.parent / "fine_tunes"
Positive = Annotated[float, msgspec.Meta(gt=0)]
Length = Annotated[int, msgspec.Meta(ge=1, le=65_536)]


class Place(Facts, frozen=True):
    """Where the weights are. file: its name there; hub: a repository of the Hugging Face Hub, from
    which it is fetched if its file is known; url: a page where it is downloaded by hand; sha256:
    of the file, where it is published.
    """

    file: str = ""
    hub: str = ""
    url: str = ""
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


class Lora(Facts, frozen=True):
    """Factors are added as alpha / rank B A; a file with another rank is refused."""

    rank: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    alpha: Positive


class Wise(Facts, frozen=True):
    """The model that was scored is (1 - alpha) base + alpha file, weight by weight."""

    alpha: Annotated[float, msgspec.Meta(gt=0, le=1)]


class Expected(Facts, frozen=True):
    """Published scores in percent by benchmark, of `source`."""

    source: str
    scores: dict[str, float]


class FineTune(Facts, frozen=True):
    """One model. layout: `state` is any checkpoint with open_clip's (and OpenAI's) names,
    `transformers` one with transformers' names, `encoders` a folder with one such for each tower,
    `repository` what open_clip's push_to_hf_hub writes. contexts: the text lengths that its
    position embeddings may have; longest_text: what texts are cut to, where that is less.
    uncertain: what nobody could check for lack of the file.
    """

    title: str
    paper: str
    trained_on: str
    architecture: str
    activation: Literal["gelu", "quickgelu"]
    base: str
    licence: str
    layout: Literal["state", "transformers", "encoders", "repository"]
    get: Place
    lora: Lora | None = None
    wise: Wise | None = None
    contexts: tuple[Length, ...] = (77,)
    longest_text: Length | None = None
    uncertain: tuple[str, ...] = ()
    expected: Expected | None = None

    @property
    def by_hand(self) -> str:
        """What is to be downloaded by hand; nothing where the Hub's client can fetch it."""
        if self.get.hub and (self.get.file or self.layout in ("repository", "encoders")):
            return ""
        what = self.get.file or "the checkpoint"
        return f"{what} from {self.get.url or f'https://huggingface.co/{self.get.hub}'}"


def names() -> list[str]:
    """Every model of the catalogue, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def entry(name: str) -> FineTune:
    """The model of that name, or the one that a TOML file describes. Raises UsageError."""
    own = name.endswith(".toml")
    if not own and name not in names():
        raise UsageError(
            f"model 'zoo:{name}': no such fine-tune is known.{near_miss(name, names())} "
            f"There are: {', '.join(names())}. `fsc-bench models zoo` says what each needs."
        )
    return read_toml(Path(name).expanduser() if own else FOLDER / f"{name}.toml", FineTune)
