"""The source addresses of connections to servers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from evproxy import HealthCheck, Pool, SettingsError
from evproxy.model import Side
from evproxy.observe.log import TroubleLog
from evproxy.policy.sources import MOST, MOST_KNOWN, TRIED, Sources, addresses_in, source_fault
from evproxy.settings import PoolSettings, in_a_tuple
from evproxy.sockets import connector as connecting
from tests.support.namespaces import few_local_ports, network_of_its_own
from tests.support.peers import Listening, converse
from tests.support.proxies import Proxied

PORTS = 4

pytestmark = pytest.mark.deadline(15)


@pytest.fixture
def network(reactor: Any) -> Iterator[None]:
    """A network of the test's own."""
    with network_of_its_own():
        yield


class Greeting(Factory):
    """A server that greets, and remembers the addresses of its clients."""

    noisy = False

    def __init__(self) -> None:
        self.seen: list[str] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        self.seen.append(addr.host)
        return Greeter()


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"!")


@pytest.fixture
def greeting(network: None, reactor: Any) -> Iterator[Callable[[], tuple[Greeting, str]]]:
    """Makes servers that greet, in the test's network; returns each with its address."""
    ports = []

    def make() -> tuple[Greeting, str]:
        server = Greeting()
        ports.append(reactor.listenTCP(0, server, interface="127.0.0.1"))
        return server, f"127.0.0.1:{ports[-1].getHost().port}"

    yield make
    for port in ports:
        port.stopListening()


async def sessions(proxied: Proxied, most: int) -> int:
    """Return how many sessions can exist at once, at most `most`."""
    for count in range(most):
        client = proxied.client()
        # A client at a UNIX socket sees a reset as an end.
        if await client.some() != b"!":
            return count
    return most


@pytest.mark.parametrize(
    ("source", "expected"),
    [((), PORTS), (("127.0.0.2",), PORTS), (("127.0.1.0/30", "127.0.0.9"), 3 * PORTS)],
)
async def test_as_many_sessions_as_ports(
    greeting: Any, proxied: Proxied, tmp_path: Path, source: tuple[str, ...], expected: int
) -> None:
    """With each source address, one server can have as many more sessions as there are ports."""
    server, address = greeting()
    await proxied.start(listen=f"unix:{tmp_path / 'proxy'}", upstreams=[address], source=source)
    few_local_ports(PORTS)
    assert await sessions(proxied, 100) == expected
    every = {address for each in source for address in addresses_in(each)} or {"127.0.0.1"}
    assert set(server.seen) == every
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.by is Side.PROXY
    assert "no free local port to" in record.error
    assert proxied.pool.servers[0].connect_failures == 0


