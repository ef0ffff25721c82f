"""NegBench in miniature: a CSV for each set of pictures, four sentences a question, one right.

`images/{COCO_val,VOC2007}_mcq_llama3.1_rephrased.csv`; pictures in coco/val2017 and voc/test2007.
"""

from pathlib import Path

from fsc_bench.demo import world
from fsc_bench.demo.drawing import ImageFolder, PictureFolder, image_number, stream, write_csv
from fsc_bench.demo.world import Description, Mention, Scene

SETS = {
    "COCO_val": ("coco/val2017", "data/coco/images/val2017", 12),
    "VOC2007": ("voc/test2007", "data/VOCdevkit/VOC2007/JPEGImages", 6),
}
TEMPLATES = ("positive", "negative", "hybrid")


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 20) -> None:
    rng = stream(seed, 45)
    columns = ["image_path", *(f"caption_{k}" for k in range(4)), "correct_answer",
               "correct_answer_template"]  # fmt: skip
    for name, (source, folder, digits) in SETS.items():
        store = PictureFolder(images(source))
        rows = []
        for i in range(3 * n):
            template = TEMPLATES[i % 3]
            scene, texts = _question(rng, template)
            number = image_number(seed, 45, i) if digits == 12 else i + 1
            picture = store.add(scene, f"{number:0{digits}d}.jpg")
            order = [int(k) for k in rng.permutation(4)]
            row = [f"{folder}/{picture}", *(texts[k] for k in order), order.index(0), template]
            rows.append(row)
        write_csv(raw / "images" / f"{name}_mcq_llama3.1_rephrased.csv", columns, rows)


def _question(rng, template: str) -> tuple[Scene, list[str]]:
    """A scene, a sentence that is true of it and three that are false."""
    while True:
        scene = world.sample_scene(rng, "pair", split="test")
        here, also = (Mention(thing.shape) for thing in scene.things)
        absent = [s for s in world.SHAPES if s not in (here.shape, also.shape)]
        shape = str(rng.choice(absent))
        away, no_away = Mention(shape), Mention(shape, count=0)
        no_here = Mention(here.shape, count=0)
        right = {
            "positive": Description((here, also)),
            "negative": Description((no_away,)),
            "hybrid": Description((here, no_away)),
        }[template]
        wrong = [Description(said) for said in ((here, away), (no_here,), (away, no_here))]
        if [world.holds(one, scene) for one in (right, *wrong)] == [True, False, False, False]:
            return scene, [world.verbalise(one) for one in (right, *wrong)]
