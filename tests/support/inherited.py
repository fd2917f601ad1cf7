"""Listening sockets that this process seems to inherit from systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import endpoints
from twisted.python.systemd import ListenFDs


def hand_over(monkeypatch: pytest.MonkeyPatch, sock: socket.socket) -> int:
    """Make a duplicate of `sock` the one descriptor of ``systemd:``, named ``web``."""
    descriptor = os.dup(sock.fileno())
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    monkeypatch.setattr(
        endpoints._SystemdParser,
        "_sddaemon",
        ListenFDs.fromEnvironment(environ, start=descriptor),
    )
    return descriptor


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The address of an inherited TCP socket, which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        hand_over(monkeypatch, sock)
        yield sock.getsockname()


@pytest.fixture
def inherited_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The path of an inherited UNIX socket that only its user may connect to."""
    path = tmp_path / "inherited"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(bytes(path))
        path.chmod(0o600)
        sock.listen()
        hand_over(monkeypatch, sock)
        yield path
