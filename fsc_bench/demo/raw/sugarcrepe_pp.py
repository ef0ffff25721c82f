"""SugarCrepe++ in miniature: `<subset>.json` x 5 (Sri-Harsha/scpp, data/).

Images lie in coco/val2017.
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    reworded,
    stream,
    write_json,
)

KINDS = {
    "replace_obj": "replace_object",
    "replace_att": "replace_attribute",
    "replace_rel": "replace_relation",
    "swap_obj": "swap_object",
    "swap_att": "swap_attribute",
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 12) -> None:
    rng = stream(seed, 50)
    store = PictureFolder(images("coco/val2017"))
    for place, (subset, kind) in enumerate(KINDS.items()):
        rows = []
        for i in range(n):
            scene, true, false = foiled(rng, "pair", kind)
            name = store.add(scene, f"{image_number(seed, 50, place * n + i):012d}.jpg")
            rows.append(
                {"id": i, "filename": name, "caption": true, "caption2": reworded(true, rng),
                 "negative_caption": false}
            )  # fmt: skip
        write_json(raw / "data" / f"{subset}.json", rows)
