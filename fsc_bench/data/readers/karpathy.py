"""Retrieval files of the Karpathy splits: an image and all its captions, as they are published.

    BLIP         coco_karpathy_test.json: a list of {"image": "val2014/COCO_val2014_...jpg",
                 "caption": [five or six strings]}
    Karpathy     dataset_coco.json, dataset_flickr30k.json: {"images": [{"filepath", "filename",
                 "split", "sentences": [{"raw"}]}]}, of which the rows of the split count
    COCO         coco_test_karpathy.json of CLIP_benchmark: {"images": [{"id", "file_name"}],
                 "annotations": [{"image_id", "caption"}]}
    tables       a row an image or a caption: columns image or filename, caption or raw; where there
                 is a column `split`, its rows of the split count
    with images  Parquet or Arrow files of `datasets`, or CLIP_benchmark's tars

COCO's own captions_val2014.json does not say which images are the test split: files with more
images than the task promises are refused. Captions are kept raw. A record is called like its image;
where two folders hold an image of one name, like the path of each.

Options: `file`, the names that the file may have, the first that is there; `images`, the image
source; `strip`, the leading folders that the source itself stands for; `split`.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from fsc_bench.data.containers.tar import Container
from fsc_bench.data.listing import describe, files_below, unread
from fsc_bench.data.raw import Raw
from fsc_bench.data.readers import columns, wds
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task, is_shipped

OPTIONS = {"file": "", "images": "", "strip": "", "split": "test"}
SEVERAL = ("file",)
EXAMPLE = """
# mine.toml; `fsc-bench data link ./mine.toml FOLDER`, where FOLDER holds
#     test.json   [{"image": "0.png", "caption": ["a cat", "a cat on a mat"]},
#                  {"image": "1.png", "caption": ["a dog", "a dog in a bog"]}]
#     0.png 1.png
title    = "Mine"
suite    = "mine"
group    = "retrieval"
kind     = "retrieval"
version  = 1
headline = ["i2t_r1"]
chance   = 50.0
[subsets]
test = 2
[data]
reader = "karpathy"
[data.options]
file   = "test.json"
images = "."     # the pictures lie beside it; else an image source, such as "coco/val2014"
"""
IMAGE_COLUMNS = ("image", "filename", "file_name", "image_name")
CAPTION_COLUMNS = ("caption", "captions", "raw", "sentences", "comment", " comment")
TABLES = (".csv", ".txt", ".token", ".tsv")
Row = tuple[str, list[str]]  # (the image's path, its captions)


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    path = _file(raw, options["file"])
    if path is None:
        yield from _with_images(task, raw, options)
        return
    rows = list(_rows(task, raw, path, options))
    (subset,) = task.leaves
    names = [image.removeprefix(options["strip"]) for image, _ in rows]
    stems = Counter(PurePosixPath(image).stem for image in set(names))
    for image, (_, captions) in zip(names, rows, strict=True):
        yield Record(
            id=image if stems[PurePosixPath(image).stem] > 1 else PurePosixPath(image).stem,
            subset=subset,
            images=(ImageRef(options["images"], image),),
            texts=tuple(captions),
            cluster=image,
        )


def holds(raw: Raw) -> bool:
    """Whether captions lie there; a folder of the same name's pictures may hold none."""
    if _file(raw, {**OPTIONS, **raw.task.data.options}["file"]) is not None:
        return True
    if files_below(raw.folder, columns.BINARY):
        return True
    for path in files_below(raw.folder, (".tar",))[:1]:
        with suppress(OSError, ValueError):
            return any(name.endswith(wds.CAPTIONS) for name in Container(path).names())
    return False


def _file(raw: Raw, names: str | list[str]) -> Path | None:
    """The file that is linked, or the first of `names` in the folder or up to two below."""
    if raw.folder.is_file():
        plain = raw.folder.name.casefold().removesuffix(".gz")
        return raw.folder if plain.endswith((".json", *TABLES)) else None
    names = [names] if isinstance(names, str) else names
    endings = tuple(end for name in names for end in (name, f"{name}.gz"))
    found = {path.name.casefold(): path for path in reversed(files_below(raw.folder, endings))}
    return next((found[end.casefold()] for end in endings if end.casefold() in found), None)


def _with_images(task: Task, raw: Raw, options: Mapping[str, Any]) -> Iterator[Record]:
    """Records of files that hold the images too."""
    if files_below(raw.folder, columns.BINARY):
        view = {"images": "image", "texts": "caption", "where": {"split": options["split"]}}
        data = replace(task.data, reader="columns", options={**view, "split": options["split"]})
        yield from columns.read(replace(task, data=data), raw)
        return
    if files_below(raw.folder, (".tar",)):
        data = replace(task.data, reader="wds", options={"split": options["split"]})
        yield from wds.read(replace(task, data=data), raw)
        return
    names = [options["file"]] if isinstance(options["file"], str) else options["file"]
    if not raw.folder.is_dir():
        raw.find(*names)
    raw.fail(
        raw.folder,
        None,
        f"holds {describe(raw.folder)}, and no captions that can be read. "
        f"{unread(raw.folder)}Expected is one of: "
        f"{', '.join(names)}; Parquet files with the columns image and caption; WebDataset tars "
        "(test/0.tar with s0.jpg and s0.txt).",
    )


