"""Health checks of servers by host name: they resolve as sessions do, and hold up nobody."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from evproxy import ProxyService
from evproxy.errors import Shortage
from evproxy.model import UpstreamServer
from evproxy.settings import (
    AccessLogSettings,
    Discover,
    Ejection,
    HealthCheck,
    ListenerSettings,
    PoolSettings,
    Settings,
)
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.names import FAILED_LIFETIME, MOST_THREADS, Names, addresses_of
from evproxy.upstream.probes.endpoints import FIRST_ANSWER, check_endpoints
from evproxy.upstream.probes.probe import probe_for
from tests.support.discovery_recorder import Told
from tests.support.files import replace
from tests.support.look_ups import LookUps, look_ups
from tests.support.peers import Listening, connect, converse, turn
from tests.support.pools import Pooled
from tests.support.visited_server import Listen, Visits, listening

NAME = "server.test"
AT_ONCE = 10.0
"""Seconds in which what is not held up is done, on a machine that is busy."""


@pytest.fixture
def asked() -> Iterator[LookUps]:
    with look_ups() as asked:
        yield asked


@pytest.fixture
def listen(reactor: Any) -> Iterator[Listen]:
    with listening(reactor) as listen:
        yield listen


def at_port(address: str, name: str = NAME) -> str:
    """`name` with the port of `address`."""
    return f"{name}:{address.rpartition(':')[2]}"


async def checked(reactor: Any, names: Names, server: str, check: HealthCheck) -> str | None:
    """What one check of `server` finds whose name `names` resolves."""
    probe = probe_for(reactor, check, check_endpoints(reactor, names, check.timeout))
    result: Deferred[Any] = Deferred()
    probe.check(UpstreamServer(server), result.callback)
    found: str | None = await result
    return found


def often(kind: str = "tcp", **settings: Any) -> HealthCheck:
    """A check that comes often, and a server is down at the first that fails."""
    return HealthCheck(kind=kind, interval=0.05, **{"fall": 1, "timeout": AT_ONCE, **settings})


class Arrivals(ServerFactory):
    """Lets a test wait for connections to a port."""

    noisy = False

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def buildProtocol(self, addr: object) -> None:
        self.count += 1
        due = [each for each in self._waiting if each[0] <= self.count]
        self._waiting = [each for each in self._waiting if each not in due]
        for _, deferred in due:
            deferred.callback(None)

    def more(self, count: int) -> Deferred[None]:
        """Fires once `count` more have come."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((self.count + count, deferred))
        return deferred


async def test_an_outage_of_the_name_server(
    reactor: Any, pooled: Pooled, listen: Listen, asked: LookUps
) -> None:
    """While the name server is gone checks go on at the last addresses, and sessions live."""
    server = pooled.closes(Listening.tcp(reactor))
    names = Names(reactor, 0.01, asked)
    arrivals = Arrivals()
    pooled.start(
        f"{NAME}:{server.port}",
        names=names,
        on_down="reset",
        health_check=often(port=int(listen(arrivals).rpartition(":")[2])),
    )
    client = pooled.client()
    upstream = await server.accept()
    await converse(client, upstream)
    await arrivals.more(1)
    asked.addresses = ()
    before = len(asked.asked)
    while len(asked.asked) < before + 3:
        await arrivals.more(1)
    await arrivals.more(3)
    await converse(client, upstream)
    assert pooled.heard.lines == []
    assert pooled.states() == {f"{NAME}:{server.port}": "up"}


@pytest.mark.deadline(60)
async def test_slow_answers_for_many_names(pooled: Pooled, listen: Listen, asked: LookUps) -> None:
    """With 120 names, and 250 ms for each answer, no check of a healthy server fails."""
    asked.delay = 0.25
    arrivals = Arrivals()
    address = listen(arrivals)
    servers = [at_port(address, f"server-{number}.test") for number in range(120)]
    pooled.start(
        *servers,
        names=Names(pooled.reactor, look_up=asked),
        health_check=HealthCheck(interval=1.0, timeout=0.9, fall=1),
    )
    while len(set(asked.asked)) < len(servers):
        await arrivals.more(1)
    await arrivals.more(2 * len(servers))
    assert pooled.heard.lines == []
    assert len(asked.asked) == len(servers)
    assert asked.most_at_once <= MOST_THREADS


