"""The embedded default: a procedural world, tiny models, and miniature benchmarks.

For a machine with no data and no weights. Nothing here is a measurement of a real model.
"""

SUITE = "demo"  # of tasks/suites; what `run --demo` scores
