"""Tokenizers: open_clip's, or one of the Hub named by a config; no code of theirs is executed."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from fsc_bench.errors import DataError, UsageError, one_line
from fsc_bench.models.checkpoints.hub import how_to_get
from fsc_bench.models.checkpoints.quiet import quiet
from fsc_bench.models.checkpoints.repository import refuse_code

CONTEXT = 77
SIMPLE_OPTIONS = ("clean", "reduction_mask", "additional_special_tokens")
PROBES = ["a", "Two dogs, and a cat's red ball: 12 things!", "Ünïcode 犬", "word " * 300]


def built_in_tokenizer(architecture: str, spec: str, context: int | None = None) -> Callable:
    """The tokenizer of one of open_clip's own architectures.

    context: tokens of a text, where that is not the architecture's own number.
    Raises DataError where it cannot be had.
    """
    text = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    source = text.get("hf_tokenizer_name") or ""
    if not (source or text.get("tokenizer_kwargs") or "siglip" in architecture.lower()):
        return _plain_tokenizer(context or text.get("context_length", CONTEXT))
    options = {"context_length": context, **({"trust_remote_code": False} if source else {})}
    return _guarded(lambda: open_clip.get_tokenizer(architecture, **options), source, spec)


@cache
def _plain_tokenizer(context: int) -> SimpleTokenizer:
    """CLIP's own, read once: a fifth of a second for each of many models otherwise."""
    return SimpleTokenizer(context_length=context)


def repository_tokenizer(config: Mapping[str, Any], folder: Path | None, spec: str) -> Callable:
    """The tokenizer that a stranger's `model_cfg` asks for, from `folder` where that is local.

    Raises DataError where it cannot be had, UsageError where it would run Python of its own.
    """
    text = config["text_cfg"]
    options = {**(text.get("tokenizer_kwargs") or {})}
    options.pop("trust_remote_code", None)
    context = text.get("context_length", CONTEXT)
    name = text.get("hf_tokenizer_name")
    if name:
        source, mode = str(folder or name), text.get("tokenizer_mode")
        with suppress(DataError):  # not there: what loads it says so
            refuse_code(source, "tokenizer_config.json", spec)
        build = lambda: HFTokenizer(  # noqa: E731
            source, context, tokenizer_mode=mode, **options, trust_remote_code=False
        )
        return _guarded(build, source, spec)
    if strange := sorted(options.keys() - set(SIMPLE_OPTIONS)):
        raise UsageError(
            f"model {spec!r}: its tokenizer_kwargs hold {', '.join(map(repr, strange))}; known are "
            f"{', '.join(SIMPLE_OPTIONS)}."
        )
    return _guarded(lambda: SimpleTokenizer(context_length=context, **options), "", spec)


def _guarded(build: Callable[[], Callable], source: str, spec: str) -> Callable:
    """What `build` gives, or one line that says why the tokenizer cannot be used."""
    try:
        with quiet():
            return build()
    except MemoryError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise _unusable(source, spec, error) from None


def _unusable(source: str, spec: str, error: Exception) -> UsageError | DataError:
    reason = one_line(error)
    if "trust_remote_code" in reason:
        return UsageError(
            f"model {spec!r}: its tokenizer, {source}, wants Python of its own executed, which is "
            "never done. Write an adapter that you trust, py:FILE.py:model."
        )
    if source and isinstance(error, OSError):
        return DataError(
            f"model {spec!r}: its tokenizer, {source}, is not in the Hub's cache and cannot be "
            f"fetched: {reason}. {how_to_get(source)}"
        )
    what = f"its tokenizer, {source}," if source else "its tokenizer"
    return UsageError(f"model {spec!r}: {what} cannot be used: {type(error).__name__}: {reason}.")


def describe_tokenizer(tokenizer: Callable) -> str:
    """A tokenizer in a model's identity: its kind, and of the Hub's what it makes of some texts."""
    if isinstance(tokenizer, SimpleTokenizer):
        return f"SimpleTokenizer {tokenizer.vocab_size}"
    ids = tokenizer(PROBES)
    return f"{type(tokenizer).__name__} {hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:16]}"
