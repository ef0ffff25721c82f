"""VL-CheckList in miniature: `data/{Attribute,Object,Relation}/**.json`.

Images in vg (VG_100K/), swig and hake. Object files hold scenes in which the object stands
where (or is as large as) the file says.
"""

from collections.abc import Callable
from itertools import count
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    stream,
    write_json,
)
from fsc_bench.demo.world import Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 12) -> None:
    rng = stream(seed, 9)
    counter = count(image_number(seed, 9, 0))

    def write(path: str, source: str, draw: Callable[[], tuple[Scene, str, str]], width: int = 1):
        rows = []
        for _ in range(n):
            scene, true, false = draw()
            name = f"{next(counter)}.jpg"
            name = {"vg": f"VG_100K/{name}", "hake": f"hcvrd/{name}", "swig": f"placing_{name}"}[
                source
            ]
            PictureFolder(images(source)).add(scene, name)
            rows.append([name, {"POS": [true] * width, "NEG": [false] * width}])
        write_json(raw / "data" / f"{path}.json", rows)

    def attribute(name: str):
        return lambda: foiled(rng, "single", name, background=0)

    kinds = {
        "action": lambda: foiled(rng, "single", "replace_place", background=0),
        "color": attribute("replace_attribute"), "material": attribute("replace_texture"),
        "size": attribute("replace_size"),
        "state": lambda: foiled(rng, "single", "replace_background"),
    }  # fmt: skip
    for source in ("vaw", "vg"):
        for kind, draw in kinds.items():
            write(f"Attribute/{source}/{kind}", "vg", draw)

    def object_scene(**wanted):
        def draw():
            while True:
                scene, true, false = foiled(rng, "pair", "replace_object", relation=0)
                first, second = (world.parse(t).mentions for t in (true, false))
                changed = next(m for m, k in zip(first, second, strict=True) if m != k)
                thing = next(t for t in scene.things if t.shape == changed.shape)
                if "size" in wanted and thing.size == wanted["size"]:
                    return scene, true, false
                cell = world.cell_of(thing)
                where = "center" if cell == "center" else "mid" if "middle" in cell else "margin"
                if wanted.get("location") == where:
                    return scene, true, false

        return draw

    for folder, key, values in (
        ("Location", "location", ("center", "mid", "margin")),
        ("Size", "size", tuple(world.SIZES)[::-1]),
    ):
        low = folder.lower()
        for value in values:
            draw = object_scene(**{key: value})
            write(f"Object/{folder}/hake_{low}/hake_obj_{value}", "hake", draw)
            for role in ("obj", "subj"):
                write(f"Object/{folder}/vg_{low}/vg_{role}_{value}", "vg", draw)
            for role in ("agent", "destination", "item", "tool"):
                path = f"Object/{folder}/swig_{low}/swig_{role}/swig_{role}_{value}"
                write(path, "swig", draw, width=3)

    def relation():
        return foiled(rng, "pair", "replace_relation", background=0)

    write("Relation/hake_action", "hake", relation)
    write("Relation/swig_action", "swig", relation)
    write("Relation/vg/action", "vg", relation)
    write("Relation/vg/spatial", "vg", relation)
