"""A training step: its losses and its cost on the device, beside a plain implementation."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import open_clip
import torch
from bench_train_step import BETA, GAMMA, GLOBAL, KINDS, LOCAL, build, draw_batch, plain_loss
from drawn import TINY, captions, tiny_architecture
from torch.utils.flop_counter import FlopCounterMode

from fsc_bench.system.memory import out_of_memory
from fsc_bench.system.settings import working
from fsc_bench.train.batches import Part, Pixels, text_blocks
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.lora import apply_lora
from fsc_bench.train.schedule import decay_groups
from fsc_bench.train.step import Worker
from fsc_bench.train.towers import Towers

# Dense bf16 products a second that the maker states, by words of the card's name.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "4090": 165e12, "L4": 121e12}
FSC = {"global_hn_weight": GLOBAL, "local_hn_weight": LOCAL, "focal_gamma": GAMMA,
       "label_smoothing": BETA}  # fmt: skip
GLOBAL_ONLY = {**FSC, "local_hn_weight": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "FSC-CLIP": FSC,
    "without the local loss": GLOBAL_ONLY,
    "NegCLIP": {"negative_columns": True},
    "FSC-CLIP, LoRA": {**FSC, "tune": "lora"},
    "FSC-CLIP, activation checkpointing": {**FSC, "activation_checkpointing": True},
    "FSC-CLIP, cached gradients in 4 parts": {**FSC, "accumulate": 4},
    "FSC-CLIP, compiled": {**FSC, "compile": True},
}


def measure(check: Any) -> Iterator[tuple[str, dict]]:
    architecture = tiny_architecture(check.folder) if check.tiny else "ViT-B-32"
    size = 6 if check.tiny else 256
    with working():
        yield "losses on the device and the CPU", same_losses(check, architecture)
        batch = batch_of(check, size)
        seconds = {}
        for name, settings in [("plain", None), *VARIANTS.items()]:
            if name.endswith("compiled"):
                continue  # minutes of compiling; asked for by hand
            try:
                figures = cost(check, architecture, batch, settings)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                figures = {"out_of_memory": True}
                torch.cuda.empty_cache()
            seconds[name] = figures.get("step_seconds")
            if seconds.get("plain") and seconds[name]:
                figures["times_as_fast_as_plain"] = round(seconds["plain"] / seconds[name], 2)
            yield f"{architecture} bf16 batch {size}, {name}", figures
    if seconds.get("without the local loss") and seconds.get("FSC-CLIP"):
        share = seconds["FSC-CLIP"] / seconds["without the local loss"] - 1
        yield "the local loss adds", {"percent": round(100 * share, 1)}


def side(check: Any) -> int:
    return TINY["vision_cfg"]["image_size"] if check.tiny else 224


def batch_of(check: Any, size: int) -> tuple[Part, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same batch each time it is asked for."""
    torch.manual_seed(1)
    return draw_batch(captions(size), side(check))


def split(part: Part, ids: torch.Tensor, image_index, text_index, parts: int) -> list[Part]:
    """The part as `parts` parts of equal size, as the trainer's batches come."""
    rows = len(part.images) // parts
    found = []
    for at in range(0, rows * parts, rows):
        mine = (image_index >= at) & (image_index < at + rows)
        blocks = text_blocks(
            ids[mine], (image_index[mine] - at).tolist(), text_index[mine].tolist(), 2
        )
        found.append(Part(part.images[at : at + rows], blocks, part.negative_mask[at : at + rows]))
    return found


def worker_of(model: torch.nn.Module, config: TrainConfig, check: Any, device: str) -> Worker:
    towers = Towers(model, bool(config.local_hn_weight))
    towers.probe(open_clip.get_tokenizer("ViT-B-32"))
    return Worker(config, towers, Pixels(side(check), (0.5,) * 3, (0.25,) * 3), device, None)


def same_losses(check: Any, architecture: str) -> dict[str, Any]:
    """Each loss of one batch in float32, on the CPU and on the device."""
    part, *_ = batch_of(check, 4 if check.tiny else 16)
    config = TrainConfig(negatives="rules", **FSC)
    found = []
    for device in ("cpu", check.device):
        worker = worker_of(build(architecture).to(device), config, check, device)
        scaler = torch.amp.GradScaler(device, enabled=False)
        terms, *_ = worker.gradients([part], 0, 0, scaler, torch.zeros(KINDS, device=device))
        found.append({name: float(term) for name, term in terms.items()})
    apart = max(abs(found[0][name] - found[1][name]) / abs(found[0][name]) for name in found[0])
    return {"cpu": found[0], "device": found[1], "largest_relative": apart, "holds": apart < 1e-4}


def cost(check: Any, architecture: str, batch: tuple, settings: dict | None) -> dict[str, Any]:
    """Seconds a step, peak memory and the share of the card's peak; settings None is plain."""
    device = check.device
    part, ids, image_index, text_index = batch
    model = build(architecture).to(device)
    config = TrainConfig(negatives="rules", precision="bf16", **(settings or FSC))
    if config.tune == "lora":
        model = apply_lora(model)
    if config.activation_checkpointing:
        model.set_grad_checkpointing(True)
    parts = split(part, ids, image_index, text_index, config.accumulate)
    worker = worker_of(model, config, check, device)
    scaler = torch.amp.GradScaler(device, enabled=False)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        decay_groups(trainable, 0.1), lr=1e-12, **({"fused": True} if settings else {})
    )
    pixels, theirs = worker.pixels, [value.to(device) for value in (ids, image_index, text_index)]
    mask = part.negative_mask.to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if settings:
            worker.gradients(parts, 0, 0, scaler, torch.zeros(KINDS, device=device))
        else:
            images = pixels.normalise(part.images.to(device))
            with torch.autocast(device, torch.bfloat16):
                loss = plain_loss(model, images, *theirs, mask)
            loss.backward()
        optimizer.step()

    return timed_steps(check, step)


def timed_steps(check: Any, step: Any) -> dict[str, Any]:
    cuda = check.device == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(1 if check.tiny else 3):
        step()
    times = []
    for _ in range(1 if check.tiny else 10):
        begun = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    figures: dict[str, Any] = {"step_seconds": round(statistics.median(times), 5)}
    if cuda:
        figures["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    with FlopCounterMode(display=False) as counter:
        step()
    figures["tflop_a_step"] = round(counter.get_total_flops() / 1e12, 3)
    peak = next(
        (most for words, most in PEAK.items() if cuda and words in torch.cuda.get_device_name()), 0
    )
    if peak:
        reached = counter.get_total_flops() / figures["step_seconds"] / peak
        figures["mfu_percent"] = round(100 * reached, 1)
    return figures
