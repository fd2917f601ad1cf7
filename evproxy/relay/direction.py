"""
The directions of a stream relay: from the transport of one peer to that of the other.

A `Direction` is both the receiver of what its source reads and the producer that its sink pauses,
so that a slow reader makes the other peer wait.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.model import Ending, Side
from evproxy.relay.delivery import innermost


class Directed(Protocol):
    """What a direction tells its relay, which decides what it means for the other direction."""

    def moved(self) -> None:
        """A byte moved, or a stream ended."""

    def stream_ended(self, direction: Direction) -> None:
        """The source of `direction` ended its stream in order."""

    def peer_reset(self, direction: Direction) -> None:
        """The source of `direction` is reset; what it sent can still be read."""

    def closing_here(self, direction: Direction, ended: bool) -> None:
        """Code closes the source of `direction`; see `evproxy.relay.contract.Receiver`."""

    def sink_closing(self, direction: Direction, ended: bool) -> None:
        """Code closes the sink of `direction`."""

    def connection_lost(self, direction: Direction, in_order: bool) -> None:
        """The source of `direction` is lost."""

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""


@implementer(IPushProducer)
class Direction:
    """
    One direction of a stream relay, from `source` to `sink`.

    `moved` counts the bytes that were written to the sink.  `ended`: its stream has ended in
    order; `was_reset`: its peer has reset, but what it sent may still be read; `lost`: its
    connection is lost.  `paused`: the sink takes no more; `full`: nor do the stages.
    """

    __slots__ = (
        "_relay",
        "side",
        "source",
        "sink",
        "moved",
        "ended",
        "lost",
        "was_reset",
        "paused",
        "full",
        "_producing",
    )

    def __init__(self, relay: Directed, side: Side, source: Any, sink: Any) -> None:
        self._relay = relay
        self.side = side
        self.source = source
        self.sink = sink
        self.moved = 0
        self.ended = False
        self.lost = False
        self.was_reset = False
        self.paused = self.full = False
        self._producing = False

    def start(self) -> None:
        """Pass on what the source reads from now on, as fast as the sink takes it."""
        self._producing = True
        self.sink.registerProducer(self, True)

    def detach(self) -> None:
        """Pass on nothing more."""
        if self._producing:
            self._producing = False
            self.sink.unregisterProducer()

    def release(self) -> None:
        """The relay is over: be in no cycle with it, nor with a sink that keeps this (TLS does)."""
        del self._relay, self.source, self.sink

    # What stages ask for; see `evproxy.relay.stages.Destination`.

    @property
    def passing(self) -> bool:
        """Whether it passes bytes on."""
        return self._producing

    def came(self) -> None:
        self._relay.moved()

    def hold(self, full: bool) -> None:
        self.full = full
        if not self._producing:
            return
        if full:
            self.source.pauseProducing()
        elif not self.paused:
            self.source.resumeProducing()

    # What the source's half, or the last stage, hands on.

    def received(self, data: bytes) -> None:
        if self._producing:
            self.moved += len(data)
            self._relay.moved()
            self.sink.write(data)

    def stream_ended(self) -> None:
        if not self.ended:
            self.ended = True
            self._relay.stream_ended(self)

    def peer_reset(self) -> None:
        self.was_reset = True
        self._relay.peer_reset(self)

    def closing_here(self, ended: bool) -> bool:
        self._relay.closing_here(self, ended)
        return False

    def half_broke(self) -> None:
        self._relay.reset(Side.PROXY, Ending.ERROR)

    def connection_lost(self, reason: Failure) -> None:
        self.lost = True
        self._relay.connection_lost(self, reason.check(ConnectionDone) is not None)

    # What the sink asks for.

    def pauseProducing(self) -> None:
        self.paused = True
        self.source.pauseProducing()

    def resumeProducing(self) -> None:
        if getattr(innermost(self.sink), "disconnecting", False):
            # Its peer has ended a TLS stream: it takes no more, and waits for its producer.
            self.detach()
        else:
            if self._producing:
                # A wrapper may hide that it closes; what it wraps waits for its producer then.
                self.sink.unregisterProducer()
                self.sink.registerProducer(self, True)
            self.paused = False
            if not self.full:
                self.source.resumeProducing()

    def sink_closing(self, ended: bool) -> None:
        """The sink, which knows no half to tell it to, is being closed; see `SocketTransport`."""
        self._relay.sink_closing(self, ended)

    def stopProducing(self) -> None:
        # The sink is lost.  Its own half reports that; there is nobody left to unregister from.
        self._producing = False
