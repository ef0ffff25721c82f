"""Memory that runs out, killed runs and trainings, and groups of one process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import part_demo
import torch
from drawn import captions, model_of, photos
from safetensors.torch import load_file

from fsc_bench.data.images import Images
from fsc_bench.embed.encode import Encoder
from fsc_bench.embed.plan import Plan, text_digests
from fsc_bench.embed.store import Store
from fsc_bench.records import OWN, ImageRef
from fsc_bench.system.settings import working


def measure(check: Any) -> Iterator[tuple[str, dict]]:
    if check.device == "cuda":
        with working():
            yield "out of memory", out_of_memory(check)
    yield "killed training", killed_training(check)
    if not check.tiny:  # FSDP goes through torchrun as well
        yield "torchrun of one process", grouped(check, "ddp")
    yield "FSDP of one process", grouped(check, "fsdp")
    yield "killed run", killed_run(check)


# ---------------------------------------------------------------- memory


def out_of_memory(check: Any) -> dict[str, Any]:
    """The same pictures and texts with room for all of a batch, and with too little."""
    folder = check.folder / "raw" / "drawn"
    folder.mkdir(parents=True)
    place = {}
    for number, content in enumerate(photos(1024)):
        (folder / f"{number}.jpg").write_bytes(content)
        key = number.to_bytes(32, "big")
        place[key] = ("drawn", ImageRef(OWN, f"{number}.jpg"))
    texts = text_digests(captions(1024))
    model = model_of("ViT-B-32", "cuda", "fp32")
    found, said = [], []
    for fraction in (1.0, 0.0):
        if not fraction:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            room = torch.cuda.memory_reserved() + (700 << 20)
            torch.cuda.set_per_process_memory_fraction(room / total)
        store = Store(check.folder / f"store-{fraction}")
        encoder = Encoder(model, Images(check.folder), store, 1024, said.append)
        failed = encoder.encode(Plan({}, place, texts, len(place), len(texts)))
        assert not failed
        found.append([store.get("image", list(place)), store.get("text", list(texts.values()))])
    torch.cuda.set_per_process_memory_fraction(1.0)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*found, strict=True))
    return {"said": said, "largest_difference": apart, "holds": bool(said) and apart < 1e-5}


# ---------------------------------------------------------------- kills


def killed_run(check: Any) -> dict[str, Any]:
    """`run --demo` killed as it writes its first result, and run again."""
    whole, torn = check.folder / "whole", check.folder / "torn"
    one = () if check.tiny else ("-m", "demo:pretrained")
    before = check.folder.parent / "demo" / f"runs-{check.device}"
    if check.tiny and before.exists():
        whole = before  # the demo part ran the same command
    else:
        part_demo.run_demo(check, check.device, whole, *one)
    command = part_demo.demo_command(check, check.device, torn, *one)
    done = kill_when(command, check, lambda: len([*torn.rglob("tasks/*.json")]) >= 1)
    part_demo.run_demo(check, check.device, torn, *one)
    figures = part_demo.compared(part_demo.values(whole), part_demo.values(torn))
    return {"killed_before_its_end": done, **figures}


def training(check: Any, out: Path, *more: str) -> list[str]:
    steps, size = (4, 4) if check.tiny else (60, 32)
    return [
        "-m", "fsc_bench", "train", "demo-fsc-clip", "-o", str(out),
        "--set", f"device={check.device}", "--set", f"max_steps={steps}",
        "--set", "checkpoint_every=2", "--set", f"batch_size={size}", "--set", "log_every=2", *more,
    ]  # fmt: skip


def trained(check: Any, command: list[str], out: Path) -> dict[str, torch.Tensor]:
    done = subprocess.run(command, env=check.environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"train ended with {done.returncode}: {done.stderr[-1500:]}")
    return load_file(out / "model.safetensors")


def killed_training(check: Any) -> dict[str, Any]:
    """A training that was killed and resumed, and one that was not."""
    whole, torn = check.folder / "trained", check.folder / "torn-training"
    command = [sys.executable, *training(check, torn)]

    def killed() -> tuple[int, dict[str, torch.Tensor]]:
        at = kill_when(command, check, lambda: len([*torn.glob("checkpoints/*")]) >= 1)
        return at, trained(check, [*command, "--resume"], torn)

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(killed) if check.tiny else None  # a CPU has room for both
        straight = trained(check, [sys.executable, *training(check, whole)], whole)
        at, resumed = beside.result() if beside else killed()
    return {"killed_before_its_end": at, **apart(straight, resumed)}


def grouped(check: Any, parallel: str) -> dict[str, Any]:
    """One process of torchrun, by NCCL on a card, against a plain one."""
    out = check.folder / f"grouped-{parallel}"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1",
        *training(check, out, "--set", f"parallel={parallel}"),
    ]  # fmt: skip
    found = trained(check, command, out)
    return apart(load_file(check.folder / "trained" / "model.safetensors"), found)


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The largest difference of two models' weights, beside how far they moved at all."""
    largest = max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
    return {"largest_difference": largest, "holds": one.keys() == other.keys() and largest < 1e-3}


def kill_when(command: list[str], check: Any, seen: Callable[[], bool]) -> int:
    """Starts a command, kills it as soon as `seen`, and says how much of it was seen: 0 where the
    command ended first.
    """
    process = subprocess.Popen(command, env=check.environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    begun = time.perf_counter()
    try:
        while process.poll() is None and not seen():
            time.sleep(0.01)
            if time.perf_counter() - begun > 120:
                break
    finally:
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return int(running)
