"""Each of the 21 as a miniature WebDataset: an adapter that knows scores 100, its opposite the
metric's other extreme, one that knows nothing the declared chance.
"""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from oracle import Oracle
from PIL import Image
from tars import write_tar
from test_miniatures import headline, score

from fsc_bench.data.images import Images
from fsc_bench.data.prepare import prepare
from fsc_bench.evidence import Evidence
from fsc_bench.models import load_model
from fsc_bench.score.statistics import ROOT
from fsc_bench.task import catalogue

TASKS = [task for task in catalogue().values() if task.group == "classification"]
TASKS = [task for task in TASKS if task.suite == "fsc"]


def picture(number: int) -> bytes:
    """A picture of its own for each number."""
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def miniature(task, data):
    """A WebDataset below the data folder, and the task that promises its size."""
    n = max(200, 2 * len(task.classes))
    rng = np.random.default_rng(0)
    members = {}
    for number in range(n):
        members[f"s{number:05d}.png"] = picture(number)
        if "map11" in task.headline:
            vector = np.zeros(len(task.classes), np.int64)
            vector[rng.choice(len(task.classes), rng.integers(1, 4), replace=False)] = 1
            content = io.BytesIO()
            np.save(content, vector)
            members[f"s{number:05d}.npy"] = content.getvalue()
        else:
            members[f"s{number:05d}.cls"] = str(number % len(task.classes)).encode()
    write_tar(data / "raw" / task.name / "test" / "0.tar", members)
    (data / "links.json").write_text(json.dumps({}))
    # A thousand classes with all their templates are 80,000 prompts: five templates do here.
    prompts = {
        name: replace(of, templates=of.templates[:5]) if len(task.classes) == 1000 else of
        for name, of in task.prompts.items()
    }
    return replace(task, subsets={"test": n}, evidence=Evidence(), prompts=prompts)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_oracle_opposite_and_chance(task, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    prepared, images = prepare(miniature(task, data), data), Images(data)
    (metric,) = task.headline

    right, _ = score(prepared, Oracle(prepared, images), images, tmp_path)
    wrong, _ = score(prepared, Oracle(prepared, images, -1), images, tmp_path)

    assert headline(right)[metric] == 100.0
    if task.name == "imagenet1k":
        # "missile" and "sunglasses" are two classes each, and one answer. The reference takes the
        # first of two: two of a thousand classes are lost there even to one who knows.
        assert right.official["headline"][metric] == pytest.approx(99.8)
        assert right.audits["equal_classes"] == 4
    if metric == "map11":
        # Recall 0 counts 1 by ELEVATER's convention, and at last every image is found.
        assert headline(wrong)[metric] < 30.0
    else:
        assert headline(wrong)[metric] == 0.0
    if metric != "map11":  # whose chance hangs on how many images show each class
        covered = 0
        for seed in range(3):
            luck, _ = score(prepared, load_model(f"control:chance?seed={seed}"), images, tmp_path)
            cell = luck.metrics[ROOT][metric]
            covered += cell.low <= task.chance[metric] <= cell.high
        assert covered >= 2
