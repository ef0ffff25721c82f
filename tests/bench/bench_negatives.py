"""How many captions a second `rules` serves on one core, and how its negatives look.

    python tests/bench/bench_negatives.py CAPTIONS [--candidates 4] [--show 10]

CAPTIONS: a JSON list of records with a list `caption` (the Karpathy layout), or a line a caption.
Prints the rate (best and median of five rounds), the share of captions with each kind, and for each
kind how often the best rule on looks tells the negatives (0.5 is chance; see artefacts.py).
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

from fsc_bench.train.negatives import load_generator, show
from fsc_bench.train.negatives.artefacts import artefacts

ROUNDS = 5
TARGET = 5_000  # captions a second on one core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--show", type=int, default=0)
    options = parser.parse_args()
    captions = read_captions(options.captions)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started = time.perf_counter()
    generator = load_generator("rules")
    generator.generate(captions[0], random.Random(0))
    print(f"{generator.version}: first caption after {time.perf_counter() - started:.2f} s")

    rates, rates_cpu = [], []
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        wall, cpu = time.perf_counter(), time.process_time()
        made = [generator.generate(caption, rng, options.candidates) for caption in captions]
        rates.append(len(captions) / (time.perf_counter() - wall))
        rates_cpu.append(len(captions) / (time.process_time() - cpu))
    print(
        f"{len(captions)} captions, {options.candidates} candidates a kind, one core: "
        f"{max(rates):,.0f}/s best, {statistics.median(rates):,.0f}/s median of {ROUNDS} "
        f"({max(rates_cpu):,.0f}/s of processor time); target {TARGET:,}/s"
    )
    for kind in generator.kinds:
        share = sum(bool(one[kind]) for one in made) / len(made)
        pairs = [(c, text) for c, one in zip(captions, made, strict=True) for text in one[kind]]
        worst = max(artefacts(pairs).items(), key=lambda item: item[1])
        print(f"  {kind:<8} {share:7.2%} of captions; worst look: {worst[0]} {worst[1]:.3f}")
    for caption, negatives in show(captions, generator, options.show):
        print(f"\n{caption}")
        for kind, texts in negatives.items():
            print(f"  {kind:<8} {texts[0] if texts else '-'}")


def read_captions(path: Path) -> list[str]:
    if path.suffix != ".json":
        return path.read_text(encoding="utf-8").splitlines()
    return [text for row in json.loads(path.read_text()) for text in row["caption"]]


if __name__ == "__main__":
    main()
