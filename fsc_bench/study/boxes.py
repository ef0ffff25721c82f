"""Boxes: pictures with captions whose words have a true place, from three sources.

The demo world's own scenes (a word's place is the box of the thing that it is said of), COCO's
instances with its captions (a category's name, in singular or plural: all boxes of that category in
the picture), and Visual Genome's region descriptions (nouns and adjectives of a region's phrase:
the region). Nothing here knows a model.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from fsc_bench.data.images import Images
from fsc_bench.data.pixels import decode
from fsc_bench.demo import world
from fsc_bench.errors import DataError, UsageError, near_miss, reason
from fsc_bench.records import ImageRef
from fsc_bench.study.geometry import Box
from fsc_bench.system.budget import OverBudget
from fsc_bench.system.regular import Irregular, read_file
from fsc_bench.train.negatives import NegativeGenerator, caption_rng, load_generator
from fsc_bench.train.negatives.lexicon import plural
from fsc_bench.train.negatives.rules import parse_caption

# What tells a caption from its foil in the demo world, one after another.
DEMO_FOILS = ("swap_attribute", "swap_object", "replace_attribute", "replace_object")
DEMO_KINDS = (("pair", 0.7), ("triple", 0.3))
FOIL_KINDS = ("swap", "replace")  # of the generator `rules`, for captions that have no foils
IRREGULAR = {
    "person": "people", "mouse": "mice", "knife": "knives", "sheep": "sheep", "man": "men",
    "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "skis": "ski",
    "scissors": "scissor",
}  # fmt: skip
CONTENT = {"N": "noun", "P": "noun", "A": "adjective"}  # of the tagger's letters


@dataclass(frozen=True)
class Place:
    """What kind of word it is, and where in the picture is what it is said of."""

    kind: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Example:
    """A picture with a caption, and a foil if there is one ("" if not); the places of their words
    by number, as blanks part them. picture: its name, by which it is one cluster.
    """

    picture: str
    open: Callable[[], Image.Image]
    caption: str
    words: Mapping[int, Place]
    foil: str = ""
    foil_words: Mapping[int, Place] = field(default_factory=dict)


# ---------------------------------------------------------------- the demo world


def demo_examples(count: int, seeds: Sequence[int]) -> list[Example]:
    """Scenes of the split "test" that no model was trained on, as many of each seed as there is
    room for; a sentence and a foil of each of `DEMO_FOILS` in turn.
    """
    found = []
    for number, seed in enumerate(seeds):
        share = count // len(seeds) + (number < count % len(seeds))
        rng = world.random_stream("test", seed)
        domain = world.Domain(kinds=DEMO_KINDS)
        own: list[Example] = []
        while len(own) < share:
            scene = world.sample_scene(rng, domain=domain, split="test")
            pair = world.caption_and_foil(scene, DEMO_FOILS[len(own) % len(DEMO_FOILS)], rng)
            if pair is not None:
                own.append(_of_scene(f"scene {len(own)} of seed {seed}", scene, *pair))
        found += own
    return found


def _of_scene(name: str, scene: world.Scene, caption: str, foil: str) -> Example:
    return Example(
        name,
        lambda: Image.fromarray(world.render(scene)),
        caption,
        places_in_scene(caption, scene),
        foil,
        places_in_scene(foil, scene),
    )


def places_in_scene(text: str, scene: world.Scene) -> dict[int, Place]:
    """Of a sentence's words for a thing and its attributes: the box of the thing with that outline.

    Things of one scene differ in their outline. A word said of a thing that is not there (of a
    foil) has no place.
    """
    words, begin, found = text.split(), 0, {}
    for mention in world.parse(text).mentions:
        phrase = world.noun_phrase(mention).split()
        while words[begin : begin + len(phrase)] != phrase:
            begin += 1
        things = [thing for thing in scene.things if thing.shape == mention.shape]
        boxes = tuple(world.box_of(thing) for thing in things)
        kinds = {mention.size: "size", mention.texture: "texture", mention.colour: "colour",
                 mention.shape: "object", world.plural(mention.shape): "object"}  # fmt: skip
        for number, word in enumerate(phrase, begin):
            if word in kinds and boxes:
                found[number] = Place(kinds[word], boxes)
        begin += len(phrase)
    return found


# ---------------------------------------------------------------- files of others


class _Coco(msgspec.Struct):
    images: list["_Picture"]
    annotations: list["_Instance"]
    categories: list["_Category"]


class _Picture(msgspec.Struct):
    id: int
    file_name: str


class _Instance(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # left, top, width, height


class _Category(msgspec.Struct):
    id: int
    name: str


class _Captions(msgspec.Struct):
    annotations: list["_Caption"]


class _Caption(msgspec.Struct):
    image_id: int
    caption: str


class _Regions(msgspec.Struct):
    regions: list["_Region"]


class _Region(msgspec.Struct):
    image_id: int
    phrase: str
    x: float
    y: float
    width: float
    height: float


def examples_of_files(
    boxes: Path, captions: Path | None, pictures: Path | None, count: int, seed: int, data: Path
) -> tuple[list[Example], str]:
    """(examples of at most `count` pictures, what was found in words).

    boxes: COCO's instances_*.json, with `captions` its captions_*.json; or Visual Genome's
    region_descriptions.json. pictures: their folder; None for what is linked in the data folder.
    Which pictures are taken is a matter of their numbers and `seed`. Raises UsageError, DataError.
    """
    content = _read(boxes)
    if content.lstrip()[:1] == b"[":
        if captions is not None:
            raise UsageError(
                f"--captions {captions}: {boxes} holds regions with their own phrases."
            )
        made = _of_regions(_typed(content, list[_Regions], boxes), count, seed)
        source = "vg"
    else:
        instances = _typed(content, _Coco, boxes)
        if captions is None:
            raise UsageError(
                f"--boxes {boxes}: boxes of COCO's categories need sentences: name its captions "
                "file too, --captions captions_val2017.json."
            )
        said = _typed(_read(captions), _Captions, captions)
        made = _of_instances(instances, said, count, seed)
        split = re.search(r"(train|val)20\d\d", boxes.name)
        source = f"coco/{split[0] if split else 'val2017'}"
    opener = _opener(pictures, source, data)
    examples = [Example(name, lambda name=name: opener(name), *rest) for name, *rest in made]
    if not examples:
        raise DataError(f"{boxes}: no caption has a word whose place is known.")
    return examples, f"{len(examples):,} pictures of {boxes.name}"


Made = tuple[str, str, dict[int, Place], str, dict[int, Place]]  # as Example, with a file's name


def _of_instances(coco: _Coco, said: _Captions, count: int, seed: int) -> Iterator[Made]:
    """Of each picture the first caption that names one of its categories."""
    names = {category.id: category.name for category in coco.categories}
    boxes: dict[int, dict[str, list[Box]]] = {}
    for one in coco.annotations:
        left, top, width, height = one.bbox
        own = boxes.setdefault(one.image_id, {}).setdefault(names.get(one.category_id, ""), [])
        own.append((left, top, left + width, top + height))
    texts: dict[int, list[str]] = {}
    for line in said.annotations:
        texts.setdefault(line.image_id, []).append(" ".join(line.caption.split()))
    generator, taken = load_generator("rules"), 0
    for picture in sorted(coco.images, key=lambda one: _rank(seed, one.id)):
        for caption in texts.get(picture.id, ()):
            words = named_places(caption, boxes.get(picture.id, {}))
            if words:
                foil = _foil(caption, generator, seed)
                yield (picture.file_name, caption, words, foil,
                       named_places(foil, boxes[picture.id]))  # fmt: skip
                taken += 1
                break
        if taken == count:
            return


def named_places(text: str, boxes: Mapping[str, Sequence[Box]]) -> dict[int, Place]:
    """The words that name a category, in singular or plural, with all its boxes in the picture.

    A name of several words ("traffic light") is found as such; the longer name wins ("hot dog").
    """
    words = [re.sub(r"[^\w-]+", "", word).lower() for word in text.split()]
    found: dict[int, Place] = {}
    for name in sorted(boxes, key=lambda name: (-len(name.split()), name)):
        for form in forms(name):
            parts = form.split()
            for begin in range(len(words) - len(parts) + 1):
                span = range(begin, begin + len(parts))
                if words[begin : span.stop] == parts and not found.keys() & set(span):
                    found |= dict.fromkeys(span, Place("object", tuple(boxes[name])))
    return found


def forms(name: str) -> set[str]:
    """A category's name in singular and plural; empty for no name."""
    if not name:
        return set()
    *before, last = name.lower().split()
    return {" ".join([*before, form]) for form in (last, plural(last), IRREGULAR.get(last, last))}


