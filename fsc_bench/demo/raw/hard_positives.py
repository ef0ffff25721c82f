"""Hard positives in miniature: the same rows in data/ and, in other words, in swapped_data/.

`vl_checklist_{attributes,relations}.json` (amitakamath/hard_positives); images lie in vg.
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
    "vl_checklist_attributes.json": ("single", "replace_attribute"),
    "vl_checklist_relations.json": ("pair", "replace_relation"),
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 24) -> None:
    rng = stream(seed, 53)
    for place, (file, kinds) in enumerate(KINDS.items()):
        folder = ("VG_100K", "VG_100K_2")[place]
        store = PictureFolder(images("vg") / folder)
        rows: dict[str, list[dict[str, str]]] = {"data": [], "swapped_data": []}
        for i in range(n):
            scene, true, false = foiled(rng, *kinds)
            number = str(image_number(seed, 53, place * n + i))
            name = store.add(scene, f"{number}.jpg")
            for part, caption in (("data", true), ("swapped_data", reworded(true, rng))):
                rows[part].append(
                    {"image_id": number, "true_caption": caption, "false_caption": false,
                     "image_path": f"data/{folder}/{name}"}
                )  # fmt: skip
        for part, found in rows.items():
            write_json(raw / part / file, found)
