"""Host names of upstream servers: one look-up for many, and their addresses in turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IResolutionReceiver
from twisted.internet.task import Clock
from zope.interface import implementer

from evproxy.errors import SettingsError
from evproxy.model import Ending
from evproxy.upstream.address import parse_upstream
from evproxy.upstream.names import LIFETIME, Names
from tests.support.peers import RESET, Listening, Peer, converse, turn
from tests.support.proxies import Proxied

NAME = "server.test"


@implementer(IHostnameResolver)
class Resolver:
    """Answers when it is told to; at once, if it was told what."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[IAddress] | None = None
        self._receivers: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked.append(hostName)
        self._receivers.append(resolutionReceiver)
        resolutionReceiver.resolutionBegan(self)  # type: ignore[arg-type]
        if self.answers is not None:
            self.answer(*self.answers)
        return self

    def answer(self, *addresses: IAddress) -> None:
        """Answer all that was asked so far."""
        receivers, self._receivers = self._receivers, []
        for receiver in receivers:
            for address in addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()


def v4(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 0)


class Asked:
    """Names on a clock, with a resolver that a test answers for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.resolver = Resolver()
        self.clock.nameResolver = self.resolver  # type: ignore[attr-defined]
        self.names = Names(self.clock)
        self.results: list[Any] = []

    def resolve(self) -> Deferred[Any]:
        """Ask for the name; what comes of it is in `results`."""
        return self.names.resolve(NAME, 5.0).addBoth(self.results.append)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_one_look_up_for_many(asked: Asked) -> None:
    """However many want a name, it is asked once, and all get each address once and in order."""
    for _ in range(100):
        asked.resolve()
    assert asked.resolver.asked == [NAME]
    asked.resolver.answer(
        v4("192.0.2.2"),
        IPv6Address("TCP", "::2", 0),
        v4("192.0.2.2"),
        UNIXAddress(b"x"),
        v4("192.0.2.1"),
    )
    assert asked.results == [("192.0.2.2", "::2", "192.0.2.1")] * 100


def test_an_answer_is_reused_for_its_lifetime(asked: Asked) -> None:
    """In its lifetime an answer is used as it is; then the name is asked once more."""
    assert asked.names.known(NAME) == ()
    asked.resolve()
    asked.resolver.answer(v4("192.0.2.1"))
    asked.clock.advance(LIFETIME - 0.1)
    assert asked.names.known(NAME) == ("192.0.2.1",)
    assert len(asked.resolver.asked) == 1
    asked.clock.advance(0.2)
    for _ in range(3):
        assert asked.names.known(NAME) == ("192.0.2.1",)
    assert len(asked.resolver.asked) == 2
    asked.resolver.answer(v4("192.0.2.9"))
    assert asked.names.known(NAME) == ("192.0.2.9",)


def test_a_failure_keeps_the_last_good_answer(asked: Asked) -> None:
    """An empty answer leaves the addresses in use, for another lifetime."""
    asked.resolve()
    asked.resolver.answer(v4("192.0.2.1"))
    for look_ups in 2, 3:
        asked.clock.advance(LIFETIME + 1)
        asked.names.known(NAME)
        asked.resolver.answer()
        assert asked.names.known(NAME) == ("192.0.2.1",)
        assert len(asked.resolver.asked) == look_ups


def test_a_name_that_has_no_address_is_asked_again(asked: Asked) -> None:
    """Without any good answer the look-up fails, and the next who wants it asks anew."""
    asked.resolve()
    asked.resolver.answer()
    assert asked.results.pop().check(DNSLookupError)
    asked.resolve()
    asked.resolver.answer(v4("192.0.2.1"))
    assert asked.results == [("192.0.2.1",)]


def test_a_cancel_is_for_who_cancels(asked: Asked) -> None:
    """One who does not want the answer any more takes it from nobody else."""
    first, second = asked.resolve(), asked.resolve()
    first.cancel()
    assert asked.results.pop().check(CancelledError)
    asked.resolver.answer(v4("192.0.2.1"))
    assert asked.results == [("192.0.2.1",)]
    assert second.called


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".a", "a b", "a\tb"])
def test_what_no_resolver_can_be_asked_for(host: str) -> None:
    """A name that would break the resolver is refused when it is set."""
    with pytest.raises(SettingsError, match="is not a host"):
        parse_upstream(f"{host}:80")


@pytest.fixture
def resolver(reactor: Any) -> Iterator[Resolver]:
    """Takes the place of the reactor's resolver."""
    resolver = Resolver()
    before = reactor.installNameResolver(resolver)
    yield resolver
    reactor.installNameResolver(before)


async def test_sessions_share_the_look_up(proxied: Proxied, resolver: Resolver) -> None:
    """Sessions that begin while the name is resolved, and later ones, cost one look-up."""
    await proxied.start(upstreams=[f"{NAME}:{proxied.upstream.port}"])
    clients = [proxied.client() for _ in range(5)]
    for client in clients:
        await client.send(b"!")
    while len(proxied.admission.sessions) < 5:
        await turn(proxied.reactor)
    assert resolver.asked == [NAME]
    resolver.answer(v4("127.0.0.1"))
    for _ in clients:
        server = await proxied.upstream.accept()
        assert await server.receive(1) == b"!"
    await proxied.pair()
    assert resolver.asked == [NAME]