def _of_regions(pictures: list[_Regions], count: int, seed: int) -> Iterator[Made]:
    """One region of each picture, drawn by the seed, of those whose phrase has a noun."""
    generator, taken = load_generator("rules"), 0
    for picture in sorted(
        (one for one in pictures if one.regions),
        key=lambda one: _rank(seed, one.regions[0].image_id),
    ):
        for region in sorted(picture.regions, key=lambda one: _rank(seed, one.phrase)):
            caption = " ".join(region.phrase.split())
            box = (region.x, region.y, region.x + region.width, region.y + region.height)
            words = content_places(caption, box)
            if any(place.kind == "noun" for place in words.values()):
                foil = _foil(caption, generator, seed)
                name = f"VG_100K/{region.image_id}.jpg"
                yield name, caption, words, foil, content_places(foil, box)
                taken += 1
                break
        if taken == count:
            return


def content_places(text: str, box: Box) -> dict[int, Place]:
    """The nouns and adjectives of a phrase, each at the box that the phrase is said of."""
    parse = parse_caption(text)
    found: dict[int, Place] = {}
    for begin, end, tag in zip(parse.units.starts, parse.units.ends, parse.tags, strict=True):
        if tag in CONTENT:
            first, last = (len(text[:at].split()) for at in (begin + 1, end))
            found |= dict.fromkeys(range(first - 1, last), Place(CONTENT[tag], (box,)))
    return found


