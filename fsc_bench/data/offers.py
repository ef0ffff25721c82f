"""Offers: where the data of each task and image source can be had, in which version, and how much.

Nothing is fetched and nobody is asked: it is what the task files, and what came before, say.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fsc_bench.data.get import USABLE, status
from fsc_bench.data.items import GITHUB, Item, Owner, needs, owners
from fsc_bench.data.session import known_commit, readable
from fsc_bench.data.sources import sources
from fsc_bench.task import Task


@dataclass(frozen=True)
class Place:
    """One place of data.

    version: a commit or sha256; empty where none is known. pinned: named by the task file;
    otherwise it is resolved at the first fetch (`version` is then what came). instead: another
    place of the same data stands before it, and this one is taken where that fails.
    """

    source: str
    pinned: bool
    version: str
    files: tuple[str, ...]
    bytes: int | None  # about; None where nobody knows
    differs: str  # from what was published
    instead: bool


@dataclass(frozen=True)
class Offer:
    """All places of one task or image source, and what a person must do.

    access: open, gated or manual. needs: the image sources that a task reads.
    """

    name: str
    kind: str  # task | images
    license: str
    access: str
    places: tuple[Place, ...]
    needs: tuple[str, ...]
    todo: str

    @property
    def bytes(self) -> int | None:
        """About how many come; None where that of any part is unknown."""
        sizes = [place.bytes for place in self.places if not place.instead]
        return sum(sizes) if sizes and None not in sizes else None


def offers(tasks: Iterable[Task], data: Path, images: Iterable[str] = ()) -> list[Offer]:
    """What is offered of the tasks and of the image sources that they (or `images`) name."""
    return [_offer(owner) for owner in owners(tasks, data, images)]


def _offer(owner: Owner) -> Offer:
    task, known = owner.task, sources().get(owner.name)
    places = tuple(
        _place(item, number > 0) for group in owner.groups for number, item in enumerate(group)
    )
    if owner.drawn:
        places = (Place(f"drawn by `{owner.drawing}`", True, "", (), 0, "", False),)
    license = task.license if task is not None else known.license if known else "yours"
    return Offer(
        name=owner.name,
        kind=owner.kind,
        license=license or "not stated",
        access=owner.access,
        places=places,
        needs=tuple(needs(task, {})) if task is not None and not owner.linked else (),
        todo=owner.instructions.strip() if owner.access != "open" else "",
    )


def _place(item: Item, instead: bool) -> Place:
    version = item.revision or item.sha256 or item.commit
    if not version and item.hf:
        version = known_commit(item)
    return Place(item.where, item.pinned, version, item.files, item.bytes, item.differs, instead)


@dataclass(frozen=True)
class Line:
    """Places that a table shows in one line: the files of one repository at one commit, say."""

    where: str
    places: tuple[Place, ...]

    @property
    def version(self) -> str:
        """The commit, or the hash of the one file; of several files, that each has its own."""
        commits = {_commit(place) or place.version for place in self.places}
        if len(commits) == 1:
            return commits.pop()[:12] or "at first fetch"
        return "a hash each" if all(place.version for place in self.places) else "at first fetch"

    @property
    def about(self) -> str:
        known = [place.bytes for place in self.places if place.bytes is not None]
        return about(sum(known), len(known) < len(self.places))


def lines(offer: Offer) -> list[Line]:
    """The places of an offer, those of one repository or server in one line."""
    found: dict[tuple, list[Place]] = {}
    for place in offer.places:
        alike = (_short(place.source), place.pinned, _commit(place), place.differs, place.instead)
        found.setdefault(alike, []).append(place)
    return [Line(_where(alike[0], group), tuple(group)) for alike, group in found.items()]


def _where(short: str, group: list[Place]) -> str:
    if "://" not in group[0].source:
        return short
    if len(group) > 1:
        return f"{short} ({len(group)} files)"
    last = group[0].source.partition("?")[0].rpartition("/")[2]
    return f"{short}/.../{last}"


def about(known: int, more: bool) -> str:
    """A size as a table shows it; `over` it where `more` of unknown size comes besides."""
    if more:
        return f"over {readable(known)}" if known else "unknown"
    return readable(known)


@dataclass(frozen=True)
class Coming:
    """What `get` would do about one task or image source.

    bytes: about how many would come; None where nobody knows. known: the part of them that is
    known. what: one line of where from.
    """

    name: str
    kind: str
    state: str  # as `status` has it
    bytes: int | None
    known: int
    what: str
    todo: str  # what a person must do; empty for most


def coming(tasks: Iterable[Task], data: Path, images: Iterable[str] = ()) -> list[Coming]:
    """What `get` would fetch, and what is left to a person, of what is not there yet."""
    tasks, images = list(tasks), list(images)
    states = {(row.kind, row.name): row for row in status(tasks, data, images=images)}
    rows = []
    for offer in offers(tasks, data, images):
        row = states[offer.kind, offer.name]
        if row.state in USABLE:
            continue
        first = [place for place in offer.places if not place.instead]
        sizes = (row.download, row.download_known)
        rows.append(Coming(offer.name, offer.kind, row.state, *sizes, _what(first), offer.todo))
    return rows


def _what(places: list[Place]) -> str:
    """`hf:org/name`, or the one host of several addresses, with how it is pinned."""
    if not places:
        return "by hand"
    names = list(dict.fromkeys(_short(place.source) for place in places))
    shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    loose = sum(not place.pinned for place in places)
    pinned = "pinned" if not loose else "resolved" if loose == len(places) else "partly pinned"
    count = f"{len(places)} files, " if len(places) > 1 else ""
    return f"{shown} ({count}{pinned})"


def _short(source: str) -> str:
    """A repository's name; of other addresses the host."""
    if repository := GITHUB.match(source):
        return f"github:{repository['name']}"
    return source.split("/")[2] if "://" in source else source


def _commit(place: Place) -> str:
    repository = GITHUB.match(place.source)
    return repository["commit"] if repository else ""
