"""Files: what a repository of transformers holds, on the Hub or in a folder; checked before any of
it is used. Nothing that it brings is executed.
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsc_bench.errors import DataError, UsageError, near_miss, one_line, reason
from fsc_bench.models.checkpoints.hub import hub_file, revision_of
from fsc_bench.models.checkpoints.reading import kind_of
from fsc_bench.models.checkpoints.repository import refuse_code
from fsc_bench.models.pretrained.kinds import KINDS, Kind
from fsc_bench.system.escape import shortened
from fsc_bench.system.regular import stands_in
from fsc_bench.system.spec import Spec

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json",
           "pytorch_model.bin", "pytorch_model.bin.index.json")  # fmt: skip
PIXELS = ("preprocessor_config.json", "processor_config.json")
WORDS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
         "tokenizer.model")  # fmt: skip
SETTINGS = "tokenizer_config.json"
BESIDE = (SETTINGS, "special_tokens_map.json", "added_tokens.json", "merges.txt")
# What would choose other code to compute with: attention kernels can be fetched from the Hub.
CHOICES = re.compile(r"_?(attn|experts)_implementation.*|_?use_kernels|_attn_was_changed")
DEEPEST = 20  # tables within tables; a config has four
# What no image processor's setting exceeds, in pixels and patches.
SIDES = re.compile(r"size|crop_size|height|width|(shortest|longest)_edge")
MOST_PIXELS = {"patch_size": 64, "max_num_patches": 16_384}
MOST_SIDE = 4096
# transformers would build any of its classes that is named here, models too.
CLASSES = {
    "tokenizer_class": r"\w*Tokenizer(Fast)?|TokenizersBackend|PythonBackend|SentencePieceBackend",
    "image_processor_type": r"\w*ImageProcessor(Fast|Pil)?",
    "feature_extractor_type": r"\w*(FeatureExtractor|ImageProcessor(Fast)?)",
}
# A file that another library's models have -> what it says, and the way on.
OTHERS = {
    "open_clip_config.json": "a model of open_clip: open_clip:local-dir:{}",
    "modules.json": "a model of sentence-transformers: write an adapter, py:FILE.py:model",
    "adapter_config.json": "an adapter of PEFT alone: save the merged model",
    "model_index.json": "a pipeline of diffusers: name the folder of the model in it",
}
# What no model's config exceeds: parts of which there are many, and all other numbers.
PARTS, MOST_PARTS = re.compile(r".*(layers|depths?|heads|blocks|groups|repeats|tokens)"), 4096
MOST = 10_000_000


@dataclass(frozen=True)
class Wanted:
    """What a family takes. classes: of transformers, by the `model_type` of their config; what they
    are and do, in words.
    """

    what: str
    does: str
    classes: Mapping[str, Collection[str]]


DUAL_ENCODERS = Wanted(
    "dual encoder",
    "give images and texts one space",
    {name: tuple(kind.classes) for name, kind in KINDS.items()},
)


@dataclass(frozen=True)
class Repository:
    """folder: where the files lie. config: as read, without what would choose other code. weights:
    the file with them, or those that an index lists.
    """

    spec: str
    folder: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return KINDS[self.config["model_type"]]

    @property
    def class_name(self) -> str:
        """The class of transformers that the weights are of."""
        named = self.config.get("architectures") or [next(iter(self.kind.classes))]
        return named[0]

    def beside(self) -> dict[str, bytes]:
        """The files of the image processor and the tokenizer, by name."""
        there = [name for name in (*PIXELS, *WORDS, *BESIDE) if (self.folder / name).is_file()]
        return {name: (self.folder / name).read_bytes() for name in there}


def is_local(spec: Spec) -> bool:
    return spec.place.startswith((".", "/", "~")) or Path(spec.place).is_dir()


def check_name(spec: Spec) -> None:
    """Raises UsageError for a name of the Hub of another form."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", spec.place):
        name = f"{spec.kind}:ORG/NAME"
        raise UsageError(
            f"model '{spec}': write {name} or {name}@REVISION; a folder is {spec.kind}:./FOLDER."
        )


