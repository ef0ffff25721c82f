"""Runs that are killed, starved, damaged and crowded: afterwards the same command finishes, and its
results equal the undisturbed run's bit for bit.

    python tests/fault_runs.py [--kills 100] [--only WORDS]

Takes a few minutes: every run is a process of its own. Needs no network, GPU or benchmark data; the
full disk is a small tmpfs where that may be mounted, else a limit on the size of files.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TASK = """
title = "Faults"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
within = "samples"
[subsets]
replace_obj = {first}
swap_obj = {second}
[data]
reader = "sugarcrepe"
sources = [{{ images = "coco/val2017" }}]
"""

# The demo's model, which open_clip runs, slowed down so that there is time to be killed in.
ADAPTER = """
import os, random, time
import torch
from fsc_bench.demo.adapter import load as load_demo
from fsc_bench.system.spec import Spec

def load(device, precision):
    torch.set_num_threads(2)
    model = load_demo(Spec.read("demo:pretrained"), device, precision)
    images, texts = model.encode_images, model.extras.trees.encode
    refuses = float(os.environ.get("FAULT_OOM", 0))
    luck = random.Random(os.getpid())

    def disturbed(encode):
        def call(*batch):
            time.sleep(0.02)
            if luck.random() < refuses:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return encode(*batch)
        return call

    model.encode_images, model.extras.trees.encode = disturbed(images), disturbed(texts)
    return model
