"""CIFAR batches: member = the image's number. Pixels come out as [32, 32, 3] uint8.

Both published forms (cs.toronto.edu/~kriz/cifar.html): Python pickles (`test_batch`; `test` of
CIFAR-100), read by an unpickler that knows arrays as bytes with a shape and calls nothing else, and
the binary records (`test_batch.bin`, `test.bin`).
"""

import codecs
import io
import pickle
import pickletools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsc_bench.data.border import reason
from fsc_bench.system.budget import check
from fsc_bench.system.regular import read_file

NAMES = ("test_batch", "test_batch.bin", "test", "test.bin")
SIDE = 32
PIXELS = 3 * SIDE * SIDE
# What makes a value that holds others. An honest batch has a few: one for each key, and arrays.
NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST", "DICT", "EMPTY_DICT"}
NESTING |= {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "FROZENSET", "EMPTY_SET", "INST", "OBJ"}
LABEL_KEYS = ("fine_labels", "labels")


class Container:
    def __init__(self, path: Path):
        self.images, _ = read_batch(path)

    def names(self) -> Collection[str]:
        return [str(number) for number in range(len(self.images))]

    def read(self, member: str) -> np.ndarray:
        if not member.isdigit() or int(member) >= len(self.images):
            raise KeyError(member)
        return np.ascontiguousarray(self.images[int(member)])


def read_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    """(pixels [n, 32, 32, 3], labels) of one file, fine ones in CIFAR-100. Raises ValueError."""
    data = read_file(path)
    if path.suffix.lower() == ".bin":
        # Before the pixels: a coarse and a fine label in CIFAR-100, one label in CIFAR-10.
        width = PIXELS + (2 if path.name.lower() == "test.bin" else 1)
        if not data or len(data) % width:
            raise ValueError(f"not a whole number of records of {width} bytes")
        rows = np.frombuffer(data, np.uint8).reshape(-1, width)
        return _pixels(rows[:, -PIXELS:]), rows[:, -PIXELS - 1].tolist()
    batch = _unpickle(data)
    key = next((key for key in LABEL_KEYS if key in batch), None)
    if key is None or "data" not in batch:
        raise ValueError("a CIFAR batch without data and labels")
    pixels, labels = batch["data"], batch[key]
    if isinstance(labels, _Array):
        labels = labels.numbers()
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise ValueError("a CIFAR batch whose data are no array")
    if not all(type(label) is int for label in labels):
        raise ValueError("a CIFAR batch whose labels are no whole numbers")
    rows = pixels.bytes_of(len(labels), PIXELS)
    return _pixels(rows), labels


def _pixels(rows: np.ndarray) -> np.ndarray:
    """A view: whoever only wants the labels pays for no copy."""
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


class _Array:
    """What a pickled NumPy array says of itself: shape, dtype and bytes."""

    def __init__(self, *_: Any):
        self.shape: Any = ()
        self.dtype: Any = None
        self.data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        if fortran:
            raise ValueError("an array in column order")

    def bytes_of(self, rows: int, columns: int) -> np.ndarray:
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if not isinstance(data, (bytes, bytearray)) or len(data) != rows * columns:
            raise ValueError(f"its pixels are not {rows} x {columns} bytes")
        return np.frombuffer(bytes(data), np.uint8).reshape(rows, columns)

    def numbers(self) -> list[int]:
        code = str(getattr(self.dtype, "code", ""))
        if code not in ("i4", "i8", "u1", "i2") or not isinstance(self.data, (bytes, bytearray)):
            raise ValueError("labels of an unknown type")
        if len(self.data) % np.dtype(code).itemsize:
            raise ValueError("labels that are cut short")
        return np.frombuffer(bytes(self.data), np.dtype(code)).tolist()


class _DType:
    def __init__(self, code: Any = "", *_: Any):
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array that is not made of bytes")
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text in an unknown encoding")
    return codecs.encode(text, "latin1")


# All that an honest batch names, under NumPy 1 and 2; each stands for code of ours.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


def _check_plan(data: bytes) -> None:
    """Raises ValueError for what is nested without end, which would crash the interpreter, and for
    a memo of places that no honest batch has, for which it would set memory aside.
    """
    nested = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in NESTING:
            nested += 1
            check("depth", nested, f"nests {nested:,} times or more")
        if opcode.name.endswith("PUT") and int(argument) > len(data):
            raise ValueError("a place in the memo beyond its end")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no CIFAR batch needs")
        return ALLOWED[module, name]


def _unpickle(data: bytes) -> dict[str, Any]:
    # A damaged pickle fails in as many ways as it has operations; none of them runs foreign code.
    damage = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError)
    damage += (
        AttributeError,
        MemoryError,
        OverflowError,
        UnicodeDecodeError,
        ImportError,
        RecursionError,
    )
    try:
        _check_plan(data)
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except damage as error:
        raise ValueError(f"not a CIFAR batch: {reason(error)}") from None
    if not isinstance(batch, Mapping):
        raise ValueError("not a CIFAR batch: no dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): value
        for key, value in batch.items()
    }