def _foil(caption: str, generator: NegativeGenerator, seed: int) -> str:
    """A swap or a replacement by the bundled rules; "" where there is none."""
    made = generator.generate(caption, caption_rng(seed, caption), 1)
    kinds = FOIL_KINDS if _rank(seed, caption)[0] % 2 else FOIL_KINDS[::-1]
    return next((made[kind][0] for kind in kinds if made[kind]), "")


def _rank(seed: int, what: object) -> bytes:
    return hashlib.blake2b(f"{seed}:{what}".encode(errors="surrogatepass"), digest_size=8).digest()


def _opener(pictures: Path | None, source: str, data: Path) -> Callable[[str], Image.Image]:
    """What opens a picture by its name in the files. Raises DataError, one line."""
    if pictures is None:
        images = Images(data)
        return lambda name: images.open("explain", ImageRef(source, name))
    if not pictures.is_dir():
        raise DataError(f"--images {pictures}: there is no such folder.")

    def opened(name: str) -> Image.Image:
        # VG's files come with or without their folder.
        places = [pictures / name, pictures / Path(name).name]
        path = next((place for place in places if place.is_file()), places[0])
        beside = [entry.name for entry in list(pictures.iterdir())[:5000]]
        if not path.is_file():
            hint = near_miss(path.name, beside)
            raise DataError(f"{path}: the picture is missing.{hint}")
        return decode(_read(path), str(path))

    return opened


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except (Irregular, OverBudget) as error:
        raise DataError(f"{path}: {error}.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}.") from None


def _typed(content: bytes, kind: Any, path: Path) -> Any:
    """The JSON of a file as `kind`. Raises DataError: what it lacks, and what is read."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:  # a ValidationError too
        raise DataError(
            f"{path}: {error}. Read are COCO's instances_*.json (images, annotations, categories) "
            "with captions_*.json (annotations), and Visual Genome's region_descriptions.json (a "
            "list of pictures with their regions)."
        ) from None
