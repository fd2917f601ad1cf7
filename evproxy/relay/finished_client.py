"""
The transport of a client that has finished: its connection is closed, its bytes are still kept.

A client whose connection can only end whole (TLS) may send its question and close in order while
its session connects to a server.  Its half then gets a `FinishedClient` as its transport, and is
relayed like any other half.  The half is notified of the end once it is relayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from evproxy.relay.contract import Half


@implementer(ITransport, IConsumer, IPushProducer)
class FinishedClient:
    """
    Stands in for the transport that `half` has lost in order.

    :param clock: calls later.
    :param half: its receiver is notified of the end one turn after it is relayed, or closed.
    """

    disconnecting = True
    ended = True

    def __init__(self, clock: IReactorTime, half: Half) -> None:
        self._clock = clock
        self._half: Half | None = half
        self._was = half.transport
        self._closing = False

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._clock.callLater(0, self._closed)

    def _closed(self) -> None:
        half, self._half = self._half, None
        assert half is not None
        half.receiver.connection_lost(connectionDone)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Stop the producer: nothing can be sent any more.  Nothing more comes either."""
        producer.stopProducing()
        self._close()

    def unregisterProducer(self) -> None:
        """Nothing to do: there is no producer."""

    def loseConnection(self) -> None:
        self._close()

    def abortConnection(self) -> None:
        """Close: a connection that is gone cannot be reset."""
        self._close()

    def write(self, data: bytes) -> None:
        """Discard the data: the connection is gone."""

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Discard the data: the connection is gone."""

    def pauseProducing(self) -> None:
        """Nothing to do: nothing more comes."""

    def resumeProducing(self) -> None:
        """Nothing to do: nothing more comes."""

    def stopProducing(self) -> None:
        self._close()

    def getPeer(self) -> Any:
        return self._was.getPeer()

    def getHost(self) -> Any:
        return self._was.getHost()
