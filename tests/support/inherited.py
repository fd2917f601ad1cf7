"""A listening socket that this process was started with, as systemd does it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import endpoints
from twisted.python.systemd import ListenFDs


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The address of one that blocks; who adopts it closes it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        descriptor = os.dup(sock.fileno())
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
        monkeypatch.setattr(
            endpoints._SystemdParser,
            "_sddaemon",
            ListenFDs.fromEnvironment(environ, start=descriptor),
        )
        yield sock.getsockname()
