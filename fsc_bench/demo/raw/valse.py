"""VALSE in miniature: eleven JSON files.

Images in visual7w, coco/val2017, swig, coco/{train,val}2014 and visdial. Every fifth
record has too few annotators' votes, as in the original, and must be left out.
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
    write_json,
)
from fsc_bench.demo.world import Description, Mention, Scene


def write(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    rng = stream(seed, 8)
    plan = {  # piece -> (phenomenon, image source, name of the file, scene, foil)
        "existence": ("existence", "visual7w", "v7w_{}.jpg", "pair", "existence"),
        "plurals": ("plurals", "coco/val2017", "{:012d}.jpg", "count", "plurals"),
        "counting-hard": ("counting", "visual7w", "v7w_{}.jpg", "mixed", "replace_count"),
        "counting-small-quant": ("counting", "visual7w", "v7w_{}.jpg", "count", "replace_count"),
        "counting-adversarial": ("counting", "visual7w", "v7w_{}.jpg", "count", "small_number"),
        "relations": ("relations", "coco/val2017", "{:012d}.jpg", "pair", "replace_relation"),
        "action-replacement": ("actions", "swig", "standing_{}.jpg", "pair", "replace_object"),
        "actant-swap": ("actions", "swig", "standing_{}.jpg", "pair", "swap_object"),
        "coreference-standard": (
            "coreference", "coco/val2014", "COCO_val2014_{:012d}.jpg", "pair", "question",
        ),
        "coreference-hard": (
            "coreference", "visdial", "VisualDialog_val2018_{:012d}.jpg", "pair", "question",
        ),
        "foil-it": (
            "noun phrases", "coco/val2014", "COCO_val2014_{:012d}.jpg", "pair", "replace_object",
        ),
    }  # fmt: skip
    for place, (piece, (phenomenon, source, template, kind, foil_kind)) in enumerate(plan.items()):
        rows = {}
        kept = i = 0
        while kept < n:
            scene, true, false = _valse_pair(rng, kind, foil_kind, len(rows))
            number = image_number(seed, 8, 2 * n * place + i)
            where, name = source, template.format(number)
            if piece == "coreference-standard" and i % 3:  # the prefix names the folder
                where, name = "coco/train2014", name.replace("val2014", "train2014")
            PictureFolder(images(where)).add(scene, name)
            dataset = {"swig": "SWiG", "visual7w": "visual7w", "coco/val2017": "coco2017"}
            dropped = i % 5 == 4
            rows[f"{phenomenon.replace(' ', '_')}_test_{i}"] = {
                "dataset": dataset.get(source, "VisDial_v1.0"), "original_split": "test",
                "dataset_idx": name, "linguistic_phenomena": phenomenon, "image_file": name,
                "caption": true, "foil": false, "classes": "", "classes_foil": "",
                "mturk": {"foil": 1 if dropped else 0, "caption": 1 if dropped else 3,
                          "other": 1 if dropped else 0},
            }  # fmt: skip
            kept += not dropped
            i += 1
        write_json(raw / f"{piece}.json", rows)


def _valse_pair(rng, kind: str, foil_kind: str, index: int) -> tuple[Scene, str, str]:
    if foil_kind in world.FOILS:
        return foiled(rng, kind, foil_kind)
    while True:
        scene = world.sample_scene(rng, kind, split="test")
        thing = scene.things[0]
        if foil_kind == "existence":
            there = index % 2 == 0
            shape = thing.shape
            if not there:
                shape = str(rng.choice([s for s in world.SHAPES if s not in _shapes(scene)]))
            texts = [f"There is a {shape}.".replace("a arrow", "an arrow"), f"There is no {shape}."]
            return scene, *(texts if there else texts[::-1])
        if foil_kind == "plurals":
            one = world.noun_phrase(Mention(thing.shape, thing.colour, count=1))
            many = f"some {thing.colour} {world.plural(thing.shape)}"
            texts = [f"A picture of exactly {one}.", f"A picture of {many}."]
            return scene, *(texts if len(scene.things) == 1 else texts[::-1])
        if foil_kind == "small_number":  # the true number is large, the foil's small
            if len(scene.things) < 3:
                continue
            said = Mention(thing.shape, thing.colour, count=len(scene.things))
            less = replace(said, count=int(rng.integers(1, 3)))
            assert not world.holds(Description((less,)), scene)
            return scene, *(
                f"There {'is' if m.count == 1 else 'are'} {world.noun_phrase(m)}."
                for m in (said, less)
            )
        if foil_kind == "question":
            a, b = scene.things
            colour = a.colour if rng.random() < 0.5 else b.colour
            yes = a.colour == colour
            said = " and ".join(world.noun_phrase(Mention(t.shape)) for t in (a, b))
            ask = f"{said}. is the {a.shape} {colour}?"
            return scene, *(f"{ask} {word}." for word in (("yes", "no") if yes else ("no", "yes")))
        raise ValueError(foil_kind)


def _shapes(scene: Scene) -> set[str]:
    return {t.shape for t in scene.things}
