"""Attack: damaged and forged `.pt` files: read as they were, or refused; nothing is executed."""

import argparse
import io
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from outcomes import Tally, main, refused_or, tried, workplace, written_outside
from safetensors_files import STATE, Towers

from fsc_bench.models.checkpoints.fit import fit
from fsc_bench.models.checkpoints.state import read_state

CONTENT = {
    "epoch": 3,
    "state_dict": STATE,
    "args": argparse.Namespace(lr=1e-3, name="x"),
    "best": np.float32(41.5),
}
MARK = "executed"
CALLS = [  # (module, name, argument): what a pickle may name to have something run or written
    ("os", "system", f"touch {MARK}"),
    ("posix", "system", f"touch {MARK}"),
    ("builtins", "exec", f"open('{MARK}', 'w')"),
    ("builtins", "eval", f"open('{MARK}', 'w')"),
    ("builtins", "open", MARK),
    ("io", "open", MARK),
    ("subprocess", "getoutput", f"touch {MARK}"),
    ("pathlib", "Path.touch", MARK),
    ("pathlib", "PosixPath", MARK),
    ("numpy", "save", MARK),
    ("numpy.lib._npyio_impl", "load", MARK),
    ("numpy", "fromfile", "/etc/hostname"),
    ("torch", "load", MARK),
    ("torch.hub", "load", MARK),
    ("torch", "ops.load_library", MARK),
    ("torch.utils.cpp_extension", "load_inline", MARK),
    ("types", "SimpleNamespace", MARK),
    ("argparse", "Namespace", MARK),
    ("collections", "deque", MARK),
    ("omegaconf.dictconfig", "DictConfig", MARK),
    ("pytorch_lightning.utilities", "AttributeDict", MARK),
]
NUMBERS = [-(2**31), -1, 0, 1, 2, 5, 255, 2**16, 2**31 - 1]


def saved(old: bool) -> bytes:
    out = io.BytesIO()
    torch.save(CONTENT, out, _use_new_zipfile_serialization=not old)
    return out.getvalue()


def call(noise: np.random.Generator) -> bytes:
    """Operations of a pickle that call something with a text, and leave what it gives."""
    module, name, argument = CALLS[noise.integers(len(CALLS))]
    text = argument.encode()
    words = b"X" + struct.pack("<I", len(text)) + text
    named = f"c{module}\n{name}\n".encode()
    kind = noise.integers(4)
    if kind == 0:  # INST
        return b"(" + words + f"i{module}\n{name}\n".encode()
    if kind == 1:  # NEWOBJ
        return named + words + b"\x85\x81"
    if kind == 2:  # STACK_GLOBAL
        both = b"".join(
            b"X" + struct.pack("<I", len(word)) + word for word in (module.encode(), name.encode())
        )
        return both + b"\x93" + words + b"\x85R"
    return named + words + b"\x85R"


def odd(noise: np.random.Generator) -> bytes:
    """Operations that leave something heavy, deep or strange."""
    kind = noise.integers(8)
    if kind == 0:  # a tuple in a tuple in a tuple, as a key
        return b"}K\x01" + b"\x85" * int(noise.choice([50, 3000, 300_000])) + b"K\x01s"
    if kind == 1:
        return b"]" * 3000 + b"a" * 2999
    if kind == 2:  # a whole number of many digits
        return b"\x8b" + struct.pack("<i", 3000) + b"\x01" * 3000
    if kind == 3:  # a text that is longer than the file
        return b"X" + struct.pack("<I", 2**31 - 1) + b"x"
    if kind == 4:  # a storage of a name and size of its own
        key = str(noise.choice(["../../0", "/etc/passwd", "99", "", "0"]))
        parts = (
            b"(X\x07\0\0\0storagectorch\nFloatStorage\nX"
            + struct.pack("<I", len(key)) + key.encode()
            + b"X\x03\0\0\0cpuJ" + struct.pack("<i", int(noise.choice(NUMBERS))) + b"tQ"
        )  # fmt: skip
        return parts
    if kind == 5:
        return b"h\xff"  # from the memory, where nothing is
    if kind == 6:
        empty = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n"
        return empty + b"(ctorch\nfloat32\nK\x05\x85K\x01\x85\x89tR"
    return b"cargparse\nNamespace\n)R}(X\x01\0\0\0aK\x01ub"


