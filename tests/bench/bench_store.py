"""The store at scale: planning over a million cached texts, and vectors read back, warm and cold.

    python tests/bench/bench_store.py [TEXTS]

Asserts that every vector read is the one written. Goals: planning under 3 s and 1.5 GB, at least
200,000 vectors/s, also with the files out of the page cache (then the disk may be the limit).
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DIMENSION = 512


def main(texts: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        print(f"| {texts:,} texts of {DIMENSION} dimensions | |\n| --- | --- |")
        speed = _write(Path(folder), texts)
        print(f"| written, checksums and fsync included | {speed:,.0f} vectors/s |")
        for what in ("plan", "plan", "warm", "cold"):
            code = [sys.executable, __file__, what, folder, str(texts)]
            done = subprocess.run(code, capture_output=True, text=True)
            print(done.stdout.strip() or done.stderr)


def caption(number: int) -> str:
    return f"a photo of scene {number} with two dogs on the grass"


def _write(folder: Path, texts: int) -> float:
    from fsc_bench.embed.plan import text_digest
    from fsc_bench.embed.store import Store

    store = Store(folder)
    rng = np.random.default_rng(0)
    spent = 0.0
    for begin in range(0, texts, 8192):
        numbers = range(begin, min(begin + 8192, texts))
        rows = rng.normal(size=(len(numbers), DIMENSION)).astype(np.float32)
        rows[:, 0] = numbers
        keys = [text_digest(caption(number)) for number in numbers]
        begun = time.perf_counter()
        store.put("text", keys, rows)
        spent += time.perf_counter() - begun
    begun = time.perf_counter()
    store.close()
    return texts / (spent + time.perf_counter() - begun)


def _plan(folder: Path, texts: int) -> None:
    """A matching task of `texts` captions, all in the store: plan it and ask what is missing."""
    from fsc_bench.data.images import DigestCache, Images
    from fsc_bench.data.prepare import Prepared
    from fsc_bench.embed.plan import make_plan
    from fsc_bench.embed.store import Store
    from fsc_bench.records import Record
    from fsc_bench.task import read_task

    task = folder / "many.toml"
    task.write_text(
        'title="Many"\nsuite="mine"\ngroup="compositionality"\nkind="matching"\nversion=1\n'
        f'headline=["text"]\nchance=50.0\nwithin="samples"\n[subsets]\nall={texts // 2}\n'
        '[data]\nreader="records"\nsources=[]\n'
    )
    records = [
        Record(str(n), "all", (), (caption(2 * n), caption(2 * n + 1))) for n in range(texts // 2)
    ]
    prepared = Prepared(read_task(task), records, "none", task)
    images, cache = Images(folder), DigestCache(folder / "digests.sqlite")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    plan = make_plan(prepared, images, cache)
    planned = time.perf_counter()
    store = Store(folder)
    opened = time.perf_counter()
    present = store.present("text", list(plan.text_key.values()))
    asked = time.perf_counter()
    assert present.all() and len(present) == texts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"| planning: hash, open the store, look up | {asked - begun:.2f} s "
        f"({planned - begun:.2f} + {opened - planned:.2f} + {asked - opened:.2f}), "
        f"{(peak - before) / 1e6:.2f} GB more, {peak / 1e6:.2f} GB in all |"
    )
    begun = time.perf_counter()
    assert store.has("text", list(plan.text_key.values())).all()
    print(f"| every row compared with its checksum | {time.perf_counter() - begun:.2f} s |")


def _read(folder: Path, texts: int, cold: bool) -> None:
    from fsc_bench.embed.plan import text_digest
    from fsc_bench.embed.store import Store

    numbers = np.random.default_rng(1).permutation(texts)
    keys = [text_digest(caption(number)) for number in numbers]
    if cold:
        for path in folder.glob("*.vec"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    store = Store(folder)
    store.has("text", keys)  # as every run does first: compares each row with its checksum
    checked = time.perf_counter() - begun
    for i in range(0, len(keys), 4096):
        got = store.get("text", keys[i : i + 4096])
        assert np.array_equal(got[:, 0], numbers[i : i + 4096].astype(np.float32))
    seconds = time.perf_counter() - begun
    speed = len(keys) / seconds
    begun = time.perf_counter()
    for i in range(0, len(keys), 4096):
        store.get("text", keys[i : i + 4096])
    again = len(keys) / (time.perf_counter() - begun)
    ram = np.ones((100_000, DIMENSION), np.float32)
    order = np.random.default_rng(2).permutation(len(ram))
    begun = time.perf_counter()
    for i in range(0, len(ram), 4096):
        np.take(ram, order[i : i + 4096], axis=0)
    take = len(ram) / (time.perf_counter() - begun)
    print(
        f"| {len(keys):,} at random, {'cold' if cold else 'warm'}, opening included | "
        f"{speed:,.0f} vectors/s ({checked:.2f} s of {seconds:.2f} s to open and compare); "
        f"again {again:,.0f}; np.take from memory {take:,.0f} |"
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        what, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
        _plan(folder, count) if what == "plan" else _read(folder, count, what == "cold")
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
