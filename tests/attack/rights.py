"""Folders of somebody else, read-only ones and full ones: each command says one line, or works.

    python tests/attack/rights.py [--lines]

Eight commands meet six states of a folder that they read or write. Root may do everything: its
commands are started without that right (setpriv), and skipped, with a reason, where it cannot be
given away. Folders of another user can be made by root alone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from attack.tally import Tally, Wrong, counted, finish  # noqa: E402

from fsc_bench.errors import DataError  # noqa: E402

NOBODY = 65_534
TASK = """
title = "Rights"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
within = "samples"
[subsets]
replace_obj = 4
[data]
reader = "sugarcrepe"
sources = [{ images = "coco/val2017" }]
"""
# What is done to a folder (mode), or to its owner.
STATES = {
    "read-only": (0o555, False),
    "no entry": (0o000, False),
    "no listing": (0o311, False),
    "another's, closed": (0o700, True),
    "another's, read-only": (0o755, True),
    "a file": (0o644, False),
}
RAW, IMAGES, DATA, OUT = "raw", "val2017", "data", "out"


def world(folder: Path) -> None:
    """A small benchmark with its pictures, linked."""
    from PIL import Image

    for name in (RAW, IMAGES, DATA, OUT):
        (folder / name).mkdir()
    rows = {}
    for number in range(4):
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(folder / IMAGES / f"{number:012d}.jpg")
        rows[str(number)] = {
            "filename": f"{number:012d}.jpg",
            "caption": f"a picture of {number}",
            "negative_caption": f"no picture of {number}",
        }
    (folder / RAW / "replace_obj.json").write_text(json.dumps(rows))
    (folder / "rights.toml").write_text(TASK)
    links = {"rights": str(folder / RAW), "coco/val2017": str(folder / IMAGES)}
    (folder / DATA / "links.json").write_text(json.dumps(links))


def commands(folder: Path) -> dict[str, tuple[list[str], str]]:
    """What is called, and the folder whose state is changed."""
    task, where = str(folder / "rights.toml"), ["--data", str(folder / DATA)]
    run = ["run", "-m", "control:chance", "-t", task, "-o", str(folder / OUT), *where]
    return {
        "run, results": (run, OUT),
        "run, data": (run, DATA),
        "run, raw": (run, RAW),
        "run, pictures": (run, IMAGES),
        "prepare": (["data", "prepare", task, *where], DATA),
        "link": (["data", "link", task, str(folder / RAW), *where], DATA),
        "link of raw": (["data", "link", task, str(folder / RAW), *where], RAW),
        "get and status": (["data", "status", task, *where], DATA),
    }


def change(place: Path, mode: int, foreign: bool, is_file: bool) -> None:
    if is_file:
        shutil.rmtree(place)
        place.write_text("a file")
    os.chmod(place, mode)
    if foreign:
        os.chown(place, NOBODY, NOBODY)


def call(folder: Path, words: list[str]) -> None:
    """Runs the command. Raises DataError with its line where it ends with one."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    done = subprocess.run(
        [*without_rights(), sys.executable, "-m", "fsc_bench", *words],
        capture_output=True, text=True, cwd=folder, timeout=120,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if "Traceback" in done.stderr or done.returncode < 0:
        raise Wrong(f"exit {done.returncode}: {' | '.join(done.stderr.splitlines()[-3:])}")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("fsc-bench: ")]
        if not lines:
            raise Wrong(f"exit {done.returncode} without a line: {done.stderr[-300:]!r}")
        raise DataError(lines[-1])


def attack(names: set[str] | None = None) -> Tally | None:
    """None where root cannot give its rights away."""
    tally = Tally("rights")
    with tempfile.TemporaryDirectory() as scratch:
        if os.geteuid() == 0 and not shutil.which("setpriv"):
            return None
        for state, (mode, foreign) in STATES.items():
            if foreign and os.geteuid() != 0:
                continue
            for name in commands(Path(scratch)):
                if names is not None and f"{name}, {state}" not in names:
                    continue
                folder = Path(scratch) / f"{name} {state}".replace(" ", "-").replace(",", "")
                folder.mkdir()
                world(folder)
                words, target = commands(folder)[name]
                change(folder / target, mode, foreign, state == "a file")
                tally.attempt(f"{name}, {state}", partial(call, folder, words), seconds=100)
                subprocess.run(["chmod", "-R", "u+rwx", str(folder)], check=False)
    return tally


def without_rights() -> list[str]:
    """What starts a command that may do no more than the owner of its files, even as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


if __name__ == "__main__":
    chosen = counted(48)
    found = attack()
    if found is None:
        sys.exit("skipped: root cannot give its rights away here: there is no setpriv")
    finish(found, chosen)
