"""CLIP_benchmark: any data set of that project by name, without a task file.

`clip_benchmark:NAME` is a WebDataset folder as LAION-AI/CLIP_benchmark writes it (github.com,
build_wds_dataset): `test/nshards.txt`, `test/0.tar ...`, `classnames.txt`,
`zeroshot_classification_templates.txt`, and `dataset_type.txt` where it says `multilabel` or
`retrieval`. Names and templates are the folder's; until one is linked or fetched they are those of
the installed package, whose JSON files are read as data. Nothing of either is executed.
"""

import ast
import io
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
SEVERAL_LABELS = ("voc2007_multilabel",)
# Not ours: those that choose between captions (`-t sugarcrepe`), and entries that are no data set.
OTHER_TASKS = ("sugar_crepe", "winoground", "dummy", "babel_imagenet", "caltech101_vtab")
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)(?:/tree/([^/]+))?/?")
SPLIT = "test"
MIRROR = ".mirror.json"  # where a folder was fetched from
RECALLS = (1, 5, 10)
LONGEST = 1 << 20  # bytes of a label
SOURCE = "clip_benchmark's own metrics, in percent: the first of equal scores wins"


def task_of(word: str, folder: Path | None = None) -> Task:
    """The task of `clip_benchmark:NAME`, or of `...@WHERE`: a commit of its repository on the Hub,
    or the address of a mirror.

    folder: where its data lie; None for where they were linked or fetched.

    Raises UsageError, one line, for a name that neither the package nor a linked folder has, and
    for another WHERE; DataError for a folder that is none of these.
    """
    name, _, where = word.removeprefix(PREFIX).partition("@")
    dataset = name.removeprefix("wds/")
    name = dataset.replace("/", "-")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(
            f"{word!r}: after {PREFIX!r} stands the name of a data set, such as sun397."
        )
    folder = folder or linked_folder(PREFIX + name)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no folder that {PREFIX}{name} could lie in.")
    if folder is None and not where and name not in known_names():
        raise UsageError(
            f"no data set called {name!r} in the installed clip_benchmark."
            f"{near_miss(name, known_names())} One that is yours: `fsc-bench data link "
            f"{PREFIX}{name} FOLDER`, then the same command."
        )
    where = where or _mirror_of(folder)
    source = _source(word, name, filled(where, dataset))
    _check_commit(word, folder, source)
    return _task(name, folder if folder and _has_shards(folder) else None, source)


def filled(where: str, dataset: str) -> str:
    """A place with the data set's name, as clip_benchmark's `--dataset_root` has it."""
    plain = dataset.removeprefix(PREFIX).removeprefix("wds/")
    return where.replace("{dataset_cleaned}", plain.replace("/", "-")).replace("{dataset}", plain)


def _source(word: str, name: str, where: str) -> dict[str, Any]:
    """The one source of a data set: of the Hub, or a mirror. Raises UsageError for neither."""
    if found := HUB.fullmatch(where):
        where = found[2] or "main"
        repository = found[1]
    elif where.startswith(("https://", "http://")):
        return {"url": where.rstrip("/"), "shards": SPLIT}
    else:
        repository = f"clip-benchmark/wds_{name}"
    if where not in ("", "main") and not COMMIT.fullmatch(where):
        raise UsageError(
            f"{word!r}: after the @ stand the 40 digits of a commit of {repository} on the Hub, or "
            "the address of a mirror, https://HOST/wds_{dataset_cleaned}; without either the "
            "Hub's newest commit is taken."
        )
    hub = {"hf": repository, "files": ("*.txt", f"{SPLIT}/*")}
    return {**hub, "revision": where} if COMMIT.fullmatch(where) else hub


