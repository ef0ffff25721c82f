"""Getting data from a server that breaks off, lies and changes its mind; status and verify."""

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from draw_images import draw

from fsc_bench.data import download, sources
from fsc_bench.data.get import get, status, verify
from fsc_bench.data.images import Images, raw_folder, read_links, write_link
from fsc_bench.data.prepare import prepare
from fsc_bench.data.sources import choose, named, read_source
from fsc_bench.errors import DataError, UsageError
from fsc_bench.records import ImageRef
from fsc_bench.task import catalogue, read_task

ROOT = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 12_000  # 3 MB
SHA = hashlib.sha256(CONTENT).hexdigest()

TASK = """
title = "Fetched"
suite = "mine"
group = "compositionality"
kind = "matching"
version = 1
headline = ["text"]
chance = 50.0
[subsets]
a = 1
[data]
reader = "{reader}"
access = "{access}"
sources = [{sources}]
instructions = '''
{instructions}
'''
"""


class Files(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, each (content, headers, behaviour of the n-th request)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.partition("?")[0]
        server = self.server
        with server.lock:
            server.requests.append((name, self.headers.get("Range")))
            asked = sum(1 for path, _ in server.requests if path == name)
        if name not in server.files:
            return self.reply(404, b"gone", {})
        content, headers, behaviour = server.files[name]
        how = behaviour(asked) if behaviour else ""
        if how == "503":
            return self.reply(503, b"busy", {"Retry-After": "0"})
        if how == "403":
            return self.reply(403, b"no", {})
        start, code = 0, 200
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        current = (headers.get("ETag"), headers.get("Last-Modified"))
        same = condition is None or condition in current or how == "any range"
        if wanted and how != "no ranges" and same:
            start, code = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers = {
                **headers,
                "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
            }
        body = content[start:]
        cut = {"break": len(body) // 3, "at once": 0}.get(how, len(body))
        length = "Content-Length" not in headers or headers["Content-Length"] is not None
        self.send_response(code)
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for place in range(0, cut, 1 << 14):
            piece = body[place : min(place + (1 << 14), cut)]
            try:
                self.wfile.write(piece)
            except OSError:
                return
            with server.lock:
                server.bytes += len(piece)
            if how == "slow":
                time.sleep(0.02)

    def reply(self, code, body, headers):
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.files, server.requests, server.bytes = {}, [], 0
        server.lock = threading.Lock()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    # `--data` is printed in every command unless it is the default.
    monkeypatch.delenv("FSC_BENCH_DATA", raising=False)


def serve(server, name="/a.bin", content=CONTENT, behaviour=None, **headers):
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    server.files[name] = (content, {"ETag": '"1"', **headers}, behaviour)
    return f"{server.url}{name}"


def task_of(tmp_path, *tables, access="open", instructions="", reader="sugarcrepe", name="fetched"):
    path = tmp_path / f"{name}.toml"
    rows = ", ".join("{" + table + "}" for table in tables)
    path.write_text(
        TASK.format(sources=rows, access=access, instructions=instructions, reader=reader)
    )
    return read_task(path)


def only(outcomes):
    (outcome,) = outcomes
    return outcome


def visible(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


# ---------------------------------------------------------------- one file


@pytest.mark.parametrize("pin", ["", f', sha256 = "{SHA}"'], ids=["unpinned", "pinned"])
def test_fetches_a_file_and_marks_it_finished(server, tmp_path, pin):
    task = task_of(tmp_path, f'url = "{serve(server)}"{pin}')
    seen = []

    outcome = only(get([task], tmp_path / "d", progress=lambda *facts: seen.append(facts)))

    assert (outcome.state, outcome.message, outcome.fetched) == ("ready", "", len(CONTENT))
    folder = tmp_path / "d" / "raw" / "fetched"
    assert (folder / "a.bin").read_bytes() == CONTENT
    marker = json.loads((folder / ".a.bin.done.json").read_text())
    assert marker["sha256"] == SHA and marker["bytes"] == len(CONTENT)
    assert marker["url"].endswith("/a.bin") and marker["time"].endswith("+00:00")
    assert visible(folder) == ["a.bin"]
    assert seen[-1] == ("fetched/a.bin", len(CONTENT), len(CONTENT))


def test_what_is_finished_is_not_asked_for_again(server, tmp_path):
    task = task_of(tmp_path, f'url = "{serve(server)}"')
    get([task], tmp_path / "d")
    before = list(server.requests)

    outcome = only(get([task], tmp_path / "d"))

    assert (outcome.state, outcome.fetched) == ("ready", 0)
    assert server.requests == before


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_broken_connection_is_continued_not_started_over(server, tmp_path, validator):
    headers = {"ETag": None, validator: {"ETag": '"1"'}.get(validator, "Mon, 01 Jan 2024 00:00:00")}
    url = serve(server, behaviour=lambda asked: "break" if asked <= 4 else "", **headers)
    task = task_of(tmp_path, f'url = "{url}"')

    assert only(get([task], tmp_path / "d")).state == "ready"
    assert (tmp_path / "d/raw/fetched/a.bin").read_bytes() == CONTENT
    assert server.bytes == len(CONTENT)  # no byte twice
    assert [bool(wanted) for _, wanted in server.requests] == [False, True, True, True, True]


def test_a_busy_server_is_asked_again(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "503" if asked <= 3 else "")

    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).state == "ready"
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_is_given_up(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "503")

    outcome = only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d"))

    assert outcome.state == "missing" and not outcome.ok
    assert "answers 503" in outcome.message
    assert len(server.requests) == download.RETRIES + 1


def test_without_a_network_each_server_is_tried_once_and_soon_given_up(tmp_path, monkeypatch):
    tried = []

    def nowhere(url, headers, timeout, watch):
        tried.append(url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(download, "open_url", nowhere)
    task = task_of(tmp_path, *(f'url = "http://nowhere/{number}.json"' for number in range(60)))

    outcome = only(get([task], tmp_path / "d"))

    assert outcome.message.count("cannot be reached (Name or service not known)") == 3
    assert "fetched: and 57 more." in outcome.message.splitlines()
    assert len(tried) <= 4 * (download.RETRIES_UNREACHABLE + 1)  # four at a time


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "break" if asked == 1 else "at once")

    outcome = only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d"))

    assert outcome.state == "partial"
    assert "breaks off after 1,024,000 of 3,072,000 bytes. 1.0 MB are kept" in outcome.message


def test_a_server_without_ranges_starts_over_and_still_arrives(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "break" if asked == 1 else "no ranges")

    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).state == "ready"
    assert (tmp_path / "d/raw/fetched/a.bin").read_bytes() == CONTENT


def test_a_server_that_never_says_how_long_the_file_is(server, tmp_path):
    url = serve(server, Content_Length=None)

    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).state == "ready"
    assert (tmp_path / "d/raw/fetched/a.bin").read_bytes() == CONTENT