def open_local(spec: Spec, wanted: Wanted = DUAL_ENCODERS) -> Repository:
    """The folder that a name means, if it is of a model that is wanted; no weights are read.

    Raises UsageError, one line, for what is wrong with it.
    """
    folder = Path(spec.place).expanduser()
    if not folder.is_dir():
        what, hint = f"there is no folder {folder}", ""
        if folder.exists():
            what = f"{folder} is a file, no folder"
        elif folder.parent.is_dir():
            hint = near_miss(folder.name, [one.name for one in folder.parent.iterdir()])
        raise UsageError(
            f"model '{spec}': {what}.{hint} A name on the Hub is {spec.kind}:ORG/NAME."
        )
    config = _read_config(folder / CONFIG, str(spec), wanted)
    _check_parts(folder, str(spec))
    for name in WEIGHTS:
        if (folder / name).is_file():
            weights = _listed(folder / name, str(spec))
            return Repository(str(spec), folder, config, weights, _defaults(folder, str(spec)))
    raise UsageError(f"model '{spec}': {folder} has no weights ({' or '.join(WEIGHTS)}).")


def open_hub(spec: Spec, wanted: Wanted = DUAL_ENCODERS) -> Repository:
    """The Hub's files at the commit that the name means now, which is noted.

    Raises DataError where they cannot be had, UsageError for what is wrong with them.
    """
    name, _, asked = spec.place.partition("@")
    path = hub_file(name, CONFIG, asked or None)
    config = _read_config(path, str(spec), wanted)
    revision = revision_of(path) or asked or None
    for part in (*PIXELS, *WORDS, *BESIDE):
        with suppress(DataError):  # a repository has some of them
            hub_file(name, part, revision)
    _check_parts(path.parent, str(spec))
    weights = _hub_weights(name, revision, str(spec))
    notes = (f"{spec}: revision {revision or 'unknown'}.", *_defaults(path.parent, str(spec)))
    return Repository(str(spec), path.parent, config, weights, notes)


def _defaults(folder: Path, spec: str) -> tuple[str, ...]:
    """What to say where the tokenizer's settings are absent: they may not have been fetched."""
    if (folder / SETTINGS).is_file():
        return ()
    return (f"{spec}: has no {SETTINGS}; its tokenizer has the settings of its class.",)


def _hub_weights(name: str, revision: str | None, spec: str) -> tuple[Path, ...]:
    errors = []
    for part in WEIGHTS:
        try:
            found = hub_file(name, part, revision)
        except DataError as error:
            errors.append(error)
            continue
        for shard in _names(found, spec):
            hub_file(name, shard, revision)
        return _listed(found, spec)
    raise errors[0]


def _listed(file: Path, spec: str) -> tuple[Path, ...]:
    """The files with the weights that a file is or lists, each with the look of a checkpoint."""
    found = tuple(file.parent / name for name in _names(file, spec))
    for part in found:
        if not part.is_file():
            raise UsageError(f"model '{spec}': {file} lists {part.name}, which is not there.")
        kind_of(part)
    return found


def _names(file: Path, spec: str) -> list[str]:
    if file.suffix != ".json":
        return [file.name]
    named = _json(file, spec).get("weight_map")
    names = sorted(set(named.values())) if isinstance(named, dict) else []
    if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
        raise UsageError(f"model '{spec}': {file} lists no files of its own folder.")
    return names


# ---------------------------------------------------------------- what the files say


def _read_config(file: Path, spec: str, wanted: Wanted) -> dict[str, Any]:
    """A config, if a model here can be made of it."""
    if not file.is_file():
        raise UsageError(
            f"model '{spec}': there is no {CONFIG} in {file.parent}. {_other_library(file.parent)}"
        )
    config = _json(file, spec)
    refuse_code(str(file.parent), CONFIG, spec)
    kind = config.get("model_type")
    if kind not in wanted.classes:
        said = f"of a model of type {shortened(kind)}" if kind else "without a model_type"
        raise UsageError(
            f"model '{spec}': {file} is {said}, which is no {wanted.what} that is known here."
            f"{near_miss(str(kind)[:80], wanted.classes)} Known are {', '.join(wanted.classes)}."
        )
    _check_class(config, file, spec, wanted)
    if "quantization_config" in config:
        raise UsageError(
            f"model '{spec}': {file} is of quantised weights (quantization_config), which are not "
            "read. Name the repository of the whole weights."
        )
    _check_sizes(config, f"model '{spec}': {file}")
    _check_named(config, f"model '{spec}': {file}")
    return without_choices(config)