def forged(pickle: bytes, noise: np.random.Generator) -> bytes:
    """A pickle with one thing changed: an operation more, another number, or bytes."""
    kind = noise.choice(["call", "odd", "number", "bytes", "drop"])
    places = [place for _, _, place in pickletools.genops(pickle)]
    at = int(noise.choice(places[1:]))
    if kind in ("call", "odd"):
        more = call(noise) if kind == "call" else odd(noise)
        return pickle[:at] + more + (b"0" if noise.random() < 0.7 else b"") + pickle[at:]
    if kind == "number":
        small = [place for op, _, place in pickletools.genops(pickle) if op.name == "BININT1"]
        at = int(noise.choice(small))
        value = struct.pack("<i", int(noise.choice(NUMBERS)))
        return pickle[:at] + b"J" + value + pickle[at + 2 :]
    if kind == "drop":
        end = places[min(places.index(at) + 1, len(places) - 1)]
        return pickle[:at] + pickle[end:]
    content = bytearray(pickle)
    for place in noise.integers(2, len(content), 2):
        content[place] = noise.integers(0, 256)
    return bytes(content)


def rebuilt(whole: bytes, noise: np.random.Generator) -> bytes:
    """The archive with one entry changed, packed, renamed, doubled or left out; its sums agree."""
    source = zipfile.ZipFile(io.BytesIO(whole))
    entries = [(name, source.read(name)) for name in source.namelist()]
    kind = noise.choice(["pickle", "pickle", "pickle", "cut", "drop", "rename", "twice", "packed"])
    place = int(noise.integers(len(entries)))
    name, content = entries[place]
    if kind == "pickle":
        entries = [(n, forged(c, noise) if n.endswith("data.pkl") else c) for n, c in entries]
    elif kind == "cut":
        entries[place] = (name, content[: int(noise.integers(len(content) + 1))])
    elif kind == "drop":
        del entries[place]
    elif kind == "rename":
        new = str(noise.choice(["../x", "/tmp/x", "data.pkl", name + "0", "a\nb/data.pkl"]))
        entries[place] = (new, content)
    elif kind == "twice":
        entries.append((name, content[::-1]))
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def damaged(whole: bytes, noise: np.random.Generator) -> bytes:
    """A file as a bad disk or a broken download leaves it."""
    content = np.frombuffer(whole, np.uint8).copy()
    kind = noise.choice(["flip", "cut", "zeros", "splice"])
    if kind == "cut":
        return whole[: int(noise.integers(len(whole)))]
    start = int(noise.integers(len(content) - 64))
    if kind == "flip":
        content[start] ^= 1 << noise.integers(8)
    elif kind == "zeros":
        content[start : start + int(noise.integers(1, 64))] = 0
    else:
        other = int(noise.integers(len(content) - 64))
        content[start : start + 32] = content[other : other + 32].copy()
    return content.tobytes()


def mutated(zipped: bytes, old: bytes, noise: np.random.Generator) -> tuple[bytes, bool]:
    """(a mutation, whether what is read of it must still be what was saved)."""
    kind = noise.choice(
        ["rebuilt", "rebuilt", "rebuilt", "damaged", "damaged", "old", "old forged"]
    )
    if kind == "rebuilt":
        return rebuilt(zipped, noise), False
    if kind == "damaged":  # an archive knows the sum of each part
        return damaged(zipped, noise), True
    if kind == "old":  # the old format knows no sums: that it is other cannot be told
        return damaged(old, noise), False
    at = old.index(b"state_dict") - 6
    more = call(noise) if noise.random() < 0.5 else odd(noise)
    return old[:at] + more + b"0" + old[at:], False


def loaded(file: Path, equal: bool) -> str:
    """`read` where a model has the weights afterwards; anything else went wrong without a word."""
    model = Towers()
    fit(model, read_state(file), "open_clip:Tiny@a")
    own = model.state_dict()
    wrong = [name for name, value in STATE.items() if not torch.equal(own[name], value)]
    return "silently other" if wrong and equal else "read"


def attack(count: int = 3000, apart: bool = False) -> Tally:
    zipped, old = saved(False), saved(True)
    with workplace() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = folder / "a.pt"

        def one(number: int) -> tuple[str, str]:
            content, equal = mutated(zipped, old, np.random.default_rng((11, number)))
            file.write_bytes(content)
            outcome, detail = refused_or(lambda: loaded(file, equal))
            if sorted(folder.iterdir()) != [file] or written_outside(folder):
                (folder / MARK).unlink(missing_ok=True)
                return "executed", detail
            return outcome, detail

        return tried(count, one, apart)


if __name__ == "__main__":
    main(attack, 3000, apart=True)
