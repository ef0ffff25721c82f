"""SPEC in miniature: `<subset>/image2text.json`, `text2image.json` and `images/`.

As wjpoom/SPEC's data.zip unpacks. `n` base cases a subset: each gives as many samples in both
directions as it has candidates.
"""

from dataclasses import replace
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    lone,
    relative_spatial,
    stream,
    write_json,
)
from fsc_bench.demo.world import Description, Mention, Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    rng = stream(seed, 6)
    cases = {
        "absolute_size": _absolute_size, "relative_size": _relative_size,
        "absolute_spatial": _absolute_spatial, "relative_spatial": relative_spatial,
        "existence": _existence, "count": _count,
    }  # fmt: skip
    for subset, case in cases.items():
        store = PictureFolder(raw / subset)
        to_text, to_image = [], []
        for i in range(n if subset not in ("absolute_spatial", "count") else max(1, n // 2)):
            scenes, descriptions = case(rng)
            for a, scene in enumerate(scenes):
                for b, description in enumerate(descriptions):
                    assert world.holds(description, scene) == (a == b)
            names = [f"images/{i:06d}_{k}.jpg" for k in range(len(scenes))]
            texts = [f"{world.verbalise(d)}." for d in descriptions]
            for k, (scene, name) in enumerate(zip(scenes, names, strict=True)):
                store.add(scene, name)
                order = [int(j) for j in rng.permutation(len(texts))]
                label = order.index(k)
                to_text.append({"query": name, "keys": [texts[j] for j in order], "label": label})
                to_image.append(
                    {"query": texts[k], "keys": [names[j] for j in order], "label": label}
                )
        write_json(raw / subset / "image2text.json", to_text)
        write_json(raw / subset / "text2image.json", to_image)


def _with(scene: Scene, **changes) -> Scene:
    return replace(scene, things=(replace(scene.things[0], **changes), *scene.things[1:]))


def _absolute_size(rng):
    scene, said = lone(rng)
    scenes = [_with(scene, size=size) for size in world.SIZES]
    return scenes, [Description((replace(said, size=size),)) for size in world.SIZES]


def _relative_size(rng):
    scene = world.sample_scene(rng, "pair", split="test")
    a, b = scene.things
    said = (Mention(a.shape, a.colour), Mention(b.shape, b.colour))
    scenes, descriptions = [], []
    for word, (mine, theirs) in {
        "larger": ("large", "small"), "smaller": ("small", "large"), "same": ("medium", "medium"),
    }.items():  # fmt: skip
        things = (replace(a, size=mine), replace(b, size=theirs))
        scenes.append(replace(scene, things=things))
        descriptions.append(Description(said, ((0, word, 1),)))
    return scenes, descriptions


def _absolute_spatial(rng):
    scene, said = lone(rng)
    scenes = [
        replace(scene, things=(world.move_to(scene.things[0], cell, rng),)) for cell in world.CELLS
    ]
    return scenes, [Description((replace(said, place=cell),)) for cell in world.CELLS]


def _existence(rng):
    scene = world.sample_scene(rng, "pair", split="test")
    said = Mention(scene.things[0].shape, scene.things[0].colour)
    without = replace(scene, things=scene.things[1:])
    return [scene, without], [Description((said,)), Description((replace(said, count=0),))]


def _count(rng):
    scene = world.sample_scene(rng, "count", split="test", count=1)
    thing = scene.things[0]
    cells = [str(c) for c in rng.permutation(world.CELLS)[:4]]
    scenes, descriptions = [], []
    for number in range(1, 5):
        things = tuple(world.move_to(thing, cell, rng) for cell in cells[:number])
        scenes.append(replace(scene, things=things))
        descriptions.append(Description((Mention(thing.shape, thing.colour, count=number),)))
    return scenes, descriptions
