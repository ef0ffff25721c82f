"""Mutants: small faults, planted one at a time in the code that makes numbers. Tests see each.

    python tests/mutants.py                      a sample, always the same: some two minutes
    python tests/mutants.py --all [FILE ...]     every mutant (of these files)

A mutant is one changed operator, condition, constant or call. It is compiled in a forked process
and met by those witnesses (the tests that mutants.toml names for its file) that run its line. It
survives where all of them pass: then a test is missing, or nothing it does can be seen, which
mutants.toml says with the reason. Exit code 1 on a survivor that is not listed there.
"""

import argparse
import ast
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import threading
import time
import tomllib
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parent.parent
SECONDS = 120  # after which a mutant that does not end counts as seen
# pytest's exit codes: a test failed, or its module could not be imported (4 where tests are named).
FAILED, INTERRUPTED, NOT_FOUND = 1, 2, 4
CRASHED = 70  # ours: the work itself came to grief

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "argmax": "argmin",
         "setdefault": "get", "sum": "max"}  # fmt: skip
UNSEEN = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)  # words, not numbers


@dataclass(frozen=True)
class Mutant:
    """One fault: the `number`-th change that is possible in a file."""

    file: str
    number: int
    line: int
    name: str  # what it is called in mutants.toml: stays when lines move
    early: (
        bool  # whether its line runs when the file is imported: a constant, an argument's default
    )


# ---------------------------------------------------------------- planting


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in a node's place by mistake."""
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in SWAPPED:
            yield ast.Compare(left, [SWAPPED[type(operator)]()], [right])
        case ast.BinOp(left, operator, right) if type(operator) in SWAPPED:
            yield ast.BinOp(left, SWAPPED[type(operator)](), right)
        case ast.AugAssign(target, operator, value) if type(operator) in SWAPPED:
            yield ast.AugAssign(target, SWAPPED[type(operator)](), value)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(SWAPPED[type(operator)](), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.comprehension(target, source, [_, *_], is_async):
            yield ast.comprehension(target, source, [], is_async)
        case ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.Call(ast.Name(name), arguments, keywords) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name], ast.Load()), arguments, keywords)
        case ast.Call(ast.Attribute(of, name), arguments, keywords) if name in CALLS:
            yield ast.Call(ast.Attribute(of, CALLS[name], ast.Load()), arguments, keywords)


Place = tuple[ast.AST, str, int | None, ast.AST, str]  # parent, field, index, node, function


def places(node: ast.AST, function: str = "") -> Iterator[Place]:
    """Every node that computes something: no annotations, decorators, messages or docstrings."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, UNSEEN):
                continue
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from places(child, f"{function}.{child.name}".lstrip("."))
                continue
            yield node, field, index, child, function
            yield from places(child, function)


def mutants(file: str, source: str, only: str = "") -> list[Mutant]:
    """The mutants of a file, or of one of its functions."""
    found, names = [], []
    every = ((place, new) for place in places(ast.parse(source)) for new in changes(place[3]))
    for number, ((parent, _, _, old, function), new) in enumerate(every):
        if only and function.split(".")[0] != only:
            continue
        before, after = (ast.unparse(part).splitlines()[0] for part in (old, new))
        name = f"{function or 'module'}: {before} -> {after}"
        # Equal changes of one function are told apart by their order.
        again = sum(name == earlier.split(" (#")[0] for earlier in names)
        name = f"{name} (#{again + 1})" if again else name
        names.append(name)
        line = getattr(old, "lineno", 0) or old.target.lineno
        early = not function or isinstance(parent, ast.arguments)
        found.append(Mutant(file, number, line, f"{file}: {name}", early))
    return found


def planted(mutant: Mutant, source: str) -> CodeType:
    """A file's code with the fault in it."""
    tree = ast.parse(source)
    every = ((place, new) for place in places(tree) for new in changes(place[3]))
    (parent, field, index, _, _), new = next(
        found for number, found in enumerate(every) if number == mutant.number
    )
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    for node in ast.walk(new):
        if hasattr(parent, "lineno"):
            ast.copy_location(node, parent)
    return compile(ast.fix_missing_locations(tree), str(ROOT / mutant.file), "exec")


