"""ARO in miniature: VG relation and attribution JSON with `images/` and boxes; captions.

The order subsets' files hold COCO's and Flickr30k's captions only: their shuffles are the reader's
work. Images lie in coco/val2014 and flickr30k (`flickr30k-images/` in the file's own paths).
"""

from dataclasses import replace
from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import (
    ImageFolder,
    PictureFolder,
    foiled,
    image_number,
    stream,
    whole_picture,
    write_json,
)
from fsc_bench.demo.raw import coco_karpathy, flickr30k
from fsc_bench.demo.world import Description, Mention

RELATIONS = {
    "left": "to the left of", "right": "to the right of", "above": "above", "below": "below",
}  # fmt: skip


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 120) -> None:
    rng = stream(seed, 2)
    store = PictureFolder(raw / "images")
    relations, attributes = [], []
    for i in range(n):
        scene, true, false = foiled(rng, "pair", "swap_object", background=0, texture=0, size=0)
        ((_, word, _),) = world.parse(true).relations
        number = image_number(seed, 2, i)
        name = store.add(scene, f"{number}.jpg")
        relations.append(
            {"image_id": str(number), "image_path": name, **whole_picture("bbox_"),
             "relation_name": RELATIONS[word],
             "true_caption": true, "false_caption": false}
        )  # fmt: skip
    # Official scoring keeps attribute pairs with at least 25 samples: few pairs, many samples.
    pairs = [("red", "blue"), ("green", "yellow"), ("white", "purple"), ("orange", "black")]
    for i in range(n):
        first, second = pairs[i * len(pairs) // n]
        while True:
            scene = world.sample_scene(rng, "pair", split="test", colour=first)
            a, b = scene.things
            scene = replace(scene, things=(a, replace(b, colour=second)))
            said = [Mention(a.shape, first), Mention(b.shape, second)]
            swapped = [Mention(a.shape, second), Mention(b.shape, first)]
            if not world.holds(Description(tuple(swapped)), scene):
                break
        true, false = (
            "the {} and the {}".format(*(world.noun_phrase(m, article=False) for m in mentions))
            for mentions in (said, swapped)
        )
        number = image_number(seed, 2, n + i)
        name = store.add(scene, f"{number}.jpg")
        attributes.append(
            {"image_id": str(number), "image_path": name, **whole_picture("bbox_"),
             "attributes": [first, second], "true_caption": true, "false_caption": false}
        )  # fmt: skip
    write_json(raw / "visual_genome_relation.json", relations)
    write_json(raw / "visual_genome_attribution.json", attributes)
    coco_karpathy.write(raw, images, seed + 50, n // 4)
    flickr30k.write(raw, images, seed + 51, n // 4)
