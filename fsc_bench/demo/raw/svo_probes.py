"""SVO-Probes in miniature: `svo_probes.csv` and `images/<id>.jpg`.

One sentence, a right picture and a wrong one. A sentence's verb is a relation here
("star, above, ring").
"""

from dataclasses import replace
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, PictureFolder, image_number, stream, write_csv
from fsc_bench.demo.world import Description, Mention, Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 100) -> None:
    rng = stream(seed, 7)
    store = PictureFolder(raw / "images")
    columns = [
        "sentence",
        "pos_triplet",
        "neg_triplet",
        "pos_url",
        "neg_url",
        "pos_image_id",
        "neg_image_id",
        "subj_neg",
        "verb_neg",
        "obj_neg",
    ]
    rows = []
    for i in range(3 * n):
        which = ("subj", "verb", "obj")[i % 3]
        scene, description = _related(rng)
        a, b = (_mentioned(m, scene) for m in description.mentions)
        word = description.relations[0][1]
        if which == "verb":
            things = (replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y))
            other_triplet = (a.shape, world.OPPOSITE[word], b.shape)
        else:
            free = [s for s in world.SHAPES if s not in (a.shape, b.shape)]
            new = str(rng.choice(free))
            if which == "subj":
                things, other_triplet = (replace(a, shape=new), b), (new, word, b.shape)
            else:
                things, other_triplet = (a, replace(b, shape=new)), (a.shape, word, new)
        wrong = replace(scene, things=things)
        assert world.holds(description, scene) and not world.holds(description, wrong)
        numbers = (image_number(seed, 7, 2 * i), image_number(seed, 7, 2 * i + 1))
        for scene_, number in zip((scene, wrong), numbers, strict=True):
            store.add(scene_, f"{number}.jpg")
        rows.append(
            [world.verbalise(description).capitalize() + ".",
             ",".join((a.shape, word, b.shape)), ",".join(other_triplet),
             *(f"https://demo.invalid/{k}.jpg" for k in numbers), *numbers,
             which == "subj", which == "verb", which == "obj"]
        )  # fmt: skip
    write_csv(raw / "svo_probes.csv", columns, rows)


def _related(rng) -> tuple[Scene, Description]:
    while True:
        scene = world.sample_scene(rng, "pair", split="test")
        description = world.describe(scene, rng, relation=1, background=0.3, texture=0.2, size=0.2)
        if description.relations:
            return scene, description


def _mentioned(mention: Mention, scene: Scene) -> world.Thing:
    return next(t for t in scene.things if t.shape == mention.shape)
