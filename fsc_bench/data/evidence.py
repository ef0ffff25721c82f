"""Whether raw data is a task's own: records and a few pictures held against `[data.evidence]`.

Class counts are taken over all records, sizes and colours over a small fixed sample. What a part of
the data cannot disprove (too few records of a class, a known caption that is absent) is only
flagged where the data is known to be a part.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate

import numpy as np
from PIL import Image

from fsc_bench.data.images import Images
from fsc_bench.data.listing import IMAGE_SUFFIXES
from fsc_bench.data.pixels import decode
from fsc_bench.data.sources import sources
from fsc_bench.errors import DataError
from fsc_bench.evidence import Known, sizes_in_words
from fsc_bench.records import OWN, ImageRef, Record, broken_promises
from fsc_bench.task import Task, catalogue, is_apart

SAMPLE = 24  # pictures that are opened, evenly spaced
# How far a finding goes: it refuses always; only data that is promised to be whole; or never.
ALWAYS, WHOLE, FLAG = "always", "whole", "flag"
Finding = tuple[str, str]  # (how far, what was found and what was expected)


class ForeignData(DataError):
    """Data that contradicts what the task file says of its own."""


def check_evidence(
    task: Task, records: list[Record], images: Images, where: str, partial: bool
) -> list[Finding]:
    """What contradicts the task's evidence and may stand. Raises ForeignData for the rest."""
    findings = examine(task, records, images)
    judge(task, findings, partial, where, lambda: looks_like(task, records, images))
    return findings


def judge(
    task: Task,
    findings: Iterable[Sequence[str]],
    partial: bool,
    where: str,
    others: Callable[[], list[str]] = list,
) -> list[str]:
    """The flags of a result. Raises ForeignData, one line, where a finding refuses the data.

    others: finds the shipped tasks whose data it looks like; asked only for that line.
    """
    flags = []
    for kind, line in findings:
        if kind == ALWAYS or (kind == WHOLE and not partial):
            found = others()
            hint = f" It looks like the data of {' or '.join(found)}." if found else ""
            more = "" if kind == ALWAYS else " `--allow-partial` scores it anyway and flags it."
            raise ForeignData(f"{where}: {task.name}: not the published data: {line}.{hint}{more}")
        flags.append(line)
    return flags


def examine(task: Task, records: list[Record], images: Images) -> list[Finding]:
    """What differs from the task's evidence, the most telling first."""
    pictures = list(_pictures(task, records, images))
    findings = [
        *_classes(task, records),
        *pictures,
        # Pictures of another size are none of the known ones: 10,000 of them need no digest.
        *(() if pictures else _known_pixels(task, records, images)),
        *_known_files(task, records),
        *_known_texts(task, records),
        *_names(task, records),
    ]
    unchecked = task.evidence.unchecked
    broken = [(name, FLAG, line) for name, line in broken_promises(task, records)]
    findings += [row for row in broken if row[0] in unchecked]
    return [(FLAG if name in unchecked else kind, line) for name, kind, line in findings]


def looks_like(task: Task, records: list[Record], images: Images) -> list[str]:
    """The shipped tasks of the same kind whose evidence fits these records without exception."""
    highest = max((label for row in records for label in row.labels), default=-1)
    found = []
    for other in catalogue().values():
        alike = other.kind == task.kind and not is_apart(other) and other.n == len(records)
        single = len(other.leaves) == len(task.leaves) == 1  # subsets are the reader's own words
        if alike and single and other.name != task.name and highest < max(len(other.classes), 1):
            view = Images(images.data)
            view.links = {**images.links, other.name: str(images.root(task.name, OWN))}
            if not examine(other, records, view):
                found.append(other.name)
    return found


def labels_fit(task: Task, labels: Sequence[int]) -> bool:
    """Whether labels alone could be the task's: each is a class, none is had too often or rarely.

    Readers choose by it among several files of one format.
    """
    if any(not 0 <= label < len(task.classes) for label in labels):
        return False
    counts, evidence = Counter(labels), task.evidence
    classes = range(len(task.classes))
    if evidence.most and any(counts[place] > evidence.most[place] for place in classes):
        return False
    whole = len(labels) == task.n and evidence.describes(task.n)
    few = evidence.least and any(counts[place] < evidence.least[place] for place in classes)
    return not (whole and few)


def pictures_fit(task: Task, records: list[Record], images: Images) -> bool:
    """Whether the records' pictures have the sizes and colours that the task file states."""
    return not any(True for _ in _pictures(task, records, images))


# ---------------------------------------------------------------- classes

Raw = Iterator[tuple[str, str, str]]  # (the fact, how far, what was found and expected)


