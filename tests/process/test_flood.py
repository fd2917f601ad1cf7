"""A flood from one network, and what the sessions of another one take meanwhile."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.twistd import PATIENCE, Running, wait_until

BOUND = 100
"""The bound on all sessions."""

FLOOD = 10 * BOUND
"""How many connections the flood has under way."""

PACE = 0.0005
"""Seconds between two connects of the flood: up to 2,000 a second come and are reset."""

VISITS = 500

CONFIG = """
max_sessions = {bound}

[[listeners]]
name = "web"
listen = "tcp:0:interface=127.0.0.1"
max_sessions_per_peer = 10

[pools.web]
upstreams = ["127.0.0.1:{port}"]

[access_log]
path = "off"
"""


class Flood:
    """Connects from 127.0.1.1, again and again, and holds what is not reset."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.connects = 0

    def run(self) -> None:
        """Until `stop`."""
        held: list[socket.socket] = []
        while not self._over.wait(PACE):
            with contextlib.suppress(OSError):
                sock = socket.socket()
                sock.bind(("127.0.1.1", 0))
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", self._port))
                held.append(sock)
                self.connects += 1
            if len(held) >= FLOOD:
                held.pop(0).close()
        for sock in held:
            sock.close()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """The flood runs meanwhile, and is at its full size."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            wait_until(lambda: self.connects >= FLOOD)
            yield
        finally:
            self._over.set()
            thread.join(PATIENCE)


class Echo(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(1024):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server with a thread for each connection."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join(PATIENCE)


def visit(port: int) -> float:
    """The seconds that one session from 127.0.0.2 takes, with one byte each way."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) as client:
        client.sendall(b"?")
        assert client.recv(1) == b"?"
    return time.monotonic() - began


@pytest.mark.many_descriptors
def test_a_flood_from_one_network(
    echo: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """
    Every session of another network is served, though the flood is at ten times the bound.

    The test states the median and the longest session without and with the flood.
    """
    file = tmp_path / "evproxy.toml"
    file.write_text(CONFIG.format(bound=BOUND, port=echo))
    with Running("evproxy", f"--config={file}") as proxy:
        port = proxy.port()
        before = sorted(visit(port) for _ in range(VISITS))
        flood = Flood(port)
        with flood.under_way():
            during = sorted(visit(port) for _ in range(VISITS))
        for name, times in (("before", before), ("during", during)):
            record_property(f"median_{name}", times[VISITS // 2])
            record_property(f"longest_{name}", times[-1])
        # A session that had to wait for a place would wait for the end of the flood.
        assert during[VISITS // 2] < 1.0
        proxy.says(r"web refused \d+ clients: client-sessions, the last from 127\.0\.1\.1")
