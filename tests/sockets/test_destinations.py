"""Where a dialer connects to is worked out once, and not for each session."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import ClientFactory

from evproxy.sockets.destination import Destination, tcp_destination, unix_destination
from evproxy.upstream.dialers import AddressDialer, NameDialer, UNIXDialer


class Connects:
    """Remembers where to, and connects nowhere."""

    def __init__(self) -> None:
        self.to: list[Destination] = []

    def connect(self, to: Destination, *arguments: Any) -> Any:
        self.to.append(to)


class Known:
    """Look-ups that know the address of every name."""

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
    """They have the same destination, unless it names a zone, whose number may change."""
    sockets = Connects()
    for _ in range(2):
        dialer.connect(ClientFactory(), 1.0, sockets)
    first, second = sockets.to
    assert (first is second) == same
    assert first == second


def test_what_a_destination_says() -> None:
    """The address in every form, whether it is on this machine, and the risk of the port."""
    near, far = tcp_destination("127.0.0.1", 80), tcp_destination("2001:db8::1", 40000)
    assert (near.name, near.address) == (("127.0.0.1", 80), IPv4Address("TCP", "127.0.0.1", 80))
    assert (near.near, near.ephemeral) == (True, False)
    assert (far.near, far.ephemeral) == (False, True)
    name = ("2001:db8::1", 40000, 0, 0)
    assert (far.name, far.address) == (name, IPv6Address("TCP", *name))
    assert tcp_destination("fe80::1%7", 80).name[3] == 7
    path = unix_destination("/run/server")
    assert (path.name, path.address) == ("/run/server", UNIXAddress("/run/server"))
