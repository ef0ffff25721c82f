"""Whole commands: a suite twice, what a run adds to encoder and decoder, two processes against one,
clip_benchmark's command against ours, and many checkpoints as jobs against the cost model.

    python tests/bench/bench_runs.py [second overhead processes cli jobs ...]

`cli` needs the `clip_benchmark` command. Where NumPy is 2.4 or newer, that fails in its own
accuracy function: name one of an environment with an older NumPy,
CLIP_BENCHMARK=FOLDER/bin/clip_benchmark.
Everything here is drawn; no benchmark's data is needed.
"""

import inspect
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from bench_engine import photos, row  # noqa: E402

DECODING = """
import numpy as np
from fsc_bench.models import Extras, load_model

def load(device, precision):
    # open_clip's transform, and an encoder that costs nothing: the mean of 8x8 fields.
    model = load_model("open_clip:ViT-B-32/random?seed=0", device, precision)

    class Halves(Extras):
        pixels = model.extras.pixels

    class Fields:
        identity, device = model.identity, model.device
        preprocess, extras = staticmethod(model.preprocess), Halves()

        def encode_images(self, images):
            n = len(images)
            fields = images.numpy().reshape(n, 3, 8, 28, 8, 28)
            rows = fields.mean(axis=(3, 5)).reshape(n, -1) + 1e-3
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

        def encode_texts(self, texts):
            rows = [np.random.default_rng(len(t)).normal(size=192) for t in texts]
            return np.stack([r / np.linalg.norm(r) for r in rows])

    return Fields()
"""
TASK = """
title = "{name}"
suite = "mine"
group = "{group}"
kind = "{kind}"
version = 1
headline = ["{headline}"]
chance = {chance}
{more}
"""


class Clock:
    """Time inside the encoder and waiting for decoded pictures, over all Encoders."""

    def __init__(self):
        from fsc_bench.embed import encode

        self.calls = {"images": 0, "texts": 0}
        self.encoder = self.decoder = 0.0
        engine = encode.Encoder
        for name, kind in (
            ("images_at_once", "images"),
            ("tokens_at_once", "texts"),
            ("tree_at_once", "texts"),
            ("strings_at_once", "texts"),
        ):
            setattr(engine, name, self._timed(getattr(engine, name), kind))
        engine.loaded = self._waited(engine.loaded)

    def _timed(self, function: Callable, kind: str) -> Callable:
        def call(encoder, *args):
            self.calls[kind] += 1
            begun = time.perf_counter()
            result = function(encoder, *args)
            self.encoder += time.perf_counter() - begun
            return result

        return call

    def _waited(self, function: Callable) -> Callable:
        def generate(encoder, *args):
            source = function(encoder, *args)
            while True:
                begun = time.perf_counter()
                item = next(source, None)
                self.decoder += time.perf_counter() - begun
                if item is None:
                    return
                yield item

        return generate

    def rest_of(self, owner: Any, name: str) -> list[float]:
        """Seconds of each call from now on that are neither encoder nor decoder."""
        function, spent = getattr(owner, name), []

        def call(*args):
            begun = time.perf_counter() - self.encoder - self.decoder
            try:
                return function(*args)
            finally:
                spent.append(time.perf_counter() - self.encoder - self.decoder - begun)

        setattr(owner, name, call)
        return spent

    def reset(self) -> None:
        self.calls.update(images=0, texts=0)
        self.encoder = self.decoder = 0.0


def _demo(data: Path, times: int = 1) -> list:
    """Draws the demo suite, with `times` as many records in every subset, and gives its tasks."""
    from fsc_bench.data.prepare import prepare
    from fsc_bench.demo import build, raw
    from fsc_bench.task import select

    tasks = select(["demo"], [])
    if times == 1:
        build.build(data, lambda line: None)
        return tasks
    found = []
    for task in tasks:
        recipe = build._recipe(task)
        usual = inspect.signature(raw.recipe_module(recipe).write).parameters["n"].default
        raw.write(recipe, data / "raw" / task.name, data / "images", n=times * usual)
        larger = replace(task, counts={})
        counts = Counter(row.subset for row in prepare(larger, data, partial=True).records)
        found.append(replace(larger, subsets=_counted(task.subsets, counts)))
    shutil.rmtree(data / "prepared")
    return found


