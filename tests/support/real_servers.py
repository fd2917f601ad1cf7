"""
Real servers as peers: started on ports that the kernel chose, and ended by their process id.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.support.programs import requires_program

START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
LOOK_AGAIN = 0.02


RESTARTABLE_PORTS = range(20_000, 32_768)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """
    Return a port on 127.0.0.1 on which nobody listens.

    The port is below those that the kernel gives to connections (32768 and up), so a server that
    restarts finds its port still free.
    """
    for port in random.sample(RESTARTABLE_PORTS, 1000):
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port was found")


async def until(reactor: Any, holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait, at most `START_DEADLINE` seconds, until `holds` is true."""
    deadline = reactor.seconds() + START_DEADLINE
    while not await holds():
        assert reactor.seconds() < deadline, f"{what} did not happen in {START_DEADLINE:g} s"
        await deferLater(reactor, LOOK_AGAIN)


async def accepts(reactor: Any, port: int) -> bool:
    """Whether a server on 127.0.0.1 accepts connections at `port`."""
    gone: Deferred[None] = Deferred()

    class Visit(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.loseConnection()

        def connectionLost(self, reason: object = None) -> None:
            gone.callback(None)

    factory = Factory.forProtocol(Visit)
    factory.noisy = False
    try:
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    except ConnectError:
        return False
    await gone
    return True


@define
class RealServer:
    """One server process.  Its output is in ``log`` in `directory`."""

    arguments: Sequence[str]
    directory: Path
    user: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process, for the first time or again."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.arguments,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.user,
                env={**os.environ, "LC_ALL": "C"},
            )

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Send the signal `number` to the process, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            process.wait(STOP_DEADLINE)

    def signal(self, number: int) -> None:
        """Send the signal `number`."""
        assert self._process is not None
        self._process.send_signal(number)

    async def started(self, reactor: Any, port: int) -> None:
        """Start the process, and wait until it accepts connections at `port`."""
        self.start()
        await self.listening(reactor, port)

    async def listening(self, reactor: Any, port: int) -> None:
        """Wait until the process accepts connections at `port`."""

        async def holds() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()
            return await accepts(reactor, port)

        await until(reactor, holds, f"{self.arguments[0]} on port {port}")


@define
class RealServers:
    """Makes real servers, each in its own directory, and ends them all."""

    _made: list[RealServer] = field(factory=list, init=False)
    _directories: list[Path] = field(factory=list, init=False)

    def directory(self, user: str | None = None) -> Path:
        """Return a new directory, which `user` owns, and which is removed after the test."""
        path = Path(tempfile.mkdtemp(prefix="evproxy-"))
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self._directories.append(path)
        return path

    def add(self, arguments: Sequence[str], directory: Path, user: str | None = None) -> RealServer:
        """Return a server that is not started yet; its program may be in a daemon's directory."""
        program = requires_program(arguments[0])
        server = RealServer([program, *arguments[1:]], directory, user)
        self._made.append(server)
        return server

    def end(self) -> None:
        """End every server that still runs, and remove their directories."""
        for server in self._made:
            server.stop()
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def real_servers() -> Iterator[RealServers]:
    """Makes real servers, and ends them after the test."""
    servers = RealServers()
    yield servers
    servers.end()
