"""Imports point one way, and light commands stay light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fsc_bench"

# Each layer may import itself and what stands before it. CONTRIBUTING.md draws the same arrows.
LAYERS = [
    {"errors"},
    {"system"},
    {
        "blind",
        "clip_benchmark",
        "evidence",
        "model",
        "task",
        "task_file",
        "records",
        "result_file",
        "results",
        "samples",
        "suite",
    },
    {"models"},
    {"data"},
    {"embed", "train"},
    {"score"},
    {"report", "run"},
    {"demo"},
    {"library"},
    {"study"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """Top-level modules of ours that a file names anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "fsc_bench":
                names = [f"fsc_bench.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fsc_bench" and len(parts) > 1:
                found.add(parts[1])
    return found - {"__version__"}


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if owner(path) not in ("__init__", "__main__") and "tasks" not in path.parts
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_points_back(path):
    own = owner(path)

    assert own in LEVEL, f"{own} has no place in the layers; put it where it belongs"
    for name in imports(path):
        assert LEVEL[name] <= LEVEL[own], f"{own} imports {name}, which stands above it"


def test_the_scoring_kernels_import_nothing_of_ours():
    for name in ("matching", "classification", "retrieval", "statistics"):
        assert not imports(PACKAGE / "score" / f"{name}.py")


def test_reports_stand_on_the_nouns_and_the_statistics_alone():
    for path in (PACKAGE / "report").glob("*.py"):
        assert imports(path) <= {
            "errors",
            "system",
            "blind",
            "task",
            "records",
            "results",
            "samples",
            "suite",
            "report",
            "score",
        }
        names = {
            line.split()[1] for line in path.read_text().splitlines() if "fsc_bench.score" in line
        }
        assert names <= {"fsc_bench.score.statistics"}


def test_training_and_scoring_meet_only_at_a_checkpoint():
    for path in SOURCES:
        if owner(path) == "train":
            assert not imports(path) & {"embed", "score", "run"}
        if owner(path) in ("embed", "score", "run"):
            assert "train" not in imports(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["tasks"],
        ["tasks", "sugarcrepe"],
        ["tasks", "blind", "sugarcrepe", "--data", "nowhere"],
        ["leaderboard", "nowhere"],
        ["data", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_no_torch(arguments, tmp_path):
    code = (
        "import sys\n"
        "from fsc_bench.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