class Planter(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one file as the mutant; leaves no bytecode behind."""

    def __init__(self, file: str, code: CodeType):
        self.module = file.removesuffix(".py").replace("/", ".")
        self.file, self.code = file, code

    def find_spec(self, name, path, target=None):
        if name == self.module:
            return importlib.util.spec_from_file_location(name, ROOT / self.file, loader=self)
        return None

    def exec_module(self, module) -> None:
        exec(self.code, vars(module))


# ---------------------------------------------------------------- witnesses


class Watch:
    """A pytest plugin: the seconds that each test takes, and the lines of the files it runs."""

    def __init__(self, files: Iterable[str]):
        self.short = {str(ROOT / file): file for file in files}
        self.seen: dict[str, dict[str, set[int]]] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_protocol(self, item, nextitem):
        lines = self.seen.setdefault(item.nodeid, {file: set() for file in self.short.values()})

        def step(frame, event, argument):
            lines[self.short[frame.f_code.co_filename]].add(frame.f_lineno)
            return step

        def call(frame, event, argument):
            return step(frame, event, argument) if frame.f_code.co_filename in self.short else None

        threading.settrace(call)
        sys.settrace(call)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.when == "teardown":
            sys.settrace(None)
            threading.settrace(None)

    def pytest_sessionfinish(self):
        found = {
            test: [self.seconds[test], {file: sorted(lines) for file, lines in files.items()}]
            for test, files in self.seen.items()
        }
        Path(os.environ["WATCHED"]).write_text(json.dumps(found))


def tests(arguments: Sequence[str], plugins: Sequence = (), say: bool = False) -> int:
    """pytest's exit code, in this process."""
    import pytest

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        if not say:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        common = [
            "--assert=plain",
            "-x",
            "-q",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:unraisableexception",  # it collects garbage for half a second
            "--tb=no",
        ]
        return pytest.main([*common, f"--basetemp={folder}/t", *arguments], plugins=[*plugins])


def outcome(work, *arguments) -> int:
    """What the work gives; what it raises is shown, though pytest's own output is not."""
    shown = os.dup(2)
    try:
        return work(*arguments)
    except BaseException:
        os.dup2(shown, 2)
        traceback.print_exc()
        return CRASHED


class Forks:
    """Runs jobs in forked processes, so many at a time; each gives its exit code or signal."""

    def __init__(self, at_once: int):
        self.at_once = at_once
        self.running: dict[int, object] = {}

    def run(self, jobs: Iterable[tuple[object, Sequence]]) -> Iterator[tuple[object, int]]:
        """jobs: (what to give back, a function and its arguments)."""
        for key, (work, *arguments) in jobs:
            while len(self.running) >= self.at_once:
                yield self.ended()
            sys.stdout.flush()
            if not (child := os.fork()):
                signal.alarm(SECONDS)
                os._exit(outcome(work, *arguments))
            self.running[child] = key
        while self.running:
            yield self.ended()

    def ended(self) -> tuple[object, int]:
        child, status = os.wait()
        return self.running.pop(child), os.waitstatus_to_exitcode(status)


Reach = Mapping[str, list]  # test -> [seconds, {file: lines}]


def watched(files: Sequence[str], modules: Sequence[str], forks: Forks) -> Reach:
    """What each test of the modules reaches. Ends the program where one fails unchanged."""
    found: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as folder:

        def watch(number: int) -> int:
            os.environ["WATCHED"] = f"{folder}/{number}"
            return tests([modules[number]], [Watch(files)])

        for number, code in forks.run((n, (watch, n)) for n in range(len(modules))):
            if code:
                sys.exit(f"{modules[number]}: fails as it is (pytest's exit code {code}).")
            found |= json.loads(Path(folder, f"{number}").read_text())
    return found


def witnesses(mutant: Mutant, modules: Sequence[str], reach: Reach) -> list[str]:
    """The tests that meet a mutant, the quickest first. All of them where its line may have run as
    the file was imported: in no function, or (a class, a default) during no test.
    """
    mine = [test for test in reach if test.startswith(tuple(modules))]
    meeting = [test for test in mine if mutant.line in reach[test][1][mutant.file]]
    if mutant.early or not meeting:
        meeting = mine
    return sorted(meeting, key=lambda test: reach[test][0])


def met(mutant: Mutant, chosen: Sequence[str]) -> int:
    """What pytest says of a mutant: 0 where no witness sees it. One module of tests after the
    other, the quickest first: most are seen before the slower ones are imported.
    """
    code = planted(mutant, (ROOT / mutant.file).read_text())
    sys.meta_path.insert(0, Planter(mutant.file, code))
    for module in dict.fromkeys(test.split("::")[0] for test in chosen):
        if found := tests([test for test in chosen if test.split("::")[0] == module]):
            return found
    return 0


# ---------------------------------------------------------------- the program


def sample(every: Sequence[Mutant], share: float) -> list[Mutant]:
    """The same share of every file's mutants, chosen by the hash of their names."""
    chosen = []
    for file in dict.fromkeys(mutant.file for mutant in every):
        mine = [mutant for mutant in every if mutant.file == file]
        mine.sort(key=lambda mutant: hashlib.sha256(mutant.name.encode()).digest())
        chosen += mine[: ceil(share * len(mine))]
    return chosen


def load_what_is_not_ours() -> None:
    """So that a forked process has it at once; our own modules are imported by each."""
    import hypothesis  # noqa: F401
    import open_clip  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pytest  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    ours = [name for name in sys.modules if name.split(".")[0] == "fsc_bench"]
    assert not ours, ours
    gc.freeze()  # pytest collects garbage as it ends: not what was loaded here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", help="of mutants.toml; all of them by default")
    parser.add_argument("--all", action="store_true", help="every mutant, not the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    facts = tomllib.loads((ROOT / "tests/mutants.toml").read_text())
    every = [
        mutant
        for entry in facts["code"]
        for mutant in mutants(
            entry["file"], (ROOT / entry["file"]).read_text(), entry.get("function", "")
        )
    ]
    known = {name for group in facts.get("unseen", []) for name in group["mutants"]}
    if stale := known - {mutant.name for mutant in every}:
        print("mutants.toml lists what is no mutant (any more):", *sorted(stale), sep="\n  ")
        return 1
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    started = time.monotonic()
    load_what_is_not_ours()
    chosen = every if asked.all else sample(every, facts["share"])
    if asked.files:
        chosen = [mutant for mutant in chosen if mutant.file in asked.files]
    todo = [mutant for mutant in chosen if mutant.name not in known]
    return report(todo, len(every), facts, Forks(asked.jobs), started)


def report(todo: Sequence[Mutant], total: int, facts: Mapping, forks: Forks, started: float) -> int:
    """Meets them all; prints the survivors. The program's exit code."""
    tests_of = {entry["file"]: entry["tests"] for entry in facts["code"]}
    files = list(dict.fromkeys(mutant.file for mutant in todo))
    modules = list(dict.fromkeys(module for file in files for module in tests_of[file]))
    reach = watched(files, modules, forks)
    print(f"{len(reach)} tests watched in {time.monotonic() - started:.0f} s", flush=True)
    chosen = {mutant: witnesses(mutant, tests_of[mutant.file], reach) for mutant in todo}
    survivors = []
    jobs = ((mutant, (met, mutant, chosen[mutant])) for mutant in todo)
    for mutant, code in forks.run(jobs):
        if code == 0:
            survivors.append((mutant, f"{len(chosen[mutant])} tests pass"))
        elif code not in (FAILED, INTERRUPTED, NOT_FOUND) and code > 0:
            sys.exit(f"{mutant.name}: pytest ended with {code}.")
    for mutant, why in sorted(survivors, key=lambda pair: (pair[0].file, pair[0].line)):
        print(f"SURVIVED {mutant.name}\n    line {mutant.line}: {why}")
    seconds = time.monotonic() - started
    seen = len(todo) - len(survivors)
    print(f"{seen} of {len(todo)} mutants seen, of {total} that there are; {seconds:.0f} s")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
