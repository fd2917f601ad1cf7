"""A real DNS server whose zone a test writes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

from tests.support.programs import requires_program
from tests.support.real_servers import RealServer, RealServers, free_port

CONFIGURATION = """
server:
    rundir: "{directory}"
    pidfile: "{directory}/pid"
    listen: ["127.0.0.1@{port}", "::1@{port}"]
    tcp-workers: 1
    udp-workers: 1
    background-workers: 1
control:
    listen: "{directory}/control"
log:
  - target: stderr
    any: info
database:
    storage: "{directory}"
zone:
  - domain: example.test
    storage: "{directory}"
    file: zone
"""

HEADER = """
$ORIGIN example.test.
$TTL 0
@ SOA ns.example.test. admin.example.test. {serial} 60 60 60 0
@ NS ns.example.test.
ns A 127.0.0.1
"""


@define
class NameServer:
    """A Knot DNS server on a loopback port with one zone, ``example.test``."""

    server: RealServer
    port: int
    _serial: int = field(default=1, init=False)

    @property
    def directory(self) -> Path:
        return self.server.directory

    def write(self, records: str) -> None:
        """Write `records` to the zone's file."""
        self._serial += 1
        text = HEADER.format(serial=self._serial) + records + "\n"
        (self.directory / "zone").write_text(text)

    def change(self, records: str) -> None:
        """Change the zone to `records`, and reload the server."""
        self.write(records)
        control = ["-c", str(self.directory / "knot.conf"), "-b", "zone-reload", "example.test"]
        knotc = requires_program("knotc")
        subprocess.run([knotc, *control], check=True, stdout=subprocess.DEVNULL)


@define
class PlayedNameServer(DatagramProtocol):
    """
    A double of a name server, for answers that no real name server gives, or for no answer.

    :param answer: fills in the answer to a question; returns ``False`` for no answer.
    """

    answer: Callable[[str, int, dns.Message], bool]
    asked: list[int] = field(factory=list, init=False)
    cut: int = 0
    """How many bytes of the end of each answer are missing."""
    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        query = dns.Message()
        query.fromStr(datagram)
        question = query.queries[0]
        self.asked.append(question.type)
        answer = dns.Message(query.id, answer=1)
        answer.queries = query.queries
        if self.answer(question.name.name.decode(), question.type, answer):
            assert self.transport is not None
            data = answer.toStr()
            self.transport.write(data[: len(data) - self.cut], addr)


@contextmanager
def played(reactor: Any, server: PlayedNameServer) -> Iterator[int]:
    """The port at which `server` answers until the end of the block."""
    port = reactor.listenUDP(0, server, interface="127.0.0.1")
    yield port.getHost().port
    port.stopListening()


async def name_server(reactor: Any, servers: RealServers, records: str) -> NameServer:
    """A name server that answers."""
    port, directory = free_port(), servers.directory()
    configuration = directory / "knot.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port))
    made = NameServer(servers.add(["knotd", "-c", str(configuration)], directory), port)
    made.write(records)
    await made.server.started(reactor, port)
    return made
