"""
The upstream server of the study: ``python -m study.upstream_server PORT``.

An HTTP server that answers as the path of a request says, so that a proxy cannot be to blame.
``GET /?wait=500&size=64&part=100`` is answered after 500 ms with 64 bytes, the second half of
them 100 ms after the first.  A loop on epoll: it must never be what is slow.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import sys
import time
from itertools import count
from urllib.parse import parse_qsl, urlsplit

from .models.listening import listen
from .worker import LOOPBACK, raise_limit

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
LARGEST = 64 << 20
"""The most bytes of one answer."""


def answer(request: bytes) -> list[tuple[float, bytes]]:
    """The parts of the answer to a request: seconds after the one before, and the bytes."""
    target = request.split(b" ", 2)[1].decode("ascii", "replace")
    asked = {key: float(value) for key, value in parse_qsl(urlsplit(target).query)}
    size = min(int(asked.get("size", 64)), LARGEST)
    closes = b"connection: close" in request.lower()
    whole = _HEAD % (size, b"close" if closes else b"keep-alive") + b"x" * size
    parts = [(asked.get("wait", 0.0) / 1000, whole)]
    if "part" in asked:
        half = len(whole) - size // 2
        parts = [(parts[0][0], whole[:half]), (asked["part"] / 1000, whole[half:])]
    return parts


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.request, self.out = sock, b"", memoryview(b"")
        self.closes = False


class UpstreamServer:
    """The loop: requests come in, timers say when the parts of their answers are due."""

    def __init__(self, port: int) -> None:
        self._listener = listen((LOOPBACK, port))
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._due: list[tuple[float, int, _Connection, bytes, bool]] = []
        self._order = count()

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1
            for number, event in self._epoll.poll(wait):
                if number == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(number):
                    try:
                        if event & select.EPOLLOUT:
                            self._send(connection)
                        else:
                            self._read(connection)
                    except BlockingIOError:
                        continue
                    except OSError:
                        self._close(connection)
            self._run_due()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(64):
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                self._connections[sock.fileno()] = _Connection(sock)
                self._epoll.register(sock, select.EPOLLIN)

    def _read(self, connection: _Connection) -> None:
        data = connection.sock.recv(65536)
        if not data:
            self._close(connection)
            return
        connection.request += data
        if not connection.request.endswith(b"\r\n\r\n"):
            return
        request, connection.request = connection.request, b""
        closes = b"connection: close" in request.lower()
        at = time.monotonic()
        parts = answer(request)
        for number, (wait, part) in enumerate(parts):
            at += wait
            ends = closes and number == len(parts) - 1
            if wait:
                heapq.heappush(self._due, (at, next(self._order), connection, part, ends))
            else:
                self._answer(connection, part, ends)

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, connection, part, ends = heapq.heappop(self._due)
            if connection.sock.fileno() >= 0:
                try:
                    self._answer(connection, part, ends)
                except OSError:
                    self._close(connection)

    def _answer(self, connection: _Connection, part: bytes, ends: bool) -> None:
        connection.out = memoryview(bytes(connection.out) + part)
        connection.closes = ends
        with contextlib.suppress(BlockingIOError):
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        while connection.out:
            try:
                connection.out = connection.out[connection.sock.send(connection.out) :]
            except BlockingIOError:
                self._epoll.modify(connection.sock, select.EPOLLOUT)
                raise
        self._epoll.modify(connection.sock, select.EPOLLIN)
        if connection.closes:
            connection.sock.shutdown(socket.SHUT_WR)

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()


if __name__ == "__main__":
    raise_limit()
    UpstreamServer(int(sys.argv[1])).run()
