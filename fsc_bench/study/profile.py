"""Profile: what each part of a training step costs, over architectures, measured and worked out.

Measured are times and peak bytes of the step's own code on this machine, all variants in turns in
one run. Worked out are FLOPs and bytes, from shapes alone (cost.py), for every architecture; times
only where nothing was measured, at the rate that the same part had in what was. The two never
share a column.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from fsc_bench.errors import UsageError
from fsc_bench.models import pick_device
from fsc_bench.study import parts as of_step
from fsc_bench.study.cost import MOMENTS, count, largest_batch
from fsc_bench.study.parts import Setting, Workload
from fsc_bench.system.memory import free_memory, out_of_memory
from fsc_bench.system.settings import working

ARCHITECTURES = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-SO400M-14-SigLIP-384")
FITTED = ("FSC-CLIP", "NegCLIP")  # the steps whose largest batch is told
SHARES = {  # a step with the local loss over the same step without
    "local loss on FSC-CLIP": ("FSC-CLIP", "FSC-CLIP without local"),
    "local loss on NegCLIP": ("NegCLIP + local", "NegCLIP"),
    "FSC-CLIP over NegCLIP": ("FSC-CLIP", "NegCLIP"),
}
PLAIN_RATIO = "plain local loss over ours"
LARGE = 64  # pairs: more than these, and activations are most of what a step holds
COUNTED = 4096  # the largest batch that is counted to see whether it fits
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wish:
    """What is to be profiled. memory: bytes that a batch must fit, None for this machine's own.
    limit: seconds that one architecture may take before it is worked out instead.
    """

    architectures: tuple[str, ...]
    workload: Workload
    device: str
    repeats: int = 3
    memory: int | None = None
    limit: float = 120.0


@dataclass(frozen=True)
class Line:
    """One part or step. `seconds` and `bytes` are measured, the rest is worked out."""

    name: str
    kind: str  # part, step, or beside: not in FSC-CLIP's step
    worked_flops: int | None = None
    worked_bytes: int | None = None  # at the peak; of a part beside what was there before
    worked_seconds: float | None = None
    seconds: tuple[float, ...] = ()
    bytes: int | None = None

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class Ratio:
    """One step over another: by the times of each repeat, and by FLOPs."""

    measured: tuple[float, ...]
    worked_out: float | None


@dataclass(frozen=True)
class Profile:
    """One architecture. fits: of some steps the largest batch whose peak from shapes fits the
    memory, None where that is not known. left: why it was not run here, "" where it was.
    """

    architecture: str
    image_size: int
    patches: int
    parameters: int
    lines: Mapping[str, Line]
    fits: Mapping[str, int | None]
    left: str = ""
    ratios: Mapping[str, Ratio] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All profiles. device: what was measured on; capacity: bytes, None where nobody knows."""

    profiles: tuple[Profile, ...]
    device: str
    capacity: int | None


def profile(wish: Wish, progress: Progress) -> Found:
    """Every architecture: counted from shapes, run where it can be. Raises UsageError, one line,
    for what cannot be profiled, before anything long begins.
    """
    for architecture in wish.architectures:
        of_step.check_architecture(architecture)
    device, missing = _device(wish.device)
    capacity = wish.memory or (None if missing else machine_memory(device))
    shaped = [from_shapes(name, wish.workload, capacity, progress) for name in wish.architectures]
    rate = None if missing else _rate(device)
    profiles = []
    with working():
        for one in shaped:
            why = missing or _too_much(one, wish, device, rate)
            if not why:
                one, why = _measured(one, wish, device, progress)
            profiles.append(replace(one, left=why))
    profiles = [_with_ratios(one) for one in with_worked_seconds(profiles)]
    return Found(tuple(profiles), missing or device, capacity)


def _device(wanted: str) -> tuple[str, str]:
    """(device, why nothing can be measured on it): a card that is not here is worked out for."""
    if wanted.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        return wanted, "no CUDA card here"
    return pick_device(wanted), ""


