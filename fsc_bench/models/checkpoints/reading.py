"""Reading: a checkpoint file to what it holds, without executing any of it.

What a file is follows from its bytes; a file that is empty, cut short, a Git LFS pointer or of
another format than its name says is refused by one line. Pickles go through torch's restricted
reader, with inert stand-ins for a few classes that people keep beside their weights.
"""

import json
import pickletools
import re
import struct
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsc_bench.errors import UsageError, one_line, reason
from fsc_bench.system.escape import shortened
from fsc_bench.system.regular import LFS

TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")
LARGEST_HEADER = 100_000_000  # bytes; the limit that safetensors itself sets
LARGEST_PICKLE = 64_000_000  # bytes of what a file holds beside tensors; settings have thousands
DEEPEST = 200  # tuples within tuples: hashing 100,000 of them ends the interpreter
AGAIN = "Copy or download it again."
PLAIN = re.compile(r"[\w ./~+=,@%:()\[\]-]+")  # nothing that a shell does more with in quotes
MODULE = {"_parameters", "_modules"}  # what every torch.nn.Module has
# Classes that only hold values (settings, numbers, paths). They are never built: an object of no
# meaning takes their place. Whatever else a file names is refused.
HARMLESS = re.compile(
    r"""numpy(\.|$) | argparse\.Namespace$ | types\.SimpleNamespace$ | pathlib\. | datetime\.
      | uuid\.UUID$ | builtins\.(int|float|bool|str|list|dict|tuple|frozenset|slice|range)$
      | collections\.(defaultdict|deque)$ | omegaconf\. | ml_collections\.
      | (pytorch_lightning|lightning|lightning_fabric)\.""",
    re.VERBOSE,
)


