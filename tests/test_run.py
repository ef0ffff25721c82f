"""The whole way on a tiny benchmark in SugarCrepe's raw format: results, resume, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from draw_images import draw
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data.images import write_link
from fsc_bench.errors import DataError, UsageError
from fsc_bench.results import RunDirectory
from fsc_bench.run.suite import Options, Silent, run
from fsc_bench.task import read_task

CHANCE = "control:chance"


class Watch(Silent):
    """Remembers what was said and how far it went."""

    def __init__(self):
        self.lines = []
        self.seen = []

    def say(self, line):
        self.lines.append(line)

    def progress(self, what, done, total):
        self.seen.append((what, total))


ORACLE = """
import hashlib
import numpy as np

ENCODED = {ENCODED!r}

class Encoder:
    '''Knows which caption is right: it begins with "a". Wrong ones point away from every image.'''
    sign = {SIGN}

    def preprocess(self, image):
        return np.asarray(image.resize((4, 4)), np.float32)

    def encode_images(self, images):
        with open(ENCODED, "a") as log:
            log.write(f"images {{len(images)}}\\n")
        return np.tile(np.array([[1, 0]], np.float32), (len(images), 1))

    def encode_texts(self, texts):
        with open(ENCODED, "a") as log:
            log.write(f"texts {{len(texts)}}\\n")
        return np.array([[self.sign if t.startswith("a ") else -self.sign, 0] for t in texts],
        np.float32)

model = Encoder()
"""


def adapter(folder: Path, sign: int = 1) -> str:
    file = folder / f"oracle{sign}.py"
    file.write_text(ORACLE.format(ENCODED=str(folder / "encoded.log"), SIGN=float(sign)))
    return f"py:{file}:model"


def options(tiny, **changes) -> Options:
    return Options(data=tiny["data"], out=tiny["out"], **changes)


def test_an_oracle_scores_100_and_its_opposite_0(tiny, tmp_path):
    task = read_task(tiny["task"])
    right, wrong = adapter(tmp_path, 1), adapter(tmp_path, -1)

    summary = run([right, wrong], [task], options(tiny))

    assert summary.exit_code == 0
    assert summary.results[right]["tiny"].metrics["headline"]["text"].value == 100.0
    assert summary.results[wrong]["tiny"].metrics["headline"]["text"].value == 0.0
    cell = summary.results[right]["tiny"].metrics["replace_obj"]["text"]
    assert cell.n == 12
    assert cell.chance == 50.0
    assert cell.low < 100.0 == cell.high  # five images: 100 is not certain


def test_each_image_and_text_is_encoded_once(tiny):
    watch = Watch()
    run([CHANCE], [read_task(tiny["task"])], options(tiny), watch)

    encoded = {seen for seen in watch.seen if not seen[0].endswith("hash")}
    assert encoded == {("tiny: images", 5), ("tiny: texts", 52)}  # 26 samples name 5 images


def test_what_a_run_leaves(tiny):
    summary = run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    folder = summary.folders["control:chance"]

    facts = json.loads((folder / "run.json").read_text())
    assert facts["model"] == "control:chance"
    assert facts["identity"]["weights"] == "none, seed 0"
    assert facts["packages"]["torch"]
    result = json.loads((folder / "tasks" / "tiny.json").read_text())
    assert result["n"] == result["expected"] == 26
    assert result["flags"] == []
    samples = pq.read_table(folder / "samples" / "tiny.parquet").to_pydict()
    assert len(samples["id"]) == 26
    scores = np.array(samples["scores"])
    assert (scores[:, 0] > scores[:, 1]).tolist() == samples["correct_text"]
    hits = [
        c
        for c, s in zip(samples["correct_text"], samples["subset"], strict=True)
        if s == "swap_obj"
    ]
    assert result["metrics"]["swap_obj"]["text"]["value"] == pytest.approx(100 * np.mean(hits))


def test_the_same_command_again_does_nothing(tiny):
    task = read_task(tiny["task"])
    first = run([CHANCE], [task], options(tiny))
    written = (first.folders[CHANCE] / "tasks" / "tiny.json").stat().st_mtime_ns
    watch = Watch()

    second = run([CHANCE], [task], options(tiny), watch)

    assert second.skipped == 1
    assert watch.seen == []  # nothing hashed, nothing encoded
    assert (first.folders[CHANCE] / "tasks" / "tiny.json").stat().st_mtime_ns == written


def test_a_new_task_version_is_scored_again_and_the_old_result_is_kept(tiny):
    run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    tiny["task"].write_text(tiny["task"].read_text().replace("version = 1", "version = 2"))

    summary = run(["control:chance"], [read_task(tiny["task"])], options(tiny))

    assert summary.skipped == 0
    assert summary.results["control:chance"]["tiny"].version == 2
    kept = list((summary.folders["control:chance"] / "superseded").glob("tiny-*.json"))
    assert [json.loads(file.read_text())["version"] for file in kept] == [1]


def test_limit_is_flagged_and_stands_beside_the_whole(tiny):
    task = read_task(tiny["task"])
    whole = run(["control:chance"], [task], options(tiny))
    part = run(["control:chance"], [task], options(tiny, limit=3))

    assert part.results["control:chance"]["tiny"].n == 9
    assert not part.results["control:chance"]["tiny"].complete
    assert whole.results["control:chance"]["tiny"].complete
    names = sorted(f.name for f in (whole.folders["control:chance"] / "tasks").iterdir())
    assert names == ["tiny.json", "tiny.limit-3.json"]


def command(tiny, *more: str, model: str = "control:chance") -> list[str]:
    where = ["-t", str(tiny["task"]), "-o", str(tiny["out"]), "--data", str(tiny["data"])]
    return [sys.executable, "-m", "fsc_bench", "run", "-m", model, *where, *more]


SLOW = """
import hashlib
import time
import numpy as np