def _classes(task: Task, records: list[Record]) -> Raw:
    evidence = task.evidence
    if not (evidence.least or evidence.most):
        return
    several = {"map11", "map11_devkit"} & set(task.headline)  # labels a picture
    own = bool(several) or evidence.describes(task.n)
    if not own:
        line = f"[subsets] promises {task.n:,} records, [data.evidence] classes another number"
        yield "classes", FLAG, line
    counts = Counter(label for row in records for label in row.labels if label >= 0)
    least = evidence.least if len(records) >= task.n else ()  # else that is said, and why
    for kind, bounds, is_off in (
        (ALWAYS, evidence.most, lambda found, bound: found > bound),
        (WHOLE, least, lambda found, bound: found < bound),
    ):
        off = [place for place, bound in enumerate(bounds) if is_off(counts[place], bound)]
        if off:
            # Of a task whose own promise is another number, the evidence bounds the classes alone.
            yield "classes", kind if kind == ALWAYS or own else FLAG, _class_line(task, counts, off)


def _class_line(task: Task, counts: Counter, off: list[int]) -> str:
    place = off[0]
    found = f"{counts[place]:,} records of class {task.classes[place]!r}"
    least = task.evidence.least[place] if task.evidence.least else 0
    most = task.evidence.most[place] if task.evidence.most else None
    expected = f"{least:,}" if least == most else f"at least {least:,}"
    if most is not None and least != most:
        expected = f"{least:,} to {most:,}"
    more = f" ({len(off):,} of {len(task.classes):,} classes differ)" if len(off) > 1 else ""
    return f"{found}, the published data has {expected}{more}"


# ---------------------------------------------------------------- pictures


def _pictures(task: Task, records: list[Record], images: Images) -> Raw:
    evidence = task.evidence
    if not (evidence.width or evidence.height or evidence.colour is not None):
        return
    seen = [(ref, picture) for ref, picture in _sample(task, records, images)]
    kind = ALWAYS if evidence.one_size else WHOLE
    for ref, picture in seen:
        sides = zip(picture.size, (evidence.width, evidence.height), strict=True)
        if any(side and not side[0] <= found <= side[1] for found, side in sides):
            found = f"a picture of {picture.size[0]} x {picture.size[1]} pixels, {ref}"
            yield "pictures", kind, f"{found}; the published ones are {sizes_in_words(evidence)}"
            break
    sizes = {picture.size for _, picture in seen}
    if len(seen) >= SAMPLE // 2 and len(sizes) == 1 and _varies(task):
        width, height = sizes.pop()
        found = f"all of {len(seen)} pictures are {width} x {height} pixels"
        yield "pictures", WHOLE, f"{found}; the published ones are of many sizes"
    # A picture of one value alone says nothing of colour.
    tones = {is_colour(picture) for _, picture in seen if picture.getcolors(1) is None}
    if evidence.colour is True and tones == {False}:
        yield "pictures", ALWAYS, "the pictures are gray, the published ones are in colour"
    if evidence.colour is False and True in tones:
        yield "pictures", ALWAYS, "the pictures are in colour, the published ones are gray"


def _varies(task: Task) -> bool:
    """Whether the published sizes differ so much that a sample of one size belongs elsewhere."""
    sides = (task.evidence.width, task.evidence.height)
    return all(side is not None and 2 * side[1] >= 3 * side[0] for side in sides)


def _sample(
    task: Task, records: list[Record], images: Images
) -> Iterator[tuple[ImageRef, Image.Image]]:
    refs = list(dict.fromkeys(ref for row in records if row.scored for ref in row.images))
    step = max(1, len(refs) // SAMPLE)
    for ref in refs[::step][:SAMPLE]:
        picture = _open(task, ref, images)
        if picture is not None:
            yield ref, picture


def _open(task: Task, ref: ImageRef, images: Images) -> Image.Image | None:
    """A whole picture; None for one that is missing or damaged, which others complain of."""
    try:
        return decode(images.content(task.name, ref), "")
    except DataError:
        return None


def is_colour(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels[..., :2] != pixels[..., 1:]).any())


