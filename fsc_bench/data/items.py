"""Items: what a task or an image source consists of, and where it goes. Nothing is fetched here.

<data>/raw/<task>/              a task's own files
<data>/images/<source>.zip      an image source that is one archive, kept and read as it is
<data>/images/<source>/         any other: files, or several archives whose members are searched
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsc_bench.clip_benchmark import MIRROR
from fsc_bench.data.archives import COMPRESSED, is_archive
from fsc_bench.data.images import raw_folder, read_links
from fsc_bench.data.sources import check_source, last_part, sources
from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.task import DRAWN, Task

GITHUB = re.compile(
    r"https://(raw\.githubusercontent|github)\.com/(?P<name>[^/]+/[^/]+)/.*?(?P<commit>[0-9a-f]{40})/"
)


@dataclass(frozen=True)
class Item:
    """One thing to fetch: a file from a URL, or files of one dataset repository on the Hub."""

    owner: str  # the task or image source
    path: Path  # the file, or the folder of several
    url: str = ""
    hf: str = ""
    revision: str = ""
    files: tuple[str, ...] = ()  # names, globs, or `archive.zip::member`
    sha256: str = ""
    bytes: int | None = None  # about
    served: str = ""  # what the URL serves is called so; `path` may be what becomes of it
    unpack: bool = False  # an archive, unpacked into the folder `path`
    shards: str = ""  # a split: `url` is a mirror's folder of WebDataset shards (mirror.py)
    differs: str = ""  # from what was published, as the task file says
    resolved: bool = (
        False  # `revision` is not the task file's: it was the newest, or a lock names it
    )
    expects: tuple[tuple[str, int, str], ...] = ()  # (name, bytes, sha256) that a lock names

    @property
    def where(self) -> str:
        """The place in one word, without the version."""
        return self.url or f"hf:{self.hf}"

    @property
    def pinned(self) -> bool:
        """Whether a version is named: a commit (in a GitHub address too) or the content's hash."""
        return bool(self.sha256 or self.commit or (self.revision and not self.resolved))

    @property
    def commit(self) -> str:
        """The commit that an address on GitHub names; empty for any other."""
        found = GITHUB.match(self.url)
        return found["commit"] if found else ""

    @property
    def address(self) -> str:
        if self.url:
            return self.url
        return f"hf://datasets/{self.hf}@{self.revision}/{','.join(self.files)}"

    @property
    def folder(self) -> Path:
        return self.path if self.hf or self.unpack else self.path.parent

    @property
    def part(self) -> Path:
        """Where bytes from the URL gather."""
        return self.folder / f"{self.served}.part"

    def hidden(self, ending: str) -> Path:
        """A small file of ours beside what is fetched, such as `.val2017.zip.done.json`."""
        name = self.hf.replace("/", "--") or (self.served if self.unpack else self.path.name)
        return self.folder / f".{name}.{ending}"


@dataclass(frozen=True)
class Owner:
    """A task or an image source, as what has to be fetched for it.

    groups: each is needed; of the items in one group, the first that can be had.
    """

    name: str
    kind: str  # task | images
    access: str
    instructions: str
    folder: Path  # raw/<task>, images/<source>, or what the user linked
    linked: bool
    groups: tuple[tuple[Item, ...], ...] = ()
    task: Task | None = None

    @property
    def word(self) -> str:
        """What a command line calls it."""
        return self.name if self.task is None else self.task.word

    @property
    def drawn(self) -> bool:
        """Whether its data are drawn here, not fetched."""
        return self.task is not None and self.task.drawn

    @property
    def drawing(self) -> str:
        """The command that draws a task whose data are drawn, and the others of its suite."""
        return f"fsc-bench run --demo -t {self.task.suite}"


def owners(tasks: Iterable[Task], data: Path, images: Iterable[str] = ()) -> list[Owner]:
    """The tasks, then each image source that they (or `images`) name, once."""
    tasks, links = list(tasks), read_links(data)
    needed = dict.fromkeys(images)
    for task in tasks:
        needed |= dict.fromkeys(needs(task, links))
    return [
        *(_task_owner(task, data, links) for task in tasks),
        *(_image_owner(name, data, links) for name in needed),
    ]


