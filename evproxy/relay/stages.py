"""
Stages: they see, change or delay the bytes of a session on their way.

A session with stages uses the stream relay; the socket relay knows nothing of stages.  The bytes
of the client pass the stages from the first to the last, the bytes of the server from the last to
the first (`evproxy.relay.path`).

Backpressure: a stage says how much it holds.  While a stage of a direction holds its `room` of
bytes or more (`HELD`, unless the stage says otherwise), the source is not read.  While the sink
takes no more bytes, the source is not read either, and what stages pass on waits in the buffer of
the sink's transport.  So the stages and that buffer keep at most the sum of the rooms and one read
for each direction.

A stage can also end the session, and it can hide for some time that the connection of one side is
lost, so that bytes that it still holds arrive before the loss is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.logger import Logger

from evproxy.errors import StageFailed
from evproxy.model import Ending, Side
from evproxy.records import SessionStatus

_log = Logger()

HELD = 64 * 1024
"""When a stage of one direction holds so many bytes, its source is not read."""


class Outlet(Protocol):
    """What a stage passes the bytes of one side on to.  A stage may call it at any time."""

    def pass_on(self, data: bytes) -> None:
        """Give `data` to the next stage, or write `data`; ignored once the connection is lost."""

    def end(self) -> None:
        """Pass on the end of the stream; nothing is passed on after it."""

    def close(self, how: Ending, reset: bool) -> None:
        """
        End the session, once the receiving peer has all bytes that were passed on here.

        :param how: the reason, for the record of the session.
        :param reset: whether both connections are reset, and not ended in order.
        """

    def reveal(self) -> None:
        """The loss of the connection, which a stage has hidden, is passed on now."""

    def recount(self) -> None:
        """A stage holds fewer bytes than before, although it has passed nothing on since then."""


class Stage(Protocol):
    """
    One stage of one session: a plain object that is made for the session.

    `room`: how many bytes of one side the stage may hold before the source is not read.
    """

    room: int

    def start(self, upload: Outlet, download: Outlet) -> None:
        """
        The session begins to relay; called once, before all other methods.

        :param upload: for bytes from the client.
        :param download: for bytes from the server.
        """

    def upload(self, data: bytes) -> None:
        """The client sent `data`: pass them on, changed or not, now or later."""

    def download(self, data: bytes) -> None:
        """The server sent `data`: pass them on, changed or not, now or later."""

    def held(self, side: Side) -> int:
        """Return how many bytes from `side` the stage will pass on later."""

    def ended(self, side: Side) -> None:
        """`side` ended its stream in order: pass the end on after all bytes, now or later."""

    def flush(self, side: Side) -> None:
        """The connection of `side` is over: pass on now what is held of `side`, or never."""

    def hides(self, side: Side) -> bool:
        """
        The connection of `side` is lost: return whether the other side is not to notice yet.

        Called at most once for each side, before `flush`, when all stages before this one have
        passed on what they held.  The stage calls `Outlet.reveal` later; then the next stage is
        asked.
        The other side notices earlier if its own connection is lost, or if the session ends.
        """

    def closed(self) -> None:
        """
        The session is over, and this is the last call: cancel all timers.

        Called without `start` before it if the session cannot begin to relay.
        """


StagesOfSession = Callable[[SessionStatus], Sequence[Stage]]
"""Makes stages of a session that has got its server; no stage: its bytes stay in the kernel."""

_PARTS = ("room", "start", "upload", "download", "held", "ended", "flush", "hides", "closed")
"""What each `Stage` has."""


def name_in_code(thing: object) -> str:
    """The name of a function or a class, ``MODULE:NAME``; of another object, that of its class."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def stages_of(maker: StagesOfSession, status: SessionStatus) -> list[Stage]:
    """
    The stages that `maker` makes for a session.

    :raises StageFailed: if what it returned are no stages.
    """
    # The maker may be a user's own.
    stages: Any = maker(status)
    if not isinstance(stages, Iterable):
        what = f"expected a sequence of stages, got {type(stages).__name__}"
        raise StageFailed(f"{name_in_code(maker)}: {what}")
    made = list(stages)
    for stage in made:
        missing = [part for part in _PARTS if not hasattr(stage, part)]
        if missing:
            what = f"expected a stage, got {type(stage).__name__}, which has no {missing[0]}"
            raise StageFailed(f"{name_in_code(maker)}: {what}")
    return made


class PassThrough:
    """A `Stage` that passes everything on at once; a base class for stages."""

    room = HELD

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
        """Nothing to do: the stage holds nothing."""

    def hides(self, side: Side) -> bool:
        return False

    def closed(self) -> None:
        self.outlets = {}


def close_stages(stages: Sequence[Stage]) -> None:
    """The session of `stages` is over; an exception of one is logged, and the others go on."""
    for stage in stages:
        try:
            stage.closed()
        except Exception:
            _log.failure("A stage raised an exception when its session was over")
