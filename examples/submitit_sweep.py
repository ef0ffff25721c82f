"""Eight jobs divide the models of a file; submitit puts them into Slurm's queue."""

import shlex

import submitit

COMMAND = shlex.split(
    "fsc-bench run -m @/shared/models.txt -t fsc -o /shared/runs --data /shared/data"
)

executor = submitit.AutoExecutor(folder="/shared/logs")
executor.update_parameters(timeout_min=240, gpus_per_node=1, cpus_per_task=8)
with executor.batch():  # one Slurm array
    jobs = [executor.submit(submitit.helpers.CommandFunction(COMMAND)) for _ in range(8)]
for job in jobs:
    job.result()  # raises what went wrong; the same script again continues