def test_without_a_length_the_task_file_says_when_it_is_whole(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "break" if asked <= 2 else "", Content_Length=None)
    task = task_of(tmp_path, f'url = "{url}", bytes = {len(CONTENT)}')

    assert only(get([task], tmp_path / "d")).state == "ready"
    assert (tmp_path / "d/raw/fetched/a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("honest", [True, False], ids=["honours If-Range", "ignores If-Range"])
@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_a_file_that_changes_between_two_tries_is_never_mixed(server, tmp_path, honest, validator):
    new = CONTENT[::-1]

    def changes(asked):
        later = (lambda asked: "") if honest else (lambda asked: "any range")
        server.files["/a.bin"] = (new, {validator: '"2"'}, later)
        return "break"

    url = serve(server, behaviour=changes, **{"ETag": None, validator: '"1"'})

    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).state == "ready"
    assert (tmp_path / "d/raw/fetched/a.bin").read_bytes() == new


def test_what_cannot_be_told_from_another_version_is_started_over(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "break" if asked == 1 else "", ETag=None)
    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).state == "ready"
    assert [wanted for _, wanted in server.requests] == [None, None]

    # A pinned file may be continued all the same: its checksum tells.
    url = serve(server, "/b.bin", behaviour=lambda a: "break" if a == 1 else "", ETag=None)
    task = task_of(tmp_path, f'url = "{url}", sha256 = "{SHA}"')
    assert only(get([task], tmp_path / "e")).state == "ready"
    assert server.requests[-1] == ("/b.bin", "bytes=1024000-")


def test_a_part_of_another_version_of_a_pinned_file_is_started_over(server, tmp_path):
    url = serve(server, ETag=None)
    task = task_of(tmp_path, f'url = "{url}", sha256 = "{SHA}"')
    folder = tmp_path / "d/raw/fetched"
    folder.mkdir(parents=True)
    (folder / "a.bin.part").write_bytes(b"x" * 1000)
    (folder / ".a.bin.part.json").write_text(json.dumps({"url": url}))

    assert only(get([task], tmp_path / "d")).state == "ready"
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


