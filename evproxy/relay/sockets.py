"""
The socket relay: two kernel sockets, and nothing between them but system calls.

The two `End`s move the bytes; a `SocketRelay` decides how the session comes to its end, and
sees to it that what a peer sent before a reset is delivered before the other is reset.
"""

from __future__ import annotations

from evproxy.interfaces import RelayListener
from evproxy.model import Ending, Side
from evproxy.relay.ends import ABORTED, DONE, End
from evproxy.relay.engine import OUT, SocketEngine
from evproxy.relay.queues import KernelDelivery, unsent

# A member of an enumeration is looked up in its class each time it is named there.
_DOWNSTREAM, _UPSTREAM, _PROXY = Side.DOWNSTREAM, Side.UPSTREAM, Side.PROXY
_FINISHED = Ending.FINISHED


class SocketRelay:
    """
    Relays between two kernel sockets.

    :param engine: watches both.
    :param downstream, upstream: the two ends.
    :param listener: hears of the end.
    """

    __slots__ = (
        "_delivery",
        "_down",
        "_engine",
        "_listener",
        "_queued",
        "_releasing",
        "_up",
        "by",
        "how",
    )

    name = "socket"

    def __init__(
        self, engine: SocketEngine, downstream: End, upstream: End, listener: RelayListener
    ) -> None:
        self._engine = engine
        self._down = downstream
        self._up = upstream
        self._listener = listener
        self._delivery: KernelDelivery | None = None
        self._queued = 0
        self._releasing = False
        self.by = _PROXY
        self.how: Ending | None = None
        downstream.peer, upstream.peer = upstream, downstream
        downstream.relay = upstream.relay = self

    def start(self, received: bytes, ended: bool) -> None:
        """Begin, with what the client sent before and whether it has ended its stream."""
        down, up = self._down, self._up
        down.active = up.active = self._engine.seconds()
        down.begin()
        up.begin()
        down.sink, up.sink = up.socket, down.socket
        if received:
            down.received(received)
        if ended and self.how is None:
            down.stream_ended()
        elif not received:
            self._engine.read_early(down)

    @property
    def bytes_to_upstream(self) -> int:
        return self._down.moved

    @property
    def bytes_to_downstream(self) -> int:
        return self._up.moved

    def idle_since(self, now: float) -> float:
        """When a byte last moved; see `evproxy.interfaces.Relay`."""
        down, up = self._down, self._up
        queued = unsent(down.descriptor) + unsent(up.descriptor)
        if queued != self._queued:
            self._queued = queued
            down.active = now
        return max(down.active, up.active)

    def lasting(self) -> None:
        """Give the sockets the options that a short session does without."""
        self._down.lasting()
        self._up.lasting()

    # What the ends tell.

    def end_passed(self, end: End) -> None:
        """The end of the stream of `end` was passed on."""
        peer = end.peer
        assert peer is not None
        if peer.passed:
            self.by, self.how = self._side(peer), _FINISHED
            self._release_soon()
        else:
            self._listener.relay_half_closed(self._side(end))

    def lost(self, end: End) -> None:
        """The connection of `end` is broken, and all that came from it was read."""
        if self.how is not None:
            return
        self.by, self.how = self._side(end), Ending.RESET
        self._listener.relay_closing(self.by, self.how)
        end.unwatch()
        peer = end.peer
        assert peer is not None
        peer.drop_backlog()
        if end.backlogged and not peer.broken:
            peer.set_mask(OUT)
        else:
            self.flushed(end)

    def flushed(self, end: End) -> None:
        """The end is decided, and nothing of `end` is kept: reset its peer when that has it all."""
        peer = end.peer
        assert peer is not None
        if self._releasing or self._delivery is not None:
            return
        peer.unwatch()
        if not peer.broken and unsent(peer.descriptor):
            self._delivery = KernelDelivery(
                self._engine.reactor, peer.descriptor, self._release_soon
            )
        else:
            self._release_soon()

    def vanished(self, end: End) -> None:
        """The socket of `end` was closed by somebody else."""
        if not self._releasing:
            self._engine.forget(end.descriptor)
            end.unwatched = True
            self.reset(self._side(end), Ending.RESET)

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""
        if self._releasing:
            return
        if self.how is None:
            self.by, self.how = by, how
            self._listener.relay_closing(by, how)
        if self._delivery is not None:
            self._delivery.cancel()
        self._release_soon()

    def _release_soon(self) -> None:
        self._delivery = None
        self._releasing = True
        for end in (self._down, self._up):
            end.sink = None
            if not end.unwatched:
                self._engine.forget(end.descriptor)
        self._engine.after_batch(self._release)

    def _release(self) -> None:
        down, up = self._down, self._up
        assert self.how is not None
        reason = DONE if self.how is _FINISHED else ABORTED
        for end in (down, up):
            if end.kept is not None or end.pipe is not None:
                end.drop_backlog()
        try:
            down.release(reason)
        finally:
            try:
                up.release(reason)
            finally:
                self._listener.relay_closed(self.by, self.how)
                down.peer = up.peer = down.relay = up.relay = None

    def _side(self, end: End) -> Side:
        return _DOWNSTREAM if end is self._down else _UPSTREAM
