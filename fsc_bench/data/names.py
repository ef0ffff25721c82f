"""Names: the one place that says when two file names mean the same, and which files are no data.

A name in a table and the file it means often differ in form alone: letter case, how an accent is
stored (macOS takes it apart), `\\` for `/`, a leading `./`, a zip without the UTF-8 flag. What an
operating system leaves behind (`__MACOSX`, `._x.png`, `Thumbs.db`) is no data at all.
"""

import contextlib
import difflib
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from functools import cached_property

JUNK = {
    "__macosx",
    ".appledouble",
    ".cache",
    ".directory",
    ".ds_store",
    ".fseventsd",
    ".git",
    ".huggingface",
    ".ipynb_checkpoints",
    ".locks",
    ".spotlight-v100",
    ".temporaryitems",
    ".trashes",
    "$recycle.bin",
    "@eadir",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
# What `Dataset.map` leaves beside the files of `Dataset.save_to_disk` (results, not data), locks,
# checksums, and what is half fetched or half written.
LEFT_BEHIND = re.compile(
    r"cache-[0-9a-f]{8,}\w*\.arrow|tmp\w{8}|.*\.(lock|incomplete|crdownload|aria2|md5|sha1|sha256)"
    r"|(md5|sha1|sha256)sums?(\.txt)?",
    re.IGNORECASE,
)
LARGEST_NEAR = 20_000  # of a longer listing no names that are spelt alike are sought


def is_junk(path: str) -> bool:
    """Whether a file or folder was left by an operating system or tool and holds no data."""
    return any(
        part.startswith("._") or part.casefold() in JUNK or LEFT_BEHIND.fullmatch(part) is not None
        for part in path.split("/")
    )


def normal(path: str) -> str:
    """A path in the one form in which two are compared: NFC, `/`, no `./`, no empty part."""
    return unicodedata.normalize("NFC", plain_path(path))


def plain_path(path: str) -> str:
    """A path with `/` between its parts and none of `./`; letters stay as they are."""
    if "\\" not in path and "//" not in path and not path.startswith("./") and "/./" not in path:
        return path
    parts = path.replace("\\", "/").split("/")
    kept = "/".join(part for part in parts if part not in ("", "."))
    return f"/{kept}" if path.startswith(("/", "\\")) else kept


def zip_name(info: zipfile.ZipInfo) -> str:
    """A member's path. Old zippers store UTF-8 without saying so, and zipfile reads code page 437.

    Bytes that are no UTF-8 keep the name that zipfile gives them.
    """
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return plain_path(name) + ("/" if info.is_dir() and not name.endswith(("/", "\\")) else "")


class Names:
    """The names of one listing, found also under another form where that means one of them."""

    def __init__(self, names: Iterable[str]):
        self.all: Collection[str] = names if isinstance(names, Collection) else list(names)
        self.exact = self.all if isinstance(self.all, Set | Mapping) else frozenset(self.all)

    def __contains__(self, name: str) -> bool:
        return name in self.exact

    def __iter__(self) -> Iterator[str]:
        return iter(self.all)

    @cached_property
    def _forms(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name in self.all:
            found[normal(name)].append(name)
        return dict(found)

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for form, names in self._forms.items():
            found[form.casefold()] += names
        return dict(found)

    @cached_property
    def top(self) -> str:
        """The one folder, with its `/`, that everything lies in; empty where there is none."""
        first = {name.partition("/")[0] for name in self.all}
        inside = len(first) == 1 and all("/" in name for name in self.all)
        return f"{first.pop()}/" if inside else ""

    def find(self, name: str) -> str | None:
        """The one name that is equal, else equal in another form, else equal but for case."""
        if name in self.exact:
            return name
        form = normal(name)
        for table, key in ((self._forms, form), (self._folded, form.casefold())):
            if found := table.get(key):
                return found[0] if len(found) == 1 else None
        return None

    def near(self, name: str) -> str:
        """The name that was probably meant, or "": the same file elsewhere, with another ending, or
        spelt alike. Names that differ in a number are other files.
        """
        form = normal(name).casefold()
        if same := self._folded.get(form):
            return same[0]
        base = _base(form)
        stem = base.rpartition(".")[0]
        bases = {_base(folded): folded for folded in reversed(self._folded)}
        stems = {one.rpartition(".")[0]: folded for one, folded in bases.items()}
        found = bases.get(base) or (stem and stems.get(stem))
        if not found and len(self._folded) <= LARGEST_NEAR:
            digits = re.findall(r"\d+", base)
            alike = [one for one in bases if re.findall(r"\d+", one) == digits]
            found = bases.get(next(iter(difflib.get_close_matches(base, alike, 1, 0.8)), ""))
        return self._folded[found][0] if found else ""


def _base(path: str) -> str:
    return path.rpartition("/")[2]
