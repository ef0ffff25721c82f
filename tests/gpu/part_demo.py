"""The whole demo suite on the device, and whether its table is the CPU's."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def measure(check: Any) -> Iterator[tuple[str, dict]]:
    found, seconds = {}, {}
    for device in dict.fromkeys(("cpu", check.device)):
        out = check.folder / f"runs-{device}"
        begun = time.perf_counter()
        run_demo(check, device, out)
        seconds[device] = round(time.perf_counter() - begun, 1)
        found[device] = values(out)
    yield "table", compared(found["cpu"], found[check.device]) | {"seconds": seconds}


def run_demo(check: Any, device: str, out: Path, *more: str) -> None:
    """Raises RuntimeError with the last of what it said where the command fails."""
    done = subprocess.run(demo_command(check, device, out, *more), env=check.environment,
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"run --demo ended with {done.returncode}: {done.stderr[-1500:]}")


def demo_command(check: Any, device: str, out: Path, *more: str) -> list[str]:
    tiny = []  # one task of each kind and one model
    if check.tiny:
        tiny = [
            "-m",
            "demo:pretrained",
            "-t",
            "demo_digits",
            "-t",
            "demo_winoground",
            "-t",
            "demo_flickr30k",
        ]
    return [
        sys.executable, "-m", "fsc_bench", "run", "--demo", "--device", device, "-o", str(out),
        *tiny, *more,
    ]  # fmt: skip


def values(out: Path) -> dict[str, float]:
    """Every number of every result below a folder of runs, by model, task, subset and metric."""
    found = {}
    for file in sorted(out.rglob("tasks/*.json")):
        result = json.loads(file.read_text())
        model = file.parent.parent.name.rpartition("-")[0]
        for subset, metrics in result["metrics"].items():
            for metric, cell in metrics.items():
                if cell.get("value") is not None:
                    found[f"{model} {file.stem} {subset} {metric}"] = cell["value"]
    return found


def compared(one: dict[str, float], other: dict[str, float]) -> dict[str, Any]:
    """How many of the numbers differ, and by how many points."""
    apart = {name: abs(value - other[name]) for name, value in one.items() if name in other}
    largest = max(apart, key=apart.get) if apart else ""
    return {
        "numbers": len(one),
        "differ": sum(value > 1e-9 for value in apart.values()),
        "largest_points": round(apart.get(largest, 0.0), 4),
        "where": largest,
        "holds": bool(one) and one.keys() == other.keys() and apart[largest] <= 1.0,
    }
