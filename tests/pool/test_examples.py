"""The examples of a balancer, a health check and a discovery of one's own, as they are run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred

from tests.support.peers import Peer, connect
from tests.support.real_servers import accepts, free_port, until
from tests.support.twistd import ROOT, environment
from tests.support.visited_server import Visits

EXAMPLES = ROOT / "examples"
LISTEN = "LISTEN"
MOST_OUTPUT = 1 << 22


class Example:
    """An example that runs, and its clients."""

    def __init__(self, reactor: Any, name: str, *arguments: str) -> None:
        self._reactor = reactor
        self._port = free_port()
        listen = f"tcp:{self._port}:interface=127.0.0.1"
        self._clients: list[Peer] = []
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLES / name),
                *(listen if each == LISTEN else each for each in arguments),
            ],
            env=environment(),
            stdout=self._output,
        )

    async def listening(self) -> None:
        """Wait until it takes connections."""
        await until(
            self._reactor, lambda: accepts(self._reactor, self._port), "an example listening"
        )

    async def session(self) -> tuple[Peer, bytes]:
        """A client, and the greeting of the server that its session is on; none if it has none."""
        client = connect(self._reactor, ("127.0.0.1", self._port))
        self._clients.append(client)
        try:
            return client, await client.some()
        except ConnectionResetError:
            return client, b""

    async def sessions(self, *greetings: bytes) -> None:
        """Wait until the sessions that come are all on servers with one of `greetings`."""

        async def holds() -> bool:
            seen = {(await self.session())[1] for _ in range(2 * len(greetings) + 2)}
            return seen == set(greetings)

        await until(self._reactor, holds, f"sessions on {greetings}")

    async def says(self, text: str) -> None:
        """Wait until it has written `text`."""

        async def holds() -> bool:
            # Without moving the offset, at which the example writes.
            return text in os.pread(self._output.fileno(), MOST_OUTPUT, 0).decode()

        await until(self._reactor, holds, f"{text!r} in what an example writes")

    async def ended(self) -> None:
        """Wait for its end, once its clients have gone and it has been told to end."""
        for client in self._clients:
            client.close()
        self._process.send_signal(signal.SIGTERM)

        async def holds() -> bool:
            return self._process.poll() is not None

        await until(self._reactor, holds, "the end of an example")

    def close(self) -> None:
        """Nothing of it is left."""
        for client in self._clients:
            client.close()
        self._process.kill()
        self._process.wait()
        self._output.close()


@contextmanager
def running(reactor: Any, name: str, *arguments: str) -> Iterator[Example]:
    """The example `name`, which listens where `LISTEN` stands in `arguments`."""
    example = Example(reactor, name, *arguments)
    try:
        yield example
    finally:
        example.close()


def greeting(reactor: Any, text: bytes) -> Any:
    """A port of 127.0.0.1 whose clients are greeted with `text`."""
    return reactor.listenTCP(0, Visits(text, answer=text), interface="127.0.0.1")


async def test_own_balancer(reactor: Any) -> None:
    """All sessions go to the first server, and to the second only when that one is away."""
    ports = [greeting(reactor, b"") for _ in range(2)]
    ports.sort(key=lambda port: f"127.0.0.1:{port.getHost().port}")
    for port, text in zip(ports, (b"first", b"second"), strict=True):
        port.factory.greeting = text
    addresses = [f"127.0.0.1:{port.getHost().port}" for port in ports]
    with running(reactor, "own_balancer.py", LISTEN, *reversed(addresses)) as example:
        await example.listening()
        await example.sessions(b"first")
        await maybeDeferred(ports[0].stopListening)
        await example.sessions(b"second")
        await example.ended()
    await maybeDeferred(ports[1].stopListening)


async def test_own_health_check(reactor: Any, tmp_path: Path) -> None:
    """A server for which the program ends with another status than 0 gets no sessions."""
    ports = [greeting(reactor, text) for text in (b"one", b"other")]
    addresses = [f"127.0.0.1:{port.getHost().port}" for port in ports]
    sick, program = tmp_path / "sick", tmp_path / "is-well"
    sick.write_text("")
    program.write_text(
        f'#!/bin/sh\nif grep -q "$1" {sick}; then echo; echo "the disk is full"; exit 1; fi\n'
    )
    program.chmod(0o755)
    with running(reactor, "own_health_check.py", str(program), LISTEN, *addresses) as example:
        await example.listening()
        await example.sessions(b"one", b"other")
        sick.write_text(addresses[0])
        await example.says(f"default/{addresses[0]} down: the disk is full (")
        await example.sessions(b"other")
        sick.write_text("")
        await example.says(f"default/{addresses[0]} up: check passed (2 of 2)")
        await example.sessions(b"one", b"other")
        await example.ended()
    for port in ports:
        await maybeDeferred(port.stopListening)


async def test_own_discovery(reactor: Any, tmp_path: Path) -> None:
    """Sockets in the directory are servers while they are there; what is begun goes on."""
    with running(reactor, "own_discovery.py", str(tmp_path), LISTEN) as example:
        await example.listening()
        one = reactor.listenUNIX(str(tmp_path / "one.sock"), Visits(b"one", answer=b"still one"))
        await example.says(f"default/unix:{tmp_path}/one.sock added: discovered")
        await example.sessions(b"one")
        client, _ = await example.session()
        other = reactor.listenUNIX(str(tmp_path / "other.sock"), Visits(b"other"))
        await example.sessions(b"one", b"other")
        await maybeDeferred(one.stopListening)
        await example.says(f"default/unix:{tmp_path}/one.sock draining: no longer discovered")
        await example.sessions(b"other")
        await client.send(b"?")
        assert await client.receive(9) == b"still one"
        away = tmp_path.with_name("away")
        tmp_path.rename(away)
        await example.says(
            f"default keeps the servers it has: {tmp_path}: No such file or directory"
        )
        away.rename(tmp_path)
        await example.says("default discovers its servers again")
        await example.ended()
    await maybeDeferred(other.stopListening)
