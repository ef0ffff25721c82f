"""Kinds: one module a kind of task, each with `score(given: Material) -> Scores`."""
