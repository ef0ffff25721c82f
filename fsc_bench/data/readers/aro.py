"""ARO's files: two captions of a cut-out picture, or a caption and four shuffles of its words.

VG_Relation, VG_Attribute: `visual_genome_{relation,attribution}.json`, lists of `{"image_path",
"bbox_x", "bbox_y", "bbox_w", "bbox_h", "true_caption", "false_caption", "relation_name" or
"attributes": [2]}`; pictures in `images/` or `vgr_vga_images.zip`
(mertyg/vision-language-models-are-bows, dataset_zoo/aro_datasets.py). Relations that read the same
both ways and rare ones stay in the records, unscored.

COCO_Order, Flickr30k_Order, of these the first that is there:
    `<subset>.jsonl`      frozen candidates: a line `{"generator": ...}`, then a line a caption,
                          `{"image", "captions": [right, four shuffles]}`
    `<subset>/*.parquet`  the mirrors on Hugging Face: one frozen draw of the paper's recipe
    `coco_karpathy_test.json`, `flickr30k_test.json`  captions, shuffled here (word_order.py)

VG subsets are also read from `<subset>/*.parquet`, whose pictures are whole: the box is applied.
Options:
    crop            False scores whole pictures (MIEB's reading; not comparable)
    images          "own", or "vg" to take Visual Genome's pictures by number
    drop_relations  relations left unscored
    relation_min    samples a relation needs; 25 is the paper's table, 0 the authors' notebook
    attribute_min   samples a pair of attributes needs
    order           "spacy" or "rules": which generator shuffles where nothing is frozen
    seed            of that generator
"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fsc_bench.data.border import reason
from fsc_bench.data.raw import Raw
from fsc_bench.data.word_order import generator, pre_caption
from fsc_bench.records import OWN, ImageRef, Record, pixel_box
from fsc_bench.system.tables import read_parquet
from fsc_bench.task import Task

OPTIONS = {
    "crop": True,
    "images": "own",
    "drop_relations": [],
    "relation_min": 0,
    "attribute_min": 25,
    "order": "spacy",
    "seed": 1,
}
PAIRS = {
    "VG_Relation": "visual_genome_relation.json",
    "VG_Attribute": "visual_genome_attribution.json",
}
# subset -> (captions, image source, the folder that the source stands for)
ORDERS = {
    "COCO_Order": ("coco_karpathy_test.json", "coco/val2014", "val2014/"),
    "Flickr30k_Order": ("flickr30k_test.json", "flickr30k", "flickr30k-images/"),
}
HARD_TEXTS = ("hard_text_1", "hard_text_2", "hard_text_3", "hard_text_4")
LARGEST = 100_000  # pixels; no picture is wider


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    for subset in task.leaves:
        if subset in PAIRS:
            yield from _pairs(raw, subset, options)
        elif subset in ORDERS:
            yield from _order(raw, subset, options)
        else:
            known = ", ".join([*PAIRS, *ORDERS])
            raw.fail(task.path or task.name, None, f"[subsets] {subset!r} is not one of {known}.")


# ---------------------------------------------------------------- VG_Relation, VG_Attribute


def _pairs(raw: Raw, subset: str, options: dict) -> Iterator[Record]:
    rows = list(_pair_rows(raw, subset, options))
    count = Counter(stratum for *_, stratum in rows)
    minimum = options["relation_min" if subset == "VG_Relation" else "attribute_min"]
    dropped = set(options["drop_relations"]) if subset == "VG_Relation" else set()
    for key, image, texts, stratum in rows:
        yield Record(
            id=f"{subset}/{key}",
            subset=subset,
            images=(image,),
            texts=texts,
            cluster=image.path,
            stratum=stratum,
            scored=count[stratum] >= minimum and stratum not in dropped,
        )


def _pair_rows(
    raw: Raw, subset: str, options: dict
) -> Iterator[tuple[str, ImageRef, tuple[str, str], str]]:
    """(id, picture, (true, false), relation or pair of attributes)."""
    shards = _shards(raw, subset)
    if shards and not raw.has(PAIRS[subset]):
        columns = ["true_caption", "false_caption", "bbox"]
        for path, row, where in _parquet_rows(raw, shards, ["image"], columns):
            place = row.pop("row")
            box = row["bbox"] if isinstance(row["bbox"], dict) else {}
            edges = [raw.field(path, place, box, name, (int, float)) for name in "xywh"]
            image = ImageRef(OWN, f"{where}::image/{place}", _box(raw, path, place, edges, options))
            yield (*_texts(raw, path, place, row, image, f"{Path(path).stem}/{place}"),
                   _stratum(raw, path, place, row, subset))  # fmt: skip
        return
    path, content = raw.find(PAIRS[subset]), raw.json(PAIRS[subset])
    source, prefix = ("vg", "VG_100K/") if options["images"] == "vg" else (OWN, _own(raw))
    for key, row in raw.items(path, content):
        name = raw.field(path, key, row, "image_path")
        edges = [raw.field(path, key, row, f"bbox_{name}", (int, float)) for name in "xywh"]
        image = ImageRef(source, f"{prefix}{name}", _box(raw, path, key, edges, options))
        yield (*_texts(raw, path, key, row, image, key), _stratum(raw, path, key, row, subset))


def _own(raw: Raw) -> str:
    packed = not (raw.folder / "images").is_dir() and raw.has("vgr_vga_images.zip")
    return "vgr_vga_images.zip::images/" if packed else "images/"


def _texts(raw: Raw, path: Path, key: Any, row: dict, image: ImageRef, name: str):
    texts = tuple(raw.field(path, key, row, f"{truth}_caption") for truth in ("true", "false"))
    return name, image, texts


def _box(raw: Raw, path: Path, key: Any, edges: list, options: dict) -> tuple[int, ...] | None:
    """(left, upper, right, lower) in whole pixels."""
    if not all(math.isfinite(edge) and abs(edge) <= LARGEST for edge in edges):
        raw.fail(path, key, f"the box {edges} cannot be.")
    x, y, width, height = edges
    box = pixel_box((x, y, x + width, y + height))
    if box[2] <= box[0] or box[3] <= box[1]:
        raw.fail(path, key, f"the box {edges} is empty.")
    return box if options["crop"] else None


def _stratum(raw: Raw, path: Path, key: Any, row: dict, subset: str) -> str:
    if subset == "VG_Relation":
        return raw.field(path, key, row, "relation_name")
    value = row.get("attributes")
    if value is None and "attribute_1" in row:
        value = [row["attribute_1"], row.get("attribute_2")]
    pair = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(pair, list) or len(pair) != 2:
        raw.fail(path, key, f"'attributes' is {value!r:.60}, not two attributes.")
    return "_".join(raw.field(path, key, pair, place) for place in (0, 1))


# ---------------------------------------------------------------- COCO_Order, Flickr30k_Order


def _order(raw: Raw, subset: str, options: dict) -> Iterator[Record]:
    captions, source, folder = ORDERS[subset]
    shards = _shards(raw, subset)
    if raw.has(f"{subset}.jsonl"):
        rows = _frozen(raw, f"{subset}.jsonl", subset)
    elif shards:
        yield from _mirror(raw, subset, shards)
        return
    else:
        rows = _shuffled(raw, captions, subset, options)
    for key, image, texts in rows:
        name = image.removeprefix(folder)
        yield Record(
            id=f"{subset}/{key}",
            subset=subset,
            images=(ImageRef(source, name),),
            texts=texts,
            cluster=name,
        )


def _frozen(raw: Raw, file: str, subset: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    path = raw.find(file)
    for number, row in raw.json_lines(file):
        if number == 1:
            raw.notes[subset] = raw.field(path, "line 1", row, "generator")
            continue
        place = f"line {number}"
        texts = raw.field(path, place, row, "captions", list)
        if len(texts) != 1 + len(HARD_TEXTS):
            raw.fail(path, place, f"'captions' holds {len(texts)} texts, not 5.")
        texts = tuple(raw.field(path, place, texts, k) for k in range(len(texts)))
        yield str(number - 1), raw.field(path, place, row, "image"), texts


def _mirror(raw: Raw, subset: str, shards: list[Path]) -> Iterator[Record]:
    raw.notes[subset] = f"frozen draw of {', '.join(path.name for path in shards)}"
    columns = ["correct_caption", *HARD_TEXTS]
    for path, row, where in _parquet_rows(raw, shards, ["images"], columns):
        place = row.pop("row")
        texts = [raw.field(path, place, row, name) for name in columns]
        yield Record(
            id=f"{subset}/{Path(path).stem}/{place}",
            subset=subset,
            images=(ImageRef(OWN, f"{where}::images/{place}"),),
            # Already cleaned in the mirror; cleaning again changes nothing there.
            texts=tuple(_clean(raw, path, place, text) for text in texts),
            # Five rows share a picture; nothing in the file says which: each is its own cluster.
        )


def _shuffled(
    raw: Raw, file: str, subset: str, options: dict
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    path, content = raw.find(file, f"{subset}.jsonl", subset), raw.json(file)
    try:
        shuffle, made_by = generator(options["order"], options["seed"])
    except ValueError as error:
        raw.fail(
            path, None,
            f"shuffling its captions {error}. Or get the frozen texts: `fsc-bench data get "
            f"{raw.task.name}` fetches them as Parquet.",
        )  # fmt: skip
    raw.notes[subset] = made_by
    for key, row in raw.items(path, content):
        image = raw.field(path, key, row, "image")
        captions = raw.field(path, key, row, "caption", list)
        if not captions:
            raw.fail(path, key, "has no caption.")
        for place in range(len(captions)):
            caption = raw.field(path, key, captions, place)
            _clean(raw, path, key, caption)
            yield f"{key}/{place}", image, tuple(shuffle(caption))


def _clean(raw: Raw, path: Path | str, key: Any, caption: str) -> str:
    cleaned = pre_caption(caption)
    if not cleaned:
        raw.fail(path, key, f"nothing is left of the caption {caption!r:.60} once it is cleaned.")
    return cleaned


# ---------------------------------------------------------------- Parquet mirrors


def _shards(raw: Raw, subset: str) -> list[Path]:
    return sorted((raw.folder / subset).rglob("*.parquet"))


def _parquet_rows(
    raw: Raw, shards: list[Path], images: list[str], columns: list[str]
) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """(file, row without its pictures, path below the raw folder); `row` is the row's number."""
    for path in shards:
        raw.note(path)
        try:
            names = pq.read_schema(path).names
            for column in (*images, *columns):
                if column not in names:
                    raw.fail(path, None, f"has no column {column!r} (has {', '.join(names)}).")
            rows = read_parquet(path, [n for n in names if n not in images]).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raw.fail(path, None, f"is not a readable Parquet file: {reason(error)}.")
        inside = PurePosixPath(path.relative_to(raw.folder).as_posix())
        for number, row in enumerate(rows):
            yield path, {**row, "row": number}, str(inside)