def needs(task: Task, links: Mapping[str, str]) -> list[str]:
    """The image sources of a task. Raises UsageError for one that is neither known nor linked."""
    names = [source["images"] for source in task.data.sources if "images" in source]
    for name in names:
        if name not in sources() and name not in links:
            raise UsageError(
                f"{task.path}: no image source called {name!r}.{near_miss(name, sources())}"
            )
    return names


def _task_owner(task: Task, data: Path, links: Mapping[str, str]) -> Owner:
    own = [
        (place, source)
        for place, source in enumerate(task.data.sources)
        if not {"images", DRAWN} & set(source)
    ]
    for place, source in own:
        check_source(f"{task.path}: [data] sources[{place}]", source)
    linked = task.name in links
    folder = raw_folder(data, task.name, links)
    if linked and task.name in sources():  # the link may be meant for the images of that name
        names = [source.get("to") or last_part(source.get("url", "")) for _, source in own]
        linked = all((folder / name).exists() for name in names) or _holds(task, folder)
        folder = folder if linked else data / "raw" / task.name
    return Owner(
        name=task.name,
        kind="task",
        access=task.data.access,
        instructions=task.data.instructions,
        folder=folder,
        linked=linked,
        groups=_groups([_item(task.name, source, folder) for _, source in own]),
        task=task,
    )


def _holds(task: Task, folder: Path) -> bool:
    """Whether the task's own files lie in a folder, as its reader knows them."""
    from fsc_bench.data.raw import Raw
    from fsc_bench.data.readers import load_reader

    holds = getattr(load_reader(task.data.reader, str(task.path)), "holds", None)
    try:
        return holds is not None and holds(Raw(task, folder))
    except DataError:
        return False


def _image_owner(name: str, data: Path, links: Mapping[str, str]) -> Owner:
    folder = Path(links.get(name) or data / "images" / name)
    if name not in sources():
        return Owner(name, "images", "open", "", folder, linked=True)
    source = sources()[name]
    items = [_item(name, table, folder) for table in source.sources]
    if len(items) == 1 and items[0].url and is_archive(items[0].served):
        suffix = ".zip" if items[0].served.endswith(".zip") else ".tar"
        path = folder.with_name(folder.name + suffix)
        items = [_url_item(name, source.sources[0], path, items[0].served)]
    return Owner(
        name=name,
        kind="images",
        access=source.access,
        instructions=source.instructions,
        folder=folder,
        linked=name in links,
        groups=_groups(items),
    )


def _groups(items: list[Item]) -> tuple[tuple[Item, ...], ...]:
    """Repositories that go to the same folder, and addresses of the same file, are the same data in
    several places.
    """
    groups: dict[Any, list[Item]] = {}
    for place, item in enumerate(items):
        groups.setdefault(place if item.unpack else item.path, []).append(item)
    return tuple(map(tuple, groups.values()))


def _item(owner: str, source: Mapping[str, Any], folder: Path) -> Item:
    to = source.get("to", "")
    if "hf" in source:
        return Item(
            owner=owner,
            path=folder / to,
            hf=source["hf"],
            revision=source.get("revision", ""),
            files=tuple(source.get("files", ())) or ("*",),
            sha256=source.get("sha256", ""),
            bytes=source.get("bytes"),
            differs=source.get("differs", ""),
        )
    if "shards" in source:
        path = folder / MIRROR
        return Item(owner=owner, path=path, url=source["url"], served=path.name,
                    shards=source["shards"])  # fmt: skip
    served = last_part(source["url"])
    if to.endswith("/"):
        return _url_item(owner, source, folder / to, served, unpack=True)
    path = folder / (to or served)
    return _url_item(owner, source, path, path.name)


def _url_item(
    owner: str, source: Mapping[str, Any], path: Path, served: str, unpack: bool = False
) -> Item:
    # Other archives are read as they are; a compressed tar has no places to read from.
    packed = next((ending for ending in COMPRESSED if path.name.endswith(ending)), "")
    if packed:
        path = path.with_name(path.name.removesuffix(packed) + ".tar")
    return Item(
        owner=owner,
        path=path,
        url=source["url"],
        sha256=source.get("sha256", ""),
        bytes=source.get("bytes"),
        served=served,
        unpack=unpack,
        differs=source.get("differs", ""),
    )
