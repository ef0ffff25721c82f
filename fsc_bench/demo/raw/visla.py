"""VISLA in miniature: two tab-separated tables (Sri-Harsha/visla_benchmark, data/).

As the real ones they end without a line feed, and the last row of the spatial one has no wrong
sentence. Images lie in coco/val2017 and in coco/2017 (train2017/).
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    reworded,
    stream,
)

GENERIC = ("filename", "caption", "second positive", "negative_caption")
SPATIAL = (
    "image", "sent1", "sent2",
    "Best reference (Semantically close)", "Reference-2 (Completely irrelevant)",
)  # fmt: skip


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 20) -> None:
    rng = stream(seed, 51)
    generic = PictureFolder(images("coco/val2017"))
    spatial = PictureFolder(images("coco/2017") / "train2017")
    rows: dict[str, list[tuple[str, ...]]] = {"Generic": [GENERIC], "Spatial": [SPATIAL]}
    for i in range(n):
        kind = ("replace_attribute", "replace_object", "swap_attribute")[i % 3]
        scene, true, false = foiled(rng, "pair", kind)
        name = generic.add(scene, f"{image_number(seed, 51, i):012d}.jpg")
        rows["Generic"].append((name, true, reworded(true, rng), false))
    for i in range(n + 1):
        scene, true, false = foiled(rng, "pair", "replace_relation")
        _, other, _ = foiled(rng, "pair", "replace_relation")
        name = spatial.add(scene, f"{image_number(seed, 51, n + i):012d}.jpg")
        wrong = (false, other) if i < n else ("", "")
        rows["Spatial"].append((name, true, reworded(true, rng), *wrong))
    (raw / "data").mkdir(parents=True, exist_ok=True)
    for name, table in rows.items():
        text = "\r\n".join("\t".join(row) for row in table)
        (raw / "data" / f"{name}_VISLA.tsv").write_bytes(text.encode())
