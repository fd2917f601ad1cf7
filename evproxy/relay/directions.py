"""
The directions of a stream relay: a Twisted transport each that bytes come from, and one
that they go to.

A `Direction` is both the receiver of what its source reads and the producer that its sink
pauses, so that a slow reader makes the other peer wait.

Rules: a stream ends once, in order or not.  Once a direction is detached from its sink,
what still comes from its source is dropped.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.model import Side
from evproxy.relay.queues import innermost


class Relayed(Protocol):
    """What a direction tells its relay, which decides what it means for the other one."""

    def moved(self) -> None:
        """A byte moved."""

    def stream_ended(self, direction: Direction) -> None:
        """The source of `direction` ended its stream in order."""

    def peer_gone(self, direction: Direction) -> None:
        """The source of `direction` is reset; what it sent is still read when the sink wants it."""

    def closing_here(self, direction: Direction, ended: bool) -> None:
        """Code on its side closes the source of `direction`; `ended`: its stream has ended."""

    def sink_closing(self, direction: Direction, ended: bool) -> None:
        """The same for the sink of `direction`."""

    def connection_lost(self, direction: Direction, in_order: bool) -> None:
        """The source of `direction` is gone, and with it the sink of the other one."""


@implementer(IPushProducer)
class Direction:
    """
    One direction of a stream relay, from `source` to `sink`.

    `moved` counts the bytes that were written to the sink.  `ended`: its stream has ended in
    order; `gone`: its peer has reset, but what it sent may still be read; `lost`: its
    connection is gone.
    """

    __slots__ = ("_relay", "side", "source", "sink", "moved", "ended", "lost", "gone", "_producing")

    def __init__(self, relay: Relayed, side: Side, source: Any, sink: Any) -> None:
        self._relay = relay
        self.side = side
        self.source = source
        self.sink = sink
        self.moved = 0
        self.ended = False
        self.lost = False
        self.gone = False
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

    def part(self) -> None:
        """The relay is over: be in no cycle with it, nor with a sink that keeps this (TLS does)."""
        del self._relay, self.source, self.sink

    # What the source's half hands on.

    def received(self, data: bytes) -> None:
        if self._producing:
            self.moved += len(data)
            self._relay.moved()
            self.sink.write(data)

    def stream_ended(self) -> None:
        if not self.ended:
            self.ended = True
            self._relay.stream_ended(self)

    def peer_gone(self) -> None:
        self.gone = True
        self._relay.peer_gone(self)

    def closing_here(self, ended: bool) -> bool:
        self._relay.closing_here(self, ended)
        return False

    def connection_lost(self, reason: Failure) -> None:
        self.lost = True
        self._relay.connection_lost(self, reason.check(ConnectionDone) is not None)

    # What the sink asks for.

    def pauseProducing(self) -> None:
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
            self.source.resumeProducing()

    def sink_closing(self, ended: bool) -> None:
        """The sink, which knows no half to tell it to, is being closed; see `Relayed`."""
        self._relay.sink_closing(self, ended)

    def stopProducing(self) -> None:
        # The sink is gone.  Its own half tells so; there is nobody left to unregister from.
        self._producing = False
