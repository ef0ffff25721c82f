"""The training loop: one story from a recipe to a run directory, told whole.

One process or many (`torchrun`), each with the whole model or a shard of it (`parallel`), one part
a batch or several (`accumulate`), interrupted or not: the same pairs in the same order, the same
contrast over the whole batch, the same weights.
"""

import contextlib
import datetime
import hashlib
import inspect
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fsc_bench import __version__
from fsc_bench.errors import DataError, RunError, UsageError
from fsc_bench.models import load_model, pick_device
from fsc_bench.models.open_clip import OpenClip
from fsc_bench.models.run import skeleton, spec_of
from fsc_bench.system.distributed import launched, open_group
from fsc_bench.system.files import write_atomically, write_json
from fsc_bench.system.memory import keep_memory
from fsc_bench.train import sharding
from fsc_bench.train.batches import Batches, Part, Pixels, check_batch, pixels_of
from fsc_bench.train.checkpoint import (
    SCHEMA,
    checkpoints,
    cut_metrics,
    read_checkpoint,
    read_json,
    save_checkpoint,
    write_tensors,
)
from fsc_bench.train.config import RESUMABLE, Recipe, TrainConfig
from fsc_bench.train.hard_negatives import hard_negatives
from fsc_bench.train.lora import apply_lora, factors, merge_reference_lora
from fsc_bench.train.losses import mean_row_count
from fsc_bench.train.objective import (
    Features,
    feature_terms,
    local_term,
    negative_accuracy,
    weighted,
)
from fsc_bench.train.paraphrases import paraphrases
from fsc_bench.train.sources import Pairs, keys_of, open_pairs
from fsc_bench.train.towers import Encoded, Teacher, Towers

PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "safetensors")
MAX_LOG_SCALE = math.log(100)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    links: Mapping[str, str] | None = None,
    say: Callable[[str], Any] = print,
) -> Path:
    """Trains as `recipe` says and returns `out`, the run directory. Under torchrun, one of many.

    `links` say where image sources lie. Raises UsageError for settings that do not fit each other
    or an existing run, DataError for data that is absent or too damaged, RunError for a loss that
    is not finite or a full disk; the last good checkpoint stays, and `resume` continues from it.
    """
    config = recipe.config
    rank, world, device = _processes(config.device)
    leader = rank == 0
    say = say if leader else _silent

    # --- data -------------------------------------------------------------------------------
    # First what is cheap to find wrong: settings, data and place; then the model.
    existing = (out / "config.json").is_file()
    if existing and not resume:
        raise UsageError(
            f"{out} holds a run already: --resume continues it, --out puts this one elsewhere."
        )
    if config.tensorboard:
        _summary_writer()
    pairs = open_pairs(config.data, keys_of(config), links)
    for note in getattr(pairs, "notes", ()):
        say(note)
    negatives = hard_negatives(config)
    positives = paraphrases(config, pairs)
    chosen, held_out = split_dev(pairs, config.dev_share, config.seed)
    check_batch(config.batch_size, len(chosen), world, config.accumulate)

    # --- model ------------------------------------------------------------------------------
    torch.manual_seed(config.seed)
    if device == "cpu":
        keep_memory()
    adapter = load_model(config.model, device, "fp32")
    if not isinstance(adapter, OpenClip):
        raise UsageError(f"model {config.model!r} cannot be trained: it is no open_clip model.")
    model, tokenizer, identity = adapter.model, adapter.tokenizer, asdict(adapter.identity)
    for note in getattr(adapter, "notes", ()):
        say(note)
    # After loading, which turns it off: scores are float32, training may be less.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
    model.train().requires_grad_(True)
    if config.tune == "lora":
        torch.manual_seed(config.seed)  # the factors' start, whatever loading drew
        apply_lora(
            model, config.lora_rank, config.lora_alpha, config.lora_init,
            config.lora_patch_embedding,
        )  # fmt: skip
    if config.activation_checkpointing:
        model.set_grad_checkpointing(True)
    towers = Towers(model, tokens=bool(config.local_hn_weight))
    sharded = config.parallel == "fsdp" and world > 1
    whole_blocks = sharded or config.activation_checkpointing or config.compile
    towers.probe(tokenizer, share=not whole_blocks)
    teacher = Teacher(towers, config.ema_decay) if config.ema_decay else None
    if sharded:
        for module in (towers, *([teacher.towers] if teacher else ())):
            sharding.shard(module, device)
    elif config.parallel == "fsdp":
        say("parallel = fsdp: one process holds everything, nothing is sharded.")

    # --- batches ----------------------------------------------------------------------------
    pixels = pixels_of(adapter.preprocess, config.crop_scale)
    common = {
        "tokenizer": tokenizer, "pixels": pixels, "seed": config.seed,
        "buckets": config.length_buckets if towers.trims else 0, "negatives": negatives,
        "positives": positives,
    }  # fmt: skip
    batches = Batches(
        pairs, chosen, **common, batch_size=config.batch_size, parts=config.accumulate,
        rank=rank, world=world,
    )  # fmt: skip
    dev = None
    if len(held_out):
        dev = Batches(
            pairs, held_out, **common, batch_size=min(config.batch_size, len(held_out)),
            augment=False,
        )  # fmt: skip
    steps = batches.steps_per_epoch * config.epochs
    steps = min(steps, config.max_steps) if config.max_steps else steps

    # --- optimiser --------------------------------------------------------------------------
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = decay_groups(trainable, config.weight_decay)
    if config.parallel == "fsdp":  # of one process too: its checkpoint may be resumed by two
        groups = sharding.separate_scalars(groups)
    optimizer = torch.optim.AdamW(
        groups, lr=config.learning_rate,
        betas=(config.beta1, config.beta2), eps=config.epsilon, fused=device != "mps",
    )  # fmt: skip
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=config.precision == "fp16")
    thresholds = torch.zeros(len(batches.kinds), device=device)
    best = {"loss": math.inf, "step": 0, "since": 0}

    # --- run directory, resumed or fresh ----------------------------------------------------
    facts = {
        "schema": SCHEMA,
        "fsc_bench": __version__,
        "recipe": recipe.name,
        "source": recipe.source,
        "expected": recipe.expected,
        "settings": config.settings(),
        "skeleton": skeleton(config.model, adapter.identity),
        "base": identity,
        "preprocess": getattr(model.visual, "preprocess_cfg", {}),
        "data": {"pairs": len(pairs), "dev": len(held_out), "fingerprint": pairs.fingerprint},
        "negatives": getattr(negatives, "version", config.negatives),
        "steps": steps,
        "processes": world,
        "versions": _versions(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    start, bad_in_epoch = 0, 0
    if world > 1:
        distributed.barrier()  # all have looked before the first writes
    if existing:
        _check_same_run(out, read_json(out / "config.json"), facts)
        if saved := checkpoints(out):
            state = read_checkpoint(saved[-1])
            start = state["step"]
            _restore(state, trainable, optimizer, scaler, teacher)
            thresholds, best = state["thresholds"].to(device), state["best"]
            say(f"Resuming {out} from step {start:,}")
            bad_in_epoch = state["bad_in_epoch"]
            if config.patience and best["since"] >= config.patience:
                steps = start  # it had stopped early, and was killed before it wrote weights
            if "finished" in read_json(out / "config.json"):
                say("Nothing to do: the run is finished.")
                return out
    elif leader:
        write_json(out / "config.json", facts)
    if leader:
        cut_metrics(out / "metrics.jsonl", start)

    # --- several processes, compilation -----------------------------------------------------
    if config.compile:
        if towers.open_image:
            model.visual.transformer.compile()
        towers.text.transformer.compile()
    encode: Any = towers
    if world > 1 and not sharded:
        # The buffers are constants; the argument that says so changed its name in torch 2.15.
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        encode = DistributedDataParallel(
            towers, device_ids=[torch.device(device).index] if "cuda" in device else None,
            gradient_as_bucket_view=True, **{sync: False},
        )  # fmt: skip
    worker = Worker(config, encode, pixels, device, teacher)

    count = sum(p.numel() for p in trainable.values())
    say(
        f"{recipe.name}: {config.model}, {config.tune}, {count:,} parameters train; "
        f"{len(chosen):,} pairs, batch {config.batch_size} over {world} process"
        f"{'es' if world > 1 else ''}{', sharded' if sharded else ''}, {steps:,} steps; losses "
        + ", ".join(f"{name} x {weight:g}" for name, weight in config.weights.items())
    )
    if left_over := len(chosen) % config.batch_size:
        say(f"The last {left_over} pairs of each epoch's order are left out of it.")
    if config.local_hn_weight + config.global_hn_weight and config.missing == "zero":
        scale = float(model.logit_scale.detach().exp())
        if scale < 50:
            say(f"missing = zero at logit scale {scale:.0f}: absent negatives count. Use mask.")

    # --- steps ------------------------------------------------------------------------------
    progress = Progress(out, config, steps, say, leader)
    done = start
    for step, batch in zip(range(start, steps), load(batches, range(start, steps), config)):  # noqa: B905
        if step % batches.steps_per_epoch == 0:
            bad_in_epoch = 0
            thresholds = torch.zeros_like(thresholds)  # CE-CLIP's curriculum
        rate = learning_rate(config, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate

        # What is random in a step comes from its number: nothing to save or to restore.
        optimizer.zero_grad(set_to_none=True)
        terms, following, accuracy = worker.gradients(batch, step, rank, scaler, thresholds)
        total = weighted(config, terms)
        report = _mean_report(total, terms, accuracy, batch, device)

        if not math.isfinite(report["loss"]):
            kept = checkpoints(out)
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint"
            raise RunError(
                f"the loss became {report['loss']} at step {step + 1}. Stopped before this "
                f"step; {last}. Lower learning_rate, or use bf16 or fp32 instead of fp16."
            )
        bad_in_epoch += int(report.pop("bad"))
        for reason in [line for part in batch for line in part.bad][:3]:
            say(f"skipped: {reason}")
        if bad_in_epoch > config.bad_share * len(chosen):
            raise DataError(
                f"{bad_in_epoch} pairs of this epoch could not be used, more than "
                f"bad_share = {config.bad_share} of {len(chosen):,}. Mend the data or raise it."
            )

        if sharded:
            sharding.average_scalars(model)
        hold_key_biases(model)
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            if model.logit_scale.requires_grad:
                model.logit_scale.clamp_(0, MAX_LOG_SCALE)
        if teacher:
            teacher.update()
        if following is not None:
            thresholds = following

        # --- log, checkpoint, stop early ----------------------------------------------------
        done = step + 1
        progress.log(done, rate, report, float(model.logit_scale.detach().exp()), bad_in_epoch)
        if done % config.checkpoint_every == 0 or done == steps:
            stop = False
            if dev is not None:
                loss, figures = worker.evaluate(dev, thresholds)
                improved = loss < best["loss"]
                best = (
                    {"loss": loss, "step": done, "since": 0}
                    if improved
                    else {**best, "since": best["since"] + 1}
                )
                progress.dev(done, loss, figures)
                stop = bool(config.patience) and best["since"] >= config.patience
                if improved and config.patience:
                    state = {n: p.detach() for n, p in trainable.items()}
                    state = sharding.whole(state, keep=leader)
                    place = out / "checkpoints" / "best.pt"
                    if leader:
                        write_atomically(place, lambda partial, s=state: torch.save(s, partial))
            state = _state(trainable, optimizer, scaler, teacher)
            state = sharding.whole(state, keep=leader)
            if leader:
                state |= {"thresholds": thresholds, "best": best, "bad_in_epoch": bad_in_epoch}
                save_checkpoint(out, done, state, config.keep_checkpoints)
            if world > 1:
                distributed.barrier()
            if stop:
                say(f"Stopped early: no better dev loss since step {best['step']:,}.")
                break

    # --- what is left behind ----------------------------------------------------------------
    if config.patience and best["step"] and (leader or sharded):
        _load_named(trainable, read_checkpoint(out / "checkpoints" / "best.pt"))
        say(f"The weights of step {best['step']:,} are kept: the best on the dev split.")
    weights = sharding.whole(model.state_dict(), keep=leader)
    average = sharding.whole(teacher.towers.model.state_dict(), keep=leader) if teacher else {}
    if leader:
        save_weights(out, weights, average, config)
        progress.close()
        write_json(
            out / "config.json",
            {
                **read_json(out / "config.json"),
                "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "trained_steps": best["step"] if config.patience else done,
            },
        )
        say(f"Written: {out}. Score it with `fsc-bench run -m {spec_of(out)}`.")
    if world > 1:
        distributed.barrier()
    return out


# --- A step's gradients -------------------------------------------------------------------------


@dataclass
class Worker:
    """What turns a batch into losses and gradients."""

    config: TrainConfig
    encode: nn.Module  # Towers, sharded or not, or DistributedDataParallel around them
    pixels: Pixels
    device: str
    teacher: Teacher | None

    def gradients(
        self, batch: list[Part], step: int, rank: int, scaler, thresholds: Tensor
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Adds the batch's gradients. Returns the terms, next thresholds and [hits, rows]."""
        config = self.config
        mask = torch.cat([part.negative_mask for part in batch]).to(self.device)
        rows = mean_row_count(mask)
        positive_mask = self._positive_mask(batch)
        taught = self._taught(batch)
        if len(batch) == 1:
            torch.manual_seed(_step_seed(config.seed, step, rank, 0))
            part = batch[0]
            encoded = self._forward(self.encode, part)
            features = Features.of(part, encoded)
            terms, following = feature_terms(
                config, features, mask, encoded.logit_scale, rows,
                positive_mask=positive_mask, teacher=taught, thresholds=thresholds,
            )  # fmt: skip
            if config.local_hn_weight:
                terms["local_hn"] = local_term(config, part, encoded, rows, encoded.logit_scale)
            scaler.scale(weighted(config, terms)).backward()
            return _detached(terms), following, negative_accuracy(features, mask)

        # Cached gradients (arXiv 2101.06983): encode all parts without a graph, take the gradient
        # of the whole batch's loss at the features, then encode part by part again and hand each
        # its share. A row's local loss needs nothing of other rows, so it is computed on the way.
        with torch.no_grad():
            cached = []
            for number, part in enumerate(batch):
                torch.manual_seed(_step_seed(config.seed, step, rank, number))
                encoded = self._forward(self._bare, part, tokens=False)
                cached.append(Features.of(part, encoded))
        joined = Features.join(cached)
        # Of the features one part after another, of the logit scale once.
        leaves = [joined.images, joined.texts, joined.positives]
        leaves = [leaf.detach().requires_grad_() for leaf in leaves if leaf is not None]
        scale = encoded.logit_scale.detach().requires_grad_()
        features = Features(*leaves)
        terms, following = feature_terms(
            config, features, mask, scale, rows, positive_mask=positive_mask, teacher=taught,
            thresholds=thresholds,
        )  # fmt: skip
        scaler.scale(weighted(config, terms)).backward()
        gradients = [
            leaf.grad if leaf.grad is not None else 0 * leaf.detach() for leaf in (*leaves, scale)
        ]
        local = []
        at = 0
        for number, part in enumerate(batch):
            last = number == len(batch) - 1
            silent = hasattr(self.encode, "no_sync") and not last
            with self.encode.no_sync() if silent else contextlib.nullcontext():
                torch.manual_seed(_step_seed(config.seed, step, rank, number))
                encoded = self._forward(self.encode, part)
                mine, span = Features.of(part, encoded), slice(at, at + len(part.images))
                surrogate = (mine.images * gradients[0][span]).sum()
                surrogate = surrogate + (mine.texts * gradients[1][span]).sum()
                if mine.positives is not None:
                    surrogate = surrogate + (mine.positives * gradients[2][span]).sum()
                surrogate = surrogate + encoded.logit_scale * (gradients[-1] if last else 0.0)
                if config.local_hn_weight:
                    term = local_term(config, part, encoded, rows, encoded.logit_scale)
                    local.append(term.detach())
                    surrogate = surrogate + scaler.scale(config.local_hn_weight * term)
                surrogate.backward()
            at = span.stop
        if local:
            terms["local_hn"] = torch.stack(local).sum()
        return _detached(terms), following, negative_accuracy(features, mask)

    @torch.no_grad()
    def evaluate(self, dev: Batches, thresholds: Tensor) -> tuple[float, dict[str, float]]:
        """The mean loss on the dev split and, in percent, accuracy and recall within a batch."""
        totals, hits, count = [], torch.zeros(2), torch.zeros(3)
        self._bare.eval()
        for step in range(dev.steps_per_epoch):
            batch = dev[step]
            mask = torch.cat([part.negative_mask for part in batch]).to(self.device)
            part = batch[0]
            rows = mask.any(1).sum().clamp_min(1).float()
            encoded = self._forward(self._bare, part)
            features = Features.of(part, encoded)
            terms, _ = feature_terms(
                self.config, features, mask, encoded.logit_scale, rows,
                positive_mask=self._positive_mask(batch), teacher=self._taught(batch),
                thresholds=thresholds, gather=_same,
            )  # fmt: skip
            if self.config.local_hn_weight:
                terms["local_hn"] = local_term(
                    self.config, part, encoded, rows, encoded.logit_scale
                )
            totals.append(float(weighted(self.config, terms)))
            hits += negative_accuracy(features, mask).cpu()
            similarity = features.images @ features.texts[:, 0].T
            target = torch.arange(len(similarity), device=similarity.device)
            i2t = (similarity.argmax(1) == target).sum().cpu()
            t2i = (similarity.argmax(0) == target).sum().cpu()
            count += torch.stack([i2t, t2i, torch.tensor(len(target))])
        self._bare.train()
        figures = {"i2t": float(100 * count[0] / count[2]), "t2i": float(100 * count[1] / count[2])}
        if hits[1]:
            figures["negatives"] = float(100 * hits[0] / hits[1])
        return float(np.mean(totals)), figures

    @property
    def _bare(self) -> Towers:
        return getattr(self.encode, "module", self.encode)

    def _forward(self, encode: nn.Module, part: Part, tokens: bool = True) -> Encoded:
        images = self.pixels.normalise(part.images.to(self.device, non_blocking=True))
        ids = [block.ids.to(self.device, non_blocking=True) for block in part.texts]
        ends = [block.end.to(self.device, non_blocking=True) for block in part.texts]
        dtype = DTYPES.get(self.config.precision)
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=dtype, enabled=dtype is not None):
            return encode(images, ids, ends, tokens)

    def _positive_mask(self, batch: list[Part]) -> Tensor | None:
        if batch[0].positive_mask is None:
            return None
        return torch.cat([part.positive_mask for part in batch]).to(self.device)

    @torch.no_grad()
    def _taught(self, batch: list[Part]) -> Features | None:
        wanted = self.config.text_grounded_weight or self.config.distillation_weight
        if self.teacher is None or not wanted:
            return None
        parts = [(part, self._forward(self.teacher.towers, part, tokens=False)) for part in batch]
        return Features.join([Features.of(part, encoded) for part, encoded in parts])


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _step_seed(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest())


# --- Schedule, groups, split --------------------------------------------------------------------


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear over `warmup_steps`, then a cosine to 0: the reference's, stepped per iteration."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def decay_groups(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict]:
    """The reference's two groups: no decay for vectors, norms, biases and the logit scale."""

    def plain(name: str, value: nn.Parameter) -> bool:
        return value.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    none = [value for name, value in parameters.items() if plain(name, value)]
    some = [value for name, value in parameters.items() if not plain(name, value)]
    groups = [
        {"params": none, "weight_decay": 0.0},
        {"params": some, "weight_decay": weight_decay},
    ]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def hold_key_biases(model: nn.Module) -> None:
    """Zeros the gradients of attention's key biases, of which softmax takes no notice.

    They are zero but for rounding, and AdamW follows that as far as it follows any other gradient:
    after twenty steps another number of processes had moved them 1e-5, and all else 1e-7.
    """
    for module in model.modules():
        bias = getattr(module, "in_proj_bias", None)
        if isinstance(module, nn.MultiheadAttention) and bias is not None and bias.grad is not None:
            kept = torch.ones(3, len(bias) // 3, device=bias.device, dtype=bias.dtype)
            kept[1] = 0
            bias.grad *= sharding.part_of(kept.flatten(), bias.grad)


def split_dev(pairs: Pairs, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, dev) indices: by image, so that no image is on both sides."""
    if not share:
        return np.arange(len(pairs)), np.arange(0)

    def drawn(key: str) -> float:
        digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    held_out = np.array([drawn(key) < share for key in pairs.keys])
    if held_out.sum() < 2:
        raise UsageError(
            f"dev_share = {share} of {len(pairs):,} pairs is fewer than 2 pairs: raise it."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def load(batches: Batches, steps: range, config: TrainConfig) -> Iterator[list[Part]]:
    """The batches of `steps`, read ahead by `config.workers` processes."""
    return iter(
        torch.utils.data.DataLoader(
            batches, batch_size=None, sampler=steps, num_workers=config.workers,
            pin_memory=torch.cuda.is_available(), prefetch_factor=2 if config.workers else None,
        )
    )  # fmt: skip


# --- Processes ----------------------------------------------------------------------------------


def _processes(wanted: str) -> tuple[int, int, str]:
    """(rank, processes, device); joins torchrun's group where it started us."""
    device = pick_device(wanted)
    if launched() == 1:
        return 0, 1, device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    open_group("nccl" if device.startswith("cuda") else "gloo")
    return distributed.get_rank(), distributed.get_world_size(), device


def _mean_report(
    total: Tensor, terms: Mapping[str, Tensor], accuracy: Tensor, batch: list[Part], device: str
) -> dict[str, float]:
    """Of all processes: loss, terms, accuracy over hard negatives in percent, unusable pairs."""
    bad = sum(len(part.bad) for part in batch)
    numbers = torch.stack(
        [total.detach(), *terms.values(), *accuracy, total.new_tensor(float(bad))]
    ).double()
    world = 1
    if distributed.is_available() and distributed.is_initialized():
        world = distributed.get_world_size()
        distributed.all_reduce(numbers)
    *parts, hits, rows, bad = numbers.tolist()
    loss, *values = (part / world for part in parts)
    report = {"loss": loss, **dict(zip(terms, values, strict=True)), "bad": bad}
    if rows:
        report["negative_accuracy"] = 100 * hits / rows
    return report


# --- State --------------------------------------------------------------------------------------


def _state(trainable, optimizer, scaler, teacher) -> dict[str, Any]:
    return {
        "trainable": {name: value.detach() for name, value in trainable.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "teacher": dict(teacher.towers.named_parameters()) if teacher else {},
    }


def _restore(state, trainable, optimizer, scaler, teacher) -> None:
    _load_named(trainable, state["trainable"])
    sharding.load_optimizer(optimizer, state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    if teacher:
        _load_named(dict(teacher.towers.named_parameters()), state["teacher"])


@torch.no_grad()
def _load_named(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    if parameters.keys() != values.keys():
        raise UsageError("the checkpoint is of another model: its weights have other names.")
    for name, parameter in parameters.items():
        parameter.copy_(sharding.part_of(values[name], parameter))


def _check_same_run(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A resumed run must be the same run. Raises UsageError that names the first difference."""
    # A setting that an older version did not know had the value that now switches it off.
    before, now = {**TrainConfig().settings(), **old.get("settings", {})}, new["settings"]
    for name in now:
        if name not in RESUMABLE and before.get(name) != now[name]:
            raise UsageError(
                f"{out} was started with {name} = {before.get(name)!r}, not {now[name]!r}: resume "
                "with the same settings, or choose another --out."
            )
    for name, what in (("base", "the model"), ("data", "the data"), ("negatives", "negatives")):
        if json.dumps(old.get(name)) != json.dumps(new[name]):
            raise UsageError(
                f"{out} was started from other contents of {what}: choose another --out."
            )


def save_weights(
    out: Path, weights: Mapping[str, Tensor], average: Mapping[str, Tensor], config: TrainConfig
) -> None:
    """model.safetensors (LoRA merged), and the factors and the moving average where there are."""
    facts = {"fsc_bench": __version__}
    if config.tune == "lora":
        write_tensors(
            out / "lora.safetensors", factors(weights),
            {**facts, "rank": str(config.lora_rank), "alpha": str(config.lora_alpha)},
        )  # fmt: skip

    for name, state in (("model", weights), ("ema", average)):
        if state:
            merged = merge_reference_lora(state, config.lora_alpha)
            write_tensors(out / f"{name}.safetensors", merged, facts)


# --- Telling ------------------------------------------------------------------------------------


class Progress:
    """Lines for people, metrics.jsonl for programs, TensorBoard where it is wanted."""

    def __init__(self, out: Path, config: TrainConfig, steps: int, say, leader: bool):
        self.out, self.config, self.steps, self.say, self.leader = out, config, steps, say, leader
        self.began, self.images = time.perf_counter(), 0
        self.board = None
        if config.tensorboard and leader:
            self.board = _summary_writer()(str(out / "tensorboard"))

    def log(self, step: int, rate: float, report: dict, scale: float, bad: int) -> None:
        self.images += self.config.batch_size
        if step % self.config.log_every and step not in (1, self.steps):
            return
        seconds = time.perf_counter() - self.began
        speed, self.began, self.images = self.images / seconds, time.perf_counter(), 0
        line = {
            "step": step, "learning_rate": rate, **report, "logit_scale": scale,
            "unusable_pairs": bad, "images_per_second": speed, "memory_mb": _memory(),
        }  # fmt: skip
        self._write(line)
        parts = " ".join(
            f"{name} {report[name]:.4f}" for name in self.config.weights if name in report
        )
        accuracy = report.get("negative_accuracy")
        self.say(
            f"step {step:,}/{self.steps:,}  loss {report['loss']:.4f} ({parts})"
            + (f"  negatives {accuracy:.1f}%" if accuracy is not None else "")
            + f"  scale {scale:.1f}  {speed:.1f} images/s  {line['memory_mb']:,} MB"
        )

    def dev(self, step: int, loss: float, figures: dict[str, float]) -> None:
        self._write({"step": step, "dev_loss": loss, **{f"dev_{k}": v for k, v in figures.items()}})
        words = "  ".join(f"{name} {value:.1f}%" for name, value in figures.items())
        self.say(f"dev at {step:,}: loss {loss:.4f}  {words}")
        self.began, self.images = time.perf_counter(), 0

    def _write(self, line: dict[str, Any]) -> None:
        if not self.leader:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise RunError(f"{self.out / 'metrics.jsonl'}: cannot be written: {error}") from None
        if self.board:
            for name, value in line.items():
                if name != "step":
                    self.board.add_scalar(name, value, line["step"])

    def close(self) -> None:
        if self.board:
            self.board.close()


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard = true: `pip install tensorboard` first.") from None
    return SummaryWriter


def _memory() -> int:
    """Megabytes: the GPU's peak, or else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _silent(line: str) -> None:
    pass
