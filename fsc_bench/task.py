"""Tasks: what a benchmark is, as facts read from one TOML file.

A task never says how to compute anything: its `kind` picks one of the three scorings of
evaluate.py. tasks/README.md explains every key; reading refuses what that page does not explain
(task_file.py).
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fsc_bench.blind import Blind
from fsc_bench.errors import UsageError, near_miss
from fsc_bench.evidence import Evidence, read_evidence
from fsc_bench.system.facts import Facts, check_choice, check_name, read_toml
from fsc_bench.system.plugins import Plugin, complain, plugins
from fsc_bench.system.remote import refuse_remote
from fsc_bench.task_file import BESIDE as BESIDE
from fsc_bench.task_file import KINDS as KINDS
from fsc_bench.task_file import OF_SEVERAL as OF_SEVERAL
from fsc_bench.task_file import WHOLE as WHOLE
from fsc_bench.task_file import (
    DataTable,
    Prompts,
    SubsetTree,
    TaskFile,
    blind_of,
    chance_of,
    check_tree,
    classes_of,
    prompts_of,
    references_of,
    stated,
    walk,
)

GROUPS = ("compositionality", "classification", "retrieval")
ACCESS = ("open", "gated", "manual")
# Fields of a task that describe it, and those that decide a score but no record. A field that is in
# neither decides records, and through them scores.
DESCRIBES = ("name", "title", "suite", "group", "paper", "license", "reference", "blind", "path")
SCORES = ("headline", "chance", "within", "prompts", "official_ties")
NAMED_DATA: ContextVar[Path | None] = ContextVar("the data folder of a command", default=None)
NO_TASKS = ("images", "suites")  # shelves of tasks/ that hold other things
DRAWN = "demo"  # the key of a source that is drawn here: its value names a writer of fsc_bench.demo


@dataclass(frozen=True)
class Data:
    """Where a task's raw files come from and which reader turns them into records."""

    reader: str
    access: str = "open"
    sources: tuple[Mapping[str, Any], ...] = ()
    instructions: str = ""  # what a person must do, for `gated` and `manual`
    options: Mapping[str, Any] = field(default_factory=dict)  # the reader's own settings
    decays: bool = False  # pictures on the web that die one by one: what is left is scored, marked


