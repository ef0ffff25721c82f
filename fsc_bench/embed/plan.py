"""Plan: which images and texts a task needs, each once, however many samples name it.

Two images are one when their bytes and crops are equal, whatever they are called; two texts are one
when they are the same string. What the plan does not hold is never encoded.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fsc_bench.data.images import DigestCache, Images, image_digest
from fsc_bench.data.prepare import Prepared
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.records import ImageRef
from fsc_bench.system.files import stamp
from fsc_bench.task import Task

PROMPTS = ("elevater", "openai", "clip_benchmark")  # sets of the shipped tasks
SINGLE = "a photo of a {}."  # the template of models that score pairs
QUICK = 1e-4  # seconds; what takes less is done sooner than it is handed to a thread
Place = tuple[str, ImageRef]  # (task name, reference): references to "." are relative to the task


@dataclass(frozen=True)
class Plan:
    """What to encode for one task, and how to find it again."""

    image_key: dict[Place, bytes]
    image_place: dict[bytes, Place]  # one place for each unique image
    text_key: dict[str, bytes]
    image_uses: int  # images to encode if every sample encoded its own
    text_uses: int
    unreadable: dict[Place, str] = field(default_factory=dict)  # the line to show
    whole_key: dict[Place, bytes] = field(default_factory=dict)  # of crops: the whole picture's

    @property
    def size(self) -> int:
        """Images and texts to encode, if none is known."""
        return len(self.image_place) + len(self.text_key)


@dataclass(frozen=True)
class Wanted:
    """Pairs of images and texts: int [n] each, places in refs and texts. May name one twice."""

    refs: Sequence[ImageRef]
    texts: Sequence[str]
    image: np.ndarray
    text: np.ndarray


def merged(plans: Sequence[Plan]) -> Plan:
    """One plan for several tasks: what they share is in it once."""
    image_place: dict[bytes, Place] = {}
    for plan in reversed(plans):
        image_place.update(plan.image_place)
    return Plan(
        {place: key for plan in plans for place, key in plan.image_key.items()},
        image_place,
        {text: key for plan in plans for text, key in plan.text_key.items()},
        sum(plan.image_uses for plan in plans),
        sum(plan.text_uses for plan in plans),
        {place: line for plan in plans for place, line in plan.unreadable.items()},
        {place: key for plan in plans for place, key in plan.whole_key.items()},
    )


def text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def text_digests(texts: Iterable[str]) -> dict[str, bytes]:
    """`text_digest` of each, a million in about a second."""
    sha256 = hashlib.sha256
    try:
        return {text: sha256(text.encode()).digest() for text in texts}
    except UnicodeEncodeError:  # half a surrogate pair, in somebody's JSON
        return {text: text_digest(text) for text in texts}


def choose_prompts(task: Task, wanted: str | None) -> str:
    """The prompt set of a classification task: the wanted one, else the first in its file. A set
    is listed only where it differs; `check_prompts` refuses one that nothing has.
    """
    return wanted if wanted in task.prompts else next(iter(task.prompts))


def check_prompts(wanted: str | None, tasks: Iterable[Task]) -> None:
    """Raises UsageError for a prompt set that neither one of `tasks` nor any shipped task has."""
    known = list(dict.fromkeys([*PROMPTS, *(name for task in tasks for name in task.prompts)]))
    if wanted is not None and wanted not in known:
        hint = near_miss(wanted, known)
        raise UsageError(f"no prompt set {wanted!r}.{hint} There are: {', '.join(known)}.")


def class_prompts(task: Task, prompts: str) -> list[list[str]]:
    """The prompts of each class, in label order."""
    templates = task.prompts[prompts].templates
    return [
        [template.replace("{}", name) for template in templates]
        for name in task.class_names(prompts)
    ]


def single_prompts(task: Task, prompts: str) -> list[str]:
    """One prompt a class, in label order, for models that score pairs of images and texts: there is
    no mean of prompts' vectors, and every further template would cost as many pairs again.

    The template is CLIP's default, `a photo of a {}.` (arXiv 2103.00020, section 3.1.4), where the
    set has it, and the set's first otherwise. No paper of these models classifies with more: LAVIS
    takes one (`A picture of`) in its own zero-shot example.
    """
    template = single_template(task, prompts)
    return [template.replace("{}", name) for name in task.class_names(prompts)]


def single_template(task: Task, prompts: str) -> str:
    """The template of `single_prompts`."""
    templates = task.prompts[prompts].templates
    return SINGLE if SINGLE in templates else templates[0]


def make_plan(
    prepared: Prepared,
    images: Images,
    cache: DigestCache,
    prompts: str | None = None,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> Plan:
    """Gathers and hashes. Unreadable images land in `unreadable`: they stop no other task."""
    task = prepared.task
    places: dict[Place, None] = {}
    texts: dict[str, None] = {}
    image_uses = text_uses = 0
    for row in prepared.records:
        if row.scored:
            places.update(((task.name, ref), None) for ref in row.images)
            texts.update(dict.fromkeys(row.texts))
            image_uses += len(row.images)
            text_uses += len(row.texts)
    if task.kind == "classification":
        for names in class_prompts(task, choose_prompts(task, prompts)):
            texts.update(dict.fromkeys(names))
            text_uses += len(names)
    wholes = {place: (place[0], replace(place[1], box=None)) for place in places if place[1].box}
    both = list({**places, **dict.fromkeys(wholes.values())})
    keys, unreadable = _hash_images(both, images, cache, progress)
    image_key = {place: keys[place] for place in places if place in keys}
    image_place: dict[bytes, Place] = {}
    for place, key in image_key.items():
        image_place.setdefault(key, place)
    return Plan(
        image_key,
        image_place,
        text_digests(texts),
        image_uses,
        text_uses,
        {place: line for place, line in unreadable.items() if place in places},
        {place: keys[whole] for place, whole in wholes.items() if whole in keys},
    )


def _hash_images(
    places: list[Place], images: Images, cache: DigestCache, progress: Callable
) -> tuple[dict[Place, bytes], dict[Place, str]]:
    """The content key of every place. A file that was hashed before and has not changed is not
    read.
    """
    names, stamps, unreadable = _stamps(places, images)
    known = cache.get(stamps)
    keys = {place: known[name] for place, name in names.items() if name in known}
    todo = [place for place in names if place not in keys]

    def digest(place: Place) -> tuple[Place, bytes | None, str]:
        try:
            return place, image_digest(images.content(*place), place[1].box), ""
        except DataError as error:
            return place, None, str(error)

    fresh: dict[bytes, bytes] = {}
    with ThreadPoolExecutor(4) as pool:
        for done, (place, key, error) in enumerate(_in_threads_if_slow(digest, todo, pool), 1):
            if key is None:
                unreadable[place] = error
            else:
                keys[place] = fresh[names[place]] = key
            if done % 500 == 0 or done == len(todo):
                progress(done, len(todo))
    with suppress(sqlite3.OperationalError):  # a full disk: what is not remembered is hashed again
        cache.put(fresh, stamps)
    return keys, unreadable


def _stamps(
    places: list[Place], images: Images
) -> tuple[dict[Place, bytes], dict[bytes, str], dict[Place, str]]:
    """(each place's name: file, member and crop; by name, the stamp of its file; the unreadable).

    One look at each file: a container of a thousand images has one stamp.
    """
    names: dict[Place, bytes] = {}
    stamps: dict[bytes, str] = {}
    unreadable: dict[Place, str] = {}
    of_file: dict[str, str] = {}
    for place in places:
        try:
            path, member = images.locate(*place)
            if path not in of_file:
                of_file[path] = stamp(path)
        except DataError as error:
            unreadable[place] = str(error)
            continue
        except OSError:
            unreadable[place] = f"{place[0]}: the image {path} is missing."
            continue
        name = f"{path}|{member}|{place[1].box}".encode("utf-8", "surrogatepass")
        names[place] = name
        stamps[name] = of_file[path]
    return names, stamps, unreadable


def _in_threads_if_slow(work: Callable, items: Sequence, pool: ThreadPoolExecutor) -> Iterator:
    """`work` of each, in order. A few of every 500 are done first, to see what the rest takes:
    threads help with large files and slow disks, but with small files at hand they wait for each
    other's interpreter and take three times as long.
    """
    for begin in range(0, len(items), 500):
        part = items[begin : begin + 500]
        few = min(len(part), 20)
        started = time.perf_counter()
        yield from [work(item) for item in part[:few]]
        quick = time.perf_counter() - started < few * QUICK
        yield from (map if quick else pool.map)(work, part[few:])