def _other_library(folder: Path) -> str:
    for name, what in OTHERS.items():
        if (folder / name).is_file():
            return f"{name} says that it is {what.format(folder)}."
    return "What is wanted is a folder that save_pretrained of transformers wrote."


def _check_sizes(config: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for sizes that no model has: it would take hours or all of the memory."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_sizes(value, where)
        most = MOST_PARTS if PARTS.fullmatch(str(key)) else MOST
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= most:
                raise UsageError(
                    f"{where}: {shortened(key)} = {shortened(number)} is no size of a model."
                )


def _check_class(config: Mapping[str, Any], file: Path, spec: str, wanted: Wanted) -> None:
    made, known = config.get("architectures"), wanted.classes[config["model_type"]]
    if made and (not isinstance(made, list) or made[0] not in known):
        name = made[0] if isinstance(made, list) else made
        raise UsageError(
            f"model '{spec}': {file} is of a {shortened(name)}, which does not "
            f"{wanted.does}; a {' or a '.join(known)} does."
        )


def without_choices(value: Any) -> Any:
    """A config without the keys that would choose other code to compute with."""
    if isinstance(value, dict):
        return {k: without_choices(v) for k, v in value.items() if not CHOICES.fullmatch(str(k))}
    return value


def _check_parts(folder: Path, spec: str) -> None:
    """Raises UsageError where the image processor or the tokenizer is missing or no whole file."""
    for names, what in ((PIXELS, "image processor"), (WORDS, "tokenizer")):
        if not any((folder / name).is_file() for name in names):
            raise UsageError(f"model '{spec}': {folder} has no {what} ({' or '.join(names)}).")
    for name in (*PIXELS, *WORDS, *BESIDE):
        file = folder / name
        if not file.is_file():
            continue
        if why := stands_in(file):
            raise UsageError(f"model '{spec}': {file}: {why}.")
        if name in (*PIXELS, SETTINGS):
            _check_settings(_json(file, spec), f"model '{spec}': {file}")
            refuse_code(str(folder), name, spec)


def _check_settings(settings: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for sizes of pictures that would fill the memory, for a deviation that
    pixels cannot be divided by, and for classes of another kind.
    """
    for key, value in settings.items():
        if isinstance(value, dict):
            _check_settings(value, where)
        numbers = [n for n in (value if isinstance(value, list) else [value])
                   if isinstance(n, int | float)]  # fmt: skip
        most = MOST_PIXELS.get(key, MOST_SIDE if SIDES.fullmatch(key) else None)
        if most is not None and not all(1 <= number <= most for number in numbers):
            raise UsageError(f"{where}: {key} = {shortened(value)} is no size of a picture.")
        if key == "image_std" and not all(0 < number <= 100 for number in numbers):
            raise UsageError(f"{where}: {key} = {shortened(value)} is no deviation of pixels.")
    _check_named(settings, where)


def _check_named(settings: Mapping[str, Any], where: str) -> None:
    """Raises UsageError for a class that is no tokenizer or image processor."""
    for key, kind in CLASSES.items():
        value = settings.get(key)
        if value is not None and not (isinstance(value, str) and re.fullmatch(kind, value)):
            what = "tokenizer" if "token" in key else "image processor"
            raise UsageError(f"{where}: {key} = {shortened(value)} is no {what}.")


def _json(file: Path, spec: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"model '{spec}': {file} cannot be read: {reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"model '{spec}': {file} is not JSON: {one_line(error)}.") from None
    if not isinstance(found, dict):
        raise UsageError(f"model '{spec}': {file} holds a {type(found).__name__}, not a table.")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        inner = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
        level = [part for part in inner if isinstance(part, dict | list)]
    if level:
        raise UsageError(f"model '{spec}': {file} holds more than {DEEPEST} tables within tables.")
    return found
