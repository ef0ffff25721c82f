"""The engine against what it replaces: ratios of interleaved trials, exactness asserted first.

    FSC_BENCH_REAL_DATA=FOLDER python tests/bench/bench_engine.py [text prompts suite ...]

FOLDER holds the benchmarks' own annotation files; the pictures are drawn. The model is ViT-B/32
with random weights: speed and rounding do not depend on what it has learned. Whole commands are
in bench_runs.py.
"""

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

REPEATS = int(os.environ.get("BENCH_REPEATS", "5"))


def compare(baseline: Callable, ours: Callable, repeats: int = 0) -> tuple[float, str]:
    """(median ratio, words) of baseline time to ours, in turns; each is run once before."""
    baseline(), ours()
    ratios, times = [], []
    for _ in range(repeats or REPEATS):
        begun = time.perf_counter()
        baseline()
        middle = time.perf_counter()
        ours()
        times.append((middle - begun, time.perf_counter() - middle))
        ratios.append(times[-1][0] / times[-1][1])
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
    middle = statistics.median(ratios)
    words = f"{middle:.2f}x [{min(ratios):.2f}-{max(ratios):.2f}]"
    return middle, f"{words} ({seconds[0]:.3f} s -> {seconds[1]:.3f} s)"


def row(name: str, value: str, goal: str) -> None:
    print(f"| {name} | {value} | {goal} |", flush=True)


def vit():
    from fsc_bench.models import load_model

    return load_model("open_clip:ViT-B-32/random?seed=0", "cpu")


def photos(n: int) -> list[bytes]:
    """JPEGs of 640x480 and 480x640, quality 90, about 110 KB each."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(n):
        size = (640, 480) if number % 2 else (480, 640)
        coarse = rng.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(size).filter(ImageFilter.GaussianBlur(1))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


# ---------------------------------------------------------------- text


def text() -> None:
    """256 captions: padded to the context as open_clip's users do, and as the engine does it."""
    rng = np.random.default_rng(0)
    words = (
        "a", "the", "dog", "man", "woman", "red", "blue", "table", "on", "in", "with", "holding",
        "large", "two", "grass",
    )  # fmt: skip
    captions = [
        " ".join([*rng.choice(words, int(rng.integers(6, 19))), str(number)])
        for number in range(256)
    ]
    _texts("captions", captions)


def prompts() -> None:
    """The same for class names in templates, which begin alike."""
    from fsc_bench.task import catalogue

    task = catalogue()["cifar10"]
    templates = next(iter(task.prompts.values())).templates
    _texts("CIFAR-10 prompts", [t.replace("{}", name) for name in task.classes for t in templates])


def _texts(what: str, captions: list[str]) -> None:
    from fsc_bench.data.images import Images
    from fsc_bench.embed.encode import Encoder
    from fsc_bench.embed.plan import Plan, text_digests
    from fsc_bench.embed.store import Store
    from fsc_bench.models.shortcuts.prefixes import Tree

    model = vit()
    ids, lengths = model.extras.tokens.ids(captions)
    tree = Tree.of(sorted((row[:n] for row, n in zip(ids, lengths, strict=True)), key=tuple))
    plan = Plan({}, {}, text_digests(captions), 0, 0)
    keys = list(plan.text_key.values())

    def padded(size: int = 64) -> np.ndarray:
        parts = [captions[i : i + size] for i in range(0, len(captions), size)]
        return np.concatenate([model.encode_texts(part).numpy() for part in parts])

    def engine() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            Encoder(model, Images(Path(folder)), store).encode(plan)
            return store.get("text", keys)

    noise = np.abs(padded() - padded(1)).max()
    error = np.abs(engine() - padded()).max()
    assert error <= max(2 * noise, 1e-6), (error, noise)
    _, words = compare(padded, engine)
    row(
        f"text, {len(captions)} {what} of {lengths.mean():.1f} tokens, "
        f"{len(tree.token) / len(captions):.1f} of them told apart, fp32",
        f"{words}; max difference {error:.1e}, batches of 1 and 64 differ by {noise:.1e}",
        f"{0.8 * 77 / lengths.mean():.1f}x = 0.8 x 77 / mean length",
    )


# ---------------------------------------------------------------- a suite


def _readable(reader, task, raw) -> list:
    """Every record of the annotation files that FOLDER has: of VALSE's ten some are not given."""
    from fsc_bench.errors import DataError

    if not hasattr(reader, "read_piece"):
        return list(reader.read(task, raw))
    found = []
    for subset in task.leaves:
        try:
            found += reader.read_piece(task, raw, subset)
        except DataError:
            print(f"(no {task.name}/{subset})", file=sys.stderr)
    return found


