"""EqBen's files: two pictures that differ in little and a caption for each (Wangt-CN/EqBen).

Two forms of annotation, told apart by their keys:
    randomised        a list of single pairs `{"image", "caption", "private_info": {"dataset",
                      "name", "sample_cnt"}}`: `name` is c0i0, c0i1, c1i0 or c1i1, caption slot and
                      image slot; four of one dataset and sample_cnt are one sample, whose right
                      pairs are c0-i0 and c1-i1 (ann_json_finegrained_random.json)
    as in Winoground  a list of `{"image0", "image1", "caption0", "caption1"}` (the 10 percent
                      subset, eqben_vllm's all_select.json)
A subset is the dataset, or else the first folder of the picture's path. YouCook2's frames are BGR
arrays, `.npy`.
Options:
    annotation  the file's name; empty: the first of ANNOTATIONS that is there
    images      folder that holds `eqbenag/`, ...; empty: the raw folder or one below it that does
    light       True reads `.jpg` where the annotation says `.png` (the authors' 23 GB pack)
    max_items   by subset, how many samples to draw; the others are left out, not only unscored
    seed        of that draw
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"annotation": "", "images": "", "light": False, "max_items": {}, "seed": 0}
ANNOTATIONS = (
    "ann_json_finegrained_random.json",
    "private_info_global.json",
    "eqben_subset_10percent_final.json",
    "all_select.json",
)
SLOTS = ("c0i0", "c0i1", "c1i0", "c1i1")
# (subset, id within it, (image 0, image 1), (caption 0, caption 1))
Sample = tuple[str, int, tuple[str, str], tuple[str, str]]


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    names = (options["annotation"],) if options["annotation"] else ANNOTATIONS
    path, content = raw.find(*names), raw.json(*names)
    if not isinstance(content, list) or not content:
        raw.fail(path, None, "is not a list of samples.")
    randomised = isinstance(content[0], dict) and "private_info" in content[0]
    found = _regrouped(raw, path, content) if randomised else _as_winoground(raw, path, content)
    by_subset: dict[str, list[Sample]] = {subset: [] for subset in task.leaves}
    for sample in found:
        if sample[0] not in by_subset:
            raw.fail(path, sample[1], f"{sample[0]!r:.40} is not one of {', '.join(task.leaves)}.")
        by_subset[sample[0]].append(sample)
    prefix = options["images"] or _image_folder(raw, next(iter(filter(None, by_subset.values()))))
    for subset, samples in by_subset.items():
        for _, number, images, captions in _drawn(subset, samples, options):
            yield Record(
                id=f"{subset}/{number}",
                subset=subset,
                images=tuple(_image(prefix, image, options["light"]) for image in images),
                texts=captions,
                cluster=f"{subset}/{_film(images[0])}",
            )


def _regrouped(raw: Raw, path: Path, content: list) -> Iterator[Sample]:
    groups: dict[tuple[str, int], dict[str, tuple[str, str]]] = defaultdict(dict)
    for place, row in enumerate(content):
        info = raw.field(path, place, row, "private_info", dict)
        dataset = raw.field(path, place, info, "dataset")
        count = raw.field(path, place, info, "sample_cnt", int)
        slot = raw.field(path, place, info, "name")
        if slot not in SLOTS:
            raw.fail(path, place, f"'name' is {slot!r:.40}, not one of {', '.join(SLOTS)}.")
        image = raw.field(path, place, row, "image")
        group = groups[dataset, count]
        if slot in group:
            raw.fail(path, place, f"sample {count} of {dataset!r:.40} has {slot} twice.")
        group[slot] = (image, _caption(raw, path, place, row, "caption"))
    for (dataset, count), group in sorted(groups.items()):
        where = f"{dataset} sample {count}"
        if len(group) != len(SLOTS):
            missing = ", ".join(slot for slot in SLOTS if slot not in group)
            raw.fail(path, where, f"lacks {missing}.")
        (i0, c0), (i1, same_c0), (same_i0, c1), (same_i1, same_c1) = (group[s] for s in SLOTS)
        if (i0, i1, c0, c1) != (same_i0, same_i1, same_c0, same_c1):
            raw.fail(path, where, "its four pairs are not of two images and two captions.")
        yield dataset, count, (i0, i1), (c0, c1)


def _as_winoground(raw: Raw, path: Path, content: list) -> Iterator[Sample]:
    for place, row in enumerate(content):
        images = tuple(raw.field(path, place, row, f"image{k}") for k in (0, 1))
        captions = tuple(_caption(raw, path, place, row, f"caption{k}") for k in (0, 1))
        yield images[0].split("/")[0], place, images, captions


def _caption(raw: Raw, path: Path, place: int, row: dict, key: str) -> str:
    """Action Genome's captions may be lists, of which the authors take the first."""
    value = raw.field(path, place, row, key, (str, list))
    return raw.field(path, place, value, 0) if isinstance(value, list) else value


def _drawn(subset: str, samples: list[Sample], options: dict) -> list[Sample]:
    limit = options["max_items"].get(subset, len(samples))
    if limit >= len(samples):
        return samples
    rng = random.Random(f"{options['seed']}/{subset}")
    return [samples[place] for place in sorted(rng.sample(range(len(samples)), limit))]


def _image(prefix: str, image: str, light: bool) -> ImageRef:
    if light and image.endswith(".png"):
        image = image.removesuffix(".png") + ".jpg"
    return ImageRef(OWN, f"{prefix}{image}" + ("::bgr" if image.endswith(".npy") else ""))


def _film(image: str) -> str:
    """What samples share: the film of Action Genome's frames; any other picture is its own."""
    return next((part for part in image.split("/") if part.endswith(".mp4")), image)


def _image_folder(raw: Raw, samples: list[Sample]) -> str:
    """The folder, below the raw one, that the annotation's paths start from (`image_jpg/`, ...)."""
    first = samples[0][2][0].split("/")[0]
    below = sorted(path for path in raw.folder.iterdir() if path.is_dir())
    for folder in (raw.folder, *below):
        if (folder / first).is_dir():
            prefix = folder.relative_to(raw.folder).as_posix()
            return "" if prefix == "." else f"{prefix}/"
    return ""
