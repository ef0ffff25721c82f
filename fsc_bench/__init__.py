"""fsc_bench: the honest evaluation of CLIP-style vision-language models."""

__version__ = "0.1.0"
