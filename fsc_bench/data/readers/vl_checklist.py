"""VL-CheckList's JSON files: one image, a true and a false text (om-ai-lab/VL-CheckList, data/).

`[["VG_100K/2372476.jpg", {"POS": ["skiing slope"], "NEG": ["snowboarding slope"]}], ...]`. SWiG's
files hold three texts a side; the official code scores the first. A subset is called
`<column>/<file>`, such as `Object_Location_center/swig_agent`.

The official loader leaves out what has no image on disk, then keeps the first 1,000 of a file
(data_loader.py, evaluate.py with MAX_NUM 2000). So an absent image moves the window: it is counted,
and the result is flagged. Options: `cap`, 0 for whole files; `missing`, "next" as the official
code, or "keep" to leave the window where it is.
"""

from collections.abc import Iterator

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"cap": 1000, "missing": "next"}


def read(task: Task, raw: Raw) -> Iterator[Record]:
    for subset in task.leaves:
        yield from read_file(task, raw, subset)


def read_file(task: Task, raw: Raw, subset: str) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    if options["missing"] not in ("next", "keep"):
        raw.fail(str(task.path), None, f"missing = {options['missing']!r}; it is 'next' or 'keep'.")
    place = annotation_file(subset)
    if place is None:
        raw.fail(str(task.path), None, f"the subset {subset!r} is none of VL-CheckList's files.")
    source = _source(subset)
    path, content = raw.find(f"data/{place}", place), raw.json(f"data/{place}", place)
    if not isinstance(content, list):
        raw.fail(path, None, "holds no list of records.")
    kept = 0
    for number, row in enumerate(content):
        if options["cap"] and kept == options["cap"]:
            return
        if not isinstance(row, list) or len(row) != 2:
            raw.fail(path, number, "is not a pair of an image and its texts.")
        image = ImageRef(source, raw.field(path, number, row, 0))
        texts = raw.field(path, number, row, 1, dict)
        right = raw.field(path, number, texts, "POS", list)
        wrong = raw.field(path, number, texts, "NEG", list)
        record = Record(
            id=f"{subset}/{number}",
            subset=subset,
            images=(image,),
            texts=(raw.field(path, number, right, 0), raw.field(path, number, wrong, 0)),
            cluster=str(image),
        )
        if options["missing"] == "next" and not raw.exists(image):
            raw.skipped.append(image)
            continue
        kept += 1
        yield record


def annotation_file(subset: str) -> str | None:
    """Where a subset's records are, below data/; None for what is no subset."""
    column, _, collection = subset.partition("/")
    part, _, kind = column.partition("_")
    if part == "Object":
        place, _, value = kind.partition("_")
        folder = f"Object/{place}/{collection.split('_')[0]}_{place.lower()}"
        if collection == "hake":
            return f"{folder}/hake_obj_{value}.json"
        if collection in ("vg_obj", "vg_subj"):
            return f"{folder}/{collection}_{value}.json"
        if collection.startswith("swig_"):
            return f"{folder}/{collection}/{collection}_{value}.json"
    if part == "Attribute" and collection in ("vg", "vaw"):
        return f"Attribute/{collection}/{kind}.json"
    if part == "Relation" and collection == "vg":
        return f"Relation/vg/{kind}.json"
    if part == "Relation" and collection in ("hake", "swig"):
        return f"Relation/{collection}_{kind}.json"
    return None


def _source(subset: str) -> str:
    # VAW's images are Visual Genome's.
    return {"hake": "hake", "swig": "swig"}.get(subset.partition("/")[2].split("_")[0], "vg")
