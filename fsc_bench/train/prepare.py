"""Prepare, the first stage of training: settings, place, data and model, and that they fit.

Nothing is built or written here: what a user can mend is found before that.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed

from fsc_bench.models import check_named, load_model, pick_device
from fsc_bench.models.trainable import Trainable, trainable_of
from fsc_bench.system.distributed import launched, open_group
from fsc_bench.train.anatomy import examine, told
from fsc_bench.train.batches import (
    HardNegatives,
    Pixels,
    Positives,
    check_batch,
    check_shares,
    pixels_of,
)
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.hard_negatives import hard_negatives
from fsc_bench.train.lora import apply_lora
from fsc_bench.train.material import check_place, look_for_data, open_material
from fsc_bench.train.mechanism import ProbeData, probe_data
from fsc_bench.train.progress import summary_writer
from fsc_bench.train.reach import freeze_unreached
from fsc_bench.train.schedule import split_dev
from fsc_bench.train.sources import Pairs
from fsc_bench.train.towers import Towers

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Processes:
    """This process among those of one training run."""

    rank: int
    count: int
    device: str

    @property
    def leader(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.count > 1:
            distributed.barrier()

    def any(self, here: bool) -> bool:
        """Whether it holds in any of the processes; all are here."""
        if self.count == 1:
            return here
        found = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(found)
        return bool(found)


@dataclass(frozen=True)
class Data:
    """The pairs of a run, how they are divided, and the texts that come with them."""

    pairs: Pairs
    chosen: np.ndarray  # the pairs that train
    held_out: np.ndarray  # the dev split's
    negatives: HardNegatives | None
    positives: Positives | None
    probe: ProbeData | None  # what training is looked at with
    tried: tuple[str, ...] = ()  # what a look at some of them found, for those who only look


@dataclass(frozen=True)
class Prepared:
    """Settings, place, data and model that fit each other."""

    recipe: Recipe
    out: Path
    existing: bool  # whether `out` holds a run, to be resumed
    processes: Processes
    say: Say
    data: Data
    adapter: Trainable
    pixels: Pixels
    towers: Towers

    @property
    def config(self) -> TrainConfig:
        return self.recipe.config


def prepare(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    links: Mapping[str, str] | None = None,
    say: Say = print,
) -> Prepared:
    """First what is cheap to find wrong: settings, places, and what makes hard negatives; then the
    model, and how it will train; then the data.
    """
    config = recipe.config
    check_named(config.model)
    processes = join_processes(config.device)
    say = say if processes.leader else _silent
    existing = check_place(out, resume)
    check_shares(config.batch_size, processes.count, config.accumulate)
    if config.tensorboard:
        summary_writer()
    look_for_data(recipe)
    negatives = hard_negatives(config)
    adapter, pixels, towers = ready_model(config, processes, say)
    data = open_data(recipe, negatives, links, processes, say)
    return Prepared(recipe, out, existing, processes, say, data, adapter, pixels, towers)


def join_processes(wanted: str) -> Processes:
    """Joins torchrun's group where it started us."""
    device = pick_device(wanted)
    if launched() == 1:
        return Processes(0, 1, device)
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    open_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(distributed.get_rank(), distributed.get_world_size(), device)


def ready_model(
    config: TrainConfig, processes: Processes, say: Say
) -> tuple[Trainable, Pixels, Towers]:
    """The model in float32, ready to train, with what it does to pixels, as the losses need it.

    How it will train is said; UsageError says why it cannot.
    """
    torch.manual_seed(config.seed)
    loaded = load_model(config.model, processes.device, "fp32")
    adapter = trainable_of(loaded, config.model)
    for note in adapter.extras.notes:
        say(note)
    pixels = pixels_of(adapter.preprocess, config.crop_scale)
    examine(adapter.model, config.model, config, processes.count)
    towers = Towers(adapter.model, tokens=bool(config.local_hn_weight))
    towers.train().requires_grad_(True)
    if config.tune == "lora":
        torch.manual_seed(config.seed)  # the factors' start, whatever loading drew
        apply_lora(
            adapter.model, config.lora_rank, config.lora_alpha, config.lora_init,
            config.lora_patch_embedding,
        )  # fmt: skip
    towers.probe(adapter.tokenizer)
    unreached = freeze_unreached(towers, config, adapter.tokenizer, pixels)
    for line in [*told(adapter.model, config.model, config, processes.count), *unreached]:
        say(line)
    if config.activation_checkpointing:
        adapter.model.set_grad_checkpointing(True)
    return adapter, pixels, towers


def open_data(
    recipe: Recipe,
    negatives: HardNegatives | None,
    links: Mapping[str, str] | None,
    processes: Processes,
    say: Say,
) -> Data:
    """The pairs, tried and split, with their hard negatives and paraphrases."""
    config = recipe.config
    material = open_material(recipe, negatives, links)
    for note in material.notes:
        say(note)
    pairs = material.pairs
    chosen, held_out = split_dev(pairs, config.dev_share, config.seed)
    check_batch(config.batch_size, len(chosen), processes.count, config.accumulate)
    probe = probe_data(config, pairs, chosen, held_out, links)
    return Data(pairs, chosen, held_out, negatives, material.positives, probe, material.tried)


def _silent(line: str) -> None:
    pass
