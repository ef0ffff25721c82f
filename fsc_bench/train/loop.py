"""The training loop: one story from a recipe to a run directory, in four stages.

`prepare` (prepare.py) finds what is wrong before anything is built, `build` (build.py) puts
together what a step needs, `take_steps` takes them, `leave_behind` writes the weights. One process
or many (`torchrun`), each with the whole model or a shard of it (`parallel`), one part a batch or
several (`accumulate`), interrupted or not: the same pairs in the same order, the same contrast over
the whole batch, the same weights.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fsc_bench.errors import DataError, RunError
from fsc_bench.models.run import read_facts, spec_of, suite_known
from fsc_bench.models.shortcuts import parts
from fsc_bench.system.files import write_json
from fsc_bench.system.settings import working
from fsc_bench.system.stopping import Left, asked
from fsc_bench.train import sharding
from fsc_bench.train.batches import AHEAD, Batches, Part, readers
from fsc_bench.train.build import Run, build, now
from fsc_bench.train.checkpoint import (
    BEST,
    RESUME,
    check_same_run,
    checkpoints,
    cut_metrics,
    read_checkpoint,
    read_json,
    save_best,
    save_checkpoint,
    save_folder,
    save_weights,
)
from fsc_bench.train.config import Recipe, TrainConfig
from fsc_bench.train.material import first_caption
from fsc_bench.train.objective import weighted
from fsc_bench.train.prepare import Say, prepare
from fsc_bench.train.progress import Progress
from fsc_bench.train.published import published_lines
from fsc_bench.train.schedule import hold_key_biases, hold_logit_scale, learning_rate
from fsc_bench.train.state import Best, Position
from fsc_bench.train.step import mean_report


def train(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    dry_run: bool = False,
    links: Mapping[str, str] | None = None,
    say: Say = print,
) -> Path:
    """Trains as `recipe` says and returns `out`, the run directory. Under torchrun, one of many.

    `links` say where image sources lie. `dry_run` stops before the first step: all is checked that
    can be without one, and nothing is written. Raises UsageError for settings that do not fit each
    other or an existing run, DataError for data that is absent or too damaged, RunError for a loss
    that is not finite or a full disk; the last good checkpoint stays, and `resume` goes on from it.
    """
    with working(tf32=recipe.config.tf32):
        prepared = prepare(recipe, out, resume=resume, links=links, say=say)
        run = build(prepared)
        if dry_run:
            rehearse(run)
            return out
        if run.mechanism is not None:
            run.mechanism.begin()  # before a checkpoint is read: the weights are the first ones
        position = start(run)
        if position is None:
            run.say("Nothing to do: the run is finished.")
            return out
        announce(run)
        position = take_steps(run, position)
        leave_behind(run, position)
    return out


# What a checkpoint holds, beside the weights, of where the run stands.
POSITION = ("trainable", "optimizer", "scaler", "teacher", "thresholds", "step", "bad_in_epoch",
            "best")  # fmt: skip


# --- Start: a run directory, new or found -------------------------------------------------------


def rehearse(run: Run) -> None:
    """What a dry run says. Raises UsageError where `out` holds another run."""
    data = run.prepared.data
    if run.prepared.existing:
        check_same_run(run.out, read_json(run.out / "config.json"), run.facts)
    chosen = len(data.chosen)
    run.say(f"{chosen:,} pairs, {run.steps:,} steps; first caption: {first_caption(data.pairs)!r}")
    for line in [*data.tried, *published_lines(run.prepared.recipe, run.facts["differences"])]:
        run.say(line)


def start(run: Run) -> Position | None:
    """The run directory, begun or taken up again from its last checkpoint; None if it is finished.

    Raises UsageError where `out` holds another run.
    """
    out, leader = run.out, run.processes.leader
    device = run.processes.device
    position = Position(torch.zeros(len(run.batches.kinds), device=device))
    run.processes.wait()  # all have looked before the first writes
    if run.prepared.existing:
        written = read_json(out / "config.json")
        check_same_run(out, written, run.facts)
        if "finished" in written:
            return None
        if saved := checkpoints(out):
            values = read_checkpoint(saved[-1], POSITION)
            run.state.restore(values)
            position = Position(
                values["thresholds"].to(device), values["step"], values["bad_in_epoch"],
                Best(**values["best"]),
            )  # fmt: skip
            run.say(f"Resuming {out} from step {position.done:,}")
    elif leader:
        write_json(out / "config.json", run.facts, RESUME)
    if leader:
        # The look before the first step is taken again too.
        cut_metrics(out / "metrics.jsonl", position.done or -1)
    return position


def announce(run: Run) -> None:
    """One line of what is about to happen, and what of it may be unexpected."""
    config, data, count = run.config, run.prepared.data, run.processes.count
    numbers = sum(p.numel() for p in run.state.trainable.values())
    run.say(
        f"{run.prepared.recipe.name}: {config.model}, {config.tune}, {numbers:,} parameters train; "
        f"{len(data.chosen):,} pairs, batch {config.batch_size} over {count} process"
        f"{'es' if count > 1 else ''}{', sharded' if run.sharded else ''}, {run.steps:,} steps; "
        "losses " + ", ".join(f"{name} x {weight:g}" for name, weight in config.weights.items())
    )
    if run.mechanism is not None:
        run.say(f"Probe: {run.mechanism.probe.words}, every {config.probe_every} steps.")
    if left_over := len(data.chosen) % config.batch_size:
        run.say(f"The last {left_over} pairs of each epoch's order are left out of it.")
    if config.local_hn_weight + config.global_hn_weight and config.missing == "zero":
        scale = float(run.model.logit_scale.detach().exp())
        if scale < 50:
            run.say(f"missing = zero at logit scale {scale:.0f}: absent negatives count. Use mask.")


# --- Step: batch after batch, logged and saved ---------------------------------------------------


def take_steps(run: Run, position: Position) -> Position:
    """All steps from `position` on, or those until the dev split says stop."""
    config, steps = run.config, run.steps
    progress = Progress(run.out, config, steps, run.say, run.processes.leader)
    if stops_early(config, position.best):
        steps = position.done  # it had stopped, and was killed before it wrote weights
    left = range(position.done, steps)
    if not position.done:
        look(run, 0, progress)
    for step, batch in zip(left, load(run.batches, left, config)):  # noqa: B905
        position, rate, report = one_step(run, position, step, batch)
        progress.log(position.done, rate, report, scales(run.model), position.bad_in_epoch)
        look(run, position.done, progress)
        if position.done % config.checkpoint_every == 0 or position.done == steps:
            position = save(run, position, progress)
            if stops_early(config, position.best):
                run.say(f"Stopped early: no better dev loss since step {position.best.step:,}.")
                break
        if position.done < steps and run.processes.any(asked()):
            progress.close()
            leave(run, position)
    progress.close()
    return position


def look(run: Run, step: int, progress: Progress) -> None:
    """Measures the probe after so many steps, where that is due; nothing of the run changes."""
    if run.mechanism is not None and run.mechanism.due(step, run.steps):
        progress.probe(step, run.mechanism.measure())


def one_step(
    run: Run, position: Position, step: int, batch: list[Part]
) -> tuple[Position, float, dict[str, float]]:
    """Moves the weights once. Returns where the run stands then, the rate and the step's report.

    Raises RunError for a loss that is not finite, before it moves anything, and DataError where
    too many pairs of an epoch could not be used.
    """
    config, optimizer, scaler = run.config, run.state.optimizer, run.state.scaler
    if step % run.batches.steps_per_epoch == 0:
        thresholds = torch.zeros_like(position.thresholds)  # CE-CLIP's curriculum
        position = replace(position, bad_in_epoch=0, thresholds=thresholds)
    rate = learning_rate(config, step, run.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    terms, following, accuracy = run.worker.gradients(
        batch, step, run.processes.rank, scaler, position.thresholds
    )
    if run.sharded:
        sharding.average_scalars(run.model)
    hold_key_biases(run.model)
    scaler.step(optimizer)
    scaler.update()
    hold_logit_scale(run.model)
    if run.state.teacher:
        run.state.teacher.update()
    # Read when all of the step is under way: reading waits for the GPU. What a loss that is not
    # finite did to the weights is never saved.
    report = mean_report(weighted(config, terms), terms, accuracy, batch)
    check_finite(run, step, report["loss"])
    bad = count_bad(run, position.bad_in_epoch, batch, int(report.pop("bad")))
    thresholds = position.thresholds if following is None else following
    position = replace(position, done=step + 1, bad_in_epoch=bad, thresholds=thresholds)
    return position, rate, report


def scales(model: nn.Module) -> dict[str, float]:
    """The logit scale, and the bias where there is one, as they are logged."""
    found = {"logit_scale": float(model.logit_scale.detach().exp())}
    if parts.logit_bias(model) is not None:
        found["logit_bias"] = float(model.logit_bias.detach())
    return found


def check_finite(run: Run, step: int, loss: float) -> None:
    if math.isfinite(loss):
        return
    kept = checkpoints(run.out)
    last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint"
    raise RunError(
        f"the loss became {loss} at step {step + 1}. Stopped before this step; {last}. Lower "
        "learning_rate, or use bf16 or fp32 instead of fp16."
    )


def count_bad(run: Run, before: int, batch: list[Part], more: int) -> int:
    """The epoch's unusable pairs with those of this batch, told; too many stop the run."""
    config, pairs = run.config, len(run.prepared.data.chosen)
    for reason in [line for part in batch for line in part.bad][:3]:
        run.say(f"skipped: {reason}")
    if before + more > config.bad_share * pairs:
        raise DataError(
            f"{before + more} pairs of this epoch could not be used, more than bad_share = "
            f"{config.bad_share} of {pairs:,}. Mend the data or raise it."
        )
    return before + more


