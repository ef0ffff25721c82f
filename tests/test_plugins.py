"""Plugins: packages that add models, readers and tasks, built as wheels, installed and found."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FAMILY = '''
"""A family of another package: everything is one direction."""
def load(spec, device, precision):
    raise SystemExit("not needed here")
'''
READER = '"""Lines of a text file."""\ndef read(task, raw):\n    yield from ()\n'
TASK = """
title = "Theirs"
suite = "theirs"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
only = 3
[data]
reader = "lines"
"""


def install(folder: Path, name: str, points: str, files: dict[str, str]) -> None:
    """Builds a wheel by hand and unpacks it as an installer does."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | meta).items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "")
    with zipfile.ZipFile(wheel) as archive:  # what an installer does with a pure wheel
        archive.extractall(folder / "site")


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fsc_bench", *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'site'}"},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A good package, and one in which everything is broken."""
    folder = tmp_path_factory.mktemp("shelf")
    install(
        folder, "good", "[fsc_bench.models]\nones = good.family\n[fsc_bench.readers]\nlines = "
        "good.reader\n[fsc_bench.tasks]\ntheirs = good.tasks\n",
        {"good/__init__.py": "", "good/family.py": FAMILY, "good/reader.py": READER,
         "good/tasks/__init__.py": "", "good/tasks/theirs.toml": TASK},
    )  # fmt: skip
    install(
        folder, "broken", "[fsc_bench.models]\npy = broken.none\nsad = broken.none\n"
        "flat = broken:NUMBER\n[fsc_bench.readers]\nvoc = broken.none\nhollow = broken\n"
        "[fsc_bench.tasks]\ngone = broken.none\n",
        {"broken/__init__.py": "NUMBER = 3\n"},
    )  # fmt: skip
    return folder


def test_a_package_adds_a_task_with_its_suite(shelf):
    done = ask(shelf, "tasks", "theirs")

    assert done.returncode == 0 and "Theirs" in done.stdout
    assert "package broken, entry point fsc_bench.tasks: gone: cannot be imported" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_package_adds_a_reader_and_a_taken_name_is_told(shelf):
    done = ask(shelf, "readers")

    assert done.returncode == 0 and "Lines of a text file." in done.stdout
    assert "package broken, entry point fsc_bench.readers: voc: left out" in done.stderr
    hollow = ask(shelf, "readers", "hollow")
    assert hollow.returncode == 2 and "without `read(task, raw)`" in hollow.stderr


def test_a_package_adds_a_family_and_a_broken_one_is_one_line(shelf):
    done = ask(shelf, "models")

    assert done.returncode == 0 and "everything is one direction" in done.stdout
    assert "fsc_bench.models: py: left out: the name 'py' is one of fsc-bench's own" in done.stderr
    code = (
        "from fsc_bench.models import check_named\nfrom fsc_bench.errors import UsageError\n"
        "check_named('ones:x')\n"
        "for name in ('sad:x', 'flat:x'):\n"
        "    try:\n        check_named(name)\n    except UsageError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{shelf / 'site'}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    sad, flat = done.stdout.splitlines()
    assert "package broken" in sad and "ModuleNotFoundError" in sad
    assert "a int without `load(spec, device, precision)`" in flat
