"""ImageCoDe in miniature: `valid_data.json` and `image-sets.zip`.

Ten pictures a set; keys are positions in order.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, PictureZip, plain_style, stream, write_json
from fsc_bench.demo.world import Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    rng = stream(seed, 5)
    archive = PictureZip()
    sets: dict[str, dict[str, str]] = {}
    for i in range(2 * n):
        static = i < n
        name = f"open-images-{i:04d}" if static else f"MSR-VTT-videoTestVideo_video{i:04d}-shot0_0"
        scenes = _variants(rng, 10, near=not static)
        # Frames of a film have numbers with gaps; img10 must sort behind img9, by number.
        numbers = np.cumsum(rng.integers(1, 4, 10)) if not static else np.arange(10)
        for number, scene in zip(numbers, scenes, strict=True):
            archive.add(scene, f"image-sets/{name}/img{number}.jpg")
        said: dict[str, str] = {}
        for position in rng.permutation(10):
            text = _telling(scenes[position], scenes, int(position), rng)
            if text is not None:
                said[str(position)] = text
                break
        if said:
            sets[name] = said
    write_json(raw / "valid_data.json", sets)
    archive.write(raw / "image-sets.zip")


def _variants(rng, number: int, near: bool) -> list[Scene]:
    """Different scenes: each an edit of the last (`near`, as frames of a film) or of any."""
    scenes = [world.sample_scene(rng, "pair", split="test")]
    kinds = ("move", "resize", "swap_position") if near else world.EDITS
    while len(scenes) < number:
        start = scenes[-1] if near else scenes[int(rng.integers(len(scenes)))]
        changed = world.edit(start, str(rng.choice(kinds)), rng)
        if changed is not None and changed.things and changed not in scenes:
            scenes.append(changed)
    return scenes


def _telling(scene: Scene, scenes: Sequence[Scene], own: int, rng) -> str | None:
    """A sentence that is true of one scene of a set only, or None after some tries."""
    for _ in range(20):
        description = world.describe(
            scene, rng, colour=1, size=0.8, texture=0.4, place=0.8, relation=0.6
        )
        if not any(world.holds(description, s) for i, s in enumerate(scenes) if i != own):
            return world.verbalise(description, plain_style(rng))
    return None
