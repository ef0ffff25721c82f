"""Metrics: pure numpy, from similarities to outcomes per sample. They import nothing of ours."""
