"""Folders of classes: `<class>/<number>.png`, n of each class; one recipe for each of `PARTS`."""

from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, PictureFolder, stream

PARTS: dict[str, tuple[str, ...]] = {
    "shapes": world.SHAPES,
    "colours": tuple(world.COLOURS),
    "textures": world.TEXTURES,
    "sizes": tuple(world.SIZES),
    "backgrounds": tuple(world.BACKGROUNDS),
    "counts": world.NUMBERS[1:],
    "digits": tuple(map(str, range(10))),
}


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 20, part: str = "shapes") -> None:
    rng = stream(seed, 20 + tuple(PARTS).index(part))
    store = PictureFolder(raw)
    singular = {"shapes": "shape", "colours": "colour", "textures": "texture", "sizes": "size"}
    for label, name in enumerate(PARTS[part]):
        for i in range(n):
            if part in singular:
                fixed = {singular[part]: name}
                scene = world.sample_scene(rng, "single", split="test", **fixed)
            elif part == "backgrounds":
                kind = ("single", "pair")[i % 2]
                scene = world.sample_scene(rng, kind, split="test", background=name)
            elif part == "counts":
                scene = world.sample_scene(rng, "count", split="test", count=label + 1)
            else:
                style = ("font", "stroke")[i % 2]
                scene = world.sample_scene(rng, "digit", split="test", value=label, style=style)
            store.add(scene, f"{name}/{i:04d}.png")
