"""The store: what was acknowledged is there whatever happened; what is damaged is not believed."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from fsc_bench.embed.store import (
    RECORD,
    Store,
    StoreFull,
    checksums,
)
from fsc_bench.embed.upkeep import describe, prune, verify


def keys(first: int, last: int) -> list[bytes]:
    return [number.to_bytes(8, "little") + bytes(24) for number in range(first, last)]


def vectors(first: int, last: int, dimension: int = 16) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(last, dimension))
    return rows[first:].astype(np.float32)


def filled(folder: Path, first: int = 0, last: int = 100, kind: str = "text") -> Store:
    store = Store(folder)
    for begin in range(first, last, 10):
        end = min(begin + 10, last)
        store.put(kind, keys(begin, end), vectors(0, last)[begin:end])
    return store


def test_what_was_put_is_got_back_bit_for_bit_in_any_order(tmp_path):
    filled(tmp_path).close()
    store = Store(tmp_path)
    order = np.random.default_rng(1).permutation(100)

    assert store.missing("text", keys(0, 103)) == keys(100, 103)
    assert store.missing("image", keys(0, 2)) == keys(0, 2)
    got = store.get("text", [keys(0, 100)[place] for place in order])
    assert np.array_equal(got, vectors(0, 100)[order])
    with pytest.raises(KeyError):
        store.get("text", keys(99, 101))


def test_a_writer_reads_what_it_wrote_and_what_others_wrote_since(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    one.put("text", keys(0, 5), vectors(0, 5))
    other.put("text", keys(5, 9), vectors(0, 9)[5:])

    assert np.array_equal(one.get("text", keys(0, 9)), vectors(0, 9))
    assert np.array_equal(other.get("text", keys(0, 9)), vectors(0, 9))


def test_keys_that_share_their_first_bytes_are_told_apart(tmp_path):
    alike = [bytes(8) + number.to_bytes(24, "big") for number in range(40)]
    store = Store(tmp_path)
    store.put("text", alike[:30], vectors(0, 30))

    assert store.missing("text", alike) == alike[30:]
    assert np.array_equal(store.get("text", alike[29::-1]), vectors(0, 30)[::-1])


@pytest.mark.parametrize("dimension", [1, 7, 16])
def test_a_checksum_notices_any_changed_word_and_rows_of_zeros(dimension):
    rows = vectors(0, 20, dimension)
    right = checksums(rows)
    for place in range(dimension):
        changed = rows.copy()
        changed[:, place] = np.nextafter(changed[:, place], 2)
        assert (checksums(changed) != right).all()
    assert (checksums(np.zeros((3, dimension))) != 0).all()
    assert (checksums(rows[:, ::-1]) != right).all() or dimension == 1


@pytest.mark.parametrize("cut", [1, 20, 64, 65])
@pytest.mark.parametrize("ending", ["vec", "idx"])
def test_a_torn_end_is_ignored_and_said(tmp_path, ending, cut):
    filled(tmp_path).close()
    (file,) = tmp_path.glob(f"*.{ending}")
    size = {"vec": 64, "idx": RECORD.itemsize}[ending]
    os.truncate(file, file.stat().st_size - cut)
    store = Store(tmp_path)
    whole = 100 - -(-cut // size)

    assert store.missing("text", keys(0, 100)) == keys(whole, 100)
    assert np.array_equal(store.get("text", keys(0, whole)), vectors(0, 100)[:whole])
    assert len(store.damage) == 1
    assert "unfinished" in store.damage[0]


def test_an_end_of_zeros_after_a_power_cut_is_ignored(tmp_path):
    filled(tmp_path).close()
    (vec,), (idx,) = tmp_path.glob("*.vec"), tmp_path.glob("*.idx")
    with vec.open("ab") as file:
        file.write(bytes(64 * 3))
    with idx.open("ab") as file:
        file.write(bytes(RECORD.itemsize * 3))
    store = Store(tmp_path)

    assert store.missing("text", keys(0, 101)) == keys(100, 101)
    assert "unfinished" in store.damage[0]


@pytest.mark.parametrize("row", [0, 20, 50, 95], ids=lambda row: f"row {row} of 100")
def test_a_changed_byte_anywhere_is_noticed_and_the_segment_not_believed(tmp_path, row):
    filled(tmp_path).close()
    (vec,) = tmp_path.glob("*.vec")
    with vec.open("r+b") as file:
        file.seek(64 * row + 5)
        byte = file.read(1)
        file.seek(64 * row + 5)
        file.write(bytes([byte[0] ^ 16]))
    store = Store(tmp_path)

    assert store.missing("text", keys(0, 100)) == keys(0, 100)
    assert "damaged" in store.damage[0]
    store.put("text", keys(0, 100), vectors(0, 100))
    assert np.array_equal(store.get("text", keys(0, 100)), vectors(0, 100))
    assert store.missing("text", keys(0, 100)) == []


def test_another_segment_answers_for_a_damaged_one(tmp_path):
    filled(tmp_path).close()
    filled(tmp_path).close()
    vec = sorted(tmp_path.glob("*.vec"))[0]
    with vec.open("r+b") as file:
        file.seek(700)
        file.write(b"rubbish")
    store = Store(tmp_path)

    assert store.missing("text", keys(0, 100)) == []
    assert np.array_equal(store.get("text", keys(0, 100)), vectors(0, 100))


def test_a_full_disk_is_one_line_and_the_store_stays_readable(tmp_path):
    code = f"""
        import resource, sys
        from pathlib import Path
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
        from test_store import keys, vectors
        from fsc_bench.embed.store import Store, StoreFull
        store = Store(Path({str(tmp_path)!r}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        done = 0
        try:
            for begin in range(0, 100, 10):
                store.put("text", keys(begin, begin + 10), vectors(0, 100)[begin:begin + 10])
                done = begin + 10
        except StoreFull as error:
            print(done, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    count, _, line = done.stdout.partition(" ")
    store = Store(tmp_path)

    assert int(count) == 30
    assert "The 30 vectors before are safe" in line
    assert np.array_equal(store.get("text", keys(0, 30)), vectors(0, 100)[:30])
    assert store.missing("text", keys(0, 100)) == keys(30, 100)


def test_after_a_failed_write_the_next_one_opens_a_new_segment(tmp_path, monkeypatch):
    store = filled(tmp_path, 0, 20)
    write = os.write

    def full(file, data):
        if len(data) > 5:
            write(file, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreFull, match="No space left"):
        patch.setattr(os, "write", full)
        store.put("text", keys(20, 30), vectors(0, 30)[20:])
    store.put("text", keys(20, 30), vectors(0, 30)[20:])

    assert len(list(tmp_path.glob("*.vec"))) == 2
    assert np.array_equal(Store(tmp_path).get("text", keys(0, 30)), vectors(0, 30))


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_store import keys, vectors
from fsc_bench.embed.store import Store
store = Store(Path({folder!r}))
rows = vectors(0, 20_000)
for begin in range({first}, 20_000, 10):
    store.put("image", keys(begin, begin + 10), rows[begin:begin + 10])
    print(begin + 10, flush=True)
"""


def test_nothing_acknowledged_is_lost_to_kill_9_with_two_writers(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    rows = vectors(0, 20_000)
    for round_ in range(3):
        writers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WRITER.format(paths=paths, folder=str(tmp_path), first=first),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for first in (0, 10_000)
        ]
        for writer in writers:
            writer.stdout.readline()
        time.sleep(0.02 * round_)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        said = [writer.communicate()[0].split("\n")[-2:-1] for writer in writers]
        store = Store(tmp_path)
        for first, last in zip((0, 10_000), said, strict=True):
            if last:
                end = int(last[0])
                assert np.array_equal(store.get("image", keys(first, end)), rows[first:end])


def test_prune_keeps_every_good_vector_once_and_nothing_else(tmp_path):
    filled(tmp_path, 0, 60).close()
    filled(tmp_path, 0, 100).close()
    filled(tmp_path, 0, 20, "image").close()
    torn = min(tmp_path.glob("text*.vec"), key=lambda file: file.stat().st_size)  # the first's
    os.truncate(torn, torn.stat().st_size - 7)

    freed, left = prune(tmp_path)

    assert freed > 0
    assert left == []
    assert len(list(tmp_path.glob("text-*.vec"))) == 1
    store = Store(tmp_path)
    assert np.array_equal(store.get("text", keys(0, 100)), vectors(0, 100))
    assert np.array_equal(store.get("image", keys(0, 20)), vectors(0, 20))
    assert store.damage == []
    assert describe(tmp_path).texts == 100
    assert verify(tmp_path) == (120, [])
    assert prune(tmp_path) == (0, [])


def test_prune_removes_a_damaged_segment_and_leaves_a_living_writer_alone(tmp_path):
    filled(tmp_path, 0, 100).close()
    (vec,) = tmp_path.glob("*.vec")
    with vec.open("r+b") as file:
        file.seek(100)
        file.write(b"rubbish")
    living = filled(tmp_path, 200, 210)
    assert verify(tmp_path)[0] == 10
    assert len(verify(tmp_path)[1]) == 1

    _, left = prune(tmp_path)

    assert not vec.exists()
    assert "a run is writing it" in left[0]
    living.put("text", keys(210, 220), vectors(0, 220)[210:])
    assert np.array_equal(Store(tmp_path).get("text", keys(200, 220)), vectors(0, 220)[200:])


def test_prune_says_so_where_locks_cannot_be_had(tmp_path, monkeypatch):
    filled(tmp_path).close()

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    os.truncate(next(tmp_path.glob("*.vec")), 700)

    assert len(prune(tmp_path)[1]) == 1
    assert len(list(tmp_path.glob("*.vec"))) == 1


def test_a_hundred_thousand_are_found_and_read_fast_and_in_little_memory(tmp_path):
    n = 100_000
    names = np.random.default_rng(0).integers(0, 2**63, (n, 4)).astype("<u8")
    rows = np.random.default_rng(1).normal(size=(n, 64)).astype(np.float32)
    store = Store(tmp_path)
    store.put("text", names, rows)
    store.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    store = Store(tmp_path)
    assert store.has("text", names).all()
    assert np.array_equal(store.get("text", names[::-1]), rows[::-1])
    seconds = time.perf_counter() - begun

    assert n / seconds > 50_000  # measured 500,000 and more; a busy machine has its slack
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
