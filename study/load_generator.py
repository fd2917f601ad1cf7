"""
The load of the study, in a process of its own: ``python -m study.load_generator PORT``.

It is an open loop: each request has its time from the beginning, whatever happened to those before
it.  Its latency counts from that time, so that waiting is not hidden ("coordinated omission").
Commands come as lines of JSON on standard input, and each has one line of JSON as its answer:

* ``open``: connections that stay, each with one request answered;
* ``run``: streams of requests, see `Stream`;
* ``slow``: connections that ask for much, and read nothing;
* ``leave``: clients that ask, and close before the answer;
* ``drop``: close what ``open`` and ``slow`` have opened.
"""

from __future__ import annotations

import heapq
import json
import re
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from errno import EINPROGRESS
from typing import Any

from attrs import define, field

from .stream import Stream
from .worker import LOOPBACK, raise_limit

_RESETS = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds (socket(7))
_GOOD = re.compile(rb"http/1\.\d 200(?: |$)")
AT_ONCE = 100
"""Connections that ``open`` opens at a time."""


@define(eq=False)
class Request:
    """
    One request, and what became of it.

    `closes`: its connection ends with the answer.  `error`: the answer is no 200.
    """

    stream: str
    due: float
    sock: socket.socket
    text: bytes
    closes: bool
    got: bytearray = field(factory=bytearray)
    left: int = -1
    connecting: bool = True
    error: bool = False

    def took(self, data: bytes) -> bool:
        """Whether `data` completes the answer."""
        if self.left < 0:
            self.got += data
            head, found, body = bytes(self.got).partition(b"\r\n\r\n")
            if not found:
                return False
            lines = head.lower().split(b"\r\n")
            fields = {name: value.strip() for name, _, value in (x.partition(b":") for x in lines)}
            self.error = _GOOD.match(lines[0]) is None
            # Of a 200, the next request on the connection tells.
            self.closes |= self.error and fields.get(b"connection") == b"close"
            length = fields.get(b"content-length", b"")
            if not length.isdigit():
                # The answer ends where its connection does.
                self.error = self.closes = True
                return True
            self.left, data = int(length), body
        self.left -= len(data)
        return self.left <= 0


