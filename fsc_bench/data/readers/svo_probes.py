"""SVO-Probes' CSV: one sentence, a picture it is true of and one that differs in one part.

google-deepmind/svo_probes, svo_probes.csv: `sentence, pos_triplet, neg_triplet, pos_url, neg_url,
pos_image_id, neg_image_id, subj_neg, verb_neg, obj_neg`. A record has two images and one text; the
first image is right. Its id is the row's number, from 0.

The benchmark is a list of web addresses, many of them dead, and nobody may share the pictures. So
it is defined by what is on disk: a row counts where both its images are in `images/` (named by
image id, or by the md5 of the address) and are images, not a web page that was saved in their
place. Every other image is listed, and the result is flagged. Options: `rows`, a file of row
numbers to keep, which fixes the selection; `several`, what a row with more than one flag is:
"first" of subject, verb and object (CLoVe, CS-CLIP), or "drop" (the official notebook).
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fsc_bench.data.raw import Raw
from fsc_bench.records import OWN, ImageRef, Record
from fsc_bench.task import Task

OPTIONS = {"rows": "", "several": "first"}

FLAGS = ("subj_neg", "verb_neg", "obj_neg")
COLUMNS = ("sentence", "pos_url", "neg_url", "pos_image_id", "neg_image_id", *FLAGS)
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def read(task: Task, raw: Raw) -> Iterator[Record]:
    options = {**OPTIONS, **task.data.options}
    if options["several"] not in ("first", "drop"):
        raw.fail(str(task.path), None, f"several = {options['several']!r}; 'first' or 'drop'.")
    path = raw.find("svo_probes.csv", "data/svo_probes.csv")
    wanted = _wanted(raw, options["rows"]) if options["rows"] else None
    pictures = Pictures(raw, _folder(raw))
    rows = left_out = flagless = 0
    skipped: dict[ImageRef, None] = {}
    for number, row in raw.csv("svo_probes.csv", "data/svo_probes.csv", required=COLUMNS):
        rows += 1
        place = f"row {number}"
        kind = _kind(raw, path, place, row, options["several"])
        sentence = raw.field(path, place, row, "sentence")
        sides = [
            (raw.field(path, place, row, f"{side}_image_id"), row[f"{side}_url"].strip(), side)
            for side in ("pos", "neg")
        ]
        if kind is None or (wanted is not None and number - 1 not in wanted):
            flagless += kind is None
            continue
        images = [pictures.find(*side) for side in sides]
        if None in images:
            left_out += 1
            for (name, _, _), image in zip(sides, images, strict=True):
                if image is None:
                    skipped[ImageRef(OWN, pictures.expected(name))] = None
            continue
        yield Record(
            id=str(number - 1),
            subset=kind,
            images=tuple(images),
            texts=(sentence,),
            cluster=sides[0][0],
        )
    raw.skipped += skipped
    raw.notes["coverage"] = (
        f"{rows:,} rows, {left_out:,} without both images, {flagless:,} of no single kind"
    )


def _kind(raw: Raw, path: Path, place: str, row: dict[str, str], several: str) -> str | None:
    """The subset of a row, or None where it belongs to none."""
    values = [row[flag].strip().lower() for flag in FLAGS]
    for flag, value in zip(FLAGS, values, strict=True):
        if value not in ("true", "false"):
            raw.fail(path, place, f"{flag!r} is {row[flag]!r:.60}, not True or False.")
    found = [flag for flag, value in zip(FLAGS, values, strict=True) if value == "true"]
    if not found or (several == "drop" and len(found) > 1):
        return None
    return found[0]


def _folder(raw: Raw) -> Path:
    if not raw.has("images") and not raw.has("data/images"):
        raw.fail(
            raw.folder / "images",
            None,
            "is not there: pictures are fetched one by one from their addresses. "
            f"`fsc-bench data get {raw.task.name}` says how.",
        )
    return raw.find("images", "data/images")


def _wanted(raw: Raw, name: str) -> set[int]:
    path, lines = raw.find(name), raw.text(name).split()
    for line in lines:
        if not (line.isascii() and line.isdigit()) or len(line) > 9:
            raw.fail(path, None, f"{line!r:.60} is no row number.")
    return {int(line) for line in lines}


class Pictures:
    """The downloaded images, by what their names may be."""

    def __init__(self, raw: Raw, folder: Path):
        self.folder = folder
        self.prefix = folder.relative_to(raw.folder).as_posix()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raw.fail(folder, None, f"cannot be listed: {error.strerror}.")
        self.names = {Path(name).stem: name for name in reversed(names)}
        self.checked: dict[str, bool] = {}

    def expected(self, image_id: str) -> str:
        return f"{self.prefix}/{image_id}.jpg"

    def find(self, image_id: str, url: str, side: str) -> ImageRef | None:
        digest = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
        for stem in (image_id, f"{side}_{image_id}", digest):
            name = self.names.get(stem)
            if name is not None and self._is_image(name):
                return ImageRef(OWN, f"{self.prefix}/{name}")
        return None

    def _is_image(self, name: str) -> bool:
        if name not in self.checked:
            try:
                with (self.folder / name).open("rb") as file:
                    head = file.read(16)
            except OSError:
                head = b""
            webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
            self.checked[name] = webp or head.startswith(SIGNATURES)
        return self.checked[name]