def _check_commit(word: str, folder: Path | None, source: Mapping[str, Any]) -> None:
    """Raises UsageError where another commit was fetched than the one that is named."""
    asked = source.get("revision", "")
    marker = f".{source.get('hf', '').replace('/', '--')}.done.json"
    if not asked or folder is None or not (folder / marker).is_file():
        return
    came = read_json(folder / marker, dict[str, Any], DataError).get("commit", "")
    if came and came != asked:
        raise UsageError(
            f"{word}: what lies in {folder} was fetched at {came}. Delete the folder, then get it "
            "again; or leave the @ out."
        )


def _mirror_of(folder: Path | None) -> str:
    """The address that a folder was fetched from, where it was a mirror."""
    told = folder / MIRROR if folder else None
    return read_json(told, dict[str, str], DataError)["url"] if told and told.is_file() else ""


def _has_shards(folder: Path) -> bool:
    """Whether there is a shard: before the first came, names are the package's."""
    return any((folder / SPLIT).glob("*.tar")) or (data_folder() / "raw") not in folder.parents


def linked_folder(task: str) -> Path | None:
    """Where the data of a task lie, if they were linked or fetched."""
    table = data_folder() / "links.json"
    links = read_json(table, dict[str, str], DataError) if table.exists() else {}
    folder = Path(links.get(task) or data_folder() / "raw" / task)
    return folder if folder.is_dir() else None


@cache
def known_names() -> tuple[str, ...]:
    """The data sets that the installed package has class names or templates of, or builds."""
    packed = [
        *_package("en_classnames.json"),
        *_package("en_zeroshot_classification_templates.json"),
    ]
    found = [*packed, *captioned(), *_built()]
    return tuple(
        dict.fromkeys(name.replace("/", "-") for name in found if not name.startswith(OTHER_TASKS))
    )


@cache
def captioned() -> tuple[str, ...]:
    """The data sets of retrieval, as the package's own `get_dataset_default_task` has them."""
    named = (
        node
        for node in _builder().body
        if isinstance(node, ast.FunctionDef) and node.name == "get_dataset_default_task"
    )
    return tuple(
        name
        for function in named
        for node in ast.walk(function)
        if isinstance(node, ast.Tuple)
        for name in ast.literal_eval(node)
    )


def _built() -> list[str]:
    """The names that the package's builder compares with, and those of its collections."""
    tree = _builder()
    found = [
        node.comparators[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and ast.unparse(node.left) == "dataset_name"
        and isinstance(node.ops[0], ast.Eq)
        and isinstance(node.comparators[0], ast.Constant)
    ]
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "dataset_collection":
            found += [name for names in ast.literal_eval(node.value).values() for name in names]
    return found


@cache
def _builder() -> ast.Module:
    """The package's module that builds data sets, parsed and not executed."""
    return ast.parse(read_text(_packed("builder.py")))


@cache
def _package(file: str) -> Mapping[str, Any]:
    """A JSON file of the installed clip_benchmark."""
    return json.loads(read_text(_packed(file)))


def _packed(file: str) -> Path:
    """A file of the installed clip_benchmark, found without importing it."""
    spec = find_spec("clip_benchmark")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"{PREFIX}NAME needs the package: `pip install clip_benchmark`.")
    return Path(spec.submodule_search_locations[0]) / "datasets" / file


def _task(name: str, folder: Path | None, source: Mapping[str, Any]) -> Task:
    kind = _kind(name, folder)
    retrieval = kind == "retrieval"
    classes = () if retrieval else _lines(name, folder, "classnames.txt", "en_classnames.json")
    n, positives = _scanned(folder, kind) if folder else (0, ())
    facts = (
        _retrieval(n)
        if retrieval
        else _classification(name, folder, kind, classes, eleven_points(n, positives))
    )
    return Task(
        name=PREFIX + name,
        title=f"{name}, of CLIP_benchmark",
        suite="clip_benchmark",
        group="retrieval" if retrieval else "classification",
        kind="retrieval" if retrieval else "classification",
        version=1,
        subsets={SPLIT: n},
        data=Data(reader="wds", sources=(source,), options={"split": SPLIT}),
        paper="github.com/LAION-AI/CLIP_benchmark",
        **facts,
    )


