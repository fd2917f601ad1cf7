"""
The socket relay: two kernel sockets, and nothing between them but system calls.

The two `End`s move the bytes.  A `SocketRelay` decides how the session ends, and delivers what a
peer sent before a reset before it resets the other peer.
"""

from __future__ import annotations

from functools import partial

from twisted.python.failure import Failure

from evproxy.engine.loop import OUT, SocketEngine
from evproxy.model import Ending, Side
from evproxy.relay.contract import RelayListener
from evproxy.relay.delivery import KernelDelivery, unsent
from evproxy.relay.end import ABORTED, DONE, End
from evproxy.relay.pace import NO_PACES, Paces

# Shortcuts: Python looks up a member of an enumeration in its class at each use.
_DOWNSTREAM, _UPSTREAM, _PROXY = Side.DOWNSTREAM, Side.UPSTREAM, Side.PROXY
_FINISHED = Ending.FINISHED


class SocketRelay:
    """
    Relays between two kernel sockets.

    :param engine: watches both sockets.
    :param downstream, upstream: the two ends.
    :param listener: is notified of the end.
    :param paces: of the client's bytes and of the server's; ``None``: as fast as they go.
    """

    __slots__ = (
        "_by",
        "_delivery",
        "_down",
        "_ending",
        "_closing",
        "_engine",
        "_listener",
        "_closed_first",
        "_queued",
        "_releasing",
        "_up",
        "how",
    )

    name = "socket"

    def __init__(
        self,
        engine: SocketEngine,
        downstream: End,
        upstream: End,
        listener: RelayListener,
        paces: Paces = NO_PACES,
    ) -> None:
        self._engine = engine
        self._down = downstream
        self._up = upstream
        self._listener = listener
        self._delivery: KernelDelivery | None = None
        self._ending: KernelDelivery | None = None
        # The end that code on its own side closes in order, and the end that is closed first.
        self._closing: End | None = None
        self._closed_first: End | None = None
        # How many bytes the kernel held for both peers at the last look; -1 before the first one.
        self._queued = -1
        self._releasing = False
        self._by = _PROXY
        self.how: Ending | None = None
        downstream.pace, upstream.pace = paces
        downstream.other, upstream.other = upstream, downstream
        downstream.relay = upstream.relay = self

    def start(self, received: bytes, ended: bool) -> None:
        """Begin, with what the client sent before and whether it has ended its stream."""
        down, up = self._down, self._up
        down.active = up.active = self._engine.seconds()
        # Nobody asks when the client's first bytes come.
        down.first = down.active
        down.begin()
        up.begin()
        down.copy_to_sink()
        if received:
            down.received(received)
        if ended and self.how is None:
            down.stream_ended()
        elif not received:
            self._engine.read_early(down)
        down.read_pending()
        up.read_pending()

    @property
    def bytes_to_upstream(self) -> int:
        return self._down.moved

    @property
    def bytes_to_downstream(self) -> int:
        return self._up.moved

    @property
    def kept(self) -> int:
        """How many bytes both ends keep for slow readers."""
        return self._down.kept_bytes + self._up.kept_bytes

    def totals(self) -> tuple[int, int, float | None]:
        up = self._up
        return self._down.moved, up.moved, up.first

    def idle_since(self, now: float) -> float:
        """When a byte last moved; see `evproxy.relay.contract.Relay`."""
        down, up = self._down, self._up
        if self._queued < 0:
            self._queued = 0
            down.set_late_options()
            up.set_late_options()
        queued = unsent(down.descriptor) + unsent(up.descriptor)
        if queued != self._queued:
            self._queued = queued
            down.active = now
        return max(down.active, up.active)

    # Called by the ends.

    def end_passed(self, end: End) -> None:
        """The end of the stream of `end` was passed on."""
        other = end.other
        assert other is not None
        if other.passed:
            self._by, self.how = self._side(other), _FINISHED
            self._release_soon()
        else:
            self._listener.relay_half_closed(self._side(end))

    def ended_whole(self, end: End) -> None:
        """The peer of `end` has ended both streams: deliver what it sent, then end the other."""
        if self.how is not None:
            return
        self._by, self.how = self._side(end), _FINISHED
        self._listener.relay_closing(self._by, self.how)
        end.unwatch()
        other = end.other
        assert other is not None
        other.drop_backlog()
        self._deliver(end)

    def lost(self, end: End) -> None:
        """The connection of `end` is lost: it was reset, and all that the peer sent was read."""
        if self.how is not None:
            return
        self._by, self.how = self._side(end), Ending.RESET
        self._listener.relay_closing(self._by, self.how)
        end.unwatch()
        other = end.other
        assert other is not None
        other.drop_backlog()
        self.flushed(end)

    def flushed(self, end: End) -> None:
        """How the session ends is decided, and nothing of `end` is kept: deliver, then reset."""
        other = end.other
        assert other is not None
        if self._releasing or other is self._closed_first:
            return
        if other is self._closing:
            self._end_and_close(other)
            return
        if self._delivery is not None:
            return
        if self.how is _FINISHED:
            if other.was_reset:
                # It will never have all that `end` sent.
                self._by, self.how = self._side(other), Ending.RESET
            elif not other.end_stream():
                return
        other.unwatch()
        if not other.was_reset and unsent(other.descriptor):
            self._delivery = KernelDelivery(
                self._engine.reactor, other.descriptor, partial(self._delivered, other)
            )
        else:
            self._delivered(other)

    def closing_here(self, end: End) -> bool:
        """Code on the side of `end` closes `end`: each side first gets what is kept for it."""
        if self.how is None:
            other = end.other
            assert other is not None
            self._decide(end)
            self._closing = end
            self._deliver(other)
            self._deliver(end)
        # Else `end` is closed anyway, once its peer has what is kept for it.
        return True

    def aborted_here(self, end: End) -> None:
        """Code on the side of `end` resets the socket, or has closed it."""
        if self._releasing or end is self._closed_first:
            return
        if self.how is not None and self._closing is None:
            self.reset(self._side(end), Ending.RESET)
            return
        if self.how is None:
            self._decide(end)
        elif end is self._closing:
            self._closing = None
            self._stop_ending()
        other = end.other
        assert other is not None
        end.was_reset = True
        other.drop_backlog()
        self._close(end)
        if self._closing is None and self._delivery is None:
            self._deliver(end)

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""
        if self._releasing:
            return
        if self.how is None:
            self._by, self.how = by, how
            self._listener.relay_closing(by, how)
        elif self.how is _FINISHED:
            # Not everything is delivered.
            self._by, self.how = by, how
        if self._delivery is not None:
            self._delivery.cancel()
        self._stop_ending()
        self._closing = None
        self._release_soon()

    # To close one end before the other.

    def _decide(self, end: End) -> None:
        """The session ends now, because code on the side of `end` closes `end`."""
        self._by, self.how = self._side(end), Ending.RESET
        self._listener.relay_closing(self._by, self.how)

    def _deliver(self, end: End) -> None:
        """Do not read the other end any more, and send it what is kept of `end`."""
        other = end.other
        assert other is not None
        if end.backlogged and not (other.was_reset or other.unwatched):
            other.set_mask(OUT)
        else:
            self.flushed(end)

    def _delivered(self, end: End) -> None:
        """The peer of `end` has all that it should get: reset `end`."""
        self._delivery = None
        if self._closing is None and self._closed_first is None:
            self._release_soon()
        else:
            self._close(end)

    def _end_and_close(self, end: End) -> None:
        """End the stream to the peer of `end`, and close `end` once the peer has all bytes."""
        if self._ending is not None or not end.end_stream():
            return
        end.unwatch()
        if not end.was_reset and unsent(end.descriptor):
            self._ending = KernelDelivery(
                self._engine.reactor, end.descriptor, partial(self._ended, end)
            )
        else:
            self._close(end)

    def _ended(self, end: End) -> None:
        self._ending = None
        self._close(end)

    def _stop_ending(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _close(self, end: End) -> None:
        """Close `end`; the relay is over once both are closed."""
        if not end.unwatched:
            self._engine.forget(end.descriptor)
            end.unwatched = True
            end.mask = 0
            end.sink = None
        if self._closed_first is None:
            self._closed_first = end
            self._engine.after_batch(partial(end.release, self._reason(end)))
        elif self._closed_first is not end:
            self._release_soon()

    def _reason(self, end: End) -> Failure:
        return DONE if self.how is _FINISHED or end is self._closing else ABORTED

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
        for end in (down, up):
            if end.kept is not None or end.pipe is not None:
                end.drop_backlog()
            if end.pace is not None:
                end.pace.close()
        try:
            down.release(self._reason(down))
        finally:
            try:
                up.release(self._reason(up))
            finally:
                self._listener.relay_closed(self._by, self.how)
                down.other = up.other = down.relay = up.relay = None

    def _side(self, end: End) -> Side:
        return _DOWNSTREAM if end is self._down else _UPSTREAM