def test_a_full_disk_is_one_line_and_keeps_the_part(server, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    task = task_of(tmp_path, f'url = "{serve(server)}"')
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        outcome = only(get([task], tmp_path / "d"))

    assert "raw/fetched" in outcome.message
    assert "the disk is full" in outcome.message.splitlines()[0]
    assert not (tmp_path / "d/raw/fetched/a.bin").exists()
    assert only(get([task], tmp_path / "d")).ok


def test_a_pinned_file_that_was_replaced_is_refused_and_not_kept(server, tmp_path):
    task = task_of(tmp_path, f'url = "{serve(server, content=b"other")}", sha256 = "{SHA}"')

    outcome = only(get([task], tmp_path / "d"))

    assert not outcome.ok
    assert f"not the pinned {SHA}" in outcome.message
    assert visible(tmp_path / "d") == []


def test_a_web_page_in_place_of_the_file_is_refused(server, tmp_path):
    page = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"
    task = task_of(tmp_path, f'url = "{serve(server, content=page)}"')

    outcome = only(get([task], tmp_path / "d"))

    assert "sent a web page instead of a.bin" in outcome.message
    assert visible(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("{server}/nothing.bin", "answers 404 Not Found"),
        ("{server}/forbidden.bin", "answers 403 Forbidden"),
        ("http://127.0.0.1:9/a.bin", "cannot be reached"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line_with_the_command_to_go_on(server, tmp_path, url, why):
    serve(server, "/forbidden.bin", behaviour=lambda asked: "403")
    good = serve(server)
    task = task_of(
        tmp_path, f'url = "{url.format(server=server.url)}", to = "bad.bin"', f'url = "{good}"'
    )

    outcome = only(get([task], tmp_path / "d"))

    assert outcome.state == "partial"  # the other file has come all the same
    assert why in outcome.message.splitlines()[0]
    assert f"`fsc-bench data get fetched --data {tmp_path / 'd'}`" in outcome.message


def test_disk_space_is_checked_before_a_byte_is_written(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 101_000_000))
    task = task_of(tmp_path, f'url = "{serve(server)}"')

    outcome = only(get([task], tmp_path / "d"))

    assert "fetched: 3.1 MB more are needed in" in outcome.message
    assert "101.0 MB are free" in outcome.message
    assert visible(tmp_path / "d" / "raw" / "fetched") == []

    announced = task_of(tmp_path, f'url = "{server.url}/a.bin", bytes = 40_000_000_000')
    before = len(server.requests)
    with pytest.raises(DataError, match=r"40.0 GB more are needed in"):
        get([announced], tmp_path / "d")
    assert len(server.requests) == before


def test_downloads_side_by_side_do_not_count_the_same_space_twice(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 104_000_000))
    urls = [serve(server, f"/{name}.bin", behaviour=lambda asked: "slow") for name in "ab"]

    outcome = only(get([task_of(tmp_path, *(f'url = "{url}"' for url in urls))], tmp_path / "d"))

    assert outcome.state == "partial"
    assert outcome.message.count("more are needed in") == 1


def test_offline_asks_nobody_and_says_what_is_missing(server, tmp_path):
    task = task_of(tmp_path, f'url = "{serve(server)}"')

    outcome = only(get([task], tmp_path / "d", offline=True))

    assert server.requests == []
    assert outcome.state == "missing"
    assert len(outcome.message.splitlines()) == 1
    assert f"data link {tmp_path}/fetched.toml PATH" in outcome.message


# ---------------------------------------------------------------- killed, and side by side

CHILD = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from fsc_bench.data.get import get
from fsc_bench.task import read_task
(outcome,) = get([read_task(Path(sys.argv[1]))], Path(sys.argv[2]))
print(outcome.state, outcome.fetched)
"""


def child(task, data):
    command = [sys.executable, "-c", CHILD, str(task.path), str(data)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_only_the_part_stays_and_the_next_run_continues(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "slow" if asked == 1 else "")
    task, data = task_of(tmp_path, f'url = "{url}"'), tmp_path / "d"
    part = data / "raw" / "fetched" / "a.bin.part"
    with child(task, data) as process:
        while not (part.exists() and part.stat().st_size > 500_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = part.stat().st_size

    assert visible(data) == ["raw/fetched/a.bin.part"]
    assert [row.state for row in status([task], data)] == ["partial"]
    assert get([task], data)[0].ok
    assert server.requests[-1] == ("/a.bin", f"bytes={kept}-")
    assert (part.parent / "a.bin").read_bytes() == CONTENT
    assert visible(data) == ["raw/fetched/a.bin"]


def test_two_processes_fetch_one_file_once(server, tmp_path):
    url = serve(server, behaviour=lambda asked: "slow")
    task, data = task_of(tmp_path, f'url = "{url}", sha256 = "{SHA}"'), tmp_path / "d"
    first, second = child(task, data), child(task, data)

    said = {first.communicate()[0].strip(), second.communicate()[0].strip()}

    assert {line.split()[0] for line in said} == {"ready"}
    assert (data / "raw/fetched/a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_ctrl_c_stops_every_download_and_keeps_what_came(server, tmp_path):
    urls = [serve(server, f"/{name}.bin", behaviour=lambda asked: "slow") for name in "abcdef"]
    task, data = task_of(tmp_path, *(f'url = "{url}"' for url in urls)), tmp_path / "d"
    with child(task, data) as process:
        while server.bytes < 1_000_000:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(10)

    assert process.returncode != 0
    assert server.bytes < 6_000_000  # of 18 MB
    assert len(visible(data)) == 4  # as many as come at once
    assert all(name.endswith(".part") for name in visible(data))


def test_a_whole_part_is_put_in_place_without_asking_again(server, tmp_path):
    url = serve(server)
    folder = tmp_path / "d/raw/fetched"
    folder.mkdir(parents=True)
    (folder / "a.bin.part").write_bytes(CONTENT)
    known = {"url": url, "etag": '"1"', "total": len(CONTENT)}
    (folder / ".a.bin.part.json").write_text(json.dumps(known))

    assert only(get([task_of(tmp_path, f'url = "{url}"')], tmp_path / "d")).ok
    assert server.requests == []
    assert visible(folder) == ["a.bin"]


def test_the_next_try_fetches_only_what_failed(server, tmp_path):
    urls = [serve(server, "/a.bin"), f"{server.url}/b.bin"]
    task, data = task_of(tmp_path, *(f'url = "{url}"' for url in urls)), tmp_path / "d"
    assert only(get([task], data)).fetched == len(CONTENT)
    serve(server, "/b.bin", b"late")
    server.requests.clear()

    assert only(get([task], data)).fetched == 4
    assert [path for path, _ in server.requests] == ["/b.bin"]


def test_several_files_come_at_the_same_time(server, tmp_path):
    together = threading.Barrier(3, timeout=10)

    def wait(asked):
        together.wait()  # breaks unless three are asked for at once
        return ""

    urls = [serve(server, f"/{name}.bin", behaviour=wait) for name in "abc"]

    assert only(get([task_of(tmp_path, *(f'url = "{u}"' for u in urls))], tmp_path / "d")).ok


# ---------------------------------------------------------------- archives


def zip_bytes(contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_a_compressed_tar_becomes_one_that_is_read_in_place(server, tmp_path):
    packed = gzip.compress(tar_bytes({"jpg/1.jpg": b"one"}))
    sha = hashlib.sha256(packed).hexdigest()
    url = serve(server, "/flowers.tgz", packed)
    task = task_of(tmp_path, f'url = "{url}", sha256 = "{sha}"')

    assert only(get([task], tmp_path / "d")).ok
    assert visible(tmp_path / "d/raw/fetched") == ["flowers.tar"]
    assert Images(tmp_path / "d").content("fetched", ImageRef(".", "jpg/1.jpg")) == b"one"
    assert verify([task], tmp_path / "d") == []
    before = len(server.requests)
    assert only(get([task], tmp_path / "d")).fetched == 0
    assert len(server.requests) == before


def test_an_archive_is_unpacked_where_the_task_says_so(server, tmp_path):
    content = zip_bytes({"atom/a.csv": b"1", "swap/b.csv": b"2"})
    task = task_of(tmp_path, f'url = "{serve(server, "/c.zip", content)}", to = "hard/"')

    assert only(get([task], tmp_path / "d")).ok
    folder = tmp_path / "d/raw/fetched"
    assert visible(folder) == ["hard/atom/a.csv", "hard/swap/b.csv"]
    assert verify([task], tmp_path / "d") == []
    (folder / "hard/atom/a.csv").write_bytes(b"3")
    assert "has changed since it was fetched" in verify([task], tmp_path / "d")[0]


def test_a_hostile_download_is_refused_and_not_kept(server, tmp_path):
    for name, content in (
        ("/a.zip", zip_bytes({"../../evil.txt": b"x"})),
        ("/b.tar", tar_bytes({"/etc/evil": b"x"})),
        ("/c.tar.gz", gzip.compress(tar_bytes({"../evil": b"x"}))),
        ("/d.zip", b"no zip at all"),
        ("/e.tar.gz", b"no gzip at all"),
    ):
        for to in ("", ', to = "out/"'):
            task = task_of(tmp_path, f'url = "{serve(server, name, content)}"{to}')

            outcome = only(get([task], tmp_path / "d"))

            assert not outcome.ok
            assert "refused" in outcome.message or "not a readable" in outcome.message
            assert "It was not kept." in outcome.message.splitlines()[0]
            assert visible(tmp_path / "d") == []
    assert not list(tmp_path.rglob("evil*"))


# ---------------------------------------------------------------- image sources


@pytest.fixture
def own_sources(tmp_path, monkeypatch):
    """A folder of image sources in the place of the shipped one."""
    folder = tmp_path / "shipped" / "images"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sources, "tasks_folder", lambda: folder.parent)
    sources.sources.cache_clear()
    yield folder
    sources.sources.cache_clear()


def source_file(folder, name, *tables, access="open", instructions=""):
    rows = ", ".join("{" + table + "}" for table in tables)
    path = folder / f"{name.replace('/', '-')}.toml"
    path.write_text(
        f'name = "{name}"\ntitle = "T"\nlicense = "L"\naccess = "{access}"\nlayout = "a zip"\n'
        f"sources = [{rows}]\ninstructions = '''{instructions}'''\n"
    )
    return path


def test_images_that_two_tasks_share_are_fetched_once_and_read_as_they_came(
    server, tmp_path, own_sources
):
    url = serve(server, "/zips/val.zip", zip_bytes({"other/1.jpg": b"one"}))
    source_file(own_sources, "coco/val", f'url = "{url}?dl=1", inside = "other/"')
    tasks = [task_of(tmp_path, 'images = "coco/val"', name=name) for name in ("one", "two")]

    outcomes = get(tasks, tmp_path / "d")

    assert [(o.name, o.kind, o.state) for o in outcomes] == [
        ("one", "task", "ready"),
        ("two", "task", "ready"),
        ("coco/val", "images", "ready"),
    ]
    assert len(server.requests) == 1
    assert visible(tmp_path / "d") == ["images/coco/val.zip"]
    assert Images(tmp_path / "d").content("one", ImageRef("coco/val", "1.jpg")) == b"one"


def test_a_source_of_several_archives_is_a_folder_of_archives(server, tmp_path, own_sources):
    urls = [
        serve(server, "/images.zip", zip_bytes({"VG_100K/1.jpg": b"one"})),
        serve(server, "/images2.zip", zip_bytes({"VG_100K_2/2.jpg": b"two"})),
    ]
    source_file(own_sources, "vg", *(f'url = "{url}"' for url in urls))

    assert only(get([], tmp_path / "d", images=["vg"])).ok
    assert visible(tmp_path / "d") == ["images/vg/images.zip", "images/vg/images2.zip"]
    images = Images(tmp_path / "d")
    assert images.content("t", ImageRef("vg", "VG_100K_2/2.jpg")) == b"two"

    (tmp_path / "d/images/vg/.images2.zip.done.json").unlink()
    (tmp_path / "d/images/vg/images2.zip").unlink()
    assert only(status([], tmp_path / "d", images=["vg"])).state == "partial"


def test_what_is_linked_is_not_fetched(server, tmp_path, own_sources):
    source_file(own_sources, "coco/val", f'url = "{serve(server, "/val.zip")}"')
    mine = tmp_path / "mine"
    mine.mkdir()
    write_link(tmp_path / "d", "coco/val", mine)
    task = task_of(tmp_path, 'images = "coco/val"')

    assert [o.state for o in get([task], tmp_path / "d")] == ["ready", "linked"]
    assert server.requests == []

    mine.rmdir()
    _, row = status([task], tmp_path / "d")
    assert (row.state, row.next.split(" --data")[0]) == (
        "missing",
        "fsc-bench data link coco/val PATH",
    )
    _, outcome = get([task], tmp_path / "d")
    assert "which is gone" in outcome.message


def test_a_name_that_is_a_task_and_an_image_source(server, tmp_path, own_sources):
    """Linking Flickr30k's images must not hide its captions, which come by themselves."""
    source_file(own_sources, "flickr30k", access="gated", instructions="1. Sign the form.")
    url = serve(server, "/flickr30k_test.json", b"[]")
    task = task_of(tmp_path, f'url = "{url}"', 'images = "flickr30k"', name="flickr30k")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "1.jpg").write_bytes(b"one")
    write_link(tmp_path / "d", "flickr30k", pictures)

    assert [(o.kind, o.state) for o in get([task], tmp_path / "d")] == [
        ("task", "ready"),
        ("images", "linked"),
    ]
    assert visible(tmp_path / "d/raw") == ["flickr30k/flickr30k_test.json"]
    assert visible(pictures) == ["1.jpg"]
    folder = raw_folder(tmp_path / "d", "flickr30k", read_links(tmp_path / "d"))
    assert (folder / "flickr30k_test.json").exists()
    assert Images(tmp_path / "d").content("flickr30k", ImageRef("flickr30k", "1.jpg")) == b"one"


