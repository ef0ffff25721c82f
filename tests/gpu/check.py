"""The check of a card: decisions, speed, training, recovery and the demo on CUDA, as one JSON file.

    PYTHONPATH=. python tests/gpu/check.py --device cuda --limit 470 --out check.json
    PYTHONPATH=. python tests/gpu/check.py --device cpu --tiny --out check.json

The parts are modules beside this file; each yields (name, figures) and what it has yielded is
written at once. A part that fails is recorded with its error and the next one goes on; at its
share of the time limit a part stops where it is. Weights are random and pictures are drawn: speed
and rounding do not depend on what was learned. README.md says what a bare machine must bring.
Exit code 1 where a part failed or a promise did not hold.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Most valuable first, with each part's share of the time limit.
PARTS = {"vectors": 0.2, "speed": 0.34, "training": 0.22, "demo": 0.14, "recovery": 0.22}
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "simplejpeg",
            "numba", "clip_benchmark", "transformers")  # fmt: skip


@dataclass(frozen=True)
class Check:
    """What the parts are given. left: seconds that this part may still take."""

    device: str  # "cuda" or "cpu"
    tiny: bool
    folder: Path  # empty, removed at the end
    environment: dict[str, str]  # for commands that a part starts
    until: float = 0.0

    @property
    def left(self) -> float:
        return self.until - time.perf_counter()


class OutOfTime(BaseException):
    """A part has used up its share. No Exception: libraries catch those and say something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--limit", type=float, default=470, help="seconds for all parts")
    parser.add_argument("--only", default="", help="parts, separated by commas; all")
    parser.add_argument("--parts", type=Path, default=HERE, help="the folder of their modules")
    parser.add_argument("--out", type=Path, default=Path("check.json"))
    arguments = parser.parse_args()
    shares = shares_of(arguments.parts)
    wanted = arguments.only.split(",") if arguments.only else list(shares)
    for name in wanted:
        if name not in shares:
            parser.error(f"--only {name!r}: choose of {', '.join(shares)}.")
    folders = (arguments.parts, HERE, ROOT, ROOT / "tests", ROOT / "tests" / "bench")
    sys.path[:0] = map(str, folders)
    if arguments.tiny:  # matrices are too small to be worth a second thread
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    begun = time.perf_counter()
    report: dict[str, Any] = {"machine": machine(arguments.device), "tiny": arguments.tiny,
                              "limit_seconds": arguments.limit, "parts": {}}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = as_installed(folder / "installed")
        for place, name in enumerate(wanted):
            spare = arguments.limit - (time.perf_counter() - begun)
            share = spare * shares[name] / sum(shares[later] for later in wanted[place:])
            room = folder / name
            room.mkdir()
            until = time.perf_counter() + share
            check = Check(arguments.device, arguments.tiny, room, environment, until)
            report["parts"][name] = run_part(name, check, report, arguments.out)
            report["seconds"] = round(time.perf_counter() - begun, 1)
            write(arguments.out, report)
    broken = [*failures(report["parts"], arguments.tiny)]
    print("\n".join(broken) or "all promises hold", flush=True)
    raise SystemExit(bool(broken))


def shares_of(folder: Path) -> dict[str, float]:
    """Part -> its share of the time: of this check, or equal ones of another folder's modules."""
    if folder == HERE:
        return PARTS
    return {file.stem.removeprefix("part_"): 1.0 for file in sorted(folder.glob("part_*.py"))}


def run_part(name: str, check: Check, report: dict, out: Path) -> dict[str, Any]:
    """The figures of one part, with what stopped it if anything did."""
    found: dict[str, Any] = {}
    report["parts"][name] = found
    begun = time.perf_counter()
    try:
        part = importlib.import_module(f"part_{name}")
        with at_most(check.left):
            for key, figures in part.measure(check):
                found[key] = figures
                print(f"{name}.{key}: {json.dumps(figures)}", flush=True)
                write(out, report)
    except OutOfTime:
        found["stopped"] = f"after {time.perf_counter() - begun:.0f} s, its share of the time"
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:2000]
        found["traceback"] = traceback.format_exc()[-4000:].replace(f"{ROOT}/", "")
        print(found["traceback"], flush=True)
    found["seconds"] = round(time.perf_counter() - begun, 1)
    return found


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in this thread after so many seconds."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failures(parts: dict[str, dict], whole: bool) -> Iterator[str]:
    """A line for each part that ended in an error and each promise (`holds`) that is false.

    whole: parts that stopped at their share of the time count too, for sizes that need little.
    """
    for name, found in parts.items():
        if "error" in found:
            yield f"FAILED {name}: {found['error']}"
        if whole and "stopped" in found:
            yield f"STOPPED {name}: {found['stopped']}"
        for key, figures in found.items():
            if isinstance(figures, dict) and figures.get("holds") is False:
                yield f"BROKEN {name}.{key}"


def machine(device: str) -> dict[str, Any]:
    """The card, its driver's view, the cores and the versions."""
    facts: dict[str, Any] = {
        "device": device,
        "card": platform.processor() or "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {},
    }
    if device == "cuda":
        import torch

        facts["card"] = torch.cuda.get_device_name()
        facts["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
    for name in PACKAGES:
        try:
            facts["packages"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts["packages"][name] = None
    return facts


def as_installed(place: Path) -> dict[str, str]:
    """The environment of commands, in which this checkout's entry points are known.

    A checkout that is not installed has none: the demo's models come in by them.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = place / "fsc_bench-0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: fsc-bench\nVersion: 0\n")
    lines = []
    for group, points in project.get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    try:
        importlib.metadata.version("fsc-bench")
        before = []
    except importlib.metadata.PackageNotFoundError:
        before = [str(place)]
        sys.path.append(str(place))
    path = [str(ROOT), *before, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}


def write(path: Path, report: dict) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
