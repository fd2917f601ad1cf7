"""docs/operating.md is true: restarts with an inherited socket, and the log module."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.python.logfile import LogFile

from tests.support.blocking_clients import page, rest
from tests.support.twistd import JSON_LOG, PATIENCE, ROOT, TWISTD, Running

PAGE = (ROOT / "docs" / "operating.md").read_text()
NAME = "evproxy.socket"

PASS_ON = f"""
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="{NAME}")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a program with a socket as descriptor 3, as systemd does it (sd_listen_fds(3))."""


@pytest.fixture
def kept() -> Iterator[socket.socket]:
    """A listening socket that is open for the whole test."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def started(sock: socket.socket) -> Running:
    """Return a running proxy in front of its own page, which inherits `sock`."""
    passing = [sys.executable, "-c", PASS_ON, str(sock.fileno())]
    [listen] = re.findall(r'^listen = "(.*)"$', PAGE, re.MULTILINE)
    return Running(
        *["evproxy", "--demo", f"--listen={listen}"],
        command=[*passing, TWISTD, "-n", "--pidfile=", JSON_LOG],
        descriptors=[sock.fileno()],
    )


def test_the_page_names_the_socket_that_systemd_passes() -> None:
    """A socket unit without FileDescriptorName passes its own name (systemd.socket(5))."""
    assert f"/etc/systemd/system/{NAME}" in PAGE
    assert "FileDescriptorName" not in PAGE


def test_a_second_instance_serves_while_the_first_one_stops(kept: socket.socket) -> None:
    """While one instance stops, the other instance gets all new connections."""
    _, port = kept.getsockname()
    with started(kept) as first, started(kept) as second:
        for each in (first, second):
            each.says("evproxy .* listens on")
        first.signal(signal.SIGTERM)
        assert first.ended() == 0
        assert b"came through evproxy" in page(port)


def test_a_client_waits_from_one_instance_to_the_next(kept: socket.socket) -> None:
    """While no instance runs, the kernel keeps new clients for the one that starts."""
    with started(kept) as first:
        first.says("evproxy .* listens on")
        first.signal(signal.SIGTERM)
        assert first.ended() == 0
    with socket.create_connection(kept.getsockname(), PATIENCE) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with started(kept):
            assert b"came through evproxy" in rest(client)[0]


def test_the_log_module(tmp_path: Path) -> None:
    """The module on the page keeps its current file and ten old files, and no more."""
    source, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for shown, here in (("/var/log/evproxy", str(tmp_path)), ("100_000_000", "10")):
        assert shown in source
        source = source.replace(shown, here)
    opened: list[LogFile] = []

    def opening(*arguments: Any, **more: Any) -> LogFile:
        opened.append(LogFile(*arguments, **more))
        return opened[-1]

    module: dict[str, Any] = {}
    exec(source, module)
    module["LogFile"] = opening
    observe = module["observer"]()
    for number in range(30):
        observe({"log_format": "event {number}", "number": number, "log_time": 0.0})
    [file] = opened
    file.close()
    assert len(list(tmp_path.iterdir())) == 11
