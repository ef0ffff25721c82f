"""COCO's captions in miniature: `coco_karpathy_test.json` as BLIP published it.

Images lie in coco/val2014.
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    captioned,
    image_number,
    stream,
    write_json,
)


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    rng = stream(seed, 11)
    store = PictureFolder(images("coco/val2014"))
    rows = []
    said: set[tuple[str, ...]] = set()
    for i in range(n):
        scene, captions = captioned(rng, 6 if i % 100 == 99 else 5, said)
        name = store.add(scene, f"COCO_val2014_{image_number(seed, 11, i):012d}.jpg")
        rows.append({"image": f"val2014/{name}", "caption": captions})
    write_json(raw / "coco_karpathy_test.json", rows)
