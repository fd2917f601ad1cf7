"""HAProxy as a server that answers each request itself, for clients that load a proxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import requires_program
from tests.support.real_servers import RealServer, free_port
from tests.support.twistd import wait_until

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
