"""A service manager as a service sees it: the socket of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.twistd import JSON_LOG, PATIENCE, TWISTD

MOST_DESCRIPTORS = 64
NAMED = ("path", "abstract")


class Manager:
    """
    Receives what a service says.

    `messages` has what was received so far; `descriptors` those that came along, by their
    ``FDNAME``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._open = ExitStack()
        self._socket = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._socket.bind(b"\0" + address[1:].encode() if address.startswith("@") else address)
        self.messages: list[dict[str, str]] = []
        self.descriptors: dict[str, list[int]] = {}

    def receive(self, patience: float = PATIENCE) -> dict[str, str]:
        """Wait for the next message, and return its variables."""
        self._socket.settimeout(patience)
        data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, MOST_DESCRIPTORS)
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        self.messages.append(message)
        for descriptor in descriptors:
            self._open.callback(os.close, descriptor)
        self.descriptors.setdefault(message.get("FDNAME", ""), []).extend(descriptors)
        return message

    def until(self, wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait for a message that is `wanted`, and return it."""
        while not wanted(message := self.receive()):
            pass
        return message

    def ready(self) -> dict[str, str]:
        """Wait until the service says that it is ready."""
        return self.until(lambda message: message.get("READY") == "1")

    def drain(self) -> None:
        """Receive everything that is there."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.receive(0)

    def close(self) -> None:
        self._open.close()


PASS_ON = """
import os, sys
names, passed = sys.argv[1], [int(each) for each in sys.argv[2].split(",")]
copies = [os.dup(each) for each in passed]
for place, each in enumerate(copies):
    os.dup2(each, 3 + place)
    os.set_inheritable(3 + place, True)
os.environ.update(
    LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES=names
)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Runs a program with descriptors from 3 on, as systemd does it (sd_listen_fds(3))."""


def stored_in(descriptors: Sequence[int]) -> dict[str, Any]:
    """The arguments of `Running` for an evproxy that gets `descriptors` from the store."""
    names = ":".join(["evproxy"] * len(descriptors))
    passed = ",".join(map(str, descriptors))
    twistd = [TWISTD, "-n", "--pidfile=", JSON_LOG]
    return {
        "command": [sys.executable, "-c", PASS_ON, names, passed, *twistd],
        "descriptors": descriptors,
    }


@pytest.fixture(params=["path"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    """The service manager of the processes that the test starts."""
    name = f"@evproxy-test-{os.getpid()}-{id(request)}"
    made = Manager(str(tmp_path / "notify") if request.param == "path" else name)
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    yield made
    made.close()