def save(run: Run, position: Position, progress: Progress) -> Position:
    """A checkpoint, after a look at the dev split where there is one."""
    leader = run.processes.leader
    if run.dev is not None:
        loss, figures = run.worker.evaluate(run.dev, position.thresholds)
        position = replace(position, best=position.best.after(loss, position.done))
        progress.dev(position.done, loss, figures)
        if run.config.patience and position.best.step == position.done:
            weights = sharding.whole(run.state.weights(), keep=leader)
            if leader:
                save_best(run.out, weights)
    write_checkpoint(run, position)
    return position


def write_checkpoint(run: Run, position: Position) -> None:
    leader = run.processes.leader
    values = sharding.whole(run.state.values(), keep=leader)
    if leader:
        values |= {
            "thresholds": position.thresholds,
            "best": asdict(position.best),
            "bad_in_epoch": position.bad_in_epoch,
        }
        save_checkpoint(run.out, position.done, values, run.config.keep_checkpoints)
    run.processes.wait()


def leave(run: Run, position: Position) -> None:
    """Ends as SIGUSR1 asked: raises Left, after a checkpoint of this step. The dev split is not
    looked at, so that a run that goes on looks when one that never left does.
    """
    if position.done % run.config.checkpoint_every:
        write_checkpoint(run, position)
    raise Left(
        f"left after step {position.done:,} of {run.steps:,}, as SIGUSR1 asked. "
        "The same command with --resume continues."
    )


