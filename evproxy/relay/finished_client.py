"""
The transport of a client that has finished: its connection is closed, its bytes are still kept.

A client whose connection can only end whole (TLS) may send its question and close in
order while its server is being connected.  Its half gets one of these, and is relayed
like any other: the half hears of the end once it is.
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
    :param half: its receiver hears of the end a turn after it is relayed, or closed.
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
        """Nothing can be sent any more, and nothing more comes."""
        producer.stopProducing()
        self._close()

    def unregisterProducer(self) -> None:
        """There is none."""

    def loseConnection(self) -> None:
        self._close()

    def abortConnection(self) -> None:
        """It is closed already."""
        self._close()

    def write(self, data: bytes) -> None:
        """Nobody is there to take it."""

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Nobody is there to take it."""

    def pauseProducing(self) -> None:
        """Nothing comes anyway."""

    def resumeProducing(self) -> None:
        """Nothing comes any more."""

    def stopProducing(self) -> None:
        self._close()

    def getPeer(self) -> Any:
        return self._was.getPeer()

    def getHost(self) -> Any:
        return self._was.getHost()
