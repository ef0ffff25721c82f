"""Kills, SIGTERMs and dead launchers: the same command continues, and ends with equal results.

    python tests/attack/stops.py [--kills 40] [--terms 20] [--agents 3] [--only run train agent]

`run` scores a small model on a small benchmark; `train` trains one with LoRA and a moving average.
Each is stopped at random moments until it comes through, again and again. A SIGTERM must end with
143 and its line; afterwards results, weights and average equal the undisturbed ones, and no file is
left that those have not. `agent`: torchrun's agent is killed, and its workers must end by
themselves within a minute.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

import fault_runs  # noqa: E402
from fault_runs import World, environment_with, results, same  # noqa: E402

LINE = re.compile(r"fsc-bench: stopped\. The same command( with --resume)? continues\.")
MINUTE = 60.0
EXIT = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Stops:
    """What was done to a command, and what was wrong with it."""

    def __init__(self, name: str):
        self.name, self.done, self.through, self.faults = name, 0, 0, []
        self.begun = time.monotonic()

    def report(self) -> int:
        print(
            f"{self.name}: {self.done} stops, {self.through} times to the end; "
            f"{len(self.faults)} faults; {time.monotonic() - self.begun:.0f} s",
            flush=True,
        )
        for fault in self.faults[:8]:
            print(f"  {fault:.600}")
        return bool(self.faults)


def disturb(
    stops: Stops,
    command: list[str],
    how: signal.Signals,
    count: int,
    seconds: float,
    fresh: Callable[[], list[str]],
    check: Callable[[], str],
) -> None:
    """Starts a command and stops it, `count` times in all; whenever it comes through, what it left
    is checked, and it begins anew (`fresh` gives the command).
    """
    luck = random.Random(int(how))
    command = fresh()
    while stops.done < count:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment_with(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=luck.uniform(0.3, 1.05) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            try:
                _, said = process.communicate(timeout=MINUTE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                stops.faults.append(f"{how.name}: did not end within a minute")
                continue
            stops.done += 1
            stopped_well(stops, process.returncode, said, how)
            if process.returncode != 0:
                continue
        if process.returncode != 0:
            stops.faults.append(f"exit {process.returncode}: {said[-500:]}")
            command = fresh()
            continue
        stops.through += 1
        if why := check():
            stops.faults.append(why)
        command = fresh()
    done = subprocess.run(command, capture_output=True, text=True, env=environment_with())
    if done.returncode or (why := check()):
        stops.faults.append(f"at last: exit {done.returncode} {done.stderr[-300:]} {why}")
    stops.through += 1


def stopped_well(stops: Stops, code: int, said: str, how: signal.Signals) -> None:
    if "Traceback" in said:
        stops.faults.append(f"{how.name}: {said[-500:]}")
    # Before Python has read our code, a signal ends it as it ends any program; and it may be late.
    if how == signal.SIGKILL or code in (0, -how):
        return
    if code != EXIT[how] or not LINE.search(said):
        stops.faults.append(f"{how.name}: exit {code}, {said[-300:]!r}")


def names(folder: Path) -> set[str]:
    """Files below a folder; locks and databases come and go."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    passing = re.compile(r"\.lock$|\.sqlite|\.(vec|idx|log)$|\.running$|superseded/")
    return {name for name in found if not passing.search(name)}


def leftovers(folder: Path) -> set[str]:
    return {name for name in names(folder) if name.endswith((".part", ".tmp", ".running"))}


# ---------------------------------------------------------------- run


def attack_run(folder: Path, kills: int, terms: int) -> list[Stops]:
    fault_runs.IMAGES, fault_runs.SAMPLES = 60, {"replace_obj": 90, "swap_obj": 70}
    world = World(folder)
    begun = time.monotonic()
    first = world.run(world.data("truth"), folder / "truth-out")
    seconds = time.monotonic() - begun
    assert first.returncode == 0, first.stderr
    truth = results(folder / "truth-out")
    print(f"run, undisturbed: {seconds:.1f} s", flush=True)
    place = {"number": 0}

    def fresh() -> list[str]:
        place["number"] += 1
        data = world.data(f"data{place['number']}")
        return world.command(data, folder / f"out{place['number']}")

    def check() -> str:
        out = folder / f"out{place['number']}"
        if not same(results(out), truth):
            return "results differ from the undisturbed run's"
        data = folder / f"data{place['number']}"
        left = leftovers(out) | leftovers(data)
        return f"left behind: {sorted(left)}" if left else ""

    return _each("run", kills, terms, seconds, fresh, check)


