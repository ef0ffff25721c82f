"""Attack: damaged and forged `.safetensors`: read as they were, or refused by one line."""

import json
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from outcomes import Tally, main, refused_or, workplace
from safetensors.torch import save

from fsc_bench.models.checkpoints.fit import fit
from fsc_bench.models.checkpoints.state import read_state

STATE = {
    "visual.weight": torch.arange(600.0).reshape(20, 30),
    "visual.bias": torch.linspace(-1, 1, 20),
    "text.table": torch.arange(48, dtype=torch.float16).reshape(8, 6),
    "logit_scale": torch.tensor(4.6052),
    "ids": torch.arange(7),
}
TYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL", "F8_E4M3", "X", "", 3]
NUMBERS = [-1, 0, 1, 7, 2**31, 2**53, 2**63, 2**64, 10**30, 1.5, None, "4", [1]]


def forged(header: dict, noise: np.random.Generator) -> str:
    """Changes one thing that a header says; returns what."""
    name = str(noise.choice([key for key in header if key != "__metadata__"]))
    entry = header[name]
    what = noise.choice(["dtype", "shape", "offsets", "drop", "rename", "meta", "add", "nest"])
    number = NUMBERS[noise.integers(len(NUMBERS))]
    if what == "dtype":
        entry["dtype"] = TYPES[noise.integers(len(TYPES))]
    elif what == "shape":
        shape = entry["shape"]
        place = noise.integers(len(shape) + 1)
        entry["shape"] = [*shape[:place], number, *shape[place + 1 :]]
    elif what == "offsets":
        entry["data_offsets"][noise.integers(2)] = number
    elif what == "drop":
        del entry[str(noise.choice(list(entry)))]
    elif what == "rename":
        header[str(noise.choice(["", "\0", "a\nb", "x" * 5000, "\x1b[2J"]))] = header.pop(name)
    elif what == "meta":
        header["__metadata__"] = [{"a": 1}, [], "x", {"a": "b" * 10**5}][noise.integers(4)]
    elif what == "add":
        header["extra"] = [dict(entry), [], None, 3, {"dtype": "F32"}][noise.integers(5)]
    else:
        depth = int(noise.choice([60, 500, 50_000]))
        header["deep"] = json.loads("[" * 60 + "]" * 60) if depth == 60 else f"@{depth}"
    return what


def mutated(whole: bytes, noise: np.random.Generator) -> bytes:
    """One mutation of a whole file."""
    length = struct.unpack("<Q", whole[:8])[0]
    kind = noise.choice(["header", "header", "bytes", "cut", "grow", "length", "text", "splice"])
    if kind == "header":
        header = json.loads(whole[8 : 8 + length])
        forged(header, noise)
        text = json.dumps(header).encode()
        for depth in (500, 50_000):
            text = text.replace(b'"@%d"' % depth, b"[" * depth + b"]" * depth)
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]
    if kind == "cut":
        return whole[: noise.integers(0, len(whole))]
    if kind == "grow":
        return whole + bytes(int(noise.integers(1, 5000)))
    if kind == "length":
        claimed = int(noise.choice([0, 1, length - 1, length + 1, 10**8, 2**40, 2**62]))
        return struct.pack("<Q", claimed) + whole[8:]
    content = np.frombuffer(whole, np.uint8).copy()
    if kind == "bytes":  # of the header: flips in the weights cannot be told by anybody
        content[noise.integers(0, 8 + length, 3)] = noise.integers(0, 256, 3)
    elif kind == "text":
        place = noise.integers(8, 8 + length)
        content[place] = noise.choice(list(b'{}[]",:0-9\\ \0'))
    else:
        start, other = noise.integers(8, 8 + length - 20, 2)
        content[start : start + 20] = content[other : other + 20].copy()
    return content.tobytes()


class Towers(torch.nn.Module):
    """A model that these weights fit, and none of whose own are right by chance."""

    def __init__(self):
        super().__init__()
        for name, value in STATE.items():
            *path, last = name.split(".")
            place = self
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, torch.nn.Module())
                place = getattr(place, part)
            place.register_buffer(last, torch.full_like(value, 3))


def loaded(file: Path) -> str:
    """`read` where a model has the weights afterwards; anything else went wrong without a word."""
    model = Towers()
    fit(model, read_state(file), "open_clip:Tiny@a")
    own = model.state_dict()
    wrong = [name for name, value in STATE.items() if not torch.equal(own[name], value)]
    return f"silently other: {', '.join(wrong)}" if wrong else "read"


def attack(count: int = 500) -> Tally:
    noise = np.random.default_rng(7)
    whole, tally = save(STATE), Tally()
    with workplace() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder / "a.safetensors")
        for number in range(count):
            file.write_bytes(mutated(whole, noise))
            tally.add(f"{number}", *refused_or(lambda: loaded(file)))
    return tally


if __name__ == "__main__":
    main(attack, 500)