def vectors(items):
    rows = []
    for item in items:
        seed = int.from_bytes(hashlib.sha256(item).digest()[:4])
        row = np.random.default_rng(seed).normal(size=8)
        rows.append(row / np.linalg.norm(row))
    time.sleep(0.15)
    return np.array(rows, np.float32)

class Slow:
    def preprocess(self, image):
        return np.asarray(image.resize((8, 8)))
    def encode_images(self, images):
        return vectors([image.tobytes() for image in images])
    def encode_texts(self, texts):
        return vectors([text.encode() for text in texts])

model = Slow()
"""


def test_killed_and_run_again_equals_undisturbed_bit_for_bit(tiny, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    model = f"py:{tmp_path / 'slow.py'}:model"
    second = tmp_path / "second.toml"
    second.write_text(tiny["task"].read_text())
    tiny["data"].joinpath("links.json").write_text(
        json.dumps(
            {
                name: str(tiny[where])
                for name, where in (("tiny", "raw"), ("second", "raw"), ("coco/val2017", "images"))
            }
        )
    )
    arguments = ["-t", str(second), "--batch-size", "4"]
    killed = subprocess.Popen(command(tiny, *arguments, model=model), stderr=subprocess.DEVNULL)
    store = tiny["data"] / "embeddings"
    deadline = time.time() + 60
    while time.time() < deadline:  # until a few batches of the first task are on disk
        sizes = [file.stat().st_size for file in store.rglob("text-*.idx")]
        if sum(sizes) >= 5 * 36:
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(tiny["out"].rglob("tasks/*.json")), "killed too late to show anything"

    subprocess.run(
        command(tiny, *arguments, model=model), check=True, capture_output=True, timeout=120
    )
    undisturbed = {**tiny, "out": tmp_path / "undisturbed", "data": tmp_path / "data2"}
    undisturbed["data"].mkdir()
    (undisturbed["data"] / "links.json").write_text((tiny["data"] / "links.json").read_text())
    subprocess.run(
        command(undisturbed, *arguments, model=model), check=True, capture_output=True, timeout=120
    )

    for name in ("tiny", "second"):
        (mine,) = tiny["out"].rglob(f"tasks/{name}.json")
        (theirs,) = undisturbed["out"].rglob(f"tasks/{name}.json")
        assert mine.read_bytes() == theirs.read_bytes()
        (mine,) = tiny["out"].rglob(f"samples/{name}.parquet")
        (theirs,) = undisturbed["out"].rglob(f"samples/{name}.parquet")
        assert pq.read_table(mine).equals(pq.read_table(theirs))


def one_line(done: subprocess.CompletedProcess, code: int) -> str:
    """The one line on stderr of a command that must fail with `code`."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  ")]  # progress
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fsc-bench: ")
    return lines[0]


def cli(arguments: list[str]) -> subprocess.CompletedProcess:
    """The command in this process, which has imported torch already."""
    done = CliRunner().invoke(app, arguments[3:])  # behind `python -m fsc_bench`
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