def stops_early(config: TrainConfig, best: Best) -> bool:
    return bool(config.patience) and best.since >= config.patience


def load(batches: Batches, steps: range, config: TrainConfig) -> Iterator[list[Part]]:
    """The batches of `steps`, read ahead by as many processes as `readers` allows."""
    workers = readers(config, batches)
    return iter(
        torch.utils.data.DataLoader(
            batches, batch_size=None, sampler=steps, num_workers=workers,
            pin_memory=torch.cuda.is_available(), prefetch_factor=AHEAD if workers else None,
        )
    )  # fmt: skip


# --- Leave behind: the weights, as `-m run:OUT` loads them -------------------------------------


def leave_behind(run: Run, position: Position) -> None:
    """Writes the last weights, or the best on the dev split, and marks the run finished."""
    out, leader, best = run.out, run.processes.leader, position.best
    if run.config.patience and best.step and (leader or run.sharded):
        run.state.restore_weights(read_checkpoint(out / BEST))
        run.say(f"The weights of step {best.step:,} are kept: the best on the dev split.")
    teacher = run.state.teacher
    weights = sharding.whole(run.model.state_dict(), keep=leader)
    average = sharding.whole(teacher.towers.model.state_dict(), keep=leader) if teacher else {}
    if leader:
        write_model(run, weights, average)
        trained = best.step if run.config.patience else position.done
        facts = read_json(out / "config.json")
        facts |= {"finished": now(), "trained_steps": trained}
        write_json(out / "config.json", facts, RESUME)
        for line in published_lines(run.prepared.recipe, run.facts["differences"]):
            run.say(line)
        suite = suite_known(read_facts(out)["skeleton"])
        where = f" -t {suite}" if suite else ""
        run.say(f"Written: {out}. Score it with `fsc-bench run{where} -m {spec_of(out)}`.")
    run.processes.wait()


def write_model(run: Run, weights: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
    """The last weights and their moving average, as the model's family loads them."""
    adapter = run.prepared.adapter
    if not adapter.saved:
        save_weights(run.out, weights, average, run.config)
        return
    name = adapter.saved.partition(":")[2]
    for place, state in ((name, weights), (f"{name}-ema", average)):
        if state:
            save_folder(run.out / place, adapter.folder(state))