@pytest.mark.parametrize("late", [True, False])
async def test_a_port_is_used_once_for_each_server(
    greeting: Any, proxied: Proxied, tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local port is used for each server; without IP_BIND_ADDRESS_NO_PORT only for one."""
    if not late:
        monkeypatch.setattr(connecting, "BIND_LATE", None)
    servers = [greeting()[1] for _ in range(2)]
    listen = f"unix:{tmp_path / 'proxy'}"
    await proxied.start(listen=listen, source=("127.0.0.2",), upstreams=servers[:1])
    few_local_ports(PORTS)
    assert await sessions(proxied, PORTS) == PORTS
    proxied.pool.remove(servers[0])
    proxied.pool.add(servers[1])
    assert await sessions(proxied, PORTS) == (PORTS if late else 0)


@pytest.mark.parametrize("endpoint", ["tcp:host=127.0.0.1:port={}", "{}"])
async def test_every_transport_has_the_source(proxied: Proxied, endpoint: str) -> None:
    """Plain sockets and Twisted's endpoints connect from the same addresses."""
    described = endpoint.format(proxied.upstream.port)
    if endpoint == "{}":
        described = f"127.0.0.1:{proxied.upstream.port}"
    await proxied.start(upstreams=[described], source=("127.0.0.5", "127.0.0.6"))
    found = [(await proxied.pair())[1].socket.getpeername()[0] for _ in range(4)]
    assert sorted(found) == ["127.0.0.5"] * 2 + ["127.0.0.6"] * 2


async def test_checks_have_the_source(reactor: Any) -> None:
    """A firewall sees checks and sessions come from the same addresses."""
    server = Listening.tcp(reactor)
    check = HealthCheck(kind="redis", interval=0.01)
    pool = Pool(reactor, [f"127.0.0.1:{server.port}"], health_check=check, source=["127.0.0.7"])
    pool.start()
    visitor = await server.accept()
    assert visitor.socket.getpeername()[0] == "127.0.0.7"
    pool.stop()
    visitor.close()
    server.close()


async def test_a_source_of_another_machine(proxied: Proxied) -> None:
    """An address that this machine does not have is reported, and no server is blamed."""
    await proxied.start(source=("203.0.113.9",))
    await proxied.client().rest()
    await proxied.observed.ended()
    what = "source 203.0.113.9 is not an address of this machine"
    assert what in proxied.observed.records[0].error
    assert proxied.observed.pressure[0].startswith(what)
    assert proxied.pool.servers[0].connect_failures == 0


@pytest.mark.parametrize("endpoint", ["tcp:host=127.0.0.1:port={}", "127.0.0.1:{}"])
async def test_one_source_of_another_machine(
    proxied: Proxied, endpoint: str, warnings_logged: list[str]
) -> None:
    """The other addresses are used, and the log says which one is wrong."""
    upstreams = [endpoint.format(proxied.upstream.port)]
    await proxied.start(upstreams=upstreams, source=("203.0.113.9", "127.0.0.8"))
    for _ in range(3):
        client, server = await proxied.pair()
        assert server.socket.getpeername()[0] == "127.0.0.8"
        await converse(client, server)
    [told] = warnings_logged + proxied.observed.pressure
    assert told.startswith("source 203.0.113.9 is not an address of this machine")


async def test_one_source_of_checks_of_another_machine(
    reactor: Any, warnings_logged: list[str]
) -> None:
    """The checks use the other addresses, and the log says which one is wrong."""
    server = Listening.tcp(reactor)
    check = HealthCheck(kind="redis", interval=0.01)
    source = ["203.0.113.9", "127.0.0.7"]
    servers = [f"127.0.0.1:{server.port}"]
    pool = Pool(reactor, servers, health_check=check, source=source, observer=TroubleLog())
    pool.start()
    for _ in range(2):
        visitor = await server.accept()
        visitor.close()
    pool.stop()
    server.close()
    wrong = "source 203.0.113.9 is not an address of this machine"
    assert [line for line in warnings_logged if line.startswith(wrong)]


async def test_a_mapped_source_and_a_mapped_server(proxied: Proxied) -> None:
    """An IPv4 address in IPv6 form is an IPv4 address, as source and as server."""
    server = f"[::ffff:127.0.0.1]:{proxied.upstream.port}"
    await proxied.start(upstreams=[server], source=("::ffff:127.0.0.8",))
    client = proxied.client()
    peer = await proxied.upstream.accept()
    await converse(client, peer)
    assert peer.socket.getpeername()[0] == "127.0.0.8"


async def test_no_source_of_the_family(proxied: Proxied) -> None:
    """A connect to a server of a family without a source fails, and the server is not blamed."""
    await proxied.start(source=("::1",))
    await proxied.client().rest()
    await proxied.observed.ended()
    assert "source has no address of the family of 127.0.0.1:" in proxied.observed.records[0].error
    assert proxied.pool.servers[0].connect_failures == 0


async def test_an_ipv6_source(reactor: Any, proxied: Proxied) -> None:
    """IPv6 servers are connected from IPv6 addresses."""
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    server = proxied.closes(Listening.tcp(reactor, "::1"))
    await proxied.start(upstreams=[f"[::1]:{server.port}"], source=("127.0.0.5", "::1"))
    client = proxied.client()
    await converse(client, await server.accept())


def test_ranges() -> None:
    """A range stands for the addresses of its hosts."""
    assert addresses_in("10.0.0.5") == ("10.0.0.5",)
    assert addresses_in("10.0.0.4/30") == ("10.0.0.5", "10.0.0.6")
    assert addresses_in("10.0.0.4/31") == ("10.0.0.4", "10.0.0.5")
    assert addresses_in("10.0.0.4/32") == ("10.0.0.4",)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server.example", "it is not an IP address"),
        ("10.0.0.256", "it is not an IP address"),
        ("10.0.0.0/33", "it is not a range of IP addresses"),
        ("10.0.0.5/28", "did you mean 10.0.0.0/28?"),
        ("10.0.0.0/8", f"it has more than {MOST} addresses"),
        ("::/64", f"it has more than {MOST} addresses"),
        ("0.0.0.0", "it is not the address of one host"),
        ("224.0.0.1", "it is not the address of one host"),
        ("fe80::1%eth0", "it has a zone"),
    ],
)
def test_what_is_no_source(text: str, fault: str) -> None:
    """A text that is neither an address nor a range is refused in one line."""
    assert source_fault(text) == fault
    with pytest.raises(
        SettingsError, match=r"source\[0\]: expected an IP address or a range of them"
    ):
        PoolSettings(source=(text,))


def test_settings() -> None:
    """One address is enough, and the number of addresses is bounded."""
    assert PoolSettings(source=in_a_tuple("10.0.0.1")).source == ("10.0.0.1",)
    with pytest.raises(SettingsError, match=f"source: more than {MOST} addresses"):
        PoolSettings(source=("10.0.0.0/22", "10.0.4.0/22"))


def test_turns() -> None:
    """Each address is first in its turn, and no more than a few are tried for one connection."""
    sources = Sources(["10.0.0.0/24", "::1"])
    first = [sources.turn("192.0.2.1", 80)[-1] for _ in range(254)]
    assert len(set(first)) == 254
    assert len(sources.turn("192.0.2.1", 80)) == TRIED
    assert sources.turn("2001:db8::1", 80) == ["::1"]
    assert Sources(["10.0.0.1"]).turn("::1", 80) == []


def test_each_server_has_its_own_turn() -> None:
    """A balancer that takes two servers in turn does not give each of them one address only."""
    sources = Sources(["10.0.0.1", "10.0.0.2"])
    seen: dict[int, list[str]] = {80: [], 81: []}
    for number in range(8):
        port = 80 + number % 2
        seen[port].append(sources.turn("192.0.2.1", port)[-1])
    assert seen == {port: ["10.0.0.1", "10.0.0.2"] * 2 for port in seen}


def test_the_turns_are_bounded() -> None:
    """After so many servers, the turns begin anew."""
    sources = Sources(["10.0.0.1", "10.0.0.2"])
    for port in range(MOST_KNOWN):
        assert sources.turn("192.0.2.1", port)[-1] == "10.0.0.1"
    assert sources.turn("192.0.2.1", 0)[-1] == "10.0.0.2"
    assert sources.turn("192.0.2.1", MOST_KNOWN)[-1] == "10.0.0.1"
    assert sources.turn("192.0.2.1", 0)[-1] == "10.0.0.1"