# ---------------------------------------------------------------- train


def attack_train(folder: Path, kills: int, terms: int) -> list[Stops]:
    table = training_data(folder)
    place = {"number": 0}

    def command(out: Path) -> list[str]:
        settings = [
            "tune=lora", "ema_decay=0.9", "learning_rate=1e-3", "batch_size=8", "max_steps=60",
            "checkpoint_every=4", "warmup_steps=5", "device=cpu", "epochs=20",
        ]  # fmt: skip
        model = f"py:{ROOT / 'tests' / 'tiny_open_clip.py'}:load"
        start = [sys.executable, "-m", "fsc_bench", "train", "clip", "--model", model, "--resume"]
        sets = [word for setting in settings for word in ("--set", setting)]
        return [*start, "--data", f"coco-tsv:{table}", "-o", str(out), *sets]

    begun = time.monotonic()
    first = subprocess.run(
        command(folder / "truth"), capture_output=True, text=True, env=environment_with()
    )
    seconds = time.monotonic() - begun
    assert first.returncode == 0, first.stderr
    truth = weights(folder / "truth")
    print(f"train, undisturbed: {seconds:.1f} s, {sorted(truth)}", flush=True)

    def fresh() -> list[str]:
        place["number"] += 1
        return command(folder / f"out{place['number']}")

    def check() -> str:
        out = folder / f"out{place['number']}"
        found = weights(out)
        if found != truth:
            different = [name for name in truth if found.get(name) != truth[name]]
            return f"differs from the undisturbed training: {different}"
        left = names(out) - names(folder / "truth")
        return f"left behind: {sorted(left)}" if left else ""

    return _each("train", kills, terms, seconds, fresh, check)


def weights(out: Path) -> dict[str, dict[str, bytes]]:
    """Every tensor of every file of weights, the moving average's and LoRA's among them."""
    from safetensors.numpy import load_file

    files = {path.name: load_file(path) for path in out.glob("*.safetensors")}
    return {
        file: {name: tensor.tobytes() for name, tensor in tensors.items()}
        for file, tensors in files.items()
    }


def training_data(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    (folder / "val2014").mkdir()
    rows = ["title\tfilepath"]
    for number in range(64):
        pixels = noise.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / f"{number}.jpg")
        rows.append(f"a picture of {number} things\tcoco/val2014/{number}.jpg")
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    return folder / "train.tsv"


def _each(
    what: str, kills: int, terms: int, seconds: float, fresh: Callable, check: Callable
) -> list[Stops]:
    found = []
    for how, count in [(signal.SIGKILL, kills), (signal.SIGTERM, terms), (signal.SIGINT, terms)]:
        if count:
            stops = Stops(f"{what}, {how.name}")
            disturb(stops, [], how, count, seconds, fresh, check)
            found.append(stops)
            stops.report()
    return found


# ---------------------------------------------------------------- the agent


def attack_agent(folder: Path, count: int) -> list[Stops]:
    """kill -9 of torchrun's agent, at the start and in the middle: who is left a minute later?"""
    world = World(folder)
    stops = Stops("agent")
    luck = random.Random(3)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    for number in range(count):
        data, out = world.data(f"agent{number}"), folder / f"agent-out{number}"
        command = world.command(data, out, launcher=(*launcher, "fsc_bench"))
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment_with()
        )
        while not (workers := of_world(str(out), process.pid)):
            time.sleep(0.05)
        time.sleep(luck.uniform(0.0, 8.0) if number else 0.0)
        process.kill()
        process.wait()
        stops.done += 1
        begun = time.monotonic()
        while (workers := of_world(str(out), process.pid)) and time.monotonic() - begun < MINUTE:
            time.sleep(0.5)
        for worker in workers:
            stops.faults.append(f"worker {worker} is still there after a minute")
            os.kill(worker, signal.SIGKILL)
    stops.report()
    return [stops]


def of_world(out: str, agent: int) -> list[int]:
    """Processes that name this output folder, but for the agent."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != agent:
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if out.encode() in words:
                found.append(int(place.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["run", "train", "agent"])
    chosen = parser.parse_args()
    found = []
    for name in chosen.only:
        with tempfile.TemporaryDirectory() as folder:
            if name == "agent":
                found += attack_agent(Path(folder), chosen.agents)
            else:
                attack = attack_run if name == "run" else attack_train
                found += attack(Path(folder), chosen.kills, chosen.terms)
    sys.exit(any(stops.faults for stops in found))


if __name__ == "__main__":
    main()
