"""BLIP and BLIP-2 with their image-text matching heads, from transformers: `blip:ORG/NAME` or
`blip:./FOLDER`. They score pairs.

A pair's score is the difference of the head's two logits, "matches" less "does not". It orders
pairs as the softmax of the two does, whose logit it is, and where that is 1.0 in float32 from a
difference of 17 on it still tells pairs apart. BLIP's own contrastive tower is the first stage of
retrieval; BLIP-2's is none, for its images have 32 vectors each: name one, `?first=FAMILY:NAME`.

Nothing that a repository brings is executed. Weights are read as those of any checkpoint are, and
must fit to the last tensor: transformers itself would make up what is missing.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsc_bench.errors import DataError, UsageError, near_miss, one_line
from fsc_bench.model import DEPTH, Extras, Identity
from fsc_bench.models import pick_device
from fsc_bench.models.checkpoints.hub import hub_file, revision_of
from fsc_bench.models.checkpoints.state import listed, read_state
from fsc_bench.models.first_stage import first_stage, options_of
from fsc_bench.models.open_clip import DTYPES, activation_of, state_digest
from fsc_bench.models.shortcuts.towers import unit
from fsc_bench.system.spec import Spec

EXAMPLES = ("blip:Salesforce/blip-itm-base-coco",)

CLASSES = {"blip": "BlipForImageTextRetrieval", "blip-2": "Blip2ForImageTextRetrieval"}
CONFIG = "config.json"
SHARDS = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", SHARDS, "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "vocab.txt")
BESIDE = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json"
)  # fmt: skip
LONGEST = 512  # tokens, where neither the tokenizer nor the tower says less


def check(spec: Spec) -> None:
    """Raises UsageError for a name of another form and a folder that is no BLIP's."""
    options_of(spec)
    folder = Path(spec.place).expanduser()
    if _is_local(spec):
        if not folder.is_dir():
            raise UsageError(f"model '{spec}': there is no folder {folder}.")
        _read_config(folder / CONFIG, str(spec))
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", spec.place):
        raise UsageError(
            f"model '{spec}': write blip:ORG/NAME or blip:ORG/NAME@REVISION; a folder is "
            "blip:./FOLDER."
        )


def load(spec: Spec, device: str, precision: str) -> "Matcher":
    check(spec)
    named, depth = options_of(spec)
    device = pick_device(device)
    files = _local(spec) if _is_local(spec) else _from_hub(spec)
    model = _built(files, str(spec))
    words = Words(_tokenizer(files, str(spec)), model, str(spec))
    pixels = _pixels(files, str(spec))
    identity = Identity(
        weights=state_digest(model),
        architecture=f"{type(model).__name__} {_digest(files.config)[:8]}",
        activation=activation_of(model),
        preprocess=pixels.described,
        tokenizer=words.described,
        context_length=words.context,
        precision=precision,
    )
    kind = Blip if files.config["model_type"] == "blip" else Blip2
    matcher = kind(model, pixels, words, identity, device)
    matcher.extras.notes = files.notes
    matcher.depth = depth or DEPTH
    if named:
        matcher.first = first_stage(spec, named, device, precision)
    return matcher


# ---------------------------------------------------------------- the models