def suite() -> None:
    """Records of four real benchmarks: every sample its own images and texts, and the engine."""
    from draw_images import draw

    from fsc_bench.data.images import DigestCache, Images
    from fsc_bench.data.prepare import Prepared
    from fsc_bench.data.raw import Raw
    from fsc_bench.data.readers import load_reader
    from fsc_bench.embed.encode import Encoder
    from fsc_bench.embed.plan import make_plan, merged
    from fsc_bench.embed.store import Store
    from fsc_bench.score import matching, retrieval
    from fsc_bench.score.evaluate import Embeddings, evaluate
    from fsc_bench.score.scoring import text_numbers
    from fsc_bench.task import catalogue

    real = Path(os.environ["FSC_BENCH_REAL_DATA"])
    model = vit()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        chosen = []
        for name, share in (
            ("sugarcrepe", 40),
            ("valse", 32),
            ("crepe", 20),
            ("coco_karpathy", 16),
        ):
            task = catalogue()[name]
            if name == "crepe":  # FOLDER has the files of one complexity each
                data_of = replace(task.data, options={**task.data.options, "files": "n4-12"})
                task = replace(task, subsets={"atom": 16727}, counts={}, data=data_of)
            reader = load_reader(task.data.reader, name)
            records = [r for r in _readable(reader, task, Raw(task, real / name)) if r.scored]
            pictures = list(dict.fromkeys(ref.path for r in records for ref in r.images))
            kept = set(pictures[:: max(1, len(pictures) // share)][:share])
            records = [r for r in records if all(ref.path in kept for ref in r.images)]
            chosen.append(Prepared(task, records, "", data))
            for source, path in {(ref.source, ref.path) for r in records for ref in r.images}:
                draw(data / "images" / source / path, (640, 480))
        images = Images(data)

        def each_sample() -> list:
            found = []
            for item in chosen:
                rows = []
                for record in item.records:  # as the benchmarks' own scripts do
                    pixels = [
                        model.preprocess(images.open(item.task.name, ref)) for ref in record.images
                    ]
                    with torch.no_grad():
                        v = model.model.encode_image(torch.stack(pixels), normalize=True)
                        ids = model.tokenizer(list(record.texts))
                        t = model.model.encode_text(ids, normalize=True)
                    rows.append((v.numpy(), t.numpy()))
                found.append(rows)
            return found

        calls = {}

        def engine() -> list:
            with tempfile.TemporaryDirectory() as fresh:
                store = Store(Path(fresh) / "store")
                cache = DigestCache(Path(fresh) / "digests.sqlite")
                encoder = Encoder(model, images, store)
                results = []
                plans = [make_plan(item, images, cache) for item in chosen]
                encoder.encode(merged(plans))  # as run/suite.py does with small tasks
                for item, plan in zip(chosen, plans, strict=True):
                    samples = evaluate(item, Embeddings(plan, store), model)[1].columns
                    results.append((plan, samples))
                calls.update(
                    images=sum(len(s.records) for s in store.segments.values() if s.kind == "image")
                )
                return results

        decided = 0
        uses, unique = [0, 0], [set(), set()]
        for item, rows, (plan, samples) in zip(chosen, each_sample(), engine(), strict=True):
            uses[0] += plan.image_uses
            uses[1] += plan.text_uses
            unique[0] |= set(plan.image_place)
            unique[1] |= set(plan.text_key)
            if item.task.kind == "retrieval":
                v = np.concatenate([pair[0] for pair in rows])
                t = np.concatenate([pair[1] for pair in rows])
                owner = np.repeat(np.arange(len(rows)), [len(pair[1]) for pair in rows])
                texts = text_numbers([text for r in item.records for text in r.texts])
                own, _ = retrieval.ranks(v, t, owner, same_text=texts)
                assert np.array_equal(own.hits + 1, samples["i2t_rank"])
                decided += len(rows)
                continue
            for place, (v, t) in enumerate(rows):
                texts = text_numbers(item.records[place].texts)
                right = matching.offer(tuple(range(len(v))), tuple(texts)).right
                hits = matching.outcomes((v @ t.T)[None], right).hits
                for name in hits:
                    if f"correct_{name}" in samples:
                        assert hits[name][0] == samples[f"correct_{name}"][place]
                        decided += 1
        _, words = compare(each_sample, engine, 3)
        row(
            f"suite, {sum(len(item.records) for item in chosen)} samples of SugarCrepe, VALSE, "
            "CREPE "
            f"and COCO: {uses[0]} images -> {len(unique[0])}, {uses[1]} texts -> {len(unique[1])}",
            f"{words}; {decided} decisions equal",
            "5x",
        )


# ---------------------------------------------------------------- pixels


def pixels() -> None:
    """JPEG bytes to the float batch: open_clip's transform, and ours, one thread each."""
    import open_clip

    from fsc_bench.data import jpeg as fast
    from fsc_bench.data.images import decode
    from fsc_bench.models.shortcuts import pixels as _pixels

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transform = open_clip.image_transform(224, is_train=False)
    halves, compiled = _pixels.split(transform, "cpu"), _pixels.split(transform, "cpu")
    begun = time.perf_counter()
    compiled.compile()
    seconds = time.perf_counter() - begun
    files = photos(48)

    def own() -> torch.Tensor:
        opened = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
        return torch.stack([transform(image) for image in opened])

    def ours(halves: _pixels.Pixels, read: Callable) -> torch.Tensor:
        return halves.finish(np.stack([halves.load(read(file)) for file in files]))

    def pillow(file: bytes) -> Image.Image:
        return decode(file, "")

    def arrays(file: bytes) -> np.ndarray:
        return fast.open_rgb(file, "", True)

    rows = [("Pillow alone", halves, pillow, "1.1x")]
    if fast.decoder() is not None:
        rows.append(("simplejpeg", halves, fast.open_rgb, "1.1x"))
    if compiled.takes_arrays:
        rows.append(("numba", compiled, pillow, "1.1x"))
        if fast.decoder() is not None:
            rows.append(("simplejpeg and numba", compiled, arrays, "1.7x"))
        row("numba: import, compile and try, once a run", f"{seconds:.1f} s", "-")
    for name, used, read, goal in rows:
        assert torch.equal(own(), ours(used, read))
        _, words = compare(own, lambda used=used, read=read: ours(used, read))
        row(f"48 JPEGs to a batch, {name}", f"{words}; torch.equal", goal)
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- towers


def tower() -> None:
    """Image tower against its own matrix products; the last block for the class token alone."""
    from fsc_bench.models import load_model

    width, layers, batch = 768, 12, 32  # the engine's batch on a CPU
    sizes = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    for precision, dtype, goal in (
        ("fp32", torch.float32, "at most 1.15"),
        ("bf16", torch.bfloat16, "at most 1.4"),
    ):
        model = load_model("open_clip:ViT-B-32/random?seed=0", "cpu", precision)
        images = torch.randn(batch, 3, 224, 224)
        products = [
            (torch.randn(batch * 50, k, dtype=dtype), torch.randn(n, k, dtype=dtype))
            for n, k in sizes
        ]
        patches = torch.randn(batch * 49, 3072, dtype=dtype), torch.randn(width, 3072, dtype=dtype)

        @torch.no_grad()
        def gemms(products=products, patches=patches, embed: bool = False) -> None:
            if embed:
                torch.nn.functional.linear(*patches)
            for _ in range(layers):
                for x, weight in products:
                    torch.nn.functional.linear(x, weight)

        @torch.no_grad()
        def whole(model=model, images=images, dtype=dtype) -> torch.Tensor:
            return torch.nn.functional.normalize(
                model.model.encode_image(images.to(dtype)).float(), dim=-1
            )

        def cut(model=model, images=images) -> torch.Tensor:
            return model.encode_images(images)

        error = float((whole() - cut()).abs().max())
        assert error < (1e-5 if precision == "fp32" else 2e-2), error
        _, words = compare(cut, gemms)
        row(f"image tower, {precision}, batch {batch}, to its 48 matrix products", words, goal)
        _, words = compare(cut, lambda gemms=gemms: gemms(embed=True))
        row(f"image tower, {precision}, to those and the patch embedding's", words, "")
        _, words = compare(whole, cut)
        row(f"{precision}, last block for the class token alone", words, "1.07x is possible")


# ---------------------------------------------------------------- scoring


def ranks() -> None:
    """5,000 images and 25,010 captions: clip_benchmark's recall, and ours, products included."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    from fsc_bench.score import retrieval

    rng = np.random.default_rng(0)
    owner = np.sort(np.r_[np.repeat(np.arange(5000), 5), rng.integers(0, 5000, 10)])
    v = rng.normal(size=(5000, 512)).astype(np.float32)
    t = v[owner] + 3.2 * rng.normal(size=(25_010, 512)).astype(np.float32)
    v, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v, t))
    assert (np.bincount(owner) > 0).all()

    def theirs() -> list[float]:
        scores = torch.from_numpy(t) @ torch.from_numpy(v).T
        positive = torch.zeros_like(scores, dtype=torch.bool)
        positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
        found = []
        for k in (1, 5, 10):
            for x, y in ((scores, positive), (scores.T, positive.T)):
                found.append(
                    (batchify(recall_at_k, x, y, 64, "cpu", k=k) > 0).float().mean().item()
                )
        return found

    def ours() -> list[float]:
        i2t, t2i = retrieval.ranks(v, t, owner)
        return [float((x.strict < k).mean()) for k in (1, 5, 10) for x in (t2i, i2t)]

    assert np.allclose(theirs(), ours(), atol=1e-6), (theirs(), ours())
    _, words = compare(theirs, ours, 3)
    row("retrieval 5,000 x 25,010, both ways, K 1, 5, 10", f"{words}; recalls equal", "4x")
    v[1::10] = v[::10]  # every tenth picture twice: its captions tie, and torch.topk takes either
    i2t, t2i = retrieval.ranks(v, t, owner)
    for k, (captions, images) in zip((1, 5, 10), np.reshape(theirs(), (3, 2)), strict=True):
        for value, found in ((captions, t2i), (images, i2t)):
            assert (found.strict < k).mean() - 1e-6 <= value <= (found.lenient < k).mean() + 1e-6
    row("the same with ties", "clip_benchmark's recalls lie between strict and lenient", "")


def groups() -> None:
    """EqBen's 251,048 2x2 groups through `evaluate`; 242,677 images against 1,000 classes."""
    import resource

    from fsc_bench.data.prepare import Prepared
    from fsc_bench.models import load_model
    from fsc_bench.records import ImageRef, Record
    from fsc_bench.score import classification
    from fsc_bench.score.evaluate import evaluate
    from fsc_bench.task import catalogue

    rng = np.random.default_rng(0)
    n, pool = 251_048, 20_000
    vectors = rng.normal(size=(pool, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    class Vectors:  # in the place of Embeddings: a name's number chooses its vector
        def images(self, task: str, refs: list) -> np.ndarray:
            return vectors[[int(ref.path) % pool for ref in refs]]

        def texts(self, texts: list) -> np.ndarray:
            return vectors[[(7 * int(text) + 3) % pool for text in texts]]

        def image_keys(self, task: str, refs: list) -> list:
            return [ref.path for ref in refs]

    task = catalogue()["eqben"]
    subsets = [subset for subset, count in task.leaves.items() for _ in range(count)][:n]
    records = [
        Record(
            str(i), subset, (ImageRef("x", str(2 * i)), ImageRef("x", str(2 * i + 1))),
            (str(2 * i), str(2 * i + 1)), cluster=str(i // 2),
        )
        for i, subset in enumerate(subsets)
    ]  # fmt: skip
    prepared = Prepared(task, records, "none", Path())
    model = load_model("control:chance", "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    result, _ = evaluate(prepared, Vectors(), model)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert result.n == len(records) == n
    cell = result.metrics["headline"][task.headline[0]]
    row(
        f"EqBen's {n:,} 2x2 groups through `evaluate`, intervals included",
        f"{seconds:.1f} s, {(peak - before) / 1e6:.2f} GB more; group {cell.value:.2f} "
        f"[{cell.low:.2f}, {cell.high:.2f}] by chance 16.67",
        "bounded",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    weights = rng.normal(size=(1000, 512)).astype(np.float32)
    labels = rng.integers(0, 1000, 242_677)
    correct = 0
    for start in range(0, len(labels), 4096):
        part = labels[start : start + 4096]
        block = rng.normal(size=(len(part), 512)).astype(np.float32) @ weights.T
        correct += classification.outcomes(block, part).correct.sum()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row(
        "242,677 images x 1,000 classes",
        f"{time.perf_counter() - begun:.1f} s, {max(0, peak - before) / 1e3:.0f} MB more",
        "bounded",
    )


if __name__ == "__main__":
    from fsc_bench.system.settings import keep_memory

    keep_memory()  # as a run does, for what ours is compared with too
    torch.set_num_threads(2)
    every = ["text", "prompts", "suite", "pixels", "tower", "ranks", "groups"]
    wanted = sys.argv[1:] or every
    print("| what | measured | goal |\n| --- | --- | --- |")
    for name in wanted:
        globals()[name]()
