"""
The stream relay: producers and consumers between any two Twisted transports.

It is portable and asks nothing of a transport but `ITransport` and `IConsumer`; it uses half-close
and reset where the transport has them.  The two `Direction`s move the bytes; a `StreamRelay`
decides how the session ends.

Rules: a stream ends once, in order or not, and only an end in order is passed on as an end in
order.  A direction is detached before its sink is closed, or the sink would never close; what
still comes from its source is then discarded.  A transport that must still deliver bytes is read
until they are delivered: closing a socket with unread bytes resets the connection and discards
what the socket has not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorTime
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol

from evproxy.model import Ending, Side
from evproxy.relay.closing_here import TLSClosing, closed_here
from evproxy.relay.contract import Half, Receiver, RelayListener
from evproxy.relay.delivery import Delivery, EndDelivery, descriptor_of, innermost, is_reset, unsent
from evproxy.relay.direction import Direction
from evproxy.relay.end import End
from evproxy.relay.flow import FlowCount
from evproxy.relay.pace import NO_PACES, Paces
from evproxy.relay.path import Path
from evproxy.relay.stages import Stage, close_stages
from evproxy.relay.wrappers import guard


def half_closeable(transport: Any) -> bool:
    """
    Whether one direction of `transport` can be ended alone.

    Not through a protocol wrapper (TLS is one): a wrapper claims the interfaces of its transport,
    but would end the stream beneath the stream that it carries.
    """
    return IHalfCloseableDescriptor.providedBy(transport) and not isinstance(
        transport, ProtocolWrapper
    )


def set_late_options(transport: Any) -> None:
    """Set the options that a short session does not need, on a transport of evproxy's own."""
    end = innermost(transport)
    if isinstance(end, End):
        end.set_late_options()


def reset(transport: Any) -> None:
    """End `transport` at once, with a reset if it has one."""
    getattr(transport, "abortConnection", transport.loseConnection)()


