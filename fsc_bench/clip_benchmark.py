"""CLIP_benchmark: any data set of that project by name, without a task file.

`clip_benchmark:NAME` is a WebDataset folder as LAION-AI/CLIP_benchmark writes it (github.com,
build_wds_dataset): `test/nshards.txt`, `test/0.tar ...`, `classnames.txt`,
`zeroshot_classification_templates.txt`, and `dataset_type.txt` where it says `multilabel` or
`retrieval`. Names and templates are the folder's; until one is linked or fetched they are those of
the installed package, whose JSON files are read as data. Nothing of either is executed.
"""

import json
import re
import tarfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fsc_bench.errors import DataError, UsageError, near_miss
from fsc_bench.system.facts import read_json, read_text
from fsc_bench.task import Data, Prompts, Task, data_folder

PREFIX = "clip_benchmark:"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
CAPTIONED = ("mscoco_captions", "flickr8k", "flickr30k")  # whose names no JSON of the package has
SEVERAL_LABELS = ("voc2007_multilabel",)
COMMIT = re.compile(r"[0-9a-f]{40}")
RECALLS = (1, 5, 10)
SOURCE = "clip_benchmark's own metrics, in percent: the first of equal scores wins"


def task_of(word: str, folder: Path | None = None) -> Task:
    """The task of `clip_benchmark:NAME`, or `...@COMMIT` of its repository on the Hub.

    folder: where its data lie; None for where they were linked or fetched.

    Raises UsageError, one line, for a name that neither the package nor a linked folder has;
    DataError for a folder that is none of these.
    """
    name, _, commit = word.removeprefix(PREFIX).partition("@")
    name = name.removeprefix("wds/").replace("/", "-")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not COMMIT.fullmatch(commit or 40 * "0"):
        raise UsageError(
            f"{word!r}: after {PREFIX!r} stands the name of a data set, such as sun397, and after "
            "an @ the 40 digits of a commit of its repository on the Hub."
        )
    folder = folder or linked_folder(PREFIX + name)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no folder that {PREFIX}{name} could lie in.")
    if folder is None and name not in known_names():
        raise UsageError(
            f"no data set called {name!r} in the installed clip_benchmark."
            f"{near_miss(name, known_names())} One that is yours: `fsc-bench data link "
            f"{PREFIX}{name} FOLDER`, then the same command."
        )
    return _task(name, folder, commit)


def linked_folder(task: str) -> Path | None:
    """Where the data of a task lie, if they were linked or fetched."""
    table = data_folder() / "links.json"
    links = read_json(table, dict[str, str], DataError) if table.exists() else {}
    folder = Path(links.get(task) or data_folder() / "raw" / task)
    return folder if folder.is_dir() else None


@cache
def known_names() -> tuple[str, ...]:
    """The data sets that the installed package has class names or templates of, or captions."""
    found = [
        *_package("en_classnames.json"),
        *_package("en_zeroshot_classification_templates.json"),
    ]
    return tuple(dict.fromkeys([*found, *CAPTIONED]))


@cache
def _package(file: str) -> Mapping[str, Any]:
    """A JSON file of the installed clip_benchmark, found without importing it."""
    spec = find_spec("clip_benchmark")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{PREFIX}NAME needs the package: `pip install clip_benchmark`.")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / file
    return json.loads(read_text(path))


def _task(name: str, folder: Path | None, commit: str) -> Task:
    kind = _kind(name, folder)
    retrieval = kind == "retrieval"
    classes = () if retrieval else _lines(name, folder, "classnames.txt", "en_classnames.json")
    n = _count(folder) if folder else 0
    facts = _retrieval(n) if retrieval else _classification(name, folder, kind, classes)
    hub = {"hf": f"clip-benchmark/wds_{name}", "revision": commit, "files": ("*.txt", "test/*")}
    return Task(
        name=PREFIX + name,
        title=f"{name}, of CLIP_benchmark",
        suite="clip_benchmark",
        group="retrieval" if retrieval else "classification",
        kind="retrieval" if retrieval else "classification",
        version=1,
        subsets={"test": n},
        data=Data(reader="wds", sources=(hub,), options={"split": "test"}),
        paper="github.com/LAION-AI/CLIP_benchmark",
        **facts,
    )


def _kind(name: str, folder: Path | None) -> str:
    """classification, multilabel or retrieval."""
    if folder is None:
        told = "retrieval" if name in CAPTIONED else ""
        return told or ("multilabel" if name in SEVERAL_LABELS else "classification")
    path = folder / "dataset_type.txt"
    kind = read_text(path).strip().lower() if path.is_file() else "classification"
    if kind not in ("classification", "multilabel", "retrieval"):
        raise DataError(
            f"{path}: {kind!r:.40} is none of classification, multilabel and retrieval."
        )
    return kind


def _classification(
    name: str, folder: Path | None, kind: str, classes: tuple[str, ...]
) -> dict[str, Any]:
    templates = _lines(
        name,
        folder,
        "zeroshot_classification_templates.txt",
        "en_zeroshot_classification_templates.json",
    )
    several = kind == "multilabel"
    names = ["acc1", *["acc5"] * (len(classes) >= 5), "mean_per_class_recall"]
    return {
        "headline": ("map11",) if several else ("accuracy",),
        "chance": {"map11": 0.0} if several else {"accuracy": 100 / max(len(classes), 1)},
        "classes": classes,
        "prompts": {"clip_benchmark": Prompts(tuple(map(_template, templates)))},
        "official_ties": _theirs(["mean_average_precision"] if several else names),
    }


def _retrieval(n: int) -> dict[str, Any]:
    ways = [f"{way}_retrieval_recall@{k}" for k in RECALLS for way in ("image", "text")]
    return {
        "headline": ("i2t_r1", "t2i_r1"),
        "chance": dict.fromkeys(("i2t_r1", "t2i_r1"), 100 / max(n, 1)),  # any of n pictures
        "official_ties": _theirs(ways),
    }


def _theirs(metrics: list[str]) -> dict[str, Any]:
    return {"source": SOURCE, "metrics": metrics}


def _template(line: str) -> str:
    """`a photo of a {c}.` as `a photo of a {}.`: only the class's name may stand in braces."""
    if set(re.findall(r"{[^{}]*}", line)) - {"{c}"}:
        raise DataError(
            f"the template {line!r:.80}: only {{c}}, the class's name, may stand there."
        )
    return line.replace("{c}", "{}")


def _lines(name: str, folder: Path | None, file: str, packed: str) -> tuple[str, ...]:
    """The lines of a folder's text file, or the list that the package has for the name."""
    path = folder / file if folder else None
    if path is not None and path.is_file():
        return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    found = _package(packed).get(name)
    if isinstance(found, list):
        return tuple(str(line) for line in found)
    where = f"{folder} holds no {file}, and" if folder else "Without its folder it has no names:"
    raise UsageError(
        f"{PREFIX}{name}: {where} the installed clip_benchmark has none of it. `fsc-bench data "
        f"link {PREFIX}{name} FOLDER` says where a folder with {file} is."
    )


def _count(folder: Path) -> int:
    """How many pictures the tars of the split hold, by their headers."""
    found = 0
    for shard in sorted((folder / "test").glob("*.tar")):
        try:
            with tarfile.open(shard, "r:") as archive:
                found += sum(Path(one.name).suffix.lower() in PICTURES for one in archive)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard}: cannot be read: {error}.") from None
    return found
