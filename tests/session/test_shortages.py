"""No server is blamed for what evproxy itself lacks, in sessions and in checks."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evproxy import Discover, Ejection, HealthCheck, Pool
from evproxy.errors import Shortage
from evproxy.model import Ending, Side
from evproxy.policy.shortages import shortage_in, shortage_of
from evproxy.settings import CHECK_KINDS
from evproxy.upstream.dialers import NameDialer
from tests.support.exhaustion import Exhaustion
from tests.support.namespaces import few_local_ports, ip, network_of_its_own
from tests.support.peers import Listening, Peer, converse
from tests.support.pools import Heard
from tests.support.proxies import Proxied
from tests.support.unreachable import Refusing

NOT_PERMITTED, UNREACHABLE, NO_ROUTE = "198.51.100.1", "198.51.100.2", "203.0.113.1"
"""
Routes prohibit the first address and make the second one unreachable; the third has no route.

TEST-NET-2 and -3, RFC 5737.
"""

OURS = {
    NOT_PERMITTED: "this machine does not permit connections to {}",
    NO_ROUTE: "this machine has no route to {}",
}
pytestmark = pytest.mark.deadline(15)

ONE_FAILURE = Ejection(failures=1)


@pytest.fixture(autouse=True)
def network(reactor: Any) -> Iterator[None]:
    """A network namespace for each test, in which some addresses cannot be reached."""
    with network_of_its_own():
        ip(f"route add prohibit {NOT_PERMITTED}")
        ip(f"route add unreachable {UNREACHABLE}")
        yield


@pytest.fixture
def filled() -> Iterator[Any]:
    """Takes every local port to an address until the end of the test."""
    with ExitStack() as stack:

        def fill(port: int, source: str = "") -> int:
            for count in range(100):
                sock = stack.enter_context(socket.socket())
                if source:
                    sock.setsockopt(socket.IPPROTO_IP, 24, 1)
                    sock.bind((source, 0))
                if sock.connect_ex(("127.0.0.1", port)) == errno.EADDRNOTAVAIL:
                    return count
            raise AssertionError("there is no end of local ports")

        yield fill


async def unblamed(proxied: Proxied, what: str) -> None:
    """Check that a session ends because of `what`, without blame, and that it is reported once."""
    observed = proxied.observed
    for count in (1, 2):
        await proxied.client().rest()
        await observed.ended(count)
    record = observed.records[-1]
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.UNREACHABLE)
    assert what in record.error
    assert observed.failures == []
    [told] = observed.pressure
    assert told.startswith(what)
    well(proxied.pool)


def well(pool: Pool) -> None:
    """Check that the state of the first server of `pool` has not changed."""
    status = pool.servers[0]
    assert (status.state, status.connect_failures, status.ejections) == ("up", 0, 0)
    assert (status.sessions, status.connect_time) == (0, 0.0)


@pytest.mark.parametrize("host", OURS)
@pytest.mark.parametrize("endpoint", ["{}:80", "tls:{}:80", "ssl:{}:80"])
async def test_no_way_to_a_server(proxied: Proxied, host: str, endpoint: str) -> None:
    """On any transport, a server is not blamed for the routes of this machine."""
    upstream = endpoint.format(host)
    await proxied.start(upstreams=[upstream], ejection=ONE_FAILURE)
    await unblamed(proxied, OURS[host].format(upstream))


async def test_an_unreachable_host(proxied: Proxied) -> None:
    """EHOSTUNREACH can also mean that the server is gone, so the server is blamed."""
    await proxied.start(upstreams=[f"{UNREACHABLE}:80"])
    await proxied.client().rest()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.by is Side.UPSTREAM
    assert proxied.pool.servers[0].connect_failures == 1
    assert proxied.observed.pressure == []


async def test_no_local_port(proxied: Proxied, filled: Any) -> None:
    """If every local port to a server is taken, the server is not blamed."""
    await proxied.start(ejection=ONE_FAILURE)
    few_local_ports(4)
    assert filled(proxied.upstream.port) == 4
    what = f"no free local port to 127.0.0.1:{proxied.upstream.port}"
    await unblamed(proxied, what)
    assert "net.ipv4.ip_local_port_range" in proxied.observed.pressure[0]


async def test_another_server_has_ports(proxied: Proxied, filled: Any) -> None:
    """Another server has its own local ports, so the session uses that server at once."""
    other = proxied.closes(Listening.tcp(proxied.reactor))
    await proxied.start(
        upstreams=[f"127.0.0.1:{proxied.upstream.port}", f"127.0.0.1:{other.port}"],
        ejection=ONE_FAILURE,
    )
    few_local_ports(4)
    filled(proxied.upstream.port)
    client = proxied.client()
    await converse(client, await other.accept())
    assert len(proxied.observed.pressure) == 1
    well(proxied.pool)


@pytest.mark.parametrize(
    "endpoint",
    [
        "unix:{}",
        "unix:{}:timeout=9",
        "tls:127.0.0.1:1",
        "localhost:1",
        "tls:localhost:1",
        "ssl:localhost:1",
    ],
)
async def test_no_descriptor_on_any_transport(
    proxied: Proxied, tmp_path: Path, endpoint: str
) -> None:
    """On any transport, the server is not blamed, and no traceback is logged."""
    upstream = endpoint.format(tmp_path / "server")
    # Twisted's endpoint for host names takes 0.3 s for each failed address.
    await proxied.start(upstreams=[upstream], connect_timeout=0.6, ejection=ONE_FAILURE)
    newcomer: Peer = proxied.closes(Peer(proxied.reactor, socket.socket()))
    with Exhaustion() as descriptors:
        descriptors.free(1)
        newcomer.socket.connect_ex(proxied.address)
        await proxied.observed.ended()
    assert "no free descriptor" in proxied.observed.records[0].error
    well(proxied.pool)


@pytest.mark.parametrize("kind", CHECK_KINDS)
@pytest.mark.parametrize("host", OURS)
async def test_checks_that_cannot_be_made(reactor: Any, kind: str, host: str) -> None:
    """A check of any kind that meets a shortage has no verdict; it is reported once and goes on."""
    heard = Heard()
    server = f"{host}:80"
    pool = checked_pool(reactor, server, kind, heard)
    pool.start()
    what = await heard.line("began: ")
    missing = OURS[host].format(server)
    assert what.startswith(f"began: the health checks of default cannot run: {missing}: ")
    # The next check has a verdict, once there is a route to the server.
    ip("addr add 198.51.100.77/32 dev lo")
    ip(f"route replace unreachable {host}")
    down = await heard.line(f"{server} down: ")
    assert down == f"{server} down: no route to host (1 of 1)"
    assert heard.lines == [what, down]
    pool.stop()


@pytest.mark.parametrize("kind", CHECK_KINDS)
@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "unix:/nowhere", "localhost:1"])
async def test_checks_without_a_descriptor(reactor: Any, kind: str, endpoint: str) -> None:
    """A check without a descriptor has no verdict."""
    heard = Heard()
    pool = checked_pool(reactor, endpoint, kind, heard)
    with Exhaustion():
        pool.start()
        await heard.line("began: the health checks of default cannot run: this process has no")
        well(pool)
        assert len(heard.lines) == 1
    assert await heard.line(f"{endpoint} down: ")
    pool.stop()


def checked_pool(reactor: Any, server: str, kind: str, heard: Heard) -> Pool:
    """Return a pool of `server` with frequent checks."""
    check = HealthCheck(kind=kind, interval=0.05, timeout=1.0, fall=1, rise=1)
    return Pool(reactor, [server], health_check=check, observer=heard)


async def test_a_probe_of_your_own(reactor: Any) -> None:
    """A user's own probe may report a shortage too; the server keeps its state."""
    heard = Heard()

    class Licensed:
        def check(self, server: object, done: Any) -> Any:
            done(Shortage("no licence is free", "buy more"))
            return lambda: None

    timing = HealthCheck(interval=0.01)
    pool = Pool(
        reactor, ["127.0.0.1:1"], health_check=Licensed(), check_timing=timing, observer=heard
    )
    pool.start()
    line = await heard.line("began: ")
    assert line.endswith("default cannot run: no licence is free: buy more")
    well(pool)
    pool.stop()


