"""The examples run, and give what they say."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import processes
import pytest
from test_jobs import ASKED

from fsc_bench.data.images import write_link

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_training_loop_scores_its_model_every_few_steps(drawn, monkeypatch, capsys):
    monkeypatch.setenv("FSC_BENCH_DATA", str(drawn.parent))
    spec = importlib.util.spec_from_file_location("loop", EXAMPLES / "score_while_training.py")
    loop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loop)

    history = loop.train(steps=4, every=2, tasks="demo_colours", limit=5)

    prints = {scores.run.facts["identity"]["weights"] for scores in history}
    assert len(history) == len(prints) == 2  # the weights moved between the two
    assert capsys.readouterr().out.count("demo_colours accuracy") == 2


# ---------------------------------------------------------------- schedulers

BENCH = """#!/bin/sh
folder=$(mktemp -d "$REQUESTS/XXXXXX")
for word; do printf '%s\\n' "$word"; done > "$folder/words"
pwd > "$folder/where"
echo "${TIMES:-0}" > "$folder/times"
mv "$folder/words" "$folder/asked"
while [ ! -f "$folder/code" ]; do sleep 0.02; done
cat "$folder/said" >&2
exit "$(cat "$folder/code")"
"""
MODELS = [f"control:chance?seed={seed}" for seed in range(3)]


class Cluster:
    """Two machines with a folder: what an example starts as `fsc-bench` runs in a process that has
    imported torch already.
    """

    def __init__(self, tiny: dict, monkeypatch):
        self.shared = tiny["out"].parent
        (self.shared / "models.txt").write_text("\n".join(MODELS) + "\n")
        second = tiny["task"].with_name("second.toml")
        second.write_text(tiny["task"].read_text())
        write_link(tiny["data"], "second", tiny["raw"])
        self.tasks = f"{tiny['task']},{second}"
        self.program("fsc-bench", BENCH)
        self.requests = self.shared / "requests"
        self.requests.mkdir()
        monkeypatch.setenv("PATH", f"{self.shared / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("REQUESTS", str(self.requests))
        self.monkeypatch = monkeypatch
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    def program(self, name: str, text: str) -> None:
        file = self.shared / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def serve(self) -> None:
        """Starts what is asked for, and says how it ended."""
        running = {}
        while not (self.over.wait(0.01) and not running):
            for asked in self.requests.glob("*/asked"):
                folder = asked.parent
                words = asked.read_text().splitlines()
                asked.rename(folder / "started")
                where = partial(os.chdir, (folder / "where").read_text().strip())
                environment = {"TIMES": (folder / "times").read_text().strip()}
                running[folder] = processes.start(
                    processes.command, words, folder / "said", environment, where
                )
            for folder in [folder for folder, one in running.items() if not one.is_alive()]:
                (folder / "code.part").write_text(str(running.pop(folder).exitcode))
                (folder / "code.part").rename(folder / "code")

    def example(self, name: str) -> str:
        """An example of two jobs, with this folder and the tiny tasks in their places."""
        text = (EXAMPLES / name).read_text()
        assert "-t fsc" in text or "-t, fsc" in text
        for old, new in (("-t fsc", f"-t {self.tasks}"), ("-t, fsc", f"-t, '{self.tasks}'")):
            text = text.replace(old, new)
        return text.replace("/shared", str(self.shared)).replace("range(8)", "range(2)")

    def bash(self, script: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", script], env={**os.environ, **environment}, cwd=self.shared,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def results(self) -> list[str]:
        """ "model task" of each result that is there, by whoever scored it."""
        found = []
        for file in self.shared.rglob("run.json"):
            model = json.loads(file.read_text())["model"]
            found += [f"{model} {task.stem}" for task in file.parent.glob("tasks/*.json")]
        return sorted(found)


EVERY = sorted(f"{model} {task}" for model in MODELS for task in ("tiny", "second"))


@pytest.fixture
def cluster(tiny, monkeypatch):
    cluster = Cluster(tiny, monkeypatch)
    cluster.thread.start()
    yield cluster
    cluster.over.set()
    cluster.thread.join()


def test_slurm_puts_back_what_left_before_its_time_was_up(cluster):
    """sbatch's part: it runs the file for each number, and again where `scontrol requeue` says."""
    asked = cluster.shared / "asked.py"
    asked.write_text(ASKED)
    (cluster.shared / "models.txt").write_text("\n".join([f"py:{asked}:model", *MODELS]) + "\n")
    cluster.program("srun", '#!/bin/sh\nexec "$@"\n')
    log = cluster.shared / "requeued"
    cluster.program("scontrol", f'#!/bin/sh\necho "$@" >> {log}\n')
    script = cluster.example("slurm_array.sbatch")
    assert "#SBATCH --array=0-7" in script and "--signal=USR1@300 --requeue" in script

    def task(number, **more):
        slurm = {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": str(number)}
        return cluster.bash(script, **slurm, **more)

    first = task(0, TIMES="1")
    assert first.returncode == 75, first.stderr
    assert log.read_text() == "requeue 71_0\n"
    assert [line[-4:] for line in cluster.results()] == ["tiny"]
    again, other = task(0), task(1)
    assert (again.returncode, other.returncode) == (0, 0), again.stderr
    assert "Nothing to do" in other.stderr
    mine = [f"py:{asked}:model {name}" for name in ("tiny", "second")]
    assert cluster.results() == sorted([*EVERY, *mine])
    assert log.read_text() == "requeue 71_0\n"


def python_example(cluster, name: str, module: types.ModuleType) -> dict:
    """Runs an example that imports `module`, which stands for a library that is not here."""
    cluster.monkeypatch.setitem(sys.modules, module.__name__, module)
    place: dict = {}
    exec(compile(cluster.example(name), name, "exec"), place)
    return place


def test_submitit_runs_the_command_as_often_as_there_are_jobs(cluster):
    submitit, given = types.ModuleType("submitit"), {}

    class Executor:
        def __init__(self, folder):
            self.folder = folder

        def update_parameters(self, **parameters):
            given.update(parameters)

        batch = contextlib.nullcontext

        def submit(self, function):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(function)

    class CommandFunction:
        def __init__(self, command):
            self.command = command

        def __call__(self):
            return subprocess.run(self.command, check=True)

    submitit.AutoExecutor = Executor
    submitit.helpers = types.SimpleNamespace(CommandFunction=CommandFunction)

    assert len(python_example(cluster, "submitit_sweep.py", submitit)["jobs"]) == 2
    assert given == {"timeout_min": 240, "gpus_per_node": 1, "cpus_per_task": 8}
    assert cluster.results() == EVERY


def test_ray_runs_the_command_as_often_as_there_are_tasks(cluster, capsys):
    ray, pool = types.ModuleType("ray"), ThreadPoolExecutor(2)
    ray.init = lambda: None
    ray.get = lambda futures: [future.result() for future in futures]

    def remote(**_):
        return lambda function: types.SimpleNamespace(remote=lambda: pool.submit(function))

    ray.remote = remote
    python_example(cluster, "ray_sweep.py", ray)

    assert capsys.readouterr().out == "[0, 0]\n"
    assert cluster.results() == EVERY


def test_kubernetes_gives_each_pod_the_same_command(cluster):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(cluster.example("kubernetes-indexed-job.yaml"))
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] in [volume["name"] for volume in pod["volumes"]]
    with ThreadPoolExecutor(2) as pods:
        codes = pods.map(
            lambda index: (
                subprocess.run(
                    container["command"], env={**os.environ, "JOB_COMPLETION_INDEX": str(index)}
                ).returncode
            ),
            range(2),
        )
    assert list(codes) == [0, 0]
    assert cluster.results() == EVERY


def test_skypilot_divides_the_models_of_machines_that_share_no_folder(cluster, tiny):
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load(cluster.example("skypilot.yaml"))
    bucket = cluster.shared / "bucket"
    assert list(task["file_mounts"]) == ["/results"]
    bucket.mkdir()
    script = task["run"].replace("/results", str(bucket))
    for rank in range(2):
        done = cluster.bash(script, SKYPILOT_NODE_RANK=str(rank), SKYPILOT_NUM_NODES="2")
        assert done.returncode == 0, done.stderr
        shutil.rmtree(cluster.shared / "runs")

    assert sorted(path.name for path in bucket.iterdir()) == ["node-0", "node-1"]
    shares = [len(list((bucket / f"node-{rank}").glob("*/run.json"))) for rank in (0, 1)]
    assert shares == [2, 1]  # lines 1 and 3, and line 2
    assert cluster.results() == EVERY
