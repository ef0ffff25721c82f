"""Many commands on one folder: who works on what, who is gone, and what leaves when asked."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
from typer.testing import CliRunner

from fsc_bench.cli.main import app
from fsc_bench.data.images import write_link
from fsc_bench.errors import UsageError
from fsc_bench.results import Busy, RunDirectory
from fsc_bench.run.claims import Claims
from fsc_bench.run.job import Options
from fsc_bench.run.orders import write_order
from fsc_bench.run.suite import run
from fsc_bench.system import lease
from fsc_bench.system.lease import Beating, Lease, Seen, Standing, Watcher, interval
from fsc_bench.task import read_task

ROOT = Path(__file__).parent.parent
HOUR = 3600.0


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Beats every 20 ms: a silent holder is given up after 0.12 s."""
    monkeypatch.setenv(lease.VARIABLE, "0.02")


def elsewhere(path: Path, **facts) -> None:
    """Makes a held file one that another machine wrote."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "machine": "another", "nonce": "0", **facts}))


def killed(folder: Path) -> None:
    """A process takes the lease of `folder` and is killed."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from fsc_bench.system.lease import Lease\nassert Lease(Path(sys.argv[1])).take()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(folder)], env=environment)
    assert done.returncode == -signal.SIGKILL


# ---------------------------------------------------------------- the lease


def test_one_of_two_has_it_and_the_other_after_it_was_given_back(tmp_path):
    one, other = Lease(tmp_path), Lease(tmp_path)

    assert (one.take(), other.take()) == (True, False)
    one.give_back()
    assert (other.take(), one.take()) == (True, False)
    other.give_back()


def test_what_a_killed_process_of_this_machine_held_is_free_at_once(tmp_path):
    killed(tmp_path)

    begun = time.monotonic()
    with Lease(tmp_path).held() as taken:
        assert taken
    assert time.monotonic() - begun < 0.1  # nobody watched it


def test_a_number_that_another_process_has_by_now_is_not_the_holder(tmp_path):
    with Lease(tmp_path).held():
        facts = json.loads((tmp_path / "1.held").read_text())
    facts |= {"state": "held", "process": os.getpid(), "process_started": "1"}
    (tmp_path / "1.held").write_text(json.dumps(facts))

    assert Lease(tmp_path).standing() is Standing.GONE


def test_a_holder_on_another_machine_is_given_up_when_it_is_silent_and_not_sooner(tmp_path):
    with Lease(tmp_path).held():
        pass
    elsewhere(tmp_path / "1.held", state="held", every=0.05)
    os.utime(tmp_path / "1.held", (1.0, 1.0))  # the file is 50 years old: that proves nothing

    begun = time.monotonic()
    assert Lease(tmp_path, Watcher()).take_patiently()
    assert 0.3 <= time.monotonic() - begun < 3.0


@pytest.mark.parametrize("moved", [-HOUR, HOUR])
def test_a_holder_on_another_machine_that_beats_is_left_whatever_its_times_say(tmp_path, moved):
    other = Lease(tmp_path)
    assert other.take(machine="another")
    watcher = Watcher()
    for _ in range(3):
        time.sleep(0.03)
        now = time.time() + moved
        os.utime(tmp_path / "1.held", (now, now))
        assert watcher.standing(tmp_path / "1.held") is not Standing.GONE
    assert not Lease(tmp_path, watcher).take_patiently()
    other.give_back()


def test_time_in_which_nobody_looked_proves_no_silence(tmp_path, monkeypatch):
    """A machine that stood still with all its processes: the holder may beat first."""
    with Lease(tmp_path).held():
        pass
    elsewhere(tmp_path / "1.held", state="held", every=0.05)
    watcher, now = Watcher(), time.monotonic()
    monkeypatch.setattr(lease.time, "monotonic", lambda: now)
    assert watcher.standing(tmp_path / "1.held") is Standing.UNKNOWN
    now += HOUR

    assert watcher.standing(tmp_path / "1.held") is Standing.UNKNOWN