BAD_INPUT = {
    "unknown task": (
        lambda tiny: command(tiny, "-t", "winogrund"),
        2,
        "no task called 'winogrund'. Did you mean 'winoground'?",
    ),
    "unknown family": (
        lambda tiny: command(tiny, model="open_clap:ViT-B-32"),
        2,
        "no family called 'open_clap'. Did you mean 'open_clip'?",
    ),
    "compiling on a CPU": (
        lambda tiny: command(tiny, "--device", "cpu", "--compile"),
        2,
        "--compile is for CUDA; compiling costs a CPU more than it saves. Leave it out.",
    ),
    "no checkpoint": (lambda tiny: command(tiny, model="open_clip"), 2, "FAMILY:CHECKPOINT"),
    "unknown option": (lambda tiny: command(tiny, "--lmit", "3"), 2, "--lmit"),
    "misspelt key": (
        lambda tiny: (
            tiny["task"].write_text(tiny["task"].read_text().replace("headline", "headlin"))
            and command(tiny)
        ),
        2,
        "unknown key 'headlin'. Did you mean 'headline'?",
    ),
    "count that does not match": (
        lambda tiny: (
            tiny["task"].write_text(
                tiny["task"].read_text().replace("swap_obj = 6", "swap_obj = 7")
            )
            and command(tiny)
        ),
        3,
        "tiny/swap_obj: 6 records, the task file promises 7",
    ),
    "missing image": (
        lambda tiny: (tiny["images"] / "000000000003.jpg").unlink() or command(tiny),
        3,
        "1 of 5 images are missing, such as 'coco/val2017:000000000003.jpg'",
    ),
    "corrupt image": (
        lambda tiny: (
            (tiny["images"] / "000000000003.jpg").write_bytes(b"\xff\xd8\xff nonsense")
            and command(tiny)
        ),
        3,
        "000000000003.jpg: not a readable image",
    ),
    "truncated image": (
        lambda tiny: (
            (tiny["images"] / "000000000003.jpg").write_bytes(
                (tiny["images"] / "000000000003.jpg").read_bytes()[:-200]
            )
            and command(tiny)
        ),
        3,
        "000000000003.jpg: not a readable image",
    ),
    "damaged annotation": (
        lambda tiny: (
            (tiny["raw"] / "swap_obj.json").write_text('{"0": {"filename": 3}}') and command(tiny)
        ),
        3,
        "swap_obj.json: record 0: 'filename' is 3, not str.",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing_half_written(tiny, name):
    make, code, words = BAD_INPUT[name]

    line = one_line(cli(make(tiny)), code)

    assert words in line
    assert not list(tiny["out"].rglob("tasks/*"))
    assert not [file for file in tiny["data"].rglob(".*part*")]


def test_truncated_prepared_records_are_named(tiny):
    run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    prepared = tiny["data"] / "prepared" / "tiny.parquet"
    prepared.write_bytes(prepared.read_bytes()[:-100])

    # Prepared records that cannot be read are made again from the raw files: nothing is asked.
    summary = run(["control:chance"], [read_task(tiny["task"])], options(tiny))

    assert summary.exit_code == 0


def test_a_truncated_parquet_of_the_user_is_one_line(tiny, tmp_path):
    broken = tmp_path / "mine.parquet"
    run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    broken.write_bytes((tiny["data"] / "prepared" / "tiny.parquet").read_bytes()[:-100])
    from fsc_bench.records import read_records

    with pytest.raises(DataError, match=r"mine.parquet: not a readable Parquet file"):
        read_records(broken)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_one_line(tiny):
    tiny["out"].mkdir()
    tiny["out"].chmod(0o500)

    assert "cannot be written" in one_line(cli(command(tiny)), 1)


def test_a_file_where_the_folder_should_be_is_one_line(tiny):
    tiny["out"].write_text("not a folder")

    assert "cannot be written" in one_line(cli(command(tiny)), 1)


def test_two_runs_on_one_directory(tiny):
    first = run(["control:chance"], [read_task(tiny["task"])], options(tiny))
    fingerprint = json.loads((first.folders["control:chance"] / "run.json").read_text())[
        "fingerprint"
    ]

    with RunDirectory(tiny["out"], "control:chance", fingerprint).locked():
        line = one_line(cli(command(tiny)), 2)

    assert "another run is writing here" in line


def test_allow_partial_scores_what_is_there_and_says_so(tiny):
    (tiny["images"] / "000000000003.jpg").unlink()
    (tiny["images"] / "000000000004.jpg").write_bytes(b"")
    summary = run(["control:chance"], [read_task(tiny["task"])], options(tiny, allow_partial=True))

    result = summary.results["control:chance"]["tiny"]
    assert result.n < 26
    assert "1 images missing" in result.flags[0]
    assert "1 images unreadable" in result.flags[0]


def test_an_adapter_that_breaks_its_promise_is_told(tiny, tmp_path):
    text = ORACLE.format(ENCODED=str(tmp_path / "log"), SIGN=2.0)
    (tmp_path / "long.py").write_text(text)

    summary = run([f"py:{tmp_path / 'long.py'}:model"], [read_task(tiny["task"])], options(tiny))

    ((_, _, error),) = summary.failures
    assert isinstance(error, UsageError)
    assert "not unit length" in str(error)


BROKEN = """
import json

class Encoder:
    def preprocess(self, image):
        return image
    def encode_images(self, images):
        return json.loads("{half")
    encode_texts = encode_images

model = Encoder()
"""


def test_a_model_that_fails_stops_no_other(tiny, tmp_path):
    """Of an unknown family, a module that raises when imported, and one that raises at work."""
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "absent.py").write_text("raise LookupError('weights are on the other disk')")
    broken, absent = (f"py:{tmp_path / name}.py:model" for name in ("broken", "absent"))

    summary = run([broken, "opn_clip:x", absent, CHANCE], [read_task(tiny["task"])], options(tiny))

    lines = {model: str(error) for model, _, error in summary.failures}
    assert list(lines) == ["opn_clip:x", broken, absent]  # the misspelt one at the start
    assert "Did you mean 'open_clip'?" in lines["opn_clip:x"]
    assert "LookupError: weights are on the other disk" in lines[absent].replace("'", "")
    assert summary.exit_code != 0
    assert summary.results[CHANCE]["tiny"].n == 26


def test_bad_models_are_told_before_data_are_prepared_and_the_good_one_shows_its_table(tiny):
    done = cli(command(tiny, "-m", "opn_clip:x"))

    assert done.returncode == 2
    assert "no family called 'opn_clip'" in done.stderr.splitlines()[0]
    assert "95% interval" in done.stdout
    (folder,) = tiny["out"].glob("control-chance-*")
    ending = [f"Written: {folder}", f"Next: fsc-bench leaderboard {tiny['out']}"]
    assert done.stderr.splitlines()[-2:] == ending


def test_a_prompt_set_that_nothing_has_is_refused_before_data_are_prepared(tiny):
    with pytest.raises(UsageError, match=r"no prompt set 'opnai'\. Did you mean 'openai'\?"):
        run([CHANCE], [read_task(tiny["task"])], options(tiny, prompts="opnai"))
    assert not (tiny["data"] / "prepared").exists()


def second_task(tiny):
    """The tiny benchmark with other captions and, for one of its five images, another one."""
    path = tiny["task"].with_name("other.toml")
    path.write_text(tiny["task"].read_text().replace('"Tiny"', '"Other"'))
    raw = tiny["raw"].with_name("other")
    raw.mkdir()
    for file in tiny["raw"].iterdir():
        text = file.read_text().replace("of number", "which is number")
        (raw / file.name).write_text(text.replace("000000000004.jpg", "000000000009.jpg"))
    draw(tiny["images"] / "000000000009.jpg")
    write_link(tiny["data"], "other", raw)
    return read_task(path)


def test_small_tasks_are_encoded_together_and_scored_as_alone(tiny, tmp_path):
    tasks = [read_task(tiny["task"]), second_task(tiny)]
    alone = {}
    for task in tasks:
        data = tmp_path / f"data-{task.name}"
        for name, folder in (("coco/val2017", tiny["images"]), (task.name, tiny["raw"])):
            write_link(data, name, folder.with_name("other") if name == "other" else folder)
        scored = run([CHANCE], [task], Options(data=data, out=tmp_path / f"runs-{task.name}"))
        alone[task.name] = scored.results[CHANCE][task.name]
    watch = Watch()

    together = run([CHANCE], tasks, options(tiny), watch)

    assert together.results[CHANCE] == alone
    encoded = [seen for seen in watch.seen if not seen[0].endswith("hash")]
    assert set(encoded) == {("tiny and 1 more: images", 6), ("tiny and 1 more: texts", 104)}


def test_a_bad_task_among_small_ones_stops_no_other(tiny):
    tasks = [read_task(tiny["task"]), second_task(tiny)]
    bad = tiny["images"] / "000000000009.jpg"
    bad.write_bytes(bad.read_bytes()[:-200])

    summary = run([CHANCE], tasks, options(tiny))
    partial = run([CHANCE], tasks, options(tiny, allow_partial=True))

    assert [name for _, name, _ in summary.failures] == ["other"]
    assert "000000000009.jpg" in str(summary.failures[0][2])
    assert summary.results[CHANCE]["tiny"].n == 26
    assert not partial.failures
    assert "1 images unreadable" in partial.results[CHANCE]["other"].flags[0]


def test_an_image_that_cannot_even_be_hashed_is_left_out_where_asked(tiny):
    task = read_task(tiny["task"])
    (tiny["images"] / "000000000003.jpg").unlink()
    (tiny["images"] / "000000000003.jpg").mkdir()

    summary = run([CHANCE], [task], options(tiny))
    kept = run([CHANCE], [task], options(tiny, allow_partial=True))

    assert "000000000003.jpg" in str(summary.failures[0][2])
    assert 0 < kept.results[CHANCE]["tiny"].n < 26