class LeftOut:
    """Stands for an object of a checkpoint that is not weights; `name` says of which class."""

    name = ""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        # torch's reader fills dictionaries and lists only where they are the built-in ones.
        if cls.name.endswith((".defaultdict", ".AttributeDict")):
            return {}
        return [] if cls.name.endswith(".deque") else super().__new__(cls)

    def __init__(self, *args: Any, **options: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_content(file: Path) -> tuple[Any, tuple[str, ...]]:
    """(what the file holds, on the CPU; the classes in it that were left out).

    Takes what torch.save and safetensors write. Raises UsageError, one line, for a file that is
    damaged, of another format, or would have to be executed.
    """
    if kind_of(file) == "safetensors":
        return _read_safetensors(file), ()
    return _read_pickle(file)


def kind_of(file: Path) -> str:
    """`safetensors` or `torch`, by the file's bytes. Raises UsageError for all else."""
    try:
        if file.is_dir():
            raise UsageError(f"{file}: a folder, not a checkpoint file. Name the file in it.")
        size = file.stat().st_size  # raises where nothing is there
        if not file.is_file():
            raise UsageError(f"{file}: not a regular file.")
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {reason(error)}.") from None
    safetensors = head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= LARGEST_HEADER
    if not safetensors and (trouble := _trouble(head, size)):
        raise UsageError(f"{file}: {trouble}")
    found = "safetensors" if safetensors else _format(file, head)
    if found == "safetensors" and file.suffix in TORCH_ENDINGS:
        raise UsageError(
            f"{file}: these are safetensors under a name that ends in {file.suffix}. Rename it to "
            f"{file.stem}.safetensors."
        )
    if found == "torch" and file.suffix == ".safetensors":
        raise UsageError(
            f"{file}: written by torch.save, not safetensors as its name says. Rename it to "
            f"{file.stem}.pt."
        )
    return found


def _trouble(head: bytes, size: int) -> str:
    """What is wrong with a file that cannot be a whole checkpoint of any kind."""
    if not size:
        return f"the file is empty. {AGAIN}"
    if head.startswith(LFS):
        named = re.search(rb"^size (\d+)", head, re.MULTILINE)
        whole = f" to {int(named[1]):,} bytes" if named else ""
        return (
            f"a Git LFS pointer{whole}, not the weights. `git lfs pull` in its repository fetches "
            "them."
        )
    if head.lstrip()[:1] == b"<":
        return f"a web page or XML, not a checkpoint: the download gave another answer. {AGAIN}"
    if not head.strip(b"\0"):
        return f"it begins with zeros only: a download that did not end. {AGAIN}"
    return ""


def _format(file: Path, head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        _check_zip(file)
        return "torch"
    if head[:1] == b"\x80":
        return "torch"
    archive = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"7z": "7-Zip"}.get(head[:2])
    archive = "tar" if head[257:262] == b"ustar" else archive
    if archive:
        raise UsageError(f"{file}: a {archive} archive. Unpack it and name the checkpoint in it.")
    raise UsageError(
        f"{file}: neither safetensors nor written by torch.save: it begins with {head[:12]!r}."
    )


def _check_zip(file: Path, sums: bool = False) -> None:
    """Raises UsageError for a zip that is cut short, damaged, or that torch.save did not write.

    sums: whether every byte is read and held against the archive's sums.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            names = [part.filename for part in parts]
            _check_kind(file, names)
            _check_parts(file, parts)
            if sums:
                _check_sums(file, archive, parts)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError):
        size = file.stat().st_size
        raise UsageError(
            f"{file}: cut short: a PyTorch checkpoint without its end ({size:,} bytes are there), "
            f"or damaged there. {AGAIN}"
        ) from None


def _check_kind(file: Path, names: Sequence[str]) -> None:
    if any(name.endswith("constants.pkl") for name in names):
        new = file.with_name(f"{file.stem}-weights.pt")
        raise UsageError(
            f"{file}: a TorchScript archive, which is code as well as weights. Where you trust it, "
            f'save the weights: python -c "import torch; torch.save(torch.jit.load({_typed(file)}, '
            f"map_location='cpu').state_dict(), {_typed(new)})\"."
        )
    if not any(map(_is_object, names)):
        shown = ", ".join(map(shortened, names[:3])) or "nothing"
        raise UsageError(
            f"{file}: a zip archive that torch.save did not write (it holds {shown}). Name the "
            "checkpoint itself."
        )


def _check_parts(file: Path, parts: Sequence[zipfile.ZipInfo]) -> None:
    """Every part as torch.save writes it: not packed, of one name, and no larger than the file."""
    names = [part.filename for part in parts]
    if len(set(names)) < len(names) or sum(map(_is_object, names)) != 1:
        raise UsageError(f"{file}: damaged: an archive with parts of one name. {AGAIN}")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise UsageError(
            f"{file}: its parts are packed, which torch.save does not do: another program rewrote "
            "the archive. Save the checkpoint with torch.save again."
        )
    size = file.stat().st_size
    if sum(part.file_size for part in parts) > size:
        raise UsageError(f"{file}: damaged: its parts are larger than the file of {size:,} bytes.")
    for part in parts:
        if _is_object(part.filename) and part.file_size > LARGEST_PICKLE:
            raise UsageError(
                f"{file}: what it holds beside tensors has {part.file_size:,} bytes; at most "
                f"{LARGEST_PICKLE:,} are read. Save the weights alone."
            )


def _check_sums(file: Path, archive: zipfile.ZipFile, parts: Sequence[zipfile.ZipInfo]) -> None:
    """Torch's reader does not look at the sum that each part has in the archive: a flipped bit in
    the weights would be another model without a word.
    """
    for part in parts:
        if part.CRC and not _is_whole(archive, part):  # 0 where torch was told to note none
            raise UsageError(
                f"{file}: damaged: the part {shortened(part.filename)} is not what was saved (its "
                f"checksum differs). {AGAIN}"
            )


def _is_object(name: str) -> bool:
    return name.rpartition("/")[2] == "data.pkl"


def _is_whole(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as opened:
            while opened.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_length(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"{file}: damaged: {one_line(error)}.") from None


def _check_length(file: Path) -> None:
    """Raises UsageError for safetensors that end before what their header promises."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = struct.unpack("<Q", opened.read(8))[0]
        header = opened.read(length)
    end = 8 + length
    if end <= size:
        try:
            parts = json.loads(header)
            end += max((part["data_offsets"][1] for name, part in parts.items()
                        if name != "__metadata__"), default=0)  # fmt: skip
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise UsageError(f"{file}: damaged: its header is no JSON of tensors.") from None
    if end > size:
        raise UsageError(
            f"{file}: cut short: its header promises {end:,} bytes, {size:,} are there. Copy or "
            "download it again."
        )


def _read_pickle(file: Path) -> tuple[Any, tuple[str, ...]]:
    if _is_zip(file):
        _check_zip(file, sums=True)
    scan = _Scan.of(file)
    if scan.deep:
        raise UsageError(
            f"{file}: holds more than {DEEPEST} tuples within tuples, which no checkpoint does. It "
            "is not read."
        )
    harmless = sorted(name for name in scan.names if HARMLESS.match(name))
    stand_ins = [(type("LeftOut", (LeftOut,), {"name": name}), name) for name in harmless]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read raises
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle makes the reader raise anything
        raise UsageError(f"{file}: {_why_not(file, scan, error)}") from None
    return content, tuple(name for name in harmless if not name.startswith("numpy"))  # numbers


@dataclass(frozen=True)
class _Scan:
    """What a file's pickles name, found without building anything of it.

    names: its classes and functions; top: the class of the object itself, if it is one of a class;
    module: whether a torch.nn.Module is in it; protocol: of the pickle; plain: torch.save did not
    write it; deep: it has more than `DEEPEST` tuples within tuples.
    """

    names: frozenset[str] = frozenset()
    top: str = ""
    module: bool = False
    protocol: int = 2
    plain: bool = False
    deep: bool = False

    @classmethod
    def of(cls, file: Path) -> "_Scan":
        names: set[str] = set()
        words: set[str] = set()
        top, protocol, plain, depth = "", 2, False, 0
        try:
            for place, pickle in enumerate(_pickles(file)):
                tuples = _Depth()
                for number, (operation, argument, _) in enumerate(pickletools.genops(pickle)):
                    name = _name(argument) if operation.name == "GLOBAL" else ""
                    names |= {name} if name else set()
                    words |= {argument} & MODULE if isinstance(argument, str) else set()
                    protocol = argument if operation.name == "PROTO" else protocol
                    depth = max(depth, tuples.after(operation, argument))
                    if number == 1:
                        top = name
                        # torch's old format begins with a pickle of one large number.
                        plain |= not place and operation.name != "LONG1" and not _is_zip(file)
                if plain:
                    break
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, LookupError):
            pass  # damaged: reading it says how
        return cls(frozenset(names), top, words == MODULE, protocol, plain, depth > DEEPEST)