"""
IMAGES, SAMPLES = 240, {"replace_obj": 500, "swap_obj": 300}


class World:
    """Images, annotations and the command that scores them, in a folder."""

    def __init__(self, folder: Path):
        from draw_images import draw

        self.folder = folder
        self.images = folder / "val2017"
        (folder / "raw").mkdir()
        for number in range(IMAGES):
            draw(self.images / f"{number:012d}.jpg")
        words = tuple(
            [
                "red",
                "green",
                "blue",
                "small",
                "large",
                "round",
                "striped",
                "wooden",
                "old",
                "bright",
            ]
        )
        things = tuple(
            ["dog", "cat", "chair", "table", "bicycle", "bird", "car", "boat", "lamp", "tree"]
        )
        rng = random.Random(0)
        for subset, count in SAMPLES.items():
            rows = {}
            for number in range(count):
                parts = [
                    f"a {rng.choice(words)} {rng.choice(things)}" for _ in range(1 + number % 7)
                ]
                text = f"{number} " + " and ".join(parts)
                rows[str(number)] = {
                    "filename": f"{number % IMAGES:012d}.jpg",
                    "caption": text,
                    "negative_caption": text.replace("a ", "no ", 1) + f" {subset}",
                }
            (folder / "raw" / f"{subset}.json").write_text(json.dumps(rows))
        first, second = SAMPLES.values()
        (folder / "faults.toml").write_text(TASK.format(first=first, second=second))
        (folder / "adapter.py").write_text(ADAPTER)

    def data(self, name: str) -> Path:
        """A fresh data folder that links the images."""
        data = self.folder / name
        data.mkdir(exist_ok=True)
        links = {"faults": str(self.folder / "raw"), "coco/val2017": str(self.images)}
        (data / "links.json").write_text(json.dumps(links))
        return data

    def command(self, data: Path, out: Path, *more: str, launcher: tuple = ()) -> list[str]:
        model = f"py:{self.folder / 'adapter.py'}:load"
        where = ["-t", str(self.folder / "faults.toml"), "-o", str(out), "--data", str(data)]
        start = [sys.executable, *(launcher or ("-m", "fsc_bench"))]
        return [*start, "run", "-m", model, "--batch-size", "16", *where, *more]

    def run(self, data: Path, out: Path, launcher: tuple = (), **environment: str):
        return subprocess.run(
            self.command(data, out, launcher=launcher),
            capture_output=True,
            text=True,
            timeout=600,
            env=environment_with(**environment),
        )


def environment_with(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **more}


def results(out: Path) -> tuple:
    (result,) = out.rglob("tasks/faults.json")
    (samples,) = out.rglob("samples/faults.parquet")
    return result.read_bytes(), pq.read_table(samples)


def same(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and one[1].equals(other[1])


def finish(world: World, data: Path, out: Path, truth: tuple, launcher: tuple = (), **env) -> str:
    done = world.run(data, out, launcher, **env)
    assert done.returncode == 0, done.stderr
    assert same(results(out), truth), "results differ from the undisturbed run's"
    return done.stderr


def killed(world: World, truth: tuple, seconds: float, kills: int) -> str:
    """kill -9 at random moments, again and again on the same folders until a run comes through."""
    luck, done, finished, with_work = random.Random(1), 0, 0, 0
    while done < kills:
        finished += 1
        data, out = world.data(f"killed{finished}"), world.folder / f"killed-out{finished}"
        while done < kills:
            process = subprocess.Popen(
                world.command(data, out),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment_with(),
            )
            try:
                # Later kills come later, so that each folder gets finished after some.
                process.wait(luck.uniform(0.1, 1.0) * seconds)
                assert process.returncode == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                with_work += any(file.stat().st_size for file in data.rglob("*.idx"))
        finish(world, data, out, truth)
    return f"{done} kills ({with_work} with vectors on disk), {finished} folders finished"


def two_at_once(world: World, truth: tuple) -> str:
    data = world.data("two")
    outs = [world.folder / "two-out1", world.folder / "two-out2"]
    processes = [
        subprocess.Popen(world.command(data, out), stderr=subprocess.PIPE, env=environment_with())
        for out in outs
    ]
    for process, out in zip(processes, outs, strict=True):
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert same(results(out), truth)
    return "two runs on one store, both equal"


def full_disk(world: World, truth: tuple) -> str:
    """The data folder, the results, or both run out of space, at several places of the work."""
    said = []
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/mnt"],
                             capture_output=True).returncode == 0  # fmt: skip
    if mounted:
        subprocess.run(["umount", "/mnt"], check=True)
    for kilobytes in (60, 150, 250, 400, 600):
        if mounted:
            folder = world.folder / f"disk{kilobytes}"
            folder.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
            subprocess.run(mount, check=True)
            try:
                data, out = world.data(f"disk{kilobytes}"), folder / "out"
                done = world.run(data, out)
                lines = done.stderr.strip().splitlines()
                assert done.returncode == 1, (kilobytes, done.returncode, done.stderr)
                assert "Traceback" not in done.stderr, done.stderr
                said.append(lines[-1])
                grow = ["mount", "-o", "remount,size=100m", str(folder)]
                subprocess.run(grow, check=True)
                finish(world, data, out, truth)
            finally:
                subprocess.run(["umount", str(folder)], check=True)
        else:
            data, out = world.data(f"disk{kilobytes}"), world.folder / f"disk-out{kilobytes}"
            limit = kilobytes * 1024
            done = subprocess.run(
                world.command(data, out),
                capture_output=True,
                text=True,
                env=environment_with(),
                preexec_fn=lambda limit=limit: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (limit, limit)
                ),
            )
            said.append(done.stderr.strip().splitlines()[-1])
            assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
            finish(world, data, out, truth)
    kinds = sorted({line.rpartition("/")[2][:90] for line in said})
    return f"{'tmpfs' if mounted else 'RLIMIT_FSIZE'}, {len(said)} sizes; " + " | ".join(kinds)


def damaged_segment(world: World, truth: tuple) -> str:
    data = world.data("segment")
    finish(world, data, world.folder / "segment-out0", truth)
    luck, said = random.Random(2), 0
    for trial in range(4):
        for file in sorted(data.rglob("*.vec"))[-2:]:
            with file.open("r+b") as content:
                for _ in range(3):
                    content.seek(luck.randrange(file.stat().st_size // 2))
                    content.write(bytes([luck.randrange(256)]))
        errors = finish(world, data, world.folder / f"segment-out{trial + 1}", truth)
        said += errors.count("damaged")
    return f"4 times bytes changed in segments; {said} lines said so"


def damaged_image(world: World, truth: tuple) -> str:
    data, out = world.data("image"), world.folder / "image-out"
    image = world.images / f"{137:012d}.jpg"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    try:
        done = world.run(data, out)
        assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert image.name in line
    finally:
        image.write_bytes(content)
    finish(world, data, out, truth)
    return f"exit 3: ...{line[line.index(image.name) :][:80]}"


def out_of_memory(world: World, truth: tuple) -> str:
    shrunk = 0
    for trial in range(3):
        data, out = world.data(f"memory{trial}"), world.folder / f"memory-out{trial}"
        shrunk += finish(world, data, out, truth, FAULT_OOM="0.1").count("now ")
    return f"3 runs, a tenth of all batches refused; {shrunk} batches had to shrink"


def many_processes(world: World, truth: tuple) -> str:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    launcher = (*launcher, "-m", "fsc_bench")
    data, out = world.data("ranks"), world.folder / "ranks-out"
    finish(world, data, out, truth, launcher)
    rows = sum(file.stat().st_size for file in data.rglob("*.idx")) // 40
    unique = json.loads(results(out)[0])
    files = len(list(data.rglob("*.vec")))
    data, out = world.data("ranks-killed"), world.folder / "ranks-killed-out"
    process = subprocess.Popen(
        world.command(data, out, launcher=launcher),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment_with(),
    )
    while process.poll() is None:
        sizes = [file.stat().st_size for file in data.rglob("*.idx")]
        if len(sizes) > 2 and sum(sizes) > 40 * 300:
            break
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert process.poll() is None and len(children) >= 2, "finished before one could be killed"
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    kept = sum(file.stat().st_size for file in data.rglob("*.idx")) // 40
    finish(world, data, out, truth, launcher)
    return (
        f"2 processes, {rows:,} vectors in {files} segments, none twice (n {unique['n']}); "
        f"one killed with {kept:,} kept, finished"
    )


def jobs(world: World, truth: tuple) -> str:
    """Three commands on one output folder divide eight control models among them."""
    data, out = world.data("jobs"), world.folder / "jobs-out"
    models = [f"control:chance?seed={seed}" for seed in range(8)]
    where = ["-t", str(world.folder / "faults.toml"), "-o", str(out), "--data", str(data)]
    command = [sys.executable, "-m", "fsc_bench", "run", *where]
    for model in models:
        command += ["-m", model]
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment_with())
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    scored = [sum("faults  text" in line for line in text.splitlines()) for text in errors]
    assert len(list(out.rglob("tasks/faults.json"))) == len(models)
    assert sum(scored) == len(models), (scored, errors)
    return f"8 models by 3 commands: {scored}, each once"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=[])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        begun = time.time()
        done = world.run(world.data("truth"), world.folder / "truth-out")
        seconds = time.time() - begun
        assert done.returncode == 0, done.stderr
        truth = results(world.folder / "truth-out")
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        faults = {
            "kill": lambda: killed(world, truth, seconds, chosen.kills),
            "two": lambda: two_at_once(world, truth),
            "disk": lambda: full_disk(world, truth),
            "segment": lambda: damaged_segment(world, truth),
            "image": lambda: damaged_image(world, truth),
            "memory": lambda: out_of_memory(world, truth),
            "ranks": lambda: many_processes(world, truth),
            "jobs": lambda: jobs(world, truth),
        }
        for name, fault in faults.items():
            if not chosen.only or name in chosen.only:
                begun = time.time()
                print(f"{name:8} {fault()}  ({time.time() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
