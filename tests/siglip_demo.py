"""A small SigLIP fine-tuned in the demo world: its losses against a plain loop, and what it scores.

    python tests/siglip_demo.py OUT [STEPS]

It prints the largest difference of 100 steps of the recipe's losses (sigmoid contrast, global and
local hard negatives) from `plain_loss` of test_trainable_families.py, then the demo's table before
and after. From random weights and 64 pairs both stay at
chance: it shows that the way works, not a gain.
"""

import sys
from pathlib import Path

import tiny_families
import torch
from test_trainable_families import both_ways

from fsc_bench.cli.main import app


def main() -> None:
    out = Path(sys.argv[1])
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    torch.set_num_threads(1)
    tiny_families.register(out / "families")
    found, expected = both_ways(out, steps)
    apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    print(f"{steps} steps: loss {found[0]:.4f} to {found[-1]:.4f}, at most {apart:.1e} apart.")
    models = ("open_clip:tiny-map/random", f"run:{out / 'ours'}")
    app(["run", "--demo", "-o", str(out / "scores"), *(w for m in models for w in ("-m", m))])


if __name__ == "__main__":
    main()
