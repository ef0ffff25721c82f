"""Task files: the types of a task's TOML file, and the checks that the types alone do not make.

tasks/README.md explains every key; `read_task` (task.py) makes a task of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fsc_bench.blind import Blind, BlindTable, read_blind
from fsc_bench.errors import UsageError
from fsc_bench.evidence import EvidenceTable
from fsc_bench.system.facts import Facts, check_choice, check_name

KINDS = {
    "matching": ("text", "image", "group", "groupmatch", "accuracy", "caption", "tot"),
    "classification": (
        "accuracy",
        "top5",
        "mean_per_class",
        "roc_auc",
        "map11",
        "map11_devkit",
    ),
    "retrieval": ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"),
}
OF_SEVERAL = ("caption", "tot")  # metrics of records with several right texts
BESIDE = ("drop",)  # metrics of results that head no table: less is better
WHOLE = "headline"  # what results call the number of the whole task
# A node is a promised count or a table of nodes; the root is the `[subsets]` table itself.
SubsetTree = Mapping[str, Any]


@dataclass(frozen=True)
class Prompts:
    """One set of prompt templates, with the class names it spells differently."""

    templates: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)


def walk(tree: SubsetTree) -> Iterator[tuple[str, Any]]:
    """Every node below `tree` with its name, parents before children."""
    for name, node in tree.items():
        yield name, node
        if isinstance(node, Mapping):
            yield from walk(node)


class Source(Facts, frozen=True):
    """One place that raw files come from: of a URL, of the Hub, of an image source or the demo."""

    url: str = ""
    sha256: str = ""
    hf: str = ""
    revision: str = ""
    files: tuple[str, ...] = ()
    images: str = ""
    to: str = ""
    bytes: int = 0
    differs: str = ""
    demo: str = ""


class DataTable(Facts, frozen=True):
    """[data]"""

    reader: str
    access: Literal["open", "gated", "manual"] = "open"
    sources: tuple[Source, ...] = ()
    instructions: str = ""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    decays: bool = False
    evidence: EvidenceTable = EvidenceTable()


class ClassTable(Facts, frozen=True):
    """[classes]"""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    also_numbered: str = ""


class CountTable(Facts, frozen=True, omit_defaults=True):
    """[counts]"""

    images: int | UnsetType = UNSET
    texts: int | UnsetType = UNSET


class TieTable(Facts, frozen=True, omit_defaults=True):
    """[official_ties]"""

    source: str | UnsetType = UNSET
    subsets: list[str] | UnsetType = UNSET


class PromptTable(Facts, frozen=True):
    """[prompts.NAME]"""

    templates: tuple[str, ...] = ()
    rename: dict[str, str] = msgspec.field(default_factory=dict)


class TaskFile(Facts, frozen=True):
    """A task file as it stands; `read_task` checks what the types alone do not say."""

    title: str
    suite: str
    group: Literal["compositionality", "classification", "retrieval"]
    kind: Literal["matching", "classification", "retrieval"]
    version: Annotated[int, msgspec.Meta(ge=0)]
    headline: list[str]
    chance: int | float | dict[str, float]
    subsets: dict[str, Any]
    data: DataTable
    within: Literal["subsets", "samples"] = "subsets"
    paper: str = ""
    license: str = ""
    counts: CountTable = CountTable()
    classes: ClassTable = ClassTable()
    prompts: dict[str, PromptTable] = msgspec.field(default_factory=dict)
    official_ties: TieTable = TieTable()
    reference: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    blind: BlindTable = BlindTable()


def check_tree(path: Path, tree: Mapping) -> None:
    """Raises UsageError where [subsets] is no tree of counts with a name for each."""
    if not tree:
        raise UsageError(f"{path}: [subsets] is empty; every subset promises its count.")
    seen: set[str] = set()
    for name, node in walk(tree):
        check_name(name, f"{path}: [subsets]: a name")
        if name == WHOLE:
            raise UsageError(f"{path}: [subsets] {name!r}: results call the whole task so; rename.")
        if name in seen:
            raise UsageError(f"{path}: [subsets] names {name!r} twice; names must be unique.")
        seen.add(name)
        if isinstance(node, Mapping):
            if not node:
                raise UsageError(f"{path}: [subsets] {name} is an empty table.")
        elif not isinstance(node, int) or isinstance(node, bool) or node < 1:
            raise UsageError(f"{path}: [subsets] {name} = {node!r} must be a count of records.")


def chance_of(path: Path, value: float | dict[str, float], headline: list[str]) -> dict[str, float]:
    """Percent by headline metric, of one number or of a table. Raises UsageError."""
    table = value if isinstance(value, dict) else dict.fromkeys(headline, value)
    for metric, percent in table.items():
        check_choice(f"{path}: chance", metric, headline)
        if not 0 <= percent <= 100:
            raise UsageError(f"{path}: chance {metric} = {percent!r} must lie in 0..100.")
    for metric in headline:
        if metric not in table:
            raise UsageError(f"{path}: chance lacks {metric!r}, which 'headline' names.")
    return {metric: float(percent) for metric, percent in table.items()}


def stated(source: Facts) -> dict[str, Any]:
    """What a table states, without the keys that it leaves out."""
    return {key: value for key, value in msgspec.to_builtins(source).items() if value}


def classes_of(path: Path, file: TaskFile) -> dict[str, Any]:
    """The fields of a task that [classes] states. Raises UsageError."""
    table = file.classes
    if file.kind != "classification":
        if table != ClassTable() or file.prompts:
            raise UsageError(f"{path}: [classes] and [prompts] belong to kind = 'classification'.")
        return {}
    names, ids = table.names, table.ids
    if len(names) < 2:
        raise UsageError(f"{path}: [classes] names must list at least two classes.")
    if ids and len(ids) != len(names):
        raise UsageError(f"{path}: [classes] has {len(names)} names but {len(ids)} ids.")
    if len(set(ids)) != len(ids):
        raise UsageError(f"{path}: [classes] ids repeat; each class needs its own.")
    other = table.also_numbered
    return {"classes": tuple(names), "class_ids": tuple(ids), "classes_also_numbered": other}


def prompts_of(path: Path, file: TaskFile) -> dict[str, Prompts]:
    """The prompt sets by name. Raises UsageError."""
    if file.kind != "classification":
        return {}
    if not file.prompts:
        raise UsageError(f"{path}: [prompts] needs at least one set, such as [prompts.elevater].")
    prompts = {}
    for key, table in file.prompts.items():
        if not table.templates:
            raise UsageError(f"{path}: [prompts.{key}] has no templates.")
        for template in table.templates:
            if template.count("{}") != 1:
                raise UsageError(f"{path}: [prompts.{key}] {template!r} needs exactly one {{}}.")
        for old in table.rename:
            check_choice(f"{path}: [prompts.{key}] rename", old, file.classes.names)
        prompts[key] = Prompts(tuple(table.templates), table.rename)
    return prompts


def references_of(path: Path, file: TaskFile) -> dict[str, Mapping[str, Any]]:
    """`{model: {metric: percent, where: source, subsets: {subset: percent or by metric}}}`."""
    nodes = dict(walk(file.subsets))
    metrics = [*KINDS[file.kind], *(BESIDE if file.kind == "matching" else ())]
    for model, row in file.reference.items():
        if not isinstance(row.get("where"), str):
            raise UsageError(f"{path}: [reference] {model!r} must be a table that says 'where'.")
        for key, value in row.items():
            if key == "subsets":
                for subset in value:
                    check_choice(f"{path}: [reference] {model} subsets", subset, nodes)
            elif key != "where":
                check_choice(f"{path}: [reference] {model}", key, metrics)
                if not isinstance(value, (int, float)):
                    raise UsageError(f"{path}: [reference] {model} {key} must be a number.")
    return file.reference


def blind_of(path: Path, file: TaskFile) -> Blind:
    """What [blind] states. Raises UsageError."""
    if file.kind != "matching" and file.blind != BlindTable():
        raise UsageError(f"{path}: [blind] belongs to kind = 'matching'.")
    counts = {name: node for name, node in walk(file.subsets) if not isinstance(node, Mapping)}
    return read_blind(f"{path}: [blind]", file.blind, counts)