def _kind(name: str, folder: Path | None) -> str:
    """classification, multilabel or retrieval."""
    if folder is None:
        told = "retrieval" if name in captioned() else ""
        return told or ("multilabel" if name in SEVERAL_LABELS else "classification")
    path = folder / "dataset_type.txt"
    kind = read_text(path).strip().lower() if path.is_file() else "classification"
    if kind not in ("classification", "multilabel", "retrieval"):
        raise DataError(
            f"{path}: {kind!r:.40} is none of classification, multilabel and retrieval."
        )
    return kind


def _classification(
    name: str, folder: Path | None, kind: str, classes: tuple[str, ...], by_luck: float
) -> dict[str, Any]:
    """by_luck: percent of the 11-point mAP that a random ranking has, of several labels."""
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
        "chance": {"map11": by_luck} if several else {"accuracy": 100 / max(len(classes), 1)},
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
    packed_lists, plain = _package(packed), name.removeprefix("vtab-")
    keys = (f"{plain}_vtab", plain) if plain != name else (name,)
    found = next((packed_lists[key] for key in keys if key in packed_lists), None)
    if isinstance(found, list):
        return tuple(str(line) for line in found)
    if folder is None:
        return ()  # they come with the data
    raise UsageError(
        f"{PREFIX}{name}: {folder} holds no {file}, and the installed clip_benchmark has none of "
        "it. Put the file there, a line each."
    )


def _scanned(folder: Path, kind: str) -> tuple[int, tuple[int, ...]]:
    """(how many pictures the tars of the split hold, by their headers; of several labels, how many
    of them show each class).
    """
    found, positives = 0, []
    for shard in sorted((folder / SPLIT).glob("*.tar")):
        try:
            with tarfile.open(shard, "r:") as archive:
                for one in archive:
                    found += Path(one.name).suffix.lower() in PICTURES
                    if kind == "multilabel" and one.name.endswith(".npy"):
                        positives.append(_vector(f"{shard}: {one.name}", archive, one))
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{shard}: cannot be read: {error}.") from None
    sums = (sum(column) for column in zip(*positives, strict=False))
    return found, tuple(sums)


def _vector(where: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> list[bool]:
    """The classes that a picture shows. Raises DataError where it is no plain array."""
    import numpy as np

    file = archive.extractfile(member)
    try:
        return (np.load(io.BytesIO(file.read(LONGEST)), allow_pickle=False).ravel() > 0).tolist()
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise DataError(f"{where}: no array of labels ({error}).") from None


@cache
def eleven_points(n: int, positives: tuple[int, ...]) -> float:
    """The 11-point mAP of a random ranking in percent, as `map11` (score/classification.py) counts
    it: of classes that show in `positives` of n pictures, the mean of drawn rankings.

    Its term at recall 0 is always 1: of many pictures it is some 9.1 more than 10/11 of the share
    of pictures that show a class.
    """
    shown = [count for count in positives if count]
    if not shown:
        return 0.0
    import numpy as np

    drawn = np.random.default_rng(0)
    rankings = max(20, min(400, 500_000 // n))
    places = drawn.permuted(np.tile(np.arange(1, n + 1), (rankings, 1)), axis=1)
    points = [_eleven(np.sort(places[:, :count], axis=1)) for count in shown]
    return round(100 * float(np.mean(points)), 4)


def _eleven(places: Any) -> float:
    """The mean 11-point average precision of rankings. places: [rankings, positives], sorted."""
    import numpy as np

    count = places.shape[1]
    precision = np.arange(1, count + 1) / places
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at that recall or beyond
    needed = [-(-tenth * count // 10) for tenth in range(1, 11)]  # hits at recall 0.1, 0.2 ... 1
    return float((1 + sum(best[:, hits - 1] for hits in needed)).mean() / 11)