async def test_other_sessions_do_not_wait_for_a_look_up(
    proxied: Proxied, resolver: Resolver
) -> None:
    """A resolver that does not answer holds up nobody but who needs the answer."""
    good = f"127.0.0.1:{proxied.upstream.port}"
    await proxied.start(upstreams=[f"{NAME}:1", good])
    for _ in range(4):
        await proxied.client().send(b"!")
    for _ in range(2):
        server = await proxied.upstream.accept()
        assert await server.receive(1) == b"!"
    assert resolver.asked == [NAME]
    resolver.answer()
    for _ in range(2):
        server = await proxied.upstream.accept()
        assert await server.receive(1) == b"!"


async def test_the_addresses_are_tried_in_turn(proxied: Proxied, resolver: Resolver) -> None:
    """An address that refuses is passed over, and the one that answered comes first from then."""
    port = proxied.upstream.port
    resolver.answers = [v4("127.0.0.3"), v4("127.0.0.1")]
    await proxied.start(upstreams=[f"{NAME}:{port}"])
    await converse(*await proxied.pair())
    refusing = proxied.closes(Listening(proxied.reactor, socket.create_server(("127.0.0.3", port))))
    await converse(*await proxied.pair())
    assert refusing.nobody_waits()
    assert proxied.observed.failures == []


async def test_many_addresses_that_refuse(proxied: Proxied, resolver: Resolver) -> None:
    """However many addresses refuse before their connect returns, the next one is tried."""
    addresses = [v4(f"127.1.{high}.{low}") for high in range(4) for low in range(1, 101)]
    resolver.answers = [*addresses, v4("127.0.0.1")]
    await proxied.start(upstreams=[f"{NAME}:{proxied.upstream.port}"], connect_timeout=60)
    await converse(*await proxied.pair())
    assert proxied.observed.failures == []


async def test_the_time_is_shared_by_the_addresses(proxied: Proxied, resolver: Resolver) -> None:
    """An address that never answers leaves time for the next one within the connect timeout."""
    port = proxied.upstream.port
    silent = proxied.closes(
        Listening(proxied.reactor, socket.create_server(("127.0.0.3", port), backlog=0))
    )
    for _ in range(8):
        filling = proxied.closes(Peer(proxied.reactor, socket.socket()))
        filling.socket.connect_ex(("127.0.0.3", port))
    resolver.answers = [v4("127.0.0.3"), v4("127.0.0.1")]
    await proxied.start(upstreams=[f"{NAME}:{port}"], connect_timeout=0.4)
    await converse(*await proxied.pair())
    assert silent.accepted == []


async def test_when_no_address_answers_the_next_server_is_tried(
    proxied: Proxied, resolver: Resolver
) -> None:
    """All the addresses of a name are one server."""
    port = proxied.upstream.port
    resolver.answers = [v4("127.0.0.3"), v4("127.0.0.4")]
    await proxied.start(upstreams=[f"{NAME}:{port}", f"127.0.0.1:{port}"])
    await converse(*await proxied.pair())
    await proxied.observed.until(lambda: len(proxied.observed.failures) < 2)
    assert {name for name, _ in proxied.observed.failures} <= {f"{NAME}:{port}"}


async def test_a_name_that_does_not_exist(proxied: Proxied, resolver: Resolver) -> None:
    """The client is reset, and the name is in the record."""
    resolver.answers = []
    await proxied.start(upstreams=[f"{NAME}:1"])
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    assert f"no address found for '{NAME}'" in proxied.observed.records[0].error


async def test_a_name_that_is_not_resolved_in_time(proxied: Proxied, resolver: Resolver) -> None:
    """The connect timeout bounds the look-up too; an answer that comes late is of use later."""
    await proxied.start(upstreams=[f"{NAME}:{proxied.upstream.port}"], connect_timeout=0.1)
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    [(_, error)] = proxied.observed.failures
    assert error == f"'{NAME}' was not resolved within 0.1 s"
    resolver.answer(v4("127.0.0.1"))
    assert proxied.upstream.nobody_waits()
    await converse(*await proxied.pair())
    assert resolver.asked == [NAME]


async def test_a_client_that_leaves_while_the_name_is_resolved(
    proxied: Proxied, resolver: Resolver
) -> None:
    """Nothing is left of its session, and the answer connects nobody."""
    await proxied.start(upstreams=[f"{NAME}:{proxied.upstream.port}"])
    client = proxied.client()
    while not resolver.asked:
        await turn(proxied.reactor)
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT
    resolver.answer(v4("127.0.0.1"))
    await turn(proxied.reactor)
    assert proxied.upstream.nobody_waits()


async def test_localhost(proxied: Proxied) -> None:
    """A server on 127.0.0.1 only is found as ``localhost``, whatever else that is."""
    await proxied.start(upstreams=[f"localhost:{proxied.upstream.port}"])
    for _ in range(2):
        await converse(*await proxied.pair())
