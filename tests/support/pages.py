"""HAProxy as a server that answers each request itself, for clients that load a proxy."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.programs import requires_program
from tests.support.real_servers import RealServer, free_port
from tests.support.twistd import PATIENCE, wait_until

HAPROXY = """
global
  maxconn 4000
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend pages
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.2:{port} backlog 4096
  http-request return status 200 content-type text/plain string "here"
"""


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[int]:
    """The port of HAProxy on 127.0.0.1 and 127.0.0.2, which answers each request itself."""
    port, file = free_port(), tmp_path / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=port))
    server = RealServer([requires_program("haproxy"), "-db", "-f", str(file)], tmp_path)
    server.start()
    wait_until(lambda: answers(port))
    yield port
    server.stop()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class PageLoad:
    """Clients that ask for a page, each on a new connection; `outcome` is what wrk said of them."""

    def __init__(self) -> None:
        self.outcome = ""

    @property
    def per_second(self) -> float:
        """How many connections there were in a second."""
        rate = re.search(r"Requests/sec:\s+([\d.]+)", self.outcome)
        assert rate is not None, self.outcome
        return float(rate[1])

    def check(self) -> None:
        """Every client was served."""
        assert "Socket errors" not in self.outcome, self.outcome
        assert "Non-2xx" not in self.outcome, self.outcome


@contextmanager
def page_load(port: int, clients: int) -> Iterator[PageLoad]:
    """`clients` at a time ask for pages at `port` of 127.0.0.1, until the context is left."""
    load = PageLoad()
    process = subprocess.Popen(
        [
            *(requires_program("wrk"), "-t1", f"-c{clients}", "-d120"),
            *("-HConnection: close", f"http://127.0.0.1:{port}/"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield load
    finally:
        process.send_signal(signal.SIGINT)
        load.outcome = process.communicate(timeout=PATIENCE)[0]
