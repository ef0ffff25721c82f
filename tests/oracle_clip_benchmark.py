"""The clip_benchmark program and `-t clip_benchmark:NAME` on the same WebDataset folders.

    python tests/oracle_clip_benchmark.py PYTHON

PYTHON is that of an environment with numpy < 2.3: clip_benchmark's `accuracy` calls float() on an
array of one value, which later versions of numpy refuse. Its autocast is switched off (`--no_amp`),
for half precision decides near ties otherwise. Draws three folders (one label, several labels,
retrieval), saves an open_clip model of random weights and prints every metric of both. Then it
compares sample by sample: what the program's own functions were given and gave (HOOK keeps it)
with our samples files. The exit code is 1 where any differs.

    one label        the class that is taken for each picture, and the score of its label
    several labels   the score of every class for each picture, and the order of pictures by class
    retrieval        the rank of each caption's picture and of each picture's best caption, and
                     whether each query is found at 1, 5 and 10
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

ARCHITECTURE = "ViT-S-32-alt"
CLASSES = ["red", "green", "blue", "yellow", "white", "black"]
COLOURS = [(220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30), (250, 250, 250), (9, 9, 9)]
TEMPLATES = ["a {c} square.", "a photo of something {c}."]
KINDS = {"drawn_single": "", "drawn_multi": "multilabel", "drawn_captions": "retrieval"}
SAMPLES = 36
CLOSE = 2e-6  # between scores: the two add up a dot product in different orders

# Runs in the program's own environment, and keeps what its functions were given and gave.
HOOK = """
import sys
import numpy as np
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
out, kept = sys.argv.pop(1), {}
classify, batchify = zeroshot_classification.run_classification, zeroshot_retrieval.batchify
def run_classification(*arguments, **options):
    logits, target = classify(*arguments, **options)
    kept.update(logits=logits.numpy(), target=target.numpy())
    return logits, target
def of_queries(function, scores, positive, *arguments, **options):
    found = batchify(function, scores, positive, *arguments, **options)
    way = "text" if len(kept) % 2 else "image"  # the order in which evaluate() asks
    kept[f"{way} {options['k']}"] = (found > 0).numpy()
    if way == "image":
        matrices.setdefault("scores", scores.numpy())
        matrices.setdefault("positive", positive.numpy())
    return found
