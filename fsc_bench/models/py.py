"""Your own adapter: `py:FILE.py:ATTRIBUTE`. The file is executed, because you named it.

The attribute is a function `(device, precision) -> DualEncoder`, or the encoder itself. An encoder
without an identity is known by the sha256 of the file and of nothing else: give it one (say, a hash
of its weights) when what it computes depends on more.
"""

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsc_bench.errors import UsageError, near_miss
from fsc_bench.models import Identity


def load(checkpoint: str, device: str, precision: str) -> Any:
    file, _, attribute = checkpoint.rpartition(":")
    path = Path(file).expanduser()
    if not file or path.suffix != ".py":
        raise UsageError(f"model 'py:{checkpoint}': write py:FILE.py:ATTRIBUTE.")
    if not path.is_file():
        raise UsageError(f"model 'py:{checkpoint}': there is no file {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise UsageError(f"{path} has no {attribute!r}.{near_miss(attribute, names)}")
    model = getattr(module, attribute)
    if callable(model) and not hasattr(model, "encode_images"):
        model = model(device, precision)
    for need in ("preprocess", "encode_images", "encode_texts"):
        if not callable(getattr(model, need, None)):
            raise UsageError(
                f"{path}: {attribute} gives a {type(model).__name__} without {need}()."
            )
    if not isinstance(getattr(model, "identity", None), Identity):
        model.identity = Identity(
            weights=f"file {hashlib.sha256(path.read_bytes()).hexdigest()}",
            architecture=f"{path.name}:{attribute}",
            activation="unknown",
            preprocess="its own",
            tokenizer="its own",
            context_length=0,
            precision=precision,
        )
    elif model.identity.precision != precision:
        model.identity = replace(model.identity, precision=precision)
    return model
