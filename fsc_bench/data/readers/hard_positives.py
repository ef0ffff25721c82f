"""Hard positives' pairs of JSON files: an image, a caption, its paraphrase and a foil.

Files of amitakamath/hard_positives, the same names in data/ and in swapped_data/:
`[{"image_id": "2401814", "true_caption": ..., "false_caption": ..., "image_path":
"data/VG_100K_2/2401814.jpg"}, ...]`: row by row the same images and foils in both folders, whose
right captions say the same in other words. Both must beat the foil. Option: `images`, the source of
the pictures.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"images": "vg"}
FILES = {
    "replace_att": "vl_checklist_attributes.json",
    "replace_rel": "vl_checklist_relations.json",
}
PICTURE = re.compile(r"(?:data/)?(VG_100K(?:_2)?/(\d+)\.jpg)")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    source = task.data.options.get("images", OPTIONS["images"])
    for subset in task.leaves:
        if subset not in FILES:
            raw.fail(raw.folder, None, f"has no subset {subset!r}; there are {', '.join(FILES)}.")
        name = FILES[subset]
        path, rows = _rows(raw, f"data/{name}", name)
        other, reworded = _rows(raw, f"swapped_data/{name}", f"swapped/{name}")
        if len(rows) != len(reworded):
            raw.fail(other, None, f"has {len(reworded):,} records, {path} has {len(rows):,}.")
        for (key, row), (_, again) in zip(rows, reworded, strict=True):
            caption, paraphrase = (
                raw.field(file, key, one, "true_caption")
                for file, one in ((path, row), (other, again))
            )
            picture, foil = _agreed(raw, (path, other), key, (row, again))
            yield Record(
                id=f"{subset}/{key}",
                subset=subset,
                images=(ImageRef(source, picture),),
                texts=(caption, paraphrase, foil),
                cluster=picture,
                right_texts=2,
            )


def _rows(raw: Raw, *names: str) -> tuple[Path, list[tuple[str, dict]]]:
    path = raw.find(*names)
    return path, raw.items(path, raw.json(*names))


def _agreed(
    raw: Raw, files: tuple[Path, Path], key: str, rows: tuple[dict, dict]
) -> tuple[str, str]:
    """(picture below Visual Genome's folder, foil), which both files must say of a record."""
    found = []
    for path, row in zip(files, rows, strict=True):
        where = raw.field(path, key, row, "image_path")
        picture = PICTURE.fullmatch(where)
        if not picture:
            raw.fail(path, key, f"'image_path' is {where!r:.80}, not data/VG_100K/NUMBER.jpg.")
        number = str(raw.field(path, key, row, "image_id", (int, str)))
        if number != picture[2]:
            raw.fail(path, key, f"'image_id' is {number!r:.40}, its picture {where!r:.80}.")
        found.append((picture[1], raw.field(path, key, row, "false_caption")))
    if found[0] != found[1]:
        (here, foil), (there, other) = found
        raw.fail(
            files[1],
            key,
            f"is of {there}, foil {other!r:.60}; {files[0]} has {here}, {foil!r:.60}.",
        )
    return found[0]
