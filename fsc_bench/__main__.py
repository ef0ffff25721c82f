"""`python -m fsc_bench`, the same as `fsc-bench`."""

from fsc_bench.cli.main import app

app()
