"""TrainConfig: every setting of a training run; recipes are TOML files that fill it in.

CLIP fine-tuning, NegCLIP, CE-CLIP, TSVLC, DeGLA and FSC-CLIP differ in these numbers and in nothing
else: a weight of 0 is the off switch. Nothing here imports torch.
"""

import dataclasses
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.system.facts import Facts, read_toml

Expected = dict[str, float]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one run. Raises UsageError, one line, for a value out of range."""

    # --- what is trained, on what
    model: str = "open_clip:ViT-B-32-quickgelu/openai"  # as `fsc-bench run -m`
    data: str = ""  # KIND:PATH; the kinds are the files of train/sources
    image_key: str = ""  # column with the image, where a kind has columns; "" finds it
    caption_key: str = ""  # column, JSON field or folder with the caption; "" is the kind's own
    negatives: str = "none"  # none, data, rules, spacy[:MODEL], or file:FILE
    negative_key: str = ""  # column with the hard negatives, for negatives = "data"
    negative_kinds: tuple[str, ...] = ("swap", "replace", "shuffle")  # one column of each
    positives: Literal["none", "data", "captions"] = "none"  # captions: another of the same image
    positive_key: str = ""  # column, field or folder with paraphrases, for positives = "data"
    max_pairs: int = 0  # a random sample of so many pairs, drawn by pairs_seed; 0 takes all
    pairs_seed: int = 0
    bad_share: float = 0.01  # of an epoch's samples may be unreadable before the run stops
    dev_share: float = 0.0  # of the images are kept out of training, to stop early by

    # --- objective
    contrast: Literal["model", "sigmoid", "softmax"] = "model"  # sigmoid where it has a logit bias
    contrastive_weight: float = 1.0
    negative_columns: bool = False  # hard negatives as further columns of the contrast (NegCLIP)
    global_hn_weight: float = 0.0
    local_hn_weight: float = 0.0
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0
    alignment: Literal["minmax", "minmax-sparse", "softmax"] = "minmax"
    missing: Literal["mask", "zero"] = "mask"
    gather: Literal["whole", "reference"] = "whole"  # over processes: losses.gather_features
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
    workers: int = 0  # processes that read and augment; -1: up to 4, as there are cores
    device: str = "auto"

    # --- what is written
    checkpoint_every: int = 500  # steps; and at the end
    keep_checkpoints: int = 2
    log_every: int = 10  # steps
    probe_every: int = 0  # steps between looks at similarities on a probe; 0 never looks
    probe_pairs: int = 256  # of the dev split, or of probe_data; at most so many
    probe_data: str = ""  # KIND:PATH of pairs to probe with, in place of the dev split
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in _TYPES:
            _check_value(name, getattr(self, name))
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
        known = ("none", "data", *_generators(self.negatives))
        kind, colon, argument = self.negatives.partition(":")
        takes_none = kind in ("none", "data") and colon
        needs_one = kind == "file" and not argument
        if kind not in known or takes_none or needs_one:
            raise UsageError(
                f"negatives = {self.negatives!r}: choose {', '.join(known)} (file:FILE.parquet, "
                f"spacy:MODEL).{near_miss(kind, known) if kind not in known else ''}"
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
            cleaned[name] = _cleaned(name, value)
        return replace(self, **cleaned)

    def settings(self) -> dict[str, Any]:
        """Plain values, as JSON and TOML hold them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


_TYPES: dict[str, Any] = get_type_hints(TrainConfig)


@dataclass(frozen=True)
class _Range:
    """The numbers that a setting may have: above or from `low`, below or to `high`; never NaN."""

    words: str
    low: float = 0
    high: float = math.inf
    with_low: bool = True
    with_high: bool = False

    def check(self, name: str, value: float) -> None:
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        words = self.words
        if above and not below and not ("below" in words or "at most" in words):
            limit = f"below {self.high:,}" if math.isfinite(self.high) else "finite"
            words = f"it must be {limit}."
        if not (above and below):
            raise UsageError(f"{name} = {str(value)[:60]}: {words}")