GOOD_SOURCE = """
name = "coco/val"
title = "T"
license = "L"
access = "open"
layout = "a zip"
sources = [{ url = "http://host/a.zip" }]
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("layout =", "layuot =", "unknown key 'layuot'. Did you mean 'layout'?"),
        ('title = "T"', "title = 3", "'title' must be a string, not 3."),
        ('license = "L"\n', "", "the key 'license' is missing."),
        ('"open"', '"opne"', "access = 'opne' is not known. Did you mean 'open'?"),
        ('"coco/val"', '"coco/test"', "name = 'coco/test' must be the file's name"),
        ('"coco/val"', '"../val"', "name = '../val' must be the file's name"),
        ("url =", "ulr =", "sources[0]: unknown key 'ulr'. Did you mean 'url'?"),
        ("http://", "file:///", "sources[0]: url = 'file:///host/a.zip' is not an http(s) address"),
        ("/a.zip", "/", "sources[0]: url names no file; say what to call it"),
        ('zip" }', 'zip", sha256 = "123" }', "sha256 = '123' is not 64 digits"),
        ('zip" }', 'zip", to = "../x" }', "to = '../x' leads out of its folder"),
        ('zip" }', 'zip", to = "/x" }', "to = '/x' is an absolute path"),
        ('url = "http://host/a.zip"', 'hf = "x"', "hf = 'x' is not org/name"),
        ('url = "http://host/a.zip"', 'to = "x"', "needs either 'url' or 'hf'"),
        ('{ url = "http://host/a.zip" }', '"x"', "'sources[0]' must be a table, not 'x'"),
        ('{ url = "http://host/a.zip" }', "", "has neither 'sources' nor 'instructions'"),
        ("sources = [", "sources = ", "not TOML"),
    ],
)
def test_a_source_file_that_is_wrong_stops_with_one_line(tmp_path, old, new, line):
    assert old in GOOD_SOURCE
    path = tmp_path / "coco-val.toml"
    path.write_text(GOOD_SOURCE.replace(old, new))

    with pytest.raises(UsageError) as caught:
        read_source(path)

    assert line in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_shipped_source_is_read_and_every_task_names_known_ones():
    known = sources.sources()
    named = {
        source["images"]
        for task in catalogue().values()
        if task.suite != "demo"
        for source in task.data.sources
        if "images" in source
    }

    assert known and named <= set(known)


def test_names_on_the_command_line():
    assert named("coco/val2017") == (None, sources.sources()["coco/val2017"])
    assert named("winoground") == (catalogue()["winoground"], None)
    assert None not in named("flickr30k")
    with pytest.raises(UsageError, match="Did you mean 'coco/val2017'"):
        named("coco/val2071")
    tasks, images = choose(["coco/val2017", "winoground"])
    assert ([task.name for task in tasks], images) == (["winoground"], ["coco/val2017"])
    with pytest.raises(UsageError, match="winogrund"):
        choose(["winogrund"])


# ---------------------------------------------------------------- the Hub


class Hub:
    """Stands for huggingface_hub at its border: what it is asked, and files it then writes."""

    def __init__(self, monkeypatch, files, commit="a" * 40):
        import huggingface_hub

        self.files, self.commit, self.asked, self.error = files, commit, [], None
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: self.token)
        self.token = "token"

    def download(self, repo_id, filename, *, repo_type, revision, local_dir, dry_run=False, **_):
        self.asked.append((repo_id, filename, revision, repo_type, dry_run))
        if self.error:
            raise self.error
        if dry_run:
            return self.info(filename)
        path = Path(local_dir) / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.files[filename])
        return str(path)

    def snapshot(self, repo_id, *, allow_patterns, dry_run, revision, **_):
        import fnmatch

        assert dry_run
        self.asked.append((repo_id, allow_patterns[0], revision, "dataset", True))
        return [self.info(name) for name in self.files if fnmatch.fnmatch(name, allow_patterns[0])]

    def info(self, name):
        fact = namedtuple("fact", "filename file_size will_download commit_hash")
        return fact(name, len(self.files[name]), True, self.commit)


def test_a_hub_source_is_fetched_by_its_commit(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, {"data/a.jsonl": b"{}", "test/0.tar": tar_bytes({"0.cls": b"1"})})
    table = f'hf = "org/name", revision = "{hub.commit}", files = ["data/a.jsonl", "test/*.tar"]'
    task, data = task_of(tmp_path, table), tmp_path / "d"

    assert only(get([task], data)).ok

    assert {(asked[2], asked[3]) for asked in hub.asked} == {(hub.commit, "dataset")}
    assert visible(data / "raw" / "fetched") == ["data/a.jsonl", "test/0.tar"]
    assert verify([task], data) == []
    count = len(hub.asked)
    assert only(get([task], data)).fetched == 0
    assert len(hub.asked) == count


def test_a_hostile_archive_from_the_hub_is_refused_and_not_kept(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, {"a.zip": zip_bytes({"../evil": b"x"})})
    table = f'hf = "org/name", revision = "{hub.commit}", files = ["a.zip"]'

    outcome = only(get([task_of(tmp_path, table)], tmp_path / "d"))

    assert "its member '../evil' leads out of its folder. It was not kept." in outcome.message
    assert visible(tmp_path / "d") == []


@pytest.mark.parametrize("revision", ["69a62dd1", "main", "A" * 40, "a" * 41])
def test_what_is_no_whole_commit_is_refused_in_one_line(tmp_path, revision):
    task = task_of(tmp_path, f'hf = "org/name", revision = "{revision}", files = ["a.jsonl"]')

    with pytest.raises(UsageError) as caught:
        get([task], tmp_path / "d")
    assert f"sources[0]: revision = {revision!r} is not a whole commit" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stale_local_file_is_not_taken_for_the_commit(monkeypatch, tmp_path):
    """Without a connection the Hub's client hands out whatever file lies there, of any commit."""
    hub = Hub(monkeypatch, {"a.jsonl": b"{}"}, commit="b" * 40)
    task = task_of(tmp_path, f'hf = "org/name", revision = "{"a" * 40}", files = ["a.jsonl"]')

    outcome = only(get([task], tmp_path / "d"))

    assert "the Hub cannot be reached for org/name" in outcome.message
    assert all(asked[-1] for asked in hub.asked)