@pytest.mark.deadline(60)
async def test_silent_name_servers_hold_up_nobody_else(
    reactor: Any, listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: LookUps
) -> None:
    """Checks of names that are never answered leave room for sessions, other pools and files."""

    def getaddrinfo(name: str, *arguments: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in asked(name)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    path = tmp_path / "servers.json"
    replace(path, '{"upstreams": ["a.test:1"]}')
    server = Listening.tcp(reactor)
    other = Arrivals()
    check = often()
    silent = tuple(UpstreamServer(f"silent-{number}.test:1") for number in range(100))
    service = ProxyService.from_settings(
        reactor,
        Settings(
            listeners=(ListenerSettings("tcp:0:interface=127.0.0.1", pool="good"),),
            pools=(
                PoolSettings(name="silent", upstreams=silent, health_check=check),
                PoolSettings(
                    name="other", upstreams=(UpstreamServer(listen(other)),), health_check=check
                ),
                PoolSettings(name="good", upstreams=(UpstreamServer(f"{NAME}:{server.port}"),)),
            ),
            access_log=AccessLogSettings(path="off"),
        ),
    )
    service.startService()
    while asked.at_once < 12:
        await turn(reactor)
    began = reactor.seconds()
    await other.more(3)
    told = Told()
    discovery = discovery_for(
        reactor,
        Discover("file", path=str(path), min_interval=0.05),
        None,  # type: ignore[arg-type]
    )
    discovery.start(told.changed, told.failed)
    await told.servers("a.test:1")
    address = service.addresses[0]
    assert isinstance(address, IPv4Address)
    client = connect(reactor, ("127.0.0.1", address.port))
    upstream = await server.accept()
    await converse(client, upstream)
    await deferToThread(int)
    replace(path, '{"upstreams": ["b.test:1"]}')
    await told.servers("b.test:1")
    assert reactor.seconds() - began < AT_ONCE
    assert asked.most_at_once <= MOST_THREADS
    # Each name is asked for once, however often it is checked.
    assert len(asked.asked) == len(set(asked.asked))
    discovery.stop()
    client.close()
    server.close()
    await service.drain(0)


NO_THREAD = "every thread for look-ups waits for a name server"


@pytest.fixture
def silent_names(reactor: Any, asked: LookUps, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names of which so many are never answered that none is left to look up another."""
    monkeypatch.setattr("evproxy.upstream.probes.endpoints.FIRST_ANSWER", 0.2)
    names = Names(reactor, look_up=asked)
    for number in range(MOST_THREADS):
        names.resolve(f"silent-{number}.test", None).addErrback(lambda failure: None)
    yield names
    names.stop()


@pytest.mark.parametrize("server", [f"{NAME}:1", f"tls:{NAME}:1", f"ssl:{NAME}:1"])
async def test_a_name_that_waits_for_other_look_ups(
    reactor: Any, asked: LookUps, silent_names: Names, server: str
) -> None:
    """A check whose look-up was never begun is no verdict; that of a silent name is one."""
    while asked.at_once < MOST_THREADS:
        await turn(reactor)
    found: Any = await checked(reactor, silent_names, server, HealthCheck())
    assert isinstance(found, Shortage)
    assert (found.what, found.everywhere) == (NO_THREAD, False)
    silent = server.replace(NAME, "silent-1.test")
    assert isinstance(await checked(reactor, silent_names, silent, HealthCheck()), str)


@pytest.mark.parametrize("by_name", [f"{NAME}:1", f"tls:{NAME}:1", f"ssl:{NAME}:1"])
async def test_a_session_whose_name_waits_for_other_look_ups(
    reactor: Any, pooled: Pooled, asked: LookUps, silent_names: Names, by_name: str
) -> None:
    """It goes to the next server, and the one by name is not blamed."""
    server = pooled.closes(Listening.tcp(reactor))
    pooled.start(
        by_name,
        f"127.0.0.1:{server.port}",
        names=silent_names,
        connect_timeout=0.2,
        ejection=Ejection(failures=1),
    )
    while asked.at_once < MOST_THREADS:
        await turn(reactor)
    await converse(pooled.client(), await server.accept())
    assert set(pooled.states().values()) == {"up"}


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (HealthCheck(timeout=AT_ONCE), b""),
        (
            HealthCheck(kind="http", timeout=AT_ONCE),
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (HealthCheck(kind="redis", timeout=AT_ONCE), b"+PONG\r\n"),
        (HealthCheck(kind="send-expect", send="?", expect="!", timeout=AT_ONCE), b"!"),
    ],
    ids=lambda given: given.kind if isinstance(given, HealthCheck) else "",
)
@pytest.mark.parametrize("written", ["{}", "tcp:{}:timeout=9"])
async def test_the_addresses_are_tried_in_turn(
    reactor: Any, listen: Listen, asked: LookUps, check: HealthCheck, answer: bytes, written: str
) -> None:
    """An address that refuses is passed over."""
    asked.addresses = ("127.0.0.3", "127.0.0.1")
    names = Names(reactor, look_up=asked)
    server = written.format(at_port(listen(Visits(answer=answer))))
    assert await checked(reactor, names, server, check) is None
    assert await checked(reactor, names, server, check) is None
    assert asked.asked == [NAME]


async def test_a_handshake_goes_to_the_addresses_in_turn(
    reactor: Any, listen: Listen, asked: LookUps
) -> None:
    """The ``tls`` check reaches the address that takes connections, where no TLS is spoken."""
    asked.addresses = ("127.0.0.3", "127.0.0.1")
    visits = Visits(answer=b"not TLS")
    check = HealthCheck(kind="tls", timeout=AT_ONCE)
    reason = await checked(reactor, Names(reactor, look_up=asked), at_port(listen(visits)), check)
    assert reason is not None
    assert reason.startswith("TLS: ")
    assert visits.made == 1


async def test_the_address_that_answered_comes_first(
    reactor: Any, listen: Listen, asked: LookUps
) -> None:
    """Later checks, and sessions, begin with the address that answered."""
    asked.addresses = ("127.0.0.3", "127.0.0.1")
    names = Names(reactor, look_up=asked)
    address = listen(Visits())
    port = int(address.rpartition(":")[2])
    assert await checked(reactor, names, at_port(address), HealthCheck(timeout=AT_ONCE)) is None
    refusing = Listening(reactor, socket.create_server(("127.0.0.3", port)))
    assert await checked(reactor, names, at_port(address), HealthCheck(timeout=AT_ONCE)) is None
    assert refusing.nobody_waits()
    assert names.in_order(NAME, port, asked.addresses) == ["127.0.0.1", "127.0.0.3"]
    refusing.close()


async def test_all_addresses_have_their_part_of_the_time(
    reactor: Any, listen: Listen, asked: LookUps
) -> None:
    """An address that never answers leaves time for the next one within the check's."""
    address = listen(Visits())
    port = int(address.rpartition(":")[2])
    silent = socket.create_server(("127.0.0.3", port), backlog=0)
    filling = [socket.socket() for _ in range(8)]
    for each in filling:
        each.setblocking(False)
        each.connect_ex(("127.0.0.3", port))
    asked.addresses = ("127.0.0.3", "127.0.0.1")
    names = Names(reactor, look_up=asked)
    assert await checked(reactor, names, at_port(address), HealthCheck(timeout=0.6)) is None
    for each in [silent, *filling]:
        each.close()


@pytest.mark.parametrize("written", ["{}", "tcp:{}:timeout=9"])
async def test_the_time_of_a_check_begins_with_the_address(
    reactor: Any, listen: Listen, asked: LookUps, written: str
) -> None:
    """A look-up that takes longer than the check's timeout is no failure."""
    asked.delay = 0.6
    names = Names(reactor, look_up=asked)
    server = written.format(at_port(listen(Visits())))
    assert await checked(reactor, names, server, HealthCheck(timeout=0.3)) is None


async def test_a_pool_gives_a_look_up_its_time(
    pooled: Pooled, listen: Listen, asked: LookUps
) -> None:
    """The pool too counts a check's time from when the address is known."""
    asked.delay = 0.6
    arrivals = Arrivals()
    server = at_port(listen(arrivals))
    pooled.start(
        server, names=Names(pooled.reactor, look_up=asked), health_check=often(timeout=0.3)
    )
    await arrivals.more(2)
    assert pooled.heard.lines == []


async def test_a_server_that_never_answers_is_found_in_time(reactor: Any, asked: LookUps) -> None:
    """After the look-up the check has its timeout and no more."""
    names = Names(reactor, look_up=asked)
    with listening(reactor) as listen:
        server = at_port(listen(Visits()))
        reason = await checked(reactor, names, server, HealthCheck(kind="redis", timeout=0.2))
    assert reason == "timed out after 0.2 s"


class Unanswered:
    """A resolver that never answers."""

    def resolveHostName(self, *arguments: Any, **options: Any) -> None:
        """There is no answer."""


def test_the_first_answer_is_not_waited_for_without_end() -> None:
    """A name that was never resolved fails the check after `FIRST_ANSWER`; no timer is left."""
    clock: Any = Clock()
    clock.nameResolver = Unanswered()
    check = HealthCheck()
    probe = probe_for(clock, check, check_endpoints(clock, Names(clock), check.timeout))
    told: list[Any] = []
    probe.check(UpstreamServer(f"{NAME}:80"), told.append)
    clock.advance(FIRST_ANSWER - 0.1)
    assert told == []
    clock.advance(0.1)
    # Told in a turn of its own, so that whoever asks can cancel before.
    clock.advance(0)
    assert told == [f"'{NAME}' was not resolved within {FIRST_ANSWER:g} s"]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("server", [f"{NAME}:80", f"tcp:{NAME}:80:timeout=9", f"ssl:{NAME}:443"])
def test_a_check_that_is_cancelled_leaves_nothing(server: str) -> None:
    """A check that is cancelled while its name is looked up leaves no timer."""
    reactor: Any = Clock()
    reactor.nameResolver = Unanswered()
    check = HealthCheck()
    probe = probe_for(reactor, check, check_endpoints(reactor, Names(reactor), check.timeout))
    told: list[Any] = []
    cancel = probe.check(UpstreamServer(server), told.append)
    assert reactor.getDelayedCalls() != []
    cancel()
    assert reactor.getDelayedCalls() == []
    assert told == []


async def test_a_name_without_an_address(reactor: Any, asked: LookUps) -> None:
    """Checks do not ask again at once for a name that has none; a session does."""
    asked.addresses = ()
    names = Names(reactor, look_up=asked)
    for _ in range(3):
        reason = await checked(reactor, names, f"{NAME}:80", HealthCheck())
        assert reason == "the name cannot be resolved"
    assert reactor.seconds() < 3 * FAILED_LIFETIME or len(asked.asked) <= 2
    asked.addresses = ("127.0.0.1",)
    assert await names.resolve(NAME, AT_ONCE) == ("127.0.0.1",)


async def test_a_session_overtakes_the_look_ups_of_checks(reactor: Any, asked: LookUps) -> None:
    """A session gets an answer for a name that a check already waits for in the line."""
    names = Names(reactor, look_up=asked)
    silent = [names.resolve_again(f"silent-{number}", AT_ONCE) for number in range(30)]
    waits = names.resolve_again(NAME, AT_ONCE)
    assert await names.resolve(NAME, AT_ONCE) == ("127.0.0.1",)
    assert await waits == ("127.0.0.1",)
    names.stop()
    for each in silent:
        each.addErrback(lambda failure: None)


async def test_stopped_while_a_look_up_hangs(pooled: Pooled, asked: LookUps) -> None:
    """A pool that stops leaves no timer for its look-ups, and no session waits on."""
    asked.silent = ""
    names = Names(pooled.reactor, look_up=asked)
    pooled.start(
        *(f"silent-{number}.test:1" for number in range(30)), names=names, health_check=often()
    )
    pooled.client()
    while asked.at_once < 13:
        await turn(pooled.reactor)
    pooled.pool.stop()
    names.stop()


@pytest.mark.parametrize("written", ["ssl:{}", "tls:{}", "tcp:{}:timeout=9"])
async def test_sessions_by_other_endpoints(
    reactor: Any, pooled: Pooled, listen: Listen, asked: LookUps, written: str
) -> None:
    """Whatever endpoint a server is written as, its name is resolved in the same place."""
    visits = Visits()
    pooled.start(written.format(at_port(listen(visits))), names=Names(reactor, look_up=asked))
    pooled.client()
    await visits.connected()
    assert asked.asked == [NAME]


async def test_a_resolver_of_the_application(
    reactor: Any, pooled: Pooled, listen: Listen, asked: LookUps
) -> None:
    """A resolver that was installed on the reactor is asked, once, for checks and sessions."""
    resolver = Installed()
    before = reactor.installNameResolver(resolver)
    server = pooled.closes(Listening.tcp(reactor))
    arrivals = Arrivals()
    try:
        pooled.start(
            f"{NAME}:{server.port}",
            on_down="reset",
            health_check=often(port=int(listen(arrivals).rpartition(":")[2])),
        )
        await arrivals.more(1)
        resolver.addresses = ()
        client = pooled.client()
        upstream = await server.accept()
        await arrivals.more(3)
        await converse(client, upstream)
    finally:
        reactor.installNameResolver(before)
    assert pooled.heard.lines == []
    assert resolver.asked == [NAME]


class Installed:
    """A resolver that answers at once."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ("127.0.0.1",)
        self.asked: list[str] = []

    def resolveHostName(
        self, receiver: Any, name: str, port: int = 0, *arguments: Any, **options: Any
    ) -> None:
        self.asked.append(name)
        for each in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", each, port))
        receiver.resolutionComplete()


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "no more"), ZeroDivisionError()])
async def test_a_look_up_that_breaks(reactor: Any, error: Exception, logged_errors: Any) -> None:
    """Whatever a look-up raises ends it, and the reason says what it was."""

    def broken(name: str) -> tuple[str, ...]:
        raise error

    reason = await checked(reactor, Names(reactor, look_up=broken), f"{NAME}:80", HealthCheck())
    expected = {OSError: "this process has no free descriptor: ", ZeroDivisionError: "ZeroDiv"}
    assert str(reason).startswith(expected[type(error)])
    assert len(logged_errors.flush()) == (type(error) is ZeroDivisionError)


@pytest.mark.parametrize(
    ("found", "addresses"),
    [
        ([(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0))] * 2, ("192.0.2.1",) * 2),
        ([(socket.AF_INET6, 1, 6, "", ("fe80::1", 0, 0, 2))], ("fe80::1%2",)),
        ([(socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0))], ("2001:db8::1",)),
        (socket.gaierror(socket.EAI_AGAIN, "later"), ()),
        (UnicodeError("label too long"), ()),
    ],
)
def test_what_getaddrinfo_answers(
    found: Any, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses come in its order, with the zone of those that have one; a failure is none."""

    def getaddrinfo(*arguments: Any, **options: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert addresses_of(NAME) == addresses
