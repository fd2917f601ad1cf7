"""
Plays one side of a recording on a real connection.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.relay.delivery import Delivery, descriptor_of, unsent
from evproxy.replay.dialogue import Dialogue, Over, Play
from evproxy.wire.recording import Event, Kind, MalformedRecording

MOST_KEPT = 256 * 1024
"""While so many bytes of the peer wait, the player does not read."""

_DONE = Failure(ConnectionDone())


@frozen
class Result:
    """
    The result of a replay.

    `difference` and `note` are those of `evproxy.replay.dialogue.Over`; `sent` and `received` are
    the bytes that were played, and the bytes of the peer that were as recorded.
    """

    difference: str
    note: str
    sent: int
    received: int


@implementer(IHalfCloseableProtocol, IPushProducer)
class Player(Protocol):
    """
    Plays a recording on its connection, once.

    `result` fires with the `Result` once the connection is closed, or fails with
    `MalformedRecording`.

    :param clock: calls later.
    :param dialogue: says what to do.
    :param fast: whether the player sends as soon as it may, and not in the time of the recording.
    :param timeout: seconds to wait for the peer, whether it must send or read.
    """

    def __init__(self, clock: Any, dialogue: Dialogue, fast: bool, timeout: float) -> None:
        self._clock = clock
        self._dialogue = dialogue
        self._fast = fast
        self._timeout = timeout
        self._paused = self._lost = self._waits = self._read_all = False
        # For the next event, for the peer, or for the end of the connection.
        self._timer: IDelayedCall | None = None
        # For a peer that does not read; only while paused.
        self._stalled: IDelayedCall | None = None
        self._delivery: Delivery | None = None
        self._over: Over | None = None
        self._broke: Failure | None = None
        self.result: Deferred[Result] = Deferred()

    # From the transport.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        if self._over is None:
            self._dialogue.receive(data)
            self._peer_acted()

    def readConnectionLost(self) -> None:
        self._read_all = True
        self._dialogue.end()
        self._peer_acted()

    def writeConnectionLost(self) -> None:
        """The player has ended its stream."""

    def connectionLost(self, reason: Failure = _DONE) -> None:
        if self._paused or self._cut_off(reason):
            # The transport has bytes that the kernel did not take.
            self._dialogue.not_sent(0)
            self._over = None
        self._lost = True
        self._no_longer_paused()
        if self._delivery is not None:
            self._delivery.cancel()
        if ISSLTransport.providedBy(self.transport):
            # TLS of Twisted's own reports an end as a reset, or a reset as an end.
            self._dialogue.lose()
        elif reason.check(ConnectionDone):
            self._dialogue.end()
        else:
            self._dialogue.reset()
        # What is still to be played has nowhere to go.
        self._cancel()
        self._go_on()
        self._tell()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._stalled is None:
            self._stalled = self._clock.callLater(self._timeout, self._untaken)

    def resumeProducing(self) -> None:
        self._no_longer_paused()
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost, which `connectionLost` says, too."""

    # The replay.

    def _peer_acted(self) -> None:
        if self._over is not None:
            return
        if self._waits:
            self._cancel()
        if self._stalled is not None:
            self._stalled.reset(self._timeout)
        self._go_on()
        transport: Any = self.transport
        # Twisted says again and again that the stream has ended, if it is read again.
        if self._over is None and not self._lost and not self._read_all:
            if self._dialogue.kept > MOST_KEPT:
                transport.pauseProducing()
            else:
                transport.resumeProducing()

    def _go_on(self) -> None:
        while self._over is None and self._timer is None and not self._paused:
            try:
                step = self._dialogue.step()
            except MalformedRecording:
                self._broke = Failure()
                step = Over()
            if isinstance(step, Over):
                self._finish(step)
            elif isinstance(step, Play):
                self._play_after(step)
            else:
                self._waits = True
                self._timer = self._clock.callLater(self._timeout, self._missing)

    def _play_after(self, step: Play) -> None:
        if self._fast or self._lost or not step.after:
            self._play(step.event)
        else:
            self._timer = self._clock.callLater(step.after, self._play_now, step.event)

    def _play_now(self, event: Event) -> None:
        self._timer = None
        self._play(event)
        self._go_on()

    def _play(self, event: Event) -> None:
        if self._lost:
            if event.data:
                self._dialogue.not_sent(len(event.data))
            return
        transport: Any = self.transport
        if event.kind is Kind.DATA:
            transport.write(event.data)
            return
        self._unregister()
        if event.kind is Kind.END:
            # TLS of Twisted's own ends both streams at once.
            getattr(transport, "loseWriteConnection", transport.loseConnection)()
        else:
            # A reset discards what the kernel still has to send.
            self._delivery = Delivery(self._clock, transport, transport.abortConnection)

    def _missing(self) -> None:
        self._timer = None
        self._finish(self._dialogue.missing())

    def _untaken(self) -> None:
        self._stalled = None
        self._cancel()
        self._finish(self._dialogue.untaken())

    def _finish(self, over: Over) -> None:
        self._over = over
        if self._lost:
            return
        transport: Any = self.transport
        self._unregister()
        if over.difference or self._broke is not None:
            transport.abortConnection()
            return
        # The connection may be lost within this call.
        self._timer = self._clock.callLater(self._timeout, self._give_up)
        if self._delivery is None:
            transport.loseConnection()

    def _give_up(self) -> None:
        """The connection is not closed yet: the peer does not read, or does not end its TLS."""
        self._timer = None
        transport: Any = self.transport
        if unsent(descriptor_of(transport)):
            self._over = self._dialogue.untaken()
        transport.abortConnection()

    def _cut_off(self, reason: Failure) -> bool:
        """Whether the peer's reset came while the last bytes went to the kernel."""
        if self._over is None or self._over.difference or self._broke is not None:
            return False
        # After TLS ended, many a peer just leaves.
        plain = not ISSLTransport.providedBy(self.transport)
        return plain and bool(reason.check(ConnectionLost)) and not reason.check(ConnectionAborted)

    def _unregister(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        self._no_longer_paused()

    def _no_longer_paused(self) -> None:
        self._paused = False
        stalled, self._stalled = self._stalled, None
        if stalled is not None:
            stalled.cancel()

    def _cancel(self) -> None:
        self._waits = False
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _tell(self) -> None:
        self._cancel()
        over = self._over or Over()
        if self._broke is not None:
            self.result.errback(self._broke)
        else:
            done = self._dialogue
            self.result.callback(Result(over.difference, over.note, done.sent, done.received))