class _Depth:
    """How deep tuples lie within tuples, followed through a pickle without building any."""

    def __init__(self):
        self.stack: list[int | None] = []  # the depth of each object; None is a mark
        self.memory: dict[Any, int] = {}

    def after(self, operation: pickletools.OpcodeInfo, argument: Any) -> int:
        """The depth of what an operation leaves on top. Raises IndexError where it is damaged."""
        name, stack = operation.name, self.stack
        if "PUT" in name or name == "MEMOIZE":
            self.memory[len(self.memory) if name == "MEMOIZE" else argument] = stack[-1] or 0
            return 0
        if "GET" in name:
            stack.append(self.memory.get(argument, 0))
            return 0
        taken = self._taken(operation)
        left = operation.stack_after
        deepest = max(taken, default=-1) + 1 if "TUPLE" in name else max(taken, default=0)
        stack += [None if one is pickletools.markobject else deepest for one in left]
        return deepest

    def _taken(self, operation: pickletools.OpcodeInfo) -> list[int]:
        """Removes from the stack what an operation takes; the depths of that."""
        found: list[int] = []
        stack, before = self.stack, operation.stack_before
        if pickletools.markobject in before:
            while (top := stack.pop()) is not None:
                found.append(top)
            before = before[: before.index(pickletools.markobject)]
        return found + [stack.pop() or 0 for _ in before]


def _name(argument: str) -> str:
    """`module name` of a pickle as Python 3 calls it: torch writes the names of Python 2."""
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _pickles(file: Path) -> Iterator[Any]:
    if _is_zip(file):
        with zipfile.ZipFile(file) as archive:
            name = next(filter(_is_object, archive.namelist()))
            with archive.open(name) as opened:
                yield opened
        return
    with file.open("rb") as opened:
        for _ in range(4):  # the old format: a magic number, a version, the machine, the object
            yield opened


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def _why_not(file: Path, scan: _Scan, error: Exception) -> str:
    """The reason why a pickle cannot be read, and the way on."""
    text = one_line(error)
    if scan.plain:
        new = file.with_name(f"{file.stem}-torch.pt")
        return (
            "a pickle that torch.save did not write, which cannot be read without executing it. "
            'Where you trust it: python -c "import pathlib, pickle, torch; torch.save(pickle.loads('
            f'pathlib.Path({_typed(file)}).read_bytes()), {_typed(new)})".'
        )
    trust = f"Where you trust it, save its weights alone: {_script(file, scan)}."
    if asked := re.search(r"GLOBAL ([\w.]+)", text):
        what = "a whole pickled module" if scan.module else "more than tensors and numbers"
        return (
            f"not a checkpoint that loads without executing it: it holds {what} ({asked[1]}). "
            f"{trust}"
        )
    if scan.protocol > 2 and "nsupported operand" in text:
        return (
            f"written with pickle protocol {scan.protocol}, which cannot be read without executing "
            f"it. {trust}"
        )
    if isinstance(error, EOFError) or "nexpected EOF" in text or "Ran out of input" in text:
        return f"cut short: {file.stat().st_size:,} bytes are there. {AGAIN}"
    reason = re.sub(r".*WeightsUnpickler error: ", "", text)
    reason = reason.partition(" Check the documentation of torch.load")[0].rstrip(". ")
    return f"damaged, or not a checkpoint: {reason}. {AGAIN}"


def _script(file: Path, scan: _Scan) -> str:
    """A command that saves the weights of a file which has to be executed to be read."""
    new = file.with_name(f"{file.stem}-weights.safetensors")
    held = "next((c[k] for k in ('state_dict', 'model_state_dict', 'model') if k in c), c)"
    if scan.module:
        held = f"{'c' if scan.top else held}.state_dict()"
    return (
        f'python -c "import torch; from safetensors.torch import save_file; '
        f"c = torch.load({_typed(file)}, map_location='cpu', weights_only=False); "
        f'save_file({{k: v.contiguous().clone() for k, v in {held}.items()}}, {_typed(new)})"'
    )


def _typed(file: Path) -> str:
    """A path as a string of Python that stands within the double quotes of a shell's command.

    A name may be a stranger's: where a shell would read more than a name, another stands for it.
    """
    if PLAIN.fullmatch(str(file)):
        return repr(str(file))
    return repr("WEIGHTS.safetensors" if file.suffix == ".safetensors" else "FILE.pt")