# ---------------------------------------------------------------- files of captions


def _rows(task: Task, raw: Raw, path: Path, options: Mapping[str, Any]) -> Iterator[Row]:
    if path.name.casefold().removesuffix(".gz").endswith(TABLES):
        rows = _of_table(raw, path, options["split"])
    else:
        rows = _of_json(raw, path, options["split"])
    found: dict[str, list[str]] = {}
    chosen = False
    for image, captions, is_chosen in rows:
        found.setdefault(image, []).extend(captions)
        chosen = chosen or is_chosen
    if not chosen and is_shipped(task) and len(found) > task.n:
        raw.fail(
            path,
            None,
            f"holds the captions of {len(found):,} images and does not say which {task.n:,} of "
            f"them are the split {options['split']!r}. Karpathy's own files do (dataset_coco.json, "
            f"dataset_flickr30k.json), and so does what `fsc-bench data get {task.word}` fetches.",
        )
    yield from found.items()


Entry = tuple[str, list[str], bool]  # (image, captions, whether the file says that it is chosen)


def _of_json(raw: Raw, path: Path, split: str) -> Iterator[Entry]:
    content = raw.parse(path, None, raw.text_of(path))
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        yield from _of_coco(raw, path, content)
        return
    if isinstance(content, Mapping) and isinstance(content.get("images"), list):
        content = content["images"]
    seen: set[str] = set()
    for key, row in raw.items(path, content):
        if isinstance(row, Mapping) and "sentences" in row:
            if raw.field(path, key, row, "split") != split:
                continue
            image, captions = _of_karpathy(raw, path, key, row)
        else:
            image, captions = _of_blip(raw, path, key, row)
        if image in seen:
            raw.fail(path, key, f"names the image {image!r:.80} a second time.")
        seen.add(image)
        yield image, captions, True


def _of_karpathy(raw: Raw, path: Path, key: str, row: Any) -> Row:
    folder, name = row.get("filepath"), raw.field(path, key, row, "filename")
    sentences = raw.field(path, key, row, "sentences", list)
    captions = [raw.field(path, key, one, "raw") for one in sentences]
    if not captions:
        raw.fail(path, key, "has no caption.")
    return (f"{folder}/{name}" if isinstance(folder, str) and folder else name), captions


def _of_blip(raw: Raw, path: Path, key: str, row: Any) -> Row:
    image = raw.field(path, key, row, "image")
    captions = raw.field(path, key, row, "caption", list)
    for place in range(len(captions)):
        raw.field(path, key, captions, place)
    if not captions:
        raw.fail(path, key, "has no caption.")
    return image, captions


def _of_coco(raw: Raw, path: Path, content: Any) -> Iterator[Entry]:
    names: dict[int, str] = {}
    for key, row in raw.items(path, content.get("images")):
        names[raw.field(path, key, row, "id", int)] = raw.field(path, key, row, "file_name")
    for key, row in raw.items(path, content["annotations"]):
        number = raw.field(path, key, row, "image_id", int)
        if number not in names:
            raw.fail(path, key, f"is of the image {number}, which the file does not name.")
        yield names[number], [raw.field(path, key, row, "caption")], False


def _of_table(raw: Raw, path: Path, split: str) -> Iterator[Entry]:
    text = raw.text_of(path)
    head = text.partition("\n")[0]
    if "#0\t" in head:  # 1000092795.jpg#0<TAB>a caption, as Flickr30k's authors publish it
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                name, tab, caption = line.partition("\t")
                if not tab or not caption.strip():
                    raw.fail(path, f"line {number}", "is not an image, a tab and a caption.")
                yield name.rpartition("#")[0] or name, [caption.strip()], False
        return
    delimiter = next((mark for mark in ("|", "\t", ",") if mark in head), ",")
    view = raw if path != raw.folder else Raw(raw.task, path.parent)
    name = path.relative_to(view.folder).as_posix()
    image = caption = ""
    for number, cells in view.csv(name, delimiter=delimiter):
        image = image or next((one for one in IMAGE_COLUMNS if one in cells), "")
        caption = caption or next((one for one in CAPTION_COLUMNS if one in cells), "")
        if not image or not caption:
            raw.fail(
                path,
                None,
                f"has the columns {', '.join(cells):.200}, and none for the image "
                f"({', '.join(IMAGE_COLUMNS)}) or its captions (caption, raw).",
            )
        if "split" in cells and cells["split"] != split:
            continue
        texts = _captions(raw, path, number, raw.field(path, number, cells, caption))
        yield raw.field(path, number, cells, image), texts, "split" in cells


def _captions(raw: Raw, path: Path, number: int, cell: str) -> list[str]:
    """One caption, or the list of several that a cell holds, as JSON or as Python writes it."""
    if not cell.lstrip().startswith("["):
        return [cell.strip()]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        found = [one.get("raw") if isinstance(one, Mapping) else one for one in found]
        if found and all(isinstance(one, str) and one.strip() for one in found):
            return found
    raw.fail(path, number, f"{cell!r:.60} is no list of captions.")
