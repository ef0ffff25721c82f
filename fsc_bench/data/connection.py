"""Connection: one HTTP request that cannot be held up, misled or made to fail in a traceback.

A server may send its headers or its body a byte at a time, claim lengths of 5,000 digits, redirect
to anything. A watch ends a connection that brings too little, takes too long or is wanted no more;
what Python's HTTP modules raise over nonsense becomes Unusable.
"""

import http.client
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable
from typing import Any

from fsc_bench.data.border import reason
from fsc_bench.system.budget import budget, raising

WINDOW = 60.0  # seconds over which a download must bring what the budget calls its speed
TICK = 0.5  # seconds between two looks
USUAL = (200, 206)  # the whole file, or the rest of it
LONGEST_NUMBER = 18  # digits: a file of an exabyte


class Unusable(Exception):
    """The server's answer can be used in no way; another try would bring the same."""


class Watch:
    """Ends a connection where it should not go on; `why` then says so, and is empty otherwise.

    deadline: by time.monotonic(). wanted: false once the user stops the command.
    """

    def __init__(self, deadline: float, wanted: Callable[[], bool] = lambda: True):
        self.deadline, self.wanted = deadline, wanted
        self.got = 0  # bytes of the body
        self.why = ""
        self.late = False
        self.sockets: list[socket.socket] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        seen = deque([(time.monotonic(), 0)])
        while not self.over.wait(min(TICK, WINDOW / 4)):
            now, limits = time.monotonic(), budget()
            seen.append((now, self.got))
            while seen[1][0] <= now - WINDOW:
                seen.popleft()
            begun, had = seen[0]
            floor = limits.speed * WINDOW
            if now > self.deadline:
                self.late = True
                more = raising("seconds", 2 * limits.seconds)
                self._end(f"takes more than {limits.seconds:,} seconds ({more})")
            elif now - begun >= WINDOW * 0.99 and self.got - had < floor:
                self._end(
                    f"brings {self.got - had:,} bytes in {WINDOW:.0f} s, less than "
                    f"{limits.speed:,} a second (`--budget speed=0` waits)"
                )
            elif not self.wanted():
                self._end("was stopped")

    def _end(self, why: str) -> None:
        self.why = self.why or why
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already


def open_url(url: str, headers: dict[str, str], timeout: float, watch: Watch) -> Any:
    """The response to a GET. Raises Unusable for nonsense, and OSError (URLError, HTTPError among
    them) or HTTPException for what another try may mend.
    """
    handlers = [
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Plain(watch),
        _Secure(watch),
    ]
    opener = urllib.request.OpenerDirector()  # of its own: the usual one speaks ftp and file too
    for handler in handlers:
        opener.add_handler(handler)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except (OSError, http.client.HTTPException, Unusable) as error:
        if isinstance(error, http.client.InvalidURL):
            raise Unusable(f"gives an address that is none: {reason(error)}") from None
        if isinstance(error, (http.client.BadStatusLine, http.client.UnknownProtocol)) and not (
            isinstance(error, http.client.RemoteDisconnected)
        ):
            begins = str(error).strip()[:60]
            raise Unusable(
                f"answers with something that is no HTTP: it begins {begins!r}"
            ) from None
        raise
    except Exception as error:
        raise Unusable(f"answers with something that is no HTTP: {reason(error)}") from None
    if response.status not in USUAL:
        with response:
            raise Unusable(f"answers {response.status} {response.reason:.100}, which is no file")
    return response


def number(text: str | None) -> int | None:
    """A header's number; None for none, and for one that no file can have."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else None


def tag(text: str | None) -> str:
    """A header that may be sent back as it came: short, and plain letters. Empty for others."""
    text = text or ""
    return text if len(text) <= 200 and text.isascii() and text.isprintable() else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http(s) only."""

    def http_error_302(self, request: Any, file: Any, code: int, words: str, headers: Any) -> Any:
        to = headers.get("location") or headers.get("uri") or ""
        try:
            parts = urllib.parse.urlsplit(urllib.parse.urljoin(request.full_url, to))
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not to or not usable or not tag(to[:200]):
            raise Unusable(f"redirects to {to!r:.200}, which is no http(s) address")
        try:
            return super().http_error_302(request, file, code, words, headers)
        except ValueError as error:
            raise Unusable(f"redirects to {to!r:.200}: {reason(error)}") from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch):
        super().__init__()
        self.connection = _watched(http.client.HTTPConnection, watch)

    def http_open(self, request: Any) -> Any:
        return self.do_open(self.connection, request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch):
        super().__init__()
        self.connection = _watched(http.client.HTTPSConnection, watch)

    def https_open(self, request: Any) -> Any:
        return self.do_open(self.connection, request, context=self._context)


def _watched(kind: type, watch: Watch) -> type:
    """A kind of connection whose socket the watch may end."""

    class Watched(kind):
        def connect(self) -> None:
            super().connect()
            watch.sockets.append(self.sock)

    return Watched