class LoadGenerator:
    """Clients of the server at `port` of 127.0.0.1, in one epoll loop."""

    def __init__(self, port: int) -> None:
        self._to = (LOOPBACK, port)
        self._epoll = select.epoll()
        self._requests: dict[int, Request] = {}
        self._held: list[socket.socket] = []
        self._kept_last: list[socket.socket] = []

    def open(self, count: int, timeout: float) -> dict[str, Any]:
        """Open `count` connections; each stays if its request was answered within `timeout`."""
        self._close(self._kept_last)
        start = time.monotonic()
        started = answered = 0
        results: list[tuple[Request, str, float]] = []
        while answered < count and time.monotonic() < start + timeout:
            while started < count and len(self._requests) < AT_ONCE:
                started += 1
                with suppress(OSError):
                    self._begin("open", "/", time.monotonic(), LOOPBACK, None, closes=False)
            self._turn(0.05, results)
            for request, outcome, _ in results:
                if outcome == "whole":
                    answered += 1
                    self._held.append(request.sock)
                else:
                    request.sock.close()
            results.clear()
            if not self._requests and started == count:
                break
        self._abandon()
        return {"answered": answered}

    def run(self, streams: list[dict[str, Any]], grace: float) -> dict[str, Any]:
        """Run streams together; the last answer may come `grace` seconds after the last is due."""
        kinds = [Stream(**each) for each in streams]
        due = [(at, number) for number, kind in enumerate(kinds) for at in kind.times()]
        heapq.heapify(due)
        idle = [self._kept(kind.kept) for kind in kinds]
        waiting: list[deque[float]] = [deque() for _ in kinds]
        start = time.monotonic()
        end = max((at for at, _ in due), default=0.0) + grace
        results: list[tuple[Request, str, float]] = []
        done: list[tuple[str, str, float]] = []

        def begin(number: int, at: float) -> None:
            kind = kinds[number]
            if kind.kept and not idle[number]:
                waiting[number].append(at)
                return
            sock = idle[number].popleft() if kind.kept else None
            name = str(number)
            try:
                self._begin(name, kind.path, start + at, kind.host, sock, closes=not kind.kept)
            except OSError as error:
                text = "refused" if isinstance(error, ConnectionRefusedError) else "failed"
                done.append((name, text, 0.0))

        while (due or self._requests) and (now := time.monotonic() - start) < end:
            while due and due[0][0] <= now:
                at, number = heapq.heappop(due)
                begin(number, at)
            self._turn(min(max(due[0][0] - now, 0.0), 0.05) if due else 0.05, results)
            for request, outcome, seconds in results:
                number = int(request.stream)
                done.append((request.stream, outcome, seconds))
                if request.closes or outcome not in ("whole", "error"):
                    request.sock.close()
                else:
                    idle[number].append(request.sock)
                    if waiting[number]:
                        begin(number, waiting[number].popleft())
            results.clear()
        unanswered = self._abandon()
        # They stay a while: a thread that ends takes its numbers with it.
        self._close(self._kept_last)
        self._kept_last = [sock for kept in idle for sock in kept]
        reply = {}
        for number, kind in enumerate(kinds):
            mine = [each for each in done if each[0] == str(number)]
            outcomes: dict[str, int] = {}
            for _, outcome, _ in mine:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
            lost = unanswered.count(str(number)) + len(waiting[number])
            if lost:
                outcomes["unanswered"] = lost
            took = sorted(seconds for _, outcome, seconds in mine if outcome == "whole")
            reply[kind.name] = {"outcomes": outcomes, "latencies": took}
        return {"streams": reply}

    def slow(self, count: int, path: str) -> dict[str, Any]:
        """Ask for `path` on so many connections, and read none of it."""
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(self._to)
            sock.sendall(_text(path, closes=False))
            self._held.append(sock)
        return {}

    def leave(self, count: int, seconds: float, resets: bool) -> dict[str, Any]:
        """So many clients ask, wait `seconds`, and end their stream; or reset, if `resets`."""
        clients = []
        for _ in range(count):
            clients.append(socket.create_connection(self._to, 5.0))
            clients[-1].sendall(_text("/", closes=True))
        time.sleep(seconds)
        for client in clients:
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
            client.close()
        return {}

    def drop(self) -> dict[str, Any]:
        """Close what is held."""
        self._close(self._held)
        self._close(self._kept_last)
        return {}

    def _close(self, sockets: list[socket.socket]) -> None:
        while sockets:
            sockets.pop().close()

    def _kept(self, count: int) -> deque[socket.socket]:
        found: deque[socket.socket] = deque()
        for _ in range(count):
            sock = socket.socket()
            sock.settimeout(5.0)
            # If this fails, so does the first request.
            sock.connect_ex(self._to)
            sock.setblocking(False)
            found.append(sock)
        return found

    def _begin(
        self,
        stream: str,
        path: str,
        due: float,
        host: str,
        sock: socket.socket | None,
        *,
        closes: bool,
    ) -> None:
        new = sock is None
        text = _text(path, closes=closes)
        sock = socket.socket() if sock is None else sock
        try:
            if new:
                sock.setblocking(False)
                if host != LOOPBACK:
                    sock.bind((host, 0))
                error = sock.connect_ex(self._to)
                if error not in (0, EINPROGRESS):
                    raise OSError(error, "connect")
            else:
                sock.send(text)
            self._epoll.register(sock, select.EPOLLOUT if new else select.EPOLLIN)
        except OSError:
            sock.close()
            raise
        self._requests[sock.fileno()] = Request(stream, due, sock, text, closes, connecting=new)

    def _turn(self, wait: float, results: list[tuple[Request, str, float]]) -> None:
        for number, _ in self._epoll.poll(wait):
            request = self._requests[number]
            try:
                if request.connecting:
                    request.connecting = False
                    request.sock.send(request.text)
                    self._epoll.modify(number, select.EPOLLIN)
                    continue
                data = request.sock.recv(65536)
                if not data:
                    outcome = "cut" if request.got else "closed"
                elif request.took(data):
                    outcome = "error" if request.error else "whole"
                else:
                    continue
            except ConnectionRefusedError:
                outcome = "refused"
            except BlockingIOError:
                continue
            except OSError:
                outcome = "reset"
            self._epoll.unregister(number)
            del self._requests[number]
            results.append((request, outcome, time.monotonic() - request.due))

    def _abandon(self) -> list[str]:
        """Close the connections of requests that are not answered; return their streams."""
        left = list(self._requests.values())
        for request in left:
            request.sock.close()
        self._requests.clear()
        return [request.stream for request in left]


def _text(path: str, *, closes: bool) -> bytes:
    ending = "Connection: close\r\n" if closes else ""
    return f"GET {path} HTTP/1.1\r\nHost: study\r\n{ending}\r\n".encode()


def main(port: str) -> None:
    """Carry out commands until standard input ends."""
    raise_limit()
    generator = LoadGenerator(int(port))
    for line in sys.stdin:
        command = json.loads(line)
        reply = getattr(generator, command.pop("do"))(**command)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
