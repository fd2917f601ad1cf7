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
from evproxy.relay.pace import Pace


class Directed(Protocol):
    """The relay of a direction; it decides what an event means for the other direction."""

    def moved(self) -> None:
        """A byte moved, or a stream ended."""

    def sink_paused(self) -> None:
        """The sink of a direction takes no more bytes now."""

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

    def can_hide(self, direction: Direction) -> bool:
        """Whether the loss of the source of `direction` can be hidden from its sink."""

    def close_for_stage(self, direction: Direction, how: Ending, reset: bool) -> None:
        """A stage ends the session; see `evproxy.relay.stages.Outlet.close`."""

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""


@implementer(IPushProducer)
class Direction:
    """
    One direction of a stream relay, from `source` to `sink`.

    `moved` counts the bytes that were written to the sink.  `ended`: the stream of the source has
    ended in order.  `was_reset`: the peer of the source has reset, but its bytes may still be
    read.  `lost`: the connection of the source is lost.  `paused`: the sink takes no more bytes.
    `full`: the stages take no more bytes.  `pace`: how fast the source may be read.
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
        "pace",
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
        self.pace: Pace | None = None
        self._producing = False

    def start(self) -> None:
        """From now on pass on what the source reads, as fast as the sink takes it."""
        self._producing = True
        self.sink.registerProducer(self, True)

    def detach(self) -> None:
        """Pass on nothing more."""
        if self._producing:
            self._producing = False
            self.sink.unregisterProducer()

    def release(self) -> None:
        """The relay is over: leave no cycle with it, nor with a sink that keeps this (TLS)."""
        if self.pace is not None:
            self.pace.close()
        del self._relay, self.source, self.sink

    # For stages; see `evproxy.relay.stages.Destination`.

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
        else:
            self.go_on()

    def discard(self) -> None:
        self.source.resumeProducing()

    def close(self, how: Ending, reset: bool) -> None:
        self._relay.close_for_stage(self, how, reset)

    @property
    def can_hide(self) -> bool:
        return self._relay.can_hide(self)

    def source_hidden(self) -> None:
        # The sink's own bytes go nowhere, but must be read, so that its end is noticed.
        self.sink.resumeProducing()

    @property
    def _held_up(self) -> bool:
        return self.paused or self.full or (self.pace is not None and self.pace.waits)

    def go_on(self) -> None:
        """Read the source, unless something is in the way."""
        if self._producing and not self._held_up:
            self.source.resumeProducing()

    def _keep_pace(self, pace: Pace, count: int) -> None:
        """`count` bytes were read; pause the source if it is ahead of its pace."""
        pace.spend(count)
        if not pace.allowance_or_wait(self.go_on):
            self.source.pauseProducing()

    # Called by the half of the source, or by the last stage.

    def received(self, data: bytes) -> None:
        if self._producing:
            self.moved += len(data)
            self._relay.moved()
            self.sink.write(data)
            if self.pace is not None:
                self._keep_pace(self.pace, len(data))

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

    # Called by the sink.

    def pauseProducing(self) -> None:
        self.paused = True
        self._relay.sink_paused()
        self.source.pauseProducing()

    def resumeProducing(self) -> None:
        if getattr(innermost(self.sink), "disconnecting", False):
            # The peer of the sink has ended a TLS stream.  The sink takes no more bytes, and
            # waits until its producer is unregistered.
            self.detach()
        else:
            if self._producing:
                # A wrapper may hide that it closes.  Then the wrapped transport waits until its
                # producer is unregistered.
                self.sink.unregisterProducer()
                self.sink.registerProducer(self, True)
            self.paused = False
            if not self._held_up:
                self.source.resumeProducing()

    def sink_closing(self, ended: bool) -> None:
        """The sink is being closed, and knows no half to notify; see `SocketTransport`."""
        self._relay.sink_closing(self, ended)

    def stopProducing(self) -> None:
        # The sink is lost, and its own half reports that.  There is nothing to unregister from.
        self._producing = False