def test_of_twelve_who_take_over_at_once_one_wins(tmp_path):
    import threading

    killed(tmp_path)
    leases, taken = [Lease(tmp_path) for _ in range(12)], []
    ready = threading.Barrier(len(leases))

    def go(lease):
        ready.wait()
        taken.append(lease.take())

    threads = [threading.Thread(target=go, args=[lease]) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == [False] * 11 + [True]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.held", "2.held"]
    for one in leases:
        one.give_back()


def test_an_old_number_that_was_removed_wins_nothing(tmp_path):
    """A slow observer saw 1 free; meanwhile 2 and 3 came and went, and 2 was removed."""
    for _ in range(4):
        with Lease(tmp_path).held() as taken:
            assert taken
    assert sorted(file.name for file in tmp_path.iterdir()) == ["3.held", "4.held"]
    slow = Lease(tmp_path)
    first = iter([[1]])
    slow._numbers = lambda: next(first, None) or Lease._numbers(slow)

    assert not slow.take()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["3.held", "4.held"]


def test_who_stood_still_finds_that_it_was_given_up_and_writes_nothing(tmp_path):
    directory = RunDirectory(tmp_path, "family:a", "f" * 64)
    with directory.locked():
        directory.check_held()
        held = directory.path / ".held"
        Beating(held / "2.held", {}).stop()  # who waited for it to beat, in vain
        theirs = (held / "2.held").read_bytes()
        time.sleep(0.05)

        with pytest.raises(Busy, match="this run stood still, and another one took its place"):
            directory.check_held()
    assert (held / "2.held").read_bytes() == theirs


def test_a_torn_or_foreign_file_is_watched_like_any_other(tmp_path):
    (tmp_path / "7.held").write_text('{"process": ')

    assert Lease(tmp_path).standing() is Standing.UNKNOWN
    assert Seen.read(tmp_path / "7.held").every == 10.0
    (tmp_path / "7.held").write_text('{"machine": "x", "every": 1e9, "process": "many"}')
    assert Seen.read(tmp_path / "7.held").every == 10.0


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1e9"])
def test_a_heartbeat_that_is_none_is_one_line(monkeypatch, text):
    monkeypatch.setenv(lease.VARIABLE, text)

    with pytest.raises(UsageError, match=rf"^\$FSC_BENCH_HEARTBEAT = '{text}': write seconds"):
        interval()


# ---------------------------------------------------------------- jobs

SHARED = """
import hashlib, os, sys, time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent
(HERE / os.environ["JOB"]).touch()  # a model is ours when this file is read
until = time.monotonic() + 60
while not all((HERE / name).exists() for name in os.environ["MEET"].split()):
    assert time.monotonic() < until
    time.sleep(0.01)

class Shared:
    def __init__(self, seed):
        self.identity = f"seed {seed}"
        self.seed = seed
    def vectors(self, items):
        time.sleep(0.02)
        numbers = [int.from_bytes(hashlib.sha256(item).digest()[:4]) for item in items]
        rows = np.array([np.random.default_rng([self.seed, n]).normal(size=8) for n in numbers])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    def preprocess(self, image):
        return np.asarray(image.resize((8, 8)))
    def encode_images(self, images):
        return self.vectors([image.tobytes() for image in images])
    def encode_texts(self, texts):
        return self.vectors([text.encode() for text in texts])

models = [Shared(seed) for seed in range(8)]
m0, m1, m2, m3, m4, m5, m6, m7 = models
"""


def another_machine() -> None:
    """The process's clock is an hour ahead and jumps to an hour behind; its host is another."""
    told, begun, true = float(os.environ["CLOCK"]), time.monotonic(), time.time
    name = os.environ["JOB"]
    socket.gethostname = lambda: name
    lease.machine.cache_clear()

    def wrong() -> float:
        return true() + (told if time.monotonic() - begun < 0.5 else -told)

    gmtime = time.gmtime
    time.time = wrong
    time.gmtime = lambda seconds=None: gmtime(wrong() if seconds is None else seconds)


def job(tiny, name: str, models, meet: str, clock: float = 0.0):
    """A job that scores `models` on a machine of its own; waits for those it should meet."""
    words = ["run", "-t", str(tiny["task"]), "-o", str(tiny["out"]), "--data", str(tiny["data"])]
    for model in models:
        words += ["-m", f"py:{tiny['out'].parent / 'shared.py'}:{model}"]
    environment = {
        "JOB": name, "MEET": meet, "CLOCK": str(clock), lease.VARIABLE: "0.05",
    }  # fmt: skip
    said = tiny["out"].parent / f"{name}.txt"
    return processes.start(processes.command, words, said, environment, another_machine)


def test_jobs_an_hour_apart_share_eight_models_and_take_over_what_a_killed_one_held(tiny):
    folder = tiny["out"].parent
    (folder / "shared.py").write_text(SHARED)
    dead = job(tiny, "dead", ["m0"], "dead never")
    while not (folder / "dead").exists():
        assert dead.is_alive(), (folder / "dead.txt").read_text()
        time.sleep(0.01)
    dead.kill()
    dead.join()
    names = [f"m{number}" for number in range(8)]
    jobs = [job(tiny, "one", names, "one two", HOUR), job(tiny, "two", names, "one two")]
    while any(one.is_alive() for one in jobs):  # a file server whose clock is another one again
        for file in [*tiny["out"].rglob("*.held"), *tiny["out"].rglob("*.json")]:
            wrong = time.time() + (-HOUR if file.name == "run.json" else HOUR)
            try:
                os.utime(file, (wrong, wrong))
            except FileNotFoundError:
                continue
        time.sleep(0.01)

    said = [(folder / f"{name}.txt").read_text() for name in ("one", "two")]
    assert [one.exitcode for one in jobs] == [0, 0], said
    scored = [text.count("  tiny  text ") for text in said]
    assert sum(scored) == 8 and min(scored) >= 1, said
    runs = [json.loads(file.read_text()) for file in tiny["out"].rglob("run.json")]
    assert sorted(one["model"][-2:] for one in runs) == names
    assert all(one["seconds"]["tiny"] > 0 for one in runs)  # though a clock was set back


# ---------------------------------------------------------------- status


def cli(*words: str):
    return CliRunner().invoke(app, [*words])


def states(out: Path) -> dict[str, str]:
    """The state of each pair by "model task", and why in brackets where it says."""
    found = json.loads(cli("status", "-o", str(out), "--json").stdout)
    said = {True: "{state} ({why})", False: "{state}"}
    return {
        f"{pair['model'][-6:]} {pair['task']}": said[bool(pair["why"])].format(**pair)
        for pair in found["pairs"]
    }


@pytest.fixture
def ordered(tiny) -> dict:
    """Two models and a broken one were told three tasks, one without data; one model was scored."""
    second, absent = tiny["task"].with_name("second.toml"), tiny["task"].with_name("absent.toml")
    for other in (second, absent):
        other.write_text(tiny["task"].read_text())
    write_link(tiny["data"], "second", tiny["raw"])
    tasks = [read_task(one) for one in (tiny["task"], second, absent)]
    options = Options(data=tiny["data"], out=tiny["out"])
    broken = tiny["out"].parent / "broken.py"
    broken.write_text("raise ValueError('no weights here')\n")
    run(["control:chance", f"py:{broken}:model", "control:chanc"], tasks, options)
    told = options.rounding, options.variant
    write_order(["control:chance?seed=1"], tasks[:2], tiny["out"], told, [])
    return {**tiny, "tasks": tasks, "options": options, "broken": broken}


def test_status_says_of_each_pair_what_is_done_failed_running_and_left(ordered):
    out = ordered["out"]
    found = states(out)
    assert {key: value.partition(" (")[0] for key, value in found.items()} == {
        "chance tiny": "done", "chance second": "done", "chance absent": "failed",
        ":model tiny": "failed", ":model second": "failed", ":model absent": "failed",
        ":chanc tiny": "failed", ":chanc second": "failed", ":chanc absent": "failed",
        "seed=1 tiny": "left", "seed=1 second": "left",
    }  # fmt: skip
    shown = cli("status", "-o", str(out)).stdout
    assert shown.count("no weights here") == 1
    assert f"failed: py:{ordered['broken']}:model, 3 tasks: " in shown
    assert found["chance absent"].startswith("failed (absent: no raw data")
    assert "no weights here" in found[":model tiny"]
    assert "Did you mean 'chance'?" in found[":chanc tiny"]

    claims = Claims(out, "fp32")
    with claims.take("control:chance?seed=1"):
        claims.note("control:chance?seed=1", task="second")
        assert states(out)["seed=1 second"] == "running"
        assert states(out)["seed=1 tiny"] == "left"
        line = f"{socket.gethostname()} process {os.getpid()}, second, since 20"
        assert line in cli("status", "-o", str(out)).stdout
        (held,) = claims.place("control:chance?seed=1").glob("*.held")
        content = held.read_bytes()
    assert states(out)["seed=1 second"] == "left"
    held.write_bytes(content)  # whoever wrote it beats no more, so that the test's words stay
    elsewhere(held, host="node7", beat=57)
    (worker,) = json.loads(cli("status", "-o", str(out), "--json").stdout)["workers"]
    assert (worker["state"], worker["host"]) == ("elsewhere", "node7")


def test_status_knows_results_of_another_version_and_of_other_weights(ordered):
    task = ordered["task"]
    task.write_text(task.read_text().replace("version = 1", "version = 3"))
    told = "fp32", ""
    write_order(["control:chance"], [read_task(task)], ordered["out"], told, [])
    old = "stale (a result of version 1 of the task; it has version 3)"
    assert states(ordered["out"])["chance tiny"] == old

    claims = Claims(ordered["out"], "fp32")
    with claims.take("control:chance"):
        claims.note("control:chance", fingerprint="f" * 64)
    (folder,) = ordered["out"].glob("control-chance-*")
    other = f"stale (a result of other weights, in {folder.name})"
    assert states(ordered["out"])["chance second"] == other


def test_status_tells_the_time_spent_and_about_the_rest(ordered):
    (file,) = ordered["out"].glob("*/run.json")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "seconds": {"tiny": 30.0, "second": 80.5}}))

    found = json.loads(cli("status", "-o", str(ordered["out"]), "--json").stdout)
    assert found["seconds"] == {"spent": 110.5, "rest": 110.5}  # seed=1 has both before it
    assert found["counts"] == {"done": 2, "running": 0, "failed": 7, "stale": 0, "left": 2}
    shown = cli("status", "-o", str(ordered["out"])).stdout
    assert "2 left, about 2 min; 0 commands work on it." in shown


