"""Code between a socket and the half of a session, which closes the connection on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from evproxy.model import Ending, Phase, Side
from evproxy.session.connecting import Connecting
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import UpstreamFactory
from tests.support.peers import Peer, turn
from tests.support.proxies import Proxied

LOSE, ABORT = "loseConnection", "abortConnection"

CLOSE = b"close!"
"""A wrapper that receives exactly these bytes closes the connection."""


class Door(ProtocolWrapper):
    """A wrapper that passes everything on, and closes the connection on request."""

    factory: Any
    transport: Any
    seen = 0

    def close(self) -> None:
        """Close the connection in the way of the factory."""
        getattr(self.transport, self.factory.how)()

    def connectionMade(self) -> None:
        if self.factory.when == "connectionMade":
            self.close()

    def makeConnection(self, transport: Any) -> None:
        if self.factory.when == "before makeConnection":
            getattr(transport, self.factory.how)()
        super().makeConnection(transport)
        if self.factory.when == "after makeConnection":
            self.close()

    def dataReceived(self, data: bytes) -> None:
        self.seen += len(data)
        if data == CLOSE:
            self.close()
        else:
            super().dataReceived(data)


class Doors(WrappingFactory):
    """
    Wraps each connection in a `Door`.

    :param how: `LOSE` or `ABORT`.
    :param when: the callback in which a door closes by itself; "" for none.
    """

    protocol: Any = Door
    noisy = False

    def __init__(self, wrapped: Any, how: str = LOSE, when: str = "") -> None:
        super().__init__(wrapped)
        self.how = how
        self.when = when
        self.made: list[Any] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        door = super().buildProtocol(addr)
        self.made.append(door)
        return door


class Through(Protocol):
    """A wrapper that is no transport itself: its inner protocol gets a separate transport."""

    factory: Any
    transport: Any

    def __init__(self, factory: Any, inner: Any) -> None:
        self.factory = factory
        self.inner = inner
        self.seen = 0

    def close(self) -> None:
        getattr(self.transport, self.factory.how)()

    def handed(self) -> Any:
        """Return the transport for the inner protocol."""
        return self.transport

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        self.inner.makeConnection(self.handed())

    def dataReceived(self, data: bytes) -> None:
        self.seen += len(data)
        self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.inner.connectionLost(reason)


class Front:
    """A transport that hides another one."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        for name in (*ITransport, *IConsumer, *IPushProducer, "abortConnection"):
            setattr(self, name, getattr(transport, name))


class Hiding(Through):
    """A wrapper that passes on a transport without access to the one beneath."""

    def handed(self) -> Any:
        return Front(self.transport)


class Throughs(Doors):
    """The same factory for a wrapper that is no `ProtocolWrapper`."""

    protocol = Through


class Hidings(Doors):
    """The same factory for a wrapper that hides the transport."""

    protocol = Hiding


class Wrapping:
    """
    Wraps one side or both sides of a proxy's sessions.

    :param how: `LOSE` or `ABORT`.
    :param when: see `Doors`.
    """

    def __init__(
        self, how: str = LOSE, when: str = "", doors: type[Doors] = Doors, upstream: bool = False
    ) -> None:
        self._make: Callable[[Any], Doors] = lambda wrapped: doors(wrapped, how, when)
        self._upstream = upstream
        self.factories: list[Doors] = []

    def arguments(self) -> dict[str, Any]:
        """The arguments for `Proxied.start`."""

        def wrapped(factory: Any) -> Doors:
            self.factories.append(self._make(factory))
            return self.factories[-1]

        if not self._upstream:
            return {"wrap": wrapped}

        class Factory(ProxyFactory):
            def upstream_factory(self, connecting: Connecting) -> Any:
                return wrapped(UpstreamFactory(connecting))

        return {"factory": Factory}

    @property
    def door(self) -> Any:
        """Return the only door."""
        [door] = [door for factory in self.factories for door in factory.made]
        return door

    def forget(self) -> None:
        """Drop the references to all doors."""
        for factory in self.factories:
            factory.made.clear()
        if self._upstream:
            # Each factory belongs to one session.
            self.factories.clear()


async def drops(peer: Peer) -> str:
    """Return how the connection of `peer` ends, and check that `peer` gets no bytes."""
    received, end = await peer.rest()
    assert received == b""
    return end


async def is_over(proxied: Proxied, by: Side, how: Ending, phase: Phase) -> None:
    """Check that the only session ends for this reason, and leaves nothing."""
    await proxied.observed.ended()
    await proxied.admission.sessions.when_empty()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how, record.reason.phase) == (by, how, phase)


async def begun(proxied: Proxied) -> list[Any]:
    """Wait for the first session, and return the sessions."""
    while not proxied.admission.sessions:
        await turn(proxied.reactor)
    return list(proxied.admission.sessions)
