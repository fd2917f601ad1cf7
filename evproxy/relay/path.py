"""
The way of the bytes of one direction through the stages of a session.

A `Path` stands between the half that reads and the direction of the relay that writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.model import Ending, Side
from evproxy.relay.contract import Receiver
from evproxy.relay.stages import Outlet, Stage

_log = Logger()


class Destination(Receiver, Protocol):
    """Where a path ends: a direction of the stream relay."""

    def came(self) -> None:
        """Bytes came from the source, which stages may hold."""

    @property
    def passing(self) -> bool:
        """Whether the direction still passes bytes on."""

    def hold(self, full: bool) -> None:
        """Do not read the source while the stages are `full`."""

    def discard(self) -> None:
        """A stage ends the stream: read the source, whose bytes are dropped from now on."""

    def close(self, how: Ending, reset: bool) -> None:
        """End the session; see `Outlet.close`."""

    @property
    def can_hide(self) -> bool:
        """Whether the loss of the source can be hidden: the session does not end yet."""

    def source_hidden(self) -> None:
        """The source is lost, which the stages hide for now."""


class Path:
    """
    The way of the bytes from `side` through `stages`; a `Receiver`.

    :param stages: in the order in which the bytes pass them.
    :param to: gets what the last stage passes on.

    `source_ended`: whether the source has ended its stream; a stage may end it before.
    """

    __slots__ = ("_full", "_hidden", "_hider", "_over", "_side", "_stages", "_to", "source_ended")

    def __init__(self, side: Side, stages: Sequence[Stage], to: Destination) -> None:
        self._side = side
        self._stages = stages
        self._to = to
        self._full = False
        self._over = False
        self.source_ended = False
        self._hidden: Failure | None = None
        # The number of the stage that hides the loss; -1 if none does.
        self._hider = -1

    @property
    def hides_loss(self) -> bool:
        """Whether the connection of the source is lost, and the stages hide that."""
        return self._hidden is not None

    def outlet(self, number: int) -> Outlet:
        """Return the outlet of stage `number`, counted from 0 in the order of this path."""
        return _Outlet(self, number + 1)

    # Called by the half that reads.

    def received(self, data: bytes) -> None:
        # When nothing is passed on any more, bytes are read only to be discarded.
        if self._to.passing:
            self._to.came()
            # Twisted's transports would report an exception as a loss of the source.
            try:
                self.give(0, data)
            except Exception:
                self.broke()

    def stream_ended(self) -> None:
        self.source_ended = True
        try:
            self.end(0)
        except Exception:
            self.broke()

    def peer_reset(self) -> None:
        self._to.peer_reset()

    def closing_here(self, ended: bool) -> bool:
        self._flush()
        return self._to.closing_here(ended)

    def half_broke(self) -> None:
        self._to.half_broke()

    def connection_lost(self, reason: Failure) -> None:
        self._lose_from(0, reason)

    def reveal(self, number: int) -> None:
        """Pass on that the connection is lost, if the stage before stage `number` has hidden it."""
        if self._hidden is not None and self._hider == number - 1:
            self._hider = -1
            self._stages[number - 1].flush(self._side)
            if self._hidden is not None:
                self._lose_from(number, self._hidden)

    def _lose_from(self, number: int, reason: Failure) -> None:
        """Pass the loss on to stage `number` and those behind it, up to one that hides it."""
        hider, was_hidden = -1, self._hidden is not None
        try:
            hider = self._pass_loss(number)
        finally:
            # A hidden loss that is none any more: the session has ended meanwhile.
            if hider < 0 and (self._hidden is not None or not was_hidden):
                self._hidden = None
                self._over = True
                self._to.connection_lost(reason)
        if hider >= 0:
            self._hider = hider
            if self._hidden is None:
                self._hidden = reason
                self._to.source_hidden()

    def _pass_loss(self, number: int) -> int:
        """Return the number of the next stage that hides the loss, or -1; flush those before."""
        for at in range(number, len(self._stages)):
            if not self._over and self._to.can_hide and self._stages[at].hides(self._side):
                return at
            self._stages[at].flush(self._side)
        return -1

    def _flush(self) -> None:
        for stage in self._stages:
            stage.flush(self._side)

    # Called by the outlets.

    def give(self, number: int, data: bytes) -> None:
        """Give `data` to stage `number`, or to the destination behind the last stage."""
        if self._over:
            return
        if number == len(self._stages):
            self._to.received(data)
        elif self._side is Side.DOWNSTREAM:
            self._stages[number].upload(data)
        else:
            self._stages[number].download(data)
        self.count()

    def end(self, number: int) -> None:
        """Give the end of the stream to stage `number`, or to the destination."""
        if self._over:
            return
        if number < len(self._stages):
            self._stages[number].ended(self._side)
        else:
            self._over = True
            # Twisted would report an end of the source again.
            if self._to.passing and not self.source_ended and self._hidden is None:
                self._to.discard()
            self._to.stream_ended()

    def finish(self, how: Ending, reset: bool) -> None:
        """End the session; see `Outlet.close`."""
        self._to.close(how, reset)

    def broke(self) -> None:
        """Log the current exception, and end the session."""
        _log.failure("A stage of a session broke")
        self._to.half_broke()

    def count(self) -> None:
        """See how much the stages hold, and read the source, or not."""
        full = any(stage.held(self._side) >= stage.room for stage in self._stages)
        if full != self._full and not self._over:
            self._full = full
            self._to.hold(full)

    def close(self) -> None:
        """The session is over."""
        self._over = True
        self._hidden = None


class _Outlet:
    """The `Outlet` before stage `number` of `path`."""

    __slots__ = ("_number", "_path")

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number

    # A timer of a stage may call these methods: then no half is there that notices an exception.

    def pass_on(self, data: bytes) -> None:
        try:
            self._path.give(self._number, data)
        except Exception:
            self._path.broke()

    def end(self) -> None:
        try:
            self._path.end(self._number)
        except Exception:
            self._path.broke()

    def close(self, how: Ending, reset: bool) -> None:
        self._path.finish(how, reset)

    def reveal(self) -> None:
        try:
            self._path.reveal(self._number)
        except Exception:
            self._path.broke()

    def recount(self) -> None:
        try:
            self._path.count()
        except Exception:
            self._path.broke()
