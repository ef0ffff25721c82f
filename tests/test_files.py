"""Files: written whole or not at all, whoever else writes, and whatever the disk says."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fsc_bench.data.images import read_links, write_link
from fsc_bench.errors import RunError
from fsc_bench.system.files import locked, write_atomically, write_text

WAITING = """
import sys, time
from pathlib import Path
from fsc_bench.system.files import write_atomically

def write(partial):
    partial.write_text("half")
    print(partial.name, flush=True)
    time.sleep(60)

write_atomically(Path(sys.argv[1]), write)
"""

FULL = """
import resource, signal, sys
from pathlib import Path
from fsc_bench.errors import RunError
from fsc_bench.system.files import write_text

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(Path(sys.argv[1]), "x" * 5000)
except RunError as error:
    print(error)
"""


def test_writers_at_once_use_names_of_their_own(tmp_path):
    names = []

    def write(partial):
        names.append(partial.name)
        partial.write_text(partial.name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_atomically(tmp_path / "table", write), range(20)))

    assert len(set(names)) == 20
    assert (tmp_path / "table").read_text() in names
    assert os.listdir(tmp_path) == ["table"]


def test_what_a_killed_writer_left_goes_with_the_next_and_a_living_writers_stays(tmp_path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path / "table")], stdout=subprocess.PIPE, text=True
    )
    left = writer.stdout.readline().strip()

    write_text(tmp_path / "table", "one")
    assert sorted(os.listdir(tmp_path)) == [left, "table"]
    writer.kill()
    writer.wait()
    writer.stdout.close()
    write_text(tmp_path / "table", "two")

    assert os.listdir(tmp_path) == ["table"]
    assert (tmp_path / "table").read_text() == "two"


def test_another_machines_half_written_file_is_left_for_a_day(tmp_path):
    young, old = (tmp_path / f".table.elsewhere-{n}-0123abcd.part" for n in (1, 2))
    young.write_text("half")
    old.write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)  # 25 hours

    write_text(tmp_path / "table", "one")

    assert sorted(os.listdir(tmp_path)) == [young.name, "table"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    (tmp_path / "table").write_text("old")

    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "table")], capture_output=True, text=True
    )

    assert done.stdout == (
        f"{tmp_path / 'table'}: cannot be written: the disk is full. What was there before is "
        "untouched.\n"
    )
    assert done.stderr == ""
    assert os.listdir(tmp_path) == ["table"]
    assert (tmp_path / "table").read_text() == "old"


def test_a_table_that_another_holds_is_said_after_a_while(tmp_path):
    line = re.escape("table: another process has held it for 0 s")
    with (
        locked(tmp_path / "table"),
        pytest.raises(RunError, match=line),
        locked(tmp_path / "table", seconds=0.05),
    ):
        raise AssertionError("two hold it")


def test_links_that_are_made_at_once_are_all_kept(tmp_path):
    for number in range(12):
        (tmp_path / f"raw{number}").mkdir()

    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda n: write_link(tmp_path / "data", f"mine{n}", tmp_path / f"raw{n}"), range(12)
            )
        )

    assert len(read_links(tmp_path / "data")) == 12
    assert json.loads((tmp_path / "data" / "links.json").read_text()) == {
        f"mine{number}": str(tmp_path / f"raw{number}") for number in range(12)
    }