def _counted(tree: Mapping, counts: Mapping[str, int]) -> dict:
    return {
        name: _counted(node, counts) if isinstance(node, Mapping) else counts[name]
        for name, node in tree.items()
    }


def second(folder: Path) -> None:
    """The demo world's suite, first and second time."""
    from fsc_bench.run.suite import Options, run

    clock, data = Clock(), folder / "data"
    tasks = _demo(data)
    begun = time.perf_counter()
    done = run(["demo:pretrained"], tasks, Options(data, folder / "out"))
    first, made = time.perf_counter() - begun, dict(clock.calls)
    assert done.exit_code == 0
    clock.reset()
    begun = time.perf_counter()
    again = run(["demo:pretrained"], tasks, Options(data, folder / "out2"))
    seconds = time.perf_counter() - begun
    assert clock.calls == {"images": 0, "texts": 0}
    for name, result in done.results["demo:pretrained"].items():
        other = again.results["demo:pretrained"][name]
        assert json.dumps(vars(result), default=str) == json.dumps(vars(other), default=str)
    row(
        f"demo suite again, {len(tasks)} tasks",
        f"{first:.1f} s ({made}) -> {seconds:.1f} s, 0 encoder calls, results equal",
        "0 calls",
    )


def overhead(folder: Path, times: int = 10) -> None:
    """One run over the demo suite's 23 tasks with ten times the records: all of it, from raw files
    to results, less encoder calls and waiting for decoded pictures. (Of scanned digits there are
    only three times as many.)

    Two encoders, since the share depends on what an embedding costs: the demo's tiny tower, and
    ViT-B/32, whose time is not spent but added (its own, from `calibrate`).
    """
    import pandas  # noqa: F401  pyarrow does, when it first makes a table

    from fsc_bench.data.images import Images
    from fsc_bench.embed.encode import Encoder
    from fsc_bench.embed.store import Store
    from fsc_bench.models import load_model
    from fsc_bench.results import RunDirectory
    from fsc_bench.run import suite as runner

    load_model("demo:pretrained", "cpu")  # imports are no part of what grows
    data = folder / "data"
    tasks = _demo(data, times)
    clock = Clock()
    parts = {
        "prepare": clock.rest_of(runner, "_prepare"),
        "plan": clock.rest_of(runner, "make_plan"),
        "store, batches": clock.rest_of(runner, "_encode_together"),
        "evaluate": clock.rest_of(runner, "evaluate"),
        "write": clock.rest_of(RunDirectory, "write_result"),
    }
    begun = time.perf_counter()
    done = runner.run(["demo:pretrained"], tasks, runner.Options(data, folder / "out"))
    whole = time.perf_counter() - begun
    assert done.exit_code == 0
    records = sum(task.n for task in tasks)
    unique = np.zeros(2, np.int64)
    for store in (data / "embeddings").iterdir():
        for segment in Store(store).segments.values():
            unique[int(segment.kind == "text")] += len(segment.records)
    encoder, decoder = clock.encoder, clock.decoder
    rest = whole - encoder - decoder
    model = load_model("open_clip:ViT-B-32/random?seed=0", "cpu")
    from fsc_bench.embed.cost import calibrate

    cost = calibrate(Encoder(model, Images(folder), Store(folder / "none")))
    large = cost["image"] * unique[0] + cost["text"] * unique[1]
    seconds = {name: sum(spent) for name, spent in parts.items()}
    seconds["other"] = rest - sum(seconds.values())
    row(
        f"demo suite x {times} in one run, neither encoder nor decoder: {records:,} records, "
        f"{unique[0]:,} images, {unique[1]:,} texts",
        f"{rest:.1f} s ({', '.join(f'{name} {spent:.1f}' for name, spent in seconds.items())}); "
        f"the demo's encoder {encoder:.1f} s, decoder waits {decoder:.1f} s: "
        f"{100 * rest / whole:.1f}%; were it ViT-B/32 ({large:.0f} s): "
        f"{100 * rest / (rest + large):.1f}%",
        "5%",
    )


