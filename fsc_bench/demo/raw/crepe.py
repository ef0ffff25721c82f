"""CREPE in miniature: `prod_hard_negatives/<type>/prod_vg_hard_negs_<type>_complexity_<n>.csv`.

Images in vg. Five foils a caption; `x,y,width,height` is the whole picture.
"""

from collections.abc import Sequence
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, PictureFolder, image_number, stream, write_csv
from fsc_bench.demo.world import Description, Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 80) -> None:
    rng = stream(seed, 3)
    store = PictureFolder(images("vg") / "VG_100K")
    types = {
        "atom": ("replace_object", "replace_attribute", "replace_texture", "replace_relation"),
        "swap": ("swap_object", "swap_attribute", "swap_texture", "swap_size"),
        "negate": ("negate",),
    }
    columns = [
        "image_id",
        "caption",
        "n",
        "n_objects",
        "n_relations",
        "n_attributes",
        "n_connected_components",
        "hard_negs",
        "x",
        "y",
        "width",
        "height",
    ]
    for kind, foils in types.items():
        rows: dict[int, list] = {}
        for i in range(n):
            scene, description, negatives = _many_foils(rng, foils, 5)
            mentions, relations = description.mentions, description.relations
            said = sum(
                getattr(m, a) is not None for m in mentions for a in ("colour", "texture", "size")
            )
            number = image_number(seed, 3, len(types) * i + tuple(types).index(kind))
            store.add(scene, f"{number}.jpg")
            size = len(mentions) + len(relations) + said
            rows.setdefault(size, []).append(
                [number, world.verbalise(description), size, len(mentions), len(relations), said, 1,
                 repr(negatives), 0.0, 0.0, float(world.IMAGE_SIZE), float(world.IMAGE_SIZE)]
            )  # fmt: skip
        for size, part in rows.items():
            name = f"prod_vg_hard_negs_{kind}_complexity_{size}.csv"
            write_csv(raw / "prod_hard_negatives" / kind / name, columns, part)
        everything = [row for size in sorted(rows) for row in rows[size]]
        name = f"prod_vg_hard_negs_{kind}_all.csv"
        write_csv(raw / "prod_hard_negatives" / kind / name, columns, everything)


def _many_foils(rng, kinds: Sequence[str], number: int) -> tuple[Scene, Description, list[str]]:
    """A scene, a description of it, and `number` different foils of the description."""
    while True:
        # Two things have too few subsets to deny.
        kind = "triple" if "negate" in kinds or rng.random() < 0.5 else "pair"
        scene = world.sample_scene(rng, kind, split="test")
        description = world.describe(scene, rng, colour=1, texture=0.7, size=0.7, background=0.5)
        found: set[str] = set()
        for attempt in range(30):
            kind = kinds[attempt % len(kinds)]
            changed = world.falsify(description, scene, kind, rng)
            if changed is None and len(found) >= 2:
                # Another kind's, where this one has none.
                changed = world.falsify(description, scene, str(rng.choice(kinds)), rng)
            if changed is not None:
                if attempt >= 12:  # a second change makes it no truer
                    again = world.falsify(changed, scene, str(rng.choice(kinds)), rng)
                    changed = again or changed
                found.add(world.verbalise(changed))
            if len(found) == number:
                foils = sorted(found)  # a set's own order changes from run to run
                return scene, description, [foils[i] for i in rng.permutation(number)]
