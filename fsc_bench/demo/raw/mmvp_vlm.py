"""MMVP-VLM in miniature: `Questions.csv` and `MLLM_VLM Images/<Type>/<Question ID>.jpg`.

Two lines are a pair; n pairs of each type.
"""

from pathlib import Path

from fsc_bench.demo.drawing import ImageFolder, PictureFolder, stream, twins, write_csv

TYPES = {
    "Orientation": "swap_position",
    "Presence": "reshape",
    "State": "retexture",
    "Quantity": "count",
    "Spatial": "move",
    "Color": "recolour",
    "Structural Character": "resize",
    "Text": "swap_colour",
    "Camera Perspective": "background",
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 8) -> None:
    rng = stream(seed, 42)
    store = PictureFolder(raw / "MLLM_VLM Images")
    rows: list[list] = []
    for kind, edit in TYPES.items():
        for _ in range(n):
            for scene, text in zip(*twins(rng, edit), strict=True):
                number = len(rows) + 1
                store.add(scene, f"{kind}/{number}.jpg")
                rows.append([number, kind, text])
    write_csv(raw / "Questions.csv", ["Question ID", "Type", "Statement"], rows)