def _group(names: str, allowed: _Range) -> dict[str, _Range]:
    return dict.fromkeys(names.split(), allowed)


_RANGES = {
    **_group(
        "contrastive_weight global_hn_weight local_hn_weight focal_gamma intra_modal_weight "
        "rank_weight positive_text_weight text_grounded_weight distillation_weight weight_decay",
        _Range("it must be 0 (off) or more."),
    ),
    **_group(
        "max_pairs max_steps warmup_steps patience probe_every",
        _Range("it must be 0 (off) or more.", high=2**53),
    ),
    **_group(
        "label_smoothing ema_decay beta1 beta2 bad_share dev_share",
        _Range("it must be 0 or more, and below 1.", high=1),
    ),
    **_group(
        "epochs accumulate length_buckets checkpoint_every keep_checkpoints log_every",
        _Range("it must be at least 1.", low=1, high=2**31),
    ),
    **_group("epsilon lora_alpha", _Range("it must be above 0.", with_low=False)),
    **_group("seed pairs_seed", _Range("it must be 0 or more, and below 2**63.", high=2**63)),
    "learning_rate": _Range("it must be above 0, below 1.", high=1, with_low=False),
    "crop_scale": _Range("it must be above 0, at most 1.", high=1, with_low=False, with_high=True),
    "lora_rank": _Range(
        'a rank is at least 1. For full fine-tuning set tune = "full".', low=1, high=2**20
    ),
    "batch_size": _Range("a contrast needs 2 pairs.", low=2, high=2**31),
    "probe_pairs": _Range("a probe needs 2 pairs.", low=2, high=2**31),
    "workers": _Range("0 or more, at most 1024; -1 leaves it to us.", low=-1, high=1025),
}

# How a run is computed and logged: a run may be resumed with other values of these.
RESUMABLE = frozenset(
    {"activation_checkpointing", "checkpoint_every", "compile", "data", "device",
     "keep_checkpoints", "log_every", "probe_every", "tensorboard", "workers"}
)  # fmt: skip


def _check_value(name: str, value: Any) -> None:
    """The type and the range of one setting. Raises UsageError, one line."""
    _check_type(name, value, _TYPES[name])
    if name in _RANGES:
        _RANGES[name].check(name, value)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            known = get_args(hint)
            raise UsageError(
                f"{name} = {value!r}: choose {', '.join(known)}.{near_miss(str(value), known)}"
            )
    elif get_origin(hint) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(part, str) for part in value):
            raise UsageError(
                f'{name} = {value!r}: it must be a list of strings, such as ["swap", "replace"].'
            )
    elif type(value) is not hint:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        raise UsageError(f"{name} = {repr(value)[:60]}: it must be {words[hint]}.")


