"""Miniature raw copies: the world's test split, written in the benchmarks' official raw formats.

One function a benchmark, `write_<task>(raw, images, seed, n)`: `raw` is the task's own raw folder,
`images` gives the folder of a named image source (`coco/val2017`, `vg`, ...), `n` is the number of
samples of each subset. The same arguments write the same bytes. In every sample the right text is
true of its image and every distractor is false of it, by `world.holds`. Records and scores are not
made here: the real readers make them, as from a real download.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import inspect
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from fsc_bench.demo import world
from fsc_bench.demo.world import Description, Mention, Scene, Style

ImageFolder = Callable[[str], Path]
PLAIN = Style()  # no prefix: a caption and its foil then differ in what they say alone


def sources_below(folder: Path) -> ImageFolder:
    """Image sources as folders below `folder`, e.g. `coco/val2017`."""
    return lambda source: folder / source


def recipes() -> list[str]:
    """What `write` can write: benchmarks, and `folders/<family>` for each of `CLASSES`."""
    names = [name.removeprefix("write_") for name in globals() if name.startswith("write_")]
    names.remove("image_folder")
    return sorted([*names, *(f"folders/{family}" for family in CLASSES)])


def write(recipe: str, raw: Path, images: Path, seed: int = 0) -> None:
    """Writes one benchmark's raw folder, and its named image sources as folders below `images`."""
    if recipe not in recipes():
        raise ValueError(f"no recipe called {recipe!r}; there are: {', '.join(recipes())}")
    if recipe.startswith("folders/"):
        write_image_folder(raw, recipe.removeprefix("folders/"), seed)
        return
    writer = globals()[f"write_{recipe}"]
    if "images" in inspect.signature(writer).parameters:
        writer(raw, sources_below(images), seed)
    else:
        writer(raw, seed)


# --------------------------------------------------------------------------- compositionality


def write_sugarcrepe(raw: Path, images: ImageFolder, seed: int = 0, n: int = 60) -> None:
    """`<subset>.json` x 7; images in coco/val2017 (RAIVNLab/sugar-crepe, data/)."""
    rng = _stream(seed, 0)
    store = _Folder(images("coco/val2017"))
    kinds = {
        "replace_obj": ("pair", "replace_object"),
        "replace_att": ("pair", "replace_attribute"),
        "replace_rel": ("pair", "replace_relation"),
        "swap_obj": ("pair", "swap_object"),
        "swap_att": ("pair", "swap_attribute"),
        "add_obj": ("single", "add_object"),
        "add_att": ("pair", "add_attribute"),
    }
    for place, (subset, (scene_kind, foil_kind)) in enumerate(kinds.items()):
        rows = {}
        for i in range(n):
            scene, true, false = _foiled(rng, scene_kind, foil_kind)
            number = _number(seed, 0, place * n + i)
            name = store.add(scene, f"{number:012d}.jpg")
            rows[str(i)] = {"filename": name, "caption": true, "negative_caption": false}
        _write_json(raw / f"{subset}.json", rows)