def test_status_changes_nothing_and_needs_something(ordered, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in ordered["out"].rglob("*")}
    cli("status", "-o", str(ordered["out"]))
    assert {file: file.stat().st_mtime_ns for file in ordered["out"].rglob("*")} == before
    (ordered["out"] / ".claims" / "asked" / "x.json").write_text('{"models": ')
    (next(ordered["out"].glob("*/tasks")) / "half.json").write_text('{"task": "half"')
    assert states(ordered["out"])["chance half"].startswith("stale (")

    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, why in ((empty, "no runs there"), (tmp_path / "none", "no such folder")):
        done = cli("status", "-o", str(folder))
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and f"{folder}: {why}." in done.stderr
    assert not list(empty.iterdir())


# ---------------------------------------------------------------- leaving

ASKED = """
import hashlib, os, signal, time
import numpy as np
from fsc_bench.system.stopping import asked

class Asked:
    '''Is asked to leave as it encodes its first picture, TIMES times, in the last process.'''
    identity = "asked"
    times = int(os.environ.get("TIMES", "0"))
    def vectors(self, items):
        rows = []
        for item in items:
            seed = int.from_bytes(hashlib.sha256(item).digest()[:4])
            row = np.random.default_rng(seed).normal(size=8)
            rows.append(row / np.linalg.norm(row))
        return np.array(rows, np.float32)
    def preprocess(self, image):
        return np.asarray(image.resize((8, 8)))
    def encode_images(self, images):
        while self.times and os.environ.get("RANK", "1") == "1":
            self.times -= 1
            os.kill(os.getpid(), signal.SIGUSR1)
            while not asked():
                time.sleep(0.001)
            time.sleep(0.3 * (not self.times and os.environ["TIMES"] == "2"))
        return self.vectors([image.tobytes() for image in images])
    def encode_texts(self, texts):
        return self.vectors([text.encode() for text in texts])

model, other = Asked(), Asked()
"""
LEFT = "fsc-bench: left, as SIGUSR1 asked. The same command continues."
STOPPED = "fsc-bench: stopped. The same command continues."


