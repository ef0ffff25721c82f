"""TrainConfig: every setting of a training run; recipes are TOML files that fill it in.

CLIP fine-tuning, NegCLIP, CE-CLIP, TSVLC, DeGLA and FSC-CLIP differ in these numbers and in nothing
else: a weight of 0 is the off switch. Nothing here imports torch.
"""

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fsc_bench.errors import UsageError, near_miss

Expected = dict[str, float]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Raises UsageError, one line, for a value out of range."""

    # --- what is trained, on what
    model: str = "open_clip:ViT-B-32-quickgelu/openai"  # as `fsc-bench run -m`
    data: str = ""  # KIND:PATH; the kinds are the files of train/sources
    image_key: str = ""  # column with the image, where a kind has columns; "" finds it
    caption_key: str = ""  # column, JSON field or folder with the caption; "" is the kind's own
    negatives: str = "none"  # none, data, rules, spacy, or file:FILE.parquet
    negative_key: str = ""  # column with the hard negatives, for negatives = "data"
    negative_kinds: tuple[str, ...] = ("swap", "replace", "shuffle")  # one column of each
    positives: Literal["none", "data", "captions"] = "none"  # captions: another of the same image
    positive_key: str = ""  # column, field or folder with paraphrases, for positives = "data"
    bad_share: float = 0.01  # of an epoch's samples may be unreadable before the run stops
    dev_share: float = 0.0  # of the images are kept out of training, to stop early by

    # --- objective
    contrastive_weight: float = 1.0
    negative_columns: bool = False  # NegCLIP: hard negatives as further columns of the contrast
    global_hn_weight: float = 0.0
    local_hn_weight: float = 0.0
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0
    alignment: Literal["minmax", "minmax-sparse", "softmax"] = "minmax"
    missing: Literal["mask", "zero"] = "mask"
    intra_modal_weight: float = 0.0  # CE-CLIP's L_imc
    intra_modal_as_released: bool = False
    rank_weight: float = 0.0  # CE-CLIP's L_cmr
    positive_text_weight: float = 0.0  # TSVLC's CE(I, T+) and CE(T, T+); needs positives
    text_grounded_weight: float = 0.0  # DeGLA's TGC; needs ema_decay
    distillation_weight: float = 0.0  # DeGLA's squared distance to its teacher; needs ema_decay

    # --- what may change
    tune: Literal["full", "lora"] = "full"
    lora_rank: int = 4
    lora_alpha: float = 1.0
    lora_init: Literal["zero", "reference"] = "zero"
    lora_patch_embedding: bool = True
    ema_decay: float = 0.0  # moving average of the weights: the teacher, saved beside them

    # --- schedule
    batch_size: int = 256  # pairs a step, over all processes
    epochs: int = 5
    max_steps: int = 0  # stop after so many steps; 0 is all epochs
    learning_rate: float = 5e-6
    warmup_steps: int = 50
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    crop_scale: float = 0.9  # RandomResizedCrop's smallest share of the area; 1 is no crop
    patience: int = 0  # dev evaluations without improvement before stopping; 0 never stops
    seed: int = 0

    # --- how it is computed; none of these changes what is computed, but for rounding
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = False
    accumulate: int = 1  # parts that the batch is encoded in; the contrast stays whole
    parallel: Literal["ddp", "fsdp"] = "ddp"  # fsdp: weights and moments sharded, for large models
    activation_checkpointing: bool = False
    compile: bool = False
    length_buckets: int = 2
    workers: int = 0  # processes that read and augment
    device: str = "auto"

    # --- what is written
    checkpoint_every: int = 500  # steps; and at the end
    keep_checkpoints: int = 2
    log_every: int = 10  # steps
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, hint in _TYPES.items():
            _check_type(name, getattr(self, name), hint)
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: it must be at least 1.")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name} = {value}: it must be 0 (off) or more.")
        for name in _BELOW_ONE:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(f"{name} = {value}: it must be 0 or more, and below 1.")
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"learning_rate = {self.learning_rate}: it must be above 0, below 1.")
        if self.epsilon <= 0:
            raise UsageError(f"epsilon = {self.epsilon}: it must be above 0.")
        if not 0 < self.crop_scale <= 1:
            raise UsageError(f"crop_scale = {self.crop_scale}: it must be above 0, at most 1.")
        if self.lora_rank < 1:
            raise UsageError(
                f"lora_rank = {self.lora_rank}: a rank is at least 1. For full fine-tuning set "
                'tune = "full".'
            )
        if not self.lora_alpha > 0:
            raise UsageError(f"lora_alpha = {self.lora_alpha}: it must be above 0.")
        if self.batch_size < 2:
            raise UsageError(f"batch_size = {self.batch_size}: a contrast needs 2 pairs.")
        if self.parallel == "fsdp" and self.precision == "fp16":
            raise UsageError(
                'parallel = "fsdp" does not go with precision = "fp16": the scaling of its '
                'gradients knows no shards. Use "bf16" or "fp32".'
            )
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate = {self.accumulate} parts of a batch of {self.batch_size}: a part "
                "needs a pair."
            )
        self._check_objective()

    def _check_objective(self) -> None:
        self._check_negatives_source()
        if self.positive_text_weight and self.positives == "none":
            raise UsageError(
                f"positive_text_weight = {self.positive_text_weight} needs paraphrases: set "
                "positives to data (a column of them) or captions (another of the same image)."
            )
        if self.positive_key and self.positives != "data":
            raise UsageError(
                f'positive_key = {self.positive_key!r} is read with positives = "data", not '
                f"{self.positives!r}."
            )
        for name in ("text_grounded_weight", "distillation_weight"):
            if getattr(self, name) and not self.ema_decay:
                raise UsageError(f"{name} needs a teacher: set ema_decay too, such as 0.9996.")
        if self.patience and not self.dev_share:
            raise UsageError(
                f"patience = {self.patience} needs a development split to watch: set dev_share "
                "too, such as 0.02. The test suites are not for that."
            )
        if not any(self.weights.values()):
            raise UsageError("every loss has weight 0: there is nothing to learn from.")
        if not self.needs_negatives and (self.focal_gamma or self.label_smoothing):
            raise UsageError(
                "focal_gamma and label_smoothing calibrate the hard-negative losses, and both have "
                "weight 0."
            )

    def _check_negatives_source(self) -> None:
        known = ("none", "data", "rules", "spacy")
        if self.negatives not in known and not self.negatives.startswith("file:"):
            raise UsageError(
                f"negatives = {self.negatives!r}: choose {', '.join(known)} or file:FILE.parquet."
                f"{near_miss(self.negatives, known)}"
            )
        if self.needs_negatives and self.negatives == "none":
            raise UsageError(
                f"{', '.join(self._uses_of_negatives())} need hard negatives: set negatives to "
                "rules, spacy, data or file:FILE.parquet."
            )
        if self.negatives != "none" and not self.negative_kinds:
            raise UsageError("negative_kinds is empty: name one kind, or set negatives = none.")

    def _uses_of_negatives(self) -> list[str]:
        names = (
            "negative_columns",
            "global_hn_weight",
            "local_hn_weight",
            "intra_modal_weight",
            "rank_weight",
            "text_grounded_weight",
        )
        return [name for name in names if getattr(self, name)]

    @property
    def needs_negatives(self) -> bool:
        """Whether a loss that is switched on looks at hard negatives."""
        return bool(self._uses_of_negatives())

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss that is switched on, by the name it has in the log."""
        every = {
            "contrastive": self.contrastive_weight,
            "global_hn": self.global_hn_weight,
            "local_hn": self.local_hn_weight,
            "intra_modal": self.intra_modal_weight,
            "rank": self.rank_weight,
            "positive_text": self.positive_text_weight,
            "text_grounded": self.text_grounded_weight,
            "distillation": self.distillation_weight,
        }
        return {name: weight for name, weight in every.items() if weight}

    def changed(self, settings: Mapping[str, Any], where: str = "--set") -> "TrainConfig":
        """A config with some settings changed. UsageError with the near miss for an unknown one."""
        cleaned = {}
        for name, value in settings.items():
            if name not in _TYPES:
                raise UsageError(
                    f"{where}: no setting called {name!r}.{near_miss(name, _TYPES)} "
                    "`fsc-bench recipes NAME` lists them."
                )
            wanted = _TYPES[name]
            if wanted is float and type(value) is int:
                value = float(value)
            if get_origin(wanted) is tuple and isinstance(value, list):
                value = tuple(value)
            cleaned[name] = value
        return replace(self, **cleaned)

    def settings(self) -> dict[str, Any]:
        """Plain values, as JSON and TOML hold them."""
        plain = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}


