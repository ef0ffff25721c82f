"""COCO-Counterfactuals in miniature: `data/examples.jsonl`, `data/images.zip`, `test-coco-cfs.csv`.

The CSV names a part of the examples.
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureZip,
    stream,
    twins,
    write_csv,
    write_json_lines,
)


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 100) -> None:
    rng = stream(seed, 13)
    archive = PictureZip()
    lines, listed = [], []
    for i in range(n + n // 4):
        kind = ("reshape", "recolour", "background", "count")[i % 4]
        scenes, texts = twins(rng, kind)
        name = f"{100_000 + i}_{i % 5}"
        for k in (0, 1):
            archive.add(scenes[k], f"{name}_img_{k}.jpg")
        lines.append(
            {"id": name, "caption_0": texts[0], "caption_1": texts[1],
             "image_0": f"{name}_img_0", "image_1": f"{name}_img_1"}
        )  # fmt: skip
        if i < n:
            base = "../../coco-counterfactuals/synthetic-images-for-{}-captions/{}.jpg"
            listed.append([base.format("original", name), texts[0]])
            listed.append([base.format("counterfactual", name), texts[1]])
    write_json_lines(raw / "data" / "examples.jsonl", lines)
    archive.write(raw / "data" / "images.zip")
    order = rng.permutation(len(listed))
    write_csv(raw / "test-coco-cfs.csv", ["image_path", "caption"], [listed[i] for i in order])