class Matcher:
    """What BLIP and BLIP-2 have in common as pair scorers."""

    first: Any = None
    depth = DEPTH

    def __init__(
        self, model: Any, pixels: "Pixels", words: "Words", identity: Identity, device: str
    ):
        self.model, self.words = model.eval().requires_grad_(False), words
        self.preprocess, self.identity, self.device = pixels, identity, device
        self.dtype = DTYPES[identity.precision]
        self.extras = Extras()
        self.extras.tokenize = words.tokenize

    @torch.no_grad()
    def read_images(self, images: Tensor) -> Tensor:
        """[n, patches, width] of the image tower, which no text changes."""
        shown = images.to(self.device, self.dtype)
        return self.model.vision_model(pixel_values=shown).last_hidden_state

    @torch.no_grad()
    def score_pairs(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """[n]: the logit of "matches" less that of "does not"."""
        ids, mask = self.words(texts, self.device)
        logits = self.logits(images, ids, mask).float()
        return logits[:, 1] - logits[:, 0]

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """[n, 2] of pairs: "does not match", "matches"."""
        raise NotImplementedError


class Blip(Matcher):
    """BLIP (arXiv 2201.12086); its contrastive tower is its first stage."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.model.to(self.device, self.dtype)
        self.first = Contrastive(self)

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        seen = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
        found = self.model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=images,
            encoder_attention_mask=seen,
        )
        return self.model.itm_head(found.last_hidden_state[:, 0])


class Contrastive:
    """BLIP's contrastive tower, a dual encoder on the matching head's weights."""

    def __init__(self, matcher: Blip):
        self.matcher, self.device = matcher, matcher.device
        self.preprocess, self.extras = matcher.preprocess, Extras()
        of = matcher.identity
        self.identity = replace(of, architecture=f"{of.architecture}, contrastive")

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors [n, d]."""
        return unit(self.matcher.model.vision_proj(self.matcher.read_images(images)[:, 0]))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n, d]."""
        model = self.matcher.model
        ids, mask = self.matcher.words(texts, self.device)
        found = model.text_encoder(input_ids=ids, attention_mask=mask)
        return unit(model.text_proj(found.last_hidden_state[:, 0]))


class Blip2(Matcher):
    """BLIP-2 (arXiv 2301.12597). Its Q-Former stays in float32, as transformers keeps it."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.model.to(self.device).float()
        self.model.vision_model.to(self.dtype)

    def logits(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        model, images = self.model, images.float()
        queries = model.query_tokens.expand(len(images), -1, -1)
        seen = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
        found = model.qformer(
            query_embeds=model.embeddings(input_ids=ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=images,
            encoder_attention_mask=seen,
            return_dict=True,
        )
        return model.itm_head(found.last_hidden_state[:, : queries.shape[1]]).mean(dim=1)


# ---------------------------------------------------------------- pixels and words


class Pixels:
    """The repository's own image processor."""

    def __init__(self, processor: Any):
        self.processor = processor
        facts = {key: value for key, value in processor.to_dict().items() if key[0] != "_"}
        libraries = ", ".join(f"{name} {version(name)}" for name in ("transformers", "pillow"))
        self.described = f"{json.dumps(facts, sort_keys=True, default=str)} with {libraries}"

    def __call__(self, image: Any) -> Tensor:
        """float32 [3, h, w]."""
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


class Words:
    """The repository's own tokenizer. Texts that are too long are cut, and counted."""

    def __init__(self, tokenizer: Any, model: Any, spec: str):
        self.tokenizer = tokenizer
        config = getattr(model.config, "qformer_config", None) or model.config.text_config
        most = min(int(tokenizer.model_max_length), LONGEST)
        self.context = min(most, config.max_position_embeddings)
        if len(tokenizer) > config.vocab_size:
            raise UsageError(
                f"model '{spec}': its tokenizer has {len(tokenizer):,} tokens, its weights are of "
                f"{config.vocab_size:,}: they do not belong together."
            )
        words = tokenizer.backend_tokenizer.to_str()
        self.described = (
            f"{type(tokenizer).__name__} {hashlib.sha256(words.encode()).hexdigest()[:16]}"
        )

    def __call__(self, texts: Sequence[str], device: str) -> tuple[Tensor, Tensor]:
        """(ids, mask) [n, longest of these texts]."""
        found = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return found["input_ids"].to(device), found["attention_mask"].to(device)

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids [n, context], whether each was cut [n])."""
        found = self.tokenizer(list(texts), padding=False, truncation=False, verbose=False)
        ids = np.full((len(texts), self.context), -1, np.int64)
        for row, own in zip(ids, found["input_ids"], strict=True):
            row[: len(own)] = own[: self.context]
        return ids, np.array([len(own) > self.context for own in found["input_ids"]], bool)


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class Files:
    """A repository's files on disk: folder; config, as read; weights, one or several."""

    folder: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def _is_local(spec: Spec) -> bool:
    return spec.place.startswith((".", "/", "~")) or Path(spec.place).is_dir()


def _local(spec: Spec) -> Files:
    folder = Path(spec.place).expanduser()
    config = _read_config(folder / CONFIG, str(spec))
    for name in WEIGHTS:
        if (folder / name).is_file():
            weights = [folder / part for part in _shards(folder / name, str(spec))]
            for part in weights:
                if not part.is_file():
                    raise UsageError(f"model '{spec}': {name} names {part.name}, which is missing.")
            return Files(folder, config, tuple(weights))
    raise UsageError(f"model '{spec}': {folder} has no weights ({' or '.join(WEIGHTS)}).")


def _from_hub(spec: Spec) -> Files:
    """The files of the Hub's commit that the name means now, which is recorded."""
    repository, _, wanted = spec.place.partition("@")
    path = hub_file(repository, CONFIG, wanted or None)
    config = _read_config(path, str(spec))
    revision = revision_of(path) or wanted or None
    weights: list[Path] = []
    for name in WEIGHTS:
        last = name == WEIGHTS[-1]
        with suppress(*(() if last else (DataError,))):
            found = hub_file(repository, name, revision)
            weights = [hub_file(repository, part, revision) for part in _shards(found, str(spec))]
            break
    hub_file(repository, "preprocessor_config.json", revision)
    for name in (*TOKENIZER, *BESIDE):
        with suppress(DataError):  # a repository has some of them
            hub_file(repository, name, revision)
    note = f"huggingface.co/{repository} at revision {revision}"
    return Files(path.parent, config, tuple(weights), (note,) if revision else ())


def _shards(file: Path, spec: str) -> list[str]:
    """The names of the files with the weights that a file is or lists."""
    if file.name != SHARDS:
        return [file.name]
    try:
        names = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it names no files of its own folder")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"model '{spec}': {file} cannot be read: {one_line(error)}.") from None
    return names


def _read_config(file: Path, spec: str) -> dict[str, Any]:
    """A config of transformers. Raises UsageError where it is of another model."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, made = config.get("model_type"), config.get("architectures") or [""]
    except FileNotFoundError:
        raise UsageError(f"model '{spec}': there is no {CONFIG} in {file.parent}.") from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"model '{spec}': {file} cannot be read: {one_line(error)}.") from None
    if kind not in CLASSES:
        hint = near_miss(str(kind)[:40], CLASSES)
        raise UsageError(
            f"model '{spec}': {file} is of a model of type {str(kind)[:40]!r}; this family has "
            f"{' and '.join(CLASSES)}.{hint}"
        )
    if made[0] != CLASSES[kind]:
        raise UsageError(
            f"model '{spec}': {file} is of a {str(made[0])[:60] or 'model without a name'}, which "
            f"has no matching head; a {CLASSES[kind]} has one."
        )
    if "auto_map" in config:
        raise UsageError(
            f"model '{spec}': {file} wants Python of its own executed (auto_map), which is never "
            "done."
        )
    return config


def _built(files: Files, spec: str) -> Any:
    """The model with its weights, float32 on the CPU. Raises UsageError where they do not fit."""
    import transformers

    name = CLASSES[files.config["model_type"]]
    kind = getattr(transformers, name)
    try:
        config = kind.config_class.from_dict(dict(files.config))
        with torch.device("meta"):
            wanted = {key: tuple(part.shape) for key, part in kind(config).state_dict().items()}
        state: dict[str, Tensor] = {}
        for file in files.weights:
            state |= read_state(file)
        # A buffer of numbers 0, 1, 2, ... that older versions of transformers saved.
        state = {key: part for key, part in state.items() if not key.endswith("position_ids")}
        _check_fit(wanted, state, name, files, spec)
        model = kind(config)
    except UsageError:
        raise
    except Exception as error:  # a config may hold anything
        raise UsageError(
            f"model '{spec}': {files.folder / CONFIG} makes no {name}: {type(error).__name__}: "
            f"{one_line(error)}."
        ) from None
    model.load_state_dict(state, strict=False)
    return model.float()


def _check_fit(
    wanted: Mapping[str, tuple], state: Mapping[str, Tensor], name: str, files: Files, spec: str
) -> None:
    """Raises UsageError where weights are missing, further or of another shape."""
    wanted = {key: shape for key, shape in wanted.items() if not key.endswith("position_ids")}
    missing = [key for key in wanted if key not in state]
    further = [key for key in state if key not in wanted]
    other = [key for key in wanted if key in state and tuple(state[key].shape) != wanted[key]]
    where = f"model '{spec}': {files.weights[0]}"
    for what, keys in (("lacks", missing), ("holds more than", further)):
        if keys:
            raise UsageError(f"{where} {what} the weights of a {name}: {listed(keys, len(keys))}.")
    if other:
        shape = tuple(state[other[0]].shape)
        raise UsageError(
            f"{where}: {other[0]} has shape {shape}, the config says {wanted[other[0]]}."
        )


def _tokenizer(files: Files, spec: str) -> Any:
    from transformers import AutoTokenizer

    return _guarded(AutoTokenizer, files, "tokenizer", TOKENIZER, spec)


def _pixels(files: Files, spec: str) -> Pixels:
    from transformers import AutoImageProcessor

    names = ("preprocessor_config.json", "processor_config.json")
    return Pixels(_guarded(AutoImageProcessor, files, "image processor", names, spec))


def _guarded(kind: Any, files: Files, what: str, names: Iterable[str], spec: str) -> Any:
    """One of transformers' parts from the folder alone. Raises UsageError where it has none."""
    if not any((files.folder / name).is_file() for name in names):
        raise UsageError(f"model '{spec}': {files.folder} has no {what} ({' or '.join(names)}).")
    try:
        return kind.from_pretrained(
            str(files.folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever transformers makes of a stranger's files
        raise UsageError(
            f"model '{spec}': the {what} in {files.folder} cannot be used: "
            f"{type(error).__name__}: {one_line(error)}."
        ) from None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