@pytest.mark.parametrize(
    ("addresses", "blamed"),
    [
        (("127.0.0.1", NO_ROUTE), True),
        ((NO_ROUTE, "127.0.0.1"), True),
        ((NO_ROUTE, NOT_PERMITTED), False),
        ((NO_ROUTE,), False),
    ],
)
async def test_the_addresses_of_a_name(
    proxied: Proxied, refusing: Refusing, addresses: tuple[str, ...], blamed: bool
) -> None:
    """If one address of a name has no route and another refuses, the server is blamed."""
    known = Known(addresses)
    port = int(refusing().rpartition(":")[2])
    await proxied.start()
    reactor = proxied.reactor
    made = NameDialer(reactor, known, "server.test", port)  # type: ignore[arg-type]
    pool = Pool(reactor, ["server.test:1"], dialer_for=lambda server: made)
    proxied.factory.context.arrival.pool = pool
    await proxied.client().rest()
    await proxied.observed.ended()
    [status] = pool.servers
    assert status.connect_failures == blamed
    assert len(proxied.observed.pressure) == (not blamed)


class Known:
    """A double of `Names` with fixed addresses for every name, and no look-ups."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    def known(self, name: str) -> tuple[str, ...]:
        return self._addresses

    def time_left(self, timeout: float, began: float) -> float:
        return timeout

    def in_order(self, name: str, port: int, addresses: tuple[str, ...]) -> list[str]:
        return list(addresses)


async def test_an_observer_that_hears_no_pressure(proxied: Proxied) -> None:
    """An observer without the methods for pressure causes no error."""

    class Old:
        def connect_failed(self, upstream: str, error: str) -> None: ...

        def accepting_paused(self, why: str) -> None: ...

        def accepting_resumed(self) -> None: ...

    await proxied.start(upstreams=[f"{NO_ROUTE}:80"], observers=[Old()])
    await proxied.client().rest()
    await proxied.observed.ended()
    assert len(proxied.observed.pressure) == 1


@pytest.mark.parametrize("lacking", ["descriptors", "ports"])
async def test_discovery_names_the_shortage(reactor: Any, lacking: str) -> None:
    """If a look-up meets a shortage, the pool keeps its servers; the message names the limit."""
    heard = Heard()
    discover = Discover("dns", name="web.test", port=80, nameservers=("127.0.0.1:53",))
    pool = Pool(reactor, ["127.0.0.1:1"], discover=discover, observer=heard)
    with ExitStack() as stack:
        if lacking == "descriptors":
            stack.enter_context(Exhaustion())
        else:
            few_local_ports(1)
            sock = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            sock.bind(("", 40001))
        pool.start()
        line = await heard.line("discovery: ")
        pool.stop()
    expected = {"descriptors": "LimitNOFILE=", "ports": "net.ipv4.ip_local_port_range"}
    assert expected[lacking] in line
    well(pool)


def test_whose_fault_an_error_is() -> None:
    """The errno and the kind of endpoint decide whether an error is evproxy's or the server's."""
    ours = {"EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EACCES", "EPERM"}
    for name in ours | {"ENETUNREACH", "EADDRINUSE", "EAFNOSUPPORT", "ENETDOWN"}:
        assert shortage_of(getattr(errno, name), "10.0.0.1:80") is not None, name
    for name in "ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ETIMEDOUT", "EAGAIN", "ENOENT":
        assert shortage_of(getattr(errno, name), "10.0.0.1:80") is None, name
    assert shortage_of(errno.EACCES, "unix:/run/server") is None
    no_route = OSError(errno.ENETUNREACH, "")
    for endpoint in "10.0.0.1:80", "tls:10.0.0.1:80", r"ssl:2001\:db8\:\:1:80", "tcp:[::1]:80":
        assert shortage_in(no_route, endpoint) is not None, endpoint
    for endpoint in "tls:server.example:80", "ssl:server.example:80", "tls:host=a.example:port=1":
        assert shortage_in(no_route, endpoint) is None, endpoint
