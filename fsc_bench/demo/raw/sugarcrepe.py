"""SugarCrepe in miniature: `<subset>.json` x 7 (RAIVNLab/sugar-crepe, data/).

Images lie in coco/val2017.
"""

from pathlib import Path

from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    stream,
    write_json,
)


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 60) -> None:
    rng = stream(seed, 0)
    store = PictureFolder(images("coco/val2017"))
    kinds = {
        "replace_obj": ("pair", "replace_object"),
        "replace_att": ("pair", "replace_attribute"),
        "replace_rel": ("pair", "replace_relation"),
        "swap_obj": ("pair", "swap_object"),
        "swap_att": ("pair", "swap_attribute"),
        "add_obj": ("single", "add_object"),
        "add_att": ("pair", "add_attribute"),
    }
    for place, (subset, (scene_kind, foil_kind)) in enumerate(kinds.items()):
        rows = {}
        for i in range(n):
            scene, true, false = foiled(rng, scene_kind, foil_kind)
            number = image_number(seed, 0, place * n + i)
            name = store.add(scene, f"{number:012d}.jpg")
            rows[str(i)] = {"filename": name, "caption": true, "negative_caption": false}
        write_json(raw / f"{subset}.json", rows)
