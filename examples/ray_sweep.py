"""Eight tasks of a Ray cluster divide the models of a file; all see the folder /shared."""

import shlex
import subprocess

import ray

COMMAND = shlex.split(
    "fsc-bench run -m @/shared/models.txt -t fsc -o /shared/runs --data /shared/data"
)


@ray.remote(num_gpus=1, num_cpus=8, max_retries=3)  # a node that dies gives its model back
def score() -> int:
    return subprocess.run(COMMAND).returncode


ray.init()
print(ray.get([score.remote() for _ in range(8)]))  # exit codes; 0: all is scored
