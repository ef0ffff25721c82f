"""Half-Truths in miniature: `data/<source>.parquet` x 3, a picture and three sentences of it.

The columns are id, image, anchor, half_truth, full_truth and triplet_type: a short true sentence,
and it with a detail that is false, and one that is true. The detail is a thing or a relation.
"""

from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, picture_cell, stream, write_parquet
from fsc_bench.demo.world import Description, Mention, Scene

SOURCES = ("coco_qwen", "coco_mistral", "cc3m_qwen")


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 30) -> None:
    rng = stream(seed, 44)
    for source in SOURCES:
        rows = []
        for i in range(n):
            kind = ("entity", "relation")[i % 2]
            scene, (anchor, half, full) = _triplet(rng, kind)
            rows.append(
                {"id": f"{source}_{i}", "image": picture_cell(scene), "anchor": anchor,
                 "half_truth": half, "full_truth": full, "triplet_type": kind}
            )  # fmt: skip
        write_parquet(raw / "data" / f"{source}.parquet", rows, ("image",))


def _triplet(rng, kind: str) -> tuple[Scene, tuple[str, str, str]]:
    """A scene, and what is said of it: the anchor, the half-truth and the full truth."""
    while True:
        scene = world.sample_scene(rng, "pair", split="test")
        first, second = (Mention(thing.shape, thing.colour) for thing in scene.things)
        word = world.spatial_relation(*scene.things)
        absent = [s for s in world.SHAPES if s not in (first.shape, second.shape)]
        stranger = Mention(str(rng.choice(absent)), second.colour)
        anchor = Description((first,))
        if kind == "entity":
            half, full = Description((first, stranger)), Description((first, second))
        elif word is not None:
            half, full = (
                Description((first, second), ((0, said, 1),))
                for said in (world.OPPOSITE[word], word)
            )
        else:
            continue
        said = (anchor, half, full)
        if [world.holds(one, scene) for one in said] == [True, False, True]:
            return scene, tuple(map(world.verbalise, said))
