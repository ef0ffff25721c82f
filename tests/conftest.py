"""What tests share: a small benchmark in SugarCrepe's raw format, and the real annotations."""

import json
import os
from pathlib import Path

import pytest
from draw_images import draw

from fsc_bench.data.images import write_link

# A CLIP of open_clip's own architecture that builds in milliseconds, with its QuickGELU twin.
TINY_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}


def pytest_configure(config):
    """Test processes share the processor: each of them, and what it starts, gets its part. Nor do
    they wait for the disk: what they write need not outlive a power cut, and after an installation
    of gigabytes each wait takes seconds."""
    os.fsync = os.fdatasync = lambda file: None
    if processes := config.getoption("numprocesses", None):
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


# Modules whose tests share a training of half a minute.
LONG = ("test_walk.py", "test_ablate.py")


def pytest_collection_modifyitems(items):
    """They come first: what waits at the end of a process's queue is taken by another one, which
    would have to train anew."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """The demo suite's raw files, drawn once for all test processes: to be copied, not used."""
    from filelock import FileLock

    from fsc_bench.demo.build import build

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "demo.lock"):
        build(base / "demo")  # what is there already is left
    return base / "demo"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    """The name of a tiny architecture, known to open_clip for this session."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "Tiny.json").write_text(json.dumps(TINY_CLIP))
    (folder / "Tiny-quickgelu.json").write_text(json.dumps({**TINY_CLIP, "quick_gelu": True}))
    import open_clip

    open_clip.add_model_config(folder)
    return "Tiny"


TASK = """
title = "Tiny"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
within = "samples"
[subsets]
replace = {{ replace_obj = {first}, replace_att = {second} }}
swap_obj = {third}
[data]
reader = "sugarcrepe"
sources = [{{ images = "coco/val2017" }}]
"""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real annotation files that $FSC_BENCH_REAL_DATA points at."""
    folder = os.environ.get("FSC_BENCH_REAL_DATA")
    if not folder:
        pytest.skip("FSC_BENCH_REAL_DATA is not set: no real annotation files here")
    return Path(folder)


@pytest.fixture
def tiny(tmp_path) -> dict[str, Path]:
    """A task file, its raw data, its images and a data folder that links them.

    Keys: task (TOML), data, raw, images, out.
    """
    raw, images, data = tmp_path / "raw", tmp_path / "val2017", tmp_path / "data"
    raw.mkdir()
    counts = {"replace_obj": 12, "replace_att": 8, "swap_obj": 6}
    for subset, count in counts.items():
        rows = {
            str(number): {
                "filename": f"{number % 5:012d}.jpg",
                "caption": f"a {subset} of number {number}",
                "negative_caption": f"no {subset} of number {number}",
            }
            for number in range(count)
        }
        (raw / f"{subset}.json").write_text(json.dumps(rows))
    for number in range(5):
        draw(images / f"{number:012d}.jpg")
    task = tmp_path / "tiny.toml"
    first, second, third = counts.values()
    task.write_text(TASK.format(first=first, second=second, third=third))
    write_link(data, "tiny", raw)
    write_link(data, "coco/val2017", images)
    return {"task": task, "data": data, "raw": raw, "images": images, "out": tmp_path / "runs"}
