"""What'sUp in miniature: `controlled_{images,clevr}_dataset.json`, `{coco,vg}_qa_*.json`.

Own pictures in `data/controlled_*` and `vg_images/`; COCO's in coco/val2017.
"""

from dataclasses import replace
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    lone,
    relative_spatial,
    stream,
    write_json,
)
from fsc_bench.demo.world import Description, Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 60) -> None:
    rng = stream(seed, 10)
    own = PictureFolder(raw)
    phrases = {
        "left": "to the left of", "right": "to the right of", "above": "above", "below": "below",
    }  # fmt: skip
    for name in ("controlled_images", "controlled_clevr"):
        rows = []
        for i in range(-(-n // 4)):
            scenes, descriptions = relative_spatial(rng)
            a, b = (world.noun_phrase(m) for m in descriptions[0].mentions)
            texts = [f"{a} {p} {b}".capitalize() for p in phrases.values()]
            for k, scene in enumerate(scenes):
                path = own.add(scene, f"data/{name}/scene_{i}_{list(phrases)[k]}.jpeg")
                others = [t for j, t in enumerate(texts) if j != k]
                rows.append({"image_path": path, "caption_options": [texts[k], *others]})
        write_json(raw / f"{name}_dataset.json", rows[:n])
    sides = {"left side": "left", "right side": "right", "top side": "top", "bottom side": "bottom"}
    opposite = {"left side": "right side", "top side": "bottom side"}
    opposite |= {v: k for k, v in opposite.items()}
    for source in ("coco", "vg"):
        one, two = [], []
        for i in range(n):
            number = image_number(seed, 10, 2 * i)
            scene, said = lone(rng)
            side = tuple(sides)[i % 4]
            column_or_row = [c for c in world.CELLS if side.split()[0] in c.split()]
            thing = world.move_to(scene.things[0], str(rng.choice(column_or_row)), rng)
            scene = replace(scene, things=(thing,))
            assert world.holds(Description((replace(said, place=side),)), scene)
            assert not world.holds(Description((replace(said, place=opposite[side]),)), scene)
            texts = [
                f"A photo of {world.noun_phrase(said)} on the {sides[s]}"
                for s in (side, opposite[side])
            ]
            _whatsup_image(source, raw, images, scene, number)
            one.append([number if source == "coco" else str(number), *texts])
            scene, true, false = foiled(rng, "pair", "replace_relation", background=0)
            number += 1
            _whatsup_image(source, raw, images, scene, number)
            two.append(
                [number if source == "coco" else str(number),
                 *(f"A photo of {t}" for t in (true, false))]
            )  # fmt: skip
        write_json(raw / f"{source}_qa_one_obj.json", one)
        write_json(raw / f"{source}_qa_two_obj.json", two)


def _whatsup_image(source: str, raw: Path, images: ImageFolder, scene: Scene, number: int) -> None:
    if source == "coco":
        PictureFolder(images("coco/val2017")).add(scene, f"{number:012d}.jpg")
    else:
        PictureFolder(raw / "vg_images").add(scene, f"{number}.jpg")