def pixel_digest(picture: Image.Image) -> str:
    """sha256 of a picture's size and pixels, 64 digits: equal in whatever format it is stored.

    Gray pixels count once, so that a gray file and its copy in RGB are equal.
    """
    pixels = np.asarray(picture)
    pixels = pixels if is_colour(picture) else pixels[..., 0]
    digest = hashlib.sha256(f"{picture.width} x {picture.height} {pixels.ndim} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


# ---------------------------------------------------------------- known records


def _known_pixels(task: Task, records: list[Record], images: Images) -> Raw:
    wanted = {one.pixels: one for one in task.evidence.known if one.pixels}
    wrong: list[str] = []
    there = 0
    lengths = {len(digits) for digits in wanted}
    for row in records if wanted else ():
        picture = _open(task, row.images[0], images)
        digest = pixel_digest(picture) if picture is not None else ""
        for known in filter(None, (wanted.get(digest[:length]) for length in lengths)):
            there += 1
            wrong += _mislabelled(task, row, known)
        if there >= len(wanted):
            break
    if wrong:
        line = f"{len(wrong)} of {there} known pictures have another class: {wrong[0]}"
        yield "known", ALWAYS, line
    elif wanted and not there and len(records) >= task.n:
        line = f"none of {len(wanted)} known pictures is there: other pixels than the published"
        yield "known", FLAG, line


def _known_files(task: Task, records: list[Record]) -> Raw:
    wanted = [one for one in task.evidence.known if one.file and not one.text]
    stems: dict[str, list[Record]] = {}
    for row in records if wanted else ():
        if stem := _stem(row.images[0]):
            stems.setdefault(stem, []).append(row)
    wrong: list[str] = []
    for known in wanted:
        if set("*?[").intersection(known.file):
            fits = re.compile(translate(known.file)).match
            rows = [row for stem, found in stems.items() if fits(stem) for row in found]
        else:
            rows = stems.get(known.file, [])
            rows = rows if len(rows) == 1 else []  # names that recur are not the published ones
        wrong += [line for row in rows for line in _mislabelled(task, row, known)]
    if wrong:
        line = f"{len(wrong):,} pictures of known names have another class: {wrong[0]}"
        yield "known", WHOLE, line


def _mislabelled(task: Task, row: Record, known: Known) -> list[str]:
    if known.label is None or known.label in row.labels or ~known.label in row.labels:
        return []
    names = [task.classes[label] for label in row.labels if 0 <= label < len(task.classes)]
    found = " and ".join(map(repr, names)) or "nothing"
    return [f"record {row.id!r:.60} is {task.classes[known.label]!r}, not {found}"]


def _known_texts(task: Task, records: list[Record]) -> Raw:
    wanted = [one for one in task.evidence.known if one.text]
    wanted = [one for one in wanted if not one.subset or one.subset in task.leaves]
    if not wanted:
        return
    texts = {_plain(one.text) for one in wanted}
    places: dict[str, list[tuple[int, Record]]] = {}
    for row in records:
        for place, text in enumerate(row.texts):
            if (plain := _plain(text)) in texts:
                places.setdefault(plain, []).append((place, row))
    absent, elsewhere = [], []
    for one in wanted:
        found = places.get(_plain(one.text), [])
        found = [(p, row) for p, row in found if one.subset in ("", row.subset)]
        if not found:
            absent.append(one)
        elif task.kind == "matching" and all(
            p >= row.right_texts and len(row.images) == 1 for p, row in found
        ):
            yield "known", ALWAYS, f"{one.text!r:.80} is a right caption, here it is a wrong one"
        elif one.file and not any(_shows(row, one.file) for _, row in found):
            elsewhere.append((one, found[0][1]))
    if elsewhere:
        one, row = elsewhere[0]
        line = f"{one.text!r:.80} belongs to the picture {one.file}, here to {row.images[0]}"
        yield "known", WHOLE, line
    if absent and (len(records) >= task.n or len(absent) == len(wanted)):
        kind = WHOLE if len(absent) == len(wanted) else FLAG
        line = f"{len(absent)} of {len(wanted)} known texts are absent: {absent[0].text!r:.80}"
        yield "known", kind, line


def _plain(text: str) -> str:
    """A text as mirrors keep it, whatever they do to case, blanks and punctuation."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _shows(row: Record, file: str) -> bool:
    """Whether a record's pictures can be the known one: what has no name of its own always can."""
    stems = [_stem(ref) for ref in row.images]
    return not any(stems) or file in stems


def _stem(ref: ImageRef) -> str:
    """The name that a picture's file has, without its ending; empty for a numbered member."""
    name = re.split(r"/|::", ref.path)[-1]
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_SUFFIXES else ""


def _names(task: Task, records: list[Record]) -> Raw:
    """The first picture of each source whose name is none of that source's."""
    patterns = {OWN: task.evidence.names}
    patterns |= {name: source.evidence.names for name, source in sources().items()}
    matches = {
        name: re.compile(f"(?:.*/)?(?:{pattern})").fullmatch
        for name, pattern in patterns.items()
        if pattern
    }
    for row in records:
        for ref in row.images:
            inside = ref.path.rpartition("::")[2]
            if ref.source in matches and _stem(ref) and not matches[ref.source](inside):
                name = task.name if ref.source == OWN else ref.source
                line = f"a picture of {name} is called {ref.path!r:.80}, not {patterns[ref.source]}"
                yield "names", WHOLE, line
                del matches[ref.source]
        if not matches:
            return