@pytest.mark.parametrize(
    ("count", "times", "codes", "line", "done"),
    [(1, 1, [75], LEFT, 1), (2, 1, [75, 75], LEFT, 1), (1, 2, [143], STOPPED, 0)],
    ids=["alone", "two processes", "asked twice"],
)
def test_sigusr1_finishes_the_task_in_hand_and_ends_with_75(
    tiny, tmp_path, count, times, codes, line, done
):
    (tmp_path / "asked.py").write_text(ASKED)
    names = ["tiny", "second", "third"]
    words = ["run", "-o", str(tiny["out"]), "--data", str(tiny["data"])]
    for attribute in ("model", "other"):
        words += ["-m", f"py:{tmp_path / 'asked.py'}:{attribute}"]
    for name in names:
        task = tiny["task"].with_name(f"{name}.toml")
        task.write_text(tiny["task"].read_text())
        write_link(tiny["data"], name, tiny["raw"])
        words += ["-t", str(task)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in range(count):
        ranks = {**meeting, "RANK": str(rank), "WORLD_SIZE": str(count)} if count > 1 else {}
        environment = {"TIMES": str(times), **ranks}
        said = tmp_path / f"said.{rank}"
        started.append(processes.start(processes.command, words, said, environment))
    for process in started:
        process.join()

    said = [(tmp_path / f"said.{rank}").read_text() for rank in range(count)]
    assert [process.exitcode for process in started] == codes, said
    assert [text.count(line) for text in said] == [1, 0][:count], said
    there = sorted(file.stem for file in tiny["out"].rglob("tasks/*.json"))
    assert there == names[:done]
    held = tiny["out"].rglob("[0-9]*.held")
    assert not [file for file in held if '"held"' in file.read_text()]
    if count == 1 == times:
        again = cli(*words)
        assert again.exit_code == 0, again.stderr
        results = [file.read_bytes() for file in sorted(tiny["out"].rglob("tasks/*.json"))]
        cli(*words, "-o", str(tmp_path / "undisturbed"))
        whole = sorted((tmp_path / "undisturbed").rglob("tasks/*.json"))
        assert results == [file.read_bytes() for file in whole] and len(results) == 6
