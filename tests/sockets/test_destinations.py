"""A dialer makes its destination once, and not for each session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import ClientFactory

from evproxy.sockets import destination
from evproxy.sockets.destination import (
    FIRST_LOCAL_PORT,
    Destination,
    first_local_port,
    tcp_destination,
    unix_destination,
)
from evproxy.upstream.dialers import AddressDialer, NameDialer, UNIXDialer
from tests.support.namespaces import few_local_ports, network_of_its_own
from tests.support.proxies import Proxied


class Connects:
    """Remembers the destinations, and does not connect."""

    def __init__(self) -> None:
        self.to: list[Destination] = []

    def connect(self, to: Destination, *arguments: Any) -> Any:
        self.to.append(to)


class Known:
    """Look-ups that have one address for every name."""

    def known(self, name: str) -> tuple[str, ...]:
        return ("127.0.0.1",)


@pytest.mark.parametrize(
    ("dialer", "same"),
    [
        (AddressDialer("127.0.0.1", 80), True),
        (UNIXDialer("/run/server"), True),
        (NameDialer(None, Known(), "server.test", 80), True),  # type: ignore[arg-type]
        (AddressDialer("fe80::1%lo", 80), False),
    ],
)
def test_two_connects_of_a_dialer(dialer: Any, same: bool) -> None:
    """They have the same destination, unless its address has a zone, whose number may change."""
    sockets = Connects()
    for _ in range(2):
        dialer.connect(ClientFactory(), 1.0, sockets)
    first, second = sockets.to
    assert (first is second) == same
    assert first == second


def test_what_a_destination_says() -> None:
    """A destination has the address in each form, and says whether it is a loopback address."""
    near, far = tcp_destination("127.0.0.1", 80), tcp_destination("2001:db8::1", 40000)
    assert (near.name, near.address) == (("127.0.0.1", 80), IPv4Address("TCP", "127.0.0.1", 80))
    assert (near.near, far.near) == (True, False)
    name = ("2001:db8::1", 40000, 0, 0)
    assert (far.name, far.address) == (name, IPv6Address("TCP", *name))
    assert tcp_destination("fe80::1%7", 80).name[3] == 7
    path = unix_destination("/run/server")
    assert (path.name, path.address) == ("/run/server", UNIXAddress("/run/server"))


@pytest.mark.parametrize(
    ("text", "first"),
    [("15000\t61000\n", 15000), ("", FIRST_LOCAL_PORT), ("none", FIRST_LOCAL_PORT)],
)
def test_the_first_local_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, first: int
) -> None:
    """It is read from the kernel; if that fails, it is the default."""
    path = tmp_path / "range"
    monkeypatch.setattr(destination, "LOCAL_PORTS", str(path))
    assert first_local_port() == FIRST_LOCAL_PORT
    path.write_text(text)
    assert first_local_port() == first


@pytest.mark.deadline(5)
@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
@pytest.mark.parametrize("source", [(), ("127.0.0.1",)])
async def test_a_socket_that_connects_to_itself(
    proxied: Proxied, tmp_path: Path, source: tuple[str, ...]
) -> None:
    """It does not count as a server, whatever range of ports the kernel chooses from."""
    with network_of_its_own():
        few_local_ports(1, first=20001)
        await proxied.start(
            listen=f"unix:{tmp_path / 'proxy'}", upstreams=["127.0.0.1:20001"], source=source
        )
        assert await proxied.client().some() == b""
        await proxied.observed.ended()
    assert "connected to itself" in proxied.observed.records[0].error
