"""Servers that lie: a download arrives whole or is refused by one line, in bounded time and space.

    python tests/attack/servers.py [--lines]

Every server is a socket of this machine that answers with bytes of its own. Waiting times are
shortened (a minute is two seconds here). Beside each liar an honest server is asked: its file must
arrive.
"""

import gzip
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]

from attack.tally import Tally, Wrong, counted, finish  # noqa: E402

from fsc_bench.data import download  # noqa: E402
from fsc_bench.data.get import get  # noqa: E402
from fsc_bench.errors import DataError  # noqa: E402
from fsc_bench.task import read_task  # noqa: E402

BODY = bytes(range(256)) * 40
SHA = hashlib.sha256(BODY).hexdigest()
MOST = 30_000_000  # bytes on disk that no liar here may fill
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
reader = "records"
access = "open"
sources = [{sources}]
"""

Answer = Callable[[socket.socket], None]


def reply(*parts: bytes | str, body: bytes = b"", status: str = "200 OK") -> Answer:
    """Sends a status line, headers and a body, and closes."""
    lines = [
        f"HTTP/1.1 {status}".encode(),
        *(p if isinstance(p, bytes) else p.encode() for p in parts),
    ]
    return lambda peer: peer.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)


def raw(content: bytes) -> Answer:
    return lambda peer: peer.sendall(content)


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    def answer(peer: socket.socket) -> None:
        peer.sendall(head)
        while True:
            peer.sendall(piece)
            if pause:
                time.sleep(pause)

    return answer


def silent(peer: socket.socket) -> None:
    time.sleep(600)


def redirect(to: str | bytes) -> Answer:
    to = to if isinstance(to, bytes) else to.encode()
    return reply(b"Location: " + to, "Content-Length: 0", status="302 Found")


OK = b"HTTP/1.1 200 OK\r\n"
KNOWN = f", bytes = {len(BODY)}"
PINNED = f'{KNOWN}, sha256 = "{SHA}"'
PLACES = [
    "ftp://127.0.0.1/a",
    "file:///etc/passwd",
    "data:text/plain,hello",
    "http://[::1/a",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:port/",
    "http://",
    "//",
    "javascript:1",
    "http://127.0.0.1:1/a\tb",
    b"http://\xff\xfe/",
    "gopher://x/",
    "",
    "/" + "x" * 60_000,
]
NINES = "9" * 5000


def liars() -> Iterator[tuple[str, Answer, str]]:
    """(name, what it answers, facts of the source in the task file)"""
    megabyte = bytes(1 << 20)
    yield "endless body, pinned", endless(OK + b"\r\n", megabyte), PINNED
    yield "endless body, bytes known", endless(OK + b"\r\n", megabyte), KNOWN
    chunk = b"100000\r\n" + megabyte + b"\r\n"
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "endless chunks, pinned", endless(chunked, chunk), PINNED
    yield (
        "length of 1 EB",
        endless(OK + b"Content-Length: 999999999999999999\r\n\r\n", b"x", 0.01),
        "",
    )
    yield (
        "length of 1 EB, pinned",
        endless(OK + b"Content-Length: 999999999999\r\n\r\n", megabyte),
        PINNED,
    )
    yield (
        "length of 5,000 digits",
        endless(OK + f"Content-Length: {NINES}\r\n\r\n".encode(), megabyte),
        PINNED,
    )
    yield "length below zero", reply("Content-Length: -5", body=BODY[:9]), PINNED
    yield "length of words", reply("Content-Length: many", body=BODY[:9]), PINNED
    yield (
        "length larger than the body",
        reply(f"Content-Length: {2 * len(BODY)}", body=BODY),
        PINNED,
    )
    yield "length smaller than the body", reply("Content-Length: 100", body=BODY), PINNED
    yield "another body", reply(f"Content-Length: {len(BODY)}", body=BODY[::-1]), PINNED
    yield "a byte at a time", endless(OK + b"Content-Length: 10240\r\n\r\n", b"x", 0.3), PINNED
    yield "a byte at a time, no length", endless(OK + b"\r\n", b"x", 0.3), ""
    yield "a byte at a time, in chunks", endless(chunked, b"1\r\nx\r\n", 0.3), ""
    yield "a chunk header, a letter at a time", endless(chunked, b"0", 0.3), ""
    yield "headers, a letter at a time", endless(OK + b"X: ", b"x", 0.3), ""
    yield "headers without end", endless(OK, b"X: y\r\n"), ""
    yield "a header of 10 MB", endless(OK + b"X: ", megabyte), ""
    yield "100 Continue without end", endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), ""
    yield "silence", silent, ""
    yield "closes at once", raw(b""), ""
    yield "no HTTP", raw(b"SSH-2.0-OpenSSH_9.6\r\n"), ""
    yield "status of 99999", raw(b"HTTP/1.1 99999 Odd\r\n\r\n"), ""
    yield "status of 5,000 digits", raw(f"HTTP/1.1 {NINES} Odd\r\n\r\n".encode()), ""
    yield "204", reply(status="204 No Content"), ""
    yield "200 and nothing", reply("Content-Length: 0"), ""
    yield "205", reply("Content-Length: 0", status="205 Reset Content"), ""
    some = {"body": BODY[:101], "status": "206 Partial Content"}
    middle = reply("Content-Range: bytes 500-600/601", "Content-Length: 101", **some)
    yield "206 that nobody asked for", middle, ""
    far = reply(f"Content-Range: bytes 0-{NINES}/{NINES}", "Content-Length: 101", **some)
    yield "206 of 5,000 digits", far, PINNED
    yield "416", reply("Content-Range: bytes */0", status="416 Range Not Satisfiable"), ""
    yield "503 after 5,000 digits", reply(f"Retry-After: {NINES}", status="503 Busy"), ""
    yield "503 after a year", reply("Retry-After: 31536000", status="503 Busy"), ""
    yield "chunk of a negative size", raw(chunked + b"-5\r\nxxxxx\r\n0\r\n\r\n"), PINNED
    yield "chunk of words", raw(chunked + b"zz\r\nxxxxx\r\n0\r\n\r\n"), PINNED
    yield "chunk of 5,000 digits", raw(chunked + b"f" * 5000 + b"\r\nx"), PINNED
    bomb = gzip.compress(bytes(1 << 20))
    yield "gzip nobody asked for", reply("Content-Encoding: gzip", body=bomb), ""
    yield (
        "etag of a megabyte",
        reply("ETag: " + "x" * 60_000, "Content-Length: 9999", body=BODY[:50]),
        "",
    )
    yield (
        "web page",
        reply("Content-Type: text/html", body=b"<!DOCTYPE html><html>login</html>"),
        "",
    )
    for to in PLACES:
        yield f"redirect to {to[:24]!r}", redirect(to), ""
    yield "redirect to itself", redirect("/a.bin"), ""
    yield "redirect without a place", reply("Content-Length: 0", status="301 Moved"), ""


class Server:
    """A socket that gives every connection the same answer."""

    def __init__(self, answer: Answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/a.bin"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=[peer], daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        try:
            with peer:
                peer.recv(65_536)
                self.answer(peer)
        except OSError:
            return


def ask(answer: Answer, facts: str, folder: Path) -> None:
    """Fetches from a liar and from an honest server, in one command."""
    download.TIMEOUT, download.PAUSE, download.LONGEST_PAUSE = 2.0, 0.01, 0.1
    if "connection" in dir(sys.modules["fsc_bench.data"]):
        sys.modules["fsc_bench.data.connection"].WINDOW = 2.0
    tasks = []
    honest = reply(f"Content-Length: {len(BODY)}", body=BODY)
    for name, how, known in [("liar", answer, facts), ("honest", honest, PINNED)]:
        path = folder / f"{name}.toml"
        path.write_text(TASK.format(sources=f'{{ url = "{Server(how).url}"{known} }}'))
        tasks.append(read_task(path))
    liar, good = get(tasks, folder / "data")
    if not good.ok:
        raise Wrong(f"the honest server's file did not come: {good.message}")
    size = sum(file.stat().st_size for file in (folder / "data").rglob("*") if file.is_file())
    if size > MOST:
        raise Wrong(f"filled the disk with {size:,} bytes")
    if liar.ok:
        content = (folder / "data/raw/liar/a.bin").read_bytes()
        if content != BODY:
            raise Wrong(f"took {len(content):,} bytes for the file: {content[:40]!r}")
        return
    raise DataError(liar.message.splitlines()[0])


def attack(names: set[str] | None = None) -> Tally:
    tally = Tally("servers")
    for number, (name, answer, facts) in enumerate(liars()):
        if names is None or name in names:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / str(number)
                folder.mkdir()
                tally.isolated(name, partial(ask, answer, facts, folder))
                shutil.rmtree(folder, ignore_errors=True)
    return tally


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    chosen = counted(42)
    finish(attack(), chosen)
