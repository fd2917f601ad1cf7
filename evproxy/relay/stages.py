"""
Stages: what sees, changes or delays the bytes of a session on their way.

A session with stages takes the stream relay; the socket relay knows nothing of them.  What the
client sends passes the stages from the first to the last, what the server sends from the last
to the first.  A `Path` is one such way: it stands between the half that reads and the
direction of the relay that writes.

Backpressure: a stage says how much it holds.  While all stages of a path hold `HELD` bytes or
more together, the source is not read.  While the sink takes no more, the source is not read
either, and what stages pass on then waits in the buffer of the sink's transport.  So no more is
kept for one direction than `HELD` bytes and one read, in the stages and in that buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.python.failure import Failure

from evproxy.model import Side
from evproxy.relay.contract import Receiver

HELD = 64 * 1024
"""From so many bytes on that the stages of one direction hold together, its source is not read."""


class Outlet(Protocol):
    """Where a stage passes on what comes from one side.  It may be called at any time."""

    def pass_on(self, data: bytes) -> None:
        """Give `data` to the next stage, or write it; ignored once the connection is lost."""

    def end(self) -> None:
        """Pass on the end of the stream; nothing is passed on after it."""


class Stage(Protocol):
    """One stage of one session: a plain object, made for that session."""

    def start(self, upload: Outlet, download: Outlet) -> None:
        """
        The session begins to relay; called once, first.

        :param upload: for what came from the client.
        :param download: for what came from the server.
        """

    def upload(self, data: bytes) -> None:
        """The client sent `data`: pass it on, changed or not, now or later."""

    def download(self, data: bytes) -> None:
        """The same for what the server sent."""

    def held(self, side: Side) -> int:
        """How many bytes that came from `side` are to be passed on later."""

    def ended(self, side: Side) -> None:
        """`side` ended its stream in order: pass that on behind all bytes, now or later."""

    def flush(self, side: Side) -> None:
        """The connection of `side` is over: pass on what is held of it now, or never."""

    def closed(self) -> None:
        """The session is over, and nothing is called any more: leave no timer."""


class PassThrough:
    """A `Stage` that passes everything on at once; one to inherit from."""

    def start(self, upload: Outlet, download: Outlet) -> None:
        self.outlets = {Side.DOWNSTREAM: upload, Side.UPSTREAM: download}

    def upload(self, data: bytes) -> None:
        self.outlets[Side.DOWNSTREAM].pass_on(data)

    def download(self, data: bytes) -> None:
        self.outlets[Side.UPSTREAM].pass_on(data)

    def held(self, side: Side) -> int:
        return 0

    def ended(self, side: Side) -> None:
        self.outlets[side].end()

    def flush(self, side: Side) -> None:
        """Nothing is held."""

    def closed(self) -> None:
        self.outlets.clear()


class Destination(Receiver, Protocol):
    """Where a path leads to: a direction of the stream relay."""

    def came(self) -> None:
        """Bytes came from the source, which stages may hold."""

    @property
    def passing(self) -> bool:
        """Whether it still passes bytes on."""

    def hold(self, full: bool) -> None:
        """Do not read the source while the stages are `full`."""


class Path:
    """
    The way of what comes from `side` through `stages`; a `Receiver`.

    :param stages: in the order in which they are passed.
    :param to: where what the last one passes on goes.
    """

    __slots__ = ("_full", "_over", "_side", "_stages", "_to")

    def __init__(self, side: Side, stages: Sequence[Stage], to: Destination) -> None:
        self._side = side
        self._stages = stages
        self._to = to
        self._full = False
        self._over = False

    def outlet(self, number: int) -> Outlet:
        """The outlet of the stage `number`, counted from 0 in the order of this path."""
        return _Outlet(self, number + 1)

    # What the half that reads hands on.

    def received(self, data: bytes) -> None:
        # What comes when nothing is passed on any more is only read to be out of the way.
        if self._to.passing:
            self._to.came()
            self.give(0, data)

    def stream_ended(self) -> None:
        self.end(0)

    def peer_reset(self) -> None:
        self._to.peer_reset()

    def closing_here(self, ended: bool) -> bool:
        self._flush()
        return self._to.closing_here(ended)

    def half_broke(self) -> None:
        self._to.half_broke()

    def connection_lost(self, reason: Failure) -> None:
        try:
            self._flush()
        finally:
            self._over = True
            self._to.connection_lost(reason)

    def _flush(self) -> None:
        for stage in self._stages:
            stage.flush(self._side)

    # What the outlets hand on.

    def give(self, number: int, data: bytes) -> None:
        """Give `data` to the stage `number`, or to what is behind the last one."""
        if self._over:
            return
        if number == len(self._stages):
            self._to.received(data)
        elif self._side is Side.DOWNSTREAM:
            self._stages[number].upload(data)
        else:
            self._stages[number].download(data)
        self._count()

    def end(self, number: int) -> None:
        """The same for the end of the stream."""
        if self._over:
            return
        if number < len(self._stages):
            self._stages[number].ended(self._side)
        else:
            self._over = True
            self._to.stream_ended()

    def _count(self) -> None:
        full = sum(stage.held(self._side) for stage in self._stages) >= HELD
        if full != self._full and not self._over:
            self._full = full
            self._to.hold(full)

    def close(self) -> None:
        """The session is over."""
        self._over = True


class _Outlet:
    """The `Outlet` before the stage `number` of `path`."""

    __slots__ = ("_number", "_path")

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number

    def pass_on(self, data: bytes) -> None:
        self._path.give(self._number, data)

    def end(self) -> None:
        self._path.end(self._number)
