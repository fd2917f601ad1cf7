"""The contracts of a relay: with the two halves that it joins, and with their session."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.python.failure import Failure

from evproxy.model import Ending, Side


class Receiver(Protocol):
    """Takes the bytes and the end of one peer's stream."""

    def received(self, data: bytes) -> None:
        """The peer sent `data`."""

    def stream_ended(self) -> None:
        """The peer ended its stream in order; evproxy can still write to its connection."""

    def peer_reset(self) -> None:
        """The peer reset its connection while it was not read; its bytes can still be read."""

    def closing_here(self, ended: bool) -> bool:
        """
        Code between the peer's socket and the half closes the connection, in order.

        `ended`: the peer has ended its stream, and all of the stream was read.
        Returns whether the receiver will close the connection itself, later.
        """

    def half_broke(self) -> None:
        """The half raised an exception, which is logged; its connection is reset."""

    def connection_lost(self, reason: Failure) -> None:
        """The peer's connection is gone: ``ConnectionDone`` if in order."""


class Half(Protocol):
    """One half of a session: a Twisted protocol that passes its bytes and its end to a receiver."""

    transport: Any
    receiver: Receiver

    def peer_reset(self) -> None:
        """See `Receiver`."""

    def closing_here(self, ended: bool) -> bool:
        """See `Receiver`."""


class RelayListener(Protocol):
    """Is notified of how a relay ends.  The relay calls each method at most once."""

    def relay_half_closed(self, side: Side) -> None:
        """`side` ended its stream in order; the other direction continues."""

    def relay_closing(self, by: Side, how: Ending) -> None:
        """
        The end is decided, by `by` in the way `how`; delivery may be outstanding.

        The socket relay does not call this when both streams have ended in order and nothing is
        outstanding: it calls only `relay_closed`.
        """

    def relay_closed(self, by: Side, how: Ending) -> None:
        """
        Both connections are gone.  This is the last call.

        `by` and `how` are as decided, unless something cut the delivery short after that: then
        they say what did.
        """


class Relay(Protocol):
    """Moves the bytes of one session both ways until both sides are done."""

    name: str

    @property
    def bytes_to_upstream(self) -> int: ...

    @property
    def bytes_to_downstream(self) -> int: ...

    @property
    def kept(self) -> int:
        """How many bytes evproxy itself keeps for both peers, as far as the relay knows."""

    def totals(self) -> tuple[int, int, float | None]:
        """
        Return, in one call, the bytes to upstream, the bytes to downstream, and when the first
        byte came from the server, in seconds on the reactor's clock.
        """

    def idle_since(self, now: float) -> float:
        """
        Return when a byte last moved, as far as is known at `now`, in seconds on the reactor's
        clock.

        Bytes that a peer's kernel took since the last call count as moved.  The first call comes
        when the session has lasted for some seconds.
        """

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now; `relay_closed` follows."""
