"""Attack: names of models: refused by one line before anything is fetched, executed or built.

Of 29 names the nearest right one is offered where there is one; names that a file chose (a run's
config) may execute nothing.
"""

import json
import os
from pathlib import Path

from outcomes import Tally, main, refused_or, tried, workplace

MARK = "executed"
TINY = "open_clip:ViT-S-32-alt"
SPECS = [
    "",
    ":",
    "open_clip",
    "opn_clip:ViT-B-32/openai",
    "open_clip:ViT-B-32",
    "open_clip:ViT-B-32/opnai",
    "open_clip:../../etc/passwd/random",
    f"{TINY}@",
    f"{TINY}@nowhere.pt",
    f"{TINY}@/dev/zero",
    f"{TINY}/random?sed=0",
    f"{TINY}/random?seed=²",
    f"{TINY}/random?seed={'9' * 40}",
    f"{TINY}/random?seed={'9' * 5000}",
    f"{TINY}/random?seed=0&seed=1",
    f"{TINY}/random?activation=relu",
    "open_clip:hf-hub:../../etc",
    "open_clip:local-dir:/dev",
    "run:nowhere",
    "run:strange",
    "run:loop",
    "wise:demo:pretrained",
    "wise:demo:pretrained+demo:fsc-clip?alpha=nan",
    "wise:run:strange+run:strange",
    "py:strange.py:nothing.at.all?x",
    "control:chance?seed=²",
    "fsc_clip:laion-ViT-B-32",
    "\x1b[2Jdemo:pretrained\nfsc-bench: done",
    "x" * 100_000,
]


def strangers(folder: Path) -> None:
    """Run directories whose configs name what a file must not, and Python beside them."""
    for name, skeleton in (("strange", "py:strange.py:model"), ("loop", "run:loop")):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"skeleton": skeleton}))
        (folder / name / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "strange.py").write_text(f"open({MARK!r}, 'w')\nmodel = 1\n")


def attack(count: int = len(SPECS), every: int = 1) -> Tally:
    specs = SPECS[:: max(1, every)][:count]
    os.environ["HF_HUB_OFFLINE"] = "1"
    from fsc_bench.models import load_model

    with workplace() as folder:
        strangers(folder)

        def one(number: int) -> tuple[str, str]:
            outcome, detail = refused_or(lambda: str(load_model(specs[number], "cpu")))
            if not specs[number].startswith("py:") and (folder / MARK).exists():
                outcome = "executed"
            (folder / MARK).unlink(missing_ok=True)
            if outcome == "refused" and (len(detail) > 2000 or not detail.isprintable()):
                outcome = "no line"
            if outcome not in ("refused", "traceback", "several lines", "executed", "no line"):
                outcome = "loaded"
            return outcome, f"{specs[number][:60]!r}: {detail[:160]!r}"

        return tried(len(specs), one)


if __name__ == "__main__":
    assert len(SPECS) == 29, len(SPECS)
    main(attack, len(SPECS))