def test_a_gated_source_prints_its_steps_and_the_command_to_go_on(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, {"a.jsonl": b"{}"})
    table = f'hf = "org/name", revision = "{hub.commit}", files = ["a.jsonl"]'
    steps = "1. Log in.\n2. Accept the licence."
    task = task_of(tmp_path, table, access="gated", instructions=steps)
    hub.token = None

    outcome = only(get([task], tmp_path / "d"))

    assert outcome.state == "gated" and hub.asked == []
    assert "1. Log in." in outcome.message.splitlines()
    assert outcome.message.splitlines()[-1] == (
        f"Then: fsc-bench data get fetched --data {tmp_path / 'd'}"
    )

    hub.token, hub.error = "token", gated_error()
    outcome = only(get([task], tmp_path / "d"))
    assert outcome.state == "gated"
    assert "org/name is gated and your account may not read it yet" in outcome.message
    assert "2. Accept the licence." in outcome.message

    hub.error = None
    assert only(get([task], tmp_path / "d")).state == "ready"


def gated_error():
    from huggingface_hub import errors

    library = sys.modules[errors.HTTPError.__module__.partition(".")[0]]
    request = library.Request("GET", "http://host")
    return errors.GatedRepoError("gated", response=library.Response(403, request=request))


def test_a_member_of_a_large_zip_is_read_without_the_rest(monkeypatch, tmp_path):
    import huggingface_hub

    inner = zip_bytes({"test/1/1.jpg": b"one"})
    large = zip_bytes({"all/cifar-10.zip": inner, "all/food.zip": b"x" * 1000})
    opened = []

    class Files:
        def open(self, address):
            opened.append(address)
            return io.BytesIO(large)

    Hub(monkeypatch, {})
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", Files)
    table = f'hf = "org/all", revision = "{"a" * 40}", files = ["big.zip::cifar-10.zip"]'
    task = task_of(tmp_path, table)

    assert only(get([task], tmp_path / "d")).ok
    assert opened == [f"datasets/org/all@{'a' * 40}/big.zip"]
    assert (tmp_path / "d/raw/fetched/cifar-10.zip").read_bytes() == inner


