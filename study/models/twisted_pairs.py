"""Twisted's pairs: a ``Protocol`` for the client, a ``ClientFactory`` for its server.

Teaches: a library has the loop; a protocol reacts to events; producers keep memory bounded.
Fails: ``reactor.stop`` cuts sessions off; a client that leaves during the connect is not noticed.
"""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from zope.interface import implementer

from .listening import BACKLOG, Address, Hook


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    transport: Any
    writeConnectionLost = Protocol.connectionMade  # both do nothing
    other: Any = None

    def connectionMade(self) -> None:  # the side of the server; the other has waited for it
        self.other.other = self
        self.transport.registerProducer(self.other.transport, True)
        self.other.transport.registerProducer(self.transport, True)
        self.other.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        self.other.transport.unregisterProducer()
        self.other.transport.loseWriteConnection()

    def connectionLost(self, reason: Any = None) -> None:
        if self.other is not None:
            self.other.transport.unregisterProducer()
            self.other.transport.loseConnection()


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Run the reactor until SIGQUIT."""
    from twisted.internet import reactor

    class Client(Side):
        def connectionMade(self) -> None:
            (hook or str)(self.transport.getPeer().host)
            self.transport.pauseProducing()
            pair: Any = ClientFactory.forProtocol(type("Server", (Side,), {"other": self}))
            pair.clientConnectionFailed = lambda *_: self.transport.abortConnection()
            reactor.connectTCP(*upstream, pair)

    clients: Any = ServerFactory.forProtocol(Client)
    reactor.listenTCP(address[1], clients, BACKLOG, address[0])
    signal.signal(signal.SIGQUIT, lambda *_: reactor.callLater(0, reactor.stop))
    reactor.run()