_TYPES: dict[str, Any] = get_type_hints(TrainConfig)
_AT_LEAST_ONE = ("epochs", "accumulate", "length_buckets", "checkpoint_every", "keep_checkpoints",
                 "log_every")  # fmt: skip
_NOT_NEGATIVE = (
    "contrastive_weight", "global_hn_weight", "local_hn_weight", "focal_gamma",
    "intra_modal_weight", "rank_weight", "positive_text_weight", "text_grounded_weight",
    "distillation_weight", "max_steps", "warmup_steps", "weight_decay", "workers", "patience",
    "seed",
)  # fmt: skip
_BELOW_ONE = ("label_smoothing", "ema_decay", "beta1", "beta2", "bad_share", "dev_share")

# How a run is computed and logged: a run may be resumed with other values of these.
RESUMABLE = frozenset(
    {"activation_checkpointing", "checkpoint_every", "compile", "data", "device",
     "keep_checkpoints", "log_every", "tensorboard", "workers"}
)  # fmt: skip


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            known = get_args(hint)
            raise UsageError(
                f"{name} = {value!r}: choose {', '.join(known)}.{near_miss(str(value), known)}"
            )
    elif get_origin(hint) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(part, str) for part in value):
            raise UsageError(f"{name} = {value!r}: it must be a list of strings.")
    elif type(value) is not hint:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        raise UsageError(f"{name} = {value!r}: it must be {words[hint]}.")


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` of the command line; the value as TOML, or else as a bare string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write --set KEY=VALUE.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


# --- Recipes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A recipe: settings with a name, where they come from, and what they should lead to.

    `expected` holds the published Comp, ZS, I2T and T2I in percent where there are any; `notes`
    the choices that the paper and its code do not agree on.
    """

    name: str
    title: str
    config: TrainConfig
    source: str = ""
    notes: tuple[str, ...] = ()
    expected: Expected = field(default_factory=dict)


def recipe_names() -> list[str]:
    """The shipped recipes' names, presets first."""
    folder = resources.files("fsc_bench.train") / "recipes"
    names = sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith("toml")
    )
    return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


_ORDER = ("clip", "negclip", "global-hn", "local-hn", "fsc-clip", "fsc-clip-lora", "ce-clip",
          "tsvlc", "degla")  # fmt: skip


def read_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or anybody's by the path of its TOML file.

    Raises UsageError, one line, for an unknown name, key, table or value.
    """
    return _read(str(name), ())


def _read(name: str, inside: Sequence[str]) -> Recipe:
    if name.endswith(".toml"):
        path: Any = Path(name).expanduser()
    else:
        path = resources.files("fsc_bench.train") / "recipes" / f"{name}.toml"
        if name not in recipe_names():
            raise UsageError(
                f"no recipe called {name!r}.{near_miss(name, recipe_names())} "
                "`fsc-bench recipes` lists them; a file of your own ends in .toml."
            )
    if name in inside:
        raise UsageError(f"{path}: recipes extend each other in a ring: {' > '.join(inside)}.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such recipe file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a readable TOML file: {error}") from None

    keys = {"title": str, "source": str, "notes": list, "extends": str, "settings": dict,
            "expected": dict}  # fmt: skip
    for key, value in content.items():
        if key not in keys:
            raise UsageError(f"{path}: unknown key {key!r}.{near_miss(key, keys)}")
        if not isinstance(value, keys[key]):
            raise UsageError(f"{path}: {key} must be a {keys[key].__name__}.")
    measures = ("comp", "zs", "i2t", "t2i")
    for key, value in content.get("expected", {}).items():
        if key not in measures or type(value) not in (int, float) or not 0 <= value <= 100:
            raise UsageError(
                f"{path}: expected.{key} = {value!r}: it takes {', '.join(measures)} in percent."
                f"{near_miss(key, measures)}"
            )

    base = TrainConfig()
    if "extends" in content:
        parent = content["extends"]
        if parent.endswith(".toml") and not os.path.isabs(parent):
            parent = str(Path(path).parent / parent)
        base = _read(parent, (*inside, name)).config
    try:
        config = base.changed(content.get("settings", {}), where="[settings]")
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Recipe(
        name=Path(name).stem if name.endswith(".toml") else name,
        title=content.get("title", ""),
        config=config,
        source=content.get("source", ""),
        notes=tuple(content.get("notes", ())),
        expected={key: float(value) for key, value in content.get("expected", {}).items()},
    )
