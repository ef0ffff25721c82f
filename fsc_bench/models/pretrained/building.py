"""Building: transformers' own objects from checked files. Weights are read as those of any
checkpoint and must fit to the last tensor: transformers itself makes up what is missing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fsc_bench.errors import UsageError, one_line
from fsc_bench.models.checkpoints.fit import SHOWN, resembles
from fsc_bench.models.checkpoints.state import listed, open_state
from fsc_bench.models.pretrained.files import Repository
from fsc_bench.system.escape import for_terminal
from fsc_bench.system.memory import out_of_memory

NEEDS = "transformers 5 is needed: `pip install 'fsc-bench[hf]'`."


def library() -> Any:
    """The package transformers. Raises UsageError where it is not installed, or too old."""
    try:
        import transformers
    except ImportError:
        raise UsageError(NEEDS) from None
    if int(transformers.__version__.partition(".")[0]) < 5:
        raise UsageError(f"{NEEDS} Here is {transformers.__version__}.")
    return transformers


def build_model(source: Repository) -> tuple[Any, tuple[str, ...]]:
    """(model in float32 on the CPU, what was left out of its files). Raises UsageError."""
    kind = getattr(library(), source.class_name)
    state, notes = _read(source)
    otherwise = f"makes no {source.class_name}"
    with _explained(otherwise, source), _silent():
        config = kind.config_class.from_dict(dict(source.config))
        with torch.device("meta"):
            own = kind(config).state_dict()
        _check_size(own, state)
    _check_types(own, state, source)
    with _explained(otherwise, source), _silent():
        model, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused below, all of them, in one line
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    _check_fit(found, state, source)
    inner = source.kind.classes[source.class_name]
    return (getattr(model, inner) if inner else model).float(), notes


def _read(source: Repository) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(the tensors of all files by name, what was left out of the files)."""
    state: dict[str, Tensor] = {}
    notes: tuple[str, ...] = ()
    for file in source.weights:
        opened = open_state(file)
        if twice := state.keys() & opened.tensors.keys():
            raise UsageError(
                f"model '{source.spec}': {file}: {for_terminal(min(twice))} is in another part too."
            )
        state |= opened.tensors
        notes += opened.notes
    places = {key: state.pop(key) for key in list(state) if key.endswith(".position_ids")}
    for key, part in places.items():
        # Buffers of older versions of transformers, which the newer leave out whatever they hold.
        flat = part.reshape(-1)
        if not torch.equal(flat.double(), torch.arange(len(flat), dtype=torch.double)):
            raise UsageError(
                f"model '{source.spec}': the weights do not fit: {for_terminal(key)} holds other "
                "numbers than 0, 1, 2, ..., which transformers cannot use."
            )
    return state, notes


def _check_size(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises ValueError where the config asks for far more memory than the weights fill."""
    wanted = sum(part.numel() for part in own.values())
    given = sum(part.numel() for part in state.values())
    if wanted > 2 * given + 100_000_000:
        raise ValueError(f"the config is of {wanted:,} numbers, the files hold {given:,}")


def _check_types(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Repository
) -> None:
    """Raises UsageError for weights that are whole or complex numbers, or booleans: transformers
    would turn them into floating point without a word.
    """
    for name, tensor in state.items():
        counts = name in own and not own[name].is_floating_point()
        if tensor.is_floating_point() == counts:
            raise UsageError(
                f"model '{source.spec}': the weights do not fit: {for_terminal(name)} is "
                f"{tensor.dtype}. Quantised weights are to be turned back into floating point "
                "first."
            )


def _check_fit(found: Mapping[str, Any], state: Mapping[str, Tensor], source: Repository) -> None:
    """Raises UsageError where weights are missing, further or of another shape."""
    shapes = [f"{key} {tuple(there)}, by the config {tuple(here)}"
              for key, there, here in sorted(found["mismatched_keys"])]  # fmt: skip
    other = {key for key, *_ in found["mismatched_keys"]}
    parts = []
    for what, names in (
        ("missing keys", sorted(set(found["missing_keys"]) - other)),
        ("unexpected keys", sorted(found["unexpected_keys"])),
        ("other shapes", shapes),
    ):
        if names:
            shown = [for_terminal(name) for name in names[:SHOWN]]
            count = f" ({len(names):,})" if len(names) > 1 else ""
            parts.append(f"{what}{count}: {listed(shown, len(names))}")
    if parts or found.get("error_msgs"):
        raise UsageError(
            f"model '{source.spec}': {source.weights[0]}: the weights do not fit a "
            f"{source.class_name}: {'; '.join(parts) or found['error_msgs']}. The file's keys "
            f"resemble {resembles(state)}."
        )


def build_pixels(source: Repository) -> Any:
    """The repository's own image processor."""
    return _part(library().AutoImageProcessor, "has an image processor that cannot be used", source)


def build_words(source: Repository) -> Any:
    """The repository's own tokenizer."""
    return _part(library().AutoTokenizer, "has a tokenizer that cannot be used", source)


def _part(kind: Any, otherwise: str, source: Repository) -> Any:
    with _explained(otherwise, source), _silent():
        return kind.from_pretrained(
            str(source.folder), trust_remote_code=False, local_files_only=True
        )


@contextmanager
def _explained(otherwise: str, source: Repository) -> Iterator[None]:
    """Whatever transformers makes of a stranger's files is one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(
            f"model '{source.spec}': {source.folder} {otherwise}: {type(error).__name__}: "
            f"{one_line(error)}."
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' bars and reports: what matters of them is raised here."""
    logging = library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