def processes(folder: Path, n: int = 1500) -> None:
    """Decode-bound work: one process on one core, on all cores, and two that torchrun starts."""
    images, raw, data = folder / "images", folder / "raw", folder / "data"
    images.mkdir()
    raw.mkdir()
    for number, content in enumerate(photos(min(n, 300))):
        for copy in range(-(-n // 300)):  # other bytes after the end: other pictures
            (images / f"{number + 300 * copy:012d}.jpg").write_bytes(content + bytes([copy]))
    rows = {
        str(i): {"filename": f"{i:012d}.jpg", "caption": f"a {i}", "negative_caption": f"no {i} x"}
        for i in range(n)
    }
    (raw / "replace_obj.json").write_text(json.dumps(rows))
    more = f'within = "samples"\n[subsets]\nreplace_obj = {n}\n[data]\nreader = "sugarcrepe"\n'
    more += 'sources = [{ images = "coco/val2017" }]'
    settings = {"group": "compositionality", "kind": "matching", "headline": "text", "chance": 50.0}
    task = folder / "photos.toml"
    task.write_text(TASK.format(name="Photos", more=more, **settings))
    (folder / "decoding.py").write_text(DECODING)

    def command(name: str, launcher: Sequence[str], cores: str) -> tuple[float, tuple]:
        own, out = data / name, folder / f"out-{name}"
        shutil.rmtree(own, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        own.mkdir(parents=True)
        links = {"photos": str(raw), "coco/val2017": str(images)}
        (own / "links.json").write_text(json.dumps(links))
        model = f"py:{folder / 'decoding.py'}:load"
        where = ["-t", str(task), "-o", str(out), "--data", str(own)]
        start = ["taskset", "-c", cores, sys.executable, *launcher, "-m", "fsc_bench"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*start, "run", "-m", model, *where],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        (facts,) = out.glob("*/run.json")
        (result,) = out.rglob("tasks/photos.json")
        (samples,) = out.rglob("samples/photos.parquet")
        seconds = json.loads(facts.read_text())["seconds"]["photos"]  # without the imports
        return seconds, (result.read_bytes(), pq.read_table(samples))

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ratios, threads = [], []
    for _ in range(3):
        one, first = command("one", [], "0")
        both, alone = command("both", [], "0,1")
        two, ranks = command("two", torchrun, "0,1")
        assert first[0] == alone[0] == ranks[0]
        assert first[1].equals(alone[1]) and first[1].equals(ranks[1])
        ratios.append(one / two)
        threads.append(one / both)
    row(
        f"{n:,} JPEGs, decode-bound: one process on one core ({one:.1f} s) to two processes "
        f"({two:.1f} s)",
        f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}-{max(ratios):.2f}]; one process's "
        f"threads on both cores {statistics.median(threads):.2f}x; results equal bit for bit",
        "1.6x",
    )


CLASSES = ("airplane", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "car")


def cli(folder: Path, n: int = 400) -> None:
    """The same WebDataset classification task, model and batch: wall time from start to result."""
    from fsc_bench.models import load_model
    from fsc_bench.task import catalogue

    program = os.environ.get("CLIP_BENCHMARK") or shutil.which("clip_benchmark")
    if not program:
        raise SystemExit("cli: there is no clip_benchmark command; set CLIP_BENCHMARK.")
    templates = next(iter(catalogue()["cifar10"].prompts.values())).templates
    weights = folder / "weights.pt"
    torch.save(load_model("open_clip:ViT-B-32/random?seed=0", "cpu").model.state_dict(), weights)
    wds = folder / "wds"
    (wds / "test").mkdir(parents=True)
    labels = np.random.default_rng(0).integers(0, len(CLASSES), n)
    files, shards = photos(n), 2  # clip_benchmark needs a shard for each of its workers
    for shard in range(shards):
        with tarfile.open(wds / "test" / f"{shard}.tar", "w") as archive:
            for number in range(shard, n, shards):
                label = str(labels[number]).encode()
                for ending, part in (("jpg", files[number]), ("cls", label)):
                    info = tarfile.TarInfo(f"s{number:07d}.{ending}")
                    info.size = len(part)
                    archive.addfile(info, io.BytesIO(part))
    (wds / "test" / "nshards.txt").write_text(str(shards))
    (wds / "classnames.txt").write_text("\n".join(CLASSES))
    lines = [text.replace("{}", "{c}") for text in templates]
    (wds / "zeroshot_classification_templates.txt").write_text("\n".join(lines))
    more = f"[subsets]\ntest = {n}\n[classes]\nnames = {json.dumps(CLASSES)}\n"
    more += f"[prompts.mine]\ntemplates = {json.dumps(list(templates))}\n"
    more += '[data]\nreader = "wds"\nsources = []'
    settings = {"group": "classification", "kind": "classification", "headline": "accuracy"}
    task = folder / "shards.toml"
    task.write_text(TASK.format(name="Shards", more=more, chance=10.0, **settings))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}

    def theirs() -> float:
        output = folder / "theirs.json"
        output.unlink(missing_ok=True)
        command = [program, "eval", "--dataset", "wds/shards", "--dataset_root", str(wds)]
        command += ["--model", "ViT-B-32", "--pretrained", str(weights), "--no_amp"]
        command += ["--batch_size", "32", "--num_workers", "2", "--output", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(output.read_text())["metrics"]["acc1"]

    def ours() -> float:
        data, out = folder / "data", folder / "out"
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        data.mkdir()
        (data / "links.json").write_text(json.dumps({"shards": str(wds)}))
        model = f"open_clip:ViT-B-32@{weights}?activation=gelu"
        command = [sys.executable, "-m", "fsc_bench", "run", "-m", model, "-t", str(task)]
        command += ["--data", str(data), "-o", str(out), "--batch-size", "32", "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        (results,) = json.loads(done.stdout)["results"].values()
        return results["shards"]["metrics"]["headline"]["accuracy"]["value"] / 100

    ratios, times = [], []
    for _ in range(3):
        begun = time.perf_counter()
        one = theirs()
        middle = time.perf_counter()
        other = ours()
        times.append((middle - begun, time.perf_counter() - middle))
        assert round(one * n) == round(other * n), (one, other)
        ratios.append(times[-1][0] / times[-1][1])
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
    row(
        f"clip_benchmark eval, {n} images of a WebDataset, {len(CLASSES)} classes x "
        f"{len(templates)} templates",
        f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}-{max(ratios):.2f}] "
        f"({seconds[0]:.1f} s -> {seconds[1]:.1f} s); {round(one * n)} of {n} right, both",
        "more than 1x",
    )


