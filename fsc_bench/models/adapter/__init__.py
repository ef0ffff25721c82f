"""Adapter: a user's file with a model in it: imported, built and tried out (models/py.py).

What its code raises names the file, the line and the method; what it gives is checked.
"""

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from PIL import Image

from fsc_bench.errors import FscBenchError, UsageError, near_miss, one_line
from fsc_bench.model import Identity, as_rows, is_pair_scorer, stacked
from fsc_bench.models import pick_device
from fsc_bench.system.escape import shortened
from fsc_bench.system.memory import out_of_memory

METHODS = ("preprocess", "encode_images", "encode_texts")
PAIR_METHODS = ("preprocess", "score_pairs")
TEXTS = ("a red square on a table.", "a blue dog and two cats, one of them on a sofa.")
SIZES = ((320, 240), (224, 224))  # of the pictures, in pixels
NUMBER = re.compile(r"int|float|bool")
UNIT = 1e-3  # how far from 1 a vector's length may be: float16 rounds


class _AsWritten(SourceFileLoader):
    """Compiles the file each time: a compiled one is taken for it while second and size agree."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class UnknownItem(UsageError):
    """The adapter's code raised KeyError."""


@dataclass(frozen=True)
class Source:
    """The file and the attribute that a user named."""

    path: Path
    attribute: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.attribute}"

    # ------------------------------------------------------------ importing

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Makes the modules beside the file importable, and only within the block."""
        folder = str(self.path.parent)
        for name, module in list(sys.modules.items()):
            # Another adapter's helper of the same name is not this one's.
            other = getattr(module, "__fsc_bench_adapter__", folder)
            if other != folder and self._has_beside(name):
                del sys.modules[name]
        before = set(sys.modules)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            if folder in sys.path:
                sys.path.remove(folder)
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if Path(file).is_relative_to(folder) and "site-packages" not in file:
                    sys.modules[name].__fsc_bench_adapter__ = folder

    def _has_beside(self, name: str) -> bool:
        path = self.path.parent / name.partition(".")[0]
        return path.is_dir() or path.with_suffix(".py").is_file()

    def module(self) -> ModuleType:
        """The file as a module, executed, under a name that nothing else has."""
        digest = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        name = f"fsc_bench_adapter_{self.path.stem}_{digest}"
        loader = _AsWritten(name, str(self.path))
        spec = importlib.util.spec_from_file_location(name, self.path, loader=loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up there
        try:
            with self.explained("import"):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    # ------------------------------------------------------------ building

    def build(self, module: ModuleType, device: str, precision: str) -> Any:
        """The model that the attribute is or makes."""
        if not hasattr(module, self.attribute):
            names = [name for name in vars(module) if not name.startswith("_")]
            raise UsageError(
                f"{self.path} has no {self.attribute!r}.{near_miss(self.attribute, names)}"
            )
        found = getattr(module, self.attribute)
        if not (inspect.isclass(found) or inspect.isroutine(found) or isinstance(found, partial)):
            return found
        arguments, options = self._arguments(found, device, precision)
        with self.explained(self.attribute):
            return found(*arguments, **options)

    def _arguments(
        self, make: Callable, device: str, precision: str
    ) -> tuple[list[str], dict[str, str]]:
        """What a function or class is called with. Raises UsageError where it asks for more."""
        try:
            parameters = list(inspect.signature(make).parameters.values())
        except (TypeError, ValueError):
            return [], {}
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [
            p
            for p in parameters
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if len(needed) == 2 and all(p.kind in plain for p in needed):
            return [pick_device(device), precision], {}
        names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
        if all(p.name in ("device", "precision") and p.name in names for p in needed):
            given = {"precision": precision} if "precision" in names else {}
            return [], given | ({"device": pick_device(device)} if "device" in names else {})
        raise UsageError(
            f"{self.path}: {self.attribute} takes {', '.join(p.name for p in needed)}; it is "
            "called with nothing, or with (device, precision). Name a finished object: "
            f"model = {self.attribute}(...)."
        )

    def check_members(self, model: Any) -> None:
        """Raises UsageError where a model lacks a method, with the near miss."""
        for need in PAIR_METHODS if is_pair_scorer(model) else METHODS:
            if not callable(getattr(model, need, None)):
                hint = near_miss(need, [name for name in dir(model) if not name.startswith("_")])
                raise UsageError(
                    f"{self.path}: {self.attribute} gives a {type(model).__name__} without "
                    f"{need}().{hint}"
                )

    # ------------------------------------------------------------ trying

    def try_out(self, model: Any) -> dict[str, Any]:
        """Method -> its vectors of the made-up items. Raises UsageError for a fault.

        A method that raises KeyError is left out: an adapter may know its own items alone.
        """
        found: dict[str, Any] = {}
        if is_pair_scorer(model):
            with suppress(UnknownItem):
                found["score_pairs"] = self._tried("score_pairs", lambda: self._pair_scores(model))
            return found
        with suppress(UnknownItem):
            found["encode_images"] = self._tried(
                "encode_images", lambda: self._image_vectors(model)
            )
        with suppress(UnknownItem):
            found["encode_texts"] = self._tried(
                "encode_texts", lambda: model.encode_texts(list(TEXTS))
            )
        widths = {method: self._width(method, vectors) for method, vectors in found.items()}
        if len(set(widths.values())) > 1:
            self.fault(
                "encode_images",
                f"gives vectors of {widths['encode_images']} numbers, encode_texts of "
                f"{widths['encode_texts']}; both must be of one space",
            )
        return found

    def _tried(self, method: str, encode: Callable[[], Any]) -> Any:
        try:
            with self.explained(method):
                return encode()
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.fault(method, f"has not enough memory for 2 items: {one_line(error)}")

    def _pair_scores(self, model: Any) -> Any:
        images = self._pixels(model)
        read = getattr(model, "read_images", None)
        if callable(read):
            images = read(images)
            if getattr(images, "shape", (0,))[:1] != (len(SIZES),):
                self.fault(
                    "read_images",
                    f"gives {shortened(getattr(images, 'shape', type(images).__name__))} for "
                    f"{len(SIZES)} images; it must give one tensor or array with a row for each",
                )
        return model.score_pairs(images, list(TEXTS))

    def check_scores(self, found: Any, count: int) -> None:
        """Raises UsageError where a pair scorer does not give one number a pair."""
        if not is_array(found):
            self.fault(
                "score_pairs",
                f"gives a {type(found).__name__}; it must give a tensor or an array of scores",
            )
        if "float" not in str(found.dtype):
            self.fault("score_pairs", f"gives numbers of type {found.dtype}; they must be float32")
        if tuple(found.shape) != (count,):
            self.fault(
                "score_pairs",
                f"gives shape {tuple(found.shape)} for {count} pairs; it must be ({count},): a "
                "score for each image with the text of its place",
            )

    def _image_vectors(self, model: Any) -> Any:
        return model.encode_images(self._pixels(model))

    def _pixels(self, model: Any) -> Any:
        with self.explained("preprocess"):
            pixels = [model.preprocess(picture) for picture in pictures()]
        for one in pixels:
            self._check_pixels(one)
        shapes = [tuple(one.shape) for one in pixels]
        if len(set(shapes)) > 1:
            self.fault(
                "preprocess",
                f"gives {shapes[0]} and {shapes[1]} for pictures of two sizes;"
                " all must have one shape",
            )
        return stacked(pixels)

    def _check_pixels(self, pixels: Any) -> None:
        if is_array(pixels):
            if not NUMBER.search(str(pixels.dtype)):
                self.fault("preprocess", f"gives an array of {pixels.dtype}, which are no numbers")
            return
        if hasattr(pixels, "keys"):
            keys = ", ".join(repr(str(key)) for key in pixels.keys())  # noqa: SIM118
            self.fault(
                "preprocess",
                f"gives a {type(pixels).__name__} with {keys}; it must give "
                'one tensor, such as processor(images=image, return_tensors="pt")'
                '["pixel_values"][0]',
            )
        self.fault(
            "preprocess",
            f"gives a {type(pixels).__name__}; it must give a tensor or an array of one picture",
        )

    def _width(self, method: str, vectors: Any) -> int:
        """The width of two unit vectors; raises UsageError for anything else."""
        return self.check_vectors(method, vectors, 2)

    def check_vectors(self, method: str, vectors: Any, count: int, width: int = 0) -> int:
        """The width of `count` unit vectors, or NaN; raises UsageError for anything else."""
        if not is_array(vectors):
            self.fault(
                method,
                f"gives a {type(vectors).__name__}; it must give a tensor or an "
                "array of unit vectors",
            )
        if "float" not in str(vectors.dtype):
            self.fault(method, f"gives numbers of type {vectors.dtype}; they must be float32")
        shape = tuple(vectors.shape)
        if len(shape) != 2 or shape[0] != count or not shape[1] or width not in (0, shape[1]):
            wanted = f"({count}, {width or 'width'})"
            self.fault(method, f"gives shape {shape} for {count} items; it must be {wanted}")
        lengths = np.linalg.norm(as_rows(vectors), axis=1)
        wrong = [float(n) for n in lengths if not (np.isnan(n) or abs(n - 1) < UNIT)]
        if wrong:
            self.fault(
                method,
                f"gives vectors of length {wrong[0]:.4g}, not unit length; divide each by its norm",
            )
        return shape[1]

    def check_tokens(self, found: Any) -> None:
        """Raises UsageError where `tokenize` does not give (ids [n, context], cut or not [n])."""
        try:
            shapes = tuple(np.asarray(part).shape for part in found)
        except (TypeError, ValueError):
            shapes = ()
        count = len(TEXTS)
        ids, cut = (*shapes, (), ())[:2]
        if len(ids) != 2 or ids[0] != count or cut != (count,):
            self.fault(
                "tokenize",
                f"gives {shortened(found)} for {count} texts; it must give two arrays: ids "
                f"({count}, context), and whether each text was cut ({count},)",
            )

    def fault(self, method: str, what: str) -> None:
        raise UsageError(f"{self.path}: {self.attribute}: {method} {what}.")

    @contextmanager
    def explained(self, method: str) -> Iterator[None]:
        """Turns an exception of the adapter's code into one line with file, line and method."""
        try:
            yield
        except FscBenchError:
            raise
        except (Exception, SystemExit) as error:
            if out_of_memory(error):
                raise  # a smaller batch may fit
            text = " ".join(str(error).split())
            kind = UnknownItem if isinstance(error, KeyError) else UsageError
            raise kind(
                f"{self._place(error)}: {method}: {type(error).__name__}"
                f"{': ' if text else ''}{text}"
            ) from error

    def _place(self, error: BaseException) -> str:
        """The last line beside the adapter's file that an exception went through."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}, line {error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        folder = self.path.parent
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
        own = [f for f in frames if Path(f.filename) == self.path] or own
        return f"{own[-1].filename}, line {own[-1].lineno}" if own else str(self.path)

    # ------------------------------------------------------------ knowing it again

    def digest(self, trial: Mapping[str, Any]) -> str:
        """What an adapter without an identity is known by: its file and the trial's vectors."""
        digest = hashlib.sha256(self.path.read_bytes())
        for part in trial.values():
            digest.update(np.ascontiguousarray(as_rows(part)).data)
        return f"file and trial {digest.hexdigest()}"

    def identity(self, weights: str, precision: str) -> Identity:
        return Identity(
            weights=weights,
            architecture=f"{self.path.name}:{self.attribute}",
            activation="unknown",
            preprocess="its own",
            tokenizer="its own",
            context_length=0,
            precision=precision,
        )


# ---------------------------------------------------------------- arrays of numpy and torch


def pictures() -> list[Image.Image]:
    """Two made-up photographs of two sizes, always the same."""
    noise = np.random.default_rng(0)
    coarse = [Image.fromarray(noise.integers(0, 256, (9, 12, 3), np.uint8)) for _ in SIZES]
    return [one.resize(size) for one, size in zip(coarse, SIZES, strict=True)]


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "detach")