class StreamRelay:
    """
    Relays between two transports by producers and consumers.

    :param clock: the reactor: tells the time, calls later.
    :param downstream, upstream: the two halves.
    :param listener: is notified of the end.
    :param stages: the stages that the bytes pass; see `evproxy.relay.stages`.
    :param paces: of the client's bytes and of the server's; ``None``: as fast as they go.
    """

    __slots__ = (
        "_clock",
        "_by",
        "_from_client",
        "_delivering",
        "_delivery",
        "_to_downstream",
        "_how",
        "_tls_closing",
        "_first_byte",
        "_flow",
        "_last_active",
        "_closing",
        "_listener",
        "_paths",
        "_ending_source",
        "_queued",
        "_stages",
        "_to_upstream",
    )

    name = "stream"

    def __init__(
        self,
        clock: IReactorTime,
        downstream: Half,
        upstream: Half,
        listener: RelayListener,
        stages: Sequence[Stage] = (),
        paces: Paces = NO_PACES,
        flow: FlowCount | None = None,
    ) -> None:
        self._clock = clock
        self._flow = FlowCount() if flow is None else flow
        self._listener = listener
        self._stages = stages
        self._paths: tuple[Path, ...] = ()
        self._to_upstream = Direction(
            self, Side.DOWNSTREAM, downstream.transport, upstream.transport
        )
        self._to_downstream = Direction(
            self, Side.UPSTREAM, upstream.transport, downstream.transport
        )
        self._to_upstream.pace, self._to_downstream.pace = paces
        self._by = Side.PROXY
        self._how: Ending | None = None
        self._delivery: Delivery | None = None
        self._delivering: Direction | None = None
        # A direction that a stage has ended, with the delivery to its source; ``None``: the source
        # is closed, which its half may not have noticed yet.
        self._ending_source: tuple[Direction, Delivery | None] | None = None
        self._closing: Direction | None = None
        self._tls_closing: TLSClosing | None = None
        self._last_active = clock.seconds()
        # How many bytes the kernel held for both peers at the last look; -1 before the first one.
        self._queued = -1
        self._first_byte: float | None = None
        self._from_client: Receiver = self._to_upstream
        from_server: Receiver = self._to_downstream
        if stages:
            up = Path(Side.DOWNSTREAM, stages, self._to_upstream)
            down = Path(Side.UPSTREAM, stages[::-1], self._to_downstream)
            self._from_client, from_server = self._paths = up, down
        downstream.receiver = self._from_client
        upstream.receiver = from_server

    def start(self, received: bytes, ended: bool) -> None:
        """Begin, with what the client sent before and whether it has ended its stream."""
        for direction in (self._to_upstream, self._to_downstream):
            guard(direction.source)
            direction.start()
        if self._paths:
            up, down = self._paths
            last = len(self._stages) - 1
            for number, stage in enumerate(self._stages):
                stage.start(up.outlet(number), down.outlet(last - number))
        if received:
            self._from_client.received(received)
        if ended:
            self._from_client.stream_ended()
        elif self._how is None:
            self._to_upstream.go_on()

    @property
    def bytes_to_upstream(self) -> int:
        return self._to_upstream.moved

    @property
    def bytes_to_downstream(self) -> int:
        return self._to_downstream.moved

    def totals(self) -> tuple[int, int, float | None]:
        return self._to_upstream.moved, self._to_downstream.moved, self._first_byte

    @property
    def kept(self) -> int:
        """How many bytes the stages hold; what Twisted's transports hold is not known."""
        sides = (Side.DOWNSTREAM, Side.UPSTREAM)
        return sum(stage.held(side) for stage in self._stages for side in sides)

    def sink_paused(self) -> None:
        """The sink of a direction takes no more bytes now."""
        self._flow.pauses += 1

    def moved(self) -> None:
        """A byte moved, or a stream ended."""
        self._last_active = self._clock.seconds()
        if self._first_byte is None and self._to_downstream.moved:
            self._first_byte = self._last_active

    def idle_since(self, now: float) -> float:
        """When a byte last moved; see `evproxy.relay.contract.Relay`."""
        if self._queued < 0:
            self._queued = 0
            set_late_options(self._to_upstream.source)
            set_late_options(self._to_downstream.source)
        queued = unsent(descriptor_of(self._to_upstream.sink)) + unsent(
            descriptor_of(self._to_downstream.sink)
        )
        if queued != self._queued:
            self._queued = queued
            self._last_active = now
        return self._last_active

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""
        if self._how is None:
            self._by, self._how = by, how
            self._listener.relay_closing(by, how)
        self._cut(by, how)
        self._stop_delivering()
        self._stop_tls_closing()
        directions = (self._to_upstream, self._to_downstream)
        for direction in directions:
            self._notice_hidden(direction)
        for direction in directions:
            direction.detach()
            if not direction.lost and not self._is_closed(direction):
                reset(direction.source)
        self._stop_ending_source()

    def close_for_stage(self, direction: Direction, how: Ending, in_reset: bool) -> None:
        """A stage ends the session: the sink of `direction` still gets what was written to it."""
        if self._how is not None:
            return
        self._by, self._how = Side.PROXY, how
        self._listener.relay_closing(Side.PROXY, how)
        other = self._opposite(direction)
        direction.detach()
        other.detach()
        self._notice_hidden(direction)
        if self._is_hidden(other):
            # There is nobody to deliver to.
            self.reset(Side.PROXY, how)
        elif in_reset:
            self._deliver_and_reset(direction)
        else:
            self._end_source(direction)
            direction.sink.resumeProducing()
            self._deliver_and_end(direction)

    def can_hide(self, direction: Direction) -> bool:
        """Whether the loss of the source of `direction` can be hidden from its sink."""
        other = self._opposite(direction)
        return self._how is None and not other.lost and not self._is_hidden(other)

    def _path_of(self, direction: Direction) -> Path | None:
        up, down = self._paths if self._paths else (None, None)
        return up if direction is self._to_upstream else down

    def _is_hidden(self, direction: Direction) -> bool:
        path = self._path_of(direction)
        return path is not None and path.hides_loss

    def _ended_by_stage(self, direction: Direction) -> bool:
        """Whether a stage has ended the stream, so that the source may still send."""
        path = self._path_of(direction)
        return path is not None and direction.ended and not path.source_ended

    def _notice_hidden(self, direction: Direction) -> None:
        """The source of `direction` counts as lost from now on, if stages have hidden that."""
        if self._is_hidden(direction):
            direction.lost = True

    def stream_ended(self, direction: Direction) -> None:
        """The source of `direction` ended its stream in order: pass the end on."""
        other = self._opposite(direction)
        direction.detach()
        self.moved()
        if other.lost or self._how not in (None, Ending.FINISHED):
            return
        if self._is_hidden(other):
            # The sink is gone already, and the source is not to notice.
            self._listener.relay_half_closed(direction.side)
        elif not half_closeable(direction.sink):
            self._finish(direction.side)
            self._deliver_and_end(direction)
        elif other.ended:
            self._finish(other.side)
            other.detach()
            if self._ended_by_stage(other):
                self._deliver_and_end(direction)
            else:
                # The queued bytes and the end of the stream are sent before the socket closes.
                direction.sink.loseConnection()
            if self._ended_by_stage(direction):
                self._end_source(direction)
            elif not direction.lost:
                direction.source.loseConnection()
        else:
            direction.sink.loseWriteConnection()
            self._listener.relay_half_closed(direction.side)

    def connection_lost(self, direction: Direction, in_order: bool) -> None:
        """The source of `direction`, which is the sink of the other direction, is lost."""
        other = self._opposite(direction)
        other.detach()
        self._notice_hidden(other)
        if other.lost and self._how is None:
            # Stages have hidden from this side that the other one is lost.
            self._by, self._how = other.side, Ending.RESET
            self._listener.relay_closing(self._by, self._how)
        if self._closing is direction:
            self._stop_tls_closing()
        if self._ending_source is not None and self._ending_source[0] is direction:
            self._stop_ending_source()
        ended = in_order or direction.ended
        finished = self._how is Ending.FINISHED
        cut_short = self._delivering is other
        if cut_short:
            self._stop_delivering()
            if not ended:
                self._cut(direction.side, Ending.RESET)
        if other.lost:
            self._closed()
        elif finished:
            direction.detach()
            if ended:
                self._deliver_and_end(direction)
            else:
                self._deliver_and_reset(direction)
        elif self._how is not None:
            keeps = self._ending_source is not None and (ended or self._is_closed(other))
            if cut_short and self._closing is not other and not keeps:
                # A stage has ended the session, and the peer that was to have the rest is gone.
                reset(other.source)
        elif in_order and not closed_here(direction.source):
            # A transport that cannot half-close (TLS) ends both streams at once.
            direction.ended = True
            self._finish(direction.side)
            direction.detach()
            self._deliver_and_end(direction)
        else:
            self._by, self._how = direction.side, Ending.RESET
            self._listener.relay_closing(self._by, self._how)
            direction.detach()
            self._deliver_and_reset(direction)

    def peer_reset(self, direction: Direction) -> None:
        """The source of `direction` is reset; its bytes are still read when the sink takes them."""
        other = self._opposite(direction)
        if self._closing is other:
            # The transport that is closed on its own side still gets what was written to it.
            self._stop_delivering()
            reset(direction.source)
        elif self._delivering is other or other.was_reset:
            self.reset((other if other.was_reset else direction).side, Ending.RESET)

    def closing_here(self, direction: Direction, ended: bool) -> None:
        """Code closes the source of `direction`, whose peer still gets what was written to it."""
        # The source would wait for its producer.
        self._opposite(direction).detach()
        if self._how is not None:
            return
        self._closing = direction
        self._tls_closing = TLSClosing(self._clock, direction.source)
        direction.detach()
        if ended:
            direction.ended = True
            self._finish(direction.side)
            self._deliver_and_end(direction)
        else:
            self._by, self._how = direction.side, Ending.RESET
            self._listener.relay_closing(self._by, self._how)
            self._deliver_and_reset(direction)

    def sink_closing(self, direction: Direction, ended: bool) -> None:
        """Code closes the sink of `direction`."""
        self.closing_here(self._opposite(direction), ended)

    def _deliver_and_end(self, direction: Direction) -> None:
        """Deliver what is written to the sink of `direction`, then the end of the stream."""
        sink = direction.sink
        ending = self._ending_source
        if getattr(sink, "disconnecting", False) or (ending and ending[0].source is sink):
            return
        if direction.lost and not self._opposite(direction).ended:
            # The bytes of the sink go nowhere, but must be read.
            sink.resumeProducing()
        if isinstance(sink, TLSMemoryBIOProtocol):
            # TLS reads on until its peer has answered the close_notify.
            sink.loseConnection()
        elif self._delivering is not direction:
            how = EndDelivery if half_closeable(sink) else Delivery
            self._delivering = direction
            self._delivery = how(self._clock, sink, self._delivered)

    def _end_source(self, direction: Direction) -> None:
        """Deliver what is written to the source of `direction`, which may still send, and close."""
        source = direction.source
        if direction.lost or getattr(source, "disconnecting", False):
            return
        if isinstance(source, TLSMemoryBIOProtocol):
            source.loseConnection()
            return
        source.resumeProducing()
        how = EndDelivery if half_closeable(source) else Delivery
        self._ending_source = direction, how(self._clock, source, self._source_delivered)

    def _source_delivered(self) -> None:
        assert self._ending_source is not None
        direction = self._ending_source[0]
        self._ending_source = direction, None
        direction.source.loseConnection()

    def _is_closed(self, direction: Direction) -> bool:
        ending = self._ending_source
        return ending is not None and ending[0] is direction and ending[1] is None

    def _deliver_and_reset(self, direction: Direction) -> None:
        # The bytes of the sink have nowhere to go.
        direction.sink.pauseProducing()
        self._stop_delivering()
        self._delivering = direction
        self._delivery = Delivery(self._clock, direction.sink, self._delivered_before_reset)

    def _delivered(self) -> None:
        direction = self._delivering
        assert direction is not None
        self._delivery = self._delivering = None
        if is_reset(descriptor_of(direction.sink)):
            # The peer will never have all; its half may not have reported the reset yet.
            self._cut(self._opposite(direction).side, Ending.RESET)
        direction.sink.loseConnection()

    def _delivered_before_reset(self) -> None:
        self._delivery = self._delivering = None
        for direction in (self._to_upstream, self._to_downstream):
            if not direction.lost and direction is not self._closing:
                reset(direction.source)

    def _stop_tls_closing(self) -> None:
        if self._tls_closing is not None:
            self._tls_closing.cancel()
            self._tls_closing = None

    def _stop_ending_source(self) -> None:
        if self._ending_source is not None:
            _, delivery = self._ending_source
            if delivery is not None:
                delivery.cancel()
            self._ending_source = None

    def _stop_delivering(self) -> None:
        if self._delivery is not None:
            self._delivery.cancel()
        self._delivery = self._delivering = None

    def _finish(self, by: Side) -> None:
        if self._how is None:
            self._by, self._how = by, Ending.FINISHED
            self._listener.relay_closing(by, Ending.FINISHED)

    def _cut(self, by: Side, how: Ending) -> None:
        """The delivery is cut short: the session has not finished in order."""
        if self._how is Ending.FINISHED:
            self._by, self._how = by, how

    def _closed(self) -> None:
        self._stop_delivering()
        self._stop_ending_source()
        assert self._how is not None
        for path in self._paths:
            path.close()
        close_stages(self._stages)
        self._listener.relay_closed(self._by, self._how)
        self._to_upstream.release()
        self._to_downstream.release()

    def _opposite(self, direction: Direction) -> Direction:
        return self._to_downstream if direction is self._to_upstream else self._to_upstream