def write_winoground(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    """`data/examples.jsonl` and `data/images.zip` (facebook/winoground)."""
    rng = _stream(seed, 1)
    archive = _Zip()
    lines = []
    for i in range(n):
        kind = ("swap_colour", "swap_position", "swap_texture", "swap_size")[i % 4]
        scenes, texts = _twins(rng, kind)
        for k in (0, 1):
            archive.add(scenes[k], f"images/ex_{i}_img_{k}.png")
        lines.append(
            {
                "id": i, "image_0": f"ex_{i}_img_0", "image_1": f"ex_{i}_img_1",
                "caption_0": texts[0], "caption_1": texts[1], "tag": kind, "secondary_tag": "",
                "num_main_preds": 1,
                "collapsed_tag": "Relation" if kind == "swap_position" else "Object",
            }
        )  # fmt: skip
    _write_json_lines(raw / "data" / "examples.jsonl", lines)
    archive.write(raw / "data" / "images.zip")


ARO_RELATIONS = {
    "left": "to the left of", "right": "to the right of", "above": "above", "below": "below",
}  # fmt: skip


def write_aro(raw: Path, images: ImageFolder, seed: int = 0, n: int = 120) -> None:
    """VG relation and attribution JSON with `images/` and boxes; COCO and Flickr30k captions.

    The order subsets' files hold captions only: their shuffles are the reader's work. Images lie in
    coco/val2014 and flickr30k (`flickr30k-images/` in the file's own paths).
    """
    rng = _stream(seed, 2)
    store = _Folder(raw / "images")
    relations, attributes = [], []
    for i in range(n):
        scene, true, false = _foiled(rng, "pair", "swap_object", background=0, texture=0, size=0)
        ((_, word, _),) = world.parse(true).relations
        number = _number(seed, 2, i)
        name = store.add(scene, f"{number}.jpg")
        relations.append(
            {"image_id": str(number), "image_path": name, **_whole("bbox_"),
             "relation_name": ARO_RELATIONS[word],
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
        number = _number(seed, 2, n + i)
        name = store.add(scene, f"{number}.jpg")
        attributes.append(
            {"image_id": str(number), "image_path": name, **_whole("bbox_"),
             "attributes": [first, second], "true_caption": true, "false_caption": false}
        )  # fmt: skip
    _write_json(raw / "visual_genome_relation.json", relations)
    _write_json(raw / "visual_genome_attribution.json", attributes)
    write_coco_karpathy(raw, images, seed + 50, n // 4)
    write_flickr30k(raw, images, seed + 51, n // 4)


def write_crepe(raw: Path, images: ImageFolder, seed: int = 0, n: int = 80) -> None:
    """`prod_hard_negatives/<type>/prod_vg_hard_negs_<type>_complexity_<n>.csv`; images in vg.

    Five foils a caption; `x,y,width,height` is the whole picture.
    """
    rng = _stream(seed, 3)
    store = _Folder(images("vg") / "VG_100K")
    types = {
        "atom": ("replace_object", "replace_attribute", "replace_texture", "replace_relation"),
        "swap": ("swap_object", "swap_attribute", "swap_texture", "swap_size"),
        "negate": ("negate",),
    }
    columns = [
        "image_id",
        "caption",
        "n",
        "n_objects",
        "n_relations",
        "n_attributes",
        "n_connected_components",
        "hard_negs",
        "x",
        "y",
        "width",
        "height",
    ]
    for kind, foils in types.items():
        rows: dict[int, list] = {}
        for i in range(n):
            scene, description, negatives = _many_foils(rng, foils, 5)
            mentions, relations = description.mentions, description.relations
            said = sum(
                getattr(m, a) is not None for m in mentions for a in ("colour", "texture", "size")
            )
            number = _number(seed, 3, len(types) * i + tuple(types).index(kind))
            store.add(scene, f"{number}.jpg")
            size = len(mentions) + len(relations) + said
            rows.setdefault(size, []).append(
                [number, world.verbalise(description), size, len(mentions), len(relations), said, 1,
                 repr(negatives), 0.0, 0.0, float(world.IMAGE_SIZE), float(world.IMAGE_SIZE)]
            )  # fmt: skip
        for size, part in rows.items():
            name = f"prod_vg_hard_negs_{kind}_complexity_{size}.csv"
            _write_csv(raw / "prod_hard_negatives" / kind / name, columns, part)
        everything = [row for size in sorted(rows) for row in rows[size]]
        name = f"prod_vg_hard_negs_{kind}_all.csv"
        _write_csv(raw / "prod_hard_negatives" / kind / name, columns, everything)


def write_eqben(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    """`ann_json_finegrained_random.json` and `<sub-dataset>/...`; YouCook2 as BGR `.npy` arrays."""
    rng = _stream(seed, 4)
    kinds = {
        "eqbenag": ("swap_position", "png"),
        "eqbenyoucook2": ("reshape", "npy"),
        "eqbengebc": ("recolour", "png"),
        "eqbenkubric_loc": ("swap_position", "png"),
        "eqbenkubric_cnt": ("count", "png"),
        "eqbenkubric_attr": ("swap_colour", "png"),
        "eqbensd": ("background", "png"),
    }
    store = _Folder(raw)
    entries = []
    counter = 0
    for subset, (kind, suffix) in kinds.items():
        for i in range(n):
            scenes, texts = _twins(rng, kind)
            names = [f"{subset}/scene_{i:05d}/{k:06d}.{suffix}" for k in (0, 1)]
            for scene, name in zip(scenes, names, strict=True):
                store.add(scene, name)
            for c in (0, 1):
                for k in (0, 1):
                    entries.append(
                        {"image": names[k], "caption": texts[c],
                         "private_info": {
                             "dataset": subset, "name": f"c{c}i{k}", "sample_cnt": counter}}
                    )  # fmt: skip
            counter += 1
    order = rng.permutation(len(entries))
    _write_json(raw / "ann_json_finegrained_random.json", [entries[i] for i in order])


def write_imagecode(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    """`valid_data.json` and `image-sets.zip`: ten pictures a set, keys are positions in order."""
    rng = _stream(seed, 5)
    archive = _Zip()
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
    _write_json(raw / "valid_data.json", sets)
    archive.write(raw / "image-sets.zip")


def write_spec(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    """`<subset>/image2text.json`, `text2image.json` and `images/` (wjpoom/SPEC, data.zip unpacked).

    `n` base cases a subset: each gives as many samples in both directions as it has candidates.
    """
    rng = _stream(seed, 6)
    cases = {
        "absolute_size": _spec_absolute_size, "relative_size": _spec_relative_size,
        "absolute_spatial": _spec_absolute_spatial, "relative_spatial": _spec_relative_spatial,
        "existence": _spec_existence, "count": _spec_count,
    }  # fmt: skip
    for subset, case in cases.items():
        store = _Folder(raw / subset)
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
        _write_json(raw / subset / "image2text.json", to_text)
        _write_json(raw / subset / "text2image.json", to_image)


def _lone(rng) -> tuple[Scene, Mention]:
    scene = world.sample_scene(rng, "single", split="test")
    return scene, Mention(scene.things[0].shape, scene.things[0].colour)


def _spec_absolute_size(rng):
    scene, said = _lone(rng)
    scenes = [_with(scene, size=size) for size in world.SIZES]
    return scenes, [Description((replace(said, size=size),)) for size in world.SIZES]


def _spec_relative_size(rng):
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


def _spec_absolute_spatial(rng):
    scene, said = _lone(rng)
    scenes = [
        replace(scene, things=(world.move_to(scene.things[0], cell, rng),)) for cell in world.CELLS
    ]
    return scenes, [Description((replace(said, place=cell),)) for cell in world.CELLS]


def _spec_relative_spatial(rng):
    scene = world.sample_scene(rng, "pair", split="test")
    a, b = scene.things
    said = (Mention(a.shape, a.colour), Mention(b.shape, b.colour))
    b = world.move_to(b, "center", rng)
    cells = {
        "left": "middle left", "right": "middle right",
        "above": "top middle", "below": "bottom middle",
    }  # fmt: skip
    scenes = [replace(scene, things=(world.move_to(a, cell, rng), b)) for cell in cells.values()]
    return scenes, [Description(said, ((0, word, 1),)) for word in cells]


def _spec_existence(rng):
    scene = world.sample_scene(rng, "pair", split="test")
    said = Mention(scene.things[0].shape, scene.things[0].colour)
    without = replace(scene, things=scene.things[1:])
    return [scene, without], [Description((said,)), Description((replace(said, count=0),))]


def _spec_count(rng):
    scene = world.sample_scene(rng, "count", split="test", count=1)
    thing = scene.things[0]
    cells = [str(c) for c in rng.permutation(world.CELLS)[:4]]
    scenes, descriptions = [], []
    for number in range(1, 5):
        things = tuple(world.move_to(thing, cell, rng) for cell in cells[:number])
        scenes.append(replace(scene, things=things))
        descriptions.append(Description((Mention(thing.shape, thing.colour, count=number),)))
    return scenes, descriptions


def write_svo_probes(raw: Path, images: ImageFolder, seed: int = 0, n: int = 100) -> None:
    """`svo_probes.csv` and `images/<id>.jpg`: one sentence, a right picture and a wrong one.

    A sentence's verb is a relation here ("star, above, ring").
    """
    rng = _stream(seed, 7)
    store = _Folder(raw / "images")
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
        numbers = (_number(seed, 7, 2 * i), _number(seed, 7, 2 * i + 1))
        for scene_, number in zip((scene, wrong), numbers, strict=True):
            store.add(scene_, f"{number}.jpg")
        rows.append(
            [world.verbalise(description).capitalize() + ".",
             ",".join((a.shape, word, b.shape)), ",".join(other_triplet),
             *(f"https://demo.invalid/{k}.jpg" for k in numbers), *numbers,
             which == "subj", which == "verb", which == "obj"]
        )  # fmt: skip
    _write_csv(raw / "svo_probes.csv", columns, rows)


def write_valse(raw: Path, images: ImageFolder, seed: int = 0, n: int = 40) -> None:
    """Eleven JSON files; images in visual7w, coco/val2017, swig, coco/{train,val}2014 and visdial.

    Every fifth record has too few annotators' votes, as in the original, and must be left out.
    """
    rng = _stream(seed, 8)
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
            number = _number(seed, 8, 2 * n * place + i)
            where, name = source, template.format(number)
            if piece == "coreference-standard" and i % 3:  # the prefix names the folder
                where, name = "coco/train2014", name.replace("val2014", "train2014")
            _Folder(images(where)).add(scene, name)
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
        _write_json(raw / f"{piece}.json", rows)


def _valse_pair(rng, kind: str, foil_kind: str, index: int) -> tuple[Scene, str, str]:
    if foil_kind in world.FOILS:
        return _foiled(rng, kind, foil_kind)
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


def write_vl_checklist(raw: Path, images: ImageFolder, seed: int = 0, n: int = 12) -> None:
    """`data/{Attribute,Object,Relation}/**.json`; images in vg (VG_100K/), swig and hake.

    Object files hold scenes in which the object stands where (or is as large as) the file says.
    """
    rng = _stream(seed, 9)
    counter = count(_number(seed, 9, 0))

    def write(path: str, source: str, draw: Callable[[], tuple[Scene, str, str]], width: int = 1):
        rows = []
        for _ in range(n):
            scene, true, false = draw()
            name = f"{next(counter)}.jpg"
            name = {"vg": f"VG_100K/{name}", "hake": f"hcvrd/{name}", "swig": f"placing_{name}"}[
                source
            ]
            _Folder(images(source)).add(scene, name)
            rows.append([name, {"POS": [true] * width, "NEG": [false] * width}])
        _write_json(raw / "data" / f"{path}.json", rows)

    def attribute(name: str):
        return lambda: _foiled(rng, "single", name, background=0)

    kinds = {
        "action": lambda: _foiled(rng, "single", "replace_place", background=0),
        "color": attribute("replace_attribute"), "material": attribute("replace_texture"),
        "size": attribute("replace_size"),
        "state": lambda: _foiled(rng, "single", "replace_background"),
    }  # fmt: skip
    for source in ("vaw", "vg"):
        for kind, draw in kinds.items():
            write(f"Attribute/{source}/{kind}", "vg", draw)

    def object_scene(**wanted):
        def draw():
            while True:
                scene, true, false = _foiled(rng, "pair", "replace_object", relation=0)
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
        return _foiled(rng, "pair", "replace_relation", background=0)

    write("Relation/hake_action", "hake", relation)
    write("Relation/swig_action", "swig", relation)
    write("Relation/vg/action", "vg", relation)
    write("Relation/vg/spatial", "vg", relation)


def write_whatsup(raw: Path, images: ImageFolder, seed: int = 0, n: int = 60) -> None:
    """`controlled_{images,clevr}_dataset.json`, `{coco,vg}_qa_{one,two}_obj.json`.

    Own pictures in `data/controlled_*` and `vg_images/`; COCO's in coco/val2017.
    """
    rng = _stream(seed, 10)
    own = _Folder(raw)
    phrases = {
        "left": "to the left of", "right": "to the right of", "above": "above", "below": "below",
    }  # fmt: skip
    for name in ("controlled_images", "controlled_clevr"):
        rows = []
        for i in range(-(-n // 4)):
            scenes, descriptions = _spec_relative_spatial(rng)
            a, b = (world.noun_phrase(m) for m in descriptions[0].mentions)
            texts = [f"{a} {p} {b}".capitalize() for p in phrases.values()]
            for k, scene in enumerate(scenes):
                path = own.add(scene, f"data/{name}/scene_{i}_{list(phrases)[k]}.jpeg")
                others = [t for j, t in enumerate(texts) if j != k]
                rows.append({"image_path": path, "caption_options": [texts[k], *others]})
        _write_json(raw / f"{name}_dataset.json", rows[:n])
    sides = {"left side": "left", "right side": "right", "top side": "top", "bottom side": "bottom"}
    opposite = {"left side": "right side", "top side": "bottom side"}
    opposite |= {v: k for k, v in opposite.items()}
    for source in ("coco", "vg"):
        one, two = [], []
        for i in range(n):
            number = _number(seed, 10, 2 * i)
            scene, said = _lone(rng)
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
            scene, true, false = _foiled(rng, "pair", "replace_relation", background=0)
            number += 1
            _whatsup_image(source, raw, images, scene, number)
            two.append(
                [number if source == "coco" else str(number),
                 *(f"A photo of {t}" for t in (true, false))]
            )  # fmt: skip
        _write_json(raw / f"{source}_qa_one_obj.json", one)
        _write_json(raw / f"{source}_qa_two_obj.json", two)


def _whatsup_image(source: str, raw: Path, images: ImageFolder, scene: Scene, number: int) -> None:
    if source == "coco":
        _Folder(images("coco/val2017")).add(scene, f"{number:012d}.jpg")
    else:
        _Folder(raw / "vg_images").add(scene, f"{number}.jpg")


# --------------------------------------------------------------------------- retrieval


def write_coco_karpathy(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    """`coco_karpathy_test.json` as BLIP published it; images in coco/val2014."""
    rng = _stream(seed, 11)
    store = _Folder(images("coco/val2014"))
    rows = []
    said: set[tuple[str, ...]] = set()
    for i in range(n):
        scene, captions = _captioned(rng, 6 if i % 100 == 99 else 5, said)
        name = store.add(scene, f"COCO_val2014_{_number(seed, 11, i):012d}.jpg")
        rows.append({"image": f"val2014/{name}", "caption": captions})
    _write_json(raw / "coco_karpathy_test.json", rows)


def write_flickr30k(raw: Path, images: ImageFolder, seed: int = 0, n: int = 200) -> None:
    """`flickr30k_test.json` as BLIP published it; images in flickr30k."""
    rng = _stream(seed, 12)
    store = _Folder(images("flickr30k"))
    rows = []
    said: set[tuple[str, ...]] = set()
    for i in range(n):
        scene, captions = _captioned(rng, 5, said)
        name = store.add(scene, f"{_number(seed, 12, i)}.jpg")
        rows.append({"image": f"flickr30k-images/{name}", "caption": captions})
    _write_json(raw / "flickr30k_test.json", rows)


def write_coco_counterfactuals(raw: Path, images: ImageFolder, seed: int = 0, n: int = 100) -> None:
    """`data/examples.jsonl`, `data/images.zip`, and `test-coco-cfs.csv`, which names a part."""
    rng = _stream(seed, 13)
    archive = _Zip()
    lines, listed = [], []
    for i in range(n + n // 4):
        kind = ("reshape", "recolour", "background", "count")[i % 4]
        scenes, texts = _twins(rng, kind)
        name = f"{100_000 + i}_{i % 5}"
        for k in (0, 1):
            archive.add(scenes[k], f"{name}_img_{k}.jpg")
        lines.append(
            {"id": name, "caption_0": texts[0], "caption_1": texts[1],
             "image_0": f"{name}_img_0", "image_1": f"{name}_img_1"}
        )  # fmt: skip
        if i < n:
            base = "../../coco-counterfactuals/synthetic-images-for-{}-captions/{}.jpg"
            listed.append([base.format("original", name), texts[0]])
            listed.append([base.format("counterfactual", name), texts[1]])
    _write_json_lines(raw / "data" / "examples.jsonl", lines)
    archive.write(raw / "data" / "images.zip")
    order = rng.permutation(len(listed))
    _write_csv(raw / "test-coco-cfs.csv", ["image_path", "caption"], [listed[i] for i in order])


def _captioned(rng, number: int, said: set[tuple[str, ...]]) -> tuple[Scene, list[str]]:
    """A scene and true captions of it, in words that no other scene's captions have (`said`).

    No two captions are reorderings of each other: ARO shuffles words, and a shuffle that is true by
    chance would be a wrong answer that is right.
    """
    while True:
        scene = world.sample_scene(rng, domain=world.OBJECTS, split="test")
        mine: dict[tuple[str, ...], str] = {}
        captions = []
        for _ in range(number):
            text = _sentence(world.caption(scene, rng))
            captions.append(mine.setdefault(tuple(sorted(world.words_of(text))), text))
        if not said & mine.keys():
            said.update(mine)
            return scene, captions


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


# --------------------------------------------------------------------------- classification

CLASSES: dict[str, tuple[str, ...]] = {
    "shapes": world.SHAPES,
    "colours": tuple(world.COLOURS),
    "textures": world.TEXTURES,
    "sizes": tuple(world.SIZES),
    "backgrounds": tuple(world.BACKGROUNDS),
    "counts": world.NUMBERS[1:],
    "digits": tuple(map(str, range(10))),
}


def write_image_folder(raw: Path, family: str, seed: int = 0, n: int = 20) -> None:
    """`<class>/<number>.png`, n of each class; `family` is a key of `CLASSES`."""
    rng = _stream(seed, 20 + tuple(CLASSES).index(family))
    store = _Folder(raw)
    singular = {"shapes": "shape", "colours": "colour", "textures": "texture", "sizes": "size"}
    for label, name in enumerate(CLASSES[family]):
        for i in range(n):
            if family in singular:
                fixed = {singular[family]: name}
                scene = world.sample_scene(rng, "single", split="test", **fixed)
            elif family == "backgrounds":
                kind = ("single", "pair")[i % 2]
                scene = world.sample_scene(rng, kind, split="test", background=name)
            elif family == "counts":
                scene = world.sample_scene(rng, "count", split="test", count=label + 1)
            else:
                style = ("font", "stroke")[i % 2]
                scene = world.sample_scene(rng, "digit", split="test", value=label, style=style)
            store.add(scene, f"{name}/{i:04d}.png")


def write_idx_digits(raw: Path, seed: int = 0, n: int = 300) -> None:
    """`t10k-{images-idx3,labels-idx1}-ubyte.gz` of rendered digits, 28x28, light on dark."""
    rng = _stream(seed, 30)
    pixels = np.zeros((n, 28, 28), np.uint8)
    labels = (np.arange(n) % 10).astype(np.uint8)
    for i, value in enumerate(labels):
        style = ("font", "stroke")[i // 10 % 2]
        scene = world.sample_scene(rng, "digit", split="test", value=int(value), style=style)
        grey = Image.fromarray(world.render(scene)).convert("L").resize((28, 28), Image.BOX)
        array = np.asarray(grey)
        pixels[i] = 255 - array if np.median(array) > 127 else array
    _write_idx(raw, pixels, labels)


def write_scan_digits(raw: Path, seed: int = 0, n: int = 600) -> None:
    """The first n of scikit-learn's 1,797 real handwritten digits (UCI optdigits test set), as IDX.

    8x8 pixels of 0..16, here 0..255. They are real data: no model of the demo was trained on them.
    """
    pixels, labels = scan_digits()
    _write_idx(raw, pixels[:n], labels[:n])


def scan_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: uint8 [1797, 8, 8] and their values [1797]."""
    # Its `load_digits` reads the same file, after seconds of imports.
    (package,) = importlib.util.find_spec("sklearn").submodule_search_locations
    with gzip.open(Path(package) / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    pixels = (table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return pixels, table[:, 64].astype(np.uint8)


def _write_idx(raw: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">4i", 2051, *pixels.shape) + pixels.tobytes()
    answers = struct.pack(">2i", 2049, len(labels)) + labels.tobytes()
    for name, content in (("images-idx3", images), ("labels-idx1", answers)):
        # mtime 0: the same bytes every time
        (raw / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(content, 1, mtime=0))


# --------------------------------------------------------------------------- drawing samples


def _stream(seed: int, benchmark: int) -> np.random.Generator:
    return world.random_stream("test", 1000 * seed + benchmark)


def _number(seed: int, benchmark: int, i: int) -> int:
    """An image's number: benchmarks that share an image source must not share names."""
    return (benchmark + 1) * 10_000_000 + seed % 100 * 100_000 + i


def _foiled(rng, kind: str, foil_kind: str, **detail: float) -> tuple[Scene, str, str]:
    while True:
        scene = world.sample_scene(rng, kind, split="test")
        pair = world.caption_and_foil(scene, foil_kind, rng, style=_plain(rng), **detail)
        if pair is not None:
            return scene, *pair


def _plain(rng) -> Style:
    return Style("", int(rng.integers(2)))


def _many_foils(rng, kinds: Sequence[str], number: int) -> tuple[Scene, Description, list[str]]:
    """A scene, a description of it, and `number` different foils of the description."""
    while True:
        # Two things have too few subsets to deny.
        kind = "triple" if "negate" in kinds or rng.random() < 0.5 else "pair"
        scene = world.sample_scene(rng, kind, split="test")
        description = world.describe(scene, rng, colour=1, texture=0.7, size=0.7, background=0.5)
        found: set[str] = set()
        for attempt in range(30):
            kind = kinds[attempt % len(kinds)]
            changed = world.falsify(description, scene, kind, rng)
            if changed is None and len(found) >= 2:
                # Another kind's, where this one has none.
                changed = world.falsify(description, scene, str(rng.choice(kinds)), rng)
            if changed is not None:
                if attempt >= 12:  # a second change makes it no truer
                    again = world.falsify(changed, scene, str(rng.choice(kinds)), rng)
                    changed = again or changed
                found.add(world.verbalise(changed))
            if len(found) == number:
                foils = sorted(found)  # a set's own order changes from run to run
                return scene, description, [foils[i] for i in rng.permutation(number)]


def _twins(rng, kind: str) -> tuple[tuple[Scene, Scene], tuple[str, str]]:
    """Two scenes that differ by `kind` of edit; a caption of each that is false of the other."""
    needed = {
        "swap_colour": {"colour": 1.0}, "recolour": {"colour": 1.0},
        "swap_texture": {"texture": 1.0}, "retexture": {"texture": 1.0},
        "swap_size": {"size": 1.0}, "resize": {"size": 1.0},
        "swap_position": {"relation": 1.0}, "background": {"background": 1.0},
    }.get(kind, {})  # fmt: skip
    while True:
        scene = world.sample_scene(rng, "count" if kind == "count" else "pair", split="test")
        other = world.edit(scene, kind, rng)
        if other is None:
            continue
        style, state = _plain(rng), rng.bit_generator.state
        said = []
        for one in (scene, other):  # the same draws, so that both state the same kinds of fact
            rng.bit_generator.state = state
            said.append(world.describe(one, rng, **{"background": 0.3, **needed}))
        if kind == "swap_position" and said[0].relations:  # the same words in another order
            said[1] = replace(said[0], mentions=said[0].mentions[::-1])
            if not world.holds(said[1], other):
                continue
        if not world.holds(said[0], other) and not world.holds(said[1], scene):
            texts = [world.verbalise(d, style) for d in said]
            return (scene, other), (texts[0], texts[1])


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
            return world.verbalise(description, _plain(rng))
    return None


def _related(rng) -> tuple[Scene, Description]:
    while True:
        scene = world.sample_scene(rng, "pair", split="test")
        description = world.describe(scene, rng, relation=1, background=0.3, texture=0.2, size=0.2)
        if description.relations:
            return scene, description


def _mentioned(mention: Mention, scene: Scene) -> world.Thing:
    return next(t for t in scene.things if t.shape == mention.shape)


def _with(scene: Scene, **changes) -> Scene:
    return replace(scene, things=(replace(scene.things[0], **changes), *scene.things[1:]))


def _whole(prefix: str) -> dict[str, int]:
    size = world.IMAGE_SIZE
    return {f"{prefix}x": 0, f"{prefix}y": 0, f"{prefix}w": size, f"{prefix}h": size}


# --------------------------------------------------------------------------- files


def _encode(scene: Scene, suffix: str) -> bytes:
    buffer = io.BytesIO()
    pixels = world.render(scene)
    if suffix == ".npy":
        np.save(buffer, np.ascontiguousarray(pixels[:, :, ::-1]))  # BGR, as OpenCV read the films
    elif suffix == ".png":
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    else:  # small pictures: hardly any loss, no colour subsampling
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


class _Folder:
    """Writes pictures below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, scene: Scene, name: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encode(scene, path.suffix))
        return name


class _Zip:
    """Gathers pictures and writes them as one archive. Fixed dates: the same bytes every time."""

    def __init__(self):
        self.members: dict[str, bytes] = {}

    def add(self, scene: Scene, name: str) -> None:
        self.members[name] = _encode(scene, Path(name).suffix)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in self.members.items():
                archive.writestr(zipfile.ZipInfo(name), content)


def _write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _write_json_lines(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
