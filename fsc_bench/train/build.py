"""Build, the second stage of training: everything a step needs, put together and not yet moved.

Of several processes each builds the same; what is sharded or averaged between them is decided here.
"""

import datetime
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fsc_bench import __version__
from fsc_bench.models.run import skeleton
from fsc_bench.train import sharding
from fsc_bench.train.batch_norm import synchronise
from fsc_bench.train.batches import Batches, Pixels
from fsc_bench.train.checkpoint import SCHEMA, versions
from fsc_bench.train.config import TrainConfig
from fsc_bench.train.mechanism import Mechanism, make_probe
from fsc_bench.train.prepare import Prepared, Processes, Say
from fsc_bench.train.published import differences
from fsc_bench.train.schedule import decay_groups
from fsc_bench.train.state import State
from fsc_bench.train.step import Worker
from fsc_bench.train.towers import Teacher, Towers


@dataclass(frozen=True)
class Run:
    """A run with all that its steps need; what they change is `state` and a Position."""

    prepared: Prepared
    model: nn.Module
    sharded: bool
    batches: Batches
    dev: Batches | None
    steps: int
    worker: Worker
    state: State
    mechanism: Mechanism | None
    facts: dict[str, Any]  # of config.json

    @property
    def config(self) -> TrainConfig:
        return self.prepared.config

    @property
    def out(self) -> Path:
        return self.prepared.out

    @property
    def processes(self) -> Processes:
        return self.prepared.processes

    @property
    def say(self) -> Say:
        return self.prepared.say


def build(prepared: Prepared) -> Run:
    """The moving average, shards, batches, optimiser and processes of a run. Writes nothing."""
    config, processes = prepared.config, prepared.processes
    towers, model, device = prepared.towers, prepared.adapter.model, processes.device
    teacher = Teacher(towers, config.ema_decay) if config.ema_decay else None
    sharded = config.parallel == "fsdp" and processes.count > 1
    if sharded:
        for module in (towers, *([teacher.towers] if teacher else ())):
            sharding.shard(module, device)
    elif config.parallel == "fsdp":
        prepared.say("parallel = fsdp: one process holds everything, nothing is sharded.")
    batches, dev = make_batches(prepared)
    steps = batches.steps_per_epoch * config.epochs
    steps = min(steps, config.max_steps) if config.max_steps else steps

    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=config.precision == "fp16")
    state = State(model, trainable, make_optimizer(config, trainable, device), scaler, teacher)
    encode: nn.Module = towers
    if config.compile:
        compile_blocks(towers)
    if processes.count > 1 and not sharded:
        synchronise(towers)
        encode = distribute(towers, device)
    worker = Worker(config, encode, batches.pixels, device, teacher)
    mechanism = make_mechanism(prepared, batches.pixels, sharded)
    facts = run_facts(prepared, steps)
    if mechanism is not None:
        facts["probe"] = mechanism.probe.words
    return Run(prepared, model, sharded, batches, dev, steps, worker, state, mechanism, facts)


def make_batches(prepared: Prepared) -> tuple[Batches, Batches | None]:
    """The batches that train, this process's share of them, and those of the dev split."""
    config, data, processes = prepared.config, prepared.data, prepared.processes
    common = {
        "tokenizer": prepared.adapter.tokenizer,
        "pixels": prepared.pixels,
        "seed": config.seed,
        "buckets": config.length_buckets if prepared.towers.trims else 0,
        "layout": prepared.towers.layout,
        "negatives": data.negatives,
        "positives": data.positives,
    }
    batches = Batches(
        data.pairs, data.chosen, **common, batch_size=config.batch_size, parts=config.accumulate,
        rank=processes.rank, world=processes.count,
    )  # fmt: skip
    dev = None
    if len(data.held_out):
        dev = Batches(
            data.pairs, data.held_out, **common,
            batch_size=min(config.batch_size, len(data.held_out)), augment=False,
        )  # fmt: skip
    return batches, dev


def make_mechanism(prepared: Prepared, pixels: Pixels, sharded: bool) -> Mechanism | None:
    """What looks at similarities during training; None where the config asks for no look."""
    config, data, towers = prepared.config, prepared.data.probe, prepared.towers
    if data is None:
        return None
    probe = make_probe(data, towers, prepared.adapter.tokenizer, pixels, config.pairs_seed)
    return Mechanism(probe, towers, sharded, pixels, prepared.processes.device, config)


def make_optimizer(
    config: TrainConfig, trainable: Mapping[str, nn.Parameter], device: str
) -> torch.optim.Optimizer:
    groups = decay_groups(trainable, config.weight_decay)
    if config.parallel == "fsdp":  # of one process too: its checkpoint may be resumed by two
        groups = sharding.separate_scalars(groups)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate,
        betas=(config.beta1, config.beta2), eps=config.epsilon, fused=device != "mps",
    )  # fmt: skip


def compile_blocks(towers: Towers) -> None:
    if towers.open_image:
        towers.model.visual.transformer.compile()
    towers.text.transformer.compile()


def distribute(towers: Towers, device: str) -> nn.Module:
    """DistributedDataParallel: every process holds all weights, gradients are averaged."""
    # Buffers are constants, or worked out alike by all processes. The argument that says so changed
    # its name in torch 2.15.
    known = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(
        towers, device_ids=[torch.device(device).index] if "cuda" in device else None,
        gradient_as_bucket_view=True, **{sync: False},
    )  # fmt: skip


def run_facts(prepared: Prepared, steps: int) -> dict[str, Any]:
    """What config.json tells: the recipe, the model and the data it started from, versions."""
    recipe, config, data = prepared.recipe, prepared.config, prepared.data
    identity = prepared.adapter.identity
    return {
        "schema": SCHEMA,
        "fsc_bench": __version__,
        "recipe": recipe.name,
        "source": recipe.source,
        "expected": recipe.expected,
        "differences": [
            str(one) for one in differences(recipe, len(data.pairs), prepared.processes.count)
        ],
        "settings": config.settings(),
        "skeleton": skeleton(config.model, identity),
        **({"saved": prepared.adapter.saved} if prepared.adapter.saved else {}),
        "base": asdict(identity),
        "preprocess": getattr(prepared.adapter.model.visual, "preprocess_cfg", {}),
        "data": {
            "pairs": len(data.pairs),
            "dev": len(data.held_out),
            "fingerprint": data.pairs.fingerprint,
        },
        "negatives": getattr(data.negatives, "version", config.negatives),
        "steps": steps,
        "processes": prepared.processes.count,
        "versions": versions(),
        "started": now(),
    }


def now() -> str:
    """The time in UTC, to the second, as config.json holds it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