matrices = {}
zeroshot_classification.run_classification = run_classification
zeroshot_retrieval.batchify = of_queries
from clip_benchmark.cli import main
main()
np.savez(out, **kept, **matrices)
"""


def draw(folder: Path, kind: str) -> None:
    """A folder as clip_benchmark writes it, of two shards."""
    drawn = np.random.default_rng(7)
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("2")
    if kind:
        (folder / "dataset_type.txt").write_text(kind)
    if kind != "retrieval":
        (folder / "classnames.txt").write_text("\n".join(CLASSES))
        (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    for shard in range(2):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for number in range(shard * SAMPLES // 2, (shard + 1) * SAMPLES // 2):
                shown = sorted({int(k) for k in drawn.integers(0, 6, 1 + number % 3)})
                _add(tar, f"s{number:07d}.png", _picture(drawn, shown))
                _add(tar, *_answer(f"s{number:07d}", kind, shown, number))


def _picture(drawn: np.random.Generator, shown: list[int]) -> bytes:
    noise = drawn.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for place, k in enumerate(shown):
        noise[10 + place * 14 : 22 + place * 14, 12:52] = COLOURS[k]
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def _answer(key: str, kind: str, shown: list[int], number: int) -> tuple[str, bytes]:
    names = " and ".join(CLASSES[k] for k in shown)
    if kind == "retrieval":
        return f"{key}.txt", f"{names}, number {number}\npicture {number} of {names}".encode()
    if kind == "multilabel":
        vector, out = np.zeros(6, np.int64), io.BytesIO()
        vector[shown] = 1
        np.save(out, vector)
        return f"{key}.npy", out.getvalue()
    return f"{key}.cls", str(shown[0]).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def model(path: Path) -> None:
    """Random weights, large enough that texts and pictures differ."""
    import open_clip
    import torch

    torch.manual_seed(3)
    net = open_clip.create_model(ARCHITECTURE)
    torch.save(net.state_dict(), path)


def theirs(python: str, folder: Path, kind: str, weights: Path, out: Path) -> dict[str, float]:
    """The metrics that the program writes, in percent."""
    task = "zeroshot_retrieval" if kind == "retrieval" else "zeroshot_classification"
    words = ["-c", HOOK, str(out.with_suffix(".npz")), "eval", "--task", task]
    words += ["--dataset", f"wds/{folder.name}", "--dataset_root", str(folder), "--split", "test"]
    words += ["--model", ARCHITECTURE, "--pretrained", str(weights), "--no_amp"]
    words += ["--num_workers", "0", "--batch_size", "16", "--output", str(out)]
    words += ["--recall_k", "1", "5", "10"]
    done = subprocess.run([python, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {name: 100 * value for name, value in json.loads(out.read_text())["metrics"].items()}


def ours(folder: Path, weights: Path, work: Path) -> dict[str, float]:
    """The same, of `fsc-bench data link` and `run`."""
    task, data = f"clip_benchmark:{folder.name}", ["--data", str(work / "data")]
    command = [sys.executable, "-m", "fsc_bench"]
    subprocess.run([*command, "data", "link", task, str(folder), *data], check=True)
    spec = f"open_clip:{ARCHITECTURE}@{weights}"
    words = ["run", "-t", task, "-m", spec, "-o", str(work / "runs"), *data, "--quiet"]
    subprocess.run([*command, *words, "--device", "cpu"], check=True)
    (found,) = (work / "runs").glob(f"*/tasks/{task}.json")
    return json.loads(found.read_text())["official"]["metrics"]


def samples(folder: Path, work: Path) -> dict[str, list]:
    """The columns of our samples file."""
    (found,) = (work / "runs").glob(f"*/samples/clip_benchmark:{folder.name}.parquet")
    return pq.read_table(found).to_pydict()


def by_sample(kind: str, kept: dict[str, np.ndarray], own: dict[str, list]) -> list[tuple]:
    """(what, how many were compared, how many differ) of one folder."""
    if kind == "retrieval":
        return _ranks(kept, own)
    scores = kept["logits"] / 100
    if kind == "multilabel":
        found = np.array(own["scores"], np.float64)
        order = [np.argsort(-one, axis=0, kind="stable") for one in (scores, found)]
        return [
            ("score of a class", scores.size, int((abs(scores - found) > CLOSE).sum())),
            ("picture at a place", scores.size, int((order[0] != order[1]).sum())),
        ]
    labels = kept["target"].astype(int)
    of_label = scores[np.arange(len(labels)), labels] - np.array(own["score_label"])
    return [
        ("label", len(labels), int((labels != np.array(own["labels"]).ravel()).sum())),
        ("class taken", len(labels), int((scores.argmax(1) != np.array(own["prediction"])).sum())),
        ("score of the label", len(labels), int((abs(of_label) > CLOSE).sum())),
    ]


def _ranks(kept: dict[str, np.ndarray], own: dict[str, list]) -> list[tuple]:
    scores, positive = kept["scores"], kept["positive"]  # [texts, pictures]
    best = np.where(positive, scores, -np.inf)
    ranks = {
        "image": 1 + (scores > best.max(1, keepdims=True)).sum(1),  # of each caption's picture
        "text": 1 + (scores > best.max(0)).sum(0),  # of each picture's best caption
    }
    ours = {"image": np.concatenate(own["t2i_rank"]), "text": np.array(own["i2t_rank"])}
    found = []
    for way, theirs in ranks.items():
        found.append((f"{way} rank", len(theirs), int((theirs != ours[way]).sum())))
        for k in (1, 5, 10):
            hits = kept[f"{way} {k}"]
            found.append((f"{way} found at {k}", len(hits), int((hits != (ours[way] <= k)).sum())))
    return found


def main() -> int:
    differ = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        model(work / "random.pt")
        for name, kind in KINDS.items():
            draw(work / name, kind)
            known = theirs(
                sys.argv[1], work / name, kind, work / "random.pt", work / f"{name}.json"
            )
            found = ours(work / name, work / "random.pt", work)
            for metric, value in sorted(known.items()):
                same = abs(found[metric] - value) < 1e-4
                differ += not same
                print(f"{name:16}{metric:28}{value:12.6f}{found[metric]:12.6f}  {same}")
            differ += set(known) != set(found)
            own = samples(work / name, work)
            with np.load(work / f"{name}.npz") as kept:
                compared = by_sample(kind, dict(kept), own)
            for what, count, other in compared:
                differ += other > 0
                print(f"{name:16}{what:28}{count:6} samples{other:6} differ")
    print("equal" if not differ else f"{differ} differ")
    return bool(differ)


if __name__ == "__main__":
    raise SystemExit(main())
