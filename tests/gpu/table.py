"""README's table of a recorded check: `python tests/gpu/table.py` prints it.

    python tests/gpu/table.py RESULT.json [LATER.json] --record h100

writes recorded/h100.json first: the figures of one check, or of two on cards of one name, of which
the later one's count where both have a figure.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).resolve().parent / "recorded"
LEFT_OUT = ("error", "traceback", "stopped")  # of a part: how it ended, in words of that machine


def merged(reports: list[dict]) -> dict[str, Any]:
    """One report of several of the same card and versions; raises ValueError where they differ."""
    first = reports[0]
    if any(report["machine"] != first["machine"] for report in reports):
        raise ValueError("the reports are of different machines or versions.")
    parts: dict[str, dict] = {}
    for report in reports:
        for name, found in report["parts"].items():
            part = parts.setdefault(name, {"seconds": []})
            part |= {k: v for k, v in found.items() if k not in (*LEFT_OUT, "seconds")}
            part["seconds"].append(found["seconds"])
    return {"machine": first["machine"], "parts": parts}


def table(report: dict) -> str:
    """Markdown: the card and its versions, and a row a figure."""
    machine = report["machine"]
    packages = machine["packages"]
    head = (
        f"{machine['card']}, {machine['cores']} CPU cores, Python {machine['python']}, PyTorch "
        f"{packages['torch']} for CUDA {machine['cuda']}, open_clip {packages['open_clip_torch']}; "
        "random weights, drawn photographs of 640x480."
    )
    lines = [f"| {what} | {figure} |" for what, figure in rows(report["parts"])]
    return "\n".join([head, "", "| what | measured |", "|---|---|", *lines, ""])


def rows(parts: dict[str, dict]) -> Iterator[tuple[str, str]]:
    yield from of_vectors(parts["vectors"])
    yield from of_speed(parts["speed"])
    yield from of_training(parts["training"])
    demo = parts["demo"]["table"]
    yield (
        "the demo suite's numbers that differ from the CPU's",
        f"{demo['differ']} of {demo['numbers']}",
    )
    for name, found in parts["recovery"].items():
        if isinstance(found, dict):
            verdict = "holds" if found["holds"] else "BROKEN"
            yield name, f"{verdict}, largest difference {found['largest_difference']:.1e}"


def of_vectors(part: dict) -> Iterator[tuple[str, str]]:
    tf32 = part["tf32"]
    yield "float32 without TF32: relative error of a product", f"{tf32['product']:.1e}"
    for name, found in part.items():
        if isinstance(found, dict) and "decisions" in found:
            yield (
                f"{name}: decisions unlike the CPU's in fp32",
                f"{found['changed']} of {found['decisions']} "
                f"(similarities at most {found['similarities']:.1e} apart)",
            )


def of_speed(part: dict) -> Iterator[tuple[str, str]]:
    for name, found in part.items():
        if name == "seconds":
            continue
        if "texts_per_second" in found and "encoder_alone" in found:
            yield (
                f"{name}: images a second, files to vectors",
                f"{found['images_per_second']:,.0f} (encoder alone {found['encoder_alone']:,.0f}; "
                f"the card waits {found['card_waits_percent']:.0f}% of the time)",
            )
            yield f"{name}: texts a second", f"{found['texts_per_second']:,.0f}"
        elif all(key.isdigit() for key in found):
            yield name, ", ".join(f"{cores}: {rate:,.0f}" for cores, rate in found.items())
        elif any(key.startswith("by ") for key in found):
            yield name, ", ".join(f"{rate:,.0f} {way}" for way, rate in found.items())
        else:
            key = next(key for key in found if key.endswith("_per_second"))
            yield f"{name}: {key.removesuffix('_per_second')} a second", f"{found[key]:,.0f}"


def of_training(part: dict) -> Iterator[tuple[str, str]]:
    losses = part["losses on the device and the CPU"]["largest_relative"]
    yield "training losses beside the CPU's: largest relative difference", f"{losses:.1e}"
    for name, found in part.items():
        if isinstance(found, dict) and "step_seconds" in found:
            yield (
                f"{name}: a step",
                f"{1000 * found['step_seconds']:.0f} ms, {found['peak_memory_gib']:.1f} GiB, MFU "
                f"{found['mfu_percent']:.1f}%, {found['times_as_fast_as_plain']:.2f}x plain",
            )
    yield "the local loss adds to a step", f"{part['the local loss adds']['percent']:.0f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="*", help="what check.py wrote, oldest first")
    parser.add_argument("--record", default="h100", help="the name of the recorded file")
    arguments = parser.parse_args()
    file = RECORDED / f"{arguments.record}.json"
    if arguments.reports:
        found = merged([json.loads(report.read_text()) for report in arguments.reports])
        file.write_text(json.dumps(found, indent=1) + "\n")
    print(table(json.loads(file.read_text())), end="")


if __name__ == "__main__":
    main()