def machine_memory(device: str) -> int | None:
    """Bytes that a device has: a card's own, or this machine's within its container's limit."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(found, int(text)) if text.isdigit() else found


# ---------------------------------------------------------------- from shapes


def from_shapes(
    architecture: str, workload: Workload, capacity: int | None, progress: Progress
) -> Profile:
    """FLOPs and bytes of every part and step without one number computed."""
    model = of_step.build(architecture, "meta")
    setting = Setting(model, workload, architecture)
    moments = MOMENTS * sum(value.numel() for value in setting.trainable.values())
    patches = setting.encoded.image_tokens.shape[1]
    runs = setting.parts()
    told, total = f"{architecture} from shapes", len(runs) + len(of_step.STEPS) + len(FITTED)
    lines: dict[str, Line] = {}
    for name, run in runs.items():
        model.zero_grad(set_to_none=True)
        found = count(run, setting.held)
        kind = "part" if name in of_step.OF_STEP else "beside"
        lines[name] = Line(name, kind, found.flops, found.added)
        progress(told, len(lines), total)
    lines[of_step.OPTIMISER] = Line(of_step.OPTIMISER, "part", None, moments)
    lines[of_step.NEGATIVES] = Line(of_step.NEGATIVES, "beside")
    for done, name in enumerate(of_step.STEPS, len(runs) + 1):
        found = count(_fresh(setting, name), setting.held)
        lines[name] = Line(name, "step", found.flops, found.peak + moments)
        progress(told, done, total)
    fits: dict[str, int | None] = {}
    for done, name in enumerate(FITTED, len(runs) + len(of_step.STEPS) + 1):
        fits[name] = _fitting(model, name, workload, architecture, moments, capacity)
        progress(told, done, total)
    size, parameters = of_step.image_size(model), sum(p.numel() for p in model.parameters())
    return Profile(architecture, size, patches, parameters, lines, fits)


def _fresh(setting: Setting, name: str) -> Callable[[], None]:
    """A step that begins as any does, without gradients."""
    setting.model.zero_grad(set_to_none=True)
    return setting.step(name)


def _fitting(
    model: nn.Module, name: str, workload: Workload, architecture: str, moments: int,
    capacity: int | None,
) -> int | None:  # fmt: skip
    """From peaks of batches so large that activations make them (in a small one gradients do). The
    peak grows a little faster than the batch, for logits are of every pair: the batch found first
    is counted too, and between the two the chord lies above the peak.
    """
    if capacity is None:
        return None

    def peak(batch: int) -> tuple[int, int]:
        setting = Setting(model, replace(workload, batch=batch), architecture)
        return batch, count(_fresh(setting, name), setting.held).peak + moments

    small, large = peak(LARGE), peak(2 * LARGE)
    first = largest_batch(small, large, capacity)
    if not 2 * LARGE < first <= COUNTED:
        return first
    return min(first, largest_batch(large, peak(first), capacity))


# ---------------------------------------------------------------- what can be run here


def _too_much(one: Profile, wish: Wish, device: str, rate: float | None) -> str:
    """Why this machine does not run it, in words; "" where it does."""
    have = machine_memory(device)
    need = max(line.worked_bytes or 0 for line in one.lines.values() if line.kind == "step")
    # A twentieth and a gigabyte are for the program itself, its libraries and kernels' own space.
    if have is not None and need > 0.95 * have - 1e9:
        return f"needs {need / 1e9:.1f} GB, {device} has {have / 1e9:.1f}"
    seconds = runs_of(wish.repeats) * (one.lines["FSC-CLIP"].worked_flops or 0) / (rate or 1.0)
    if seconds > wish.limit:
        return f"about {seconds:,.0f} s, more than --limit {wish.limit:g}"
    return ""


def runs_of(repeats: int) -> int:
    """Steps that one architecture takes: one to begin, then four steps, one in parts and one before
    the optimiser for the bytes and for each repeat.
    """
    return 1 + 6 * (1 + repeats)


def _rate(device: str) -> float:
    """Floating-point operations a second of square products: what a step comes near to."""
    side, kind = (4096, "cuda") if device.startswith("cuda") else (1024, "")
    one = torch.ones(side, side, device=device)
    best = float("inf")
    for _ in range(4):
        best = min(best, _seconds(lambda: one @ one, kind))
    return 2 * side**3 / best


def _seconds(run: Callable[[], Any], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


# ---------------------------------------------------------------- measured


def _measured(one: Profile, wish: Wish, device: str, progress: Progress) -> tuple[Profile, str]:
    """The profile with times and bytes; or as it was, and why the machine gave up."""
    try:
        return _run(one, wish, device, progress), ""
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory(thoroughly=True)
    return one, f"ran out of memory on {device}"


def _run(one: Profile, wish: Wish, device: str, progress: Progress) -> Profile:
    setting = Setting(of_step.build(one.architecture, device), wish.workload, one.architecture)
    turns = {**{name: setting.step(name) for name in of_step.STEPS}, **setting.parts(),
             of_step.OPTIMISER: setting.optimizer.step,
             of_step.NEGATIVES: of_step.making(wish.workload)}  # fmt: skip
    done, total = 0, (1 + wish.repeats) * len(turns)
    turns["FSC-CLIP"]()  # the optimiser's moments are made by the first step
    peaks: dict[str, int | None] = {of_step.OPTIMISER: None, of_step.NEGATIVES: None}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(1 + wish.repeats):
        # Forwards and backwards by turns: what slows down over time falls on all alike.
        for name in list(turns) if repeat % 2 else reversed(turns):
            if repeat:
                if name == of_step.OPTIMISER:
                    turns["FSC-CLIP"]()  # leaves gradients
                seconds[name].append(_seconds(turns[name], device))
            elif name not in peaks:
                setting.model.zero_grad(set_to_none=True)
                peak, added = _peak(turns[name], setting, device)
                peaks[name] = peak if name in of_step.STEPS else added
            done += 1
            progress(f"{one.architecture} on {device}", done, total)
    lines = {
        name: replace(line, seconds=tuple(seconds[name]), bytes=peaks[name])
        for name, line in one.lines.items()
    }
    return replace(one, lines=lines)


def _peak(run: Callable[[], Any], setting: Setting, device: str) -> tuple[int, int]:
    """(bytes at the peak, those of them that came with it)."""
    if not device.startswith("cuda"):
        found = count(run, setting.held)
        return found.peak, found.added
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    peak = torch.cuda.max_memory_allocated()
    return peak, peak - before


# ---------------------------------------------------------------- times that were not measured


def with_worked_seconds(profiles: Sequence[Profile]) -> list[Profile]:
    """Where an architecture was not run, each part's time at the rate (FLOPs a second; of the
    optimiser parameters) that it had, all together, in those that were.
    """
    rates = {}
    for name in profiles[0].lines:
        run = [(one, one.lines[name]) for one in profiles if one.lines[name].seconds]
        work = sum(_work(one, line) for one, line in run)
        if work:
            rates[name] = work / sum(line.median or 0.0 for _, line in run)
    return [
        replace(one, lines={name: _timed(one, line, rates) for name, line in one.lines.items()})
        for one in profiles
    ]


def _work(one: Profile, line: Line) -> int:
    return one.parameters if line.name == of_step.OPTIMISER else line.worked_flops or 0


def _timed(one: Profile, line: Line, rates: Mapping[str, float]) -> Line:
    if line.seconds or line.name not in rates:
        return line
    return replace(line, worked_seconds=_work(one, line) / rates[line.name])


def _with_ratios(one: Profile) -> Profile:
    """The local loss's share, against NegCLIP, and the plain local loss against ours."""
    pairs = {**SHARES, PLAIN_RATIO: (of_step.PLAIN, of_step.LOCAL_LOSS)}
    ratios = {}
    for name, (above, below) in pairs.items():
        up, down = one.lines[above], one.lines[below]
        measured = tuple(a / b for a, b in zip(up.seconds, down.seconds, strict=True))
        ratios[name] = Ratio(measured, (up.worked_flops or 0) / (down.worked_flops or 1))
    return replace(one, ratios=ratios)


def check(wish: Wish) -> None:
    """Raises UsageError, one line, for a workload that is none."""
    work = wish.workload
    allowed = {
        "--batch": (work.batch, 2, 65_536),
        "--negatives": (work.negatives, 1, 100),
        "--words": (work.words, 1, 10_000),
        "--repeats": (wish.repeats, 1, 1000),
    }
    for option, (value, low, high) in allowed.items():
        if not low <= value <= high:
            bound = f"at least {low}" if value < low else f"at most {high:,}"
            raise UsageError(f"{option} {value}: it must be {bound}.")
    if len(set(wish.architectures)) < len(wish.architectures):
        raise UsageError("an architecture is named twice.")
