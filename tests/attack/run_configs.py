"""Attack: the `config.json` of strangers' training runs: one line, nothing executed or built."""

import json
from pathlib import Path
from typing import Any

from outcomes import Tally, main, refused_or, tried, workplace
from safetensors.torch import save_file

from fsc_bench.models import load_model

PREPROCESS = {
    "size": 32, "mode": "RGB", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2],
    "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
}  # fmt: skip
GOOD = {"skeleton": "demo:pretrained", "preprocess": PREPROCESS}


def skeleton(value: Any) -> dict:
    return {**GOOD, "skeleton": value}


def preprocess(**changes: Any) -> dict:
    return {**GOOD, "preprocess": {**PREPROCESS, **changes}}


CASES: list[Any] = [
    b"",
    b"[]",
    b"null",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"skeleton": "demo:pretrained", "skeleton": "demo:clip"}',
    {},
    skeleton(3),
    skeleton(""),
    skeleton("x" * 100_000),
    skeleton("py:evil.py:model"),
    skeleton("PY:evil.py:model"),
    skeleton("wise:py:evil.py:model+demo:clip"),
    skeleton("run:."),
    skeleton("open_clip:hf-hub:org/name"),
    skeleton("open_clip:local-dir:."),
    skeleton("open_clip:ViT-B-32@evil.pt"),
    skeleton("open_clip:ViT-B-32/openai"),
    skeleton("demo:pretrained\nfsc-bench: done"),
    skeleton("demo:pretrained@evil.py"),
    skeleton("demo:nobody"),
    {**GOOD, "preprocess": "RGB"},
    {**GOOD, "preprocess": [PREPROCESS]},
    preprocess(size=10**9),
    preprocess(size=[32]),
    preprocess(size=[32, -1]),
    preprocess(size="32"),
    preprocess(mode="L"),
    preprocess(mean="none"),
    preprocess(mean=[0.5, None, 0.5]),
    preprocess(mean=[1e30, 0.5, 0.5]),
    preprocess(mean=[0.5]),
    preprocess(std=[0, 0.2, 0.2]),
    preprocess(std=[-1, 0.2, 0.2]),
    preprocess(interpolation="lanczos"),
    preprocess(resize_mode="stretch"),
    preprocess(fill_color=10**6),
    preprocess(evil=1),
]


def attack(count: int = len(CASES), every: int = 1) -> Tally:
    cases = CASES[:: max(1, every)][:count]
    with workplace() as folder:
        Path(folder / "evil.py").write_text("open('executed', 'w')\nmodel = 1\n")
        (folder / "dl").mkdir()
        weights = load_model("demo:pretrained", "cpu").model.state_dict()
        save_file(weights, folder / "dl" / "model.safetensors")

        def one(number: int) -> tuple[str, str]:
            content = cases[number]
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            (folder / "dl" / "config.json").write_bytes(raw)
            outcome, detail = refused_or(lambda: "loaded" if load_model("run:dl", "cpu") else "")
            if (folder / "executed").exists():
                (folder / "executed").unlink()
                outcome = "executed"
            if outcome == "refused" and (len(detail) > 2000 or not detail.isprintable()):
                outcome = "no line"
            return outcome, f"{content!r:.80}: {detail:.120}"

        return tried(len(cases), one)


if __name__ == "__main__":
    main(attack, len(CASES))
