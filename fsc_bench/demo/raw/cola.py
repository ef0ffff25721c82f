"""COLA in miniature: pairs of pictures by their addresses, and a caption of each.

`data/COLA_multiobjects_matching_benchmark.json` (arijitray1993/COLA); images lie in vg.
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    image_number,
    stream,
    twins,
    write_json,
)

ADDRESS = "https://cs-people.bu.edu/array/data/vg_gqa_images/"
KINDS = ("swap_colour", "swap_texture", "swap_size", "swap_position")


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    rng = stream(seed, 52)
    store = PictureFolder(images("vg") / "VG_100K")
    rows = []
    for i in range(n):
        scenes, texts = twins(rng, KINDS[i % len(KINDS)])
        names = [f"{image_number(seed, 52, 2 * i + k)}.jpg" for k in (0, 1)]
        for scene, name in zip(scenes, names, strict=True):
            store.add(scene, name)
        rows.append([ADDRESS + names[0], texts[0], ADDRESS + names[1], texts[1]])
    write_json(raw / "data" / "COLA_multiobjects_matching_benchmark.json", rows)