def jobs(folder: Path, models: int = 1000, at_once: int = 4) -> None:
    """A thousand checkpoints as a job array, played with control models, against the cost model.

    On paper (distributed.py): models x (load + encode + score) / jobs, and the images hashed once.
    One model's cost is measured alone; then `at_once` commands divide all of them on one folder.
    """
    from fsc_bench.demo.build import build
    from fsc_bench.task import select

    data, out = folder / "data", folder / "out"
    build(data, lambda line: None)
    (task,) = select(["demo_winoground"], [])

    def command(first: int, count: int, out: Path) -> list[str]:
        start = [sys.executable, "-m", "fsc_bench", "run", "-t", task.name, "--data", str(data)]
        chosen = [f"control:chance?seed={seed}" for seed in range(first, first + count)]
        return [*start, "-o", str(out), *(word for spec in chosen for word in ("-m", spec))]

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(commands: list[list[str]]) -> float:
        begun = time.perf_counter()
        running = [
            subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
            for c in commands
        ]
        for process in running:
            _, errors = process.communicate()
            assert process.returncode == 0, errors.decode()[-2000:]
        return time.perf_counter() - begun

    run([command(5000, 1, folder / "warm")])  # hashes the images, fills the page cache
    start = run([command(6000, 1, folder / "one")])
    alone = (run([command(7000, 41, folder / "some")]) - start) / 40
    cores = len(os.sched_getaffinity(0))
    expected = start + alone * models / min(at_once, cores)
    seconds = run([command(0, models, out)] * at_once)
    found = list(out.glob("*/tasks/demo_winoground.json"))
    assert len(found) == models
    row(
        f"{models:,} control models by {at_once} commands on {cores} cores",
        f"{seconds:.0f} s; on paper {expected:.0f} s (a start {start:.1f} s, a model "
        f"{alone:.2f} s), {seconds / expected:.2f} of it; each model scored once",
        "the model within 25%",
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    print("| what | measured | goal |\n| --- | --- | --- |")
    for name in sys.argv[1:] or ["second", "overhead", "processes", "cli", "jobs"]:
        with tempfile.TemporaryDirectory() as scratch:
            globals()[name](Path(scratch))
