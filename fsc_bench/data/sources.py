"""Sources: the images that several tasks share, as facts read from one TOML file each.

tasks/images/README.md explains every key. Where they lie on disk is for images.py to say, and how
they get there for get.py.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from fsc_bench.data.archives import is_archive, unsafe_name
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.evidence import SourceEvidence, SourceEvidenceTable, read_source_evidence
from fsc_bench.system.facts import Facts, read_toml
from fsc_bench.task import Task, catalogue, named_task, own_task, select, stated, tasks_folder


@dataclass(frozen=True)
class ImageSource:
    """Images that several tasks share, such as COCO val2017."""

    name: str
    title: str
    license: str
    access: str
    layout: str  # what a folder or archive of it holds, in words
    sources: tuple[Mapping[str, Any], ...] = ()
    inside: tuple[str, ...] = ()  # folders, with a `/`, that copies are wrapped in
    instructions: str = ""
    evidence: SourceEvidence = field(default_factory=SourceEvidence)
    path: Path | None = None


class Place(Facts, frozen=True):
    """One place that an image source comes from."""

    url: str = ""
    sha256: str = ""
    bytes: int = 0
    to: str = ""
    inside: str = ""
    hf: str = ""
    revision: str = ""
    files: tuple[str, ...] = ()


class SourceFile(Facts, frozen=True):
    """A file of tasks/images as it stands; `read_source` checks what types do not say."""

    name: str
    title: str
    license: str
    access: Literal["open", "gated", "manual"]
    layout: str
    sources: list[Place]
    inside: tuple[str, ...] = ()
    instructions: str = ""
    evidence: SourceEvidenceTable = SourceEvidenceTable()


def read_source(path: Path) -> ImageSource:
    """Reads and checks one file of tasks/images. Raises UsageError, one line."""
    file = read_toml(path, SourceFile)
    if unsafe_name(file.name) or file.name.replace("/", "-") != path.stem:
        raise UsageError(
            f"{path}: name = {file.name!r} must be the file's name, with '-' for each '/'."
        )
    if not file.sources and not file.instructions.strip():
        raise UsageError(f"{path}: has neither 'sources' nor 'instructions': nobody could get it.")
    for folder in file.inside:
        if unsafe_name(folder):
            raise UsageError(f"{path}: inside = {folder!r} {unsafe_name(folder)}.")
    sources = tuple(stated(source) for source in file.sources)
    for place, source in enumerate(sources):
        check_source(f"{path}: sources[{place}]", source)
    return ImageSource(
        name=file.name,
        title=file.title,
        license=file.license,
        access=file.access,
        layout=file.layout,
        sources=sources,
        inside=tuple(f"{folder.rstrip('/')}/" for folder in file.inside),
        instructions=file.instructions,
        evidence=read_source_evidence(f"{path}: [evidence]", file.evidence),
        path=path,
    )


@cache
def sources() -> dict[str, ImageSource]:
    """Every image source that has a file in tasks/images, by name."""
    files = sorted((tasks_folder() / "images").glob("*.toml"))
    return {source.name: source for source in map(read_source, files)}


def wrappers(name: str) -> tuple[str, ...]:
    """Folders, each ending in `/`, that may lie between an image source's root and its images.

    COCO's zip holds val2017/, and so may a user's COCO folder: either of the two may be linked.
    """
    known = sources().get(name)
    inside = [source.get("inside", "") for source in known.sources] if known else []
    inside += known.inside if known else ()
    own = ["", *filter(None, inside), f"{PurePosixPath(name).name}/"]
    return tuple(dict.fromkeys([*own, *(f"images/{folder}" for folder in own)]))


def named(word: str, folder: Path | None = None) -> tuple[Task | None, ImageSource | None]:
    """The task and the image source of a name (`flickr30k` is both), or of a TOML file. folder:
    where its data are said to lie.

    Raises UsageError with the near miss.
    """
    if word.endswith(".toml"):
        path = Path(word)
        if path.is_file() and b"\nlayout" in path.read_bytes():
            return None, _own_source(path)
        return own_task(path), None
    if ":" in word:
        return named_task(word, folder), None
    task, source = catalogue().get(word), sources().get(word)
    if task is None and source is None:
        hint = near_miss(word, [*sources(), *catalogue()])
        if Path(f"{word}.toml").is_file():
            hint = f" Did you mean ./{word}.toml, the file here?"
        raise UsageError(
            f"no image source or task called {word!r}.{hint} `fsc-bench data status` lists them; a "
            "task or image source of your own is named by its .toml file."
        )
    return task, source


def _own_source(path: Path) -> ImageSource:
    source = read_source(path)
    known = sources().get(source.name)
    if known is not None and known.path.read_bytes() != path.read_bytes():
        raise UsageError(
            f"{path}: the name {source.name!r} is a shipped image source's; choose another. "
            "Links go by the name."
        )
    return source


def choose(words: Iterable[str]) -> tuple[list[Task], list[str]]:
    """(tasks, image sources) that the words of a command line name."""
    words = list(words)
    images = [word for word in words if word in sources()]
    # `flickr30k` is a task and its images.
    rest = [word for word in words if word not in sources() or word in catalogue()]
    try:
        return (select(rest) if rest else []), images
    except UsageError:
        for word in rest:
            if near_miss(word, sources()) and not near_miss(word, catalogue()):
                named(word)
        raise


def check_source(where: str, source: Mapping[str, Any]) -> None:
    """What the types alone do not say. Raises UsageError."""
    if ("url" in source) == ("hf" in source):
        raise UsageError(f"{where} needs either 'url' or 'hf'.")
    if "url" in source and urlsplit(source["url"]).scheme not in ("http", "https"):
        raise UsageError(f"{where}: url = {source['url']!r} is not an http(s) address.")
    if not re.fullmatch(r"[0-9a-f]{64}|", source.get("sha256", "")):
        raise UsageError(f"{where}: sha256 = {source['sha256']!r} is not 64 digits 0-9a-f.")
    for key in ("to", "inside"):
        if source.get(key) and unsafe_name(source[key]):
            raise UsageError(f"{where}: {key} = {source[key]!r} {unsafe_name(source[key])}.")
    for name in source.get("files", ()):
        if not isinstance(name, str) or unsafe_name(name):
            raise UsageError(f"{where}: files has {name!r}, which is no path in a repository.")
    if "hf" in source and not re.fullmatch(r"[\w.-]+/[\w.-]+", source["hf"]):
        raise UsageError(f"{where}: hf = {source['hf']!r} is not org/name.")
    if source.get("revision") and not re.fullmatch(r"[0-9a-f]{40}", source["revision"]):
        raise UsageError(
            f"{where}: revision = {source['revision']!r} is not a whole commit (40 digits 0-9a-f). "
            "Without a revision the newest is taken at the first fetch and kept from then on."
        )
    if source.get("revision") and "hf" not in source:
        raise UsageError(f"{where}: revision = {source['revision']!r} is of 'hf' alone.")
    if "url" in source and not (source.get("to") or last_part(source["url"])):
        raise UsageError(f'{where}: url names no file; say what to call it: to = "NAME".')
    unpacks = "url" in source and source.get("to", "").endswith("/")
    if unpacks and not is_archive(last_part(source["url"])):
        raise UsageError(f"{where}: to = {source['to']!r} unpacks, but url names no archive.")


def last_part(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return "" if unsafe_name(name) else name