# ---------------------------------------------------------------- by hand; status; verify


def test_a_manual_task_prints_its_steps_until_something_is_there(server, tmp_path):
    task = task_of(
        tmp_path,
        f'url = "{serve(server, "/list.csv", b"a,b")}"',
        access="manual",
        instructions="1. Fetch the pictures.",
    )

    outcome = only(get([task], tmp_path / "d"))

    assert outcome.state == "manual"
    assert "1. Fetch the pictures." in outcome.message.splitlines()
    assert str(tmp_path / "d/raw/fetched") in outcome.message
    assert outcome.message.splitlines()[-1].startswith("Then: fsc-bench data prepare fetched")
    assert visible(tmp_path / "d") == ["raw/fetched/list.csv"]

    (tmp_path / "d/raw/fetched/images").mkdir()
    assert only(status([task], tmp_path / "d")).state == "manual"
    draw(tmp_path / "d/raw/fetched/images/1.jpg")
    assert only(status([task], tmp_path / "d")).state == "ready"
    assert only(get([task], tmp_path / "d")).message == ""


def test_status_follows_a_task_from_nothing_to_ready_to_run(server, tmp_path, own_sources):
    rows = {"0": {"filename": "1.jpg", "caption": "a hat", "negative_caption": "a cat"}}
    url = serve(server, "/a.json", json.dumps(rows).encode())
    draw(tmp_path / "1.jpg")
    images = zip_bytes({"val/1.jpg": (tmp_path / "1.jpg").read_bytes()})
    zipped = serve(server, "/val.zip", images)
    source_file(own_sources, "coco/val2017", f'url = "{zipped}", inside = "val/", bytes = 700')
    data = tmp_path / "d"
    task = task_of(tmp_path, f'url = "{url}", bytes = 70', 'images = "coco/val2017"')

    def rows_now():
        suffix = f" --data {data}"
        return [(row.state, row.next.removesuffix(suffix)) for row in status([task], data)]

    assert rows_now() == [
        ("missing", "fsc-bench data get fetched"),
        ("missing", "fsc-bench data get coco/val2017"),
    ]
    assert [row.download for row in status([task], data)] == [70, 700]
    get([], data, images=["coco/val2017"])
    assert rows_now()[1] == ("ready", "")
    get([task], data)
    assert rows_now()[0] == ("ready", "fsc-bench data prepare fetched")
    assert [row.bytes > 60 for row in status([task], data)] == [True, True]
    prepare(task, data)
    assert rows_now()[0] == ("prepared", "fsc-bench run -m MODEL -t fetched")
    assert verify([task], data) == []
    (data / "images/coco/val2017.zip").unlink()
    assert rows_now()[0] == ("prepared", "fsc-bench data get coco/val2017")
    problems = verify([task], data)
    assert "val2017.zip is gone" in " ".join(problems)
    assert "1 of 1 images are missing" in " ".join(problems)


