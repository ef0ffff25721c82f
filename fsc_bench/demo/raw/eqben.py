"""EqBen in miniature: `ann_json_finegrained_random.json` and `<sub-dataset>/...`.

YouCook2's pictures are BGR `.npy` arrays.
"""

from pathlib import Path

from fsc_bench.demo.drawing import ImageFolder, PictureFolder, stream, twins, write_json


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    rng = stream(seed, 4)
    kinds = {
        "eqbenag": ("swap_position", "png"),
        "eqbenyoucook2": ("reshape", "npy"),
        "eqbengebc": ("recolour", "png"),
        "eqbenkubric_loc": ("swap_position", "png"),
        "eqbenkubric_cnt": ("count", "png"),
        "eqbenkubric_attr": ("swap_colour", "png"),
        "eqbensd": ("background", "png"),
    }
    store = PictureFolder(raw)
    entries = []
    counter = 0
    for subset, (kind, suffix) in kinds.items():
        for i in range(n):
            scenes, texts = twins(rng, kind)
            names = [f"{subset}/scene_{i:05d}/{k:06d}.{suffix}" for k in (0, 1)]
            for scene, name in zip(scenes, names, strict=True):
                store.add(scene, name)
            for c in (0, 1):
                for k in (0, 1):
                    entries.append(
                        {"image": names[k], "caption": texts[c],
                         "private_info": {
                             "dataset": subset, "name": f"c{c}i{k}", "sample_cnt": counter}}
                    )  # fmt: skip
            counter += 1
    order = rng.permutation(len(entries))
    write_json(raw / "ann_json_finegrained_random.json", [entries[i] for i in order])