def _cleaned(name: str, value: Any) -> Any:
    """A value of TOML as the setting holds it: a list as a tuple, a whole number as a float."""
    if get_origin(_TYPES[name]) is tuple and isinstance(value, list):
        return tuple(value)
    if _TYPES[name] is float and type(value) is int and abs(value) < 1e300:
        return float(value)
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` of the command line; the value as TOML, or else as a bare string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write --set KEY=VALUE.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return name.strip(), value.strip()


def _generators(wanted: str) -> Sequence[str]:
    """The generators of hard negatives by name: ours, or where that is asked for, everybody's."""
    ours = ("rules", "spacy", "file")
    if wanted.partition(":")[0] in (*ours, "none", "data"):
        return ours
    from fsc_bench.train.negatives import generators

    return tuple(generators())


# --- Recipes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A recipe: settings with a name, where they come from, and what they should lead to.

    `expected` holds the published Comp, ZS, I2T and T2I in percent where there are any; `notes`
    the choices that the paper and its code do not agree on, the base's too. `reference` is how the
    published run was made: settings, and what no setting says (`FACTS`); published.py compares.
    """

    name: str
    title: str
    config: TrainConfig
    source: str = ""
    notes: tuple[str, ...] = ()
    expected: Expected = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)


class RecipeFile(Facts, frozen=True):
    """A recipe file as it stands; its settings are checked as those of the command line are."""

    title: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    extends: str = ""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    expected: dict[str, float] = msgspec.field(default_factory=dict)
    reference: dict[str, Any] = msgspec.field(default_factory=dict)


# What a published run's [reference] may say beside settings.
FACTS: dict[str, type] = {
    "data_set": str,  # what it was trained on, and where that is to be had
    "get": str,  # the command that fetches it
    "pairs": int,  # how many pairs, roughly; 0 where nobody says
    "processes": int,
    "epoch_rounding": str,  # up or down, to whole batches
    "readers": int,  # worker processes: rounding up goes to a multiple of them
    "logits": str,  # the type they are computed in
}
FREE = ("negatives", "data")  # settings of which a reference may say in words what no value says


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
    recipe = _read(str(name), ())
    whole = {**recipe.config.settings(), **recipe.reference} if recipe.expected else {}
    return replace(recipe, reference=whole)


def _read(name: str, inside: Sequence[Any]) -> Recipe:
    if name.endswith(".toml"):
        path: Any = Path(name).expanduser()
        place = path.resolve()
    else:
        place = path = resources.files("fsc_bench.train") / "recipes" / f"{name}.toml"
        if name not in recipe_names():
            raise UsageError(
                f"no recipe called {name!r}.{near_miss(name, recipe_names())} "
                "`fsc-bench recipes` lists them; a file of your own ends in .toml."
            )
    if place in inside:
        ring = " > ".join(str(one) for one in inside)
        raise UsageError(f"{path}: recipes extend each other in a ring: {ring}.")
    file = read_toml(path, RecipeFile)
    _check_expected(path, file.expected)

    # As many readers as there are cores for; a recipe says otherwise where that is no gain.
    base = Recipe("", "", TrainConfig(workers=-1))
    if file.extends:
        parent = file.extends
        if parent.endswith(".toml") and not os.path.isabs(parent):
            parent = str(Path(path).parent / parent)
        base = _read(parent, (*inside, place))
    try:
        config = base.config.changed(file.settings, where="[settings]")
        reference = _reference(file.reference)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return Recipe(
        name=Path(name).stem if name.endswith(".toml") else name,
        title=file.title,
        config=config,
        source=file.source,
        notes=tuple(dict.fromkeys([*file.notes, *base.notes])),
        expected={key: float(value) for key, value in file.expected.items()},
        reference={**base.reference, **reference},
    )


def _check_expected(path: Any, expected: Mapping[str, float]) -> None:
    measures = ("comp", "zs", "i2t", "t2i")
    for key, value in expected.items():
        if key not in measures or not 0 <= value <= 100:
            raise UsageError(
                f"{path}: expected.{key} = {value!r}: it takes {', '.join(measures)} in percent."
                f"{near_miss(key, measures)}"
            )


def _reference(table: Mapping[str, Any]) -> dict[str, Any]:
    """[reference]: settings and facts of a published run. Raises UsageError for unknown ones."""
    known = {**_TYPES, **FACTS}
    for name, value in table.items():
        if name not in known:
            raise UsageError(f"[reference]: no setting called {name!r}.{near_miss(name, known)}")
        if name in FACTS and type(value) is not FACTS[name]:
            raise UsageError(f"[reference]: {name} = {value!r:.60} is no {FACTS[name].__name__}.")
        if name not in (*FACTS, *FREE):
            _check_value(name, _cleaned(name, value))
    return {
        name: value if name in FACTS else _plain(_cleaned(name, value))
        for name, value in table.items()
    }