@dataclass(frozen=True)
class Task:
    """One benchmark. Values are the task file's; see tasks/README.md."""

    name: str
    title: str
    suite: str
    group: str
    kind: str
    version: int
    headline: tuple[str, ...]
    chance: Mapping[str, float]  # percent, by headline metric
    subsets: SubsetTree
    data: Data
    evidence: Evidence = field(default_factory=Evidence)  # what tells its data from another task's
    within: str = "subsets"
    paper: str = ""
    license: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()  # the raw data's own ids (folders, synsets), in class order
    classes_also_numbered: str = ""  # by whom in another order, so that bare numbers say nothing
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    official_ties: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    blind: Blind = field(default_factory=Blind)
    path: Path | None = None

    @property
    def leaves(self) -> dict[str, int]:
        """Promised number of records by subset, in file order."""
        return {name: node for name, node in walk(self.subsets) if not isinstance(node, Mapping)}

    @property
    def n(self) -> int:
        """Promised number of records."""
        return sum(self.leaves.values())

    @property
    def word(self) -> str:
        """What a command line calls it: a shipped task's name, or the file of one's own."""
        shipped = catalogue().get(self.name)
        if self.path is None or (shipped is not None and shipped.path == self.path):
            return self.name
        return str(self.path)

    @property
    def drawn(self) -> bool:
        """Whether its data are drawn here, not fetched."""
        return any(DRAWN in source for source in self.data.sources)

    def class_names(self, prompts: str) -> tuple[str, ...]:
        """Class names as the prompt set spells them, in label order."""
        rename = self.prompts[prompts].rename
        return tuple(rename.get(name, name) for name in self.classes)

    def digest(self) -> str:
        """Hash of the facts that decide which records the task has (not how they are scored)."""
        facts = {
            key: value for key, value in vars(self).items() if key not in (*DESCRIBES, *SCORES)
        }
        facts |= {"name": self.name, "subsets": self.leaves, "data": reading_facts(self.data)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def reading_facts(data: Data) -> dict[str, Any]:
    """How the raw files are read, wherever they come from."""
    fetching = ("access", "sources", "instructions")
    return {key: value for key, value in vars(data).items() if key not in fetching}


def tasks_folder() -> Path:
    """The folder of shipped task files: inside the wheel, or beside the package in a checkout."""
    shipped = Path(__file__).parent / "tasks"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "tasks"


def is_shipped(task: Task) -> bool:
    """Whether a task's file is one of this package's own."""
    return task.path is not None and task.path.resolve().is_relative_to(tasks_folder().resolve())


@cache
def catalogue() -> dict[str, Task]:
    """Every shipped task and every one that an entry point `fsc_bench.tasks` adds, by name.

    An entry point names a module whose folder holds further TOML files.
    """
    files = [
        file for file in sorted(tasks_folder().glob("*/*.toml")) if file.parent.name not in NO_TASKS
    ]
    tasks = {file.stem: read_task(file) for file in files}
    for plugin in plugins("fsc_bench.tasks"):
        try:
            tasks |= _added(plugin, tasks)
        except UsageError as error:
            said = str(error)
            who = "" if said.startswith(plugin.who) else f"{plugin.who}: left out: "
            complain(f"{who}{said}")
    # Tasks of other suites stand by group too; the shelves of the default one already do.
    suites = list(dict.fromkeys(task.suite for task in tasks.values()))
    order = sorted(
        tasks.values(), key=lambda task: (suites.index(task.suite), GROUPS.index(task.group))
    )
    return {task.name: task for task in order}


def _added(plugin: Plugin, known: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks of another package. Raises UsageError where it has none, or one that is wrong."""
    module = plugin.load()
    places = list(getattr(module, "__path__", ()))
    if not places and getattr(module, "__file__", None):
        places = [Path(module.__file__).parent]
    if not places:
        raise UsageError(
            f"{plugin.who}: a {type(module).__name__}; name a package with TOML files."
        )
    files = sorted(file for place in places for file in Path(place).rglob("*.toml"))
    if not files:
        raise UsageError(f"{plugin.who}: no TOML file in {places[0]}.")
    found: dict[str, Task] = {}
    for file in files:
        taken = known.get(file.stem) or found.get(file.stem)
        if taken is not None and not _same_file(file, taken.path):
            raise _taken(file, taken)
        found[file.stem] = read_task(file)
    return found


class Selection(Facts, frozen=True):
    """A few tasks under one name, and why these."""

    tasks: tuple[str, ...]
    why: str


@cache
def selections() -> dict[str, Selection]:
    """The named selections of tasks/selections.toml, such as `fast`; none has an average."""
    return read_toml(tasks_folder() / "selections.toml", dict[str, Selection])


def own_task(path: Path) -> Task:
    """The task file that a command names by its path.

    Raises UsageError where the name is taken by the catalogue: data, links and results go by it.
    """
    task = read_task(path)
    known = catalogue().get(task.name)
    if known is not None:
        if _same_file(path, known.path):
            return known
        raise _taken(path, known)
    if (tasks_folder() / "images" / f"{task.name}.toml").exists():
        raise UsageError(
            f"{path}: the name {task.name!r} is a shipped image source's; rename the file. Links "
            "go by the name."
        )
    return task


def is_suite(path: Path) -> bool:
    """Whether a TOML file is a suite's: `tasks` or `averages` stand in no task file."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # who reads it as a task says what is wrong
    return bool({"tasks", "averages"} & found.keys()) and "kind" not in found


def is_apart(task: Task) -> bool:
    """Whether the numbers of a task's suite stand beside no others."""
    from fsc_bench.suite import shipped

    suite = shipped().get(task.suite)
    return suite is not None and bool(suite.apart)


def _stands_by_group(task: Task) -> bool:
    """Whether the name of its group picks a task: of the shipped suites, those of the default one
    alone, since averages over a group are of these.
    """
    from fsc_bench.suite import shipped

    suite = shipped().get(task.suite)
    return suite is None or suite.default


def default_suite() -> str:
    """The suite that is meant where no task is named."""
    from fsc_bench.suite import default

    return default().name


def named_task(word: str, folder: Path | None = None) -> Task:
    """The task of `FAMILY:NAME`, which has no file. folder: where its data lie; None for where they
    were linked or fetched. Raises UsageError for another family.
    """
    from fsc_bench.clip_benchmark import PREFIX, task_of

    if not word.startswith(PREFIX):
        raise UsageError(f"no task called {word!r}.{near_miss(word, [PREFIX])}")
    return task_of(word, folder)


def _same_file(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.samefile(other) or one.read_bytes() == other.read_bytes()


def _taken(path: Path, known: Task) -> UsageError:
    whose = "a shipped task's" if is_shipped(known) else f"taken by {known.path}"
    return UsageError(
        f"{path}: the name {known.name!r} is {whose}; rename the file. Data, links and results go "
        "by the name."
    )


def select(wanted: list[str], excluded: list[str] = ()) -> list[Task]:
    """Tasks by name, group, suite, selection, glob or path of a TOML file, in catalogue order.

    Raises UsageError for a word that selects nothing.
    """
    known = catalogue()
    chosen: dict[str, Task] = {}
    for word in wanted:
        found = _matching(word, known)
        for name in found.keys() & chosen.keys():
            if not _same_file(found[name].path, chosen[name].path):
                raise UsageError(
                    f"two tasks called {name!r}: {chosen[name].path} and {found[name].path}; "
                    "rename one of the files."
                )
        chosen.update(found)
    for word in excluded:
        for name in _matching(word, known):
            chosen.pop(name, None)
    order = {name: place for place, name in enumerate(known)}
    return sorted(chosen.values(), key=lambda task: order.get(task.name, len(order)))


def _matching(word: str, known: dict[str, Task]) -> dict[str, Task]:
    if word.endswith(".toml"):
        path = Path(word)
        if is_suite(path):
            from fsc_bench.suite import read_suite

            return {task.name: task for task in read_suite(path).tasks}
        task = own_task(path)
        return {task.name: task}
    if word in known:
        return {word: known[word]}
    if word in selections():
        return {name: known[name] for name in selections()[word].tasks}
    if ":" in word:
        task = named_task(word)
        return {task.name: task}
    from fsc_bench.suite import suite_called

    word = suite_called(word)
    found = {
        name: task
        for name, task in known.items()
        if word == "all"
        or word == task.suite
        or (word == task.group and _stands_by_group(task))
        or fnmatchcase(name, word)
    }
    if not found:
        choices = [*known, *GROUPS, *selections(), *sorted({task.suite for task in known.values()})]
        raise UsageError(
            f"no task called {word!r}.{near_miss(word, choices)} `fsc-bench tasks` lists them."
        )
    return found


# ---------------------------------------------------------------- reading a task file


def read_task(path: Path) -> Task:
    """Reads and checks one task file; the file's name is the task's name.

    Raises UsageError, one line: unknown key, wrong type, missing key or value that cannot be.
    """
    file = read_toml(path, TaskFile)
    if not file.headline:
        raise UsageError(f"{path}: 'headline' is empty; name at least one metric.")
    for metric in file.headline:
        if metric in BESIDE and file.kind == "matching":
            raise UsageError(
                f"{path}: headline = {metric!r}: less of it is better, so it heads no table; "
                "results have it beside 'text'."
            )
        check_choice(f"{path}: headline", metric, KINDS[file.kind])
        if file.headline.count(metric) > 1:
            raise UsageError(f"{path}: 'headline' names {metric!r} twice.")
    for key, name in (("title", file.title), ("suite", file.suite)):
        check_name(name, f"{path}: {key!r}")
    check_tree(path, file.subsets)
    classes = classes_of(path, file)
    return Task(
        name=path.stem,
        title=file.title,
        suite=file.suite,
        group=file.group,
        kind=file.kind,
        version=file.version,
        headline=tuple(file.headline),
        chance=chance_of(path, file.chance, file.headline),
        subsets=file.subsets,
        data=_data(file.data),
        evidence=read_evidence(
            f"{path}: [data.evidence]",
            file.data.evidence,
            [classes.get("class_ids", ()), classes.get("classes", ())],
            [name for name, node in walk(file.subsets) if not isinstance(node, Mapping)],
        ),
        within=file.within,
        paper=file.paper,
        license=file.license,
        counts=msgspec.to_builtins(file.counts),
        prompts=prompts_of(path, file),
        official_ties=msgspec.to_builtins(file.official_ties),
        reference=references_of(path, file),
        blind=blind_of(path, file),
        path=path,
        **classes,
    )


def _data(table: DataTable) -> Data:
    return Data(
        reader=table.reader,
        access=table.access,
        sources=tuple(stated(source) for source in table.sources),
        instructions=table.instructions,
        options=table.options,
        decays=table.decays,
    )


@contextmanager
def data_at(folder: Path | None) -> Iterator[None]:
    """Within it `data_folder()` is the folder that a command was given, if it was given one."""
    before = NAMED_DATA.set(folder)
    try:
        yield
    finally:
        NAMED_DATA.reset(before)


def data_folder(given: Path | None = None) -> Path:
    """Where data lives: `--data`, else $FSC_BENCH_DATA, else the user's cache folder.

    Raises UsageError for the address of an object store.
    """
    given = given or NAMED_DATA.get() or os.environ.get("FSC_BENCH_DATA")
    if given:
        refuse_remote(given)
        return Path(given).expanduser()
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "fsc_bench"