def test_verify_finds_what_changed_after_it_was_fetched(server, tmp_path):
    task, data = task_of(tmp_path, f'url = "{serve(server)}"'), tmp_path / "d"
    get([task], data)
    path = data / "raw/fetched/a.bin"

    path.write_bytes(CONTENT[:-1] + b"!")
    assert "a.bin has changed since it was fetched" in only(verify([task], data))
    path.write_bytes(CONTENT[:-1])
    assert "a.bin has 3,071,999 bytes, not 3,072,000" in only(verify([task], data))
    assert only(status([task], data)).state == "missing"
    assert only(get([task], data)).state == "ready"  # damaged, so fetched again
    assert path.read_bytes() == CONTENT
    assert verify([task], data) == []


def test_a_new_pin_makes_the_old_file_another_version(server, tmp_path):
    url = serve(server, content=b"old")
    data = tmp_path / "d"
    get([task_of(tmp_path, f'url = "{url}"')], data)
    serve(server)
    task = task_of(tmp_path, f'url = "{url}", sha256 = "{SHA}"')

    assert "is of another version than is named now" in only(verify([task], data))
    assert only(get([task], data)).ok
    assert (data / "raw/fetched/a.bin").read_bytes() == CONTENT


def test_files_of_the_users_are_used_and_not_overwritten(server, tmp_path):
    task = task_of(tmp_path, f'url = "{serve(server)}"', f'url = "{serve(server, "/b.bin", b"b")}"')
    folder = tmp_path / "d/raw/fetched"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"mine")

    assert only(get([task], tmp_path / "d")).ok
    assert (folder / "a.bin").read_bytes() == b"mine"
    assert [path for path, _ in server.requests] == ["/b.bin"]


def test_a_users_file_that_is_not_the_pinned_one_is_said(server, tmp_path):
    task = task_of(
        tmp_path,
        f'url = "{serve(server)}", sha256 = "{SHA}"',
        f'url = "{serve(server, "/b.bin", b"b")}"',
    )
    folder = tmp_path / "d/raw/fetched"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"mine")

    outcome = only(get([task], tmp_path / "d"))

    assert "not the pinned" in outcome.message and "Move it away" in outcome.message
    assert (folder / "a.bin").read_bytes() == b"mine"


def test_status_on_an_empty_machine_has_a_next_step_for_every_shipped_task(tmp_path):
    rows = status(catalogue().values(), tmp_path)

    assert len(rows) >= len(catalogue())
    assert {row.state for row in rows} <= {"missing", "gated", "manual", "ready"}
    assert all(row.next or row.state == "ready" for row in rows)
    assert all(row.bytes == 0 for row in rows)


def test_light_parts_import_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fsc_bench.data import get; "
        "from fsc_bench.task import catalogue; get.status(catalogue().values(), Path('x')); "
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tmp_path)
